"""Slow start: whoever has just come back gets a small share first, and its full share only after a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from random import Random as RandomSource
from typing import ClassVar, Self

from simlink.balancing.balancer import NOBODY, Balancer
from simlink.balancing.member import Member
from simlink.balancing.pick import EndpointLoad, Pick
from simlink.errors import ConfigError


class SlowStart(Balancer):
    """Another balancer, by whose rule an endpoint that is warming up counts as smaller.

    Where the inner strategy follows weights, each weight is multiplied by the member's ``warm``. Where it does not
    (`RoundRobin`), a pick of a warming endpoint stands with the probability ``warm``, and is made anew among the others
    otherwise. How ``warm`` grows is the health room's business.

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
        if self.inner.weighted:
            self.inner.update([Member(each.name, each.weight * each.warm) for each in members])
            return
        self.inner.update(members)
        self._cold = {each.name: each.warm for each in members if each.warm < 1}

    def choose(self, endpoints: Sequence[EndpointLoad], key: bytes | None) -> EndpointLoad:
        return self.inner.choose(endpoints, key)

    def pick(self, count: int = 1, key: bytes | None = None, exclude: AbstractSet[str] = NOBODY) -> Pick:
        if not self._cold:
            return self.inner.pick(count, key, exclude)
        offered = self.inner._offered(count, exclude)
        # Each warming endpoint draws whether it takes part this time; if nobody is left, all do.
        drawn = self._random.random
        out = {load.name for load in offered if drawn() >= self._cold.get(load.name, 1.0)}
        if len(out) == len(offered):
            return self.inner.pick(count, key, exclude)
        return self.inner.pick(count, key, exclude | out)

    def plan(self, key: bytes | None = None) -> Iterator[str]:
        return self.inner.plan(key)

    def snapshot(self) -> Mapping[str, Mapping[str, float]]:
        return self.inner.snapshot()

    def __repr__(self) -> str:
        return f"SlowStart({self.inner!r})"
