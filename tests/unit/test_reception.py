"""Who is let in at an address, what they hear, and when they are let go; by a clock of the test's own, without I/O."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink.channels.driver import Mode, Settlement
from simlink.channels.link.reception import Bounds, Manners, NoRoom, Peer, Reception
from simlink.channels.wire.frames import (
    Accept,
    BatchFrame,
    Bye,
    Code,
    ErrorFrame,
    Heartbeat,
    Hello,
    Moved,
    Returned,
    Settle,
    Void,
    Welcome,
)
from simlink.errors import ConfigError
from simlink.message import Batch, Same, Verdict

MANNERS = Manners(heartbeat=1.0, dead=5.0, orphan_after=10.0, hello_timeout=2.0, silence=30.0, max_peers=3)

SMALL = Bounds(10, 1000)


class Someone(Peer):
    def __init__(self, desk, name="p"):
        super().__init__(name, desk.now)
        self.desk = desk
        self.heard_of = []
        desk.reception.opened(self)

    def wake(self):
        self.heard_of += self.take()

    def say(self, *frames):
        for frame in frames:
            self.desk.reception.received(self, frame)
        return self.hears()

    def hears(self):
        heard, self.heard_of = self.heard_of, []
        return heard

    def hello(self, **changes):
        return self.say(Hello(**{"sender": b"s" * 16, "destination": "orders", "mode": Mode.QUEUE, **changes}))


class Desk:
    def __init__(self):
        self.now = 100.0
        self.notified = 0
        self.hastened = []
        self.reception = Reception(
            "here:1",
            MANNERS,
            post=lambda f: f(),
            soon=lambda f: f(),
            notify=self.notify,
            hasten=self.hastened.append,
            clock=lambda: self.now,
        )

    def notify(self):
        self.notified += 1

    def receive(self, name="orders", mode=Mode.QUEUE, bounds=SMALL, subscription=None):
        return self.reception.join(name, mode, bounds, subscription, capacity=100, overflow="block")

    def leave(self, reader, name="orders"):
        self.reception.leave(name, reader, 0.0, alive=lambda: False)


@pytest.fixture
def desk():
    return Desk()


def numbered(first, count):
    return Batch(
        [b"%d" % i for i in range(first, first + count)],
        producers=Same(b"p" * 16, count),
        sequences=range(first, first + count),
    )


def settle(reader, incoming, verdict=Verdict.ACK):
    reader.settle([Settlement(incoming.lease, verdict, incoming.tokens[0], incoming.tokens[-1])])


def kinds(frames):
    return [type(frame) for frame in frames]


def test_accepted_when_it_comes_and_settled_when_it_is_pumped(desk):
    reader = desk.receive()
    peer = Someone(desk)
    (welcome,) = peer.hello()
    assert (type(welcome), welcome.credit, welcome.heartbeat_ms) == (Welcome, 5, 1000)
    (accept,) = peer.say(BatchFrame(0, numbered(0, 3)))
    assert (type(accept), accept.below) == (Accept, 3)
    (incoming,) = reader.receive(10, 0.0)
    settle(reader, incoming)
    assert (desk.notified, desk.reception.has_settled, peer.hears()) == (1, True, [])
    desk.reception.pump()
    assert [f.below for f in peer.hears() if isinstance(f, Settle)] == [3]
    assert not desk.reception.has_settled


def test_an_acceptance_does_not_wait_for_what_was_settled_nor_the_other_way_round(desk):
    reader = desk.receive()
    peer = Someone(desk)
    peer.hello()
    peer.say(BatchFrame(0, numbered(0, 1)))
    (incoming,) = reader.receive(10, 0.0)
    settle(reader, incoming)
    assert kinds(peer.say(BatchFrame(1, numbered(1, 1)))) == [Accept]
    desk.reception.pump()
    assert [f.below for f in peer.hears() if isinstance(f, Settle)] == [1]


def test_credit_that_is_kept_back_while_readers_are_busy_is_looked_at_soon(desk):
    reader = desk.receive(bounds=Bounds(65_536, 1 << 24))
    peer = Someone(desk)
    peer.hello()
    for at in range(0, 20_000, 1_000):
        peer.say(BatchFrame(at, numbered(at, 1_000)))
        (incoming,) = reader.receive(10, 0.0)
        settle(reader, incoming)
        desk.reception.pump()
    assert desk.hastened
    credit = max(f.credit for f in peer.hears())
    desk.now += 1.0
    desk.reception.tick()
    assert max(f.credit for f in peer.hears() if not isinstance(f, Heartbeat)) > credit


def test_a_peer_that_is_writing_takes_the_news_itself(desk):
    desk.receive()
    peer = Someone(desk)
    peer.hello()
    peer.writing = True
    assert peer.say(BatchFrame(0, numbered(0, 1)), BatchFrame(1, numbered(1, 1))) == []
    assert [f.below for f in peer.take() if isinstance(f, Accept)] == [2]


def test_a_silent_connection_is_let_go_a_silent_sender_later(desk):
    desk.receive()
    stranger, sender = Someone(desk), Someone(desk)
    sender.hello()
    desk.now += MANNERS.hello_timeout + 0.1
    desk.reception.tick()
    assert [(f.code, f.message) for f in stranger.hears()] == [(Code.TIMEOUT, "no Hello within 2 s")]
    assert kinds(sender.hears()) == [Heartbeat]
    desk.now += MANNERS.silence + 0.1
    desk.reception.tick()
    (error,) = sender.hears()
    assert (error.code, error.retryable, desk.reception.stats()["half_open"]) == (Code.TIMEOUT, True, 1)


def test_heartbeats_come_only_when_nothing_else_was_said(desk):
    desk.receive()
    peer = Someone(desk)
    peer.hello()
    desk.now += 0.9
    desk.reception.tick()
    assert peer.hears() == []
    peer.say(BatchFrame(0, numbered(0, 1)))
    desk.now += 0.9
    desk.reception.tick()
    assert peer.hears() == []
    desk.now += 0.2
    desk.reception.tick()
    assert peer.hears() == [Heartbeat()]


def test_the_last_reader_gives_back_before_it_says_that_it_closes(desk):
    reader = desk.receive()
    peer = Someone(desk)
    peer.hello()
    peer.say(BatchFrame(0, numbered(0, 3)))
    desk.leave(reader)
    heard = peer.hears()
    assert [f.fresh for f in heard if isinstance(f, Returned)] == [[(0, 3)]]
    assert (type(heard[-1]), heard[-1].code, peer.ended) == (ErrorFrame, Code.CLOSING, True)
    (refused,) = Someone(desk).hello()
    assert (refused.code, refused.retryable) == (Code.NO_RECEIVER, True)


def test_a_sender_that_comes_again_takes_the_news_with_it(desk):
    reader = desk.receive()
    old, new = Someone(desk), Someone(desk)
    (welcome,) = old.hello()
    old.say(BatchFrame(0, numbered(0, 2)))
    (incoming,) = reader.receive(10, 0.0)
    settle(reader, incoming)
    (resumed,) = new.hello(incarnation=welcome.incarnation, next=2)
    assert (resumed.accepted, resumed.settled) == (2, 2)
    assert [f.code for f in old.hears()] == [Code.REPLACED]
    desk.reception.gone(old)
    assert new.say(BatchFrame(2, numbered(2, 1)))[0].below == 3


def test_a_goodbye_ends_well(desk):
    desk.receive()
    peer = Someone(desk)
    peer.hello()
    peer.say(BatchFrame(0, numbered(0, 1)), Bye())
    assert (peer.ended, peer.reason) == (True, None)


def test_a_goodbye_keeps_nothing_that_was_settled_from_the_others(desk):
    reader = desk.receive()
    stays, leaves = Someone(desk), Someone(desk)
    stays.hello()
    leaves.hello(sender=b"2" * 16)
    stays.say(BatchFrame(0, numbered(0, 3)))
    (incoming,) = reader.receive(10, 0.0)
    settle(reader, incoming)
    stays.hears()
    leaves.say(Bye())
    desk.reception.pump()
    assert [f.below for f in stays.hears() if isinstance(f, Settle)] == [3]


def test_more_peers_than_allowed_are_told(desk):
    desk.receive()
    peers = [Someone(desk) for _ in range(4)]
    assert [[f.code for f in peer.hears()] for peer in peers] == [[], [], [], [Code.BUSY]]
    desk.reception.gone(peers[3])
    desk.reception.gone(peers[0])
    assert Someone(desk).hears() == []


def test_receivers_agree_on_mode_and_bounds(desk):
    desk.receive()
    with pytest.raises(ConfigError, match="is received as a queue at here:1, not as a topic"):
        desk.receive(mode=Mode.TOPIC)
    with pytest.raises(ConfigError, match="asked for"):
        desk.receive(bounds=Bounds(11, 1000))


def test_published_whole_or_not_at_all(desk):
    reader = desk.receive()
    desk.reception.publish("orders", Batch([b"x"] * 6))
    with pytest.raises(NoRoom):
        desk.reception.publish("orders", Batch([b"x"] * 5))
    with pytest.raises(ValueError, match="11 messages at once, and the buffer takes 10"):
        desk.reception.publish("orders", Batch([b"x"] * 11))
    with pytest.raises(KeyError):
        desk.reception.publish("other", Batch([b"x"]))
    (incoming,) = reader.receive(10, 0.0)
    assert len(incoming.batch) == 6
    settle(reader, incoming, Verdict.REJECT)
    desk.reception.pump()
    desk.reception.publish("orders", Batch([b"x"] * 10))
    assert desk.reception.stats("orders")["published"] == 16


def test_what_was_published_is_remembered_by_identity_and_nothing_else(desk):
    reader = desk.receive(bounds=Bounds(1000, 100_000))
    for _ in range(50):
        desk.reception.publish("orders", numbered(0, 10))
        for incoming in reader.receive(100, 0.0):
            settle(reader, incoming, Verdict.REJECT)
        desk.reception.pump()
    plain = desk.reception._places["orders"].destination._plain[b""]
    assert desk.reception.stats("orders")["duplicates"] == 490
    assert (len(plain._new_rejected), len(plain._rejected), len(plain.resolved)) == (0, 0, 0)


positions = st.integers(0, 40)
runs = st.lists(st.tuples(positions, positions).map(lambda ab: (min(ab), max(ab) + 1)), max_size=3)
anything = st.one_of(
    st.builds(
        Hello,
        sender=st.sampled_from([b"a" * 16, b"b" * 16]),
        destination=st.sampled_from(["orders", "other"]),
        mode=st.sampled_from(Mode),
        incarnation=st.sampled_from([b"", b"i" * 16]),
        low=positions,
        next=positions,
    ),
    st.builds(lambda at, n: BatchFrame(at, numbered(at, n)), positions, st.integers(0, 12)),
    st.builds(Heartbeat, positions),
    st.builds(lambda a, n: Void(a, a + n), positions, positions),
    st.builds(Moved, runs),
    st.builds(Bye),
    st.builds(Accept, positions, positions, positions),
    st.builds(Settle, positions, runs, runs, positions, positions),
    st.just(ErrorFrame(Code.PROTOCOL, "no")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), anything), max_size=30))
def test_whatever_peers_say_the_buffer_keeps_its_bound_and_each_ends_by_itself(said):
    desk = Desk()
    reader = desk.receive()
    peers = [Someone(desk) for _ in range(3)]
    for which, frame in said:
        before = [peer.ended for peer in peers]
        peers[which].say(frame)
        subscription = desk.reception.stats("orders")["subscriptions"]["orders"]
        assert subscription["messages"] <= 10
        changed = [i for i, peer in enumerate(peers) if peer.ended and not before[i] and i != which]
        # Somebody else is let go only because the same sender has come again.
        assert all(peers[i].reason.code is Code.REPLACED for i in changed)
    desk.leave(reader)
    assert all(peer.ended or peer.link is None for peer in peers)


def test_plain_clients_who_have_nothing_open_are_forgotten(desk, monkeypatch):
    monkeypatch.setattr("simlink.channels.link.destination._MAX_LOST_LINKS", 3)
    reader = desk.receive(bounds=Bounds(1000, 100_000))
    destination = desk.reception._places["orders"].destination
    for who in (b"a", b"b"):
        desk.reception.publish("orders", Batch([who]), who)
    open_ = reader.receive(100, 0.0)
    for number in range(20):
        desk.reception.publish("orders", Batch([b"x"]), b"%d" % number)
        for incoming in reader.receive(100, 0.0):
            settle(reader, incoming, Verdict.ACK)
        desk.reception.pump()
        assert len(destination._plain) <= 4
    # These have something open.
    assert {b"a", b"b"} < set(destination._plain)
    for incoming in open_:
        settle(reader, incoming, Verdict.ACK)
    desk.reception.pump()
    assert destination.published_and_open() == 0
