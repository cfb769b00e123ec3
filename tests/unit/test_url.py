"""URLs and options: read and written without loss, secrets never shown, every mistake one clear line."""

import string
import traceback
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simlink.channels import registry
from simlink.channels.channel import queue
from simlink.channels.url import Host, Option, Target, convert_options, parse_url
from simlink.errors import ConfigError, InvalidURL, UnknownScheme, did_you_mean

NAMES = st.text(string.ascii_letters + string.digits + "._~@:+-", min_size=1, max_size=30).filter(
    lambda name: name not in {".", ".."}
)
HOSTS = st.one_of(
    st.from_regex(r"[a-z][a-z0-9\-]{0,10}(\.[a-z]{2,5})?", fullmatch=True),
    st.sampled_from(["::1", "fe80::1:2", "127.0.0.1"]),
)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=15)
PARAMS = st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), TEXT, max_size=3)
SECRET = "S3cr3t/p@ss:word"


@st.composite
def targets(draw):
    scheme = draw(st.sampled_from(["tcp", "kafka+python", "redis", "amqps"]))
    hosts = draw(
        st.lists(st.builds(Host, HOSTS, st.none() | st.integers(0, 65_535)), min_size=1, max_size=3, unique=True)
    )
    user = draw(st.none() | TEXT)
    return Target(
        scheme,
        tuple(hosts),
        tuple(draw(st.lists(TEXT.filter(bool), max_size=2))),
        draw(NAMES),
        user,
        None if user is None else draw(st.none() | TEXT),
        draw(PARAMS),
    )


def written(target):
    """The URL, as a user would write it: with its password."""
    credentials = ""
    if target.user is not None:
        credentials = quote(target.user, safe="")
        if target.password is not None:
            credentials += ":" + quote(target.password, safe="")
        credentials += "@"
    where = "/".join([",".join(map(str, target.hosts)), *(quote(s, safe="") for s in target.path), target.name])
    query = "&".join(f"{name}={quote_plus(value)}" for name, value in target.params.items())
    return f"{target.scheme}://{credentials}{where}{'?' * bool(query)}{query}"


@given(targets())
def test_what_is_written_is_read_back(target):
    assert parse_url(written(target)) == target


@given(targets())
def test_what_is_shown_is_read_back_but_for_its_secrets(target):
    shown = parse_url(str(target))
    masked = {name: "**" if name in {"password", "secret", "token"} else value for name, value in target.params.items()}

    assert (shown.scheme, shown.hosts, shown.path, shown.name) == (
        target.scheme,
        target.hosts,
        target.path,
        target.name,
    )
    assert (shown.user, shown.params) == (target.user, masked)
    assert shown.password == (None if target.password is None else "**")


@pytest.mark.parametrize(
    ("url", "hosts", "path", "name"),
    [
        ("memory://orders", (), (), "orders"),
        ("tcp://a:7001/orders", (Host("a", 7001),), (), "orders"),
        ("tcp://a:7001,b:7002,[::1]:7003/orders", (Host("a", 7001), Host("b", 7002), Host("::1", 7003)), (), "orders"),
        ("amqp://mq/vhost/orders", (Host("mq"),), ("vhost",), "orders"),
        ("amqp://mq/%2F/orders", (Host("mq"),), ("/",), "orders"),
        ("redis://h/0/orders", (Host("h"),), ("0",), "orders"),
        ("spool:///var/spool/orders", (), ("var", "spool"), "orders"),
    ],
)
def test_the_parts_of_a_url(url, hosts, path, name):
    target = parse_url(url)
    assert (target.hosts, target.path, target.name) == (hosts, path, name)
    assert str(target) == url


# --- secrets --------------------------------------------------------------------------------------------------------


@given(st.text(string.ascii_letters + string.digits + "+-_", min_size=6, max_size=20))
@example("hunter2hunter2")
def test_a_password_is_never_shown(password):
    password = "p4" + password
    target = parse_url(f"tcp://ann:{password}@host:1/orders")
    for text in (str(target), repr(target), f"{target}"):
        assert password not in text
    assert target.password == password


@pytest.mark.parametrize("url", ["tcp://h:port/x?sasl_password=", "kafak://h/x?password=", "tcp:/ann:"])
def test_a_secret_in_a_wrong_url_is_never_shown(url):
    with pytest.raises(ConfigError) as caught:
        queue(f"{url}S3cr3t@h")
    assert "S3cr3t" not in str(caught.value)


