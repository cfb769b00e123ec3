"""Two ends of a link over a network that stalls, cuts and lies about it, and a receiver that crashes: a model test.

The sender here does what the layer above a driver does: it submits what came back again, in order, ahead of anything
new, under a new position and the same identity.
"""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from simlink.channels.driver import Mode, OutcomeKind, Settlement
from simlink.channels.link.destination import Destination
from simlink.channels.link.sender import SenderLink
from simlink.channels.wire.codec import encode
from simlink.channels.wire.frames import BatchFrame, Heartbeat, Void, Welcome
from simlink.channels.wire.framing import FrameReader
from simlink.message import Batch, Same, Verdict

BOUND = 200
FINAL = {OutcomeKind.SETTLED, OutcomeKind.REJECTED, OutcomeKind.RETURNED, OutcomeKind.FAILED}


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Sender:
    """One sender, its layer above, and its connection (two byte pipes)."""

    def __init__(self, number):
        self.producer = bytes([number]) * 16
        self.link = SenderLink(bytes([100 + number]) * 16, "orders", Mode.QUEUE)
        self.made = 0
        self.waiting = deque()  # sequences to submit, in order
        self.at = {}  # position → sequence
        self.state = {}  # position → its last outcome
        self.settled = {}  # sequence → SETTLED or REJECTED
        self.up = False  # as this end sees it
        self.to_receiver = bytearray()
        self.to_sender = bytearray()
        self.reader = FrameReader()
        # What the receiver's end of the connection knows; it may live on after this end has lost it.
        self.far_reader = None
        self.far_link = None

    def make(self, count):
        self.waiting.extend(range(self.made, self.made + count))
        self.made += count

    def submit(self, count, handed_since):
        sequences = [self.waiting.popleft() for _ in range(min(count, len(self.waiting)))]
        if not sequences:
            return
        position = self.link.next
        for row, sequence in enumerate(sequences):
            self.at[position + row] = sequence
            handed_since.discard((self.producer, sequence))
        n = len(sequences)
        column = range(sequences[0], sequences[0] + n) if sequences[-1] - sequences[0] == n - 1 else sequences
        bodies = [b"%d" % s for s in sequences]
        self.link.submit(Batch(bodies, producers=Same(self.producer, n), sequences=column), position)

    def book(self, outcomes, handed_since, verdicts):
        back = []
        for outcome in outcomes:
            for position in range(outcome.first, outcome.stop):
                sequence = self.at[position]  # never of what was not submitted
                before = self.state.get(position)
                assert before not in FINAL
                if outcome.kind is OutcomeKind.CONFIRMED:
                    assert before is None
                elif outcome.kind is OutcomeKind.RETURNED:
                    back.append(sequence)
                    if not outcome.ambiguous:
                        assert (self.producer, sequence) not in handed_since
                else:
                    assert before is OutcomeKind.CONFIRMED
                    said = Verdict.ACK if outcome.kind is OutcomeKind.SETTLED else Verdict.REJECT
                    assert said in verdicts[self.producer, sequence]
                    self.settled[sequence] = outcome.kind
                self.state[position] = outcome.kind
        self.waiting = deque(sorted([*back, *self.waiting]))


