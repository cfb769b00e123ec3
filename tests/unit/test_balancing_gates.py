"""What is asked of the strategies, in virtual time with fixed seeds: the same figures on every machine.

The samples are smaller than the bench's, where the figure is stable at that size; the gates are the same.
"""

import math
from collections import Counter
from random import Random

import pytest

from simlink import ConfigError, ConsistentHash, LeastConnections, Member, RoundRobin, SlowStart, Verdict
from simlink.balancing.registry import balancer
from simlink.testing import strategies
from simlink.testing.service import Fault, Server, ServiceSimulation

LOAD_AWARE = ["least_connections", "power_of_two", "peak_ewma", "least_estimated_delay"]
SAMPLE = {"requests": 25_000, "seeds": [1]}


@pytest.fixture(scope="module")
def by_turns():
    return strategies.tail("S2", "round_robin", **SAMPLE)


def test_round_robin_is_exact():
    assert strategies.spread("round_robin", picks=10_003) <= 1


def test_random_is_random():
    assert 1.15 <= strategies.chi_square("random", picks=50_000) <= 27.88


@pytest.mark.parametrize("name", ["least_connections", "power_of_two"])
def test_least_in_flight_is_even_among_equals(name):
    assert strategies.imbalance(name, picks=50_000) <= 1.03


@pytest.mark.parametrize(
    "weights", [[5, 1, 1], [1] * 10, list(range(1, 11)), [100, *[1] * 20], [0.3, 0.7, 2.5, 9.1], [20] * 10 + [1] * 10]
)
def test_every_prefix_is_near_the_weights(weights):
    assert max(strategies.drift("weighted_round_robin", weights, picks=1_000, seed=seed) for seed in range(3)) <= 1.5


@pytest.mark.parametrize(("name", "times"), list(zip(LOAD_AWARE, [3, 2, 4.5, 4.5], strict=True)))
def test_one_that_only_delays(name, times, by_turns):
    assert by_turns / strategies.tail("S2", name, **SAMPLE) >= times


def test_one_that_is_slow_and_queues():
    assert strategies.tail("S1", "least_estimated_delay", **SAMPLE) <= 0.060


def test_twenty_clients_that_know_nothing_of_each_other():
    assert strategies.tail("C20", "least_estimated_delay", **SAMPLE) <= 0.100


@pytest.mark.parametrize("name", ["least_connections", "least_estimated_delay"])
def test_one_that_goes_silent_swallows_little(name):
    assert strategies.swallowed(name, seeds=range(5)) <= 5


def test_by_turns_it_swallows_its_share():
    assert strategies.swallowed("round_robin", seeds=range(5)) == pytest.approx(40.7, abs=0.5)


@pytest.mark.parametrize("name", LOAD_AWARE)
def test_one_that_fails_fast_attracts_nothing(name):
    assert strategies.swallowed(name, Fault.FAILING, seeds=range(5)) <= 2


@pytest.mark.parametrize("name", [*LOAD_AWARE, "round_robin", "random", "weighted_round_robin", "consistent_hash"])
def test_one_that_comes_back_starts_slowly(name):
    assert strategies.rejoin(name, seeds=range(5)) <= 0.15


@pytest.mark.parametrize("rate", [20.0, 300.0, 880.0])
@pytest.mark.parametrize("name", [*LOAD_AWARE, "round_robin", "random", "weighted_round_robin"])
def test_who_is_warming_has_its_share_under_any_load(name, rate):
    # From next to nothing in flight, 0.2 of the endpoints busy at a time, to more waiting than served.
    simulation = ServiceSimulation([SlowStart(balancer(name))], strategies.servers(), rate=rate, seed=5)
    simulation.run(1_000)
    for warm in (0.1, 0.5):
        simulation.update([*(Member(f"e{i}") for i in range(9)), Member("e9", warm=warm)])
        due = 6_000 * warm / (9 + warm)
        assert (warm, simulation.run(6_000)["e9"]) == (warm, pytest.approx(due, abs=4 * math.sqrt(due)))


def test_who_is_warming_and_slow_gets_no_more_than_it_can_hold():
    # A hundred times slower: it serves one a second, and half a share would be 35 of them.
    simulation = ServiceSimulation([SlowStart(LeastConnections())], strategies.servers(slower=100.0), rate=637.0)
    simulation.update([Member("e0", warm=0.5), *(Member(f"e{i}") for i in range(1, 10))])
    assert simulation.run(6_370)["e0"] <= 30


