"""What a receiver holds of one partition while it is assigned; see `simlink.channels.holding`.

An offset is its message's token, and what is done is the `Prefix`'s to know.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

from simlink.channels.driver import Incoming, Lease
from simlink.channels.holding import Holding, Piece
from simlink.channels.kafka.commits import Prefix
from simlink.message import Batch, Same, Verdict

__all__ = ["Hold"]


class Hold(Holding[int, Lease]):
    """One assignment of one partition to one receiver.

    Attributes:
        prefix: what may be committed; None until something was polled or a position was set.
        committed: the offset last committed, or given to be committed; -1 when that is not known.
        seen: the highest offset that the receiver handed out in any assignment of this partition; -1 for none.
        stored: the offset that the group is known to have; -1 when that is not known.
        settled: below this offset the receiver has settled everything in an earlier assignment, whether the group
            knows it or not; -1 for nothing.
    """

    __slots__ = ("committed", "partition", "prefix", "seen", "settled", "stored")

    def __init__(self, partition: int, name: str, seen: int = -1, *, settled: int = -1, stored: int = -1) -> None:
        super().__init__(Lease(name))
        self.partition = partition
        self.prefix: Prefix | None = None
        self.committed = -1
        self.seen = seen
        self.settled = settled
        self.stored = stored

    # --- in -----------------------------------------------------------------------------------------------------

    def add(self, offsets: Sequence[int], batch: Batch) -> None:
        """Polled records, behind everything polled before."""
        first = offsets[0]
        if self.prefix is None:
            self._begin(first)
            self.committed = first
        assert self.prefix is not None
        if first < self.settled:
            # Settled before the partition was lost, and not committed any more: it need not go out again.
            count = bisect_left(offsets, self.settled)
            self.prefix.hand_out(first, offsets[count - 1])
            self.prefix.finish(first, offsets[count - 1])
            if count == len(offsets):
                return
            offsets, batch = offsets[count:], batch[count:]
            first = offsets[0]
        attempts: Sequence[int] = Same(1, len(offsets))
        if first <= self.seen:
            attempts = [2 if offset <= self.seen else 1 for offset in offsets]
        self._buffer.append(Piece(offsets, batch, attempts))
        self.buffered += len(offsets)

    def _begin(self, position: int) -> None:
        self.prefix = Prefix(position)
        if position < self.stored:
            # The group was moved back, or the topic made anew, while the partition was not ours: all of it is unread.
            self.settled = -1
        self.stored = position

    def move_to(self, position: int) -> None:
        """The next records start here: what lies between does not exist any more."""
        if self.prefix is None:
            self._begin(position)
        elif not self._buffer and position > self.prefix.stop:
            self.prefix.hand_out(position, position - 1)

    @property
    def position(self) -> int | None:
        """The offset behind everything polled; None where nothing is known."""
        if self._buffer:
            return self._buffer[-1].ids[-1] + 1
        return None if self.prefix is None else self.prefix.stop

    # --- out ----------------------------------------------------------------------------------------------------

    def hand_out(self, limit: int, nbytes: int, span: int, now: float) -> list[Incoming]:
        """At most ``limit`` rows of at most ``nbytes`` bytes, but one row may be larger where nothing is in hand.

        Nothing ``span`` offsets or more beyond what can be committed goes out.
        """
        return self._hand_out(limit, nbytes, now, lambda piece: self._within(piece, span))

    def _within(self, piece: Piece[int], span: int) -> int:
        assert self.prefix is not None
        return bisect_left(piece.ids, self.prefix.start + span)

    def _left_buffer(self, piece: Piece[int]) -> None:
        # From here on the prefix waits for each of its rows; that some come twice does it no harm.
        assert self.prefix is not None
        offsets = piece.ids
        self.prefix.hand_out(offsets[0], offsets[-1])
        if not isinstance(offsets, range):
            for before, after in pairwise(offsets):
                if after > before + 1:
                    self.prefix.skip(before + 1, after - 1)

    def _put_out(self, piece: Piece[int]) -> Sequence[int]:
        self.seen = max(self.seen, piece.ids[-1])
        self._out.insert(bisect_right(self._out, piece.ids[0], key=_first), piece)
        return piece.ids

    def _token(self, piece: Piece[int], row: int) -> int:
        return piece.ids[row]

    # --- verdicts -----------------------------------------------------------------------------------------------

    def settle(self, verdict: Verdict, first: int, last: int, due: float) -> int:
        """One verdict over what is out between two offsets, both included; over how many rows it was.

        ``due`` is when nacked rows go out again.
        """
        total = 0
        for piece in self._overlapping(first, last):
            low, high = bisect_left(piece.ids, first), bisect_right(piece.ids, last)
            settled = self._settle(piece, low, high, verdict, due)
            total += len(settled)
            if settled and verdict is not Verdict.NACK:
                self._finish(settled)
        return total

    def _overlapping(self, first: int, last: int) -> list[Piece[int]]:
        stop = bisect_right(self._out, last, key=_first)
        return [piece for piece in self._out[:stop] if piece.ids[-1] >= first]

    def _finish(self, offsets: Sequence[int]) -> None:
        assert self.prefix is not None
        if offsets[-1] - offsets[0] == len(offsets) - 1:
            self.prefix.finish(offsets[0], offsets[-1])
            return
        for offset in offsets:
            self.prefix.finish(offset, offset)

    # --- questions ----------------------------------------------------------------------------------------------

    def blocked_by(self, span: int) -> int | None:
        """The offset that keeps what is polled from being handed out, when the span is used up."""
        if self.prefix is None or not self._buffer or self._buffer[0].ids[0] < self.prefix.start + span:
            return None
        return self.prefix.start

    @property
    def uncommitted(self) -> int:
        """How many offsets are settled beyond what was committed; 0 where that is not known."""
        return 0 if self.prefix is None or self.committed < 0 else self.prefix.start - self.committed

    @property
    def to_commit(self) -> int | None:
        """The offset to commit, or None if that was done."""
        if self.prefix is None or self.prefix.start == self.committed:
            return None
        return self.prefix.start


def _first(piece: Piece[int]) -> int:
    return piece.ids[0]
