"""Sets of positions as sorted runs: what was settled, in whatever order, above a mark below which everything was."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from simlink.channels.wire.frames import Run

__all__ = ["Runs"]


class Runs:
    """Positions as disjoint runs ``[first, stop)`` that do not touch, above ``mark``; all below ``mark`` are in.

    `add` in order costs the same however much is in; out of order it costs a search and a shift of the runs above.
    """

    __slots__ = ("_firsts", "_stops", "mark")

    def __init__(self, mark: int = 0) -> None:
        self.mark = mark
        self._firsts: list[int] = []
        self._stops: list[int] = []

    def __len__(self) -> int:
        """The number of runs above the mark."""
        return len(self._firsts)

    def __contains__(self, position: int) -> bool:
        if position < self.mark:
            return True
        at = bisect_right(self._firsts, position) - 1
        return at >= 0 and position < self._stops[at]

    def runs(self) -> list[Run]:
        """Those above the mark, ascending."""
        return list(zip(self._firsts, self._stops, strict=True))

    def add(self, first: int, stop: int) -> list[Run]:
        """Put positions in; those that were not in before, as runs."""
        first = max(first, self.mark)
        if first >= stop:
            return []
        if not self._firsts and first == self.mark:
            self.mark = stop
            return [(first, stop)]
        new = self.missing(first, stop)
        firsts, stops = self._firsts, self._stops
        # The runs that overlap or touch [first, stop) become one with it.
        a = bisect_left(stops, first)
        b = bisect_right(firsts, stop)
        if a < b:
            first = min(first, firsts[a])
            stop = max(stop, stops[b - 1])
        firsts[a:b] = [first]
        stops[a:b] = [stop]
        if firsts[0] <= self.mark:
            self.mark = stops[0]
            del firsts[0], stops[0]
        return new

    def missing(self, first: int, stop: int) -> list[Run]:
        """The runs within ``[first, stop)`` that are not in."""
        out: list[Run] = []
        at = max(first, self.mark)
        i = bisect_right(self._stops, at)
        while at < stop:
            if i == len(self._firsts) or self._firsts[i] >= stop:
                out.append((at, stop))
                break
            if self._firsts[i] > at:
                out.append((at, self._firsts[i]))
            at = self._stops[i]
            i += 1
        return out

    def forget_below(self, position: int) -> None:
        """Take the mark up: everything below counts as in."""
        if position <= self.mark:
            return
        at = bisect_right(self._stops, position)
        del self._firsts[:at], self._stops[:at]
        self.mark = position
        if self._firsts and self._firsts[0] <= position:
            self.mark = self._stops[0]
            del self._firsts[0], self._stops[0]

    @classmethod
    def of(cls, runs: Iterable[Run], mark: int = 0) -> Runs:
        out = cls(mark)
        for first, stop in runs:
            out.add(first, stop)
        return out