@pytest.mark.parametrize("name", ["password", "sasl_password", "ssl_secret", "access_token"])
def test_a_secret_parameter_is_never_shown(name):
    assert SECRET not in str(parse_url(f"tcp://host:1/orders?{name}={quote(SECRET, safe='')}"))
    with pytest.raises(ConfigError) as caught:
        convert_options({name: Option(int, None, "")}, {name: SECRET}, where="tcp://host:1/orders", from_url=False)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://h/x?tokn=S3cr3t",
        "tcp://h:1/x?secrt=S3cr3t",
        "tcp://h:1,h:2/x?pw=S3cr3t",
        "amqp://h/x?balancer=led&pwd=S3cr3t",
        "http://h:port/x?tokn=S3cr3t",
    ],
)
def test_what_stands_behind_a_misspelt_name_is_not_shown(url):
    with pytest.raises(ConfigError) as caught:
        queue(url)
    assert "=**" in str(caught.value)
    assert "S3cr3t" not in str(caught.value)


@pytest.mark.parametrize("secret", [SECRET.encode(), 12345, [SECRET]])
def test_a_secret_of_the_wrong_type_is_in_no_traceback(secret):
    with pytest.raises(ConfigError) as caught:
        convert_options({"token": Option(str, None, "")}, {"token": secret}, where="tcp://host:1/x", from_url=False)
    told = "".join(traceback.format_exception(caught.value))
    assert "token=** is not of type str" in told
    assert str(secret) not in told


MALFORMED = [
    "",
    "orders",
    "://host/orders",
    "1tcp://host/orders",
    "TCP://host:1/orders",
    "tcp:/host:1/orders",
    "tcp://host:1",
    "tcp://host:1/",
    "tcp://host:1/a/",
    "memory://",
    "memory://a/",
    "tcp://host:1/or ders",
    "tcp://host:1/or%20ders",
    "tcp://host:1/or%2Fders",
    "tcp://host:1/" + "x" * 201,
    "tcp://host:1/.",
    "tcp://host:1/..",
    "tcp://host:1/or\nders",
    "tcp://host:1/orders\n",
    "tcp://host:/orders",
    "tcp://host:port/orders",
    "tcp://host:65536/orders",
    "tcp://host:-1/orders",
    "tcp://host:１/orders",
    "tcp://:1/orders",
    "tcp://a:1,,b:1/orders",
    "tcp://a:1,a:1/orders",
    "tcp://[::1/orders",
    "tcp://[::1]x:1/orders",
    "tcp://[]:1/orders",
    "tcp://host:1/orders#part",
    "tcp://host:1/orders?x",
    "tcp://host:1/orders?=1",
    "tcp://host:1/orders?a=1&a=2",
    "tcp://host:1/orders?a=1&&b=2",
    "tcp://host with space:1/orders",
]


@pytest.mark.parametrize("url", MALFORMED)
def test_a_malformed_url_is_one_clear_line(url):
    with pytest.raises(InvalidURL) as caught:
        parse_url(url)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > 20


@pytest.mark.parametrize("url", MALFORMED)
def test_no_mistake_makes_a_password_show(url):
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "memory":
        return  # there is nobody to log in to
    with pytest.raises(ConfigError) as caught:
        queue(f"{scheme}://ann:{SECRET}@{rest}")
    shown = str(caught.value)
    assert SECRET not in shown
    assert "p@ss" not in shown


@given(st.text(max_size=60))
@example("tcp://[")
@example("tcp://%zz/%zz")
@example("tcp://a:b@c:d@/x")
def test_any_text_is_a_url_or_an_invalid_url(text):
    problem = ""
    try:
        parse_url(text)
    except InvalidURL as error:
        problem = str(error)
    assert "\n" not in problem


@pytest.mark.parametrize("wrong", [None, 7, b"tcp://a:1/x"])
def test_a_url_is_text(wrong):
    with pytest.raises(InvalidURL, match="a URL is text"):
        parse_url(wrong)


def test_an_address_without_a_port_needs_a_default():
    target = parse_url("tcp://a,b:2/orders")
    assert [target.address(host, 7) for host in target.hosts] == [("a", 7), ("b", 2)]
    with pytest.raises(InvalidURL, match="a needs a port, as in tcp://a:7001/orders"):
        target.address(target.hosts[0])


