"""A batch that is larger than the window, sent in parts under one receipt."""

from __future__ import annotations

from collections.abc import Iterator

from simlink.channels.window import Entry, State, Totals
from simlink.message import Batch

__all__ = ["PartedEntry"]


class PartedEntry(Entry):
    """Reads like one entry over the whole batch; its counts are those of the parts, and of what is not yet sent."""

    __slots__ = ("_given_up", "_parts")

    def __init__(self, batch: Batch) -> None:
        self._parts: list[Entry] = []
        self._given_up: Exception | None = None
        super().__init__(batch, 0, Totals())

    def parts(self, messages: int, nbytes: int) -> Iterator[Batch]:
        """The batch cut so that no part has more than ``messages``, nor (beyond one message) ``nbytes``."""
        at = 0
        while at < len(self.batch):
            part = self.batch[at : at + messages]
            while len(part) > 1 and part.nbytes > nbytes:
                part = part[: len(part) // 2]
            yield part
            at += len(part)

    def add(self, entry: Entry) -> None:
        self._parts.append(entry)

    def give_up(self, error: Exception) -> None:
        """Nothing more is handed over: the rest has failed."""
        self._given_up = error

    @property
    def _rest(self) -> int:
        return len(self.batch) - sum(len(p.batch) for p in self._parts)

    @property
    def counts(self) -> list[int]:  # a slot in the base, computed here
        out = [sum(column) for column in zip(*(p.counts for p in self._parts), strict=True)] or [0] * len(State)
        out[State.PENDING if self._given_up is None else State.FAILED] += self._rest
        return out

    @counts.setter
    def counts(self, value: list[int]) -> None:
        pass

    @property
    def pending(self) -> int:  # see counts
        return self.counts[State.PENDING]

    @pending.setter
    def pending(self, value: int) -> None:
        pass

    @property
    def error(self) -> Exception | None:  # see counts
        return next((p.error for p in self._parts if p.error is not None), self._given_up)

    @error.setter
    def error(self, value: Exception | None) -> None:
        pass

    @property
    def missed(self) -> tuple[str, ...]:  # see counts
        return tuple(dict.fromkeys(name for part in self._parts for name in part.missed))

    @missed.setter
    def missed(self, value: tuple[str, ...]) -> None:
        pass

    def rows_in(self, state: State) -> list[int]:
        out: list[int] = []
        base = 0
        for part in self._parts:
            out += [base + row for row in part.rows_in(state)]
            base += len(part.batch)
        if state is (State.PENDING if self._given_up is None else State.FAILED):
            out += range(base, len(self.batch))
        return out
