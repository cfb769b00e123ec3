"""grpc:// over real sockets and processes: cuts, kills, garbage, silence, strangers, and stock clients."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

grpc = pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'simlink[grpc]'")

from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402  # behind the skip
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # noqa: E402

from simlink.channels.channel import queue, topic  # noqa: E402
from simlink.channels.driver import Mode, OutcomeKind, ReceiverOptions, Settlement  # noqa: E402
from simlink.channels.grpc import GrpcDriver  # noqa: E402
from simlink.channels.grpc import service_pb2 as pb  # noqa: E402
from simlink.channels.url import parse_url  # noqa: E402
from simlink.channels.wire.frames import (  # noqa: E402
    Accept,
    BatchFrame,
    Bye,
    Code,
    ErrorFrame,
    Heartbeat,
    Settle,
    Welcome,
)
from simlink.errors import ConfigError, ConnectError, InvalidURL, NotSupported, SendError  # noqa: E402
from simlink.message import Batch, Same, Verdict  # noqa: E402
from tests.support.certificates import Authority  # noqa: E402
from tests.support.grpc import LOCAL, SERVICE, Fake, Raw, grpcurl_or_skip, publish  # noqa: E402

PATIENCE = 20.0
QUICK = {"heartbeat": 0.05, "dead": 0.4, "orphan_after": 0.8, "frame_timeout": 0.4}
PROTOS = Path(__file__).resolve().parents[2] / "protos"


def until(condition, what="it", tick=lambda: threading.Event().wait(0.002)):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE} s"
        tick()
    return found


def driver(port=0, *, name="orders", mode=Mode.QUEUE, scheme="grpc", **options):
    return GrpcDriver(parse_url(f"{scheme}://{LOCAL}:{port}/{name}"), mode=mode, **options)


@contextlib.contextmanager
def receiving(d, subscription=None, **options):
    rx = d.receiver(subscription, ReceiverOptions(**{"prefetch": 100_000, **options}))
    rx.open(5.0)
    try:
        yield rx
    finally:
        rx.close(5.0)


@contextlib.contextmanager
def sending(d):
    tx = d.sender()
    try:
        tx.open(5.0)
        yield tx
    finally:
        tx.close(1.0)


def numbered(first, count, producer=b"p" * 16):
    return Batch(
        [b"%d" % i for i in range(first, first + count)],
        producers=Same(producer, count),
        sequences=range(first, first + count),
    )


def take(rx, count, tx=None):
    """``(body, attempt)`` of the next messages."""
    got = []

    def more():
        if tx is not None:
            tx.outcomes(0.0)
        for incoming in rx.receive(count - len(got), 0.02):
            got.extend(zip(incoming.batch.bodies, incoming.attempts, strict=True))
            rx.settle([Settlement(incoming.lease, Verdict.ACK, incoming.tokens[0], incoming.tokens[-1])])
        return len(got) >= count

    until(more, f"receiving {count}")
    return got


def listen_for(tx, kind, count):
    """Every outcome until ``count`` messages had one of this kind."""
    seen = []

    def enough():
        seen.extend(tx.outcomes(0.05))
        return sum(o.stop - o.first for o in seen if o.kind is kind) >= count

    until(enough, f"{count} × {kind.value}")
    return seen


def status_of(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


# --- the usual way ---------------------------------------------------------------------------------------------------


def test_accepted_first_and_settled_later():
    d = driver()
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(numbered(0, 3), 0)
        assert [(o.kind, o.first, o.stop) for o in listen_for(tx, OutcomeKind.CONFIRMED, 3)] == [
            (OutcomeKind.CONFIRMED, 0, 3)
        ]
        assert take(rx, 3) == [(b"0", 1), (b"1", 1), (b"2", 1)]
        assert [(o.kind, o.first, o.stop) for o in listen_for(tx, OutcomeKind.SETTLED, 3)] == [
            (OutcomeKind.SETTLED, 0, 3)
        ]


def test_everything_of_a_message_arrives():
    batch = Batch(
        [b"a", b"b"],
        keys=[b"k", None],
        headers=[{"trace": "7f"}, {}],
        content_types=["text/plain", "text/plain"],
        producers=[b"p" * 16, b"q" * 16],
        sequences=[5, 6],
        timestamps=[1_000_000, 2_000_000],
    )
    d = driver()
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(batch, 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 2)
        (incoming,) = rx.receive(2, 5.0)
        assert list(incoming.batch) == list(batch)


def test_a_rejection_is_told_apart():
    d = driver()
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(numbered(0, 2), 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 2)
        (incoming,) = rx.receive(2, 5.0)
        rx.settle([Settlement(incoming.lease, Verdict.REJECT, 1, 1), Settlement(incoming.lease, Verdict.ACK, 0, 0)])
        seen = listen_for(tx, OutcomeKind.SETTLED, 1)
        assert {(o.kind, o.first, o.stop) for o in seen} == {
            (OutcomeKind.SETTLED, 0, 1),
            (OutcomeKind.REJECTED, 1, 2),
        }


def test_every_subscription_of_a_topic_gets_a_copy():
    with topic(f"grpc://{LOCAL}:0/events") as events, events.receiver("audit") as audit, events.receiver() as live:
        events.send({"kind": "login"}, key="ann", headers={"trace": "7f"})
        for rx in (audit, live):
            delivery = rx.get()
            assert (delivery.value, delivery.message.key, dict(delivery.message.headers)) == (
                {"kind": "login"},
                b"ann",
                {"trace": "7f"},
            )


def test_many_senders_at_once_each_in_order():
    count, senders = 1_000, 6
    with queue(f"grpc://{LOCAL}:0/orders") as channel, channel.receiver() as rx:
        url = rx.url

        def send(number):
            with queue(url) as mine:
                for start in range(0, count, 100):
                    mine.send_many([{"n": number, "i": i} for i in range(start, start + 100)])

        threads = [threading.Thread(target=send, args=(n,)) for n in range(senders)]
        for thread in threads:
            thread.start()
        got = rx.take(count * senders, timeout=60)
        for thread in threads:
            thread.join()
    for number in range(senders):
        assert [v["i"] for v in got if v["n"] == number] == list(range(count))


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_a_receiver_that_does_not_read_stops_the_sender():
    d = driver(buffer_messages=100)
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(numbered(0, 1000), 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 100)
        tx.outcomes(0.05)
        assert rx.stats()["subscriptions"]["orders"]["messages"] == 100
        assert (tx.stats()["queued"], tx.stats()["unsent_frames"]) == (900, 0)
        assert [b for b, _ in take(rx, 1000, tx)] == [b"%d" % i for i in range(1000)]


def test_a_body_that_fits_no_frame_fails_alone():
    d = driver(max_frame_bytes=10_000)
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(Batch([b"a", b"x" * 20_000, b"b", b"y" * 10_000, b"c"]), 0)
        seen = listen_for(tx, OutcomeKind.CONFIRMED, 3)
        failed = [o for o in seen if o.kind is OutcomeKind.FAILED]
        assert [(o.first, o.stop) for o in failed] == [(1, 2), (3, 4)]
        assert "does not fit into a frame of 10000 bytes" in str(failed[0].error)
        assert [b for b, _ in take(rx, 3)] == [b"a", b"b", b"c"]


def test_bodies_beyond_the_default_limit_of_grpc_pass():
    with queue(f"grpc://{LOCAL}:0/orders") as channel, channel.receiver() as rx:
        body = "x" * 6_000_000
        channel.send(body)
        assert rx.take(1) == [body]
        with pytest.raises(SendError):
            channel.send("x" * 9_000_000)


def test_a_peer_that_reads_nothing_costs_the_sender_two_frames():
    welcome = Welcome(b"i" * 16, credit=10**6, credit_bytes=10**12)
    with Fake(welcome) as fake, sending(driver(fake.port)) as tx:
        for position in range(0, 10_000, 100):
            tx.submit(Batch([b"x" * 10_000] * 100), position)
        assert tx.stats()["unsent_frames"] <= 2
        assert tx.stats()["queued"] > 5_000


# --- cuts and deaths -------------------------------------------------------------------------------------------------


class Proxy:
    """Passes bytes between one sender and a receiver, and cuts both when ``limit`` bytes went towards the receiver."""

    def __init__(self, port, limits):
        self.server = socket.create_server((LOCAL, 0))
        self.port = self.server.getsockname()[1]
        self.target = port
        self.limits = list(limits)
        self.cuts = 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while True:
            try:
                here, _ = self.server.accept()
            except OSError:
                return
            limit = self.limits.pop(0) if self.limits else None
            with here, socket.create_connection((LOCAL, self.target)) as there:
                back = threading.Thread(target=self.pass_on, args=(there, here, None))
                back.start()
                self.pass_on(here, there, limit)
                for sock in (here, there):
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)
                back.join()

    def pass_on(self, source, sink, left):
        with contextlib.suppress(OSError):
            while data := source.recv(65536 if left is None else min(65536, left)):
                sink.sendall(data)
                if left is not None:
                    left -= len(data)
                    if left <= 0:
                        self.cuts += 1
                        return

    def close(self):
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join()


def test_a_connection_cut_within_a_frame_loses_and_repeats_nothing():
    # So large that every limit is reached, whatever of it had been accepted before.
    sent = [f"{i:0200}" for i in range(2_000)]
    with queue(f"grpc://{LOCAL}:0/orders") as here, here.receiver() as rx:
        proxy = Proxy(parse_url(rx.url).hosts[0].port, [5_000, 9_000, 12_345])
        try:
            with queue(f"grpc://{LOCAL}:{proxy.port}/orders") as there:
                for start in range(0, len(sent), 250):
                    there.send_many(sent[start : start + 250])
                assert rx.take(len(sent), timeout=PATIENCE) == sent
                assert proxy.cuts == 3
                assert there.stats()["reconnects"] >= 3
        finally:
            proxy.close()


RECEIVER = """
import sys
from simlink.channels.channel import queue
with queue(sys.argv[1]) as channel, channel.receiver() as rx, open(sys.argv[2], "a") as out:
    print("ready", flush=True)
    for delivery in rx:
        out.write(f"{delivery.value}\\n")
        out.flush()
