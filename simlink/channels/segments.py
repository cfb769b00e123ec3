"""Messages in a subscription's log, and where they came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simlink.message import Batch, Same, Verdict

__all__ = ["Origin", "Segment"]


class Origin:
    """Where a batch came from, for those who must tell its sender what became of it.

    ``on_settled(first_row, stop_row, verdict)`` is called, under the hub's lock, when every subscription has settled
    these rows of the batch. ``ready`` is asked before rows are handed out first; while it says no, they stay.
    ``copies`` is by how many subscriptions each row is to be settled.
    """

    __slots__ = ("_left", "copies", "on_settled", "ready")

    def __init__(
        self, on_settled: Callable[[int, int, Verdict], None] | None, ready: Callable[[], bool] | None = None
    ) -> None:
        self.on_settled = on_settled
        self.ready = ready
        self._left: dict[int, int] | None = None
        self.copies = 1

    def expect(self, first: int, stop: int, subscriptions: int) -> None:
        """The rows ``first … stop - 1`` go to so many subscriptions, and are settled when all have settled them."""
        if self._left is None:
            if subscriptions == 1:
                return
            self._left = {}
        self.copies = subscriptions
        self._left.update(dict.fromkeys(range(first, stop), subscriptions))

    @property
    def shared(self) -> bool:
        """Several subscriptions have its rows, or had them."""
        return self._left is not None

    def begun(self, row: int) -> bool:
        """Whether a subscription has settled this row, which others have not."""
        return self._left is not None and self._left.get(row, self.copies) < self.copies

    def settled(self, first: int, stop: int, verdict: Verdict) -> None:
        if self._left is None:
            self.tell(first, stop, verdict)
            return
        waits = False
        for row in range(first, stop):
            left = self._left.pop(row, 1) - 1
            if left:
                self._left[row] = left
                waits = True
            else:
                self.tell(row, row + 1, verdict)
        if waits:
            self.freed(first)

    def freed(self, row: int) -> None:
        """One subscription is through with this row and has room again; others are not."""

    def tell(self, first: int, stop: int, verdict: Verdict) -> None:
        """These rows are settled."""
        if self.on_settled is not None:
            self.on_settled(first, stop, verdict)


class Segment:
    """Consecutive messages of one batch in a subscription's log: offsets ``first … first + len - 1``."""

    __slots__ = ("attempts", "batch", "first", "origin", "row", "rows")

    def __init__(self, first: int, batch: Batch, attempts: Sequence[int], origin: Origin | None, row: int) -> None:
        self.first = first
        self.batch = batch
        self.attempts = attempts
        self.origin = origin
        self.row = row
        self.rows = len(batch.bodies)

    def __len__(self) -> int:
        return self.rows

    def part(self, start: int, stop: int) -> Segment:
        if start == 0 and stop == self.rows:
            return self
        return Segment(
            self.first + start, self.batch[start:stop], self.attempts[start:stop], self.origin, self.row + start
        )

    def again(self) -> Segment:
        """The same rows, one attempt later."""
        if isinstance(self.attempts, Same):
            attempts: Sequence[int] = Same(self.attempts.value + 1, len(self))
        else:
            attempts = [a + 1 for a in self.attempts]
        return Segment(self.first, self.batch, attempts, self.origin, self.row)
