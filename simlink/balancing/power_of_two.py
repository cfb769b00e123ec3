"""Power of two choices: the less loaded of two random endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import ClassVar

from simlink.balancing.balancer import NOBODY, Balancer, burden, two
from simlink.balancing.pick import EndpointLoad, Pick


class PowerOfTwoChoices(Balancer):
    """Draws two different endpoints and takes the one with the lesser (in flight + 1) / weight.

    The cost of a pick does not grow with the number of endpoints, and many senders that do not know of each other do
    not all run to the same one. The two are distinct: drawn with replacement, the busier of two endpoints still gets a
    quarter. Each message of a failed pick counts as 8 in flight for a second.
    """

    name: ClassVar[str] = "power_of_two"
    keyed: ClassVar[bool] = False

    def _forget(self) -> None:
        super()._forget()
        self._size = 0

    def _arrange(self) -> None:
        # Zero where the quick way, equal weights, does not do.
        self._size = len(self._ready) if len({load.weight for load in self._ready}) == 1 else 0
        self._uniform = self._random.random

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
        if other.in_flight < load.in_flight:
            load, other = other, load
        # Has the other failed of late, it is only the worse for it: its books need no second look.
        if load.penalty and burden(other) < burden(load):
            load = other
        load.in_flight += count
        load.picks += count
        clock = self._clock
        return Pick(load, clock(), count, count)

    def choose(self, endpoints: Sequence[EndpointLoad], key: bytes | None) -> EndpointLoad:
        load, other = two(endpoints, self._uniform)
        return other if self._cost(other) < self._cost(load) else load

    def _cost(self, load: EndpointLoad) -> float:
        return (burden(load) + 1) / load.weight
