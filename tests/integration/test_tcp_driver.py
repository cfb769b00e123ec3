"""tcp:// over real sockets and processes: cuts, kills, garbage, silence, and many at once."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from simlink.channels.channel import queue, topic
from simlink.channels.driver import Mode, OutcomeKind, ReceiverOptions, Settlement
from simlink.channels.tcp import TcpDriver
from simlink.channels.url import parse_url
from simlink.channels.wire.codec import HEAD, encode
from simlink.channels.wire.frames import Accept, BatchFrame, Bye, Code, ErrorFrame, Heartbeat, Hello, Moved, Welcome
from simlink.channels.wire.framing import FrameReader
from simlink.errors import ConfigError, ConnectError, InvalidURL, NotSupported
from simlink.message import Batch, Same, Verdict

LOCAL = "127.0.0.1"
PATIENCE = 20.0
QUICK = {"heartbeat": 0.05, "dead": 0.4, "orphan_after": 0.8}


def until(condition, what="it", tick=lambda: threading.Event().wait(0.002)):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE} s"
        tick()
    return found


def driver(port=0, *, name="orders", mode=Mode.QUEUE, **options):
    return TcpDriver(parse_url(f"tcp://{LOCAL}:{port}/{name}"), mode=mode, **options)


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


def take(rx, count, *, settle=True):
    """``(body, attempt)`` of the next messages."""
    got = []

    def more():
        for incoming in rx.receive(count - len(got), 0.05):
            got.extend(zip(incoming.batch.bodies, incoming.attempts, strict=True))
            if settle:
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


class Raw:
    """A peer that writes what it likes."""

    def __init__(self, port):
        self.sock = socket.create_connection((LOCAL, port), timeout=PATIENCE)
        self.reader = FrameReader()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def say(self, *frames):
        self.sock.sendall(b"".join(map(encode, frames)))

    def hear(self, kind):
        """The next frame of this kind; None when the other side closes first."""
        while True:
            while (frame := self.reader.next_frame()) is not None:
                if isinstance(frame, kind):
                    return frame
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.reader.feed(data)

    def hello(self, **changes):
        self.say(Hello(**{"sender": b"r" * 16, "destination": "orders", "mode": Mode.QUEUE, **changes}))
        return self.hear(Welcome)


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


def test_a_rejection_is_told_apart():
    d = driver()
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(numbered(0, 4), 0)
        until(lambda: rx.stats()["subscriptions"]["orders"]["messages"] == 4, "acceptance", lambda: tx.outcomes(0.01))
        (incoming,) = rx.receive(4, 5.0)
        rx.settle([Settlement(incoming.lease, Verdict.REJECT, 1, 1), Settlement(incoming.lease, Verdict.ACK, 0, 3)])
        seen = [o for o in listen_for(tx, OutcomeKind.SETTLED, 3) if o.kind is not OutcomeKind.CONFIRMED]
        assert {(o.kind, p) for o in seen for p in range(o.first, o.stop)} == {
            (OutcomeKind.SETTLED, 0),
            (OutcomeKind.REJECTED, 1),
            (OutcomeKind.SETTLED, 2),
            (OutcomeKind.SETTLED, 3),
        }


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


def test_receivers_of_one_process_share_the_listener_and_compete():
    d = driver()
    with receiving(d) as one:
        other = driver(d.bound_port)
        with receiving(other) as two, sending(d) as tx:
            assert one.native is two.native
            assert one.address == two.address == f"{LOCAL}:{d.bound_port}"
            tx.submit(numbered(0, 2), 0)
            seen = []
            until(
                lambda: (
                    seen.extend(b for rx in (one, two) for i in rx.receive(1, 0.01) for b in i.batch.bodies)
                    or len(seen) == 2
                ),
                "receiving",
                lambda: tx.outcomes(0.01),
            )
            assert sorted(seen) == [b"0", b"1"]


def test_every_subscription_of_a_topic_gets_a_copy_and_settles_it():
    d = driver(mode=Mode.TOPIC, name="events")
    with receiving(d, "audit") as audit, receiving(d) as live, sending(d) as tx:
        tx.submit(numbered(0, 3), 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 3)
        assert [b for b, _ in take(audit, 3)] == [b"0", b"1", b"2"]
        assert [o for o in tx.outcomes(0.05) if o.kind is OutcomeKind.SETTLED] == []
        assert [b for b, _ in take(live, 3)] == [b"0", b"1", b"2"]
        listen_for(tx, OutcomeKind.SETTLED, 3)


def test_many_senders_at_once_each_in_order():
    count, senders = 2_000, 8
    with queue(f"tcp://{LOCAL}:0/orders") as channel, channel.receiver() as rx:
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
        assert tx.stats()["queued"] == 900
        assert [b for b, _ in take_while(rx, tx, 1000)] == [b"%d" % i for i in range(1000)]


def take_while(rx, tx, count):
    got = []

    def more():
        tx.outcomes(0.0)
        for incoming in rx.receive(50, 0.01):
            got.extend(zip(incoming.batch.bodies, incoming.attempts, strict=True))
            rx.settle([Settlement(incoming.lease, Verdict.ACK, incoming.tokens[0], incoming.tokens[-1])])
        return len(got) >= count

    until(more, f"receiving {count}")
    return got


def test_the_buffer_is_bounded_in_bytes():
    d = driver(buffer_bytes=100_000)
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(Batch([b"x" * 10_000] * 100), 0)
        seen = listen_for(tx, OutcomeKind.CONFIRMED, 10)
        seen += tx.outcomes(0.1)
        accepted = sum(o.stop - o.first for o in seen)
        assert 10 <= accepted <= 11
        assert len(take_while(rx, tx, 100)) == 100


def test_a_peer_that_reads_nothing_costs_the_sender_one_frame():
    with socket.create_server((LOCAL, 0)) as server:
        d = driver(server.getsockname()[1])
        tx = d.sender()
        opening = threading.Thread(target=tx.open, args=(5.0,))
        opening.start()
        peer, _ = server.accept()
        with peer:
            welcome = Welcome(b"i" * 16, credit=10**6, credit_bytes=10**12)
            peer.sendall(encode(welcome))
            opening.join()
            position = 0
            for _ in range(100):
                tx.submit(Batch([b"x" * 10_000] * 100), position)
                position += 100
            assert 0 < tx.stats()["unwritten_bytes"] <= 1 << 20
            tx.close(0.0)


def test_a_body_that_fits_no_frame_fails_alone():
    d = driver(max_frame_bytes=10_000)
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(Batch([b"a", b"x" * 20_000, b"b", b"y" * 10_000, b"c"]), 0)
        seen = listen_for(tx, OutcomeKind.CONFIRMED, 3)
        failed = [o for o in seen if o.kind is OutcomeKind.FAILED]
        assert [(o.first, o.stop) for o in failed] == [(1, 2), (3, 4)]
        assert "does not fit into a frame of 10000 bytes" in str(failed[0].error)
        assert [b for b, _ in take(rx, 3)] == [b"a", b"b", b"c"]
        assert sum(o.stop - o.first for o in listen_for(tx, OutcomeKind.SETTLED, 3)) == 3


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
    with queue(f"tcp://{LOCAL}:0/orders") as here, here.receiver() as rx:
        proxy = Proxy(parse_url(rx.url).hosts[0].port, [777, 3_000, 5_555, 8_001])
        try:
            with queue(f"tcp://{LOCAL}:{proxy.port}/orders") as there:
                for start in range(0, len(sent), 250):
                    there.send_many(sent[start : start + 250])
                assert rx.take(len(sent), timeout=PATIENCE) == sent
                assert proxy.cuts == 4
                assert there.stats()["reconnects"] >= 4
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
    url, path, count = f"tcp://{LOCAL}:{port}/orders", tmp_path / "got", 6_000
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
        assert [b for b, _ in take_while(rx, tx, 8)] == [b"%d" % i for i in range(2, 10)]
    tx.close(1.0)


def test_what_a_lost_sender_left_is_handed_out_again_after_a_while():
    d = driver(**QUICK)
    with receiving(d) as rx:
        with Raw(d.bound_port) as lost:
            lost.hello()
            lost.say(BatchFrame(0, numbered(0, 2)))
            until(lambda: (frame := lost.hear(Accept)) and frame.below == 2)
        assert take(rx, 1) == [(b"0", 1)]  # heard just now: a fresh hand-out
        until(lambda: rx.stats()["senders"] == 1 and rx.stats()["connected"] == 0, "the loss")
        time_of_loss = time.monotonic()
        until(lambda: time.monotonic() - time_of_loss > QUICK["dead"], "silence")
        assert take(rx, 1) == [(b"1", 2)]
        assert time.monotonic() - time_of_loss > QUICK["orphan_after"] - 0.2
        assert rx.stats()["orphans"] == 1


def test_what_a_sender_left_with_a_goodbye_is_handed_out_at_any_time():
    d = driver(**QUICK)
    with receiving(d) as rx:
        with Raw(d.bound_port) as leaving:
            leaving.hello()
            leaving.say(BatchFrame(0, numbered(0, 2)), Bye())
            assert leaving.hear(ErrorFrame) is None  # read to the end
        since = time.monotonic()
        until(lambda: time.monotonic() - since > QUICK["dead"], "silence")
        assert take(rx, 2) == [(b"0", 1), (b"1", 1)]


def test_a_sender_that_connects_anew_replaces_its_old_connection():
    d = driver()
    with receiving(d) as rx, Raw(d.bound_port) as old, Raw(d.bound_port) as new:
        first = old.hello()
        old.say(BatchFrame(0, numbered(0, 2)))
        until(lambda: (frame := old.hear(Accept)) and frame.below == 2)
        second = new.hello(incarnation=first.incarnation, next=5)
        assert (second.incarnation, second.accepted) == (first.incarnation, 2)
        assert old.hear(ErrorFrame).code is Code.REPLACED
        assert [b for b, _ in take(rx, 2)] == [b"0", b"1"]


def test_a_second_copy_of_what_is_held_is_dropped_and_settled_with_the_first():
    d = driver()
    with receiving(d) as rx, Raw(d.bound_port) as one, Raw(d.bound_port) as two:
        one.hello()
        two.hello(sender=b"2" * 16)
        one.say(BatchFrame(0, numbered(0, 3)))
        until(lambda: (frame := one.hear(Accept)) and frame.below == 3)
        two.say(BatchFrame(0, numbered(1, 3)))
        until(lambda: (frame := two.hear(Accept)) and frame.below == 3)
        assert rx.stats()["duplicates"] == 2
        with sending(d):  # somebody else's link changes nothing
            assert take(rx, 4) == [(b"%d" % i, 1) for i in range(4)]


def test_what_was_moved_elsewhere_is_dropped_unless_it_was_handed_out():
    d = driver()
    with receiving(d) as rx, Raw(d.bound_port) as raw:
        raw.hello()
        raw.say(BatchFrame(0, numbered(0, 6)))
        until(lambda: (frame := raw.hear(Accept)) and frame.below == 6)
        assert take(rx, 2, settle=False) == [(b"0", 1), (b"1", 1)]
        raw.say(Moved([(1, 3), (4, 5)]))
        until(lambda: rx.stats()["subscriptions"]["orders"]["messages"] == 4, "the drop")
        assert take(rx, 2) == [(b"3", 1), (b"5", 1)]
        # They may come back: their identities are forgotten here.
        raw.say(BatchFrame(6, numbered(2, 1)))
        assert take(rx, 1) == [(b"2", 1)]


# --- bad peers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Code.VERSION),
        (HEAD.pack(20, 2) + b"x" * 19, Code.VERSION),
        (HEAD.pack(100_000_000, 1), Code.TOO_LARGE),
        (HEAD.pack(20, 1) + b"\xff" * 19, Code.PROTOCOL),
        (encode(Heartbeat()), Code.PROTOCOL),
        (encode(Accept(1, 1, 1)), Code.PROTOCOL),
    ],
    ids=["http", "version", "oversized", "garbage", "no hello", "not a sender's"],
)
def test_a_bad_peer_is_told_and_cut_off_and_the_others_notice_nothing(data, code):
    d = driver()
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(numbered(0, 5), 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 5)
        with Raw(d.bound_port) as bad:
            bad.sock.sendall(data)
            assert bad.hear(ErrorFrame).code is code
            assert bad.hear(ErrorFrame) is None
        assert (rx.stats()["garbage"], rx.stats()["refused"]) == (1, 1)
        tx.submit(numbered(5, 5), 5)
        assert [b for b, _ in take_while(rx, tx, 10)] == [b"%d" % i for i in range(10)]


def test_garbage_after_good_frames_costs_nothing_that_was_accepted():
    d = driver()
    with receiving(d) as rx, Raw(d.bound_port) as bad:
        welcome = bad.hello()
        bad.sock.sendall(encode(BatchFrame(0, numbered(0, 3))) + b"\0\0\0\x10\1" + b"\xff" * 15)
        assert bad.hear(ErrorFrame).code is Code.PROTOCOL
        assert take(rx, 3) == [(b"0", 1), (b"1", 1), (b"2", 1)]
        with Raw(d.bound_port) as again:
            resumed = again.hello(incarnation=welcome.incarnation, next=3)
            assert (resumed.accepted, resumed.settled) == (3, 3)


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


def test_a_frame_that_is_never_completed_is_timed_out():
    d = driver(frame_timeout=0.2)
    with receiving(d) as rx, Raw(d.bound_port) as slow:
        slow.hello()
        slow.sock.sendall(HEAD.pack(1000, 1) + b"x" * 10)
        error = slow.hear(ErrorFrame)
        assert (error.code, error.message) == (Code.TIMEOUT, "a frame was not completed within 0.2 s")
        assert rx.stats()["timed_out"] == 1


def test_a_peer_without_a_hello_is_timed_out():
    d = driver(hello_timeout=0.1)
    with receiving(d), Raw(d.bound_port) as silent:
        assert silent.hear(ErrorFrame).message == "no Hello within 0.1 s"


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
        assert take_while(rx, tx, 1) == [(b"0", 1)]


def test_a_silent_receiver_is_given_up():
    with socket.create_server((LOCAL, 0)) as server:
        tx = driver(server.getsockname()[1], **QUICK).sender()
        opening = threading.Thread(target=tx.open, args=(5.0,))
        opening.start()
        peer, _ = server.accept()
        with peer:
            peer.sendall(encode(Welcome(b"i" * 16, credit=10, credit_bytes=1000)))
            opening.join()
            with pytest.raises(ConnectError, match=r"was silent for 0\.4 s") as caught:
                until(lambda: tx.outcomes(0.05), "silence")
            assert caught.value.retryable
            tx.close(0.0)


@pytest.mark.parametrize(
    ("answer", "says", "retryable"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not a receiver", False),
        (HEAD.pack(9, 2) + b"x" * 8, "version 2, and version 1 is what is read here", False),
        (encode(ErrorFrame(Code.BUSY, "full", True)), "refuses: full", True),
        (encode(Accept(0, 0, 0)), "answers a Hello with Accept", False),
        (b"", "closed the connection", True),
    ],
)
def test_a_bad_receiver_is_named_in_one_line(answer, says, retryable):
    with socket.create_server((LOCAL, 0)) as server:

        def serve():
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        tx = driver(server.getsockname()[1]).sender()
        with pytest.raises(ConnectError, match=says) as caught:
            tx.open(5.0)
        thread.join()
        tx.close(0.0)
        assert (caught.value.retryable, "\n" in str(caught.value)) == (retryable, False)


# --- addresses -------------------------------------------------------------------------------------------------------


def refused(d):
    tx = d.sender()
    with pytest.raises(ConnectError) as caught:
        tx.open(1.0)
    tx.close(0.0)
    return caught.value


def test_a_port_in_use_is_one_clear_line():
    with socket.create_server((LOCAL, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConnectError) as caught, receiving(driver(port)):
            pass
    assert str(caught.value) == f"cannot listen at {LOCAL}:{port}: Address already in use"
    assert not caught.value.retryable


def test_nobody_at_the_address_may_change():
    with socket.create_server((LOCAL, 0)) as probe:
        port = probe.getsockname()[1]
    error = refused(driver(port))
    assert (str(error), error.retryable) == (f"{LOCAL}:{port} cannot be reached: nobody listens there", True)


def test_a_name_that_nobody_receives_may_come():
    d = driver()
    with receiving(d):
        error = refused(driver(d.bound_port, name="other"))
    assert "nobody receives 'other'" in str(error)
    assert error.retryable


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


def test_the_same_port_is_bound_again():
    d = driver()
    with receiving(d):
        port = d.bound_port
    with receiving(d) as rx:
        assert rx.address == f"{LOCAL}:{port}"


def test_receivers_that_share_a_listener_agree():
    d = driver()
    with receiving(d):
        with (
            pytest.raises(ConfigError, match="max_frame_bytes=5000"),
            receiving(driver(d.bound_port, max_frame_bytes=5000)),
        ):
            pass
        with pytest.raises(ConfigError, match="asked for"), receiving(driver(d.bound_port, buffer_messages=7)):
            pass
    assert [t.name for t in threading.enumerate() if t.name.startswith("simlink-tcp")] == []


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        (f"tcp://{LOCAL}:1/path/orders", InvalidURL, "one name behind the address"),
        (f"tcp://ann@{LOCAL}:1/orders", InvalidURL, "knows no user names"),
        (f"tcp://{LOCAL}/orders", InvalidURL, "needs a port"),
    ],
)
def test_a_url_that_means_nothing_is_refused(url, error, says):
    with pytest.raises(error, match=says):
        TcpDriver(parse_url(url), mode=Mode.QUEUE)


def test_several_endpoints_are_refused_for_sending_and_chosen_for_receiving():
    d = TcpDriver(parse_url(f"tcp://{LOCAL}:0,127.0.0.2:0/orders"), mode=Mode.QUEUE)
    with pytest.raises(NotSupported, match="several endpoints"):
        d.sender()
    with pytest.raises(ConfigError, match="at="):
        d.receiver(None, ReceiverOptions())
    with pytest.raises(ConfigError, match="none of its hosts"):
        d.receiver(None, ReceiverOptions(at="127.0.0.3"))
    with receiving(d, at="127.0.0.2") as rx:
        assert rx.address.startswith("127.0.0.2:")


def test_options_that_cannot_be_honoured_are_refused():
    for options in ({"start": "earliest"}, {"start": "new"}, {"exclusive": True}):
        with pytest.raises(NotSupported):
            driver().receiver(None, ReceiverOptions(**options))
    with pytest.raises(ConfigError):
        driver(heartbeat=2.0, dead=1.0)
    with pytest.raises(ConfigError):
        driver(dead=20.0)


def test_a_topic_over_channels():
    with topic(f"tcp://{LOCAL}:0/events") as events, events.receiver("audit") as audit, events.receiver() as live:
        events.send({"kind": "login"}, key="ann", headers={"trace": "7f"})
        for rx in (audit, live):
            delivery = rx.get()
            assert (delivery.value, delivery.message.key, dict(delivery.message.headers)) == (
                {"kind": "login"},
                b"ann",
                {"trace": "7f"},
            )
            assert json.loads(delivery.message.body) == {"kind": "login"}
