"""Endpoints that serve in virtual time, for real balancers: a queueing model on an event heap.

Nothing waits and nothing reads a clock: 100,000 requests take about a second, and the same seed gives the same run. The
model has requests (Poisson), endpoints with exponential service, and faults that can be set between two calls of `run`:
what a balancer makes of them is the balancer's own code.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from heapq import heappop, heappush
from random import Random

from simlink.balancing.balancer import Balancer
from simlink.balancing.member import Member
from simlink.balancing.pick import Pick, Verdict
from simlink.errors import ConfigError

FAILURE = 0.001
"""Seconds in which a `Fault.FAILING` endpoint fails a request."""


class Fault(Enum):
    """What is wrong with an endpoint: nothing, it never answers, or it answers every request with an error at once."""

    NONE = "none"
    SILENT = "silent"
    FAILING = "failing"


@dataclass
class Server:
    """How one endpoint serves.

    Args:
        mean: seconds of exponential service.
        workers: how many requests are served at once, in order of arrival; None: all at once (delay only).
        fault: may be changed between two runs.
        constant: service always takes exactly ``mean``.
    """

    mean: float = 0.010
    workers: int | None = 1
    fault: Fault = Fault.NONE
    constant: bool = False
    _free: list[float] = field(default_factory=list)

    def finish(self, now: float, random: Random) -> float:
        """When a request that arrives now is done."""
        needs = self.mean if self.constant else random.expovariate(1 / self.mean)
        if self.workers is None:
            return now + needs
        start = now if len(self._free) < self.workers else max(now, heappop(self._free))
        heappush(self._free, start + needs)
        return start + needs


class ServiceSimulation:
    """Requests that real balancers spread over simulated endpoints.

    Args:
        balancers: one per client; each request belongs to a random one of them, and clients know nothing of each other.
            They are bound and given their members here.
        servers: endpoint → how it serves.
        rate: requests per second, all clients together.
        seed: of everything: arrivals, service times, and the balancers' random sources.

    Attributes:
        now: virtual seconds.
        latencies: arrival → done in seconds, per request that was or will be done, in order of arrival.
        picked: endpoint → requests sent to it.
        failed: requests that ended with an error.
    """

    def __init__(
        self, balancers: Sequence[Balancer], servers: Mapping[str, Server], *, rate: float, seed: int = 0
    ) -> None:
        if not balancers:
            raise ConfigError("a simulation needs at least one balancer")
        if not rate > 0:
            raise ConfigError(f"rate is {rate!r}; give requests per second above 0")
        self.now = 0.0
        self.latencies = array("d")
        self.picked: Counter[str] = Counter()
        self.failed = 0
        self.servers = dict(servers)
        self._balancers = list(balancers)
        self._rate = rate
        self._arrivals = Random(f"{seed}/arrivals")
        self._service = {name: Random(f"{seed}/service/{name}") for name in servers}
        self._done: list[tuple[float, int, Pick, Verdict]] = []
        self._order = 0
        for index, balancer in enumerate(self._balancers):
            balancer.bind(self.clock, Random(f"{seed}/balancer/{index}"))
        self.update([Member(name) for name in servers])

    def clock(self) -> float:
        """Virtual seconds, as a balancer reads them."""
        return self.now

    def update(self, members: Sequence[Member]) -> None:
        """Tell every client who is eligible from now on."""
        for balancer in self._balancers:
            balancer.update(members)

    def run(self, requests: int) -> Counter[str]:
        """Let so many requests arrive. Returns how many of them went to each endpoint."""
        here: Counter[str] = Counter()
        balancers, servers, done = self._balancers, self.servers, self._done
        uniform, wait, rate = self._arrivals.random, self._arrivals.expovariate, self._rate
        clients = len(balancers)
        for _ in range(requests):
            at = self.now + wait(rate)
            self._settle(at)
            self.now = at
            pick = balancers[int(uniform() * clients) if clients > 1 else 0].pick()
            name = pick.endpoint
            here[name] += 1
            server = servers[name]
            verdict = Verdict.OK
            if server.fault is Fault.SILENT:
                continue
            if server.fault is Fault.FAILING:
                finish, verdict = at + FAILURE, Verdict.ERROR
            else:
                finish = server.finish(at, self._service[name])
            self.latencies.append(finish - at)
            self._order += 1
            heappush(done, (finish, self._order, pick, verdict))
        self.picked.update(here)
        return here

    def _settle(self, until: float) -> None:
        done = self._done
        while done and done[0][0] <= until:
            self.now, _, pick, verdict = heappop(done)
            pick.close(verdict)
            self.failed += verdict is not Verdict.OK

    def drain(self) -> None:
        """Let everything that will ever be done be done."""
        self._settle(float("inf"))

    def quantile(self, share: float, *, skip: int = 0) -> float:
        """The latency in seconds that this share of the requests stayed below, the first ``skip`` of them left out."""
        ordered = sorted(self.latencies[skip:])
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
