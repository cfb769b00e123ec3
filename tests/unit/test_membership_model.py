"""The membership under any sequence of events, against a model that knows of each endpoint only when it was last heard,
whether it has a link, and what was proven.

Whatever happens: only legal transitions, each with a reason; in rotation only who is not silent; dead only by silence
of the dead level or by proof; our own late loop convicts nobody; panic uses no proven dead; few are ejected, never the
last.
"""

import math
from dataclasses import dataclass, field
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from simlink import EmpiricalAccrual, Heartbeat, PhiAccrual
from simlink.health.detector import Level
from simlink.health.membership import Membership
from simlink.health.outlier import Outliers
from simlink.health.states import LEGAL, State

NAMES = [f"n{number}" for number in range(7)]
ROTATION = {State.UP, State.WARMING, State.HALF_OPEN}
name_of = st.sampled_from(NAMES)


@dataclass
class Known:
    """One endpoint, as the model knows it."""

    life: float  # when it was last heard; before that, when it was added
    state: State = State.CONNECTING
    borne: float = 0.0
    linked: bool = False
    lived: bool = False
    incarnation: int | None = None
    refused: bool = False
    draining: bool = False
    broke_at: float = -1.0
    proof: set[float] = field(default_factory=set)  # moments at which its death was proven

    def hear(self, now):
        self.life, self.borne = now, 0.0


class MembershipMachine(RuleBasedStateMachine):
    detector = Heartbeat(1.0, suspect=3, dead=5)

    @initialize(seed=st.integers(0, 99), slow_start=st.sampled_from([0.0, 4.0]))
    def make(self, seed, slow_start):
        self.outliers = Outliers(consecutive=2, share=0.4, rest=3.0)
        self.members = Membership(
            self.detector, random=Random(seed), slow_start=slow_start, outliers=self.outliers, longest_quarantine=8.0
        )
        self.now = 0.0
        self.known = {}
        self.late_at = -1.0
        self.moved = []
        for name in NAMES[:5]:
            self.add(name)

    # ---- events

    @rule(name=name_of)
    def add(self, name):
        if name not in self.known:
            self.members.add(name, self.now)
            self.known[name] = Known(self.now)

    @rule(name=name_of)
    def drain(self, name):
        if name in self.known:
            self.members.drain(name, self.now)
            self.known[name].draining = True

    @rule(name=name_of)
    def remove(self, name):
        if name in self.known:
            self.members.remove(name, self.now)
            self.settle()
            assert name in self.moved
            assert self.known.pop(name).state is State.REMOVED

    @rule(name=name_of, incarnation=st.integers(1, 3))
    def connected(self, name, incarnation):
        self.members.connected(name, self.now, incarnation)
        if name in self.known:
            known = self.known[name]
            if known.lived and known.incarnation != incarnation:
                known.proof.add(self.now)
            known.incarnation, known.linked, known.lived, known.refused = incarnation, True, True, False
            known.hear(self.now)

    @rule(name=name_of)
    def lost(self, name):
        self.members.lost(name, self.now)
        if name in self.known:
            self.known[name].linked, self.known[name].broke_at = False, self.now

    @rule(name=name_of)
    def refused(self, name):
        self.members.refused(name, self.now)
        if name in self.known:
            self.known[name].proof.add(self.now)
            self.known[name].linked, self.known[name].refused = False, True

    @rule(names=st.sets(name_of, min_size=1), beat=st.booleans())
    def heard(self, names, beat):
        for name in sorted(names):
            (self.members.heard if beat else self.members.traffic)(name, self.now)
            if name in self.known:
                self.known[name].hear(self.now)

    @rule(name=name_of, ok=st.sampled_from([True, False, False]), times=st.integers(1, 3))
    def outcome(self, name, ok, times):
        for _ in range(times):
            before = {each: self.members.state(each) for each in self.known}
            self.members.outcome(name, self.now, ok)
            if name in before and self.members.state(name) is State.EJECTED is not before[name]:
                staying = [each for each in self.known if not self.known[each].draining]
                ejected = sum(self.members.state(each) is State.EJECTED for each in staying)
                working = sum(self.members.state(each) in {State.UP, State.WARMING} for each in staying)
                assert ejected <= max(1, math.floor(0.4 * len(staying)))
                assert working >= 1

    @rule(name=name_of, ok=st.booleans())
    def probe(self, name, ok):
        if self.members.state(name) is not State.HALF_OPEN:
            return
        self.members.probe_taken(name, self.now)
        view = {member.name for member in self.members.eligible(self.now)}
        assert name not in view or self.members.panic
        self.members.probe_done(name, self.now, ok)
        if not ok:
            self.known[name].proof.add(self.now)

    # ---- time

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 1.0, 2.5, 3.0, 5.0, 30.0]))
    def wait(self, seconds):
        """As a pool does: awake at each deadline, and asleep in between."""
        until = self.now + seconds
        while True:
            self.settle()
            due = self.members.next_deadline()
            assert due > self.now
            if due > until:
                break
            # Nothing happens before it was said to.
            assert self.members.tick(math.nextafter(due, self.now)) == []
            self.now = due
        self.now = until

    @rule(seconds=st.sampled_from([0.5, 2.0, 20.0]))
    def stopped(self, seconds):
        """Our process was stopped, and what came meanwhile is not read yet."""
        self.settle()
        self.now += seconds
        self.members.late(self.now, seconds)
        for known in self.known.values():
            known.borne = max(0.0, min(self.now - known.life, known.borne + seconds + self.detector.interval))
        self.late_at = self.now
        self.settle()

    def silence(self, known):
        return self.now - known.life - known.borne

    def settle(self):
        for change in self.members.tick(self.now):
            known = self.known[change.endpoint]
            assert change.old is known.state
            assert change.new in LEGAL[change.old]
            assert change.why
            if change.new is State.DEAD:
                self.convicted(change, known)
            if change.new is State.SUSPECT:
                assert change.at != self.late_at or change.at == known.broke_at
            if change.old is State.DEAD and change.new is not State.REMOVED:
                assert known.linked
                assert not known.draining
            known.state = change.new
        self.moved = self.members.take_moving()

    def convicted(self, change, known):
        if change.at in known.proof:
            return
        assert change.at != self.late_at
        self.silent_for_dead(known)

    def silent_for_dead(self, known):
        assert self.silence(known) >= 5.0 - 1e-9

    # ---- what always holds

    @invariant()
    def nobody_in_rotation_is_silent(self):
        self.settle()
        for name, known in self.known.items():
            assert self.members.state(name) is known.state
            if known.state in ROTATION:
                assert known.linked
                assert not known.draining
                assert self.silence(known) < 3.0 + 1e-9
            elif known.state is not State.DEAD:
                self.not_silent_for_dead(known)
            if known.refused:
                assert known.state is State.DEAD

    def not_silent_for_dead(self, known):
        assert self.silence(known) < 5.0 + 1e-9

    @invariant()
    def the_view_holds_who_may_be_used(self):
        view = {member.name: member.warm for member in self.members.eligible(self.now)}
        staying = {name: known for name, known in self.known.items() if not known.draining}
        serving = {name for name, known in staying.items() if known.state in ROTATION}
        for name in view:
            assert staying[name].linked
            assert not staying[name].refused
        if 2 * len(serving) >= len(staying) and any(staying[name].state is not State.HALF_OPEN for name in serving):
            assert set(view) <= serving
            assert not self.members.panic
        if not self.members.panic:
            assert set(view) <= serving
        else:
            assert set(view) == {name for name, known in staying.items() if known.linked and not known.refused}
        assert {name for name in serving if staying[name].state is not State.HALF_OPEN} <= set(view)

    @invariant()
    def there_is_an_account_of_everybody(self):
        text = self.members.account(self.now)
        for name, known in self.known.items():
            assert f"{name} {known.state}, " in text
            assert (self.members.last_seen(name) is None) == (not known.lived)


