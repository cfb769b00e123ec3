"""What a pool does not spend: beats in one pass, few wake-ups, batches in large pieces, and no sleep for one answer."""

import select
import socket
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest

from simlink.balancing.registry import balancer
from simlink.channels import peeking
from simlink.channels.driver import Incoming, Lease, Mode, Outcome, OutcomeKind, SenderDriver
from simlink.channels.hands import Hands
from simlink.channels.pool.queue import QueuePool
from simlink.channels.pool.world import RealWorld
from simlink.channels.sender import Sender
from simlink.channels.tcp import TcpDriver
from simlink.channels.tcp import sender as tcp_sender
from simlink.channels.tcp.connection import Connection
from simlink.channels.tcp.listener import Listener
from simlink.channels.tcp.settings import Settings
from simlink.channels.url import parse_url
from simlink.channels.window import Window
from simlink.channels.wire.codec import encode
from simlink.channels.wire.frames import Heartbeat
from simlink.health.heartbeat import Heartbeat as FixedBeats
from simlink.health.membership import Membership
from simlink.message import Batch, Verdict
from simlink.testing.clock import VirtualClock
from simlink.testing.ends import SimWorld


class Recorder(SenderDriver):
    """Takes what it is given, and settles it when told."""

    def __init__(self, name, given):
        self.name = name
        self.given = given
        self.held = []

    def open(self, timeout):
        return

    def submit(self, batch, position):
        self.given.append((self.name, len(batch)))
        self.held.append((position, position + len(batch)))

    def outcomes(self, timeout):
        return ()

    def settle(self):
        held, self.held = self.held, []
        return [Outcome(kind, *run) for run in held for kind in (OutcomeKind.CONFIRMED, OutcomeKind.SETTLED)]

    def close(self, timeout):
        return


class Waits(SimWorld):
    """Notes how it was waited."""

    def __init__(self, clock, random):
        super().__init__(clock, random)
        self.waits = []

    def open(self, name, end, timeout):
        self._opened.append((name, None))

    def wait(self, timeout, haste=False):
        self.waits.append((timeout > 0, haste))
        return super().wait(timeout, haste)


@pytest.fixture
def clock():
    return VirtualClock()


def pool_of(count, clock, given):
    world = Waits(clock, Random(1))
    chosen = balancer("least_connections")
    chosen.bind(world.now, world.random)
    pool = QueuePool(
        "tcp://pool",
        lambda name: Recorder(name, given),
        {f"e{i}": 1.0 for i in range(count)},
        balancer=chosen,
        membership=Membership(FixedBeats(1.0), random=world.random),
        world=world,
        retains=True,
    )
    pool.open(1.0)
    return pool


def pieces(pool, given, rows, position, size=1):
    given.clear()
    pool.submit(Batch([b"x" * size] * rows), position)
    return [count for _, count in given]


def settle(pool, clock, seconds):
    clock.advance(seconds)
    for slot in pool.slots.values():
        pool._report(slot, slot.end.settle())


def test_one_long_batch_is_spread_and_a_stream_of_them_goes_out_in_large_pieces(clock):
    given = []
    pool = pool_of(4, clock, given)
    assert pieces(pool, given, 4096, 0) == [1024] * 4
    assert len({name for name, _ in given}) == 4
    at = 4096
    for _ in range(8):  # all is settled within 10 ms: 410,000 a second
        settle(pool, clock, 0.01)
        pieces(pool, given, 4096, at)
        at += 4096
    settle(pool, clock, 0.01)
    assert pieces(pool, given, 4096, at) == [4096]
    assert pieces(pool, given, 5000, at + 4096) == [2500, 2500]


def test_for_slow_receivers_the_pieces_stay_small(clock):
    given = []
    pool = pool_of(4, clock, given)
    at = 0
    for _ in range(12):  # 16,000 a second
        assert pieces(pool, given, 4096, at) == [1024] * 4
        at += 4096
        settle(pool, clock, 0.25)


def test_a_piece_is_no_longer_than_a_frame_and_short_batches_are_left_alone(clock):
    given = []
    pool = pool_of(1, clock, given)
    at = 0
    for _ in range(12):
        pieces(pool, given, 4096, at)
        at += 4096
        settle(pool, clock, 0.005)
    assert pieces(pool, given, 4096, at, size=256) == [2048, 2048]
    assert pieces(pool, given, 4096, at + 4096, size=4096) == [1024] * 4
    assert pieces(pool, given, 1000, at + 8192) == [1000]


def test_in_haste_what_was_handed_over_is_served_first_and_there_is_one_wait(clock):
    given = []
    pool = pool_of(2, clock, given)
    pool.submit(Batch([b"x"]), 0)
    pool.world.waits.clear()
    pool.in_haste = True
    pool.outcomes(0.1)
    assert [haste for _, haste in pool.world.waits] == [True]
    assert not pool._touched
    pool.in_haste = False
    pool.submit(Batch([b"x"]), 1)
    pool.world.waits.clear()
    pool.outcomes(0.1)
    assert [haste for _, haste in pool.world.waits] == [False, False]


class Hasty(SenderDriver):
    """Notes whether it was in haste when it was asked."""

    def __init__(self):
        self.asked = []
        self.kept = []

    def open(self, timeout):
        return

    def submit(self, batch, position):
        self.kept.append(Outcome(OutcomeKind.CONFIRMED, position, position + len(batch)))

    def outcomes(self, timeout):
        self.asked.append(self.in_haste)
        done, self.kept = self.kept, []
        return done if timeout > 0 else []

    def close(self, timeout):
        return


