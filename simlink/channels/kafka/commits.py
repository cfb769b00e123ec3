"""The contiguous acknowledged prefix of one partition: what may be committed, and what blocks it.

Pure bookkeeping of offsets. Offsets ascend but may have holes (compaction, transaction markers, purged records);
a hole inside or in front of what is handed out counts as done.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

__all__ = ["Prefix"]


class Prefix:
    """What was handed out of one partition, and what of it is done.

    Attributes:
        start: everything below is done; the offset to commit. It never goes back.
        stop: one beyond the highest offset handed out; ``start == stop`` when nothing is out.
    """

    __slots__ = ("_firsts", "_stops", "start", "stop")

    def __init__(self, start: int) -> None:
        self.start = start
        self.stop = start
        # What is done above `start`: disjoint, not touching, ascending [first, stop) runs.
        self._firsts: list[int] = []
        self._stops: list[int] = []

    @property
    def span(self) -> int:
        """How far the highest offset handed out is ahead of what can be committed."""
        return self.stop - self.start

    @property
    def blocked_by(self) -> int | None:
        """The lowest offset that was handed out and is not done; None when there is none."""
        return self.start if self.start < self.stop else None

    def hand_out(self, first: int, last: int) -> None:
        """Offsets ``first … last`` (both included) go out. Below `stop` they are repeats, which change nothing.

        Whatever lies between `stop` and ``first`` does not exist in the log, and is done.
        """
        if last < self.stop:
            return
        if first > self.stop:
            if self.start == self.stop:
                self.start = first
            else:
                self._done(self.stop, first)
        self.stop = last + 1

    def skip(self, first: int, last: int) -> None:
        """Offsets ``first … last`` (both included) inside what is out do not exist: done."""
        self.finish(first, last)

    def finish(self, first: int, last: int) -> int:
        """Offsets ``first … last`` (both included) are done; how many of them were not so before.

        What was never handed out is ignored.
        """
        first, stop = max(first, self.start), min(last + 1, self.stop)
        if first >= stop:
            return 0
        return self._done(first, stop)

    def is_done(self, offset: int) -> bool:
        """Whether this offset is done (everything below `start` is)."""
        if offset < self.start:
            return True
        at = bisect_right(self._firsts, offset) - 1
        return at >= 0 and offset < self._stops[at]

    def _done(self, first: int, stop: int) -> int:
        if first == self.start and not self._firsts:  # in order, the usual case
            self.start = stop
            return stop - first
        # Every run that overlaps or touches [first, stop) melts into it.
        low = bisect_left(self._stops, first)
        high = bisect_right(self._firsts, stop)
        known = 0
        merged_first, merged_stop = first, stop
        for i in range(low, high):
            known += max(0, min(stop, self._stops[i]) - max(first, self._firsts[i]))
            merged_first = min(merged_first, self._firsts[i])
            merged_stop = max(merged_stop, self._stops[i])
        self._firsts[low:high] = [merged_first]
        self._stops[low:high] = [merged_stop]
        if self._firsts[0] <= self.start:
            self.start = self._stops[0]
            del self._firsts[0], self._stops[0]
        return stop - first - known

    def __repr__(self) -> str:
        done = ", ".join(f"{a}…{b - 1}" for a, b in zip(self._firsts, self._stops, strict=True))
        return f"Prefix({self.start} of {self.stop}" + (f"; {done} done)" if done else ")")
