"""Smooth weighted round robin: everybody in turn, larger ones more often, and never in bursts."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from operator import add
from typing import ClassVar

from simlink.balancing.balancer import NOBODY, Balancer
from simlink.balancing.pick import EndpointLoad, Pick


class WeightedRoundRobin(Balancer):
    """Turns in proportion to the weights, spread out: 5 : 1 : 1 gives a a b a c a a, not five a in a row.

    The rule is nginx's smooth weighted round robin: every endpoint's credit grows by its weight, the one with the most
    is picked and pays the sum of the weights. Credits start at random fractions of a turn, so that many senders do not
    move in step. A batch pays for its messages.
    """

    name: ClassVar[str] = "weighted_round_robin"
    keyed: ClassVar[bool] = False
    _exact: ClassVar[bool] = True

    def _forget(self) -> None:
        super()._forget()
        self._credits: list[float] = []
        self._listed: Sequence[EndpointLoad] = ()
        self._weights: list[float] = []
        self._total = 0.0

    def _arrange(self) -> None:
        ready = self._ready
        before = {id(load): credit for load, credit in zip(self._listed, self._credits, strict=True)}
        stay = [before[id(load)] for load in ready if id(load) in before]
        # Whoever left took its credit along: level the others, or a new one would be far above or below them.
        level = sum(stay) / len(stay) if stay else 0.0
        credits = []
        for place, load in enumerate(ready):
            load.index = place
            known = before.get(id(load))
            credits.append((self._random.random() - 0.5) * load.weight if known is None else known - level)
        self._listed = ready
        self._credits = credits
        self._weights = [load.weight for load in ready]
        self._total = sum(self._weights)

    def pick(self, count: int = 1, key: bytes | None = None, exclude: AbstractSet[str] = NOBODY) -> Pick:
        if exclude or count < 1 or not self._credits:
            return self._take(self._turn(self._offered(count, exclude), count), count)
        gain = self._weights if count == 1 else [weight * count for weight in self._weights]
        self._credits = credits = list(map(add, self._credits, gain))
        place = credits.index(max(credits))
        credits[place] -= self._total * count
        load = self._ready[place]
        load.in_flight += count
        load.picks += count
        clock = self._clock
        return Pick(load, clock(), count, count)

    def choose(self, endpoints: Sequence[EndpointLoad], key: bytes | None) -> EndpointLoad:
        return self._turn(endpoints, 1)

    def _turn(self, endpoints: Sequence[EndpointLoad], count: int) -> EndpointLoad:
        """The same among some: only they gain, and only their weights are paid."""
        credits = self._credits
        for load in endpoints:
            credits[load.index] += load.weight * count
        chosen = max(endpoints, key=lambda load: credits[load.index])
        credits[chosen.index] -= sum(load.weight for load in endpoints) * count
        return chosen

    def _cost(self, load: EndpointLoad) -> float:
        return -self._credits[load.index]
