"""One run in virtual time: a queue pool over simulated processes, a schedule of faults, and the books at the end."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from random import Random

from simlink.balancing.registry import balancer
from simlink.balancing.slow_start import SlowStart
from simlink.channels.driver import Mode, OutcomeKind
from simlink.channels.link.reception import Manners
from simlink.channels.pool.keyed import KeyedPool
from simlink.channels.pool.queue import QueuePool
from simlink.channels.pool.topic import TopicPool
from simlink.channels.window import Window
from simlink.health.membership import Membership
from simlink.health.registry import detector
from simlink.health.states import State
from simlink.testing.clock import VirtualClock
from simlink.testing.ends import SimEnd, SimWorld, numbered
from simlink.testing.network import Network
from simlink.testing.processes import SimProcess

BEAT = 0.1
SENDING = 1.0
"""Seconds in which messages are sent, and faults begin."""
KINDS = ("kill", "power", "stall", "slow", "partition", "deaf", "mute", "pause")
BALANCERS = (
    "round_robin",
    "random",
    "least_connections",
    "weighted_round_robin",
    "power_of_two",
    "peak_ewma",
    "least_estimated_delay",
    "consistent_hash",
)
DETECTORS = ("empirical", "phi", "heartbeat")
PRODUCER = b"p" * 16


@dataclass(frozen=True)
class Fault:
    """``kill`` and ``power``: it ends, and starts again after so many seconds. ``deaf``: nothing gets to it; ``mute``:
    nothing comes from it. ``pause``: the sending process stands still."""

    at: float
    kind: str
    endpoint: int
    seconds: float


@dataclass(frozen=True)
class Schedule:
    seed: int
    endpoints: int = 3
    balancer: str = "least_connections"
    detector: str = "empirical"
    order: str = "none"
    rate: float = 80.0
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    skew: float = 0.0
    faults: tuple[Fault, ...] = ()
    mode: str = "queue"
    service: float = 0.008
    """Mean seconds that a message takes."""
    names: tuple[tuple[str | None, ...], ...] = ()
    """Of a topic: what is received by each endpoint's process; nothing said: one private subscription each."""

    @classmethod
    def of(cls, seed: int) -> Schedule:
        random = Random(seed)
        endpoints = random.randint(2, 5)
        mess = random.random() < 0.4
        return cls(
            seed,
            endpoints,
            random.choice(BALANCERS),
            random.choice(DETECTORS),
            random.choice(("none", "per_key")),
            random.choice((15.0, 40.0, 80.0)),
            random.choice((0.0, 0.002, 0.01)) if mess else 0.0,
            random.choice((0.0, 0.02)) if mess else 0.0,
            random.choice((0.0, 0.01)) if mess else 0.0,
            random.choice((0.0, 1e-4, -1e-3)),
            tuple(
                Fault(
                    round(random.uniform(0.1, SENDING), 3),
                    random.choice(KINDS),
                    random.randrange(endpoints),
                    round(random.choice((0.05, 0.3, 0.8, 1.4)) * random.uniform(0.5, 1.5), 3),
                )
                for _ in range(random.randint(1, 4))
            ),
        )


@dataclass
class Books:
    """What a run did."""

    sent: int = 0
    handed: list = field(default_factory=list)
    resent: set = field(default_factory=set)
    """Sequences that came back as maybe there."""
    returned_at: dict = field(default_factory=dict)
    sent_at: dict = field(default_factory=dict)
    crashes: list = field(default_factory=list)
    problems: list = field(default_factory=list)
    transitions: list = field(default_factory=list)
    in_flight_at_crash: list = field(default_factory=list)
    trace: str = ""


