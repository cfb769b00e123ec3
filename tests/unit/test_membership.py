"""What becomes of an endpoint: one story a test, with beats each second, suspect after 3 s, dead after 5 s."""

import math
from random import Random

import pytest

from simlink import Heartbeat
from simlink.balancing.member import Member
from simlink.errors import ConfigError
from simlink.health.detector import FailureDetector, Level
from simlink.health.membership import Membership, State
from simlink.health.outlier import Outliers


class Pool:
    """A membership, a clock, and beats of those that live."""

    def __init__(self, *names, start=True, **options):
        self.now = 0.0
        self.members = Membership(Heartbeat(1.0, 3, 5), random=Random(7), **options)
        self.beating = set()
        self.seen = []
        self.moved = []
        for name in names:
            self.members.add(name, self.now)
            if start:
                self.up(name)
        self.collect()

    def up(self, name, incarnation=1):
        self.members.connected(name, self.now, incarnation)
        self.beating.add(name)
        self.collect()

    def collect(self):
        for change in self.members.tick(self.now):
            self.seen.append((change.endpoint, change.old, change.new))
            assert change.why
        self.moved.extend(self.members.take_moving())

    def run(self, seconds, step=0.5):
        for _ in range(round(seconds / step)):
            self.now += step
            for name in sorted(self.beating):
                self.members.heard(name, self.now)
            self.collect()

    def state(self, name):
        return self.members.state(name)

    def eligible(self):
        return {member.name: member.warm for member in self.members.eligible(self.now)}

    def kill(self, name, incarnation=None):
        """The endpoint dies, and if an incarnation is given it is back at once, and passes its trial."""
        self.beating.discard(name)
        self.members.refused(name, self.now)
        self.collect()
        if incarnation is not None:
            self.up(name, incarnation)


def test_silence_makes_suspect_then_dead_and_only_the_dead_are_moved():
    pool = Pool("a", "b", "c")
    pool.beating.discard("a")
    pool.run(2.5)
    assert pool.state("a") is State.UP
    pool.run(0.5)
    assert pool.state("a") is State.SUSPECT
    assert pool.members.why("a") == "silent for 3.0 s"
    assert pool.eligible() == {"b": 1.0, "c": 1.0}
    assert pool.moved == []
    pool.run(2.0)
    assert pool.state("a") is State.DEAD
    assert pool.members.why("a") == "silent for 5.0 s"
    assert pool.moved == ["a"]
    assert pool.seen[-2:] == [("a", State.UP, State.SUSPECT), ("a", State.SUSPECT, State.DEAD)]


def test_a_suspect_that_is_heard_is_up_again_at_once():
    pool = Pool("a", "b")
    pool.beating.discard("a")
    pool.run(4.0)
    pool.members.traffic("a", pool.now)
    pool.collect()
    assert pool.state("a") is State.UP
    assert pool.eligible() == {"a": 1.0, "b": 1.0}
    assert pool.moved == []


def test_a_broken_link_is_no_proof():
    pool = Pool("a", "b")
    pool.beating.discard("a")
    pool.members.lost("a", pool.now)
    pool.collect()
    assert pool.state("a") is State.SUSPECT
    pool.run(4.5)
    assert pool.moved == []
    pool.up("a")  # the same incarnation: it kept what it held
    assert pool.state("a") is State.UP
    assert pool.moved == []
    pool.beating.discard("a")
    pool.members.lost("a", pool.now)
    pool.run(5.0)
    assert pool.state("a") is State.DEAD
    assert pool.moved == ["a"]


def test_what_is_heard_over_a_link_that_is_gone_brings_nobody_back():
    pool = Pool("a", "b")
    pool.beating.discard("a")
    pool.members.lost("a", pool.now)
    pool.members.heard("a", pool.now)
    pool.collect()
    assert pool.state("a") is State.SUSPECT


def test_a_refused_connection_is_proof_and_needs_no_waiting():
    pool = Pool("a", "b")
    pool.members.lost("a", pool.now)
    pool.members.refused("a", pool.now)
    pool.collect()
    assert pool.state("a") is State.DEAD
    assert pool.moved == ["a"]


