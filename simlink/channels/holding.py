"""What a receiver holds of one part of a broker's log: fetched, handed out, handed back, and held back.

Pure bookkeeping; the clock comes in as an argument. The way of a row::

    buffer ── hand out ──► out ── ack, reject ──► done: whoever reads the log has it written down
       ▲ (key free again)   │ nack
    waiting ◄── its key     ▼
                          again ── when due ──► out, one attempt later
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from simlink.channels.driver import Incoming, Lease
from simlink.message import Batch, Verdict

__all__ = ["Holding", "Piece"]

I = TypeVar("I")  # noqa: E741 – what rows are called
L = TypeVar("L", bound=Lease)


class Piece(Generic[I]):
    """Some rows of the log, in order.

    Attributes:
        ids: what the log calls them: offsets, entry IDs. A ``range`` where they are integers that follow one another.
        open: how many of them the application has not settled.
        token: of the first row, once it is out; for those whose tokens are not the ids.
    """

    __slots__ = ("attempts", "batch", "ids", "marks", "open", "token")

    def __init__(self, ids: Sequence[I], batch: Batch, attempts: Sequence[int]) -> None:
        self.ids = ids
        self.batch = batch
        self.attempts = attempts
        self.open = len(ids)
        self.marks: bytearray | None = None  # which rows are settled, once some are and others are not
        self.token = -1

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> Piece[I]:
        if start == 0 and stop == len(self.ids):
            return self
        return Piece(self.ids[start:stop], self.batch[start:stop], self.attempts[start:stop])

    def take(self, rows: Sequence[int]) -> Piece[I]:
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


class Holding(ABC, Generic[I, L]):
    """The rows of one part of a log, while they are one receiver's.

    Attributes:
        lease: what their tokens are under.
        in_hand: messages that the application holds unsettled.
        in_hand_bytes: the bytes of the pieces that they are in.
        buffered: fetched and not handed out.
    """

    __slots__ = (
        "_again",
        "_blocked",
        "_buffer",
        "_delayed",
        "_out",
        "_waiting",
        "buffered",
        "in_hand",
        "in_hand_bytes",
        "lease",
    )

    def __init__(self, lease: L) -> None:
        self.lease = lease
        self.in_hand = 0
        self.in_hand_bytes = 0
        self.buffered = 0
        self._buffer: deque[Piece[I]] = deque()
        self._out: list[Piece[I]] = []  # by token
        self._again: list[tuple[float, int]] = []  # a heap of (due, token)
        self._delayed: dict[int, Piece[I]] = {}  # token → its row
        self._blocked: dict[bytes, int] = {}  # key → how many of its rows are delayed
        self._waiting: dict[bytes, list[Piece[I]]] = {}  # key → rows that wait for it, in order

    # --- what depends on the log --------------------------------------------------------------------------------

    @abstractmethod
    def _put_out(self, piece: Piece[I]) -> Sequence[int]:
        """Put a piece among those that are out; its tokens, ascending."""

    @abstractmethod
    def _token(self, piece: Piece[I], row: int) -> int:
        """The token of a row that is out."""

    def _left_buffer(self, piece: Piece[I]) -> None:
        """The piece goes out, or waits for a key: it is the application's concern from here on."""

    # --- out ----------------------------------------------------------------------------------------------------

    def _hand_out(
        self, limit: int, nbytes: int, now: float, allowed: Callable[[Piece[I]], int] = len
    ) -> list[Incoming]:
        """At most ``limit`` rows of at most ``nbytes`` bytes, but one row may be larger where nothing is in hand; of
        each piece in the buffer no more than ``allowed`` says."""
        out: list[Incoming] = []
        while limit > 0 and self._again and self._again[0][0] <= now:
            piece = self._delayed.pop(heapq.heappop(self._again)[1])
            self._unblock(piece.batch.keys[0])
            limit -= 1
            nbytes -= self._give(piece, out)
        while limit > 0 and self._buffer:
            piece = self._buffer[0]
            most = allowed(piece)
            fitting = min(most, limit, piece.fitting(max(0, nbytes)))
            if fitting == 0 and most and self.in_hand == 0:
                fitting = 1
            if fitting == 0:
                break
            self._buffer.popleft()
            if fitting < len(piece):
                self._buffer.appendleft(piece.part(fitting, len(piece)))
                piece = piece.part(0, fitting)
            self.buffered -= fitting
            self._left_buffer(piece)
            free = self._set_aside(piece) if self._blocked else piece
            if free is not None:
                limit -= len(free)
                nbytes -= self._give(free, out)
        return out

    def _set_aside(self, piece: Piece[I]) -> Piece[I] | None:
        """Put rows whose key waits for a nacked message behind it; the others, or None."""
        free: list[int] = []
        for row, key in enumerate(piece.batch.keys):
            if key is not None and key in self._blocked:
                self._waiting.setdefault(key, []).append(piece.part(row, row + 1))
            else:
                free.append(row)
        return piece.take(free) if free else None

    def _give(self, piece: Piece[I], out: list[Incoming]) -> int:
        size = piece.batch.nbytes
        self.in_hand += len(piece)
        self.in_hand_bytes += size
        out.append(Incoming(piece.batch, self._put_out(piece), piece.attempts, self.lease))
        return size

    def _unblock(self, key: bytes | None) -> None:
        if key is None:
            return
        left = self._blocked[key] - 1
        if left:
            self._blocked[key] = left
            return
        del self._blocked[key]
        # Back to the front of the buffer. That they left it before does no harm.
        rows = self._waiting.pop(key, [])
        self._buffer.extendleft(reversed(rows))
        self.buffered += len(rows)

    # --- verdicts -----------------------------------------------------------------------------------------------

    def _settle(self, piece: Piece[I], low: int, high: int, verdict: Verdict, due: float) -> Sequence[I]:
        """One verdict over the rows of a piece from ``low`` up to ``high``; those that had none yet. Nacked ones go out
        again when they are due."""
        whole = high - low == piece.open == len(piece)
        marks = piece.marks
        rows = range(low, high) if whole else [row for row in range(low, high) if marks is None or not marks[row]]
        if verdict is Verdict.NACK:
            for row in rows:
                self._delay(piece, row, due)
        if rows and not whole:
            if marks is None:
                marks = piece.marks = bytearray(len(piece))
            for row in rows:
                marks[row] = 1
        self._drop(piece, len(rows))
        return piece.ids if whole else [piece.ids[row] for row in rows]

    def _drop(self, piece: Piece[I], count: int) -> None:
        self.in_hand -= count
        piece.open -= count
        if count and piece.open == 0:
            self._out.remove(piece)
            self.in_hand_bytes -= piece.batch.nbytes

    def _delay(self, piece: Piece[I], row: int, due: float) -> None:
        token = self._token(piece, row)
        again = piece.part(row, row + 1)
        self._delayed[token] = Piece(again.ids, again.batch, [piece.attempts[row] + 1])
        heapq.heappush(self._again, (due, token))
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
