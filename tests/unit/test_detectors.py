"""What counts as a sign of life, how much silence is too much, and which arguments are refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import simlink
from simlink.errors import ConfigError
from simlink.health.detector import FailureDetector, Level
from simlink.health.registry import detector

ALL = [simlink.Heartbeat, simlink.EmpiricalAccrual, simlink.PhiAccrual]
each = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)


def begun(pattern, now=0.0):
    made = pattern.fresh()
    made.reset(now)
    return made


def taught(pattern, gap, count=2000):
    """A detector that has seen beats at even gaps, and when the last came."""
    made, now = begun(pattern), 0.0
    for _ in range(count):
        now += gap
        made.heartbeat(now)
    return made, now


# ---- for all of them


@each
def test_one_that_has_not_begun_is_not_judged(kind):
    new = kind().fresh()
    assert (new.level(1e9), new.deadline(Level.DEAD), new.silence(1e9), new.seen) == (Level.ALIVE, math.inf, 0.0, None)


@each
def test_the_defaults_are_calm(kind):
    calm = begun(kind())
    assert calm.interval == 1.0
    assert calm.deadline(Level.SUSPECT) == 3.0
    assert calm.deadline(Level.DEAD) >= 5.0
    calm, now = taught(kind(), 1.0)
    assert calm.deadline(Level.SUSPECT) == now + 3.0
    assert now + 5.0 <= calm.deadline(Level.DEAD) <= now + 10.0


@each
def test_a_level_is_reached_at_its_deadline_and_not_before(kind):
    made, _ = taught(kind(0.1), 0.1)
    for level in (Level.SUSPECT, Level.DEAD):
        at = made.deadline(level)
        assert made.level(at) >= level
        assert made.level(math.nextafter(at, 0)) < level


@each
def test_one_that_is_fresh_has_the_arguments_and_none_of_the_past(kind):
    made, _ = taught(kind(0.2), 0.5)
    twin = made.fresh()
    twin.reset(7.0)
    new = begun(kind(0.2), 7.0)
    assert repr(twin) == repr(new)
    assert twin.deadline(Level.DEAD) == new.deadline(Level.DEAD)
    twin.heartbeat(7.9)
    assert made.seen == pytest.approx(1000.0)


@each
def test_a_beat_that_waited_in_a_queue_renews_no_more_than_when_it_was_sent(kind):
    made = begun(kind(1.0))
    for beat in range(1, 65):
        made.heartbeat(beat + 0.01, beat, 500.0 + beat)  # another clock, and 10 ms on the way
    assert made.seen == 64.01
    for beat in range(65, 85):  # each is 15 s late, one a second: alive would be what happened 15 s ago
        made.heartbeat(beat + 15.0, beat, 500.0 + beat)
        assert made.seen == pytest.approx(beat + 0.01)
        assert made.level(beat + 15.0) is Level.DEAD
    made.heartbeat(100.01, 85, 600.0)  # one that is in time
    assert made.level(100.01) is Level.ALIVE


@each
def test_a_clock_that_drifts_makes_no_beat_late(kind):
    made = begun(kind(1.0))
    for beat in range(1, 20_000):
        made.heartbeat(float(beat), beat, beat * (1 - 100e-6))  # slow by 100 ppm: two seconds in all
    assert 19_999 - made.seen < 0.02


@each
def test_a_repeat_or_a_beat_that_was_overtaken_is_no_news(kind):
    made = begun(kind(1.0))
    assert made.heartbeat(1.0, 7)
    assert not made.heartbeat(2.0, 7)
    assert not made.heartbeat(2.0, 6)
    assert made.seen == 1.0
    assert made.heartbeat(2.0, 8)


@each
def test_a_new_link_numbers_its_beats_anew(kind):
    made = begun(kind(1.0))
    made.heartbeat(1.0, 7, 1.0)
    made.reset(50.0)
    assert made.heartbeat(51.0, 1, 9e9)
    assert made.seen == 51.0


@each
def test_a_gap_that_a_new_link_ends_is_not_learnt(kind):
    made, now = taught(kind(0.1), 0.1)
    before = made.allowed(Level.DEAD)
    made.reset(now + 60.0)
    made.heartbeat(now + 60.1)
    assert made.allowed(Level.DEAD) == pytest.approx(before)


@each
def test_any_answer_is_life_and_no_sample(kind):
    made, now = taught(kind(0.1), 0.1)
    allowed = made.allowed(Level.DEAD)
    for step in range(1, 1000):
        made.traffic(now + step / 1000)
    assert made.allowed(Level.DEAD) == allowed
    assert made.seen == now + 0.999
    assert made.level(now + 1.0) is Level.ALIVE


@each
def test_our_own_late_loop_is_not_their_silence(kind):
    made, now = taught(kind(0.1), 0.1)
    allowed = made.allowed(Level.DEAD)
    now += 2.05  # we were stopped for two seconds
    assert made.level(now) is Level.DEAD
    made.local_pause(now, 2.0)
    assert made.level(now) is Level.ALIVE
    made.heartbeat(now)  # what lay in the buffer
    assert made.allowed(Level.DEAD) == allowed  # and is not learnt
    assert made.level(now + allowed) is Level.DEAD


@each
def test_what_we_could_not_hear_does_not_add_up_for_the_dead(kind):
    made, now = taught(kind(0.1), 0.1)
    died = now
    for _ in range(1000):
        now += 0.3
        made.local_pause(now, 0.15)  # late each time, by half of it
        if made.level(now) is Level.DEAD:
            break
    assert now - died < 8 * made.allowed(Level.DEAD)


@each
def test_a_stall_that_passes_is_learnt_but_for_the_fixed_one(kind):
    made, now = taught(kind(0.1), 0.1)
    before = made.allowed(Level.DEAD)
    made.heartbeat(now + 0.6)
    assert (made.allowed(Level.DEAD) > before) == (kind is not simlink.Heartbeat)


@each
def test_a_stall_under_traffic_is_learnt_but_for_the_fixed_one(kind):
    made, now = taught(kind(0.1), 0.1)
    before = made.allowed(Level.DEAD)
    made.traffic(now + 0.6)
    made.traffic(now + 0.61)
    made.heartbeat(now + 0.7)
    assert (made.allowed(Level.DEAD) > before) == (kind is not simlink.Heartbeat)


@each
def test_answers_in_place_of_beats_teach_what_beats_would(kind):
    """A peer that has something to say sends no beats, be it for hours."""
    quiet, now = taught(kind(0.1), 0.1)
    busy = begun(kind(0.1))
    for step in range(1, 20_001):
        busy.traffic(step * 0.01)
    assert busy.allowed(Level.DEAD) == pytest.approx(quiet.allowed(Level.DEAD), rel=0.02)
    before = busy.allowed(Level.DEAD)
    busy.traffic(now + 0.8)
    assert (busy.allowed(Level.DEAD) > before) == (kind is not simlink.Heartbeat)
    busy.local_pause(now + 2.0, 1.2)
    told = busy.allowed(Level.DEAD)
    busy.traffic(now + 2.0)
    assert busy.allowed(Level.DEAD) == told  # our own silence


@each
@given(gaps=st.lists(st.floats(0.0, 5.0), max_size=60), wait=st.floats(0.0, 60.0))
def test_levels_only_rise_in_silence_and_suspect_comes_first(kind, gaps, wait):
    made, now = begun(kind(0.5)), 0.0
    for gap in gaps:
        now += gap
        made.heartbeat(now)
    assert made.level(now) is Level.ALIVE
    assert now < made.deadline(Level.SUSPECT) <= made.deadline(Level.DEAD)
    assert made.level(now + wait) <= made.level(now + 2 * wait)
    assert made.suspicion(now + wait) <= made.suspicion(now + 2 * wait)


# ---- each by itself


def test_the_fixed_one_counts_beats():
    made = begun(simlink.Heartbeat(0.1, suspect=3, dead=7))
    made.heartbeat(10.0)
    assert made.deadline(Level.SUSPECT) == pytest.approx(10.3)
    assert made.deadline(Level.DEAD) == pytest.approx(10.7)
    assert made.suspicion(10.35) == pytest.approx(0.5)


def test_the_empirical_one_allows_the_longest_of_its_window_and_a_margin():
    made, now = taught(simlink.EmpiricalAccrual(0.1, window=90), 0.1, 100)
    assert made.allowed(Level.DEAD) == pytest.approx(0.3)
    now += 0.6
    made.heartbeat(now)
    assert made.allowed(Level.DEAD) == pytest.approx(0.69)
    for _ in range(89):
        now += 0.1
        made.heartbeat(now)
        assert made.allowed(Level.DEAD) == pytest.approx(0.69)
    made.heartbeat(now + 0.1)  # the stall is forgotten
    assert made.allowed(Level.DEAD) == pytest.approx(0.3)


@given(st.lists(st.floats(0.0, 2.0), max_size=200))
def test_the_longest_of_the_window_is_the_maximum_of_the_window(gaps):
    made = simlink.EmpiricalAccrual(1.0, window=30, margin=1.0, suspect=1, dead=1, cap=1e9)
    for at, gap in enumerate(gaps):
        made.learn(gap, quiet=True)
        assert made._longest[0][1] == max(gaps[max(0, at - 29) : at + 1])


def test_the_empirical_one_is_calm_while_it_knows_little_and_bounded_whatever_it_learnt():
    young = begun(simlink.EmpiricalAccrual(0.1))
    assert young.allowed(Level.DEAD) == pytest.approx(0.7)
    young.heartbeat(100.0)
    assert young.allowed(Level.DEAD) == pytest.approx(3.0)


def test_the_empirical_one_is_dead_after_five_calm_beats_or_three_quick_ones():
    assert simlink.EmpiricalAccrual().dead == 5
    assert simlink.EmpiricalAccrual(0.1).dead == 3
    assert simlink.EmpiricalAccrual(suspect=8).dead == 8
    assert simlink.EmpiricalAccrual(0.1, dead=9).dead == 9


def test_phi_is_the_exact_tail_of_the_normal_distribution():
    # Mean 1000 ms, deviation 200 ms, no pause. From tables of the normal tail: 1 − Φ(0) = .5, 1 − Φ(1) = .158655,
    # 1 − Φ(3) = 1.349898e-3, 1 − Φ(5) = 2.866516e-7, 1 − Φ(6) = 9.865876e-10, and 1 − Φ(−1) = .841345.
    made = begun(simlink.PhiAccrual(1.0, min_deviation=0.2, pause=0.0))
    for _ in range(1100):
        made.learn(1.0, quiet=True)
    table = {1.0: 0.30103, 1.2: 0.79955, 1.6: 2.86970, 2.0: 6.54265, 2.2: 9.00586, 0.8: 0.07503}
    assert {at: made.suspicion(at) for at in table} == pytest.approx(table, abs=1e-4)
    assert made.suspicion(made.deadline(Level.DEAD)) == 8.0 or made.deadline(Level.DEAD) == 3.0


def test_phi_reaches_its_threshold_at_its_deadline():
    for threshold in (0.5, 1, 8, 12, 40, 200, 300):
        made = begun(simlink.PhiAccrual(1.0, threshold=threshold, suspect=1, pause=1.0))
        assert made.suspicion(made.deadline(Level.DEAD)) == pytest.approx(threshold, rel=1e-3)


def test_phi_is_finite_and_smooth_where_the_error_function_ends():
    made = begun(simlink.PhiAccrual(1.0, pause=0.0))
    values = [made.suspicion(1.0 + 0.25 * y) for y in (29.9, 29.999, 30.001, 30.1, 40.0, 1e6)]
    assert values == sorted(values)
    assert values[2] - values[1] < 0.1
    assert math.isfinite(values[-1])


def test_phi_sees_the_mean_and_deviation_of_the_last_thousand():
    made, _ = taught(simlink.PhiAccrual(1.0, pause=0.0, min_deviation=0.1, suspect=1), 0.5)
    assert made.allowed(Level.DEAD) == pytest.approx(0.5 + 5.6120 * 0.1 if 0.5 + 0.5612 > 1 else 1.0, rel=1e-4)


def test_a_detector_of_ones_own_needs_one_method():
    class Patient(FailureDetector):
        def allowed(self, level):
            return 100.0 if level is Level.DEAD else 10.0

    made = begun(Patient(2.0))
    assert [made.level(at) for at in (9.0, 10.0, 99.0, 100.0)] == [0, 1, 1, 2]
    assert detector(Patient, 0.5).interval == 0.5


# ---- arguments and names


@pytest.mark.parametrize(
    ("kind", "arguments", "says"),
    [
        (simlink.Heartbeat, {"interval": 0}, "at least 0.01"),
        (simlink.Heartbeat, {"interval": -1}, "at least 0.01"),
        (simlink.Heartbeat, {"interval": 0.001}, "cannot keep a shorter one"),
        (simlink.Heartbeat, {"interval": math.nan}, "seconds between beats"),
        (simlink.Heartbeat, {"interval": math.inf}, "seconds between beats"),
        (simlink.Heartbeat, {"interval": "soon"}, "not a number"),
        (simlink.Heartbeat, {"suspect": 0}, "number of beats"),
        (simlink.Heartbeat, {"suspect": 6, "dead": 5}, r"suspect=6 is above dead=5: .*give dead=6 or more"),
        (simlink.Heartbeat, {"dead": -5}, "number of beats"),
        (simlink.EmpiricalAccrual, {"interval": 0.009}, "at least 0.01"),
        (simlink.EmpiricalAccrual, {"window": 5}, "at least 30"),
        (simlink.EmpiricalAccrual, {"margin": 0.9}, "at least 1"),
        (simlink.EmpiricalAccrual, {"suspect": 4, "dead": 2}, "suspect=4 is above dead=2"),
        (simlink.EmpiricalAccrual, {"dead": 10, "cap": 9}, "not below dead=10"),
        (simlink.PhiAccrual, {"interval": 0.0}, "at least 0.01"),
        (simlink.PhiAccrual, {"threshold": 0}, "phi, from 0.1 to 300"),
        (simlink.PhiAccrual, {"threshold": 301}, "phi, from 0.1 to 300"),
        (simlink.PhiAccrual, {"min_deviation": 0}, "leave it out"),
        (simlink.PhiAccrual, {"pause": -1}, "0 or more"),
        (simlink.PhiAccrual, {"suspect": 0}, "number of beats"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(kind, arguments, says):
    with pytest.raises(ConfigError, match=says):
        kind(**arguments)


def test_detectors_by_name():
    assert repr(detector()) == repr(simlink.EmpiricalAccrual())
    assert repr(detector("heartbeat", 0.5)) == repr(simlink.Heartbeat(0.5))
    assert repr(detector("phi", 0.5)) == repr(simlink.PhiAccrual(0.5))
    mine = simlink.Heartbeat(0.2)
    assert detector(mine, 9.0) is mine


def test_what_is_no_detector_is_refused():
    class Forgetful(simlink.Heartbeat):
        def __init__(self):
            pass

    for what, says in [
        ("heartbeet", "did you mean 'heartbeat'"),
        (7, "not a simlink.FailureDetector"),
        (int, "not a simlink.FailureDetector"),
        (Forgetful(), r"must call super\(\).__init__"),
    ]:
        with pytest.raises(ConfigError, match=says):
            detector(what)


def test_the_repr_says_the_arguments():
    assert repr(simlink.Heartbeat(0.1)) == "Heartbeat(interval=0.1, suspect=3.0, dead=5.0)"
