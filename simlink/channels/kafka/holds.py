"""What a receiver holds of one partition while it is assigned: polled, handed out, handed back, and held back.

Pure bookkeeping; the clock comes in as an argument. An offset is its message's token. The way of a row::

    buffer ── hand out ──► out ── ack, reject ──► done (in the Prefix)
       ▲ (key free again)   │ nack
    waiting ◄── its key     ▼
                          again ── when due ──► out, one attempt later
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise

from simlink.channels.driver import Incoming, Lease
from simlink.channels.kafka.commits import Prefix
from simlink.message import Batch, Same, Verdict

__all__ = ["Hold", "Piece"]


class Piece:
    """Some rows of the partition, in order.

    Attributes:
        offsets: ascending; a ``range`` where they follow one another.
        open: how many of them the application has not settled.
    """

    __slots__ = ("attempts", "batch", "marks", "offsets", "open")

    def __init__(self, offsets: Sequence[int], batch: Batch, attempts: Sequence[int]) -> None:
        self.offsets = offsets
        self.batch = batch
        self.attempts = attempts
        self.open = len(offsets)
        self.marks: bytearray | None = None  # which rows are settled, once some are and others are not

    def __len__(self) -> int:
        return len(self.offsets)

    def part(self, start: int, stop: int) -> Piece:
        if start == 0 and stop == len(self.offsets):
            return self
        return Piece(self.offsets[start:stop], self.batch[start:stop], self.attempts[start:stop])

    def take(self, rows: Sequence[int]) -> Piece:
        if len(rows) == len(self.offsets):
            return self
        return Piece([self.offsets[i] for i in rows], self.batch.take(rows), [self.attempts[i] for i in rows])

    def fitting(self, nbytes: int) -> int:
        """How many rows from the first on have no more than so many bytes."""
        if self.batch.nbytes <= nbytes:
            return len(self)
        total = 0
        for row, (body, key) in enumerate(zip(self.batch.bodies, self.batch.keys, strict=True)):
            total += len(body) + (0 if key is None else len(key))
            if total > nbytes:
                return row
        return len(self)


class Hold:
    """One assignment of one partition to one receiver.

    Attributes:
        lease: what its tokens are under.
        prefix: what may be committed; None until something was polled or a position was set.
        committed: the offset last committed, or given to be committed; -1 when that is not known.
        seen: the highest offset that the receiver handed out in any assignment of this partition; -1 for none.
        stored: the offset that the group is known to have; -1 when that is not known.
        settled: below this offset the receiver has settled everything in an earlier assignment, whether the group
            knows it or not; -1 for nothing.
        in_hand: messages that the application holds unsettled.
        in_hand_bytes: the bytes of the pieces that they are in.
    """

    __slots__ = (
        "_again",
        "_blocked",
        "_buffer",
        "_delayed",
        "_out",
        "_waiting",
        "buffered",
        "committed",
        "in_hand",
        "in_hand_bytes",
        "lease",
        "partition",
        "prefix",
        "seen",
        "settled",
        "stored",
    )

    def __init__(self, partition: int, name: str, seen: int = -1, *, settled: int = -1, stored: int = -1) -> None:
        self.partition = partition
        self.lease = Lease(name)
        self.prefix: Prefix | None = None
        self.committed = -1
        self.seen = seen
        self.settled = settled
        self.stored = stored
        self.in_hand = 0
        self.in_hand_bytes = 0
        self.buffered = 0
        self._buffer: deque[Piece] = deque()
        self._out: list[Piece] = []  # by first offset
        self._again: list[tuple[float, int]] = []  # a heap of (due, offset)
        self._delayed: dict[int, Piece] = {}  # offset → its row
        self._blocked: dict[bytes, int] = {}  # key → how many of its rows are delayed
        self._waiting: dict[bytes, list[Piece]] = {}  # key → rows that wait for it, in order

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
            return self._buffer[-1].offsets[-1] + 1
        return None if self.prefix is None else self.prefix.stop

    # --- out ----------------------------------------------------------------------------------------------------

    def hand_out(self, limit: int, nbytes: int, span: int, now: float) -> list[Incoming]:
        """At most ``limit`` rows of at most ``nbytes`` bytes, but one row may be larger where nothing is in hand.

        Nothing ``span`` offsets or more beyond what can be committed goes out.
        """
        out: list[Incoming] = []
        while limit > 0 and self._again and self._again[0][0] <= now:
            piece = self._delayed.pop(heapq.heappop(self._again)[1])
            self._unblock(piece.batch.keys[0])
            limit -= 1
            nbytes -= self._give(piece, out)
        while limit > 0 and self._buffer:
            assert self.prefix is not None
            piece = self._buffer[0]
            allowed = bisect_left(piece.offsets, self.prefix.start + span)
            fitting = min(allowed, limit, piece.fitting(max(0, nbytes)))
            if fitting == 0 and allowed and self.in_hand == 0:
                fitting = 1
            if fitting == 0:
                break
            self._buffer.popleft()
            if fitting < len(piece):
                self._buffer.appendleft(piece.part(fitting, len(piece)))
                piece = piece.part(0, fitting)
            self.buffered -= fitting
            self._enter(piece)
            free = self._set_aside(piece) if self._blocked else piece
            if free is not None:
                limit -= len(free)
                nbytes -= self._give(free, out)
        return out

    def _enter(self, piece: Piece) -> None:
        """The piece leaves the buffer: from here on the prefix waits for each of its rows."""
        assert self.prefix is not None
        offsets = piece.offsets
        self.prefix.hand_out(offsets[0], offsets[-1])
        if not isinstance(offsets, range):
            for before, after in pairwise(offsets):
                if after > before + 1:
                    self.prefix.skip(before + 1, after - 1)

    def _set_aside(self, piece: Piece) -> Piece | None:
        """Put rows whose key waits for a nacked message behind it; the others, or None."""
        free: list[int] = []
        for row, key in enumerate(piece.batch.keys):
            if key is not None and key in self._blocked:
                self._waiting.setdefault(key, []).append(piece.part(row, row + 1))
            else:
                free.append(row)
        return piece.take(free) if free else None

    def _give(self, piece: Piece, out: list[Incoming]) -> int:
        self.in_hand += len(piece)
        size = piece.batch.nbytes
        self.in_hand_bytes += size
        self.seen = max(self.seen, piece.offsets[-1])
        at = bisect_right(self._out, piece.offsets[0], key=_first)
        self._out.insert(at, piece)
        out.append(Incoming(piece.batch, piece.offsets, piece.attempts, self.lease))
        return size

    def _unblock(self, key: bytes | None) -> None:
        if key is None:
            return
        left = self._blocked[key] - 1
        if left:
            self._blocked[key] = left
            return
        del self._blocked[key]
        # Back to the front of the buffer, each row already known to the prefix, which takes it twice without harm.
        rows = self._waiting.pop(key, [])
        self._buffer.extendleft(reversed(rows))
        self.buffered += len(rows)

    # --- verdicts -----------------------------------------------------------------------------------------------

    def settle(self, verdict: Verdict, first: int, last: int, due: float) -> int:
        """One verdict over what is out between two offsets, both included; over how many rows it was.

        ``due`` is when nacked rows go out again.
        """
        assert self.prefix is not None
        total = 0
        for piece in self._overlapping(first, last):
            low = bisect_left(piece.offsets, first)
            high = bisect_right(piece.offsets, last)
            if high - low == piece.open == len(piece):
                if verdict is not Verdict.NACK:
                    self._finish(piece.offsets)
                    self._drop(piece, len(piece))
                    total += len(piece)
                    continue
                rows: Iterable[int] = range(low, high)
            else:
                marks = piece.marks
                rows = range(low, high) if marks is None else [i for i in range(low, high) if not marks[i]]
            settled = list(rows)
            if not settled:
                continue
            total += len(settled)
            if verdict is Verdict.NACK:
                for row in settled:
                    self._delay(piece, row, due)
            else:
                self._finish([piece.offsets[row] for row in settled])
            if piece.marks is None:
                piece.marks = bytearray(len(piece))
            for row in settled:
                piece.marks[row] = 1
            self._drop(piece, len(settled))
        return total

    def _overlapping(self, first: int, last: int) -> list[Piece]:
        stop = bisect_right(self._out, last, key=_first)
        return [piece for piece in self._out[:stop] if piece.offsets[-1] >= first]

    def _finish(self, offsets: Sequence[int]) -> None:
        assert self.prefix is not None
        if offsets[-1] - offsets[0] == len(offsets) - 1:
            self.prefix.finish(offsets[0], offsets[-1])
            return
        for offset in offsets:
            self.prefix.finish(offset, offset)

    def _drop(self, piece: Piece, count: int) -> None:
        self.in_hand -= count
        piece.open -= count
        if piece.open == 0:
            self._out.remove(piece)
            self.in_hand_bytes -= piece.batch.nbytes

    def _delay(self, piece: Piece, row: int, due: float) -> None:
        offset = piece.offsets[row]
        again = piece.part(row, row + 1)
        self._delayed[offset] = Piece(again.offsets, again.batch, [piece.attempts[row] + 1])
        heapq.heappush(self._again, (due, offset))
        key = piece.batch.keys[row]
        if key is not None:
            self._blocked[key] = self._blocked.get(key, 0) + 1

    # --- questions ----------------------------------------------------------------------------------------------

    @property
    def next_due(self) -> float | None:
        """When the next nacked row goes out again."""
        return self._again[0][0] if self._again else None

    @property
    def delayed(self) -> int:
        """How many rows are nacked and not out again, or wait for such a one."""
        return len(self._delayed) + sum(map(len, self._waiting.values()))

    def blocked_by(self, span: int) -> int | None:
        """The offset that keeps what is polled from being handed out, when the span is used up."""
        if self.prefix is None or not self._buffer or self._buffer[0].offsets[0] < self.prefix.start + span:
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


def _first(piece: Piece) -> int:
    return piece.offsets[0]
