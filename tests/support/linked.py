"""Senders, one receiving process and its readers, over one of `carriers`: what a model test of a link moves about.

A sender does what the layers above a driver do: it submits what came back again, in order, ahead of anything new,
under a new position and the same identity. Everything here is checked while it happens; `drain` checks that all of it
comes to an end.
"""

from __future__ import annotations

from collections import deque

from simlink.channels.driver import Mode, OutcomeKind, Settlement
from simlink.channels.http.sender import _highest
from simlink.channels.link.places import Bounds
from simlink.channels.link.sender import SenderLink
from simlink.channels.wire.codec import encode
from simlink.channels.wire.frames import Accept, Bye, Code, ErrorFrame, Heartbeat, Returned, Settle, Welcome
from simlink.channels.wire.framing import read_frames
from simlink.message import Batch, Same, Verdict

__all__ = ["LONGEST", "Linked", "Sender"]

LONGEST = 6_000
"""Bytes of a frame; a message beyond them cannot be framed."""
ROUND = 0.05
FINAL = {OutcomeKind.SETTLED, OutcomeKind.REJECTED, OutcomeKind.RETURNED, OutcomeKind.FAILED}


class Sender:
    """One sender, the layer above it, and its connection."""

    def __init__(self, name, number, mode, *, heartbeat, lease=0.0):
        self.number = number
        self.producer = bytes([number]) * 16
        self.link = SenderLink(
            bytes([100 + number]) * 16,
            name,
            mode,
            heartbeat_ms=round(heartbeat * 1000),
            max_frame_bytes=LONGEST,
            frame_messages=7,
        )
        self.link.lease_ms = round(lease * 1000)
        self.beat = heartbeat
        self.wrote = 0.0
        self.bodies = []
        self.to = []  # by sequence: the subscriptions it is for; empty for all
        self.keyed = False
        """Its messages have keys, but for every fourth."""
        self.waiting = deque()  # sequences to submit, in order
        self.at = {}  # position → sequence
        self.state = {}  # position → its last outcome
        self.done = {}  # sequence → its end
        self.withdrawn = set()  # positions
        self.wire = None
        self.gone = False

    def make(self, count, size, to):
        for _ in range(count):
            sequence = len(self.bodies)
            self.waiting.append(sequence)
            self.bodies.append(b"%d:" % sequence + b"x" * size)
            self.to.append(to)

    def key(self, sequence):
        return b"%d" % (sequence % 3) if self.keyed and sequence % 4 else None

    @property
    def up(self):
        return self.wire is not None and self.link.connected