@pytest.mark.parametrize(("rows", "haste"), [(1, True), (2, False)])
def test_only_who_waits_for_a_single_message_is_in_haste(rows, haste):
    driver = Hasty()
    sender = Sender(driver, Window(max_messages=10, max_bytes=1000, retains=False), url="x")
    try:
        sender.connect(1.0)
        driver.asked.clear()
        sender.submit(Batch([b"x"] * rows), 1.0, wait=True)
        assert any(driver.asked) == haste
    finally:
        sender.close(0.0)


def test_a_world_in_haste_looks_before_it_sleeps(monkeypatch):
    monkeypatch.setattr(peeking, "SPARE", True)
    monkeypatch.setattr(peeking, "PEEK", 60.0)
    world = RealWorld("x")
    here, there = socket.socketpair()
    try:
        world.watch("a", ((here.fileno(), select.POLLIN),))
        there.send(b"x")
        looked = []
        poll = world._poll
        world._poll = SimpleNamespace(poll=lambda timeout: looked.append(timeout) or poll.poll(timeout))
        assert world.wait(60.0, True) == {"a"}
        assert looked == [0]
        assert world.wait(60.0) == {"a"}
        assert looked == [0, 60_000]
    finally:
        world._poll = poll
        world.end()
        here.close()
        there.close()


# --- beats ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def linked(monkeypatch):
    """An end in a pool, its peer's socket, and the time."""
    now = SimpleNamespace(at=100.0)
    monkeypatch.setattr(tcp_sender, "time", SimpleNamespace(monotonic=lambda: now.at))
    end = TcpDriver(parse_url("tcp://127.0.0.1:1/orders"), mode=Mode.QUEUE).sender()
    end.lease(3.0)
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    end._sock = end._plain = here
    end._reads = ((here.fileno(), select.POLLIN),)
    end._poll.register(here, select.POLLIN)
    end._wrote = end._heard = now.at
    end._link.connected = True
    yield end, there, now
    end._closed = False
    end.close(0.0)
    there.close()


def test_a_beat_is_answered_in_the_pass_that_hears_it_if_the_last_is_long_enough_ago(linked):
    end, peer, now = linked
    now.at = 100.5
    peer.send(encode(Heartbeat()))
    assert end.outcomes(0.0) == ()
    assert end.pulse == (1, 1)
    with pytest.raises(BlockingIOError):
        peer.recv(100)
    now.at = 100.75
    peer.send(encode(Heartbeat()))
    end.outcomes(0.0)
    assert end.pulse == (2, 2)
    assert peer.recv(100) == encode(Heartbeat(0))
    assert end.rest() == pytest.approx(1.25)


def test_without_a_beat_of_its_peer_it_says_its_own_and_pieces_of_beats_are_put_together(linked):
    end, peer, now = linked
    now.at = 101.25
    end.outcomes(0.0)
    assert peer.recv(100) == encode(Heartbeat(0))
    beat = encode(Heartbeat())
    for piece, beats in ((beat[:3], 0), (beat[3:], 1), (beat + beat[:6], 2), (beat[6:] + beat, 4)):
        peer.send(piece)
        end.outcomes(0.0)
        assert end.pulse == (beats, beats)


def test_the_same_descriptors_are_the_same_object_while_nothing_is_unwritten(linked):
    end, _, _ = linked
    assert end.waits_for() is end.waits_for()
    end._out = b"rest"
    assert end.waits_for() == ((end._sock.fileno(), select.POLLIN | select.POLLOUT),)
    end._out = b""


@pytest.fixture
def listener():
    listener = Listener("127.0.0.1", 0, Settings())
    listener.stop(1.0)  # its thread is gone; what it would do is done here
    pairs = []

    def connect(sent):
        here, there = socket.socketpair()
        here.setblocking(False)
        there.setblocking(False)
        connection = Connection(here, "peer", sent, 1024, listener._unread)
        connection.link = SimpleNamespace(connected=True)
        connection.beat = 1.0
        listener._connections.add(connection)
        pairs.append((connection, there))
        return there

    yield listener, connect
    for connection, there in pairs:
        connection.sock.close()
        there.close()


def test_a_listener_looks_when_a_beat_is_due_and_not_before(listener):
    listener, connect = listener
    peer = connect(100.0)
    assert listener._tick(100.25) == pytest.approx(0.75)
    with pytest.raises(BlockingIOError):
        peer.recv(100)
    assert listener._tick(101.0) == pytest.approx(1.0)
    assert peer.recv(100) == encode(Heartbeat())


def test_one_look_serves_many_beats(listener):
    listener, connect = listener
    peers = [connect(100 + phase) for phase in np.linspace(0, 1, 50, endpoint=False)]
    now, looks = 101.0, 0
    while now < 104.0:  # before who is silent is cut off
        now += listener._tick(now)
        looks += 1
    assert looks <= 13
    for peer in peers:
        assert 2 <= len(peer.recv(1000)) // len(encode(Heartbeat())) <= 4


def test_hands_say_whether_anything_is_held():
    hands = Hands(lambda settlements: None, lambda producer, sequence: None)
    assert not hands.busy.is_set()
    held = hands.add(Incoming(Batch([b"a", b"b"]), range(2), [1, 1], Lease()))
    assert hands.busy.is_set()
    hands.mark_run(held, 0, 1, Verdict.ACK)
    hands.flush()
    hands.rest()
    assert hands.busy.is_set()
    hands.mark_run(held, 1, 2, Verdict.ACK)
    hands.rest()
    assert hands.busy.is_set()  # the verdict is not told yet
    hands.flush()
    hands.rest()
    assert not hands.busy.is_set()
