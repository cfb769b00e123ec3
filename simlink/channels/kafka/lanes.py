"""One partition's share of what is under way: which positions went to it, and how far their reports have come.

Both clients report a partition's records in the order in which they were given, so a count says which positions are
confirmed and nothing need be attached to a single message. That is certain only up to the first ambiguous report:
a record that times out while it waits may overtake one that times out on the wire. From there on the whole rest of the
lane is given back, in order, once every report is in.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Fate", "Judge", "Lane", "Ruling"]

Ints = npt.NDArray[np.int64]
_NOTHING: Ints = np.empty(0, np.int64)


class Fate(enum.Enum):
    """What an error report says of its record."""

    REFUSED = "refused"
    """The broker, or the client before sending, turned it down: surely not there, and no use to try again."""
    AMBIGUOUS = "ambiguous"
    """It may be there. So may be what the client says it withdrew from its queue: librdkafka puts a request whose
    answer was lost back there, and neither client tells which records ever were in one."""


class Ruling(NamedTuple):
    """What an error report means: the fate of its record, and the error as ours."""

    fate: Fate
    error: Exception


Judge = Callable[[Any], Ruling]
"""The client's own error → what it means."""


class Lane:
    """The records under way to one partition.

    Attributes:
        reported: how many reports have come; `report` counts.
        errors: the client's own error of every report that was one, by its number.
        broken: an ambiguous report has come: feed nothing more, wait for all reports, take the `rest`.
    """

    __slots__ = ("_at", "_pushed", "_queue", "_since", "_taken", "broken", "errors", "reported")

    def __init__(self) -> None:
        self.reported = 0
        self.errors: dict[int, Any] = {}
        self.broken = False
        self._pushed = 0
        self._taken = 0
        self._queue: deque[Ints] = deque()
        self._since: deque[float] = deque()  # when each of them was given to the client
        self._at = 0  # how much of the first array in the queue is taken

    def push(self, positions: Ints, now: float = 0.0) -> None:
        """These positions, ascending, were given to the client, at this time."""
        if len(positions):
            self._queue.append(positions)
            self._since.append(now)
            self._pushed += len(positions)

    def report(self, error: Any, _message: Any = None) -> None:
        """The next record's report; the signature is that of confluent-kafka's callback."""
        if error is not None:
            self.errors[self.reported] = error
        self.reported += 1

    @property
    def outstanding(self) -> int:
        """How many reports are still to come."""
        return self._pushed - self.reported

    @property
    def head(self) -> int | None:
        """The lowest position that `collect` has not given out."""
        return int(self._queue[0][self._at]) if self._queue else None

    @property
    def since(self) -> float | None:
        """When the `head` was given to the client."""
        return self._since[0] if self._since else None

    def collect(self, judge: Judge) -> tuple[Ints, list[tuple[int, Exception]]]:
        """What is known since the last call: confirmed positions, ascending; refused ones with their errors."""
        if self.broken or self.reported == self._taken:
            return _NOTHING, []
        if not self.errors:
            return self._take(self.reported - self._taken), []
        confirmed: list[Ints] = []
        refused: list[tuple[int, Exception]] = []
        for number in sorted(self.errors):
            ruling = judge(self.errors[number])
            confirmed.append(self._take(number - self._taken))
            if ruling.fate is not Fate.REFUSED:
                self.broken = True
                return np.concatenate(confirmed), refused
            refused.append((int(self._take(1)[0]), ruling.error))
            del self.errors[number]
        confirmed.append(self._take(self.reported - self._taken))
        return np.concatenate(confirmed), refused

    def rest(self) -> Ints:
        """Every position from the first ambiguous report on, ascending: all of them may be there."""
        positions = self._take(self._pushed - self._taken)
        self.errors.clear()
        self.reported = self._pushed
        self.broken = False
        return positions

    def _take(self, count: int) -> Ints:
        if count == 0:
            return _NOTHING
        self._taken += count
        parts: list[Ints] = []
        while count:
            first = self._queue[0]
            there = len(first) - self._at
            if there > count:
                parts.append(first[self._at : self._at + count])
                self._at += count
                break
            parts.append(first[self._at :] if self._at else first)
            self._queue.popleft()
            self._since.popleft()
            self._at = 0
            count -= there
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