"""


def start_receiver(url, path):
    child = subprocess.Popen([sys.executable, "-c", RECEIVER, url, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


def test_a_receiver_killed_and_started_again_loses_nothing(tmp_path):
    with socket.create_server((LOCAL, 0)) as probe:
        port = probe.getsockname()[1]
    url, path, count = f"grpc://{LOCAL}:{port}/orders", tmp_path / "got", 6_000
    path.touch()

    def got():
        return [int(line) for line in path.read_text().splitlines()]

    child = start_receiver(url, path)
    try:
        with queue(url) as channel:
            for kills in (1, 2):
                channel.send_many(range((kills - 1) * 2_000, kills * 2_000))
                until(lambda kills=kills: len(got()) > kills * 1_000, "receiving")
                child.send_signal(signal.SIGKILL)
                child.wait()
                child.stdout.close()
                child = start_receiver(url, path)
            channel.send_many(range(4_000, count))
            until(lambda: len(set(got())) == count, "receiving")
            until(lambda: channel.stats()["in_flight"] == 0, "settling")
        assert set(got()) == set(range(count))
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_closing_receiver_gives_back_and_the_next_one_gets_it():
    d = driver()
    tx = d.sender()
    with receiving(d) as rx:
        tx.open(5.0)
        tx.submit(numbered(0, 10), 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 10)
        (incoming,) = rx.receive(4, 5.0)
        rx.settle([Settlement(incoming.lease, Verdict.ACK, 0, 1)])
    seen = listen_for(tx, OutcomeKind.RETURNED, 8)
    back = [(o.first, o.stop, o.ambiguous) for o in seen if o.kind is OutcomeKind.RETURNED]
    assert sorted(back) == [(2, 4, True), (4, 10, False)]
    assert sum(o.stop - o.first for o in seen if o.kind is OutcomeKind.SETTLED) == 2
    with pytest.raises(ConnectError, match="was closed") as caught:
        until(lambda: tx.outcomes(0.05), "the error")
    assert caught.value.retryable
    with receiving(d) as rx:
        tx.open(5.0)
        tx.submit(numbered(2, 8), 10)
        assert [b for b, _ in take(rx, 8, tx)] == [b"%d" % i for i in range(2, 10)]
    tx.close(1.0)


def test_a_sender_that_connects_anew_replaces_its_old_stream():
    d = driver()
    with receiving(d) as rx, Raw(d.bound_port) as old, Raw(d.bound_port) as new:
        first = old.hello()
        old.say(BatchFrame(0, numbered(0, 2)))
        until(lambda: (frame := old.hear(Accept)) and frame.below == 2)
        second = new.hello(incarnation=first.incarnation, next=5)
        assert (second.incarnation, second.accepted) == (first.incarnation, 2)
        assert old.hear(ErrorFrame).code is Code.REPLACED
        assert take(rx, 2) == [(b"0", 1), (b"1", 1)]
        assert new.hear(Settle).below == 2


def test_what_a_sender_left_with_a_goodbye_is_handed_out_at_any_time():
    d = driver(**QUICK)
    with receiving(d) as rx:
        with Raw(d.bound_port) as leaving:
            leaving.hello()
            leaving.say(BatchFrame(0, numbered(0, 2)), Bye())
            assert leaving.hear(ErrorFrame) is None  # heard to the end
        since = time.monotonic()
        until(lambda: time.monotonic() - since > QUICK["dead"], "silence")
        assert take(rx, 2) == [(b"0", 1), (b"1", 1)]


def test_nothing_is_left_of_many_channels():
    def everything():
        return len(list(Path("/proc/self/fd").iterdir())), {t for t in threading.enumerate() if t.is_alive()}

    def once():
        with queue(f"grpc://{LOCAL}:0/orders") as channel, channel.receiver() as rx:
            channel.send_many(range(10))
            rx.take(10)

    once()
    files, threads = everything()
    for _ in range(10):
        once()
    until(lambda: everything()[1] <= threads, "the end of every thread")
    until(lambda: everything()[0] <= files + 1, "the end of every socket")


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


@pytest.mark.parametrize(
    "frame",
    [b"\xff" * 19, Heartbeat(), BatchFrame(0, numbered(0, 1)), Accept(1, 1, 1)],
    ids=["garbage", "no hello", "a batch at once", "not a sender's"],
)
def test_a_bad_peer_is_told_and_cut_off_and_the_others_notice_nothing(frame):
    d = driver()
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(numbered(0, 5), 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 5)
        with Raw(d.bound_port) as bad:
            bad.say(frame)
            assert bad.hear(ErrorFrame).code is Code.PROTOCOL
            assert bad.hear(ErrorFrame) is None
            assert bad.call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (rx.stats()["garbage"], rx.stats()["refused"]) == (1, 1)
        tx.submit(numbered(5, 5), 5)
        assert [b for b, _ in take(rx, 10, tx)] == [b"%d" % i for i in range(10)]


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


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (BatchFrame(5, numbered(0, 1)), "position 5 came, and 0 is the next one"),
        (BatchFrame(0, numbered(0, 70_000)), "exceeds the credit"),
    ],
)
def test_a_sender_out_of_place_is_cut_off(frame, says):
    d = driver()
    with receiving(d), Raw(d.bound_port) as bad:
        bad.hello()
        bad.say(frame)
        assert says in bad.hear(ErrorFrame).message


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


def test_a_stream_without_a_hello_is_timed_out():
    d = driver(hello_timeout=0.2)
    with receiving(d), Raw(d.bound_port) as silent:
        error = silent.hear(ErrorFrame)
        assert (error.message, silent.hear(ErrorFrame)) == ("no Hello within 0.2 s", None)
        assert silent.call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_silent_sender_is_given_up():
    d = driver(**QUICK)
    with receiving(d) as rx, Raw(d.bound_port) as silent:
        silent.hello()
        assert silent.hear(ErrorFrame).code is Code.TIMEOUT
        assert rx.stats()["half_open"] == 1


def test_a_sender_that_only_beats_is_kept():
    d = driver(**QUICK)
    with receiving(d) as rx, sending(d) as tx:
        since = time.monotonic()
        until(lambda: time.monotonic() - since > 3 * QUICK["dead"], "time", lambda: tx.outcomes(0.02))
        assert rx.stats()["connected"] == 1
        tx.submit(numbered(0, 1), 0)
        assert take(rx, 1, tx) == [(b"0", 1)]


def test_too_many_streams_are_refused_and_may_come_later():
    d = driver(max_connections=1)
    with receiving(d), sending(d):
        error = refused(driver(d.bound_port))
        assert ("too many connections" in str(error), error.retryable) == (True, True)


def test_a_silent_receiver_is_given_up():
    with Fake(Welcome(b"i" * 16, credit=10, credit_bytes=1000)) as fake, sending(driver(fake.port, **QUICK)) as tx:
        with pytest.raises(ConnectError, match=r"was silent for 0\.4 s") as caught:
            until(lambda: tx.outcomes(0.05), "silence")
        assert caught.value.retryable


@pytest.mark.parametrize(
    ("answer", "says", "retryable"),
    [
        ({"answers": [b"\xff" * 9]}, "is not a receiver", False),
        ({"answers": [ErrorFrame(Code.BUSY, "full", True)]}, "refuses: full", True),
        ({"answers": [Accept(0, 0, 0)]}, "answers a Hello with Accept", False),
        ({"answers": [], "stays": False}, "closed the stream", True),
        ({"service": "other.Service"}, "is a gRPC server, but no receiver of simlink", False),
        ({"code": grpc.StatusCode.INTERNAL}, "ended the stream: INTERNAL: so it is", True),
        ({"code": grpc.StatusCode.PERMISSION_DENIED}, "refuses: so it is", False),
        ({"code": grpc.StatusCode.UNAVAILABLE}, "cannot be reached, or not any more: so it is", True),
    ],
)
def test_a_bad_receiver_is_named_in_one_line(answer, says, retryable):
    given = {"answers": [], **answer}
    with Fake(*given.pop("answers"), **given) as fake:
        error = refused(driver(fake.port))
    assert (says in str(error), error.retryable, "\n" in str(error)) == (True, retryable, False), error


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
        code, _ = status_of(lambda: publish(d.bound_port, request))
        assert code is grpc.StatusCode.UNAUTHENTICATED
        publish(d.bound_port, request, metadata=(("authorization", "Bearer hush"),))
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
    return {"scheme": "grpcs", "cert": files.cert, "key": files.key}


def test_encrypted_from_end_to_end(authority, own):
    d = driver(**own)
    with receiving(d) as rx, sending(driver(d.bound_port, scheme="grpcs", ca=authority.ca)) as tx:
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
        d = driver(**{**own, **files})
        with receiving(d):
            error = refused(driver(d.bound_port, scheme="grpcs", ca=ca))
        assert (str(error), error.retryable) == (f"TLS with {LOCAL}:{d.bound_port} is refused: {says}", False)


def test_with_a_ca_a_sender_must_show_a_certificate(authority, own):
    d = driver(**own, ca=authority.ca)
    mine = authority.issue("sender.example")
    with receiving(d) as rx:
        with sending(driver(d.bound_port, scheme="grpcs", ca=authority.ca, cert=mine.cert, key=mine.key)) as tx:
            tx.submit(numbered(0, 1), 0)
            assert take(rx, 1, tx) == [(b"0", 1)]
        assert isinstance(refused(driver(d.bound_port, scheme="grpcs", ca=authority.ca)), ConnectError)


def test_what_grpc_cannot_be_told_is_refused():
    with pytest.raises(NotSupported, match="lowest TLS version"):
        driver(scheme="grpcs", tls_min="1.3")
    with pytest.raises(ConfigError, match="means nothing without TLS"):
        driver(ca="x.pem")
    with pytest.raises(ConfigError, match="needs cert="), receiving(driver(scheme="grpcs")):
        pass


# --- addresses -------------------------------------------------------------------------------------------------------


def refused(d):
    tx = d.sender()
    with pytest.raises(ConnectError) as caught:
        tx.open(PATIENCE)
    tx.close(0.0)
    return caught.value


def test_a_port_in_use_is_one_clear_line():
    with socket.create_server((LOCAL, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConnectError) as caught, receiving(driver(port)):
            pass
    assert str(caught.value) == f"cannot listen at {LOCAL}:{port}: Address already in use"
    assert not caught.value.retryable


def test_a_port_that_another_process_serves_is_in_use(tmp_path):
    with socket.create_server((LOCAL, 0)) as probe:
        port = probe.getsockname()[1]
    child = start_receiver(f"grpc://{LOCAL}:{port}/orders", tmp_path / "got")
    try:
        with pytest.raises(ConnectError, match="Address already in use"), receiving(driver(port)):
            pass
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_nobody_at_the_address_may_change():
    with socket.create_server((LOCAL, 0)) as probe:
        port = probe.getsockname()[1]
    error = refused(driver(port))
    assert (str(error), error.retryable) == (f"{LOCAL}:{port} cannot be reached: nobody listens there", True)


def test_a_name_that_nobody_receives_may_come():
    d = driver()
    with receiving(d):
        error = refused(driver(d.bound_port, name="other"))
    assert ("nobody receives 'other'" in str(error), error.retryable) == (True, True)


def test_a_queue_is_no_topic():
    d = driver()
    with receiving(d):
        error = refused(driver(d.bound_port, mode=Mode.TOPIC))
        assert ("'orders' is a queue at" in str(error), error.retryable) == (True, False)
        with (
            pytest.raises(ConfigError, match="is received as a queue"),
            receiving(driver(d.bound_port, mode=Mode.TOPIC)),
        ):
            pass


def test_port_0_without_a_receiver_says_so():
    assert "port 0 becomes a port when a receiver" in str(refused(driver()))


def test_the_same_port_is_bound_again_at_once():
    d = driver()
    with receiving(d):
        port = d.bound_port
    for _ in range(5):
        with receiving(driver(port)) as rx:
            assert rx.address == f"{LOCAL}:{port}"


def test_receivers_of_one_process_share_the_server_and_agree():
    d = driver(token="hush")
    with receiving(d) as rx:
        other = driver(d.bound_port, name="others", token="hush")
        with receiving(other) as too:
            assert rx.native is too.native
        for wrong in ({"token": "other"}, {"token": "hush", "max_frame_bytes": 5000}):
            with pytest.raises(ConfigError, match="is listened on with"), receiving(driver(d.bound_port, **wrong)):
                pass
        with (
            pytest.raises(ConfigError, match="asked for"),
            receiving(driver(d.bound_port, token="hush", buffer_messages=7)),
        ):
            pass
    assert [t.name for t in threading.enumerate() if t.name.startswith("simlink-grpc")] == []


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        (f"grpc://{LOCAL}:1/path/orders", InvalidURL, "one name behind the address"),
        (f"grpc://ann@{LOCAL}:1/orders", InvalidURL, "knows no user names"),
        (f"grpc://{LOCAL}/orders", InvalidURL, "needs a port"),
    ],
)
def test_a_url_that_means_nothing_is_refused(url, error, says):
    with pytest.raises(error, match=says):
        GrpcDriver(parse_url(url), mode=Mode.QUEUE)


def test_options_that_cannot_be_honoured_are_refused():
    for options in ({"start": "earliest"}, {"start": "new"}, {"exclusive": True}):
        with pytest.raises(NotSupported):
            driver().receiver(None, ReceiverOptions(**options))
    for options in ({"heartbeat": 2.0, "dead": 1.0}, {"dead": 20.0}, {"dead": 8.0, "frame_timeout": 6.0}):
        with pytest.raises(ConfigError):
            driver(**options)
    several = GrpcDriver(parse_url(f"grpc://{LOCAL}:0,127.0.0.2:0/orders"), mode=Mode.QUEUE)
    with pytest.raises(NotSupported, match="several endpoints"):
        several.sender()
    with receiving(several, at="127.0.0.2") as rx:
        assert rx.address.startswith("127.0.0.2:")
