"""When records are due."""

from __future__ import annotations

import datetime as dt
import math
import pickle
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink import arrivals
from simlink.errors import ConfigError, StateError

KS_LIMIT = 1.95
"""Of sqrt(n) D: beyond it lies one sample in a thousand (Kolmogorov's distribution)."""


def ks(values, cdf):
    """sqrt(n) times the largest distance of the empirical distribution from the law."""
    x = np.sort(values)
    n = len(x)
    law = np.asarray([cdf(v) for v in x.tolist()])
    steps = np.arange(n + 1) / n
    return math.sqrt(n) * max(np.abs(law - steps[1:]).max(), np.abs(law - steps[:-1]).max())


def exponential(x):
    return 1 - math.exp(-10 * x)


def gamma_law(shape, scale):
    def cdf(x):
        # The regularised lower incomplete gamma function by its series.
        z = x / scale
        term = total = 1 / shape
        k = shape
        while term > total * 1e-15:
            k += 1
            term *= z / k
            total += term
        return 0.0 if z == 0 else total * math.exp(-z + shape * math.log(z) - math.lgamma(shape))

    return cdf


def weibull_law(x):
    return 1 - math.exp(-((x * 10 * math.gamma(1 + 1 / 0.7)) ** 0.7))


FREE = [
    arrivals.constant(0.3),
    arrivals.poisson(1000),
    arrivals.gamma(50, cv=3),
    arrivals.weibull(50, shape=0.7),
    arrivals.ramp(0, 500, 20),
    arrivals.steps((5, 100), (5, 0), (5, 300), repeat=True),
    arrivals.poisson(20) * arrivals.diurnal(0.9, day=120) * arrivals.weekly(1, day=120),
    arrivals.poisson(200) * arrivals.burst(every=10, size=1) * 3,
    arrivals.poisson(200) * arrivals.diurnal(0.6, day=50) + arrivals.burst(every=6, size=500) + arrivals.constant(3),
    arrivals.ramp(1, 100, 30).then(arrivals.poisson(300), after=45),
    arrivals.ramp(100, 0, 30).then(arrivals.gamma(300)),
    arrivals.poisson(700).thin(0.3),
    (arrivals.constant(100) + arrivals.poisson(50)).thin(0.5).thin(0.5),
    arrivals.constant(500).jitter(3),
    (arrivals.poisson(30) * arrivals.diurnal(0.5, day=60)).faster(7),
    (arrivals.poisson(90).jitter(0.5) + arrivals.constant(10).thin(0.25)) * 2,
]
SCHEDULES = [
    *(schedule.seeded(11) for schedule in FREE),
    arrivals.from_timestamps(np.arange(25_000) / 7),
    arrivals.from_timestamps(np.arange(25_000) / 7) * arrivals.diurnal(0.5, day=900),
    arrivals.from_timestamps([0, 1, 3, 3, 7.5]).jitter(2, seed=4),
]


@cache
def whole(schedule):
    return pickle.loads(pickle.dumps(schedule)).due(0, 25_000)


@settings(deadline=None, max_examples=12)  # the machine may be busy, and there are many schedules
@given(st.integers(0, 20_000), st.integers(0, 5_000))
@pytest.mark.parametrize(
    "schedule",
    SCHEDULES,
    ids=repr,
)
def test_any_part_is_a_part_of_the_whole(schedule, start, count):
    part = schedule.due(start, start + count)
    assert np.float64 == part.dtype
    assert whole(schedule)[start : start + count].tolist() == part.tolist()


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
    assert [schedule.stepped_back(rows) for rows in (0, 2, 3, 5, 6, 99)] == [0, 0, 1, 1, 2, 2]


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
        lambda: arrivals.gamma(1, cv=0),
        lambda: arrivals.weibull(1, shape=1000),
        lambda: arrivals.ramp(-1, 1, 1),
        lambda: arrivals.ramp(0, 0, 1),
        arrivals.steps,
        lambda: arrivals.steps((1, 0)),
        lambda: arrivals.steps(5),
        lambda: arrivals.diurnal(1.5),
        lambda: arrivals.weekly(0.5, start=7),
        lambda: arrivals.burst(every=1, size=1, over=2),
        lambda: arrivals.constant(1) * 0,
        lambda: arrivals.constant(1).thin(0),
        lambda: arrivals.constant(1).thin(1.5),
        lambda: arrivals.constant(1).jitter(-1),
        lambda: arrivals.constant(1).then(5, after=1),
        lambda: arrivals.constant(1).between(0, math.inf),
        lambda: arrivals.diurnal(0.5) * arrivals.diurnal(0.5, day=math.pi),
    ],
)
def test_what_is_no_schedule_is_refused(make):
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_times_ascend_from_zero(schedule):
    due = whole(schedule)
    assert due[0] >= 0
    assert (np.diff(due) >= 0).all()
    assert schedule.endless == (schedule.length is None and len(due) == 25_000)


