"""Kafka with TLS and a login, both clients, against a real broker: in with the right ones, out in one sentence."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import threading
import time

import pytest

import simlink
from simlink.channels.kafka import KafkaDriver
from simlink.channels.url import parse_url
from simlink.errors import ConfigError, ConnectError, NotSupported
from simlink.testing import brokers, conformance
from simlink.testing.brokers import Certificates, KafkaBroker
from tests.support.certificates import Authority

PASSWORD = "hidden w#1;pass"
QUOTED = "hidden%20w%231%3Bpass"
CLIENTS = ["python", "confluent"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def mine(authority):
    return authority.issue("client.example")


@pytest.fixture(scope="module")
def broker(authority):
    """TLS with client certificates, and a user."""
    here, how = brokers.available()["kafka"]
    if not here:
        pytest.skip(how)
    server = authority.issue("127.0.0.1")
    with KafkaBroker(tls=Certificates(server.cert, server.key, authority.ca), user="ann", password=PASSWORD) as running:
        yield running


@pytest.fixture(scope="module")
def files(authority, mine):
    return {"ca": authority.ca, "cert": mine.cert, "key": mine.key}


def at(broker, client, *, user=f"ann:{QUOTED}@", host="127.0.0.1"):
    return f"kafkas+{client}://{user}{host}:{broker.port}/{conformance.Harness.fresh_name()}"


def refusal(url, **options):
    since = time.monotonic()
    with simlink.queue(url, **options) as orders, pytest.raises(ConnectError) as caught:
        orders.send({"n": 1}, timeout=30.0)
    assert time.monotonic() - since < 25.0, "refused, not timed out"
    error = caught.value
    assert (error.retryable, "\n" in str(error), PASSWORD in str(error)) == (False, False, False)
    return str(error)


@pytest.mark.broker("kafka")
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("sasl", [None, "scram-sha-512", "scram-sha-256", "plain"])
def test_the_right_certificate_and_password_let_in(broker, files, client, sasl):
    given = {"sasl": sasl} if sasl else {}
    with simlink.queue(at(broker, client), **files, **given) as orders:
        orders.send({"n": 1})
        with orders.receiver() as rx:
            assert rx.take(1, timeout=20.0) == [{"n": 1}]


@pytest.mark.broker("kafka")
@pytest.mark.parametrize("client", CLIENTS)
def test_credentials_from_a_function_or_the_environment(broker, files, client, monkeypatch):
    asked = []

    def credentials():
        asked.append(1)
        return "ann", PASSWORD

    with simlink.queue(at(broker, client, user=""), credentials=credentials, **files) as orders:
        orders.send({"n": 1})
    assert asked
    monkeypatch.setenv("SIMLINK_KAFKA_PASSWORD", PASSWORD)
    with simlink.queue(at(broker, client, user="ann@"), **files) as orders:
        orders.send({"n": 1})


@pytest.mark.broker("kafka")
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("sasl", ["plain", "scram-sha-512"])
def test_a_wrong_password(broker, files, client, sasl):
    said = refusal(at(broker, client, user="ann:wrong@"), sasl=sasl, **files)
    assert said.startswith(f"Kafka at 127.0.0.1:{broker.port} refused: ")
    assert "uthentication" in said


@pytest.mark.broker("kafka")
@pytest.mark.parametrize("client", CLIENTS)
def test_wrong_certificates(broker, files, client, tmp_path):
    stranger = Authority(tmp_path)
    theirs = stranger.issue("client.example")
    for options, host, clause in [
        (
            files | {"ca": stranger.ca},
            "127.0.0.1",
            "its certificate is not signed by a trusted CA; give its CA with ca=",
        ),
        (files, "localhost", "its certificate is for another name than the one it was called by"),
        ({"ca": files["ca"]}, "127.0.0.1", "it wants a client certificate; give one with cert= and key="),
        (
            files | {"cert": theirs.cert, "key": theirs.key},
            "127.0.0.1",
            "it does not trust our certificate; see cert= (and ca= at its side)",
        ),
    ]:
        assert refusal(at(broker, client, host=host), **options) == (
            f"TLS with {host}:{broker.port} is refused: {clause}"
        )


@pytest.mark.broker("kafka")
@pytest.mark.parametrize("client", CLIENTS)
def test_a_receiver_is_refused_too(broker, files, client, tmp_path):
    with simlink.queue(at(broker, client), **files | {"ca": Authority(tmp_path).ca}) as orders:
        with pytest.raises(ConnectError, match="not signed by a trusted CA") as caught, orders.receiver():
            pass
    assert caught.value.retryable is False


class Fake:
    """A server that does TLS, if it has a certificate, and gives one answer to whatever is asked first."""

    def __init__(self, files, answer=b"\0\0"):
        self._context = None
        if files is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(files.cert, files.key)
        self._answer = struct.pack(">ii", 4 + len(answer), 0) + answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="fake")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._context is not None:
                    sock = self._context.wrap_socket(sock, server_side=True)
                sock.recv(4096)
                sock.sendall(self._answer)
                sock.recv(4096)
            except OSError:
                pass
            finally:
                sock.close()


@pytest.mark.parametrize("client", CLIENTS)
def test_an_expired_certificate(authority, files, client):
    with Fake(authority.issue("127.0.0.1", expired=True)) as server:
        said = refusal(at(server, client), **files)
    assert said == f"TLS with 127.0.0.1:{server.port} is refused: its certificate has expired"


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("code", "why"),
    [
        (33, "it takes no SCRAM-SHA-512, but PLAIN, GSSAPI; see sasl="),
        (34, "it asks for no user and password on this port"),
    ],
)
def test_another_kind_of_login(client, code, why):
    answer = struct.pack(">hi", code, 2) + struct.pack(">h", 5) + b"PLAIN" + struct.pack(">h", 6) + b"GSSAPI"
    with Fake(None, answer) as server:
        said = refusal(f"kafka+{client}://ann:{QUOTED}@127.0.0.1:{server.port}/orders")
    assert said == f"Kafka at 127.0.0.1:{server.port} refused: {why}"


# --- wrong options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options", "kind", "says"),
    [
        ("kafka://h/orders?ca=x.pem", {}, ConfigError, "ca= means nothing without TLS"),
        ("kafka://h/orders?sasl=plain", {}, ConfigError, "sasl=plain needs a user and a password"),
        ("kafka://ann@h/orders", {}, ConfigError, "the user 'ann' has no password"),
        ("kafka://ann:x@h/orders?sasl=gssapi", {}, ConfigError, "is not one of scram-sha-512, scram-sha-256, plain"),
        ("kafkas+confluent://h/orders?tls_min=1.3", {}, NotSupported, "cannot be told tls_min=1.3"),
    ],
)
def test_wrong_options_are_refused_early(url, options, kind, says):
    with pytest.raises(kind, match=says):
        simlink.queue(url, **options)


# --- nothing is told ------------------------------------------------------------------------------------------------


@pytest.mark.broker("kafka")
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("sasl", ["plain", "scram-sha-512"])
def test_no_password_in_any_repr_log_error_or_report(broker, files, client, sasl, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    url = at(broker, client)
    with simlink.queue(url, sasl=sasl, **files) as orders, orders.receiver() as rx:
        report = simlink.run([{"n": 1}], orders, count=1, progress=False)
        rx.take(1, timeout=20.0)
        said = [repr(orders), repr(rx), rx.url, str(report), repr(report), repr(orders.stats()), repr(rx.stats())]
    driver = KafkaDriver(parse_url(url), mode=orders.mode, sasl=sasl, **files)
    said += [repr(driver.settings), str(driver.settings), repr(driver.target)]
    said += [refusal(at(broker, client, user="ann:hidden-and-wrong@"), sasl=sasl, **files)]
    said += [caplog.text, *capfd.readouterr()]
    assert [text for text in said if "hidden" in text] == []
