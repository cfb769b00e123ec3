"""Slow start: whoever has just come back gets a small share first, and its full share only after a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from random import Random as RandomSource
from typing import ClassVar, Self

from simlink.balancing.balancer import NOBODY, Balancer, burden
from simlink.balancing.member import Member
from simlink.balancing.pick import EndpointLoad, Pick
from simlink.errors import ConfigError


class SlowStart(Balancer):
    """Another balancer, by whose rule an endpoint that is warming up counts as smaller.

    A lot is drawn before each pick: with the probability weight × ``warm`` / Σ weight × ``warm`` it falls on a warming
    endpoint, which then gets the pick, unless it holds more than twice its part of what is in flight already. All other
    picks are the inner strategy's, among those that are warm. So the share is right whatever the load is: costs such as
    (in flight + 1) / weight would give a small endpoint nothing at all while little is in flight.

    Where weights alone decide the shares (`Random`, `WeightedRoundRobin`), and where keys do (`ConsistentHash`, a
    strategy of your own unless it says ``keyed = False``), each weight is multiplied by ``warm`` instead. How ``warm``
    grows is the health room's business.

    Args:
        inner: the balancer that chooses.

    Raises:
        ConfigError: ``inner`` is a slow start already.
    """

    name: ClassVar[str] = "slow_start"

    def __init__(self, inner: Balancer) -> None:
        if isinstance(inner, SlowStart):
            raise ConfigError("slow start around slow start would count twice; wrap the strategy once")
        self.inner = inner
        self.name = inner.name  # type: ignore[misc]  # errors name the strategy that the user has chosen
        self.keyed = inner.keyed  # type: ignore[misc]  # what the inner one goes by
        self._cold: dict[str, float] = {}

    def fresh(self) -> Self:
        twin = super().fresh()
        twin.inner = self.inner.fresh()
        twin._cold = {}
        return twin

    def bind(self, clock: Callable[[], float], random: RandomSource) -> None:
        super().bind(clock, random)
        self.inner.bind(clock, random)

    def update(self, members: Sequence[Member]) -> None:
        if self.inner.weighted and (self.inner.keyed or self.inner._exact):
            self.inner.update([Member(each.name, each.weight * each.warm) for each in members])
            return
        self.inner.update(members)
        self._cold = {each.name: each.warm for each in members if each.warm < 1}

    def choose(self, endpoints: Sequence[EndpointLoad], key: bytes | None) -> EndpointLoad:
        return self.inner.choose(endpoints, key)

    def pick(self, count: int = 1, key: bytes | None = None, exclude: AbstractSet[str] = NOBODY) -> Pick:
        cold = self._cold
        if not cold:
            return self.inner.pick(count, key, exclude)
        offered = self.inner._offered(count, exclude)
        parts = [load.weight * cold.get(load.name, 1.0) for load in offered]
        lot = self._random.random() * sum(parts)
        warming = {load.name for load in offered if load.name in cold}
        for load, part in zip(offered, parts, strict=True):
            if load.name in cold:
                lot -= part
                if lot < 0:
                    if _has_room(load, part, offered, parts):
                        return self.inner._take(load, count)
                    break
        if len(warming) == len(offered):
            return self.inner.pick(count, key, exclude)
        return self.inner.pick(count, key, exclude | warming)

    def plan(self, key: bytes | None = None) -> Iterator[str]:
        return self.inner.plan(key)

    def snapshot(self) -> Mapping[str, Mapping[str, float]]:
        return self.inner.snapshot()

    def __repr__(self) -> str:
        return f"SlowStart({self.inner!r})"


def _has_room(load: EndpointLoad, part: float, offered: Sequence[EndpointLoad], parts: Sequence[float]) -> bool:
    """Whether it has nothing in flight, or at most twice its part: queues vary. What has just failed counts as full."""
    held = burden(load)
    return not held or held * sum(parts) <= 2 * part * sum(each.in_flight for each in offered)
