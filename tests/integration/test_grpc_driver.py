"""grpc:// over real sockets and processes: the usual way, bounds, cuts, kills, and addresses."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

grpc = pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'simlink[grpc]'")


from simlink.channels.channel import queue, topic  # noqa: E402
from simlink.channels.driver import Mode, OutcomeKind, ReceiverOptions, Settlement  # noqa: E402
from simlink.channels.grpc import GrpcDriver  # noqa: E402
from simlink.channels.url import parse_url  # noqa: E402
from simlink.channels.wire.frames import (  # noqa: E402
    Accept,
    BatchFrame,
    Bye,
    Code,
    ErrorFrame,
    Settle,
    Welcome,
)
from simlink.errors import ConfigError, ConnectError, InvalidURL, NotSupported, SendError  # noqa: E402
from simlink.message import Batch, Verdict  # noqa: E402
from tests.support.grpc import LOCAL, Fake, Raw  # noqa: E402
from tests.support.grpc_ends import (  # noqa: E402
    PATIENCE,
    QUICK,
    driver,
    listen_for,
    numbered,
    receiving,
    refused,
    sending,
    take,
    until,
)

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
            # Only a cut uses a limit up: a client may give a connection up before anything went over it.
            limit = self.limits[0] if self.limits else None
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
                        self.limits.pop(0)
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


# --- addresses -------------------------------------------------------------------------------------------------------


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
