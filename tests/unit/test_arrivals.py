"""When records are due."""

from __future__ import annotations

import datetime as dt
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink import arrivals
from simlink.errors import ConfigError, StateError


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 20_000), st.integers(0, 5_000))
@pytest.mark.parametrize(
    "schedule",
    [arrivals.constant(0.3), arrivals.poisson(1000, seed=1), arrivals.from_timestamps(np.arange(25_000) / 7)],
    ids=repr,
)
def test_any_part_is_a_part_of_the_whole(schedule, start, count):
    part = schedule.due(start, start + count)
    assert np.float64 == part.dtype
    assert schedule.due(0, 25_000)[start : start + count].tolist() == part.tolist()


def test_constant_is_absolute():
    assert arrivals.constant(0.5).due(0, 3).tolist() == [0.0, 2.0, 4.0]
    assert arrivals.constant(3).due(10**9, 10**9 + 1).tolist() == [10**9 / 3]
    assert arrivals.constant(3).due(5, 5).tolist() == []


def test_poisson_gaps_are_exponential_and_independent():
    due = arrivals.poisson(200, seed=5).due(0, 200_000)
    gaps = np.diff(due, prepend=0.0) * 200
    assert (gaps >= 0).all()
    assert abs(gaps.mean() - 1) < 0.01
    assert abs(gaps.var() - 1) < 0.03
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.01
    # Counts in windows of many blocks vary as a Poisson count does: blocks are not stretched to a common length.
    counts = np.bincount(due.astype(int))[:-1]
    assert 0.85 < counts.var() / counts.mean() < 1.15
    for share in (0.1, 0.5, 2.0):
        assert abs((gaps > share).mean() - math.exp(-share)) < 0.005


def test_poisson_is_the_same_in_any_order_of_asking():
    ahead = arrivals.poisson(10, seed=1)
    late = ahead.due(50_000, 50_010).tolist()
    assert arrivals.poisson(10, seed=1).due(0, 50_010)[-10:].tolist() == late
    assert late == pickle.loads(pickle.dumps(ahead)).due(50_000, 50_010).tolist()


def test_the_run_gives_a_seed_where_there_is_none():
    free = arrivals.poisson(10)
    assert free.seed is None
    with pytest.raises(StateError, match="no seed"):
        free.due(0, 1)
    assert arrivals.poisson(10, seed=3).due(0, 9).tolist() == free.seeded(3).due(0, 9).tolist()
    own = arrivals.poisson(10, seed=3)
    assert own is own.seeded(4)
    assert arrivals.constant(1).seeded(4).due(0, 2).tolist() == [0.0, 1.0]


def test_recorded_times_keep_their_pace_and_count_the_steps_back():
    schedule = arrivals.from_timestamps([100, 102, 101, 101.5, 104, 90], speed=2)
    assert schedule.length == 6
    assert schedule.due(0, 3).tolist() == [0.0, 1.0, 1.0]
    assert schedule.negative_gaps == 1
    assert schedule.due(3, 99).tolist() == [1.0, 2.0, 2.0]
    assert schedule.negative_gaps == 2
    schedule.due(0, 6)
    assert schedule.negative_gaps == 2


def test_recorded_times_may_be_dates():
    times = [dt.datetime(2025, 1, 1, tzinfo=dt.UTC), "2025-01-01T00:00:01.5Z"]
    assert arrivals.from_timestamps(times).due(0, 2).tolist() == [0.0, 1.5]


@pytest.mark.parametrize(
    "make",
    [
        lambda: arrivals.constant(0),
        lambda: arrivals.constant(math.inf),
        lambda: arrivals.constant("5"),
        lambda: arrivals.poisson(-1),
        lambda: arrivals.poisson(1, seed=-1),
        lambda: arrivals.from_timestamps([]),
        lambda: arrivals.from_timestamps([1, math.nan]),
        lambda: arrivals.from_timestamps(["soon"]),
        lambda: arrivals.from_timestamps([1], speed=0),
    ],
)
def test_what_is_no_schedule_is_refused(make):
    with pytest.raises(ConfigError):
        make()
