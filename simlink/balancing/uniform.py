"""Random: everybody with equal chances, or by weight."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import accumulate
from typing import ClassVar

from simlink.balancing.balancer import NOBODY, Balancer
from simlink.balancing.pick import EndpointLoad, Pick


class Random(Balancer):
    """A random endpoint, in proportion to the weights.

    Needs no agreement between senders and has no rhythm that another could fall in step with, but queues get longer
    than by turns: the fullest of n endpoints holds about ln n / ln ln n times its share.
    """

    name: ClassVar[str] = "random"
    keyed: ClassVar[bool] = False
    _exact: ClassVar[bool] = True

    def _forget(self) -> None:
        super()._forget()
        self._size = 0

    def _arrange(self) -> None:
        # Zero where the quick way, equal chances, does not do.
        self._size = len(self._ready) if len({load.weight for load in self._ready}) == 1 else 0
        self._uniform = self._random.random

    def pick(self, count: int = 1, key: bytes | None = None, exclude: AbstractSet[str] = NOBODY) -> Pick:
        size = self._size
        if exclude or count < 1 or not size:
            return super().pick(count, key, exclude)
        load = self._ready[int(self._uniform() * size)]
        load.in_flight += count
        load.picks += count
        clock = self._clock
        return Pick(load, clock(), count, count)

    def choose(self, endpoints: Sequence[EndpointLoad], key: bytes | None) -> EndpointLoad:
        edges = list(accumulate(load.weight for load in endpoints))
        return endpoints[min(bisect(edges, self._uniform() * edges[-1]), len(endpoints) - 1)]
