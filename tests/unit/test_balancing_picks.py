"""The books of a balancer: what a pick opens, and what each way of closing it leaves behind."""

from random import Random

import pytest

from simlink import (
    Balancer,
    ConfigError,
    LeastConnections,
    Member,
    NoEndpoints,
    RoundRobin,
    StateError,
    Verdict,
)
from simlink.balancing.pick import PENALTY
from simlink.balancing.registry import STRATEGIES, balancer


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def bound(what, names="abc", *, clock=None, seed=1):
    made = balancer(what)
    made.bind(clock or Clock(), Random(seed))
    made.update([Member(name) for name in names])
    return made


def of(made, name):
    return made.snapshot()[name]


@pytest.fixture(params=STRATEGIES)
def strategy(request):
    return request.param


def test_a_pick_counts_messages_until_it_is_closed(strategy, clock):
    made = bound(strategy, clock=clock)
    pick = made.pick(500)
    assert (pick.count, pick.left, pick.at) == (500, 500, 100.0)
    assert (of(made, pick.endpoint)["in_flight"], of(made, pick.endpoint)["picks"]) == (500, 500)
    clock.now += 0.25
    pick.close(Verdict.OK)
    assert (of(made, pick.endpoint)["in_flight"], of(made, pick.endpoint)["picks"]) == (0, 500)
    assert of(made, pick.endpoint)["latency"] == 0.25


def test_every_message_is_closed_once(strategy, clock):
    made = bound(strategy, clock=clock)
    pick = made.pick(10)
    pick.close(Verdict.OK, count=4)
    assert (pick.left, of(made, pick.endpoint)["in_flight"]) == (6, 6)
    pick.close(Verdict.OK, count=99)  # at most what is left
    pick.close(Verdict.OK)
    pick.close(Verdict.ERROR)
    assert (pick.left, of(made, pick.endpoint)["in_flight"]) == (0, 0)


def test_latency_is_taken_when_the_last_message_is_closed(strategy, clock):
    made = bound(strategy, clock=clock)
    pick = made.pick(2)
    clock.now += 0.1
    pick.close(Verdict.OK, count=1)
    assert of(made, pick.endpoint)["latency"] == 0.0
    clock.now += 0.1
    pick.close(Verdict.OK, count=1)
    assert of(made, pick.endpoint)["latency"] == pytest.approx(0.2)


@pytest.mark.parametrize("verdict", [Verdict.ERROR, Verdict.TIMEOUT])
def test_a_failure_counts_as_slow(strategy, clock, verdict):
    made = bound(strategy, clock=clock)
    pick = made.pick()
    clock.now += 0.001
    pick.close(verdict)
    assert of(made, pick.endpoint)["latency"] == PENALTY


def test_a_failure_that_took_longer_counts_as_long(strategy, clock):
    made = bound(strategy, clock=clock)
    pick = made.pick()
    clock.now += 30.0
    pick.close(Verdict.TIMEOUT)
    assert of(made, pick.endpoint)["latency"] == 30.0


def test_a_part_that_failed_makes_the_whole_pick_slow(strategy, clock):
    made = bound(strategy, clock=clock)
    pick = made.pick(2)
    clock.now += 0.001
    pick.close(Verdict.ERROR, count=1)
    pick.close(Verdict.OK)
    assert of(made, pick.endpoint)["latency"] == PENALTY


def test_what_was_moved_elsewhere_teaches_nothing(strategy, clock):
    made = bound(strategy, clock=clock)
    before = {name: dict(of(made, name), picks=0) for name in "abc"}
    pick = made.pick(3)
    clock.now += 7.0
    pick.close(Verdict.OK, count=1)
    pick.close(Verdict.ABANDONED)
    after = {name: dict(of(made, name), picks=0) for name in "abc"}
    same = {"in_flight", "latency"}
    assert {name: {each: after[name][each] for each in same} for name in after} == {
        name: {each: before[name][each] for each in same} for name in before
    }


def test_those_that_stay_keep_their_books_and_a_new_one_starts_at_the_median(strategy, clock):
    made = bound(strategy, clock=clock)
    open_picks = []
    for name, took in (("a", 0.010), ("b", 0.020), ("c", 0.090)):
        pick = made.pick(exclude=frozenset("abc") - {name})
        clock.now += took
        pick.close(Verdict.OK)
        open_picks.append(made.pick(5, exclude=frozenset("abc") - {name}))
    made.update([Member(name) for name in "dcba"])
    assert {name: round(of(made, name)["latency"], 9) for name in "abcd"} == {
        "a": 0.01,
        "b": 0.02,
        "c": 0.09,
        "d": 0.02,
    }
    assert {name: of(made, name)["in_flight"] for name in "abcd"} == {"a": 5, "b": 5, "c": 5, "d": 0}
    for pick in open_picks:
        pick.close(Verdict.ABANDONED)
    assert {name: of(made, name)["in_flight"] for name in "abcd"} == dict.fromkeys("abcd", 0)


