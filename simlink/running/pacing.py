"""The pace of a run: an absolute, open-loop schedule laid on a monotonic clock.

Row ``i`` is due at ``start + arrivals.due(i)``, whatever became of the rows before it. Everything that is due goes out
at once, as one small batch. The schedule is never moved to hide a delay: a row that goes out late is late, and its
latency counts from when it was due. Pure: no waiting and no I/O in here, the times are given.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["LAG_BOUND", "MOST_BEHIND", "OVERDUE", "Due", "Pacer", "Striped", "held"]

Seconds = npt.NDArray[np.float64]

OVERDUE = 0.1
"""Seconds behind its due time from which ``on_overload="drop"`` skips a row."""
MOST_BEHIND = 1 << 32
"""Of the rows that a run was behind at its end no more are counted."""
LAG_BOUND = 0.05
"""Seconds: a run whose own send lag has its 99th percentile above this did not hold the rate, and is not valid."""


def held(late: int, count: int) -> bool:
    """Whether a run held its schedule, when ``late`` of its ``count`` rows were more than `LAG_BOUND` behind by its own
    fault: the 99th percentile is within the bound as long as they are at most one in a hundred."""
    return late * 100 <= count


class Due(Protocol):
    """What the pacer asks of an arrival process: the due times of rows, in seconds since the start, ascending."""

    def due(self, start: int, stop: int) -> Seconds: ...


class Striped:
    """Worker ``i``'s part of a schedule that ``n`` workers share: dealt out in turns, arrival by arrival. Who has sent
    all its rows is passed over: the others have its turns.

    Args:
        rows: how many each worker has; None where they have no end.
    """

    def __init__(self, whole: Due, i: int, n: int, rows: Sequence[int] | None = None) -> None:
        self.whole, self.i, self.n = whole, i, n
        self.rows = None if rows is None else tuple(rows)

    def due(self, start: int, stop: int) -> Seconds:
        if self.rows is None or stop <= min(self.rows):
            return self.whole.due(start * self.n, stop * self.n)[self.i :: self.n]
        row = np.arange(start, stop)
        # Before row r of worker i, worker j has had r turns (one more if it comes before i), or as many as it has rows.
        turns = np.zeros(len(row), np.int64)
        for j, rows in enumerate(self.rows):
            turns += np.minimum(row + (j < self.i), rows)
        first = int(turns[0]) if len(turns) else 0
        due = self.whole.due(first, int(turns[-1]) + 1 if len(turns) else first)
        there: Seconds = due[turns[turns - first < len(due)] - first]
        return there


class Pacer:
    """Says which rows go out now. Times are in seconds of one monotonic clock.

    Args:
        arrivals: when rows are due.
        on_overload: what a run does that is behind: "lag" keeps the schedule, "block" moves it by the time that the
            channel made the run wait, "drop" skips rows that are more than `OVERDUE` late.
        duration: rows that are due later than this many seconds after the start are not part of the run.

    Attributes:
        position: the next row to go out.
        dropped: rows skipped by "drop".
        stalled: seconds that the channel made the run wait.
        backfilled: of a schedule that began in the past: rows that went out before the run had caught up with it.
    """

    def __init__(self, arrivals: Due, *, on_overload: str = "lag", duration: float | None = None) -> None:
        self.arrivals = arrivals
        self.position = 0
        self.dropped = 0
        self.stalled = 0.0
        self.start = 0.0
        self._block = on_overload == "block"
        self._drop = on_overload == "drop"
        self._duration = math.inf if duration is None else duration
        self._due: Seconds = np.empty(0)
        self._times: list[float] = []  # the same: for one row a search in a list takes a tenth of NumPy's
        self._first = 0
        self._shift = 0.0
        self._excused = 0.0
        self._floor = 0.0
        self.backfilled = 0
        self._now = 0.0
        self._catching_up = False

    def begin(self, now: float, since: float = 0.0) -> None:
        """The run starts now, and its schedule so many seconds ago (or, below 0, later).

        Of a schedule that began in the past everything goes out at once, and counts as due when it does, until nothing
        is due any more: from there on the schedule holds.
        """
        self.start = now - since
        self._duration += since
        self._catching_up = since > 0

    def load(self, count: int) -> int:
        """Look up the due times of the next ``count`` rows; call it when all rows before have gone out.

        Returns:
            How many of them belong to the run: fewer where the schedule, or the duration, ends.
        """
        due = self.arrivals.due(self.position, self.position + count)
        if len(due):
            # An ascending schedule stays as it is; one that steps back means "at once".
            due = np.maximum.accumulate(np.maximum(due, self._floor))
            self._floor = float(due[-1])
        inside = int(np.searchsorted(due, self._duration - self._shift, side="left"))
        self._due, self._first = due[:inside], self.position
        self._times = self._due.tolist()
        return inside

    @property
    def left(self) -> int:
        """How many of the loaded rows have not gone out."""
        return self._first + len(self._times) - self.position

    def next_due(self) -> float:
        """When the next loaded row is due."""
        return self.start + self._shift + self._times[self.position - self._first]

    def caught_up(self, then: float) -> bool:
        """Whether nothing is left of the loaded rows that were due then; a wait in the past then excuses no lag in the
        future."""
        if self.next_due() <= then:
            return False
        self._excused = 0.0
        self._catching_up = False
        return True

    def release(self, now: float, limit: int) -> tuple[int, int]:
        """The rows that go out now, at most ``limit``: moves the position behind them.

        Returns:
            ``(skipped, count)``: first so many overdue ones are dropped, then so many go out.
        """
        at = self.position - self._first
        elapsed = now - self.start - self._shift
        stop = bisect_right(self._times, elapsed, at)
        if stop <= at:
            # Nothing is due: the run has caught up, and a wait in the past excuses no lag in the future.
            self._excused = 0.0
            self._catching_up = False
            return 0, 0
        skipped = 0
        if self._catching_up:
            count = min(stop - at, limit)
            self.position += count
            self.backfilled += count
            self._now = now
            return 0, count
        if self._drop:
            skipped = bisect_left(self._times, elapsed - OVERDUE, at) - at
            self.dropped += skipped
        count = max(0, min(stop - at - skipped, limit))
        self.position += skipped + count
        return skipped, count

    def behind(self, total: int | None) -> int:
        """How many rows are due within the duration and have not gone out, of ``total`` and `MOST_BEHIND` at most.
        They are not looked at one by one: of a rate that nobody holds there is no end of them."""
        limit = self._duration - self._shift
        low = self.position
        most = low + MOST_BEHIND if total is None else max(low, min(total, low + MOST_BEHIND))

        def early(row: int) -> bool:
            due = self.arrivals.due(row, min(row + 1, most))
            return len(due) > 0 and float(due[0]) < limit

        step = 1
        while early(low + step - 1):
            low, step = low + step, step * 2
        high = min(low + step - 1, most)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if early(middle) else (low, middle)
        return low - self.position

    def due_of(self, first: int, count: int) -> Seconds | float:
        """The due times of loaded rows on the clock; one number where they are the same."""
        if self._catching_up:
            return self._now
        at = first - self._first
        if count == 1:
            return self._times[at] + (self.start + self._shift)
        times: Seconds = self._due[at : at + count] + (self.start + self._shift)
        return times

    def waited(self, seconds: float) -> None:
        """The channel had no room for this long."""
        self.stalled += seconds
        if self._block:
            self._shift += seconds
            # What is due behind the duration now is no part of the run any more.
            del self._times[bisect_left(self._times, self._duration - self._shift, self.position - self._first) :]
        else:
            self._excused += seconds

    def own(self, lag: Seconds) -> Seconds:
        """The part of send lags that is the run's own fault: without what the channel made it wait since it was last on
        time."""
        if not self._excused:
            return lag
        rest: Seconds = np.maximum(lag - self._excused, 0.0)
        return rest
