"""Many senders, each with one message that is longer than its credit, and an application that reads nothing."""

from __future__ import annotations

from collections import deque

import pytest

from simlink.channels.driver import Mode, OutcomeKind, Settlement
from simlink.channels.link.destination import Destination
from simlink.channels.link.sender import SenderLink
from simlink.channels.wire.frames import BatchFrame, Code, FrameError, Hello
from simlink.channels.wire.framing import FrameReader
from simlink.message import Batch, Same, Verdict

KIB = 1024
BUFFER = 256 * KIB
BEYOND = 256 * KIB
LONG = bytes(128 * KIB)
SHORT = b"short"


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Place:
    """A destination, and senders that come again when they are told that it is busy."""

    def __init__(self, senders, bodies):
        self.clock = Clock()
        self.destination = Destination(
            "orders", Mode.QUEUE, max_bytes=BUFFER, beyond=BEYOND, dead=5.0, clock=self.clock
        )
        self.reader = self.destination.hub.subscribe(None, capacity=10_000)
        self.senders = [Sender(self, number, bodies) for number in range(senders)]
        self.most = 0

    def turn(self):
        """Everybody says and hears what there is; whether anybody said something."""
        moved = [sender.turn() for sender in self.senders]
        self.destination.pump()
        for sender in self.senders:
            sender.hear()
        return any(moved)

    def rest(self):
        quiet = 0
        while quiet < 2:  # what is heard in one turn is answered in the next
            quiet = 0 if self.turn() else quiet + 1

    def look(self):
        kept = sum(link.waiting_bytes for link in self.destination.links.values())
        subscription = self.destination.stats()["subscriptions"]["orders"]
        self.most = max(self.most, kept + subscription["bytes"])

    def read(self):
        got = []
        for incoming in self.reader.receive(10_000, 0.0):
            got += zip(incoming.batch.producers, incoming.batch.sequences, strict=True)
            self.reader.settle([Settlement(incoming.lease, Verdict.ACK, incoming.tokens[0], incoming.tokens[-1])])
        return got


class Sender:
    def __init__(self, place, number, bodies):
        self.place = place
        self.producer = number.to_bytes(16, "big")
        self.link = SenderLink(self.producer, "orders", Mode.QUEUE)
        self.to_submit = deque(enumerate(bodies))
        self.bodies = bodies
        self.at = {}
        self.refused = 0
        self.join()

    def join(self):
        self.far = self.place.destination.hello(self.link.hello())
        self.place.destination.pump()
        welcome = self.far.welcome(heartbeat_ms=1000, max_frame_bytes=8 * KIB * KIB)
        self.book(self.link.welcome(welcome))

    def book(self, outcomes):
        back = [
            self.at[position]
            for outcome in outcomes
            if outcome.kind is OutcomeKind.RETURNED
            for position in range(outcome.first, outcome.stop)
        ]
        self.to_submit = deque(sorted([*((at, self.bodies[at]) for at in back), *self.to_submit]))

    def turn(self):
        while self.to_submit:
            at, body = self.to_submit.popleft()
            self.at[self.link.next] = at
            batch = Batch([body], producers=Same(self.producer, 1), sequences=range(at, at + 1))
            self.link.submit(batch, self.link.next)
        said = False
        assert self.place.destination.heard(self.far)
        while data := self.link.produce([]):
            said = True
            reader = FrameReader()
            reader.feed(data)
            frame = reader.next_frame()
            try:
                if isinstance(frame, BatchFrame):
                    self.place.destination.batch(self.far, frame)
                else:
                    self.place.destination.void(self.far, frame)
            except FrameError as error:
                if (error.code, error.retryable) != (Code.BUSY, True):
                    raise
                self.refused += 1
                self.place.destination.lost(self.far)
                self.link.lost()
                self.join()
            finally:
                self.place.look()
        return said

    def hear(self):
        for frame in self.far.news():
            self.book(self.link.receive(frame))


def test_what_waits_is_bounded_over_all_links_and_comes_in_order_when_there_is_room():
    bodies = [SHORT, LONG, SHORT, LONG]
    place = Place(40, bodies)
    place.rest()
    # The buffer with one message too many, what may wait beside it, and the credit there was to begin with.
    assert place.most <= BUFFER + len(LONG) + BEYOND + BUFFER // 2
    assert sum(sender.refused for sender in place.senders) > 0
    got = []
    nothing = 0
    while len(got) < 40 * len(bodies):
        got += (more := place.read())
        place.rest()
        place.clock.now += 0.03
        nothing = 0 if more else nothing + 1
        assert nothing < 25, f"nothing comes any more after {len(got)}"
    assert place.most <= BUFFER + len(LONG) + BEYOND + BUFFER // 2
    for sender in place.senders:
        assert [sequence for producer, sequence in got if producer == sender.producer] == [0, 1, 2, 3]
    # Nobody is refused over and over: what it wants is known after the first time, and each long message may be
    # refused once.
    assert sum(sender.refused for sender in place.senders) <= 40 * bodies.count(LONG)


def test_a_message_longer_than_every_bound_passes_alone():
    place = Place(1, [bytes(4 * BUFFER)] * 3)
    got = []
    for _ in range(6):
        place.rest()
        got += place.read()
        place.clock.now += 0.03
    assert [sequence for _, sequence in got] == [0, 1, 2]
    assert place.senders[0].refused == 0


def test_credit_that_one_asked_for_and_does_not_use_holds_up_nobody_for_long():
    place = Place(3, [LONG] * 4)
    place.rest()
    idle, honest = place.destination.links[place.senders[0].producer], place.senders[1:]
    idle.wants = BUFFER
    place.senders[0].to_submit.clear()
    for link in place.destination.links.values():
        link.wants = BUFFER
    place.senders = honest
    got = []
    for _ in range(40):
        got += [producer for producer, _ in place.read()]
        place.rest()
        place.clock.now += 0.1
    assert [got.count(sender.producer) for sender in honest] == [4, 4]


def test_who_is_told_to_wait_and_sends_all_the_same_is_cut_off_for_good():
    place = Place(20, [LONG])
    place.rest()
    refused = next(sender for sender in place.senders if sender.refused)
    known = refused.far
    hello = Hello(refused.producer, "orders", Mode.QUEUE, incarnation=known.incarnation, next=known.accepted)
    far = place.destination.hello(hello)
    place.destination.pump()
    assert far.credit_bytes == 0
    batch = Batch([SHORT], producers=Same(refused.producer, 1), sequences=range(1))
    with pytest.raises(FrameError, match="exceeds the credit") as raised:
        place.destination.batch(far, BatchFrame(far.accepted, batch))
    assert not raised.value.retryable
