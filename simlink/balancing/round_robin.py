"""Round robin: everybody in turn."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import ClassVar

from simlink.balancing.balancer import NOBODY, Balancer
from simlink.balancing.member import Member
from simlink.balancing.pick import EndpointLoad, Pick


class RoundRobin(Balancer):
    """Everybody in turn, from a random start, so that many senders do not all begin at the first endpoint.

    Shares are equal to within one pick, whatever the endpoints can do: one that is slow or silent gets as many as the
    others. Where some are excluded, the rest take turns of their own, so that the one behind a dead endpoint does not
    inherit its share.
    """

    name: ClassVar[str] = "round_robin"
    keyed: ClassVar[bool] = False
    weighted: ClassVar[bool] = False

    def _forget(self) -> None:
        super()._forget()
        self._size = 0
        self._at = 0
        self._aside = 0

    def update(self, members: Sequence[Member]) -> None:
        waiting = [*self._ready[self._at :], *self._ready[: self._at]]
        super().update(members)
        ready = self._ready
        self._size = len(ready)
        places = {load.name: place for place, load in enumerate(ready)}
        # Whoever of those that stay would have been next still is: a view that changes often favours nobody.
        stay = (places[load.name] for load in waiting if load.name in places)
        start = next(stay, None)
        if start is None and ready:
            start = self._aside = int(self._random.random() * len(ready))
        self._at = start or 0

    def pick(self, count: int = 1, key: bytes | None = None, exclude: AbstractSet[str] = NOBODY) -> Pick:
        size = self._size
        if exclude or count < 1 or not size:
            return super().pick(count, key, exclude)
        at = self._at
        self._at = (at + 1) % size
        load = self._ready[at]
        load.in_flight += count
        load.picks += count
        clock = self._clock
        return Pick(load, clock(), count, count)

    def choose(self, endpoints: Sequence[EndpointLoad], key: bytes | None) -> EndpointLoad:
        self._aside += 1
        return endpoints[self._aside % len(endpoints)]
