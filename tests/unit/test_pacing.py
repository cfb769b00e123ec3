"""The schedule of a run, with the times given by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink import arrivals
from simlink.running.pacing import OVERDUE, Pacer, Striped


class Times:
    def __init__(self, *due):
        self.times = np.array(due, float)

    def due(self, start, stop):
        return self.times[start:stop]


def pacer(*due, **options):
    made = Pacer(Times(*due), **options)
    made.begin(100.0)
    made.load(len(due))
    return made


def test_nothing_goes_out_before_it_is_due():
    p = pacer(0.0, 0.5, 1.0)
    assert [p.release(100.0, 10), p.release(100.2, 10), p.release(100.499, 10)] == [(0, 1), (0, 0), (0, 0)]
    assert p.next_due() == 100.5
    assert p.release(100.5, 10) == (0, 1)


def test_everything_that_is_due_goes_out_at_once():
    p = pacer(0.0, 0.1, 0.2, 0.3, 9.0)
    assert p.release(100.31, 10) == (0, 4)
    assert p.left == 1


def test_the_limit_leaves_the_rest_due():
    p = pacer(0.0, 0.1, 0.2)
    assert [p.release(101.0, 2), p.release(101.0, 2)] == [(0, 2), (0, 1)]


def test_lag_keeps_the_schedule_over_a_stall():
    p = pacer(0.0, 1.0, 2.0)
    p.release(100.0, 10)
    p.waited(1.5)
    assert p.next_due() == 101.0
    assert p.release(101.5, 10) == (0, 1)
    assert p.next_due() == 102.0
    assert p.stalled == 1.5


def test_block_moves_the_schedule_by_the_stall():
    p = pacer(0.0, 1.0, on_overload="block")
    p.release(100.0, 10)
    p.waited(1.5)
    assert p.next_due() == 102.5
    assert [p.release(102.4, 10), p.release(102.5, 10)] == [(0, 0), (0, 1)]
    assert p.stalled == 1.5


def test_drop_skips_only_what_is_overdue():
    p = pacer(0.0, 1.0, 1.95, 2.0, on_overload="drop")
    # At 102 the first two are more than OVERDUE late, the others are not.
    assert OVERDUE == 0.1
    assert p.release(102.0, 10) == (2, 2)
    assert p.dropped == 2


def test_drop_can_skip_without_sending():
    p = pacer(0.0, 1.0, on_overload="drop")
    assert p.release(100.5, 0) == (1, 0)
    assert (p.dropped, p.position) == (1, 1)


def test_a_duration_ends_before_the_first_row_that_is_due_at_its_end():
    p = Pacer(Times(0.0, 0.4, 0.5, 0.6), duration=0.5)
    p.begin(0.0)
    assert p.load(4) == 2
    assert p.left == 2


def test_a_stall_moves_what_is_loaded_out_of_the_duration():
    p = pacer(0.0, 0.125, 0.25, 0.375, on_overload="block", duration=0.4375)
    assert p.release(100.0, 10) == (0, 1)
    p.waited(0.125)
    assert p.left == 2
    assert p.release(100.375, 10) == (0, 2)
    p.waited(0.125)
    assert p.left == 0
    # Those that were released have their times all the same.
    assert np.asarray(p.due_of(1, 2)).tolist() == [100.375, 100.5]
    assert p.load(10) == 0
    assert p.behind(None) == 0


def test_what_the_duration_left_undone_is_counted():
    p = Pacer(arrivals.constant(1000), duration=2.0)
    p.begin(0.0)
    p.load(100)
    p.release(3.0, 60)
    assert p.behind(None) == 1940
    assert p.behind(500) == 440


@pytest.mark.parametrize("policy", ["lag", "block"])
@given(
    due=st.lists(st.integers(0, 40), min_size=1, max_size=60).map(sorted),
    gone=st.integers(0, 60),
    duration=st.integers(1, 45),
    total=st.none() | st.integers(0, 70),
    stall=st.integers(0, 9),
)
@settings(deadline=None)
def test_what_is_behind_is_what_is_due_and_not_gone(policy, due, gone, duration, total, stall):
    p = pacer(*due, on_overload=policy, duration=float(duration))
    p.release(1_000.0, gone)
    p.waited(float(stall))
    late = stall if policy == "block" else 0
    rest = due[p.position : total]
    assert p.behind(total) == sum(d + late < duration for d in rest)


def test_what_nobody_can_hold_is_not_counted_row_by_row():
    p = Pacer(arrivals.constant(1e300), duration=1.0)
    p.begin(0.0)
    assert p.behind(None) == 1 << 32
    assert p.behind(10_000_000_000_000) == 1 << 32
    assert p.behind(70_000) == 70_000


def test_a_schedule_that_steps_back_means_at_once():
    p = pacer(1.0, 0.2, 2.0)
    assert p.due_of(0, 3).tolist() == [101.0, 101.0, 102.0]


def test_a_step_back_between_two_loads_means_at_once_too():
    p = pacer(3.0)
    p.release(103.0, 1)
    p.arrivals = Times(3.0, 1.0)
    p.load(1)
    assert p.next_due() == 103.0


def test_a_lag_that_the_channel_caused_is_not_the_runs_own():
    p = pacer(*[i * 0.1 for i in range(100)])
    p.release(100.0, 10)
    p.waited(2.0)
    lag = np.array([1.9, 2.5])
    assert p.own(lag).round(9).tolist() == [0.0, 0.5]
    # Once it has caught up, a later lag has no excuse.
    p.release(102.05, 100)
    assert p.release(102.06, 100) == (0, 0)
    assert p.own(lag).tolist() == [1.9, 2.5]


@settings(deadline=None)
@given(st.integers(1, 7), st.integers(0, 50), st.integers(0, 50))
def test_striped_workers_share_every_arrival(n, start, length):
    whole = arrivals.constant(10.0)
    parts = [Striped(whole, i, n).due(start, start + length) for i in range(n)]
    mixed = np.stack(parts, axis=1).reshape(-1) if length else np.empty(0)
    assert whole.due(start * n, (start + length) * n).tolist() == mixed.tolist()


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(1, 9), st.integers(1, 200))
def test_who_has_sent_all_its_rows_is_passed_over(rows, size, length):
    n = len(rows)
    whole = arrivals.from_timestamps([float(i) for i in range(length)])
    parts = [Striped(whole, i, n, rows) for i in range(n)]
    dealt = [
        [float(d) for at in range(0, rows[i], size) for d in part.due(at, min(at + size, rows[i]))]
        for i, part in enumerate(parts)
    ]
    assert sorted(d for part in dealt for d in part) == [float(i) for i in range(min(sum(rows), length))]
    assert all(a < b for part in dealt for a, b in pairwise(part))
    # In turns: who has rows left has had as many as anybody else, or one less.
    for due in range(min(sum(rows), length)):
        had = [sum(d <= due for d in part) for part in dealt]
        assert all(had[i] >= max(had) - 1 for i in range(n) if had[i] < rows[i])


@settings(deadline=None)
@given(
    gaps=st.lists(st.floats(0, 2), min_size=1, max_size=40),
    steps=st.lists(st.floats(0, 3), min_size=1, max_size=40),
    policy=st.sampled_from(["lag", "block", "drop"]),
    limit=st.integers(1, 10),
)
def test_no_row_is_early_none_is_lost_and_none_goes_twice(gaps, steps, policy, limit):
    due = np.cumsum(gaps)
    p = Pacer(Times(*due), on_overload=policy)
    p.begin(0.0)
    p.load(len(due))
    now = moved = sent = 0.0
    for step in steps:
        now += step
        before = p.position
        skipped, count = p.release(now, limit)
        assert before + skipped + count == p.position
        rows = range(p.position - count, p.position)
        assert all(due[row] + moved <= now + 1e-9 for row in rows)
        if policy == "drop":
            assert all(now - due[row] <= OVERDUE + 1e-9 for row in rows)
        sent += count
        p.waited(step / 7)
        if policy == "block":
            moved += step / 7
    assert p.position == sent + p.dropped
    assert p.stalled == pytest.approx(sum(steps) / 7)


def test_what_is_past_goes_out_at_once_and_then_the_schedule_holds():
    p = Pacer(Times(0.0, 1.0, 2.0, 5.0, 9.0, 10.0, 12.0), duration=4.0)
    p.begin(100.0, since=8.0)
    assert p.load(7) == 6  # 4 seconds from now on: what is due before 12
    assert p.release(100.0, 2) == (0, 2)
    assert p.due_of(0, 2) == 100.0
    # What has become due meanwhile is caught up with as well.
    assert p.release(101.5, 9) == (0, 3)
    assert p.due_of(2, 3) == 101.5
    assert (p.release(101.6, 9), p.next_due()) == ((0, 0), 102.0)
    assert p.release(102.5, 9) == (0, 1)
    assert p.due_of(5, 1) == 102.0
    assert (p.backfilled, p.dropped) == (5, 0)


def test_a_schedule_that_begins_later_is_waited_for():
    p = Pacer(Times(0.0, 1.0))
    p.begin(100.0, since=-5.0)
    p.load(2)
    assert (p.release(104.9, 9), p.next_due()) == ((0, 0), 105.0)
    assert (p.release(105.0, 9), p.backfilled) == ((0, 1), 0)


def test_who_has_sent_what_was_due_has_caught_up():
    p = pacer(0.0, 1.0, 2.0)
    p.waited(1.5)
    p.release(101.0, 1)
    lag = np.array([1.9])
    assert not p.caught_up(101.0)
    assert p.own(lag).round(9).tolist() == [0.4]
    p.release(101.0, 1)
    assert p.caught_up(101.0)
    assert p.own(lag).tolist() == [1.9]
