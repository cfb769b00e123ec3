"""Pools in virtual time, under schedules of faults drawn from seeds; each failure prints its seed.

By default 1,000 seeds in four parts; ``--seeds N`` asks for another number. A seed is had again, with every transition,
by ``python -m tests.simulation --first SEED --seeds 1 --verbose``.
"""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simlink.channels.link.receiver import ReceiverLink
from simlink.channels.pool.queue import QueuePool
from simlink.health.states import State
from simlink.testing.ends import SimEnd
from tests.simulation.scene import BALANCERS, DETECTORS, KINDS, SENDING, Fault, Schedule, crash, run

PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_nothing_is_lost_and_only_what_was_open_is_repeated(part, pytestconfig):
    bad = {}
    # Tens of milliseconds a seed: all the faults that a pool is for, in more orders than anybody would think of.
    for seed in range(part, pytestconfig.getoption("--seeds"), PARTS):
        books = run(Schedule.of(seed))
        if books.problems:
            bad[seed] = books.problems[:3]
    assert bad == {}


def test_every_member_of_a_topic_gets_what_it_was_there_for():
    bad = {}
    for seed in range(100):
        books = run(replace(Schedule.of(seed), mode="topic", order="none"))
        if books.problems:
            bad[seed] = books.problems[:3]
    assert bad == {}


SETS = (("x", "y", None), ("x",), ("y", "z"), ("z", "x"), ("x", "y", "z"))
"""What endpoints receive of a topic; None is private."""


def overlapping(seed):
    schedule, random = Schedule.of(seed), Random(seed)
    names = tuple(random.choice(SETS) for _ in range(schedule.endpoints))
    return replace(schedule, mode="topic", order="none", names=names)


def test_where_names_overlap_each_has_what_it_was_there_for_once():
    bad = {}
    # A fifth of a second each: frames for several subscriptions, and copies of their own for each of them.
    for seed in range(60):
        books = run(overlapping(seed))
        if books.problems:
            bad[seed] = books.problems[:3]
    for seed in range(10):
        schedule = replace(overlapping(seed), faults=(), loss=0.0, duplication=0.0, reordering=0.0)
        books = run(schedule)
        # A private one is its endpoint's own, a name is everybody's.
        everybody = {name or number for number, names in enumerate(schedule.names) for name in names}
        if books.problems or len(books.handed) != books.sent * len(everybody):
            bad[seed, "in peace"] = [*books.problems[:3], len(books.handed), books.sent, len(everybody)]
    assert bad == {}


def test_a_run_can_be_had_again():
    first, second, other = run(Schedule.of(11)), run(Schedule.of(11)), run(Schedule.of(12))
    assert first.trace == second.trace
    assert first.trace != other.trace
    assert first.handed


faults = st.builds(
    Fault,
    at=st.floats(0.1, SENDING),
    kind=st.sampled_from(KINDS),
    endpoint=st.integers(0, 2),
    seconds=st.sampled_from([0.02, 0.3, 0.8, 1.6]),
)
schedules = st.builds(
    Schedule,
    seed=st.integers(0, 1 << 20),
    balancer=st.sampled_from(BALANCERS),
    detector=st.sampled_from(DETECTORS),
    order=st.sampled_from(["none", "per_key"]),
    rate=st.sampled_from([15.0, 60.0]),
    loss=st.sampled_from([0.0, 0.01]),
    duplication=st.sampled_from([0.0, 0.02]),
    reordering=st.sampled_from([0.0, 0.02]),
    skew=st.sampled_from([0.0, -1e-3]),
    faults=st.lists(faults, max_size=5).map(tuple),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schedules)
def test_the_same_over_schedules_that_shrink(schedule):
    assert run(schedule).problems == []


