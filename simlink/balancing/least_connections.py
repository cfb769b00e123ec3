"""Least connections: whoever has the least in flight."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from operator import add, truediv
from typing import ClassVar

from simlink.balancing.balancer import NOBODY, Balancer, burden
from simlink.balancing.pick import EndpointLoad, Pick

_TRIES = 64

_PLUS_ONE = partial(add, 1)


class LeastConnections(Balancer):
    """The endpoint with the fewest messages in flight; by weights, the least (in flight + 1) / weight. Ties at random.

    What is in flight is known at once and without measuring, so it adapts to slow and to silent endpoints within a few
    messages; the default. Each message of a failed pick counts as 8 in flight for a second, or an endpoint that fails
    fast, and so never has anything in flight, would attract everything.
    """

    name: ClassVar[str] = "least_connections"
    keyed: ClassVar[bool] = False

    def _forget(self) -> None:
        super()._forget()
        self._board: list[int] = []
        self._weights: list[float] | None = None

    def _arrange(self) -> None:
        ready = self._ready
        self._board = board = [load.in_flight for load in ready]
        for place, load in enumerate(ready):
            load.board = board
            load.index = place
        # Equal weights need no dividing: the board itself is what is compared.
        self._weights = [load.weight for load in ready] if len({load.weight for load in ready}) > 1 else None
        self._uniform = self._random.random

    def pick(self, count: int = 1, key: bytes | None = None, exclude: AbstractSet[str] = NOBODY) -> Pick:
        board = self._board
        if exclude or count < 1 or not board:
            return super().pick(count, key, exclude)
        weights = self._weights
        costs = board if weights is None else list(map(truediv, map(_PLUS_ONE, board), weights))
        least = min(costs)
        place = costs.index(least)
        ties = costs.count(least)
        if ties > 1:
            place = self._tie(costs, least, place, ties)
        load = self._ready[place]
        if load.penalty and burden(load) > load.in_flight:
            # It has just failed: compare anew, with what that counts for.
            return super().pick(count, key, exclude)
        board[place] += count
        load.in_flight = ahead = load.in_flight + count
        load.picks += count
        clock = self._clock
        return Pick(load, clock(), count, count, ahead)

    def _tie(self, costs: Sequence[float], least: float, place: int, ties: int) -> int:
        """The place of one of those with the least, with equal chances."""
        uniform = self._uniform
        size = len(costs)
        if ties * 16 > size:
            # Where they are many, drawing until one is hit is quicker than counting them off.
            for _ in range(_TRIES):
                drawn = int(uniform() * size)
                if costs[drawn] == least:
                    return drawn
        for _ in range(int(uniform() * ties)):
            place = costs.index(least, place + 1)
        return place

    def choose(self, endpoints: Sequence[EndpointLoad], key: bytes | None) -> EndpointLoad:
        costs = [(burden(load) + 1) / load.weight for load in endpoints]
        least = min(costs)
        ties = [load for load, cost in zip(endpoints, costs, strict=True) if cost == least]
        return ties[int(self._uniform() * len(ties))] if len(ties) > 1 else ties[0]

    def _cost(self, load: EndpointLoad) -> float:
        return (burden(load) + 1) / load.weight
