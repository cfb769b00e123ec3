"""Secured brokers: TLS only, and nobody in without the password."""

import socket
import ssl
from pathlib import Path

import pytest

from simlink.errors import ConfigError
from simlink.testing.brokers import Certificates, KafkaBroker, RabbitMQBroker, RedisBroker
from simlink.testing.brokers.security import Security, private_key_as_pkcs8
from tests.support.certificates import Authority

PASSWORD = 'p w#1"é;'


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def files(authority):
    server = authority.issue("127.0.0.1")
    return Certificates(server.cert, server.key, authority.ca)


@pytest.fixture(scope="module")
def trusting(authority):
    context = ssl.create_default_context(cafile=authority.ca)
    client = authority.issue("client.example")
    context.load_cert_chain(client.cert, client.key)
    return context


def knock(port, context):
    with socket.create_connection(("127.0.0.1", port)) as raw:
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as secure:
            secure.sendall(b"PING\r\n")
            return secure.recv(1)


@pytest.mark.broker("redis")
@pytest.mark.parametrize("user", [None, "ann"])
def test_redis_with_tls_and_a_password(files, trusting, authority, user):
    with RedisBroker(tls=files, user=user, password=PASSWORD) as broker:
        assert broker.url == f"rediss://{user or ''}:p%20w%231%22%C3%A9%3B@127.0.0.1:{broker.port}"
        words = ("AUTH", user or "default", PASSWORD)
        login = b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words)
        with socket.create_connection((broker.host, broker.port)) as raw:
            with trusting.wrap_socket(raw, server_hostname="127.0.0.1") as secure:
                replies = secure.makefile("rb")
                secure.sendall(b"PING\r\n" + login + b"PING\r\n")
                assert replies.readline().startswith(b"-NOAUTH")
                assert (replies.readline(), replies.readline()) == (b"+OK\r\n", b"+PONG\r\n")
        nameless = ssl.create_default_context(cafile=authority.ca)
        with pytest.raises(OSError):
            knock(broker.port, nameless)


@pytest.mark.broker("rabbitmq")
def test_rabbitmq_with_tls_and_a_password(files, trusting):
    pika = pytest.importorskip("pika")
    with RabbitMQBroker(tls=files, user="ann", password=PASSWORD) as broker:
        assert broker.url == f"amqps://ann:p%20w%231%22%C3%A9%3B@127.0.0.1:{broker.port}"

        def connect(password):
            return pika.BlockingConnection(
                pika.ConnectionParameters(
                    broker.host,
                    broker.port,
                    credentials=pika.PlainCredentials("ann", password),
                    ssl_options=pika.SSLOptions(trusting, "127.0.0.1"),
                )
            )

        connect(PASSWORD).close()
        with pytest.raises(pika.exceptions.ProbableAuthenticationError):
            connect("wrong")


def test_a_secured_broker_is_always_our_own(monkeypatch, files):
    for kind in (KafkaBroker, RabbitMQBroker, RedisBroker):
        monkeypatch.setenv(kind.variable, f"{kind.scheme}://127.0.0.1:1")
        assert kind().external is not None
        assert [kind(tls=files).external, kind(user="ann", password="x").external] == [None, None]


def test_half_a_login_is_refused():
    for kind in (KafkaBroker, RabbitMQBroker, RedisBroker):
        with pytest.raises(ConfigError, match="the broker's user 'ann' needs a password"):
            kind(user="ann")
    for kind in (KafkaBroker, RabbitMQBroker):
        with pytest.raises(ConfigError, match="knows no password without a user"):
            kind(password="x")


def test_no_password_is_shown():
    assert repr(Security(None, "ann", "hunter2")) == "Security(tls=None, user='ann', password='**')"
    assert "hunter2" not in repr(RedisBroker(password="hunter2"))


def test_java_gets_the_key_in_the_form_it_reads(files, tmp_path):
    text = private_key_as_pkcs8(files.key)
    other = tmp_path / "other.key"
    other.write_text(text)

    assert "-----BEGIN PRIVATE KEY-----" not in Path(files.key).read_text()
    assert text.startswith("-----BEGIN PRIVATE KEY-----")
    assert private_key_as_pkcs8(str(other)) == text
    with pytest.raises(ConfigError, match="is not an unencrypted private key in PEM form"):
        private_key_as_pkcs8(files.cert)
