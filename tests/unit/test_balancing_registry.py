"""Balancers by name, by object and by class; and what is said of those that are none."""

import subprocess
import sys
from random import Random

import pytest

import simlink
from simlink import ConfigError, Member
from simlink.balancing.registry import ALIASES, STRATEGIES, balancer

MADE = {
    "round_robin": "RoundRobin",
    "random": "Random",
    "least_connections": "LeastConnections",
    "weighted_round_robin": "WeightedRoundRobin",
    "power_of_two": "PowerOfTwoChoices",
    "p2c": "PowerOfTwoChoices",
    "peak_ewma": "PeakEwma",
    "least_estimated_delay": "LeastEstimatedDelay",
    "led": "LeastEstimatedDelay",
    "consistent_hash": "ConsistentHash",
}


def test_every_name_makes_its_strategy():
    assert {name: type(balancer(name)).__name__ for name in [*STRATEGIES, *ALIASES]} == MADE
    assert {kind: getattr(simlink, kind).__name__ for kind in MADE.values()} == {kind: kind for kind in MADE.values()}


def test_a_strategy_knows_its_name():
    assert {name: balancer(name).name for name in STRATEGIES} == {name: name for name in STRATEGIES}


def test_who_looks_at_keys():
    assert [name for name in STRATEGIES if balancer(name).keyed] == ["consistent_hash"]
    assert (balancer(First).keyed, simlink.SlowStart(balancer("led")).keyed) == (True, False)


def test_the_default_goes_by_what_is_in_flight():
    assert type(balancer()) is simlink.LeastConnections


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(ConfigError, match="no balancer 'least_conections'; did you mean 'least_connections'"):
        balancer("least_conections")


def test_an_object_is_taken_as_it_is():
    given = simlink.PeakEwma(tau=1)
    assert balancer(given) is given


class First:
    def choose(self, endpoints, key):
        return endpoints[0]


@pytest.mark.parametrize("what", [First, First()])
def test_any_class_with_one_method_will_do(what):
    made = balancer(what)
    made.bind(lambda: 0.0, Random(1))
    made.update([Member("a"), Member("b", weight=2)])
    assert [made.pick(7).endpoint for _ in range(3)] == ["a", "a", "a"]
    assert (made.name, made.snapshot()["a"]["in_flight"]) == ("First", 21)


def test_it_is_shown_what_is_known():
    seen = []

    class Looks:
        def choose(self, endpoints, key):
            seen.append([(each.name, each.weight, each.in_flight, each.latency, key) for each in endpoints])
            return endpoints[0]

    made = balancer(Looks)
    made.bind(lambda: 0.0, Random(1))
    made.update([Member("a"), Member("b", weight=2)])
    made.pick(3, key=b"k")
    made.pick(exclude={"b"})
    assert seen == [[("a", 1.0, 0, 0.0, b"k"), ("b", 2.0, 0, 0.0, b"k")], [("a", 1.0, 3, 0.0, None)]]


def picking(choose):
    made = balancer(type("Mine", (), {"choose": choose}))
    made.bind(lambda: 0.0, Random(1))
    made.update([Member("a"), Member("b")])
    return made


def test_its_error_surfaces_as_it_is_and_nothing_is_booked():
    def choose(self, endpoints, key):
        raise ZeroDivisionError("mine")

    made = picking(choose)
    with pytest.raises(ZeroDivisionError, match="mine"):
        made.pick()
    assert {name: (books["in_flight"], books["picks"]) for name, books in made.snapshot().items()} == {
        "a": (0, 0),
        "b": (0, 0),
    }


@pytest.mark.parametrize("wrong", [None, "a", simlink.EndpointLoad("gone:1", 1.0, lambda: 0.0)])
def test_one_that_is_not_there_is_refused_with_what_is(wrong):
    made = picking(lambda self, endpoints, key: wrong)
    with pytest.raises(ConfigError, match=r"'Mine' chose .*, which is not there; .* \(a, b\)"):
        made.pick()
    assert made.snapshot()["a"]["in_flight"] == 0


def test_one_that_was_excluded_is_not_there():
    kept = []

    def choose(self, endpoints, key):
        kept.append(endpoints[0])
        return kept[0]

    made = picking(choose)
    assert made.pick().endpoint == "a"
    with pytest.raises(ConfigError, match=r"chose 'a', which is not there; .* \(b\)"):
        made.pick(exclude={"a"})


@pytest.mark.parametrize("what", [42, object(), object])
def test_what_cannot_choose_is_refused(what):
    with pytest.raises(ConfigError, match="no method choose"):
        balancer(what)


def test_a_class_that_needs_arguments_is_to_be_made_by_its_user():
    class Needs(First):
        def __init__(self, argument):
            self.argument = argument

    with pytest.raises(ConfigError, match="give an object of it"):
        balancer(Needs)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("PeakEwma", {"tau": 0}, "tau"),
        ("PeakEwma", {"tau": float("nan")}, "tau"),
        ("ConsistentHash", {"bound": 1}, "bound"),
        ("ConsistentHash", {"points": 0}, "points"),
    ],
)
def test_an_option_out_of_range_is_refused(kind, options, says):
    with pytest.raises(ConfigError, match=says):
        getattr(simlink, kind)(**options)


def test_slow_start_is_put_around_a_strategy_once():
    once = simlink.SlowStart(simlink.RoundRobin())
    with pytest.raises(ConfigError, match="twice"):
        simlink.SlowStart(once)


def test_slow_start_for_another_channel_knows_nobody():
    made = simlink.SlowStart(simlink.RoundRobin())
    made.bind(lambda: 0.0, Random(1))
    made.update([Member("a", warm=0.1), Member("b")])
    twin = made.fresh()
    twin.bind(lambda: 0.0, Random(1))
    twin.update([Member("a"), Member("b")])
    assert [twin.pick().endpoint for _ in range(4)] in (["a", "b", "a", "b"], ["b", "a", "b", "a"])
    assert made.snapshot()["a"]["picks"] == made.snapshot()["b"]["picks"] == 0


def test_choosing_loads_no_transport_and_no_numpy():
    program = (
        "import sys; from simlink.balancing.registry import balancer; balancer('led'); "
        "print(*(m for m in sys.modules if m.startswith(('numpy', 'simlink.'))))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {name.split(".")[1] if name.startswith("simlink.") else name for name in loaded} == {"balancing", "errors"}
