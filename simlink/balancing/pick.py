"""A pick, what is known of the endpoint that was picked, and how the pick ended.

Every message that is picked for an endpoint is closed exactly once: that is the only way in which an endpoint's
``in_flight`` falls. Both classes lie on the path of every batch, so they are slots and integers, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import msgspec

PENALTY = 1.0
"""Seconds that a failed pick counts as having taken, at least: errors are slow, never fast."""

_ALPHA = 0.1
"""The weight of a new sample in an endpoint's mean latency."""


class Verdict(Enum):
    """How messages that were picked for an endpoint ended.

    `OK`: settled by the endpoint, whatever the application said of them. `ERROR`, `TIMEOUT`: the endpoint failed them;
    they count as slow. `ABANDONED`: moved elsewhere before they were settled; nothing was learnt about latency.
    """

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    ABANDONED = "abandoned"


_OK = Verdict.OK
_ABANDONED = Verdict.ABANDONED


class EndpointLoad:
    """What a balancer knows of one endpoint. A user's `choose` is given these and returns one: read, don't write.

    Attributes:
        name: the endpoint.
        weight: its share relative to the others', as scaled by slow start.
        in_flight: messages that are picked for it and not closed yet.
        latency: the moving mean of pick → settled, in seconds; 0.0 as long as nothing is known.
        picks: messages that were ever picked for it.
    """

    __slots__ = (
        "board",
        "clock",
        "cost",
        "in_flight",
        "index",
        "latency",
        "learn",
        "name",
        "penalty",
        "picks",
        "stamp",
        "until",
        "weight",
    )

    def __init__(self, name: str, weight: float, clock: Callable[[], float]) -> None:
        self.name = name
        self.weight = weight
        self.in_flight = 0
        self.latency = 0.0
        self.picks = 0
        # What follows is the strategy's own. A board is a list that some strategies scan: `board[index]` falls together
        # with in_flight. `learn` is told of every pick that ends, `cost` and `stamp` are what it keeps of that.
        self.clock = clock
        self.board: list[int] | None = None
        self.index = 0
        self.learn: Callable[[Pick, float, bool], None] | None = None
        self.cost = 0.0
        self.stamp = 0.0
        # After a failure, so many messages more count as in flight, until then.
        self.penalty = 0
        self.until = 0.0

    def __repr__(self) -> str:
        return (
            f"EndpointLoad({self.name}, weight={self.weight:g}, in_flight={self.in_flight}, "
            f"latency={self.latency * 1e3:.3g} ms)"
        )


class Pick(msgspec.Struct, gc=False, eq=False):
    """So many messages, picked for one endpoint.

    Attributes:
        load: the endpoint's books.
        at: when it was picked, on the balancer's clock, in seconds.
        count: messages picked.
        left: messages that are not closed yet.
        ahead: messages in flight at that endpoint just after the pick, its own included; for strategies that ask, or 0.
    """

    load: EndpointLoad
    at: float
    count: int
    left: int
    ahead: int = 0
    failed: bool = False

    @property
    def endpoint(self) -> str:
        """The name of the endpoint that was picked."""
        return self.load.name

    # Not keyword-only: CPython 3.11 calls functions that have such arguments on a slower path.
    def close(self, verdict: Verdict, count: int | None = None) -> None:
        """Settle ``count`` of the messages, by default all that are left; at most those that are left.

        Latency is taken when the last one is closed: none if that is `ABANDONED`, at least `PENALTY` if any failed.
        Once nothing is left, closing again does nothing.

        Raises:
            ValueError: ``count`` is below 1.
        """
        left = self.left
        if count is None or count >= left:
            if not left:
                return
            self.left = 0
            load = self.load
            load.in_flight -= left
            board = load.board
            if board is not None:
                board[load.index] -= left
            if verdict is not _OK or self.failed:
                self._last(verdict, left)
                return
            clock = load.clock
            elapsed = clock() - self.at
            latency = load.latency
            load.latency = latency + _ALPHA * (elapsed - latency) if latency else elapsed
            learn = load.learn
            if learn is not None:
                learn(self, elapsed, False)
        else:
            self._part(verdict, count)

    def _part(self, verdict: Verdict, count: int) -> None:
        if count < 1:
            raise ValueError(f"close: count is {count}; at least one message is closed")
        self.left -= count
        load = self.load
        load.in_flight -= count
        if load.board is not None:
            load.board[load.index] -= count
        if verdict is not _OK and verdict is not _ABANDONED:
            self._fail(count)

    def _last(self, verdict: Verdict, count: int) -> None:
        if verdict is not _OK and verdict is not _ABANDONED:
            self._fail(count)
        if not self.failed:
            return
        load = self.load
        elapsed = max(load.clock() - self.at, PENALTY)
        load.latency = load.latency + _ALPHA * (elapsed - load.latency) if load.latency else elapsed
        if load.learn is not None:
            load.learn(self, elapsed, True)

    def _fail(self, count: int) -> None:
        self.failed = True
        load = self.load
        now = load.clock()
        held = PHANTOMS * count
        load.penalty = max(load.penalty, held) if now < load.until else held
        load.until = now + PENALTY


PHANTOMS = 8
"""For `PENALTY` seconds each failed message counts as so many in flight, where the number in flight decides."""
