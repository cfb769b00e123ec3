"""Time that passes only when it is told to, and what is to happen then."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

__all__ = ["VirtualClock"]


class VirtualClock:
    """Seconds that a test moves on. Calls that are due happen in order of time, and of asking where times are equal.

    Args:
        start: the first moment; not 0, so that a forgotten "never" shows.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._ties = count()
        self.calls = 0
        """How many calls have happened: a part of a run's trace."""

    def now(self) -> float:
        """The moment that it is."""
        return self._now

    def __call__(self) -> float:
        return self._now

    def call_at(self, at: float, function: Callable[[], object]) -> None:
        """Call a function at a moment; at once, with the next step, if that is over."""
        heapq.heappush(self._due, (max(at, self._now), next(self._ties), function))

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function in so many seconds."""
        self.call_at(self._now + seconds, function)

    def advance(self, seconds: float) -> None:
        """Let time pass, with all that is due on the way."""
        self.run_until(self._now + seconds)

    def run_until(self, end: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass up to a moment, or until ``done`` says so after a call; whether it did."""
        due = self._due
        while due and due[0][0] <= end:
            at, _, function = heapq.heappop(due)
            self._now = max(self._now, at)
            self.calls += 1
            function()
            if done():
                return True
        self._now = max(self._now, end)
        return done()