def test_who_is_warming_and_fails_fast_attracts_nothing():
    simulation = ServiceSimulation([SlowStart(LeastConnections())], strategies.servers(), rate=637.0)
    simulation.servers["e0"].fault = Fault.FAILING
    simulation.update([Member("e0", warm=0.5), *(Member(f"e{i}") for i in range(1, 10))])
    assert simulation.run(637)["e0"] <= 6


def test_where_all_are_warming_they_share_by_how_warm_they_are():
    made = SlowStart(LeastConnections())
    made.bind(lambda: 0.0, Random(1))
    made.update([Member("a", warm=0.2), Member("b", warm=0.8)])
    picked = Counter()
    for _ in range(1_000):
        pick = made.pick()
        pick.close(Verdict.OK)
        picked[pick.endpoint] += 1
    assert picked["a"] == pytest.approx(200, abs=50)


def test_without_slow_start_it_gets_everything():
    assert strategies.rejoin("least_connections", warm=1.0, seeds=range(2)) >= 0.9


def test_a_slow_endpoint_that_recovers_is_found_out():
    # 10 times slower for 10 s, then well again: within 6 s it has at least half of its share of a second.
    simulation = strategies.scenario("S2", "least_estimated_delay")
    simulation.run(6_370)
    simulation.servers["e0"].mean = 0.010
    simulation.run(6 * 637)
    assert simulation.run(637)["e0"] >= 32


def test_waiting_behind_others_is_not_held_against_an_endpoint():
    now = [0.0]
    made = balancer("least_estimated_delay")
    made.bind(lambda: now[0], Random(1))
    made.update([Member("a")])
    for _ in range(20):
        queue = [made.pick() for _ in range(10)]
        for pick in queue:  # one at a time, 10 ms each: the last one waits for 100 ms
            now[0] += 0.010
            pick.close(Verdict.OK)
    books = made.snapshot()["a"]
    assert (books["cost"], books["latency"] > 0.03) == (pytest.approx(0.010), True)


def test_shares_follow_weights_under_load():
    for name in ["random", "weighted_round_robin", "least_connections"]:
        made = balancer(name)
        simulation = ServiceSimulation([made], strategies.servers(None), rate=20_000.0, seed=3)
        simulation.update([Member(f"e{i}", weight=3.0 if i < 5 else 1.0) for i in range(10)])
        picked = simulation.run(20_000)
        heavy = sum(picked[f"e{i}"] for i in range(5)) / 20_000
        assert (name, heavy) == (name, pytest.approx(0.75, abs=0.02))


def test_a_batch_counts_as_its_messages():
    made = LeastConnections()
    made.bind(lambda: 0.0, Random(1))
    made.update([Member("a"), Member("b")])
    first = made.pick(100).endpoint
    others = {made.pick().endpoint for _ in range(99)}
    assert others == {"a", "b"} - {first}


def test_after_a_failure_the_rest_share_alike():
    made = RoundRobin()
    made.bind(lambda: 0.0, Random(1))
    made.update([Member(name) for name in "abcde"])
    assert Counter(made.pick(exclude={"b"}).endpoint for _ in range(400)) == {"a": 100, "c": 100, "d": 100, "e": 100}


def test_a_changing_view_does_not_favour_the_first():
    made = RoundRobin()
    made.bind(lambda: 0.0, Random(1))
    members = [Member(name) for name in "abcd"]
    picked = Counter()
    for _ in range(400):
        made.update(members)
        picked[made.pick().endpoint] += 1
    assert picked == dict.fromkeys("abcd", 100)


def test_many_senders_do_not_start_at_the_same_endpoint():
    def first(name, seed):
        made = balancer(name)
        made.bind(lambda: 0.0, Random(seed))
        made.update([Member(f"e{i}") for i in range(10)])
        return made.pick().endpoint

    for name in ["round_robin", "weighted_round_robin", *LOAD_AWARE]:
        starts = Counter(first(name, seed) for seed in range(500))
        assert (name, len(starts), max(starts.values()) <= 90) == (name, 10, True)


def test_slow_start_thins_out_turns_as_well():
    made = SlowStart(RoundRobin())
    made.bind(lambda: 0.0, Random(1))
    made.update([*(Member(f"e{i}") for i in range(9)), Member("back", warm=0.25)])
    picked = Counter(made.pick().endpoint for _ in range(9_250))
    # Nothing is closed: it gets its part of the lots as long as it holds no more than its part.
    assert picked["back"] == pytest.approx(250, abs=50)
    made.update([Member("back", warm=0.25)])
    assert made.pick().endpoint == "back"
    made.update([*(Member(f"e{i}") for i in range(9)), Member("back")])
    assert Counter(made.pick().endpoint for _ in range(1_000)) == {**{f"e{i}": 100 for i in range(9)}, "back": 100}


