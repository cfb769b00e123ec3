"""grpc:// and its peers: stock clients and services, bad peers, who may call."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest

grpc = pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'simlink[grpc]'")

from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402  # behind the skip
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # noqa: E402

from simlink.channels.channel import queue  # noqa: E402
from simlink.channels.driver import ReceiverOptions, Settlement  # noqa: E402
from simlink.channels.grpc import service_pb2 as pb  # noqa: E402
from simlink.channels.url import parse_url  # noqa: E402
from simlink.channels.wire.frames import (  # noqa: E402
    ErrorFrame,
)
from simlink.errors import ConfigError, ConnectError, NotSupported  # noqa: E402
from simlink.message import Verdict  # noqa: E402
from tests.support import brokerless  # noqa: E402
from tests.support.brokerless import LOCAL, PATIENCE, numbered, receiving, refused, sending, take  # noqa: E402
from tests.support.certificates import Authority  # noqa: E402
from tests.support.grpc import SERVICE, Raw, grpcurl_or_skip, publish, status_of  # noqa: E402

driver = partial(brokerless.driver, "grpc")
secured = partial(brokerless.driver, "grpcs")
PROTOS = Path(__file__).resolve().parents[2] / "protos"


# --- the standard services -------------------------------------------------------------------------------------------


def test_health_is_told_by_the_standard_service():
    d = driver()
    with receiving(d), grpc.insecure_channel(f"{LOCAL}:{d.bound_port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        for service in ("", SERVICE):
            assert health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE).status == serving
        code, _ = status_of(lambda: health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=PATIENCE))
        assert code is grpc.StatusCode.NOT_FOUND


def test_the_end_is_told_to_those_who_watch():
    d = driver()
    rx = d.receiver(None, ReceiverOptions())
    rx.open(5.0)
    with grpc.insecure_channel(f"{LOCAL}:{d.bound_port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        closing = threading.Thread(target=rx.close, args=(5.0,))
        closing.start()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        closing.join()


def test_reflection_lists_the_services_and_gives_their_schema():
    d = driver()
    with receiving(d), grpc.insecure_channel(f"{LOCAL}:{d.bound_port}") as channel:
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        request = reflection_pb2.ServerReflectionRequest
        (listed,) = ask(iter([request(list_services="")]))
        assert {s.name for s in listed.list_services_response.service} == {
            SERVICE,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        (schema,) = ask(iter([request(file_containing_symbol=SERVICE)]))
        assert schema.file_descriptor_response.file_descriptor_proto[0] == pb.DESCRIPTOR.serialized_pb


# --- plain clients ---------------------------------------------------------------------------------------------------


def test_a_plain_client_publishes_and_everything_of_a_message_arrives():
    request = pb.PublishRequest(
        destination="orders",
        messages=[
            pb.Message(text='{"id":1}', key_text="ann", headers={"trace": "7f"}, content_type="application/json"),
            pb.Message(body=b'{"id":2}', key=b"\xff", producer=b"p" * 16, sequence=7, timestamp=1_000_000),
        ],
    )
    with queue(f"grpc://{LOCAL}:0/orders") as channel, channel.receiver() as rx:
        assert publish(parse_url(rx.url).hosts[0].port, request) == pb.PublishReply(accepted=2)
        one, two = rx.get(), rx.get()
    assert (one.value, one.message.key, dict(one.message.headers), one.message.content_type) == (
        {"id": 1},
        b"ann",
        {"trace": "7f"},
        "application/json",
    )
    m = two.message
    assert (two.value, m.key, m.producer, m.sequence, m.timestamp) == ({"id": 2}, b"\xff", b"p" * 16, 7, 1_000_000)


def test_a_call_that_is_repeated_with_the_same_identity_arrives_once():
    message = pb.Message(text="1", producer=b"p" * 16, sequence=0)
    d = driver()
    with receiving(d) as rx:
        for _ in range(3):
            publish(d.bound_port, pb.PublishRequest(destination="orders", messages=[message]))
        publish(d.bound_port, pb.PublishRequest(destination="orders", messages=[pb.Message(text="2")]))
        assert take(rx, 2) == [(b"1", 1), (b"2", 1)]
        assert (rx.stats()["duplicates"], rx.stats()["published"]) == (2, 4)


def test_what_finds_no_room_is_refused_whole_and_may_come_again():
    d = driver(buffer_messages=3)
    two = pb.PublishRequest(destination="orders", messages=[pb.Message(text="1"), pb.Message(text="2")])
    four = pb.PublishRequest(destination="orders", messages=[pb.Message(text="1")] * 4)
    with receiving(d) as rx:
        publish(d.bound_port, two)
        assert status_of(lambda: publish(d.bound_port, two)) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "'orders' has no room now: its receivers are slower than its senders",
        )
        assert status_of(lambda: publish(d.bound_port, four)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "4 messages at once, and the buffer takes 3",
        )
        assert take(rx, 2) == [(b"1", 1), (b"2", 1)]
        publish(d.bound_port, two)
        assert take(rx, 2) == [(b"1", 1), (b"2", 1)]


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        (pb.PublishRequest(destination="other", messages=[pb.Message()]), "NOT_FOUND", "nobody receives 'other'"),
        (pb.PublishRequest(destination="orders"), "INVALID_ARGUMENT", "no messages"),
        *(
            (pb.PublishRequest(destination="orders", messages=[message]), "INVALID_ARGUMENT", "CR, LF or NUL")
            for message in (
                pb.Message(key_text="a\r\nb"),
                pb.Message(headers={"a\nb": "v"}),
                pb.Message(headers={"x": "a\0b"}),
            )
        ),
        (
            pb.PublishRequest(destination="orders", messages=[pb.Message(producer=b"p" * 16)]),
            "INVALID_ARGUMENT",
            "producer and sequence come together",
        ),
        (
            pb.PublishRequest(destination="orders", messages=[pb.Message(producer=b"p", sequence=1)]),
            "INVALID_ARGUMENT",
            "a producer is 16 bytes, not 1",
        ),
        (
            pb.PublishRequest(destination="orders", messages=[pb.Message(producer=b"p" * 16, sequence=1 << 63)]),
            "INVALID_ARGUMENT",
            "beyond 2^63 - 1",
        ),
    ],
)
def test_a_plain_client_is_told_what_is_wrong(request_, code, says):
    d = driver()
    with receiving(d):
        found, details = status_of(lambda: publish(d.bound_port, request_))
    assert (found.name, says in details) == (code, True)


def test_what_plain_clients_sent_is_told_when_it_is_lost(caplog):
    d = driver()
    with receiving(d) as rx:
        publish(d.bound_port, pb.PublishRequest(destination="orders", messages=[pb.Message(text="1")] * 3))
        (incoming,) = rx.receive(1, 5.0)
        rx.settle([Settlement(incoming.lease, Verdict.ACK, incoming.tokens[0], incoming.tokens[0])])
    assert "orders: 2 messages of plain clients were accepted and never settled" in caplog.text


def test_grpcurl_finds_the_service_and_publishes():
    program = grpcurl_or_skip()

    def run(*arguments, **options):
        command = [str(program), "-plaintext", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, **options).stdout

    with queue(f"grpc://{LOCAL}:0/orders") as channel, channel.receiver() as rx:
        where = rx.url.removeprefix("grpc://").removesuffix("/orders")
        assert SERVICE in run(where, "list").splitlines()
        data = json.dumps({"destination": "orders", "messages": [{"text": '{"id": 1}', "keyText": "ann"}]})
        assert json.loads(run("-d", data, where, f"{SERVICE}/Publish")) == {"accepted": "1"}
        # The schema's file does as well as reflection.
        files = ("-import-path", str(PROTOS), "-proto", "simlink/v1/service.proto")
        assert json.loads(run(*files, "-d", data, where, f"{SERVICE}/Publish")) == {"accepted": "1"}
        assert json.loads(run(where, "grpc.health.v1.Health/Check")) == {"status": "SERVING"}
        delivery = rx.get()
        assert (delivery.value, delivery.message.key) == ({"id": 1}, b"ann")
        rx.get()


# --- bad peers -------------------------------------------------------------------------------------------------------


def test_a_peer_that_speaks_no_http2_harms_nobody():
    d = driver()
    with receiving(d) as rx, sending(d) as tx:
        for data in (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\xff" * 1000,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\1" * 99,
        ):
            with socket.create_connection((LOCAL, d.bound_port), timeout=PATIENCE) as bad:
                bad.sendall(data)
                with contextlib.suppress(ConnectionResetError):
                    while bad.recv(65536):
                        pass
        tx.submit(numbered(0, 5), 0)
        assert len(take(rx, 5, tx)) == 5


def test_a_connection_that_says_nothing_is_closed():
    d = driver(hello_timeout=0.3)
    with receiving(d), socket.create_connection((LOCAL, d.bound_port), timeout=PATIENCE) as silent:
        with contextlib.suppress(ConnectionResetError):
            while silent.recv(65536):
                pass


def test_a_message_beyond_our_limit_ends_the_call_only():
    d = driver(max_frame_bytes=10_000)
    with receiving(d) as rx, sending(d) as tx, Raw(d.bound_port) as bad:
        bad.hello()
        bad.say(b"x" * 1_000_000)
        assert bad.hear(ErrorFrame) is None
        assert bad.call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        tx.submit(numbered(0, 5), 0)
        assert len(take(rx, 5, tx)) == 5


def test_nothing_packed_is_unpacked():
    d = driver()
    with receiving(d), Raw(d.bound_port, compression=grpc.Compression.Gzip) as packed:
        packed.say(b"\0" * 100_000_000)
        assert packed.hear(ErrorFrame) is None
        assert packed.call.code() is grpc.StatusCode.UNIMPLEMENTED


def test_too_many_streams_are_refused_and_may_come_later():
    d = driver(max_connections=1)
    with receiving(d), sending(d):
        error = refused(driver(d.bound_port))
        assert ("too many connections" in str(error), error.retryable) == (True, True)


# --- who may call ----------------------------------------------------------------------------------------------------


def test_only_those_with_the_token_get_in():
    d = driver(token="hush")
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(numbered(0, 1), 0)
        assert take(rx, 1, tx) == [(b"0", 1)]
        for token, says in ((None, "a bearer token is needed"), ("hus", "the bearer token is wrong")):
            error = refused(driver(d.bound_port, token=token))
            assert (str(error), error.retryable) == (f"{LOCAL}:{d.bound_port} refuses: {says}", False)
        request = pb.PublishRequest(destination="orders", messages=[pb.Message(text="1")])
        for shown in ((), (("authorization", "Basic hush"),), (("authorization", "hush"),)):
            code, _ = status_of(lambda shown=shown: publish(d.bound_port, request, metadata=shown))
            assert code is grpc.StatusCode.UNAUTHENTICATED
        for scheme in ("Bearer", "bearer"):
            publish(d.bound_port, request, metadata=(("authorization", f"{scheme} hush"),))
            assert take(rx, 1, tx) == [(b"1", 1)]
        with grpc.insecure_channel(f"{LOCAL}:{d.bound_port}") as channel:  # whoever looks after it needs none
            health = health_pb2_grpc.HealthStub(channel)
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status == 1
        assert "hush" not in repr(d.settings)


def test_a_token_is_asked_for_at_each_connect():
    said = iter(["old", "new"])
    d = driver(token="new")
    with receiving(d):
        tx = driver(d.bound_port, token=lambda: next(said)).sender()
        with pytest.raises(ConnectError, match="the bearer token is wrong"):
            tx.open(5.0)
        tx.open(5.0)
        tx.close(1.0)


def test_a_token_that_no_header_can_carry_is_refused():
    d = driver()
    with receiving(d):
        error = refused(driver(d.bound_port, token="a\nb"))
    assert ("cannot carry" in str(error), "a\nb" in str(error)) == (True, False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def own(authority):
    """The options of a receiver with a certificate."""
    files = authority.issue(LOCAL, "localhost")
    return {"cert": files.cert, "key": files.key}


def test_encrypted_from_end_to_end(authority, own):
    d = secured(**own)
    with receiving(d) as rx, sending(secured(d.bound_port, ca=authority.ca)) as tx:
        tx.submit(numbered(0, 3), 0)
        assert take(rx, 3, tx) == [(b"0", 1), (b"1", 1), (b"2", 1)]


def test_a_wrong_certificate_is_refused_in_one_sentence(authority, own, tmp_path):
    stranger = Authority(tmp_path, "stranger")
    expired, other = authority.issue(LOCAL, expired=True), authority.issue("elsewhere.example")
    for files, ca, says in (
        (own, stranger.ca, "its certificate is not signed by a trusted CA; give its CA with ca="),
        ({"cert": expired.cert, "key": expired.key}, authority.ca, "its certificate has expired"),
        (
            {"cert": other.cert, "key": other.key},
            authority.ca,
            "its certificate is for another name than the one it was called by",
        ),
    ):
        d = secured(**{**own, **files})
        with receiving(d):
            error = refused(secured(d.bound_port, ca=ca))
        assert (str(error), error.retryable) == (f"TLS with {LOCAL}:{d.bound_port} is refused: {says}", False)


def test_with_a_ca_a_sender_must_show_a_certificate(authority, own):
    d = secured(**own, ca=authority.ca)
    mine = authority.issue("sender.example")
    with receiving(d) as rx:
        with sending(secured(d.bound_port, ca=authority.ca, cert=mine.cert, key=mine.key)) as tx:
            tx.submit(numbered(0, 1), 0)
            assert take(rx, 1, tx) == [(b"0", 1)]
        assert isinstance(refused(secured(d.bound_port, ca=authority.ca)), ConnectError)


def test_what_grpc_cannot_be_told_is_refused():
    with pytest.raises(NotSupported, match="lowest TLS version"):
        secured(tls_min="1.3")
    with pytest.raises(ConfigError, match="means nothing without TLS"):
        driver(ca="x.pem")
    with pytest.raises(ConfigError, match="frame_timeout=6 must not be shorter than dead=8"):
        driver(dead=8.0, frame_timeout=6.0)
    with pytest.raises(ConfigError, match="needs cert="), receiving(secured()):
        pass