@pytest.mark.parametrize("schedule", SCHEDULES[: len(FREE)], ids=repr)
def test_the_repr_makes_it_again(schedule):
    again = arrivals.parse(repr(schedule))
    assert repr(schedule) == repr(again)
    assert whole(schedule)[:9_000].tolist() == again.due(0, 9_000).tolist()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_window_of_time_is_what_is_due_in_it(schedule):
    due = whole(schedule)
    begin, end = float(due[len(due) // 3]), float(due[len(due) // 2]) + 1e-9
    inside = due[(due >= begin) & (due < end)]
    assert inside.tolist() == schedule.between(begin, end).tolist()


def test_what_can_be_sought_says_so():
    assert [s.seekable for s in FREE[:4]] == [True, True, False, False]
    assert (FREE[0].slice, FREE[1].slice, FREE[2].slice) == (None, 1.024, None)
    assert (FREE[6].slice, FREE[8].seekable, FREE[10].seekable) == (pytest.approx(51.2), True, False)
    # A thousand million rows ahead, without what comes before.
    far = arrivals.poisson(1000, seed=2).due(10**9, 10**9 + 1)
    assert far[0] == pytest.approx(10**6, rel=1e-3)


def test_parts_of_a_sum_are_drawn_apart_and_the_first_as_it_would_be_alone():
    both = (arrivals.poisson(5) + arrivals.poisson(5) + arrivals.poisson(5)).seeded(3)
    one = arrivals.poisson(5, seed=3).due(0, 1000)
    due = both.due(0, 3000)
    assert np.isin(one[:900], due).all()
    assert len(np.unique(due)) == 3000


def test_a_sum_has_the_arrivals_of_its_parts():
    one, two = arrivals.constant(3), arrivals.from_timestamps([0, 0.5, 0.5, 1])
    assert (one + two).due(0, 8).tolist() == pytest.approx([0, 0, 1 / 3, 0.5, 0.5, 2 / 3, 1, 1])
    assert (two + two).due(0, 99).tolist() == [0, 0, 0.5, 0.5, 0.5, 0.5, 1, 1]
    assert ((two + two).length, (one + two).length) == (8, None)


def test_a_product_multiplies_the_rate_at_every_instant():
    rate = arrivals.ramp(0, 10, 10) * arrivals.steps((4, 1), (2, 0), (4, 3), repeat=True)
    due = rate.due(0, 10_000)
    counts = [len(due[(due >= a) & (due < b)]) for a, b in ((0, 4), (4, 6), (6, 10), (10, 14), (14, 16), (16, 20))]
    # The integrals: 8, 0, 3 * 32, and then 10 a second times the step.
    assert [pytest.approx(c, abs=1) for c in counts] == [8, 0, 96, 40, 0, 120]
    assert (arrivals.constant(4) * 2.5).due(0, 5).tolist() == arrivals.constant(10).due(0, 5).tolist()
    assert (arrivals.poisson(4, seed=1) * 2).due(0, 50).tolist() == arrivals.poisson(8, seed=1).due(0, 50).tolist()
    assert (2 * arrivals.diurnal(0)).due(0, 3).tolist() == [0, 0.5, 1]


def test_a_ramp_has_the_shape_of_a_ramp():
    due = arrivals.ramp(10, 110, 10).due(0, 1600)
    expected = [10 * t + 5 * t * t for t in due[due < 10]]
    assert np.allclose(expected, np.arange(len(expected)), atol=1e-6)
    assert len(expected) == 600
    assert np.diff(due[601:]).tolist() == pytest.approx([1 / 110] * (len(due) - 602))


def test_a_schedule_that_ends_has_a_length():
    down = arrivals.ramp(10, 0, 10)
    assert (down.length, len(down.due(0, 99)), down.endless) == (50, 50, False)
    drawn = (arrivals.poisson(1) * arrivals.steps((100, 7), (1, 0))).seeded(5)
    assert drawn.length == len(drawn.due(0, 10_000))
    assert 600 < drawn.length < 800
    assert drawn.due(0, 10_000)[-1] < 100
    assert arrivals.steps((1, 3), (1, 0)).then(arrivals.constant(1)).due(0, 5).tolist() == pytest.approx(
        [0, 1 / 3, 2 / 3, 2 / 3, 5 / 3]
    )


def test_a_burst_is_on_and_off():
    due = arrivals.burst(every=60, size=500, over=2).due(0, 1500)
    assert [int(((due >= t) & (due < t + 2)).sum()) for t in (0, 60, 120)] == [500, 500, 500]


def test_days_and_weeks():
    due = (arrivals.poisson(1, seed=3) * arrivals.diurnal(0.5, peak=12) * arrivals.weekly(0.5)).between(0, 7 * 86_400)
    days = np.bincount((due // 86_400).astype(int))
    assert [pytest.approx(d / 86_400, abs=0.02) for d in days] == [7 / 6] * 5 + [7 / 12] * 2
    hours = np.bincount((due % 86_400 // 3_600).astype(int))
    assert hours.argmax() in (11, 12)
    assert hours.min() / hours.max() == pytest.approx(1 / 3, abs=0.05)


def test_poisson_counts_in_windows_pass_a_chi_square_test():
    counts = np.bincount((arrivals.poisson(4, seed=9).between(0, 50_000)).astype(int), minlength=50_000)
    shares = [math.exp(-4) * 4**k / math.factorial(k) for k in range(12)]
    expected = 50_000 * np.array([*shares, 1 - sum(shares)])
    observed = np.bincount(np.minimum(counts, 12), minlength=13)
    # 12 degrees of freedom: one sample in a thousand is above 32.9.
    assert ((observed - expected) ** 2 / expected).sum() < 32.9


@pytest.mark.parametrize(
    ("schedule", "law"),
    [
        (arrivals.poisson(10, seed=1), exponential),
        (arrivals.gamma(10, cv=0.5, seed=1), gamma_law(4, 0.1 / 4)),
        (arrivals.gamma(10, cv=2, seed=1), gamma_law(0.25, 0.1 * 4)),
        (arrivals.weibull(10, shape=0.7, seed=1), weibull_law),
        (arrivals.poisson(20, seed=1).thin(0.5, seed=2), exponential),
        (arrivals.poisson(10, seed=1).jitter(1, seed=2), exponential),
        ((arrivals.poisson(4) + arrivals.poisson(6)).seeded(8), exponential),
    ],
    ids=repr,
)
def test_gaps_follow_their_law(schedule, law):
    gaps = np.diff(schedule.due(100, 40_101))
    assert ks(gaps, law) < KS_LIMIT
    assert gaps.mean() == pytest.approx(0.1, rel=0.04)


def test_jitter_moves_each_arrival_by_its_share():
    plain, moved = arrivals.constant(10).due(0, 20_000), arrivals.constant(10).jitter(0.05, seed=1).due(0, 20_000)
    assert ks(moved - plain, lambda x: x / 0.05) < KS_LIMIT


@pytest.mark.parametrize(
    ("text", "words", "caret"),
    [
        ("poisson(200", "was never closed", 7),
        ("poison(200)", "did you mean 'poisson'", 0),
        ("constant(1)+poisson(-3)", "rate", 12),
        ("constant(1) + poisson(3).foo(2)", "no .foo()", 14),
        ("poisson(1)*poisson(2)", "just a rate", 0),
        ("poisson(1)-poisson(2)", "only + and *", 0),
        ("poisson(1)+poisson", "stands alone", 11),
        ("poisson(rate=1, speed=2)", "unexpected keyword argument 'speed'", 0),
        ("constant(1).then(constant(2))", "after=", 0),
        ("constant(1) + __import__('os').system('id')", "no schedule '__import__'", 14),
        ("constant(1).__class__()", "no .__class__()", 0),
        ("[x for x in (1, 2)]", "no place", 0),
        ("constant(10**10)", "only + and *", 9),
        ("constant('a' * 999)", "only + and *", 9),
    ],
)
def test_an_expression_that_is_wrong_shows_where(text, words, caret):
    with pytest.raises(ConfigError, match="something like") as caught:
        arrivals.parse(text)
    lines = str(caught.value).splitlines()
    assert words in lines[0]
    assert [f"  {text}", f"  {' ' * caret}^"] == lines[1:]


@pytest.mark.parametrize("text", ["1 + 2", "", "(" * 300 + "1" + ")" * 300, "-" * 5_000 + "1", "1+" * 20_000 + "1"])
def test_what_is_no_schedule_at_all_is_refused(text):
    with pytest.raises(ConfigError):
        arrivals.parse(text)


def test_the_expression_of_the_manual():
    made = arrivals.parse("poisson(200)*diurnal(0.6)+burst(every=60,size=500)")
    assert repr(made) == "poisson(200)*diurnal(0.6) + burst(every=60, size=500)"
    assert arrivals.parse("steps((60, 10), (30, 2.5), repeat=True)").due(0, 1).tolist() == [0]