# --- options --------------------------------------------------------------------------------------------------------

KNOWN = {
    "count": Option(int, 5, "", minimum=1),
    "pause": Option(float, 0.5, "", minimum=0),
    "sync": Option(bool, False, ""),
    "mode": Option(str, "a", "", choices=("a", "b")),
    "limit": Option(int, None, ""),
    "hook": Option(object, None, ""),
}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "7", 7),
        ("pause", "2", 2.0),
        ("pause", "1e-3", 0.001),
        *(("sync", text, True) for text in ("1", "true", "YES", "on")),
        *(("sync", text, False) for text in ("0", "False", "no", "off")),
        ("mode", "b", "b"),
    ],
)
def test_a_parameter_of_the_url_becomes_a_value(name, text, value):
    found = convert_options(KNOWN, {name: text}, where="x", from_url=True)
    assert found == {name: value}
    assert type(found[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("count", "many", "is not of type int"),
        ("count", "0", "must be at least 1"),
        ("count", "1.5", "is not of type int"),
        ("pause", "nan", "must be at least 0"),
        ("pause", "-1", "must be at least 0"),
        ("sync", "perhaps", "is not of type bool"),
        ("mode", "c", "is not one of a, b"),
        ("hook", "x", "can only be given in code"),
        ("cuont", "7", "unknown parameter 'cuont'; did you mean 'count'"),
        ("zzz", "7", "unknown parameter 'zzz'; known: count, hook, limit"),
    ],
)
def test_a_wrong_parameter_is_an_invalid_url(name, text, why):
    with pytest.raises(InvalidURL) as caught:
        convert_options(KNOWN, {name: text}, where="x://h/n", from_url=True)
    assert str(caught.value).startswith("x://h/n: ")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("count", "7"), ("count", True), ("count", 1.5), ("sync", 1), ("sync", "true"), ("pause", "1"), ("mode", 3)],
)
def test_in_code_a_value_has_its_type(name, value):
    with pytest.raises(ConfigError, match="is not of type"):
        convert_options(KNOWN, {name: value}, where="x", from_url=False)


def test_in_code_a_path_is_a_text(tmp_path):
    found = convert_options({"ca": Option(str, None, "")}, {"ca": tmp_path}, where="x", from_url=False)
    assert found == {"ca": str(tmp_path)}


def test_in_code_a_number_may_be_whole_and_a_callable_stays_itself():
    found = convert_options(KNOWN, {"pause": 2, "hook": print, "limit": None}, where="x", from_url=False)
    assert found == {"pause": 2.0, "hook": print, "limit": None}
    assert type(found["pause"]) is float


# --- schemes --------------------------------------------------------------------------------------------------------


def test_an_unknown_scheme_is_refused_with_a_did_you_mean():
    with pytest.raises(UnknownScheme, match="no transport for kafak://; did you mean 'kafka'"):
        queue("kafak://h/orders")
    with pytest.raises(UnknownScheme, match=r"known: .*memory"):
        queue("zzzz://h/orders")


def test_an_unknown_parameter_is_refused_with_a_did_you_mean():
    with pytest.raises(InvalidURL, match=r"memory://orders.*unknown parameter 'windwo'; did you mean 'window'"):
        queue("memory://orders?windwo=3")


def test_a_driver_installed_after_the_first_look_is_found(tmp_path, monkeypatch):
    registry.known_schemes()
    info = tmp_path / "late-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[simlink.drivers]\nlate = simlink.channels.memory:MemoryDriver\nbroken = no_such_module:Driver\n"
        "wrong = simlink.errors:ConfigError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert registry.driver_class("late").__name__ == "MemoryDriver"
        assert {"late", "memory"} <= set(registry.known_schemes())
        with pytest.raises(
            ConfigError, match="broken:// is registered as 'no_such_module:Driver', which cannot be imp"
        ):
            registry.driver_class("broken")
        with pytest.raises(ConfigError, match=r"wrong:// .*not a Driver"):
            registry.driver_class("wrong")
    finally:
        registry._installed.cache_clear()
        registry.driver_class.cache_clear()


def test_did_you_mean_suggests_or_lists():
    assert did_you_mean("quue", ["queue", "topic"]) == "; did you mean 'queue'?"
    assert did_you_mean("xyz", ["b", "a"]) == "; known: a, b"
    assert did_you_mean("xyz", []) == ""