@pytest.mark.parametrize("kind", ["kill", "power"])
@pytest.mark.parametrize("seed", range(8))
def test_a_crash_is_made_good_within_800_ms_at_beats_of_100_ms(kind, seed):
    """Two levels: what was not settled at the crash is sent elsewhere, and nothing else is."""
    crash = Fault(0.8, kind, 3, 60.0)
    schedule = Schedule(seed, endpoints=10, detector="empirical", rate=100.0, faults=(crash,))
    books = run(schedule)
    assert books.problems == []
    ((at, _, held),) = books.crashes
    again = {sequence: times[0] - at for sequence, times in books.returned_at.items()}
    assert held <= set(again)
    assert all(0 <= seconds <= 0.8 for seconds in again.values())
    # What was given to it after the crash, before anybody could know, comes back as well.
    first = {}
    for hand in books.handed:
        first.setdefault(hand.identity, hand)
    repeated = [hand for hand in books.handed if first[hand.identity] is not hand]
    assert {hand.identity[1] for hand in repeated} <= held
    assert len(held) <= 40


@pytest.mark.parametrize("kind", ["kill", "power"])
def test_a_crash_under_load_costs_only_what_was_open(kind):
    # A second or two each: 637 messages a second with all of their frames.
    costs = [crash(seed, kind) for seed in (0, 2, 3)]
    assert [(cost.problems, cost.stray) for cost in costs] == [([], 0)] * 3
    assert sum(cost.held for cost in costs) > 0
    assert all(cost.repeated <= cost.held <= cost.resent for cost in costs)
    assert all(0 <= cost.last <= 0.8 for cost in costs)
    # All that was heard of it were answers, for beats are sent when there is nothing else to say.
    silence = {"kill": (0.02, 0.02), "power": (0.32, 0.72)}[kind]
    assert all((cost.suspect <= silence[0], cost.dead <= silence[1]) == (True, True) for cost in costs)


@pytest.mark.parametrize("kind", ["kill", "power"])
def test_what_a_laden_endpoint_holds_at_its_crash_goes_elsewhere(kind):
    costs = [crash(seed, kind, laden=True) for seed in (0, 1)]
    assert [(cost.problems, cost.stray) for cost in costs] == [([], 0)] * 2
    assert all(20 <= cost.held <= cost.resent for cost in costs)
    # It was working on one; the others nobody had been handed.
    assert all(cost.repeated <= 1 and cost.last <= 0.8 for cost in costs)


@pytest.mark.parametrize("detector", DETECTORS)
def test_one_that_stops_under_load_is_found_as_one_that_is_idle(detector):
    stop = Schedule(5, endpoints=4, detector=detector, rate=300.0, faults=(Fault(0.7, "stall", 1, 2.0),))
    books = run(stop)
    assert books.problems == []
    at = {t.new: t.at - 1000.7 for t in reversed(books.transitions) if t.endpoint == "e1" and t.at > 1000.7}
    assert at[State.SUSPECT] <= 0.32
    assert at[State.DEAD] <= {"empirical": 0.72, "heartbeat": 0.72, "phi": 1.0}[detector]


def test_the_judge_sees_a_pool_that_moves_nothing(monkeypatch):
    crash = Schedule(3, faults=(Fault(0.8, "kill", 1, 60.0),))
    assert run(crash).problems == []
    monkeypatch.setattr(QueuePool, "_take_back", lambda self, slot, *, ambiguous: None)
    monkeypatch.setattr(SimEnd, "withdraw", lambda self: ())
    books = run(crash)
    ((at, _, held),) = books.crashes
    assert held
    # Not before it is started again, at the end.
    assert min(books.returned_at[sequence][0] - at for sequence in held) > 2.0


def repeats_of(schedules):
    found = [run(schedule) for schedule in schedules]
    assert [books.problems for books in found] == [[]] * len(found)
    return [len(books.handed) - books.sent for books in found]


def test_a_woken_receiver_repeats_no_more_than_what_it_had_in_hand(monkeypatch):
    # Slow ones, so that more waits in each than it has in hand.
    woken = [
        Schedule(
            seed, balancer="round_robin", rate=200.0, faults=(Fault(0.3, "slow", 1, 9.0), Fault(0.8, "stall", 1, 1.6))
        )
        for seed in range(10)
    ]
    assert max(repeats_of(woken)) <= 1

    def resume_without_a_lease(link, hello, resume=ReceiverLink.resume):
        hello.lease_ms = 0
        resume(link, hello)

    monkeypatch.setattr(ReceiverLink, "resume", resume_without_a_lease)
    assert max(repeats_of(woken)) > 1