class Scene:
    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.random = Random(schedule.seed + 1)
        self.clock = VirtualClock()
        self.network = Network(
            self.clock,
            self.random,
            loss=schedule.loss,
            duplication=schedule.duplication,
            reordering=schedule.reordering,
        )
        self.books = Books()
        manners = Manners(heartbeat=BEAT, dead=2.0, orphan_after=10.0, silence=2.0)
        self.processes = [
            SimProcess(
                self.network,
                f"e{i}",
                manners=manners,
                service=lambda: self.random.expovariate(1 / schedule.service),
                handed=self.books.handed.append,
                skew=schedule.skew * i,
                mode=Mode(schedule.mode),
                subscriptions=schedule.names[i] if schedule.names else (None,),
            )
            for i in range(schedule.endpoints)
        ]
        self.world = SimWorld(self.clock, self.random)
        self.window = Window(max_messages=10_000, max_bytes=1 << 24, retains=True)
        choice = SlowStart(balancer(schedule.balancer))
        topic = schedule.mode == "topic"
        if not topic:
            choice.bind(self.clock.now, self.random)
        self.choice = choice
        pinned = schedule.order == "per_key"
        keyed = pinned or schedule.balancer == "consistent_hash"
        kind, more = (KeyedPool, {"pinned": pinned}) if keyed else (QueuePool, {})
        if topic:
            kind, more = TopicPool, {"drop": False, "backlog": 1}
        self.pool = kind(
            "sim://pool/orders",
            lambda name: SimEnd(self.network, name, heartbeat=BEAT, mode=Mode(schedule.mode)),
            {process.name: 1.0 for process in self.processes},
            membership=Membership(detector(schedule.detector, BEAT), random=self.random, slow_start=1.0),
            world=self.world,
            retains=True,
            announce=self.books.transitions.append,
            balancer=choice,
            **more,
        )
        self.begun = self.clock.now()
        self.all_sent = False
        self.at = {}  # the window's position → sequence
        self.paused_until = 0.0
        self._asked = False
        self._next = 0.0
        self.world.round_due = self._ask
        self.keys = [b"k%d" % i for i in range(8)]

    # --- the sending process ------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self.clock.call_at(max(self.clock.now(), self.paused_until), self._round)

    def _round(self) -> None:
        self._asked = False
        if self.clock.now() < self.paused_until:
            self._ask()
            return
        self._apply(self.pool.outcomes(0.0))
        self._push()
        self._later()

    def _apply(self, outcomes) -> None:
        for outcome in outcomes:
            if outcome.kind is OutcomeKind.RETURNED:
                for position in range(outcome.first, outcome.stop):
                    sequence = self.at[position]
                    self.books.returned_at.setdefault(sequence, []).append(self.clock.now())
                    if outcome.ambiguous:
                        self.books.resent.add(sequence)
        self.window.apply(outcomes)

    def _push(self) -> None:
        while (flight := self.window.next_flight()) is not None:
            batch, position = flight
            for row, sequence in enumerate(batch.sequences):
                self.at[position + row] = int(sequence)
            self.pool.submit(batch, position)

    def _later(self) -> None:
        """As the sender above does: every few milliseconds with something in flight, now and then otherwise."""
        now = self.clock.now()
        at = now + (0.02 if self.window.messages else self.pool.idle_interval)
        if not now < self._next <= at:
            self._next = at
            self.clock.call_at(at, self._timer)

    def _timer(self) -> None:
        if self.clock.now() >= self._next:
            self._ask()

    def _send(self) -> None:
        if self.clock.now() < self.paused_until:
            self.clock.call_at(self.paused_until, self._send)
            return
        count = self.random.choice((1, 1, 1, 2, 5))
        first = self.books.sent
        self.books.sent += count
        self.books.sent_at.update(dict.fromkeys(range(first, first + count), self.clock.now()))
        keys = [self.random.choice([*self.keys, None]) for _ in range(count)]
        bodies = [b"%d %s" % (first + i, keys[i] or b"") for i in range(count)]
        self.window.add(numbered(PRODUCER, first, bodies, keys))
        self._round()
        if self.clock.now() < self.begun + SENDING:
            self.clock.call_later(self.random.expovariate(self.schedule.rate) * 2, self._send)
        else:
            self.all_sent = True

    # --- faults -------------------------------------------------------------------------------------------------------

    def _happens(self, fault: Fault) -> None:
        process = self.processes[fault.endpoint]
        later = self.clock.call_later
        if fault.kind in {"kill", "power"}:
            if process.alive:
                slot = self.pool.slots[process.name]
                held = {self.at[p] for f in slot.flights.unresolved() for p in range(*f)}
                self.books.crashes.append((self.clock.now(), process.name, held))
            process.kill() if fault.kind == "kill" else process.power_off()
            later(fault.seconds, process.start)
        elif fault.kind == "stall":
            process.stall(fault.seconds)
        elif fault.kind == "slow":
            process.slow = 10.0
            later(fault.seconds, lambda: setattr(process, "slow", 1.0))
        elif fault.kind == "pause":
            self.paused_until = max(self.paused_until, self.clock.now() + fault.seconds)
        else:
            self.network.partition(process.name, out=fault.kind != "mute", back=fault.kind != "deaf")
            later(fault.seconds, lambda: self.network.heal(process.name))

    # --- the run ------------------------------------------------------------------------------------------------------

    def run(self) -> Books:
        start = self.begun
        self._round()
        self.clock.call_later(0.05, self._send)
        for fault in self.schedule.faults:
            self.clock.call_at(start + fault.at, lambda fault=fault: self._happens(fault))
        self.clock.run_until(start + SENDING + 0.1)
        for process in self.processes:
            self.clock.call_later(3.0, process.start)
        self.clock.run_until(start + 90.0, lambda: self.all_sent and not self.window.messages)
        # Late copies have their say as well, and so have those who were away until now.
        over = max((start + fault.at + fault.seconds for fault in self.schedule.faults if fault.seconds < 5), default=0)
        self.clock.run_until(max(self.clock.now(), over) + 0.5)
        self._judge()
        digest = hashlib.blake2b(digest_size=8)
        for hand in self.books.handed:
            digest.update(f"{hand.at:.6f} {hand.process} {hand.identity[1]} {hand.attempt};".encode())
        self.books.trace = digest.hexdigest()
        return self.books

    def _judge_members(self) -> None:
        """Of a topic: whoever was never declared dead got everything that was sent once it was there."""
        books, problems = self.books, self.books.problems
        if self.window.messages or self.window.totals.settled != books.sent:
            problems.append(f"{self.window.totals.settled} of {books.sent} settled, {self.window.messages} open")
        left = {t.endpoint for t in books.transitions if t.new in {State.DEAD, State.HALF_OPEN}}
        joined = {t.endpoint: t.at for t in reversed(books.transitions) if t.new is State.UP}
        got = defaultdict(Counter)
        lives = Counter()
        for hand in books.handed:
            # One that is private is nobody else's.
            got[hand.subscription or hand.process][hand.identity[1]] += 1
            if hand.attempt == 1:
                lives[hand.process, hand.life, hand.subscription, hand.identity[1]] += 1
        for i, process in enumerate(self.processes):
            due = {sequence for sequence, at in books.sent_at.items() if at > joined.get(process.name, math.inf)}
            for name in self.schedule.names[i] if self.schedule.names else (None,):
                mine = set(got[name or process.name])
                if process.name not in left and due - mine:
                    problems.append(f"{name or process.name} missed {sorted(due - mine)[:10]}")
        # One that is sent again once may be so for several subscriptions.
        repeats = max((sum(count - 1 for count in counts.values()) for counts in got.values()), default=0)
        held = sum(process.held_at_death for process in self.processes)
        if repeats > self.window.totals.resent + held:
            problems.append(f"{repeats} repeats, {self.window.totals.resent} resent, {held} held at a death")
        twice = [key for key, count in lives.items() if count > 1]
        if twice:
            problems.append(f"twice at attempt 1 in one life: {twice[:5]}")
        if any(slot.flights.open for slot in self.pool.slots.values()) and not self.window.messages:
            problems.append("flights that were not resolved")
        if self.pool._casts:
            problems.append(f"{len(self.pool._casts)} batches are kept for nobody")

    def _judge(self) -> None:
        if self.schedule.mode == "topic":
            self._judge_members()
            return
        books, problems = self.books, self.books.problems
        first = {}
        seen = Counter()
        lives = Counter()
        for hand in books.handed:
            sequence = hand.identity[1]
            seen[sequence] += 1
            first.setdefault(sequence, hand)
            if hand.attempt == 1:
                lives[hand.process, hand.life, sequence] += 1
            if int(hand.body.split()[0]) != sequence:
                problems.append(f"{sequence} came with the body {hand.body!r}")
        lost = set(range(books.sent)) - set(seen)
        if lost:
            problems.append(f"lost: {sorted(lost)[:10]}")
        if self.window.messages:
            problems.append(f"{self.window.messages} messages are not settled")
        elif self.window.totals.settled != books.sent:
            problems.append(f"{self.window.totals.settled} of {books.sent} settled")
        repeated = {sequence for sequence, count in seen.items() if count > 1}
        if repeated - books.resent:
            problems.append(f"repeated without having come back as maybe there: {sorted(repeated - books.resent)[:10]}")
        repeats = sum(count - 1 for count in seen.values())
        held = sum(process.held_at_death for process in self.processes)
        if repeats > self.window.totals.resent + held:
            problems.append(f"{repeats} repeats, {self.window.totals.resent} resent, {held} held at a death")
        twice = [key for key, count in lives.items() if count > 1]
        if twice:
            problems.append(f"twice at attempt 1 in one life: {twice[:5]}")
        if self.schedule.order == "per_key":
            last = defaultdict(lambda: -1)
            for hand in books.handed:
                sequence = hand.identity[1]
                _, _, key = hand.body.partition(b" ")
                if first[sequence] is hand and key:
                    if sequence < last[key]:
                        problems.append(f"{key!r}: {sequence} first handed out after {last[key]}")
                    last[key] = max(last[key], sequence)
        in_flight = {name: load["in_flight"] for name, load in self.choice.snapshot().items() if load["in_flight"]}
        if in_flight and not self.window.messages:
            problems.append(f"picks that were not closed: {in_flight}")
        if any(slot.flights.open for slot in self.pool.slots.values()) and not self.window.messages:
            problems.append("flights that were not resolved")


