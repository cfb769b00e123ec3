"""Receipt: what became of a send."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from simlink.channels.window import Entry, State

if TYPE_CHECKING:
    from simlink.message import Batch

__all__ = ["Receipt"]


class Receipt:
    """What became of one send, of one message or of many.

    A receipt goes pending → confirmed | failed | unknown; the only later change is unknown → confirmed. *failed*:
    surely not there. *unknown*: may be there, a reply was lost. On brokerless transports *confirmed* means accepted
    by the receiving process; `settled` tells how many its application has settled since.
    """

    __slots__ = ("_entry", "_wait")

    def __init__(self, entry: Entry, wait: Callable[[Entry, float | None], bool]) -> None:
        self._entry = entry
        self._wait = wait

    def wait(self, timeout: float | None = 30.0) -> Receipt:
        """Wait until nothing of it is pending, at most ``timeout`` seconds (None: for ever); returns itself."""
        self._wait(self._entry, timeout)
        return self

    @property
    def batch(self) -> Batch:
        """The messages it is about."""
        return self._entry.batch

    @property
    def state(self) -> str:
        """``pending``, ``confirmed``, ``failed`` or ``unknown``; of many messages the worst of theirs."""
        counts = self._entry.counts
        for state in (State.FAILED, State.UNKNOWN, State.PENDING):
            if counts[state]:
                return state.name.lower()
        return "confirmed"

    @property
    def confirmed(self) -> int:
        """How many messages are confirmed."""
        counts = self._entry.counts
        return counts[State.CONFIRMED] + counts[State.SETTLED] + counts[State.REJECTED]

    @property
    def failed(self) -> int:
        """How many are surely not there."""
        return self._entry.counts[State.FAILED]

    @property
    def unknown(self) -> int:
        """How many may or may not be there."""
        return self._entry.counts[State.UNKNOWN]

    @property
    def pending(self) -> int:
        """How many are not resolved yet."""
        return self._entry.counts[State.PENDING]

    @property
    def settled(self) -> int:
        """Brokerless: how many the receiving application has acknowledged or rejected."""
        return self._entry.counts[State.SETTLED] + self._entry.counts[State.REJECTED]

    def failed_rows(self) -> list[int]:
        """The rows of the batch that are surely not there."""
        return self._entry.rows_in(State.FAILED)

    @property
    def error(self) -> Exception | None:
        """Why, where something failed or is unknown."""
        return self._entry.error

    @property
    def missed(self) -> tuple[str, ...]:
        """Brokerless topics: the subscriptions that were declared dead meanwhile."""
        return self._entry.missed

    def __len__(self) -> int:
        return len(self._entry.batch)

    def __repr__(self) -> str:
        return f"Receipt({self.state}, {self.confirmed} of {len(self)} confirmed)"
