"""Peak EWMA: the lesser of two random endpoints by a latency that believes bad news at once and good news slowly."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from math import exp
from typing import ClassVar

from simlink.balancing.balancer import NOBODY, Balancer, median, two
from simlink.balancing.pick import EndpointLoad, Pick
from simlink.errors import ConfigError

_UNKNOWN = 1e6
"""Seconds that an endpoint counts as taking which has its first messages in flight and has settled none yet."""


_FAR = 700.0
"""The exponent beyond which a float overflows, or nearly."""


class PeakEwma(Balancer):
    """Takes of two random endpoints the one with the lesser latency × (in flight + 1) / weight.

    The latency is an exponentially weighted mean over time that jumps to a sample above it (Finagle's rule)::

        c ← rtt                              if rtt > c
        c ← c·w + rtt·(1 − w), w = e^(−Δt/τ)  otherwise

    and falls towards zero while nothing is heard, so that a slow endpoint is tried again. A failed pick counts as one
    of a second at least.

    Args:
        tau: τ in seconds, how long bad news lasts; by default 10.

    Raises:
        ConfigError: ``tau`` is not above 0.
    """

    name: ClassVar[str] = "peak_ewma"
    keyed: ClassVar[bool] = False
    _learns: ClassVar[bool] = True

    def __init__(self, tau: float = 10.0) -> None:
        if not tau > 0:
            raise ConfigError(f"peak_ewma: tau is {tau!r}; give seconds above 0")
        self.tau = tau
        self._pace = -1 / tau

    def _forget(self) -> None:
        super()._forget()
        self._size = 0

    def _arrange(self) -> None:
        self._size = len(self._ready)
        self._uniform = self._random.random

    def _join(self, load: EndpointLoad, others: Sequence[EndpointLoad]) -> None:
        super()._join(load, others)
        now = self._clock()
        load.cost = median(self._estimate(other, now) for other in others if other.cost)
        load.stamp = now

    def pick(self, count: int = 1, key: bytes | None = None, exclude: AbstractSet[str] = NOBODY) -> Pick:
        size = self._size
        if exclude or count < 1 or size < 2:
            return super().pick(count, key, exclude)
        uniform = self._uniform
        first = int(uniform() * size)
        second = int(uniform() * (size - 1))
        if second >= first:
            second += 1
        ready = self._ready
        load = ready[first]
        other = ready[second]
        now = self._clock()
        if load.cost and other.cost:
            pace = self._pace
            # One exponential instead of two: both sides are multiplied by the same factor.
            ahead = exp(min((other.stamp - load.stamp) * pace, _FAR))
            mine = load.cost * (load.in_flight + 1) * other.weight * ahead
            if other.cost * (other.in_flight + 1) * load.weight < mine:
                load = other
        elif self._weigh(other, now) < self._weigh(load, now):
            load = other
        load.in_flight += count
        load.picks += count
        return Pick(load, now, count, count)

    def choose(self, endpoints: Sequence[EndpointLoad], key: bytes | None) -> EndpointLoad:
        load, other = two(endpoints, self._uniform)
        now = self._clock()
        return other if self._weigh(other, now) < self._weigh(load, now) else load

    def _estimate(self, load: EndpointLoad, now: float) -> float:
        return load.cost * exp((now - load.stamp) * self._pace)

    def _weigh(self, load: EndpointLoad, now: float) -> float:
        if not load.cost:
            return (_UNKNOWN + load.in_flight) / load.weight if load.in_flight else 0.0
        return self._estimate(load, now) * (load.in_flight + 1) / load.weight

    def _learn(self, pick: Pick, elapsed: float, failed: bool) -> None:
        load = pick.load
        now = self._clock()
        known = load.cost
        if elapsed < known:
            keep = exp((now - load.stamp) * self._pace)
            elapsed += (known - elapsed) * keep
        load.cost = elapsed
        load.stamp = now

    def _cost(self, load: EndpointLoad) -> float:
        return self._weigh(load, self._clock())
