"""Least estimated delay: where a message would be done first, by what each endpoint takes per message in its queue."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from math import exp
from typing import ClassVar

from simlink.balancing.balancer import NOBODY, Balancer, median
from simlink.balancing.pick import EndpointLoad, Pick

_ALPHA = 0.1
"""The weight of a new sample."""

_TAU = 5.0
"""Seconds in which what is held against an idle endpoint fades to 1/e."""

_TICK = 0.1
"""Seconds between looks at who is idle."""

_BLIND = 0.001
"""Seconds per message, as long as nothing is known of any endpoint."""

_NOISE = 0.02
"""Estimates differ by at most this at random, so that many senders with the same view do not choose alike."""

_SCAN = 32
"""Up to so many endpoints all are compared, above it three of them."""


class LeastEstimatedDelay(Balancer):
    """The endpoint with the least (in flight + 1) × m / weight, m being what it takes for one message in its queue.

    ::

        m ← m + 0.1·(rtt / messages ahead when it was sent − m)

    A message that waited behind many is not held against the endpoint, so what is estimated is its speed and not the
    load that this sender has put on it. An endpoint without anything in flight drifts to the median of all with a time
    constant of 5 s, so that a slow one is tried again. A failed pick counts as one of a second at least. All are
    compared up to 32 endpoints, three random ones above.
    """

    name: ClassVar[str] = "least_estimated_delay"
    keyed: ClassVar[bool] = False
    _learns: ClassVar[bool] = True

    def _forget(self) -> None:
        super()._forget()
        self._tick = 0.0
        self._blind = True
        self._size = 0

    def _arrange(self) -> None:
        self._uniform = self._random.random
        self._size = len(self._ready)

    def _join(self, load: EndpointLoad, others: Sequence[EndpointLoad]) -> None:
        super()._join(load, others)
        load.cost = median(other.cost for other in others) or _BLIND

    def pick(self, count: int = 1, key: bytes | None = None, exclude: AbstractSet[str] = NOBODY) -> Pick:
        now = self._clock()
        if now >= self._tick:
            self._drift(now)
        size = self._size
        if exclude or count < 1 or not size:
            return super().pick(count, key, exclude)
        uniform = self._uniform
        ready = self._ready if size <= _SCAN else self._three(self._ready)
        costs = [(load.in_flight + 1) * load.cost * (1 + _NOISE * uniform()) / load.weight for load in ready]
        load = ready[costs.index(min(costs))]
        load.in_flight = ahead = load.in_flight + count
        load.picks += count
        return Pick(load, now, count, count, ahead)

    def choose(self, endpoints: Sequence[EndpointLoad], key: bytes | None) -> EndpointLoad:
        if len(endpoints) > _SCAN:
            endpoints = self._three(endpoints)
        uniform = self._uniform
        costs = [(load.in_flight + 1) * load.cost * (1 + _NOISE * uniform()) / load.weight for load in endpoints]
        return endpoints[costs.index(min(costs))]

    def _three(self, endpoints: Sequence[EndpointLoad]) -> Sequence[EndpointLoad]:
        """Three different ones at random; `random.sample` takes several times as long."""
        uniform, size = self._uniform, len(endpoints)
        first = int(uniform() * size)
        second = int(uniform() * (size - 1))
        third = int(uniform() * (size - 2))
        if second >= first:
            second += 1
            low, high = first, second
        else:
            low, high = second, first
        if third >= low:
            third += 1
            if third >= high:
                third += 1
        return endpoints[first], endpoints[second], endpoints[third]

    def _drift(self, now: float) -> None:
        ready = self._ready
        middle = median(load.cost for load in ready)
        share = 1 - exp(-max(now - self._tick + _TICK, _TICK) / _TAU) if self._tick else 0.0
        for load in ready:
            if not load.in_flight:
                load.cost += share * (middle - load.cost)
        self._tick = now + _TICK

    def _learn(self, pick: Pick, elapsed: float, failed: bool) -> None:
        load = pick.load
        sample = elapsed / pick.ahead
        if self._blind and not failed:
            # The first thing that is known of any is the best guess for all of which nothing is.
            self._blind = False
            for other in self._ready:
                if other.cost == _BLIND:
                    other.cost = sample
        load.cost += _ALPHA * (sample - load.cost)

    def _cost(self, load: EndpointLoad) -> float:
        return (load.in_flight + 1) * load.cost / load.weight
