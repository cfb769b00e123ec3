"""Who a peer is scopes its de-duplication: nobody makes another's messages count as duplicates.

What proves a peer is its certificate. Without one a link has nothing but the producer's own name, 128 random bits; a
client without a link is told from others by its credentials and its address.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from pathlib import Path

import pytest

grpc = pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'simlink[grpc]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'simlink[http]'")

from simlink.channels import tls  # noqa: E402  # behind the skip
from simlink.channels.grpc import service_pb2 as pb  # noqa: E402
from simlink.channels.tls import Tls  # noqa: E402
from tests.support.brokerless import LOCAL, bodies, driver, numbered, receiving, sending, until  # noqa: E402
from tests.support.certificates import Authority  # noqa: E402

VICTIM = b"v" * 16
"""A producer's name that both peers claim."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("identity"))


@pytest.fixture(scope="module")
def files(authority):
    """The certificates of the receiver and of two peers."""
    names = {"server": (LOCAL, "localhost"), "ann": ("ann.example",), "eve": ("eve.example",)}
    return {who: authority.issue(*of) for who, of in names.items()}


def shown(authority, pair):
    return {"ca": authority.ca, "cert": pair.cert, "key": pair.key}


@pytest.mark.parametrize("scheme", ["tcps", "https", "grpcs"])
def test_one_peer_cannot_make_another_s_messages_duplicates(scheme, authority, files):
    d = driver(scheme, **shown(authority, files["server"]))
    with receiving(d) as rx:
        got = []
        for who in ("eve", "ann", "ann"):
            with sending(driver(scheme, d.bound_port, **shown(authority, files[who]))) as tx:
                tx.submit(numbered(0, 2, VICTIM), 0)
                if len(got) < 4:
                    got += bodies(rx, 2, tx)
                else:
                    until(lambda: rx.stats()["duplicates"] == 2, "the second copy", lambda tx=tx: tx.outcomes(0.01))
    assert got == [b"0", b"1", b"0", b"1"]


@pytest.mark.parametrize("scheme", ["tcp", "http", "grpc"])
def test_without_certificates_the_producer_s_own_name_is_the_scope(scheme):
    d = driver(scheme)
    with receiving(d) as rx:
        got = []
        for producer in (b"e" * 16, b"a" * 16):
            with sending(driver(scheme, d.bound_port)) as tx:
                tx.submit(numbered(0, 2, producer), 0)
                got += bodies(rx, 2, tx)
        assert (got, rx.stats()["duplicates"]) == ([b"0", b"1", b"0", b"1"], 0)


def test_posts_of_two_peers_with_the_same_identity_are_two_messages(authority, files):
    d = driver("https", **shown(authority, files["server"]))
    with receiving(d) as rx:
        replies = []
        for key in (f"{VICTIM.hex()}/{0:016d}/{0:016d}", "one"):
            for who in ("eve", "ann", "ann"):
                context = tls.client_context(Tls(**shown(authority, files[who])))
                connection = http.client.HTTPSConnection(LOCAL, d.bound_port, timeout=20.0, context=context)
                connection.request(
                    "POST", "/orders", b"1", {"content-type": "application/json", "idempotency-key": key}
                )
                said = json.loads(connection.getresponse().read())
                replies.append((key == "one", who, said["duplicates"]))
                connection.close()
        assert bodies(rx, 4) == [b"1"] * 4
    assert replies == [(named, who, n) for named in (False, True) for who, n in (("eve", 0), ("ann", 0), ("ann", 1))]


def test_calls_of_two_peers_with_the_same_identity_are_two_messages(authority, files):
    d = driver("grpcs", **shown(authority, files["server"]))
    request = pb.PublishRequest(destination="orders", messages=[pb.Message(text="1", producer=VICTIM, sequence=0)])
    with receiving(d) as rx:
        for who in ("eve", "ann", "ann"):
            pair = files[who]
            credentials = grpc.ssl_channel_credentials(
                Path(authority.ca).read_bytes(), Path(pair.key).read_bytes(), Path(pair.cert).read_bytes()
            )
            with grpc.secure_channel(f"{LOCAL}:{d.bound_port}", credentials) as channel:
                call = channel.unary_unary(
                    "/simlink.v1.Receiver/Publish",
                    request_serializer=pb.PublishRequest.SerializeToString,
                    response_deserializer=pb.PublishReply.FromString,
                )
                assert call(request, timeout=20.0).accepted == 1
        assert bodies(rx, 2) == [b"1", b"1"]
        assert rx.stats()["duplicates"] == 1


IDENTITY = f"{VICTIM.hex()}/{0:016d}/{0:016d}"
REQUEST = pb.PublishRequest(destination="orders", messages=[pb.Message(text="0", producer=VICTIM, sequence=0)])


def post(port, key, *, source=LOCAL, token=None):
    """How many of it were duplicates."""
    headers = {"content-type": "application/json", "idempotency-key": key}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    with contextlib.closing(
        http.client.HTTPConnection(LOCAL, port, timeout=20.0, source_address=(source, 0))
    ) as connection:
        connection.request("POST", "/orders", b"0", headers)
        return json.loads(connection.getresponse().read())["duplicates"]


def publish(port, token=None):
    with grpc.insecure_channel(f"{LOCAL}:{port}") as channel:
        call = channel.unary_unary(
            "/simlink.v1.Receiver/Publish",
            request_serializer=pb.PublishRequest.SerializeToString,
            response_deserializer=pb.PublishReply.FromString,
        )
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        assert call(REQUEST, timeout=20.0, metadata=metadata).accepted == 1


@pytest.mark.parametrize("key", [IDENTITY, "one"])
def test_plain_posts_from_two_addresses_are_two_peers(key):
    d = driver("http")
    with receiving(d) as rx:
        # A new connection each time, so another port: that is no other peer.
        assert [post(d.bound_port, key, source=of) for of in ("127.0.0.2", LOCAL, LOCAL)] == [0, 0, 1]
        assert bodies(rx, 2) == [b"0", b"0"]


@pytest.mark.parametrize("key", [IDENTITY, "one"])
def test_plain_posts_with_two_credentials_are_two_peers(key):
    d = driver("http")
    with receiving(d) as rx:
        assert [post(d.bound_port, key, token=of) for of in ("eve", "ann", "ann")] == [0, 0, 1]
        assert bodies(rx, 2) == [b"0", b"0"]


def test_plain_calls_with_two_credentials_are_two_peers():
    d = driver("grpc")
    with receiving(d) as rx:
        for token in ("eve", "ann", "ann", None):
            publish(d.bound_port, token)
        assert bodies(rx, 3) == [b"0"] * 3
        assert rx.stats()["duplicates"] == 1


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_plain_client_cannot_make_a_link_s_messages_duplicates(scheme):
    d = driver(scheme)
    with receiving(d) as rx:
        if scheme == "http":
            assert post(d.bound_port, IDENTITY) == 0
        else:
            publish(d.bound_port)
        with sending(driver(scheme, d.bound_port)) as tx:
            tx.submit(numbered(0, 2, VICTIM), 0)
            assert bodies(rx, 3, tx) == [b"0", b"0", b"1"]
        assert rx.stats()["duplicates"] == 0