class LearningMachine(MembershipMachine):
    """With detectors that learn: dead is what the detector says, never before suspect."""

    detector = EmpiricalAccrual(1.0, window=30, cap=12)

    def silent_for_dead(self, known):
        assert self.silence(known) >= 5.0 - 1e-9

    def not_silent_for_dead(self, known):
        assert self.silence(known) < 12.0 + 1e-9


class PhiMachine(MembershipMachine):
    detector = PhiAccrual(1.0, pause=1.0, threshold=3)

    def silent_for_dead(self, known):
        assert self.silence(known) >= 3.0 - 1e-9

    def not_silent_for_dead(self, known):
        """What it allows grows with what it learnt."""


TestMembership = MembershipMachine.TestCase
TestLearning = LearningMachine.TestCase
TestPhi = PhiMachine.TestCase
TestMembership.settings = settings(max_examples=30, stateful_step_count=30)
TestLearning.settings = TestPhi.settings = settings(max_examples=12, stateful_step_count=30)


def test_a_death_moves_what_was_held_once():
    """Every death of one that lived is told to the pool, and none of one that was never connected."""
    members = Membership(Heartbeat(1.0))
    members.add("a", 0.0)
    members.tick(5.0)
    assert (members.state("a"), members.take_moving()) == (State.DEAD, ())
    members.connected("a", 6.0, 1)
    members.tick(11.0)
    assert (members.state("a"), members.take_moving(), members.take_moving()) == (State.DEAD, ("a",), ())
    assert members.detector.level(0.0) is Level.ALIVE