class Linked:
    def __init__(
        self, carrier, *, name="orders", mode=Mode.QUEUE, bounds=(20, 1000), senders=2, heartbeat=1.0, lease=0.0
    ):
        self.carrier, self.clock, self.name, self.mode = carrier, carrier.clock, name, mode
        self.bounds = Bounds(*bounds)
        self.senders = [Sender(name, n + 1, mode, heartbeat=heartbeat, lease=lease) for n in range(senders)]
        self.readers = {}  # label → (reader, its subscription's name in the hub)
        self.strict = True
        """First attempts come in order: there was never more than one reader of a subscription."""
        self.handed_since = set()  # identities that were handed out since they were last submitted
        self.verdicts = {}  # identity → final words
        self.delivered = {}  # subscription → identities
        self.new_life()

    def new_life(self):
        self.first_handed = set()  # (subscription, identity)
        self.order = {}  # (subscription, producer, key) → the last sequence that was handed out as attempt 1
        self.in_hand = []  # (label, lease, token, identity)

    @property
    def destination(self):
        return self.carrier.destination(self.name)

    # --- readers ------------------------------------------------------------------------------------------------

    def join(self, label, subscription=None, overflow="block", capacity=1000):
        reader = self.carrier.join(self.name, self.mode, self.bounds, subscription, capacity, overflow)
        self.readers[label] = (reader, reader.subscription.name)
        self.strict = self.strict and len(reader.subscription.readers) == 1
        self.carrier.run()

    def leave(self, label):
        reader, _ = self.readers.pop(label)
        self.in_hand = [held for held in self.in_hand if held[0] != label]
        self.carrier.leave(self.name, reader)
        if self.destination is None:
            self.new_life()
        self.carrier.run()

    def receive(self, label, limit):
        reader, subscription = self.readers[label]
        count = 0
        for incoming in reader.receive(limit, 0.0):
            for row, token in enumerate(incoming.tokens):
                count += 1
                message = incoming.batch[row]
                identity = (message.producer, message.sequence)
                sender = self.senders[message.producer[0] - 1]
                assert message.body == sender.bodies[message.sequence]
                assert message.key == sender.key(message.sequence)
                if incoming.attempts[row] == 1:
                    life = (subscription, identity)
                    assert life not in self.first_handed, f"twice at attempt 1: {life}"
                    self.first_handed.add(life)
                    line = (subscription, message.producer, message.key)
                    if self.strict:
                        last = self.order.get(line, -1)
                        assert message.sequence > last, f"{message.sequence} after {last}"
                    self.order[line] = message.sequence
                self.handed_since.add(identity)
                self.delivered.setdefault(subscription, set()).add(identity)
                self.in_hand.append((label, incoming.lease, token, identity))
        self.carrier.run()
        return count

    def settle(self, picks, verdict, delay=0.0):
        for n in sorted({pick % len(self.in_hand) for pick in picks} if self.in_hand else (), reverse=True):
            label, lease, token, identity = self.in_hand.pop(n)
            if verdict is not Verdict.NACK:
                self.verdicts.setdefault(identity, set()).add(verdict)
            self.readers[label][0].settle([Settlement(lease, verdict, token, token, delay)])
        self.carrier.run()

    def settle_all(self, label, verdict=Verdict.ACK):
        self.settle([n for n, held in enumerate(self.in_hand) if held[0] == label], verdict)

    def pass_time(self, seconds):
        self.clock.now += seconds
        self.carrier.run()
        for sender in self.senders:
            self.serve(sender, beat_only=True)

    # --- senders ------------------------------------------------------------------------------------------------

    def submit(self, sender, most=17):
        while sender.waiting and sender.up:
            sequences = [sender.waiting.popleft()]
            to = sender.to[sequences[0]]
            while sender.waiting and len(sequences) < most and sender.to[sender.waiting[0]] == to:
                sequences.append(sender.waiting.popleft())
            position = sender.link.next
            for row, sequence in enumerate(sequences):
                sender.at[position + row] = sequence
                self.handed_since.discard((sender.producer, sequence))
            n = len(sequences)
            column = range(sequences[0], sequences[0] + n) if sequences[-1] - sequences[0] == n - 1 else sequences
            bodies = [sender.bodies[s] for s in sequences]
            sender.link.address(to)
            keys = [sender.key(s) for s in sequences] if sender.keyed else None
            sender.link.submit(Batch(bodies, keys=keys, producers=Same(sender.producer, n), sequences=column), position)

    def book(self, sender, outcomes):
        back = []
        for outcome in outcomes:
            for position in range(outcome.first, outcome.stop):
                sequence = sender.at[position]
                identity = (sender.producer, sequence)
                before = sender.state.get(position)
                if position in sender.withdrawn:
                    assert outcome.kind is OutcomeKind.CONFIRMED, outcome
                    continue
                assert before not in FINAL, (before, outcome)
                if outcome.kind is OutcomeKind.CONFIRMED:
                    assert before is None, (before, outcome)
                elif outcome.kind is OutcomeKind.RETURNED:
                    back.append(sequence)
                    if not outcome.ambiguous and not sender.withdrawn and not sender.gone:
                        # (An earlier copy was said to be ambiguous then, and may be handed out yet.)
                        assert identity not in self.handed_since, (outcome, identity)
                elif outcome.kind is OutcomeKind.FAILED:
                    assert before is None
                    assert len(sender.bodies[sequence]) > LONGEST / 2
                    sender.done[sequence] = "failed"
                else:
                    assert before is OutcomeKind.CONFIRMED
                    said = Verdict.ACK if outcome.kind is OutcomeKind.SETTLED else Verdict.REJECT
                    if self.mode is Mode.QUEUE and not sender.withdrawn and not sender.gone:
                        # (Of a copy that comes again it is only known that the first one was settled, not how.)
                        assert said in self.verdicts.get(identity, ()), (outcome, identity)
                    sender.done[sequence] = "settled"
                sender.state[position] = outcome.kind
        assert not set(back) & set(sender.done)
        sender.waiting = deque(sorted([*back, *sender.waiting]))

    def connect(self, sender):
        """Whether it is connected."""
        if sender.up:
            return True
        self.cut(sender)
        hello = sender.link.hello()
        wire = self.carrier.connect(hello)
        self.carrier.run()
        if not wire.heard:
            self.carrier.hang_up(wire)
            return False
        (frame,) = read_frames(wire.heard[0])
        if not isinstance(frame, Welcome):
            assert isinstance(frame, ErrorFrame)
            assert frame.retryable, frame
            self.carrier.hang_up(wire)
            return False
        del wire.heard[0]
        sender.wire = wire
        self.book(sender, sender.link.welcome(frame))
        self.submit(sender)
        return True

    def cut(self, sender, far_too=True):
        """The sender loses its connection; what was on its way is lost."""
        sender.link.lost()
        wire, sender.wire = sender.wire, None
        if wire is not None and far_too:
            self.carrier.hang_up(wire)
            self.carrier.run()

    def write(self, sender, together=1):
        """Put what may be sent on the wire."""
        failed = []
        while sender.up:
            parts = []
            while len(parts) < together and (data := sender.link.produce(failed)) is not None:
                parts.append(data)
            if not parts:
                break
            sender.wire.posts.append(b"".join(parts))
            sender.wrote = self.clock.now
        self.book(sender, failed)

    def beat(self, sender):
        if sender.up:
            sender.wire.posts.append(encode(sender.link.heartbeat()))
            sender.wrote = self.clock.now

    def carry(self, sender, which=0, size=None):
        """One of the posts on the wire arrives, or a part of it."""
        wire = sender.wire
        if wire is None or not wire.posts:
            return
        if wire.ordered:
            data = wire.posts.pop(0)
            if size is not None and wire.divisible and size < len(data):
                wire.posts.insert(0, data[size:])
                data = data[:size]
        else:
            data = wire.posts.pop(which % len(wire.posts))
        self.carrier.carry(wire, data)
        self.carrier.run()

    def hear(self, sender, count=10**6, replies_first=False):
        wire = sender.wire
        if wire is None:
            return
        replies = getattr(wire, "replies", [])
        if replies_first:
            self._hear_replies(sender, replies)
        while count > 0 and sender.up and wire.heard:
            count -= 1
            (frame,) = read_frames(wire.heard.pop(0))
            self._take(sender, frame)
        if count > 0 and not replies_first:
            self._hear_replies(sender, replies)
        if wire.ended and not wire.heard and sender.up:
            self.cut(sender)

    def _hear_replies(self, sender, replies):
        while replies and sender.up:
            status, frames = replies.pop(0)
            if status != 202:
                while sender.up and sender.wire.heard:
                    (frame,) = read_frames(sender.wire.heard.pop(0))
                    self._take(sender, frame)
                assert status in {404, 408, 409, 429}, status
                if sender.up:
                    self.cut(sender)
                return
            for data in frames:
                (frame,) = read_frames(data)
                self._take(sender, frame)

    def _take(self, sender, frame):
        link = sender.link
        if isinstance(frame, ErrorFrame):
            assert frame.retryable or frame.code is Code.TIMEOUT, frame
            if frame.code is Code.CLOSING:
                self.book(sender, link.closing())
            self.cut(sender)
        elif not isinstance(frame, Heartbeat):
            if isinstance(frame, Settle | Returned) and not sender.wire.ordered and (stop := _highest(frame)):
                self.book(sender, link.receive(Accept(stop, 0, 0)))
            self.book(sender, link.receive(frame))

    def serve(self, sender, *, beat_only=False):
        """What a sender does when it is looked at."""
        if sender.up and self.clock.now - sender.wrote >= sender.beat:
            self.beat(sender)
        if not beat_only:
            self.submit(sender)
            self.write(sender)

    def withdraw(self, sender, elsewhere):
        """Its messages go elsewhere: those that ``elsewhere`` says yes to for good."""
        self.cut(sender)
        outcomes = sender.link.withdraw()
        self.book(sender, outcomes)
        for outcome in outcomes:
            sender.withdrawn |= set(range(outcome.first, outcome.stop))
        for sequence in list(sender.waiting):
            if elsewhere(sequence):
                sender.waiting.remove(sequence)
                sender.done[sequence] = "elsewhere"

    def bye(self, sender):
        """It says goodbye, and comes back later all the same."""
        if sender.up:
            sender.gone = True
            self.write(sender)
            sender.wire.posts.append(encode(Bye()))
            while sender.up and sender.wire.posts:
                self.carry(sender)
            self.hear(sender)
            self.cut(sender)

    # --- the end ------------------------------------------------------------------------------------------------

    def round(self, labels, limit=50):
        self.pass_time(ROUND)
        for sender in self.senders:
            self.connect(sender)
            self.serve(sender)
            while sender.up and sender.wire.posts:
                self.carry(sender)
        for label in labels:
            self.receive(label, limit)
            self.settle_all(label)
        for sender in self.senders:
            self.hear(sender)

    def open(self):
        return {s.number: [q for q in range(len(s.bodies)) if q not in s.done] for s in self.senders}

    def progress(self):
        return (
            sum(len(s.done) for s in self.senders),
            sum(map(len, self.delivered.values())),
            [(s.link.incarnation, s.link.resolved.mark, s.link.accepted, len(s.link.resolved)) for s in self.senders],
        )

    def missing(self, subscription):
        """What is for a subscription, and did not come there."""
        there = self.delivered.get(subscription, set())
        return [
            (s.number, q)
            for s in self.senders
            for q, to in enumerate(s.to)
            if (not to or subscription in to) and (s.producer, q) not in there and s.done.get(q) in {None, "settled"}
        ]

    def drain(self, patience, *, whole=(), idle=()):
        """Time passes, and everybody does their part: everything ends, and something does within so many rounds.
        First without the readers ``idle``, whom nobody has to wait for; everything comes to ``whole``."""
        for sender in self.senders:
            if getattr(sender.wire, "writable", True) is False:
                self.carrier.hold(sender.wire, True)
        if idle:
            self._go_on(patience, [r for r in self.readers if r not in idle], lambda: any(map(self.missing, whole)))
            missing = {name: some for name in whole if (some := self.missing(name))}
            assert missing == {}, f"never comes: {missing}"
        self._go_on(patience, list(self.readers), lambda: any(self.open().values()))
        left = {number: some for number, some in self.open().items() if some}
        assert left == {}, f"never ends: {left}"
        missing = {name: some for name in whole if (some := self.missing(name))}
        assert missing == {}, f"lost: {missing}"
        for sender in self.senders:
            assert sender.link.resolved.mark == sender.link.next

    def _go_on(self, patience, labels, wanted):
        still, last = 0, None
        while wanted() and still < patience:
            self.round(labels)
            now = self.progress()
            still, last = still + 1 if now == last else 0, now