class LinkMachine(RuleBasedStateMachine):
    @initialize()
    def start(self):
        self.clock = Clock()
        self.senders = [Sender(1), Sender(2)]
        self.handed_since = set()  # identities handed out since they were last submitted
        self.verdicts = {}  # identity → the application's final words, in any life
        self.delivered = set()
        self.new_life()

    def new_life(self):
        self.destination = Destination(
            "orders", Mode.QUEUE, max_messages=BOUND, max_bytes=4000, clock=self.clock, notify=lambda: None
        )
        self.reader = self.destination.hub.subscribe(None, capacity=60)
        self.news = False
        self.first_handed = {}  # identity → True, handed out as attempt 1 in this life
        self.order = {}  # producer → the last sequence handed out as attempt 1 in this life
        self.in_hand = []  # (lease, token, identity)
        for sender in self.senders:
            sender.far_link = sender.far_reader = None

    # --- the layers above ---------------------------------------------------------------------------------------

    which = st.integers(0, 1)

    @rule(which=which, made=st.integers(1, 40))
    def send(self, which, made):
        sender = self.senders[which]
        sender.make(made)
        while sender.waiting:
            sender.submit(17, self.handed_since)

    @rule(which=which, made=st.integers(BOUND, 3 * BOUND))
    def send_much(self, which, made):
        """More than there is room for: where the connection is lost, all of it gets new positions."""
        self.send(which, made)

    @rule(limit=st.integers(1, 50))
    def receive(self, limit):
        for incoming in self.reader.receive(limit, 0.0):
            for row, token in enumerate(incoming.tokens):
                message = incoming.batch[row]
                identity = (message.producer, message.sequence)
                assert message.body == b"%d" % message.sequence
                if incoming.attempts[row] == 1:
                    assert identity not in self.first_handed
                    assert message.sequence > self.order.get(message.producer, -1)
                    self.first_handed[identity] = True
                    self.order[message.producer] = message.sequence
                self.handed_since.add(identity)
                self.delivered.add(identity)
                self.in_hand.append((incoming.lease, token, identity))

    @rule(
        verdict=st.sampled_from([Verdict.ACK, Verdict.ACK, Verdict.REJECT, Verdict.NACK]),
        pick=st.lists(st.integers(0, 60), min_size=1, max_size=30),
    )
    def settle(self, verdict, pick):
        chosen = sorted({n % len(self.in_hand) for n in pick}) if self.in_hand else []
        for n in reversed(chosen):
            lease, token, identity = self.in_hand.pop(n)
            if verdict is not Verdict.NACK:
                self.verdicts.setdefault(identity, set()).add(verdict)
            self.reader.settle([Settlement(lease, verdict, token, token)])

    @rule(
        which=which,
        made=st.integers(1, 40),
        stage=st.integers(1, 5),
        verdict=st.sampled_from([Verdict.ACK, Verdict.REJECT, Verdict.NACK]),
        pick=st.lists(st.integers(0, 60), min_size=1, max_size=40),
    )
    def flow(self, which, made, stage, verdict, pick):
        """The usual way of things, up to some stage: random steps alone seldom get far."""
        self.connect(which)
        self.send(which, made)
        self.write(which)
        self.carry_to_receiver(which, 10**6)
        if stage >= 2:
            self.answer()
            self.carry_to_sender(which, 10**6)
        if stage >= 3:
            self.receive(50)
        if stage >= 4:
            self.settle(verdict, pick)
        if stage >= 5:
            self.answer()

    @rule()
    def another_reader_takes_over(self):
        fresh = self.destination.hub.subscribe(None, capacity=60)
        self.destination.hub.unsubscribe(self.reader)
        self.reader = fresh
        self.in_hand.clear()

    @rule(seconds=st.sampled_from([0.5, 3.0, 6.0]))
    def time_passes(self, seconds):
        self.clock.now += seconds
        self.destination.tick()

    # --- the network --------------------------------------------------------------------------------------------

    @rule(which=which)
    def write(self, which):
        sender = self.senders[which]
        failed = []
        while sender.up and (data := sender.link.produce(failed)) is not None:
            sender.to_receiver += data
        assert failed == []

    @rule(which=which)
    def beat(self, which):
        sender = self.senders[which]
        if sender.up:
            sender.to_receiver += encode(sender.link.heartbeat())

    @rule(which=which, count=st.integers(1, 3000))
    def carry_to_receiver(self, which, count):
        sender = self.senders[which]
        if sender.far_link is None:
            return
        sender.far_reader.feed(bytes(sender.to_receiver[:count]))
        del sender.to_receiver[:count]
        self.destination.heard(sender.far_link)
        for frame in sender.far_reader.frames():
            if isinstance(frame, BatchFrame):
                self.destination.batch(sender.far_link, frame)
                self.news = True
            elif isinstance(frame, Void):
                self.destination.void(sender.far_link, frame)
                self.news = True
            else:
                assert isinstance(frame, Heartbeat)
                self.destination.heartbeat(sender.far_link, frame)

    @rule()
    def answer(self):
        # A listener looks when something came or was settled, or while credit is kept back; not at every beat.
        if self.news or self.destination.has_settled or self.destination.holding_back:
            self.destination.pump()
            self.news = False
        for sender in self.senders:
            if sender.far_link is not None:
                for frame in sender.far_link.news():
                    sender.to_sender += encode(frame)

    @rule(which=which, count=st.integers(1, 300))
    def carry_to_sender(self, which, count):
        sender = self.senders[which]
        if not sender.up:
            return
        sender.reader.feed(bytes(sender.to_sender[:count]))
        del sender.to_sender[:count]
        for frame in sender.reader.frames():
            sender.book(sender.link.receive(frame), self.handed_since, self.verdicts)

    @rule(which=which, far_too=st.booleans())
    def cut(self, which, far_too):
        sender = self.senders[which]
        sender.up = False
        sender.link.lost()
        if far_too:
            self.far_lost(sender)

    def far_lost(self, sender):
        if sender.far_link is not None:
            self.destination.lost(sender.far_link)
            sender.far_link = None

    @rule(which=which)
    def connect(self, which):
        sender = self.senders[which]
        if sender.up:
            return
        hello = sender.link.hello()
        self.far_lost(sender)  # the same sender again: its old connection is read no more
        sender.to_receiver.clear()
        sender.to_sender.clear()
        sender.reader = FrameReader()
        sender.far_reader = FrameReader()
        sender.far_link = self.destination.hello(hello)
        self.destination.pump()
        welcome = sender.far_link.welcome(heartbeat_ms=1000, max_frame_bytes=1 << 20)
        reader = FrameReader()
        reader.feed(encode(welcome))
        (frame,) = reader.frames()
        assert isinstance(frame, Welcome)
        sender.book(sender.link.welcome(frame), self.handed_since, self.verdicts)
        sender.up = True
        while sender.waiting:
            sender.submit(17, self.handed_since)

    @rule()
    def crash_of_the_receiver(self):
        for sender in self.senders:
            sender.up = False
            sender.link.lost()
        self.new_life()

    @rule()
    def the_receiver_closes(self):
        self.destination.hub.unsubscribe(self.reader)
        self.destination.close()
        for sender in self.senders:
            if sender.far_link is not None:
                for frame in sender.far_link.news():
                    sender.to_sender += encode(frame)
            if sender.up:
                sender.reader.feed(bytes(sender.to_sender))
                sender.to_sender.clear()
                for frame in sender.reader.frames():
                    sender.book(sender.link.receive(frame), self.handed_since, self.verdicts)
                sender.book(sender.link.closing(), self.handed_since, self.verdicts)
            sender.up = False
            sender.link.lost()
        self.new_life()

    # --- what always holds --------------------------------------------------------------------------------------

    @invariant()
    def the_buffer_is_bounded(self):
        if hasattr(self, "destination"):
            subscription = self.destination.hub.subscriptions["orders"]
            assert subscription.count <= BOUND
            parked = sum(b - a for s in self.senders if s.far_link for a, b, _ in s.far_link.parked)
            assert parked <= BOUND

    def teardown(self):
        """Heal, drain, and count: everything that was made was delivered, and is settled."""
        if not hasattr(self, "destination"):
            return
        for _ in range(400):
            if all(len(s.settled) == s.made for s in self.senders):
                break
            self.time_passes(0.5)
            for which in range(2):
                self.connect(which)
                self.write(which)
                self.beat(which)
                self.carry_to_receiver(which, 10**6)
            self.receive(50)
            self.settle(Verdict.ACK, list(range(60)))
            self.answer()
            for which in range(2):
                self.carry_to_sender(which, 10**6)
                while self.senders[which].waiting:
                    self.senders[which].submit(17, self.handed_since)
        for sender in self.senders:
            assert sorted(sender.settled) == list(range(sender.made))
            assert {s for p, s in self.delivered if p == sender.producer} == set(range(sender.made))
            assert sender.link.resolved.mark == sender.link.next


TestLink = LinkMachine.TestCase
TestLink.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_what_waited_in_a_number_beyond_all_credit_is_sent_after_a_reconnect():
    machine = LinkMachine()
    machine.start()
    machine.flow(0, 1, 1, Verdict.ACK, [0])
    machine.cut(0, far_too=False)
    machine.send_much(0, 3 * BOUND)
    machine.teardown()