# --- consistent hashing -------------------------------------------------------------------------------------------


def ring(names, bound=None):
    made = ConsistentHash(bound)
    made.bind(lambda: 0.0, Random(1))
    made.update([Member(name) for name in names])
    return made


KEYS = [b"key-%d" % number for number in range(2_000)]
NAMES = [f"10.0.0.{i}:7000" for i in range(10)]
PINNED = [NAMES[i] for i in (9, 9, 8, 6, 6, 9)]


def homes(made):
    found = {}
    for key in KEYS:
        pick = made.pick(key=key)
        found[key] = pick.endpoint
        pick.close(Verdict.OK)
    return found


def test_all_senders_agree_on_a_key():
    assert homes(ring(NAMES)) == homes(ring(reversed(NAMES)))
    # Pinned: another version must not move keys either.
    assert [homes(ring(NAMES))[b"key-%d" % number] for number in range(6)] == PINNED


def test_only_the_keys_of_one_that_leaves_move():
    before = homes(ring(NAMES))
    after = homes(ring(NAMES[1:]))
    assert {key for key in KEYS if before[key] != after[key]} == {key for key in KEYS if before[key] == NAMES[0]}


def test_more_weight_only_takes_keys():
    made = ring(NAMES)
    before = homes(made)
    made.update([Member(name, 2.0 if name == NAMES[0] else 1.0) for name in NAMES])
    after = homes(made)
    assert {after[key] for key in KEYS if before[key] != after[key]} == {NAMES[0]}


def test_shares_of_keys_are_about_equal():
    counts = Counter(homes(ring(NAMES)).values())
    assert max(counts.values()) <= 1.35 * len(KEYS) / len(NAMES)


@pytest.mark.parametrize("bound", [1.1, 1.25, 2.0])
def test_a_hot_key_is_bounded(bound):
    made = ring(NAMES, bound)
    for _ in range(100):
        made.pick(key=b"hot")
    assert max(each["in_flight"] for each in made.snapshot().values()) <= math.ceil(bound * 100 / 10)


def test_without_a_bound_a_hot_key_stays():
    made = ring(NAMES)
    assert len({made.pick(key=b"hot").endpoint for _ in range(100)}) == 1


def test_an_endpoint_that_fails_is_passed_over_for_a_while():
    made = ring(NAMES, 1.25)
    pick = made.pick(key=b"k")
    pick.close(Verdict.ERROR)
    assert made.pick(key=b"k").endpoint != pick.endpoint


def test_weights_that_ask_for_too_large_a_ring_are_refused():
    made = ring(NAMES)
    with pytest.raises(ConfigError, match="only their ratios count"):
        made.update([Member("a", 1e6)])


# --- the model itself ---------------------------------------------------------------------------------------------


def test_the_model_agrees_with_theory():
    # Random splitting of Poisson arrivals makes ten M/M/1 queues, whose times are exponential of mean 1 / (100 − 70) s.
    times = []
    for seed in range(4):
        simulation = strategies.scenario("H", "random", seed=seed)
        simulation.run(25_000)
        times.extend(simulation.latencies[2_500:])
    times.sort()
    assert times[len(times) // 2] == pytest.approx(math.log(2) / 30, rel=0.06)
    assert times[len(times) * 99 // 100] == pytest.approx(math.log(100) / 30, rel=0.12)


def test_the_same_seed_gives_the_same_run():
    def run(seed):
        simulation = strategies.scenario("S1", "peak_ewma", seed=seed)
        return simulation.run(2_000), simulation.latencies

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_everything_that_was_picked_is_closed():
    made = LeastConnections()
    simulation = ServiceSimulation([made], {f"e{i}": Server(workers=3) for i in range(4)}, rate=1_000.0)
    simulation.servers["e1"].fault = Fault.FAILING
    simulation.servers["e2"].fault = Fault.SILENT
    picked = simulation.run(3_000)
    simulation.drain()
    assert simulation.failed == picked["e1"]
    assert len(simulation.latencies) == 3_000 - picked["e2"]
    in_flight = {name: books["in_flight"] for name, books in made.snapshot().items()}
    assert in_flight == {"e0": 0, "e1": 0, "e2": picked["e2"], "e3": 0}


def test_a_scenario_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="no scenario 'S3'"):
        strategies.scenario("S3", "random")
    with pytest.raises(ConfigError, match="rate"):
        ServiceSimulation([LeastConnections()], strategies.servers(), rate=0)
    with pytest.raises(ConfigError, match="at least one"):
        ServiceSimulation([], strategies.servers(), rate=1)
