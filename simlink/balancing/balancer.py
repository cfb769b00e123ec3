"""The interface of a balancer, and the books that all of them keep."""

from __future__ import annotations

import copy
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from random import Random as RandomSource
from typing import ClassVar, Self

from simlink.balancing.member import Member
from simlink.balancing.pick import EndpointLoad, Pick
from simlink.errors import ConfigError, NoEndpoints, StateError

NOBODY: AbstractSet[str] = frozenset()


def _unbound() -> float:
    raise StateError("the balancer has no clock yet: call bind(clock, random) first")


class Balancer(ABC):
    """Chooses the endpoint of the next batch, and keeps the books about all of them.

    A strategy of your own is a subclass, or any class, with one method::

        class Nearest:
            def choose(self, endpoints, key):
                return min(endpoints, key=lambda endpoint: endpoint.latency)

    A balancer belongs to one channel and is used by one thread at a time; it starts no thread and does no I/O.
    """

    name: ClassVar[str] = "custom"
    """What it is called in a URL, a snapshot and an error."""

    weighted: ClassVar[bool] = True
    """Whether the strategy follows weights. Where it does not, unequal weights are refused."""

    keyed: ClassVar[bool] = True
    """Whether the choice may depend on a message's key: True for a strategy of your own, unless it says otherwise."""

    _exact: ClassVar[bool] = False
    """Whether weights alone decide the shares, and not what is in flight."""

    _learns: ClassVar[bool] = False

    _ready: list[EndpointLoad]
    _loads: dict[str, EndpointLoad]
    _clock: Callable[[], float]
    _random: RandomSource

    def __new__(cls, *_: object, **__: object) -> Self:
        # Here and not in __init__, which a user's strategy need not call.
        self = super().__new__(cls)
        self._forget()
        return self

    def _forget(self) -> None:
        self._clock = _unbound
        self._random = RandomSource(0)  # replaced by bind
        self._ready = []
        self._loads = {}
        self._bound = False

    def fresh(self) -> Self:
        """A balancer of the same configuration that knows nobody yet, for another channel or subscription."""
        twin = copy.copy(self)
        twin._forget()
        return twin

    def bind(self, clock: Callable[[], float], random: RandomSource) -> None:
        """Give it its clock (monotonic seconds) and its random source; once, before anything else.

        Raises:
            StateError: it is bound already: a balancer belongs to one channel.
        """
        if self._bound:
            raise StateError(f"balancer {self.name!r} is in use by another channel: give each its own, or its name")
        self._bound = True
        self._clock = clock
        self._random = random

    # --- who is there -----------------------------------------------------------------------------------------------

    def update(self, members: Sequence[Member]) -> None:
        """These are the endpoints that may be picked from now on.

        Those that stay keep what is known about them. One that is new, or comes back, starts at the median latency of
        the others; what is still in flight to one that comes back counts.

        Raises:
            ConfigError: a name occurs twice, or the weights differ and this strategy does not follow weights.
            StateError: the balancer is not bound yet.
        """
        if not self._bound:
            _unbound()
        names = {member.name for member in members}
        if len(names) != len(members):
            listed = [member.name for member in members]
            twice = next(name for name in listed if listed.count(name) > 1)
            raise ConfigError(
                f"endpoint {twice!r} is given twice; name each once, and give it a weight if it is larger"
            )
        if not self.weighted and len({member.weight for member in members}) > 1:
            raise ConfigError(
                f"balancer {self.name!r} gives all endpoints the same share; with weights use 'weighted_round_robin' "
                "or 'least_connections'"
            )
        before = {load.name for load in self._ready}
        for load in self._ready:
            if load.name not in names:
                self._leave(load)
        stay = [load for load in self._ready if load.name in names]
        self._ready = []
        for member in members:
            load = self._loads.get(member.name) or self._known(member.name)
            load.weight = member.weight
            if member.name not in before:
                load.penalty = 0
                self._join(load, stay)
            self._ready.append(load)
        # Whoever has left is remembered as long as something is in flight to it, and no longer.
        self._loads = {name: load for name, load in self._loads.items() if name in names or load.in_flight}
        self._arrange()

    def _known(self, name: str) -> EndpointLoad:
        load = self._loads[name] = EndpointLoad(name, 1.0, self._clock)
        load.learn = self._learn if self._learns else None
        return load

    def _join(self, load: EndpointLoad, others: Sequence[EndpointLoad]) -> None:
        """Somebody is new, or back: let it start at the median of the others."""
        load.latency = median(other.latency for other in others if other.latency)

    def _leave(self, load: EndpointLoad) -> None:
        """Somebody is not eligible any more; what it has in flight is still to be closed."""
        load.board = None

    def _arrange(self) -> None:
        """The view has changed: rebuild what is derived from ``self._ready``."""

    # --- choosing ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def choose(self, endpoints: Sequence[EndpointLoad], key: bytes | None) -> EndpointLoad:
        """One of ``endpoints`` (never empty), for messages with this key."""

    # Not keyword-only: CPython 3.11 calls functions that have such arguments on a slower path.
    def pick(self, count: int = 1, key: bytes | None = None, exclude: AbstractSet[str] = NOBODY) -> Pick:
        """Pick the endpoint of ``count`` messages, which are in flight to it from now on.

        Args:
            count: messages; a batch counts as its messages.
            key: the messages' key, which `ConsistentHash` goes by.
            exclude: names that must not be picked, such as the one that has just failed.

        Raises:
            NoEndpoints: nobody is eligible, or all that are have been excluded.
            ConfigError: a user's strategy chose an endpoint that is not there.
            ValueError: ``count`` is below 1.
        """
        offered = self._offered(count, exclude)
        return self._take(self._checked(self.choose(offered, key), offered), count)

    def plan(self, key: bytes | None = None) -> Iterator[str]:
        """The endpoints in the order in which they would be tried, each once. Nothing is in flight by it."""
        left = list(self._ready)
        while left:
            chosen = self._checked(self.choose(left, key), left)
            left.remove(chosen)
            yield chosen.name

    def _offered(self, count: int, exclude: Collection[str]) -> list[EndpointLoad]:
        if count < 1:
            raise ValueError(f"pick: count is {count}; at least one message is picked")
        ready = self._ready
        if exclude:
            ready = [load for load in ready if load.name not in exclude]
        if not ready:
            _unbound() if not self._bound else None
            there = len(self._ready)
            raise NoEndpoints(
                f"no endpoint can take a message: {f'all {there} are excluded' if there else 'none is eligible'}",
                retryable=True,
            )
        return ready

    def _checked(self, chosen: EndpointLoad, offered: Sequence[EndpointLoad]) -> EndpointLoad:
        if any(chosen is load for load in offered):
            return chosen
        what = repr(chosen.name) if isinstance(chosen, EndpointLoad) else repr(chosen)
        there = ", ".join(load.name for load in offered[:10])
        raise ConfigError(
            f"balancer {self.name!r} chose {what}, which is not there; choose must return one of the endpoints that it "
            f"is given ({there}{', …' if len(offered) > 10 else ''})"
        )

    def _take(self, load: EndpointLoad, count: int) -> Pick:
        load.in_flight = ahead = load.in_flight + count
        if load.board is not None:
            load.board[load.index] += count
        load.picks += count
        return Pick(load, self._clock(), count, count, ahead)

    def _learn(self, pick: Pick, elapsed: float, failed: bool) -> None:
        """A pick has ended after so many seconds; only called where ``_learns`` says so."""

    # --- what is known ----------------------------------------------------------------------------------------------

    def snapshot(self) -> Mapping[str, Mapping[str, float]]:
        """Per eligible endpoint: ``in_flight`` and ``picks`` in messages, ``latency`` in seconds, ``weight``, and
        ``cost``, the figure of which the strategy takes the least."""
        return {
            load.name: {
                "in_flight": load.in_flight,
                "latency": load.latency,
                "cost": self._cost(load),
                "picks": load.picks,
                "weight": load.weight,
            }
            for load in self._ready
        }

    def _cost(self, load: EndpointLoad) -> float:
        return burden(load) / load.weight

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(load.name for load in self._ready)})"


def median(values: Iterator[float]) -> float:
    """The median, or 0.0 of nothing."""
    known = list(values)
    return statistics.median(known) if known else 0.0


def burden(load: EndpointLoad) -> int:
    """Messages in flight, as strategies count that go by their number: more for one that has just failed."""
    if load.penalty:
        if load.clock() < load.until:
            return load.in_flight + load.penalty
        load.penalty = 0
    return load.in_flight


def two(endpoints: Sequence[EndpointLoad], uniform: Callable[[], float]) -> tuple[EndpointLoad, EndpointLoad]:
    """Two different ones at random; the same one twice if there is only one."""
    size = len(endpoints)
    if size == 1:
        return endpoints[0], endpoints[0]
    first = int(uniform() * size)
    second = int(uniform() * (size - 1))
    return endpoints[first], endpoints[second + (second >= first)]
