"""What a receiver holds of one stream: fetched, handed out, handed back, and held back.

Pure bookkeeping; the clock comes in as an argument. Every hand-out gets tokens of its own, so they ascend. The way of
an entry::

    buffer ── hand out ──► out ── ack, reject ──► its ID is to be acknowledged
       ▲ (key free again)   │ nack
    waiting ◄── its key     ▼
                          again ── when due ──► out, one attempt later
"""

from __future__ import annotations

import heapq
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from simlink.channels.driver import Incoming, Lease
from simlink.message import Batch, Same, Verdict

__all__ = ["ClaimLease", "Hold", "Piece"]


class ClaimLease(Lease):
    """A hold that ends by itself: ``life`` seconds after it was last renewed somebody else may have claimed it.

    Whoever hands out from a buffer, or settles, asks ``valid`` first; once over it stays over. None as ``life``
    never ends.
    """

    __slots__ = ("_clock", "_held", "life", "renewed")

    def __init__(
        self, name: str, life: float | None, renewed: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._held = True
        self._clock = clock
        self.life = life
        self.renewed = renewed
        super().__init__(name)

    @property
    def valid(self) -> bool:  # a slot in the base, computed here
        if self._held and self.life is not None and self._clock() - self.renewed > self.life:
            self._held = False
        return self._held

    @valid.setter
    def valid(self, value: bool) -> None:
        self._held = value


class Piece:
    """Some entries, in order.

    Attributes:
        token: of the first row, once it is out.
        open: how many of them the application has not settled.
    """

    __slots__ = ("attempts", "batch", "ids", "marks", "open", "token")

    def __init__(self, ids: Sequence[bytes], batch: Batch, attempts: Sequence[int]) -> None:
        self.ids = ids
        self.batch = batch
        self.attempts = attempts
        self.open = len(ids)
        self.marks: bytearray | None = None  # which rows are settled, once some are and others are not
        self.token = -1

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> Piece:
        if start == 0 and stop == len(self.ids):
            return self
        return Piece(self.ids[start:stop], self.batch[start:stop], self.attempts[start:stop])

    def take(self, rows: Sequence[int]) -> Piece:
        if len(rows) == len(self.ids):
            return self
        return Piece([self.ids[i] for i in rows], self.batch.take(rows), [self.attempts[i] for i in rows])

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
    """Args:
    lease: what the tokens are under.

    Attributes:
        in_hand: messages that the application holds unsettled.
        in_hand_bytes: the bytes of the pieces that they are in.
        buffered: fetched and not handed out.
    """

    __slots__ = (
        "_again",
        "_blocked",
        "_buffer",
        "_delayed",
        "_next",
        "_out",
        "_waiting",
        "buffered",
        "in_hand",
        "in_hand_bytes",
        "lease",
    )

    def __init__(self, lease: ClaimLease) -> None:
        self.lease = lease
        self.in_hand = 0
        self.in_hand_bytes = 0
        self.buffered = 0
        self._next = 0
        self._buffer: deque[Piece] = deque()
        self._out: list[Piece] = []  # by token
        self._again: list[tuple[float, int]] = []  # a heap of (due, number)
        self._delayed: dict[int, Piece] = {}  # number → one row
        self._blocked: dict[bytes, int] = {}  # key → how many of its rows are delayed
        self._waiting: dict[bytes, list[Piece]] = {}  # key → rows that wait for it, in order

    # --- in and out ---------------------------------------------------------------------------------------------

    def add(self, ids: Sequence[bytes], batch: Batch, attempts: Sequence[int] | None = None) -> None:
        """Entries behind everything that is here."""
        if len(ids):
            self._buffer.append(Piece(ids, batch, Same(1, len(ids)) if attempts is None else attempts))
            self.buffered += len(ids)

    def hand_out(self, limit: int, nbytes: int, now: float) -> list[Incoming]:
        """At most ``limit`` rows of at most ``nbytes`` bytes, but one row may be larger where nothing is in hand."""
        out: list[Incoming] = []
        while limit > 0 and self._again and self._again[0][0] <= now:
            piece = self._delayed.pop(heapq.heappop(self._again)[1])
            self._unblock(piece.batch.keys[0])
            limit -= 1
            nbytes -= self._give(piece, out)
        while limit > 0 and self._buffer:
            piece = self._buffer[0]
            fitting = min(limit, piece.fitting(max(0, nbytes)))
            if fitting == 0 and self.in_hand == 0:
                fitting = 1
            if fitting == 0:
                break
            self._buffer.popleft()
            if fitting < len(piece):
                self._buffer.appendleft(piece.part(fitting, len(piece)))
                piece = piece.part(0, fitting)
            self.buffered -= fitting
            free = self._set_aside(piece) if self._blocked else piece
            if free is not None:
                limit -= len(free)
                nbytes -= self._give(free, out)
        return out

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
        piece.token = self._next
        self._next += len(piece)
        self.in_hand += len(piece)
        size = piece.batch.nbytes
        self.in_hand_bytes += size
        self._out.append(piece)
        out.append(Incoming(piece.batch, range(piece.token, self._next), piece.attempts, self.lease))
        return size

    def _unblock(self, key: bytes | None) -> None:
        if key is None:
            return
        left = self._blocked[key] - 1
        if left:
            self._blocked[key] = left
            return
        del self._blocked[key]
        rows = self._waiting.pop(key, [])
        self._buffer.extendleft(reversed(rows))
        self.buffered += len(rows)

    # --- verdicts -----------------------------------------------------------------------------------------------

    def settle(self, verdict: Verdict, first: int, last: int, due: float) -> list[bytes]:
        """One verdict over what is out between two tokens, both included; the IDs that are to be acknowledged.

        ``due`` is when nacked rows go out again.
        """
        done: list[bytes] = []
        at = max(0, bisect_right(self._out, first, key=_token) - 1)
        for piece in self._out[at : bisect_right(self._out, last, key=_token)]:
            low, high = max(0, first - piece.token), min(len(piece), last + 1 - piece.token)
            if low >= high:
                continue
            if high - low == piece.open == len(piece) and verdict is not Verdict.NACK:
                done += piece.ids
                self._drop(piece, len(piece))
                continue
            marks = piece.marks
            rows = [row for row in range(low, high) if marks is None or not marks[row]]
            if not rows:
                continue
            if verdict is Verdict.NACK:
                for row in rows:
                    self._delay(piece, row, due)
            else:
                done += [piece.ids[row] for row in rows]
            if piece.marks is None:
                piece.marks = bytearray(len(piece))
            for row in rows:
                piece.marks[row] = 1
            self._drop(piece, len(rows))
        return done

    def _drop(self, piece: Piece, count: int) -> None:
        self.in_hand -= count
        piece.open -= count
        if piece.open == 0:
            self._out.remove(piece)
            self.in_hand_bytes -= piece.batch.nbytes

    def _delay(self, piece: Piece, row: int, due: float) -> None:
        number = piece.token + row
        again = piece.part(row, row + 1)
        self._delayed[number] = Piece(again.ids, again.batch, [piece.attempts[row] + 1])
        heapq.heappush(self._again, (due, number))
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

    @property
    def count(self) -> int:
        """How many entries are held in any way."""
        return self.in_hand + self.buffered + self.delayed

    def ids(self) -> list[bytes]:
        """All IDs that are held unsettled, in no order."""
        found: list[bytes] = []
        for piece in self._out:
            marks = piece.marks
            found += piece.ids if marks is None else [i for i, mark in zip(piece.ids, marks, strict=True) if not mark]
        for pieces in _all(self._buffer, self._delayed.values(), *self._waiting.values()):
            found += pieces.ids
        return found


def _all(*groups: Iterable[Piece]) -> Iterable[Piece]:
    for group in groups:
        yield from group


def _token(piece: Piece) -> int:
    return piece.token