def test_a_new_incarnation_is_proof_that_the_one_before_is_gone():
    pool = Pool("a", "b")
    pool.run(3.0)
    pool.up("a", incarnation=2)
    assert pool.moved == ["a"]
    assert pool.seen[-2:] == [("a", State.UP, State.DEAD), ("a", State.DEAD, State.HALF_OPEN)]
    assert pool.members.incarnation("a") == 2


def test_return_is_one_batch_then_a_share_that_grows():
    pool = Pool("a", "b", slow_start=10.0)
    pool.kill("a", incarnation=2)
    assert pool.state("a") is State.HALF_OPEN
    assert pool.eligible() == {"a": 1.0, "b": 1.0}  # it is one batch, and must be given for the endpoint to go on
    pool.members.probe_done("a", pool.now, ok=True)  # of what it held before
    assert pool.state("a") is State.HALF_OPEN
    pool.members.probe_taken("a", pool.now)
    assert pool.eligible() == {"b": 1.0}
    pool.members.probe_done("a", pool.now, ok=True)
    pool.collect()
    assert pool.state("a") is State.WARMING
    shares = [pool.eligible()["a"]]
    for _ in range(10):
        pool.run(1.0)
        shares.append(pool.eligible()["a"])
    assert shares == [0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert pool.state("a") is State.UP


def test_a_trial_that_fails_is_a_death():
    pool = Pool("a", "b")
    pool.kill("a", incarnation=2)
    pool.members.probe_taken("a", pool.now)
    pool.members.probe_done("a", pool.now, ok=False)
    pool.collect()
    assert pool.state("a") is State.DEAD
    assert pool.moved == ["a", "a"]
    pool.run(1.5)  # it lives and was heard: when the quarantine is over it is tried again
    assert pool.state("a") is State.HALF_OPEN


def test_what_becomes_of_its_trial_batch_is_nothing_to_the_dead():
    pool = Pool("a", "b")
    pool.kill("a", incarnation=2)
    pool.members.probe_taken("a", pool.now)
    pool.kill("a")
    told = len(pool.seen)
    for ok in (False, True):
        pool.members.probe_done("a", pool.now, ok)
        pool.collect()
    assert pool.seen[told:] == []
    assert pool.state("a") is State.DEAD


def test_a_trial_survives_a_suspicion():
    pool = Pool("a", "b")
    pool.kill("a", incarnation=2)
    pool.members.probe_taken("a", pool.now)
    pool.beating.discard("a")
    pool.run(3.0)
    assert pool.state("a") is State.SUSPECT
    pool.members.traffic("a", pool.now)
    pool.collect()
    assert pool.state("a") is State.HALF_OPEN
    assert pool.eligible() == {"b": 1.0}  # its batch is still out
    pool.members.probe_done("a", pool.now, ok=True)
    pool.collect()
    assert pool.state("a") is State.WARMING


def test_repeated_death_is_quarantined_for_longer_each_time_and_never_for_long():
    pool = Pool("a", "b", quarantine=1.0, longest_quarantine=30.0)
    stays = []
    for life in range(2, 12):
        pool.kill("a")
        died = pool.now
        pool.up("a", life)
        while pool.state("a") is State.DEAD:
            pool.run(0.1, step=0.1)
        stays.append(pool.now - died)
    assert stays[0] == 0.0  # once is no habit
    for number, stay in enumerate(stays[1:]):
        whole = min(2.0**number, 30.0)
        assert whole / 2 <= stay + 1e-9
        assert stay <= whole + 0.2


def test_those_that_die_together_do_not_return_together():
    stays = []
    for seed in range(10):
        members = Membership(Heartbeat(1.0), random=Random(seed), quarantine=8.0)
        members.add("a", 0.0)
        for life in (1, 2, 3):
            members.connected("a", 0.0, life)
        assert members.tick(0.0)[-1].new is State.DEAD
        stays.append(members.next_deadline())
    assert len(set(stays)) == 10
    assert min(stays) >= 4.0
    assert max(stays) <= 8.0


def test_a_quiet_life_makes_up_for_a_death():
    pool = Pool("a", "b", longest_quarantine=30.0)
    for life in range(2, 6):
        pool.kill("a", life)
        pool.run(1.0)
    pool.run(300.0)
    assert pool.state("a") is State.HALF_OPEN
    pool.kill("a", 9)
    assert pool.state("a") is State.HALF_OPEN  # no quarantine


def test_one_outage_counts_once_however_often_it_is_refused():
    pool = Pool("a", "b")
    for _ in range(20):
        pool.kill("a")
        pool.run(0.5)
    pool.up("a", 2)
    assert pool.state("a") is State.HALF_OPEN
    assert pool.moved == ["a"]


def test_one_that_falls_silent_again_in_quarantine_waits_for_its_next_sign_of_life():
    pool = Pool("a", "b", quarantine=20.0)
    pool.kill("a", 2)
    pool.kill("a")
    pool.up("a", 3)  # quarantined now, for 10 to 20 s
    pool.beating.discard("a")
    pool.run(25.0)
    assert pool.state("a") is State.DEAD
    pool.members.heard("a", pool.now)
    pool.collect()
    assert pool.state("a") is State.HALF_OPEN


def test_the_dead_by_silence_come_back_over_the_link_that_they_kept():
    pool = Pool("a", "b")
    pool.beating.discard("a")
    pool.run(6.0)
    assert pool.state("a") is State.DEAD
    pool.beating.add("a")
    pool.run(0.5)
    assert pool.state("a") is State.HALF_OPEN
    assert pool.moved == ["a"]


def test_our_own_late_loop_convicts_nobody():
    pool = Pool("a", "b", "c")
    pool.run(2.0)
    pool.now += 60.0  # the process was stopped
    pool.members.late(pool.now, 59.5)
    pool.collect()
    assert {pool.state(name) for name in "abc"} == {State.UP}
    pool.beating.discard("a")
    pool.run(2.5)  # what was read from the buffers keeps b and c alive, a is really dead
    assert pool.state("a") is State.UP
    pool.run(3.0)
    assert [pool.state(name) for name in "abc"] == [State.DEAD, State.UP, State.UP]


def test_a_little_late_is_the_clocks_grain():
    pool = Pool("a")
    pool.now = 5.0
    pool.members.late(pool.now, 0.4)
    pool.collect()
    assert pool.state("a") is State.DEAD


def test_one_that_never_answers_or_is_refused_is_dead_and_starts_at_once_when_it_comes():
    pool = Pool("a", "b", "c", start=False)
    pool.members.refused("a", pool.now)
    pool.collect()
    assert pool.state("a") is State.DEAD
    pool.run(5.0)
    assert pool.members.why("b") == "no answer for 5.0 s"
    assert pool.moved == []  # nothing was ever given to it
    pool.up("a")
    pool.up("b")
    assert (pool.state("a"), pool.state("b")) == (State.UP, State.UP)


def test_one_added_to_a_running_pool_starts_slowly():
    pool = Pool("a", "b")
    pool.run(10.0)
    pool.members.add("c", pool.now)
    pool.up("c")
    assert pool.state("c") is State.WARMING
    assert pool.eligible() == {"a": 1.0, "b": 1.0, "c": 0.1}


def test_without_slow_start_the_trial_is_all():
    pool = Pool("a", "b", slow_start=0.0)
    pool.kill("a", 2)
    pool.members.probe_taken("a", pool.now)
    pool.members.probe_done("a", pool.now, ok=True)
    pool.collect()
    assert pool.state("a") is State.UP


def test_panic_uses_all_that_are_not_proven_dead():
    pool = Pool("a", "b", "c", "d", "e")
    pool.beating -= {"a", "b", "c"}
    pool.run(3.0)
    pool.kill("c")
    assert pool.members.panic is False  # nobody has asked
    assert pool.eligible() == {"a": 0.1, "b": 0.1, "d": 1.0, "e": 1.0}
    assert pool.members.panic is True
    pool.run(2.0)
    assert pool.state("a") is State.DEAD  # by silence only
    assert set(pool.eligible()) == {"a", "b", "d", "e"}
    pool.members.lost("b", pool.now)
    assert set(pool.eligible()) == {"a", "d", "e"}
    pool.beating.add("a")
    pool.run(0.5)
    assert pool.eligible() == {"a": 1.0, "d": 1.0, "e": 1.0}
    assert pool.members.panic is False


def test_half_is_no_panic():
    pool = Pool("a", "b", "c", "d")
    pool.kill("a")
    pool.beating.discard("b")
    pool.run(3.0)
    assert pool.eligible() == {"c": 1.0, "d": 1.0}
    assert pool.members.panic is False


def test_what_a_silent_dead_one_was_given_in_panic_is_moved_again():
    pool = Pool("a", "b", "c")
    pool.beating -= {"a", "b"}
    pool.run(5.0)
    assert sorted(pool.moved) == ["a", "b"]
    assert set(pool.eligible()) == {"a", "b", "c"}
    pool.run(4.5)
    assert sorted(pool.moved) == ["a", "b"]
    pool.run(0.5)
    assert sorted(pool.moved) == ["a", "a", "b", "b"]


def test_nobody_left_says_when_each_was_last_seen():
    pool = Pool("a:1", "b:1", start=False)
    pool.up("a:1")
    pool.run(1.0)
    pool.kill("a:1")
    pool.members.refused("b:1", pool.now)
    pool.run(2.0, step=2.0)
    assert pool.eligible() == {}
    assert pool.members.account(pool.now) == (
        "a:1 dead, last seen 2.0 s ago (connection refused: nobody is there); "
        "b:1 dead, never seen (connection refused: nobody is there)"
    )
    assert pool.members.last_seen("a:1") == 1.0
    assert Membership(Heartbeat()).account(0.0) == "there are no endpoints: add one"


def test_draining_gives_nothing_new_and_its_death_is_final():
    pool = Pool("a", "b")
    pool.members.drain("a", pool.now)
    pool.run(1.0)
    assert pool.state("a") is State.DRAINING
    assert pool.eligible() == {"b": 1.0}
    pool.beating.discard("a")
    pool.run(5.0)
    assert pool.state("a") is State.DEAD
    assert pool.moved == ["a"]
    pool.up("a", 2)
    pool.run(40.0)
    assert pool.state("a") is State.DEAD
    pool.members.remove("a", pool.now)
    pool.collect()
    assert pool.state("a") is State.REMOVED
    assert pool.members.names == ("b",)


def test_one_that_is_removed_is_moved_and_heard_no_more():
    pool = Pool("a", "b")
    pool.members.remove("a", pool.now)
    for event in (
        lambda: pool.members.heard("a", pool.now),
        lambda: pool.members.traffic("a", pool.now),
        lambda: pool.members.connected("a", pool.now, 5),
        lambda: pool.members.lost("a", pool.now),
        lambda: pool.members.refused("a", pool.now),
        lambda: pool.members.outcome("a", pool.now, ok=False),
        lambda: pool.members.probe_taken("a", pool.now),
        lambda: pool.members.probe_done("a", pool.now, ok=True),
    ):
        event()
    pool.collect()
    assert pool.moved == ["a"]
    assert pool.seen[-1] == ("a", State.UP, State.REMOVED)


def test_failures_in_a_row_eject_for_a_while():
    pool = Pool(*"abcde", outliers=Outliers(rest=30.0))
    for _ in range(5):
        pool.members.outcome("a", pool.now, ok=False)
    pool.collect()
    assert pool.state("a") is State.EJECTED
    assert pool.members.why("a") == "5 failures in a row"
    assert set(pool.eligible()) == set("bcde")
    assert pool.moved == []  # it lives, and settles what it holds
    pool.run(29.5)
    assert pool.state("a") is State.EJECTED
    pool.run(0.5)
    assert pool.state("a") is State.WARMING


def test_one_that_is_ejected_can_die():
    pool = Pool(*"abcde")
    for _ in range(5):
        pool.members.outcome("a", pool.now, ok=False)
    pool.beating.discard("a")
    pool.run(5.0)
    assert pool.state("a") is State.DEAD
    assert pool.moved == ["a"]


def test_an_ejection_outlasts_a_broken_link():
    pool = Pool(*"abcde")
    for _ in range(5):
        pool.members.outcome("a", pool.now, ok=False)
    pool.members.lost("a", pool.now)
    pool.up("a")
    assert pool.state("a") is State.EJECTED


@pytest.mark.parametrize(("names", "ejected"), [("a", 0), ("ab", 1), ("abc", 1), ("abcdefghij", 1)])
def test_one_may_always_be_ejected_but_never_the_last(names, ejected):
    pool = Pool(*names)
    for name in names:
        for _ in range(20):
            pool.members.outcome(name, pool.now, ok=False)
    assert [pool.state(name) for name in names].count(State.EJECTED) == ejected


def test_nobody_is_ejected_if_the_pool_would_panic_for_it():
    pool = Pool(*"abcd")
    pool.kill("a")
    pool.kill("b")
    for _ in range(20):
        pool.members.outcome("c", pool.now, ok=False)
    assert pool.state("c") is State.UP


def test_nobody_is_ejected_where_that_is_off():
    pool = Pool(*"abcde", outliers=False)
    for _ in range(50):
        pool.members.outcome("a", pool.now, ok=False)
    assert pool.state("a") is State.UP


def test_the_view_is_the_same_object_until_something_changes():
    pool = Pool("a", "b")
    view = pool.members.eligible(pool.now)
    assert view == (Member("a"), Member("b"))
    pool.run(20.0)
    assert pool.members.eligible(pool.now) is view
    pool.kill("a")
    assert pool.members.eligible(pool.now) == (Member("b"),)


def test_there_is_nothing_to_do_before_the_next_deadline():
    pool = Pool("a", "b")
    assert pool.members.next_deadline() == 3.0
    pool.members.refused("a", 1.0)
    assert pool.members.next_deadline() == -math.inf  # it waits to be told
    pool.members.tick(1.0)
    assert pool.members.next_deadline() == 3.0
    pool.members.remove("a", 1.0)
    pool.members.remove("b", 1.0)
    pool.members.tick(1.0)
    assert pool.members.next_deadline() == math.inf


def test_a_detector_that_allows_less_than_before_is_asked_sooner():
    class Stricter(FailureDetector):
        beats = 10.0

        def allowed(self, level):
            return self.beats * (2 if level is Level.DEAD else 1)

        def learn(self, silence, quiet):
            self.beats = 1.0

    members = Membership(Stricter(1.0))
    members.add("a", 0.0)
    members.connected("a", 0.0, 1)
    members.tick(0.0)
    assert members.next_deadline() == 10.0
    members.heard("a", 1.0)
    assert members.next_deadline() == 2.0
    assert [change.new for change in members.tick(2.0)] == [State.SUSPECT]


def test_timers_that_were_set_anew_do_not_pile_up():
    pool = Pool("a", "b")
    for step in range(5000):
        pool.members.lost("a", float(step) / 100)
        pool.members.connected("a", float(step) / 100, 1)
        pool.members.tick(float(step) / 100)
        pool.members.heard("b", float(step) / 100)
    assert len(pool.members._timers) <= 64 + 4 * 2 + 1


def test_bad_input_is_refused_with_what_to_do():
    pool = Pool("a")
    for call, says in [
        (lambda: pool.members.add("a", 0.0), "is there already"),
        (lambda: pool.members.add("", 0.0), "needs a name"),
        (lambda: pool.members.add("b", 0.0, weight=0.0), "above 0"),
        (lambda: pool.members.drain("aa", 0.0), "did you mean 'a'|no endpoint 'aa'"),
        (lambda: pool.members.remove("x", 0.0), "no endpoint 'x'"),
        (lambda: Membership(Heartbeat(), slow_start=-1.0), "0 is no slow start"),
        (lambda: Membership(Heartbeat(), quarantine=5.0, longest_quarantine=2.0), "not below quarantine=5"),
        (lambda: Outliers(consecutive=0), "at least 1"),
        (lambda: Outliers(share=0.0), "part of all endpoints"),
        (lambda: Outliers(share=1.5), "part of all endpoints"),
        (lambda: Outliers(endpoints=2), "at least 3"),
        (lambda: Outliers(rest=40.0, longest=30.0), "not below rest=40"),
    ]:
        with pytest.raises(ConfigError, match=says):
            call()
    assert pool.members.names == ("a",)