@dataclass(frozen=True)
class Crash:
    """What one endpoint of ten that crashes under load costs: 637 messages a second, exponential service of 10 ms,
    heartbeats of 100 ms.

    Attributes:
        problems: of the books; among them everything that was lost, or repeated and not counted as resent.
        held: messages that were not settled at the crash.
        resent: sent elsewhere: those, and what it was given before anybody could know.
        repeated: messages that were handed out twice.
        stray: of them, those that were settled at the crash, or sent after it.
        last: seconds after the crash at which the last of what was resent was.
        suspect, dead: seconds after the crash at which that was known.
    """

    problems: list
    held: int
    resent: int
    repeated: int
    stray: int
    last: float
    suspect: float
    dead: float


def crash(seed: int, kind: str, *, laden: bool = False) -> Crash:
    """``kind``: "kill", where the machine goes on and says so, or "power", where there is only silence. ``laden``: it
    was ten times slower for half a second before, and got its turn all the same, so it holds much."""
    slow = (Fault(0.3, "slow", 3, 60.0),) if laden else ()
    schedule = Schedule(
        seed,
        endpoints=10,
        balancer="round_robin" if laden else "least_connections",
        detector="empirical",
        rate=637.0,
        service=0.010,
        faults=(*slow, Fault(0.8, kind, 3, 60.0)),
    )
    books = run(schedule)
    ((at, _, held),) = books.crashes
    seen = Counter(hand.identity[1] for hand in books.handed)
    repeated = {sequence for sequence, count in seen.items() if count > 1}
    again = {sequence: times[0] - at for sequence, times in books.returned_at.items() if times[0] >= at}
    last = max([0.0, *again.values()]) if held <= set(again) else math.inf
    known = {t.new: t.at - at for t in reversed(books.transitions) if t.endpoint == "e3" and t.at >= at}
    return Crash(
        books.problems,
        len(held),
        len(again),
        len(repeated),
        len(repeated - held),
        last,
        known.get(State.SUSPECT, 0.0),
        known[State.DEAD],
    )


def run(schedule: Schedule) -> Books:
    logging.getLogger("simlink").setLevel(logging.CRITICAL)
    return Scene(schedule).run()
