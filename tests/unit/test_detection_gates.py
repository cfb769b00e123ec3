"""How soon a death is declared, and how often one that did not happen: the detectors in simulated time, fixed seeds.

Beats each 100 ms, spread by 20 ms; where there are stalls, one gap in a hundred is 500 ms longer. Rates of one in a
hundred hours need more hours than a test has, so the default detector's rule is also written over whole columns, in the
bench; that it agrees with the detector is tested first.
"""

import numpy as np
import pytest

import simlink
from bench.detection import empirical, false_deaths, gaps, table, watch
from simlink.health.detector import Level

DEFAULT = simlink.EmpiricalAccrual(0.1)


@pytest.fixture
def rng():
    return np.random.default_rng(20260401)


@pytest.mark.parametrize("world", [{}, {"stalls": 0.0}, {"loss": 0.05}, {"stalls": 0.002}], ids=str)
def test_the_rule_over_columns_is_the_detectors(rng, world):
    between = gaps(rng, 0.3, **world)
    arrives = np.cumsum(between)
    seen = watch(DEFAULT, between, np.random.default_rng(1))
    crash = arrives - between + np.random.default_rng(1).random(len(between)) * between
    allowed = empirical(DEFAULT, between)
    assert np.allclose(seen.dead, np.maximum(arrives - between + allowed - crash, 0.0), atol=1e-6)
    assert seen.false_deaths == (between >= allowed).sum()


def test_with_stalls_dead_within_700_ms_and_suspect_within_300(rng):
    seen = watch(DEFAULT, gaps(rng, 1.0), rng)
    assert seen.dead.mean() <= 0.700
    assert seen.suspect.mean() <= 0.300
    assert seen.false_deaths == 0


def test_without_stalls_dead_within_260_ms(rng):
    seen = watch(DEFAULT, gaps(rng, 1.0, stalls=0.0), rng)
    assert seen.dead.mean() <= 0.260
    assert seen.suspect.mean() <= 0.300
    assert seen.false_deaths == 0


def test_at_most_one_false_death_in_a_hundred_hours(rng):
    lives = [false_deaths(DEFAULT, rng, 60.0) for _ in range(2)]
    assert sum(deaths for deaths, _ in lives) <= 0.01 * sum(hours for _, hours in lives)


def test_at_most_five_false_deaths_an_hour_where_one_beat_in_twenty_is_lost(rng):
    deaths, hours = false_deaths(DEFAULT, rng, 50.0, loss=0.05)
    assert 0 < deaths <= 5 * hours


def answers(rng, hours, *, stalls):
    """When answers come, one each 20 ms or so, and one gap in five hundred is 500 ms longer: no time for a beat."""
    between = np.maximum(rng.exponential(0.02, int(hours * 3600 / 0.02)), 1e-4)
    return between + 0.5 * (rng.random(len(between)) < stalls)


@pytest.mark.parametrize(("stalls", "dead"), [(0.002, 0.700), (0.0, 0.300)])
def test_under_constant_traffic_a_death_is_found_as_soon(rng, stalls, dead):
    # Without stalls by 300 ms, which are three beats: there is no gap between two beats for a crash to fall into.
    detector = DEFAULT.fresh()
    detector.reset(0.0)
    now, false, waits = 0.0, 0, []
    for step, gap in enumerate(answers(rng, 0.5, stalls=stalls).tolist()):
        if step > 25_000:
            waits.append(detector.deadline(Level.DEAD) - now - gap / 2)
            false += now + gap >= detector.deadline(Level.DEAD)
            assert detector.deadline(Level.SUSPECT) - now <= 0.3 + 1e-9
        now += gap
        detector.traffic(now)
    assert (np.mean(waits) <= dead, false) == (True, 0)


def test_a_change_of_pace_is_learnt(rng):
    # Jitter that trebles: four false deaths at most in the 2,000 beats that follow, none of them repeated for ever.
    calm = np.maximum(rng.normal(0.1, 0.02, 3000), 0.001)
    rough = np.maximum(rng.normal(0.1, 0.06, 20_000), 0.001)
    allowed = empirical(DEFAULT, np.concatenate([calm, rough]))
    convicted = np.concatenate([calm, rough]) >= allowed
    assert convicted[:5000].sum() <= 4
    assert convicted[5000:].sum() <= 8


def test_the_others_for_comparison(rng):
    fixed = watch(simlink.Heartbeat(0.1, suspect=3, dead=7), gaps(rng, 0.4), rng)
    phi = watch(simlink.PhiAccrual(0.1), gaps(rng, 0.4), rng)
    hasty = watch(simlink.PhiAccrual(0.1, pause=0.0), gaps(rng, 0.4), rng)
    for name, seen in [("fixed 7 beats", fixed), ("phi 8", phi), ("phi 8, no pause", hasty)]:
        print(f"{name}: dead after {seen.dead.mean() * 1e3:.0f} ms, {seen.per_hour:.1f} false deaths an hour")
    assert fixed.false_deaths == phi.false_deaths == 0
    assert fixed.dead.mean() < phi.dead.mean()
    assert hasty.per_hour > 100  # what the pause is for


def test_the_table_of_the_bench_has_every_gate_and_judges_by_it():
    rows = {row.name: row for row in table(hours=0.02, long=100.0, only="empirical")}
    assert [row.gate for row in rows.values() if row.gate] == [
        "≤ 700 ms", "≤ 260 ms", "≤ 300 ms", "≤ 5/h", "≤ 0.01/h", "≤ 1 %",
    ]  # fmt: skip
    assert rows["empirical: suspect after"].ok
    assert not rows["empirical: dead after, no stalls"].ok  # it has hardly seen enough beats to be quick
