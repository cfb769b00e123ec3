"""The questions a balancing strategy is judged by, in virtual time; they can be put to one of your own as well.

::

    from simlink.testing import strategies

    strategies.tail("S1", MyBalancer)          # seconds: 10 endpoints, one of them ten times slower
    strategies.swallowed(MyBalancer)           # messages lost in an endpoint that went silent, until it is found out

All use 10 endpoints with exponential service of 10 ms unless they say otherwise, and give the same answer for the same
seed. A strategy is given as `simlink.balancing.registry.balancer` takes it: a name, a class, or a callable without
arguments that makes a new balancer at each call.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from random import Random

from simlink.balancing.balancer import Balancer
from simlink.balancing.member import Member
from simlink.balancing.pick import Verdict
from simlink.balancing.registry import balancer
from simlink.balancing.slow_start import SlowStart
from simlink.errors import ConfigError, did_you_mean
from simlink.testing.service import Fault, Server, ServiceSimulation

ENDPOINTS = 10
RATE = 637.0
"""Requests per second: 70 % of what nine endpoints of 10 ms and one of 100 ms can serve."""

DETECTION = 407
"""Requests that arrive in about the 650 ms that it takes to find out that an endpoint is dead."""

SLOW = "e0"

Strategy = str | type | Callable[[], Balancer]


def make(strategy: Strategy) -> Balancer:
    """A new, unbound balancer of that strategy."""
    if isinstance(strategy, str | type):
        return balancer(strategy)
    return strategy()


def servers(workers: int | None = 1, *, slower: float = 1.0) -> dict[str, Server]:
    """Ten endpoints ``e0`` … ``e9`` of 10 ms, the first of them so many times slower."""
    return {f"e{i}": Server(0.010 * (slower if i == 0 else 1.0), workers) for i in range(ENDPOINTS)}


_SCENARIOS: dict[str, tuple[int | None, float, float, int]] = {
    # workers, how much slower e0 is, requests per second, clients
    "H": (1, 1.0, 700.0, 1),
    "S1": (1, 10.0, RATE, 1),
    "S2": (None, 10.0, RATE, 1),
    "C20": (1, 10.0, RATE, 20),
}


def scenario(name: str, strategy: Strategy, *, seed: int = 0) -> ServiceSimulation:
    """A simulation that is ready to run.

    ``H``: all alike, 70 % loaded. ``S1``: one of ten is ten times slower, each serves one request at a time. ``S2``:
    the same, but everybody serves any number at once, so the slow one only delays. ``C20``: S1, and the requests come
    from 20 clients, each with a balancer of its own.

    Raises:
        ConfigError: no scenario has that name.
    """
    if name not in _SCENARIOS:
        raise ConfigError(f"no scenario {name!r}{did_you_mean(name, _SCENARIOS)}")
    workers, slower, rate, clients = _SCENARIOS[name]
    return ServiceSimulation(
        [make(strategy) for _ in range(clients)], servers(workers, slower=slower), rate=rate, seed=seed
    )


def tail(
    name: str, strategy: Strategy, *, share: float = 0.99, requests: int = 100_000, seeds: Sequence[int] = range(5)
) -> float:
    """The latency in seconds that this share of a scenario's requests stays below: the median over the seeds.

    The first twentieth of each run is left out: the queues start empty.
    """
    found = []
    for seed in seeds:
        simulation = scenario(name, strategy, seed=seed)
        simulation.run(requests)
        found.append(simulation.quantile(share, skip=requests // 20))
    return statistics.median(found)


def shares(name: str, strategy: Strategy, *, requests: int = 100_000, seed: int = 0) -> dict[str, float]:
    """Endpoint → its share of a scenario's requests."""
    simulation = scenario(name, strategy, seed=seed)
    simulation.run(requests)
    return {endpoint: simulation.picked[endpoint] / requests for endpoint in simulation.servers}


def chi_square(strategy: Strategy, *, picks: int = 100_000, seed: int = 0) -> float:
    """χ² of the endpoints' shares in scenario H against equal ones, with 9 degrees of freedom."""
    expected = picks / ENDPOINTS
    return sum((share * picks - expected) ** 2 / expected for share in _even(strategy, picks, seed))


def imbalance(strategy: Strategy, *, picks: int = 100_000, seed: int = 0) -> float:
    """The fullest endpoint's share in scenario H, as a multiple of the mean."""
    return max(_even(strategy, picks, seed)) * ENDPOINTS


def spread(strategy: Strategy, *, picks: int = 100_000, seed: int = 0) -> int:
    """Picks that the endpoint with the most has more than the one with the least, in scenario H."""
    even = _even(strategy, picks, seed)
    return round((max(even) - min(even)) * picks)


def _even(strategy: Strategy, picks: int, seed: int) -> list[float]:
    return list(shares("H", strategy, requests=picks, seed=seed).values())


def drift(strategy: Strategy, weights: Sequence[float], *, picks: int = 10_000, seed: int = 0) -> float:
    """How far any endpoint is from its exact share by weight after any number of picks, in picks, at most."""
    chosen = make(strategy)
    chosen.bind(lambda: 0.0, Random(seed))
    chosen.update([Member(f"e{i}", weight) for i, weight in enumerate(weights)])
    total = sum(weights)
    due = {f"e{i}": weight / total for i, weight in enumerate(weights)}
    had = dict.fromkeys(due, 0)
    worst = 0.0
    for number in range(1, picks + 1):
        pick = chosen.pick()
        pick.close(Verdict.OK)
        had[pick.endpoint] += 1
        worst = max(worst, *(abs(number * share - had[name]) for name, share in due.items()))
    return worst


def swallowed(strategy: Strategy, fault: Fault = Fault.SILENT, *, seeds: Sequence[int] = range(20)) -> float:
    """Requests that go to an endpoint from when it breaks until it is found out: the mean over the seeds.

    All ten serve alike before; e3 then goes silent, or fails every request within a millisecond. It is found out after
    407 requests, about 650 ms.
    """
    found = []
    for seed in seeds:
        simulation = ServiceSimulation([make(strategy)], servers(), rate=RATE, seed=seed)
        simulation.run(2_000)
        simulation.servers["e3"].fault = fault
        found.append(simulation.run(DETECTION)["e3"])
    return statistics.mean(found)


def rejoin(strategy: Strategy, *, warm: float = 0.1, seeds: Sequence[int] = range(20)) -> float:
    """The share of the next 100 requests (100 ms) that goes to an endpoint which comes back empty: mean of the seeds.

    Nine others hold 1,000 calls of a second each. ``warm`` is where slow start begins; 1.0: without slow start.
    """
    found = []
    names = [f"e{i}" for i in range(ENDPOINTS)]
    for seed in seeds:
        calls: dict[str, Server] = {name: Server(1.0, None, constant=True) for name in names}
        simulation = ServiceSimulation([SlowStart(make(strategy))], calls, rate=1_000.0, seed=seed)
        simulation.update([Member(name) for name in names[:-1]])
        simulation.run(3_000)
        simulation.update([*(Member(name) for name in names[:-1]), Member(names[-1], warm=warm)])
        found.append(simulation.run(100)[names[-1]] / 100)
    return statistics.mean(found)
