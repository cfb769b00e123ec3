"""What a receiver holds of one stream; see `simlink.channels.holding`.

Every hand-out gets tokens of its own, so they ascend, and what is done is an ID that is to be acknowledged.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import chain

from simlink.channels.driver import Incoming, Lease
from simlink.channels.holding import Holding, Piece
from simlink.message import Batch, Same, Verdict

__all__ = ["ClaimLease", "Hold"]


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


class Hold(Holding[bytes, ClaimLease]):
    """Args:
    lease: what the tokens are under.
    """

    __slots__ = ("_next",)

    def __init__(self, lease: ClaimLease) -> None:
        super().__init__(lease)
        self._next = 0

    # --- in and out ---------------------------------------------------------------------------------------------

    def add(self, ids: Sequence[bytes], batch: Batch, attempts: Sequence[int] | None = None) -> None:
        """Entries behind everything that is here."""
        if len(ids):
            self._buffer.append(Piece(ids, batch, Same(1, len(ids)) if attempts is None else attempts))
            self.buffered += len(ids)

    def hand_out(self, limit: int, nbytes: int, now: float) -> list[Incoming]:
        """At most ``limit`` rows of at most ``nbytes`` bytes, but one row may be larger where nothing is in hand."""
        return self._hand_out(limit, nbytes, now)

    def _put_out(self, piece: Piece[bytes]) -> Sequence[int]:
        piece.token = self._next
        self._next += len(piece)
        self._out.append(piece)
        return range(piece.token, self._next)

    def _token(self, piece: Piece[bytes], row: int) -> int:
        return piece.token + row

    # --- verdicts -----------------------------------------------------------------------------------------------

    def settle(self, verdict: Verdict, first: int, last: int, due: float) -> list[bytes]:
        """One verdict over what is out between two tokens, both included; the IDs that are to be acknowledged.

        ``due`` is when nacked rows go out again.
        """
        done: list[bytes] = []
        at = max(0, bisect_right(self._out, first, key=_first) - 1)
        for piece in self._out[at : bisect_right(self._out, last, key=_first)]:
            low, high = max(0, first - piece.token), min(len(piece), last + 1 - piece.token)
            if low >= high:
                continue
            settled = self._settle(piece, low, high, verdict, due)
            if verdict is not Verdict.NACK:
                done += settled
        return done

    # --- questions ----------------------------------------------------------------------------------------------

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
        for piece in chain(self._buffer, self._delayed.values(), *self._waiting.values()):
            found += piece.ids
        return found


def _first(piece: Piece[bytes]) -> int:
    return piece.token
