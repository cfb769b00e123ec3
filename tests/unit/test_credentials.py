"""Credentials: from code, the URL or the environment, in that order, and never shown."""

import pytest

from simlink.channels.credentials import LOGIN, SECRET, TOKEN, Login, Secret
from simlink.channels.url import convert_options, parse_url
from simlink.errors import ConfigError, ConnectError, InvalidURL

HIDDEN = "S3cr3t-hidden"
WHERE = "amqp://h/orders"


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in ("USER", "PASSWORD", "TOKEN", "SECRET"):
        monkeypatch.delenv(f"SIMLINK_AMQP_{name}", raising=False)


def login(url=WHERE, credentials=None):
    return Login.of(parse_url(url), credentials, family="amqp")


def secret(value=None, name="token"):
    return Secret.of(parse_url(WHERE), name, value, family="amqp")


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        (WHERE, {}, None),
        (f"amqp://ann:{HIDDEN}@h/orders", {}, ("ann", HIDDEN)),
        ("amqp://ann:@h/orders", {}, ("ann", "")),
        (f"amqp://:{HIDDEN}@h/orders", {}, (None, HIDDEN)),
        (WHERE, {"USER": "eve", "PASSWORD": HIDDEN}, ("eve", HIDDEN)),
        (WHERE, {"PASSWORD": HIDDEN}, (None, HIDDEN)),
        ("amqp://ann@h/orders", {"PASSWORD": HIDDEN}, ("ann", HIDDEN)),
        (f"amqp://ann:{HIDDEN}@h/orders", {"USER": "eve", "PASSWORD": "other"}, ("ann", HIDDEN)),
    ],
)
def test_where_a_login_comes_from(monkeypatch, url, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(f"SIMLINK_AMQP_{name}", value)
    found = login(url)

    assert (found.get(), found.given) == (expected, expected is not None)
    assert HIDDEN not in f"{found!r} {found}"


def test_a_function_is_asked_at_each_connect():
    answers = iter([("ann", "one"), ("ann", "two")])
    found = login(credentials=lambda: next(answers))

    assert [found.get(), found.get()] == [("ann", "one"), ("ann", "two")]


@pytest.mark.parametrize(
    ("url", "credentials", "expected"),
    [
        (
            "amqp://ann:pw@h/orders",
            lambda: ("ann", "pw"),
            "a user is given in the URL and by credentials=; give it once",
        ),
        (WHERE, ("ann", HIDDEN), "credentials= is a function that returns (user, password)"),
        (
            "amqp://ann@h/orders",
            None,
            "the user 'ann' has no password: give one in the URL, in SIMLINK_AMQP_PASSWORD or by credentials=",
        ),
    ],
)
def test_a_wrong_login_is_refused_early(url, credentials, expected):
    with pytest.raises(ConfigError) as caught:
        login(url, credentials)
    assert str(caught.value) == f"{parse_url(url)}: {expected}"


@pytest.mark.parametrize("answer", [None, HIDDEN, ("ann",), ("ann", 7), ["ann", HIDDEN]])
def test_a_function_s_wrong_answer_is_refused_without_showing_it(answer):
    with pytest.raises(ConnectError) as caught:
        login(credentials=lambda: answer).get()
    assert str(caught.value) == f"{WHERE}: the function given as credentials= did not return (user, password)"
    assert caught.value.retryable is False


def test_a_function_s_own_failure_is_told_by_its_kind():
    def broken():
        raise KeyError(HIDDEN)

    for found, name in [(login(credentials=broken), "credentials"), (secret(broken), "token")]:
        with pytest.raises(ConnectError) as caught:
            found.get()
        assert str(caught.value) == f"{WHERE}: the function given as {name}= raised KeyError"


def test_a_function_may_say_that_trying_again_helps():
    def away():
        raise ConnectError("the vault is sealed", retryable=True)

    with pytest.raises(ConnectError, match="the vault is sealed") as caught:
        login(credentials=away).get()
    assert caught.value.retryable is True


def test_where_a_secret_comes_from(monkeypatch):
    assert (secret().get(), secret().given) == (None, False)
    monkeypatch.setenv("SIMLINK_AMQP_TOKEN", "from-environment")
    assert (secret().get(), secret().given) == ("from-environment", True)
    assert secret(HIDDEN).get() == HIDDEN
    assert secret(lambda: HIDDEN).get() == HIDDEN
    assert HIDDEN not in f"{secret(HIDDEN)!r} {secret(HIDDEN)}"
    with pytest.raises(ConfigError, match="token= is empty"):
        secret("")
    with pytest.raises(ConnectError, match="did not return a text"):
        secret(lambda: b"bytes").get()


@pytest.mark.parametrize(("known", "name"), [(TOKEN, "token"), (SECRET, "secret")])
def test_a_secret_option_takes_text_or_in_code_a_function(known, name):
    def ask():
        return HIDDEN

    assert convert_options(known, {name: HIDDEN}, where=WHERE, from_url=True) == {name: HIDDEN}
    assert convert_options(known, {name: ask}, where=WHERE, from_url=False) == {name: ask}
    with pytest.raises(ConfigError) as caught:
        convert_options(known, {name: HIDDEN.encode()}, where=WHERE, from_url=False)
    assert HIDDEN not in str(caught.value)


def test_a_login_s_function_cannot_come_from_a_url():
    with pytest.raises(InvalidURL, match="credentials can only be given in code"):
        convert_options(LOGIN, {"credentials": HIDDEN}, where=WHERE, from_url=True)


def test_a_parsed_url_shows_no_secret_of_its_query():
    target = parse_url(f"amqp://ann:{HIDDEN}@h/orders?token={HIDDEN}&secret={HIDDEN}")
    assert repr(target) == "Target('amqp://ann:**@h/orders?token=**&secret=**')"