def test_one_that_comes_back_starts_at_the_median_with_what_is_still_in_flight(strategy, clock):
    made = bound(strategy, clock=clock)
    only = {name: frozenset("abc") - {name} for name in "abc"}
    for name, took in (("a", 5.0), ("b", 0.020), ("c", 0.030)):
        pick = made.pick(exclude=only[name])
        clock.now += took
        pick.close(Verdict.OK)
    old = made.pick(7, exclude=only["a"])
    made.update([Member("b"), Member("c")])
    assert set(made.snapshot()) == {"b", "c"}
    assert {made.pick().endpoint for _ in range(50)} <= {"b", "c"}
    made.update([Member("b"), Member("c"), Member("a")])
    assert (of(made, "a")["in_flight"], of(made, "a")["latency"]) == (7, pytest.approx(0.025))
    old.close(Verdict.ABANDONED)
    assert of(made, "a")["in_flight"] == 0


def test_who_has_left_is_forgotten_once_nothing_is_in_flight(strategy, clock):
    made = bound(strategy, clock=clock)
    pick = made.pick()
    for number in range(100):
        made.update([Member(f"other-{number}")])
        made.pick().close(Verdict.OK)
    assert len(made._loads) <= 3
    pick.close(Verdict.OK)
    made.update([Member("other")])
    assert set(made._loads) == {"other"}


def test_excluded_endpoints_are_not_picked(strategy):
    made = bound(strategy, "abcd")
    assert {made.pick(exclude={"a", "d"}).endpoint for _ in range(50)} <= {"b", "c"}


def test_a_plan_names_each_endpoint_once_and_opens_nothing(strategy):
    made = bound(strategy, "abcdef")
    for _ in range(20):
        assert sorted(made.plan(b"key")) == list("abcdef")
    assert sum(books["in_flight"] for books in made.snapshot().values()) == 0


def test_nobody_is_left(strategy):
    made = bound(strategy, "ab")
    with pytest.raises(NoEndpoints, match="all 2 are excluded"):
        made.pick(exclude={"a", "b"})
    made.update([])
    with pytest.raises(NoEndpoints, match="none is eligible"):
        made.pick()
    assert list(made.plan()) == []
    made.update([Member("a")])
    assert made.pick().endpoint == "a"


def test_the_same_seed_picks_the_same(strategy):
    def picked(seed):
        made = bound(strategy, "abcdefgh", seed=seed)
        return [made.pick(key=b"%d" % number).endpoint for number in range(200)]

    assert picked(1) == picked(1)


def test_at_least_one_message_is_picked_and_closed(strategy):
    made = bound(strategy)
    with pytest.raises(ValueError, match="count is 0"):
        made.pick(0)
    pick = made.pick(2)
    with pytest.raises(ValueError, match="count is 0"):
        pick.close(Verdict.OK, count=0)
    assert pick.left == 2


def test_a_balancer_that_is_not_bound_says_so(strategy):
    with pytest.raises(StateError, match="bind"):
        balancer(strategy).pick()
    with pytest.raises(StateError, match="bind"):
        balancer(strategy).update([Member("a")])


def test_a_balancer_belongs_to_one_channel(strategy):
    made = bound(strategy)
    with pytest.raises(StateError, match="another channel"):
        made.bind(Clock(), Random(1))
    twin = made.fresh()
    twin.bind(Clock(), Random(1))
    assert twin.snapshot() == {}
    twin.update([Member("z")])
    assert (twin.pick().endpoint, set(made.snapshot())) == ("z", set("abc"))


def test_an_endpoint_is_named_once(strategy):
    with pytest.raises(ConfigError, match="'a' is given twice"):
        bound(strategy, "aba")


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_is_above_zero(weight):
    with pytest.raises(ConfigError, match=r"weight is .* above 0"):
        Member("a", weight)


@pytest.mark.parametrize("warm", [0, -0.5, 1.1, float("nan")])
def test_warm_is_a_share(warm):
    with pytest.raises(ConfigError, match="warm is"):
        Member("a", warm=warm)


def test_a_member_has_a_name():
    with pytest.raises(ConfigError, match="needs a name"):
        Member("")


def test_round_robin_refuses_weights_that_it_would_not_follow():
    made = RoundRobin()
    made.bind(Clock(), Random(1))
    made.update([Member("a", 2), Member("b", 2)])
    with pytest.raises(ConfigError, match="weighted_round_robin"):
        made.update([Member("a", 2), Member("b", 1)])


def test_a_strategy_of_ones_own_has_one_method():
    class Last(Balancer):
        def choose(self, endpoints, key):
            return endpoints[-1]

    assert bound(Last).pick().endpoint == "c"
    assert isinstance(balancer(LeastConnections), LeastConnections)
