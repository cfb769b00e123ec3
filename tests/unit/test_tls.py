"""Encryption: verified by default, every wrong option and every refusal one sentence."""

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from simlink.channels import tls
from simlink.channels.tls import Tls
from simlink.errors import ConfigError, ConnectError
from tests.support.certificates import Authority

WHERE = "tcps://127.0.0.1:1/orders"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "stranger")


@pytest.fixture(scope="module")
def server(authority):
    return authority.issue("127.0.0.1", "localhost")


def options(**given):
    found = Tls.of({**dict.fromkeys(tls.OPTIONS), **given}, secure=True, where=WHERE)
    assert found is not None
    return found


def shake(client, server, name="127.0.0.1"):
    """A handshake in memory, then a byte each way; what either side raised, client first."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    raised = [None, None]
    for step in ("do_handshake", "write", "read"):
        left = {0, 1}
        for _ in range(10):
            for i in sorted(left):
                if raised[i] is not None:
                    continue
                try:
                    {
                        "do_handshake": ends[i].do_handshake,
                        "write": lambda i=i: ends[i].write(b"x"),
                        "read": lambda i=i: ends[i].read(1),
                    }[step]()
                    left.discard(i)
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError as error:
                    raised[i] = error
    return raised, ends[0].version()


@pytest.mark.parametrize("minimum", ["1.2", "1.3"])
def test_the_right_certificates_are_accepted(authority, server, minimum):
    client = tls.client_context(options(ca=authority.ca, tls_min=minimum))

    assert shake(client, tls.server_context(options(cert=server.cert, key=server.key))) == ([None, None], "TLSv1.3")


def test_verification_is_on_and_the_oldest_version_is_1_2():
    context = tls.client_context(options())

    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.get_ca_certs() == [] or context.cert_store_stats()["x509_ca"] > 0


def test_a_ca_of_our_own_stands_instead_of_the_system_s(authority):
    context = tls.client_context(options(ca=authority.ca))
    assert context.cert_store_stats() == {"x509": 1, "crl": 0, "x509_ca": 1}


def test_one_file_may_hold_certificate_and_key(authority, server, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(Path(server.cert).read_bytes() + Path(server.key).read_bytes())
    client = tls.client_context(options(ca=authority.ca))

    assert shake(client, tls.server_context(options(cert=str(both))))[0] == [None, None]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize(
    ("fault", "clause"),
    [
        ("expired", "its certificate has expired"),
        ("wrong name", "its certificate is for another name than the one it was called by"),
        ("wrong address", "its certificate is for another name than the one it was called by"),
        ("wrong ca", "its certificate is not signed by a trusted CA; give its CA with ca="),
    ],
)
def test_a_wrong_server_is_refused_with_its_reason(authority, stranger, server, fault, clause, version):
    files = authority.issue("127.0.0.1", expired=True) if fault == "expired" else server
    name = {"wrong name": "other.example", "wrong address": "127.0.0.2"}.get(fault, "127.0.0.1")
    context = tls.client_context(options(ca=(stranger if fault == "wrong ca" else authority).ca))
    context.maximum_version = ssl.TLSVersion.TLSv1_3 if version == "1.3" else ssl.TLSVersion.TLSv1_2
    (raised, _), _ = shake(context, tls.server_context(options(cert=files.cert, key=files.key)), name)

    assert tls.explain(raised) == clause
    assert tls.explain(f"the library's own words: {raised}") == clause
    error = tls.refusal(raised, endpoint="127.0.0.1:1", url=WHERE)
    assert str(error) == f"TLS with 127.0.0.1:1 is refused: {clause}"
    assert (error.retryable, error.endpoint, error.url, error.__cause__) == (False, "127.0.0.1:1", WHERE, raised)


@pytest.mark.parametrize(
    ("version", "shown", "clause"),
    [
        ("1.3", None, "it wants a client certificate; give one with cert= and key="),
        (
            "1.2",
            None,
            "it broke the handshake off: it may want a client certificate (cert= and key=), or another TLS version",
        ),
        ("1.3", "stranger", "it does not trust our certificate; see cert= (and ca= at its side)"),
        ("1.2", "stranger", "it does not trust our certificate; see cert= (and ca= at its side)"),
    ],
)
def test_a_client_that_may_not_in_is_told_why(authority, stranger, server, version, shown, clause):
    listener = tls.server_context(options(cert=server.cert, key=server.key, ca=authority.ca))
    files = stranger.issue("client.example") if shown else None
    context = tls.client_context(options(ca=authority.ca, **({"cert": files.cert, "key": files.key} if files else {})))
    context.maximum_version = ssl.TLSVersion.TLSv1_3 if version == "1.3" else ssl.TLSVersion.TLSv1_2
    (at_client, at_server), _ = shake(context, listener)

    assert tls.explain(at_client) == clause
    assert at_server is not None


def test_no_certificate_is_told_from_a_wrong_one_where_the_server_says_the_same():
    said = "[SSL: SSLV3_ALERT_BAD_CERTIFICATE] sslv3 alert bad certificate"
    none = tls.refusal(said, endpoint="h:1", tls=options())
    wrong = tls.refusal(said, endpoint="h:1", tls=options(cert="c.pem"))

    assert str(none) == "TLS with h:1 is refused: it wants a client certificate; give one with cert= and key="
    assert str(wrong) == "TLS with h:1 is refused: it does not trust our certificate; see cert= (and ca= at its side)"


def test_a_client_certificate_lets_in(authority, server):
    mine = authority.issue("client.example")
    listener = tls.server_context(options(cert=server.cert, key=server.key, ca=authority.ca))
    client = tls.client_context(options(ca=authority.ca, cert=mine.cert, key=mine.key))

    assert shake(client, listener)[0] == [None, None]


def test_an_old_version_is_refused_with_its_reason(authority, server):
    client = tls.client_context(options(ca=authority.ca))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    listener = tls.server_context(options(cert=server.cert, key=server.key, tls_min="1.3"))
    (at_client, at_server), _ = shake(client, listener)

    clause = "the two sides have no TLS version in common; see tls_min="
    assert [tls.explain(at_client), tls.explain(at_server)] == [clause, clause]


def test_a_peer_without_tls_is_told_apart(authority):
    incoming = ssl.MemoryBIO()
    ours = tls.client_context(options(ca=authority.ca)).wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="127.0.0.1")
    incoming.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ssl.SSLError) as caught:
        ours.do_handshake()

    assert tls.explain(caught.value) == "it does not speak TLS on this port"


def test_the_reason_is_found_behind_a_library_s_own_error(authority, server):
    context = tls.client_context(options(ca=authority.ca))
    (raised, _), _ = shake(context, tls.server_context(options(cert=server.cert, key=server.key)), "other.example")
    outer = RuntimeError("max retries exceeded")
    outer.reason = OSError("connection failed", raised)

    assert tls.explain(outer) == "its certificate is for another name than the one it was called by"


@pytest.mark.parametrize(
    "error",
    [ConnectionRefusedError(111, "Connection refused"), TimeoutError("timed out"), ssl.SSLEOFError(8, "EOF occurred")],
)
def test_what_is_no_refusal_is_left_to_others(error):
    assert tls.explain(error) is None
    assert tls.refusal(error, endpoint="h:1") is None


# --- wrong options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ca", "cert", "key", "tls_min"])
def test_options_of_encryption_are_refused_on_a_plain_scheme(name):
    with pytest.raises(
        ConfigError, match=rf"{name}= means nothing without TLS; use a scheme with TLS instead of tcp://"
    ):
        Tls.of({name: "1.2"}, secure=False, where="tcp://h:1/orders")


def test_a_plain_scheme_has_none():
    assert Tls.of(dict.fromkeys(tls.OPTIONS), secure=False, where="tcp://h:1/orders") is None


def test_a_key_needs_a_certificate():
    with pytest.raises(ConfigError, match="key= needs the certificate that it belongs to"):
        options(key="k.pem")


def test_a_listener_needs_a_certificate(authority):
    with pytest.raises(ConfigError, match="a receiver that listens with TLS needs cert= and key="):
        tls.server_context(options(ca=authority.ca))


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_a_missing_file_is_named(server, tmp_path, name):
    missing = str(tmp_path / "missing.pem")
    given = {"cert": server.cert, "key": server.key, name: missing}
    with pytest.raises(ConfigError) as caught:
        tls.client_context(options(**given))
    assert str(caught.value) == f"{WHERE}: {name}={missing!r} cannot be read: No such file or directory"


def test_what_is_no_certificate_is_named(authority, server, tmp_path):
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    other = authority.issue("other.example")
    for given, expected in [
        ({"ca": str(junk)}, f"ca={str(junk)!r} has no certificate in PEM form"),
        ({"cert": server.cert}, f"cert={server.cert!r} has no certificate and its private key in PEM form"),
        (
            {"cert": server.cert, "key": str(junk)},
            f"cert={server.cert!r} has no certificate, or key= no private key, in PEM form",
        ),
        (
            {"cert": server.cert, "key": other.key},
            f"the private key in {other.key!r} is not that of {server.cert!r}",
        ),
    ]:
        with pytest.raises(ConfigError) as caught:
            tls.client_context(options(**given))
        assert str(caught.value) == f"{WHERE}: {expected}"


def test_an_encrypted_key_is_refused_and_not_asked_for_at_the_terminal(server, tmp_path):
    locked = tmp_path / "locked.key"
    key = serialization.load_pem_private_key(Path(server.key).read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
    )
    with pytest.raises(ConfigError, match="is encrypted; give one that is not"):
        tls.client_context(options(cert=server.cert, key=str(locked)))


def test_the_bytes_of_the_files(authority, server):
    found = tls.pem(options(ca=authority.ca, cert=server.cert, key=server.key), server=True)

    assert found.ca == Path(authority.ca).read_bytes()
    assert (found.cert, found.key) == (Path(server.cert).read_bytes(), Path(server.key).read_bytes())
    assert "PRIVATE KEY" not in repr(found)
    assert isinstance(tls.refusal("SSL: certificate has expired", endpoint="h:1"), ConnectError)
