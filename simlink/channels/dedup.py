"""Telling duplicates: which (producer, sequence) a receiver already holds or has settled.

A bit a sequence, in blocks of 4,096 that are made when they are needed; a full block costs nothing. What lies below
the producer's own ``low`` (it will not send that again), more than ``window`` below its highest, or beyond the
``max_producers`` used last is forgotten: should it come again it counts as fresh, because a duplicate is better than
a loss.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Deduplicator"]

Bits = NDArray[np.bool_]
Sequences = range | Sequence[Any] | NDArray[np.int64]
_BLOCK = 4096
_SHIFT = 12
_FULL: Bits = np.ones(_BLOCK, np.bool_)
_FULL.setflags(write=False)


class _Producer:
    """The sequences of one producer: block number → its bits."""

    __slots__ = ("blocks", "floor", "high")

    def __init__(self) -> None:
        self.blocks: dict[int, Bits] = {}
        self.floor = 0
        """Below this everything is forgotten."""
        self.high = 0
        """The highest marked sequence, plus one: what lies above is fresh without a look."""


class Deduplicator:
    """Drops nothing itself: `check` tells, the caller decides, `mark` remembers. For one thread.

    Args:
        max_producers: how many producers are remembered; the least recently used one goes first.
        window: how far below a producer's highest sequence is remembered.

    Attributes:
        forgotten: how many sequences came that lie below what is remembered, and so could not be judged.
    """

    def __init__(self, max_producers: int = 1024, window: int = 1 << 20) -> None:
        self.max_producers = max_producers
        self.window = window
        self.forgotten = 0
        self._producers: OrderedDict[bytes, _Producer] = OrderedDict()

    def __len__(self) -> int:
        """The number of producers remembered."""
        return len(self._producers)

    def check(self, producer: bytes, sequences: Sequences) -> Bits | None:
        """Which rows are duplicates, of what was marked or of an earlier row; None when all are fresh."""
        known = self._producers.get(producer)
        if isinstance(sequences, range) and sequences.step == 1:
            if known is None or not sequences:
                return None
            self._producers.move_to_end(producer)
            if sequences.start >= known.high:
                return None
            return self._check_range(known, sequences.start, sequences.stop)
        numbers = np.asarray(sequences, np.int64)
        seen = np.zeros(len(numbers), np.bool_)
        if len(numbers) > 1 and not (np.diff(numbers) > 0).all():
            seen[:] = True
            seen[np.unique(numbers, return_index=True)[1]] = False
        if known is not None and len(numbers):
            self._producers.move_to_end(producer)
            if int(numbers.min()) < known.high:
                self.forgotten += int((numbers < known.floor).sum())
                for block, rows in _by_block(numbers):
                    bits = known.blocks.get(block)
                    if bits is not None:
                        seen[rows] |= bits[numbers[rows] & (_BLOCK - 1)] & (numbers[rows] >= known.floor)
        return seen if seen.any() else None

    def _check_range(self, known: _Producer, start: int, stop: int) -> Bits | None:
        seen: Bits | None = None
        if start < known.floor:
            self.forgotten += min(stop, known.floor) - start
        for block, a, b in _pieces(max(start, known.floor), min(stop, known.high)):
            bits = known.blocks.get(block)
            if bits is None:
                continue
            part = bits[a:b]
            if part.any():
                if seen is None:
                    seen = np.zeros(stop - start, np.bool_)
                at = (block << _SHIFT) + a - start
                seen[at : at + b - a] = part
        return seen

    def mark(self, producer: bytes, sequences: Sequences) -> None:
        """Remember these as held or settled."""
        if not len(sequences):
            return
        known = self._producers.get(producer)
        if known is None:
            known = self._producers[producer] = _Producer()
            if len(self._producers) > self.max_producers:
                self._producers.popitem(last=False)
        self._producers.move_to_end(producer)
        if isinstance(sequences, range) and sequences.step == 1:
            high = sequences.stop
            start = sequences.start
            if start + 1 == high and (high & (_BLOCK - 1)) and start >= known.floor:
                # One message, which does not end its block: somebody may be waiting for it.
                bits = known.blocks.get(start >> _SHIFT)
                if bits is None or bits is _FULL:
                    bits = _writable(known, start >> _SHIFT)
                bits[start & (_BLOCK - 1)] = True
                if high > known.high:
                    known.high = high
                    if high - self.window > known.floor:
                        self._forget(known, high - self.window)
                return
            for block, a, b in _pieces(max(sequences.start, known.floor), high):
                self._set_slice(known, block, a, b)
        else:
            numbers = np.asarray(sequences, np.int64)
            high = int(numbers.max()) + 1
            # What would be forgotten at once, because the batch itself goes so far beyond it, is not noted at all.
            numbers = numbers[numbers >= max(known.floor, high - self.window)]
            for block, rows in _by_block(numbers):
                bits = _writable(known, block)
                bits[numbers[rows] & (_BLOCK - 1)] = True
                if bits.all():
                    known.blocks[block] = _FULL
        if high > known.high:
            known.high = high
            if high - self.window > known.floor:
                self._forget(known, high - self.window)

    @staticmethod
    def _set_slice(known: _Producer, block: int, a: int, b: int) -> None:
        if b - a == _BLOCK:
            known.blocks[block] = _FULL
            return
        bits = _writable(known, block)
        bits[a:b] = True
        # In order, a block is filled by the piece that reaches its end; it is looked at then only.
        if b == _BLOCK and bits.all():
            known.blocks[block] = _FULL

    def unmark(self, producer: bytes, sequences: Sequences) -> None:
        """Forget these: they were handed back unsettled, and may rightly come again."""
        known = self._producers.get(producer)
        if known is None:
            return
        numbers = np.asarray(sequences, np.int64)
        for block, rows in _by_block(numbers):
            if block in known.blocks:
                _writable(known, block)[numbers[rows] & (_BLOCK - 1)] = False

    def forget_below(self, producer: bytes, low: int) -> None:
        """The producer will not send anything below ``low`` again."""
        known = self._producers.get(producer)
        if known is not None and low > known.floor:
            self._forget(known, low)

    @staticmethod
    def _forget(known: _Producer, low: int) -> None:
        old, new = known.floor >> _SHIFT, low >> _SHIFT
        if new - old < len(known.blocks):
            for block in range(old, new):
                known.blocks.pop(block, None)
        else:
            known.blocks = {n: bits for n, bits in known.blocks.items() if n >= new}
        known.floor = low


def _writable(known: _Producer, block: int) -> Bits:
    bits = known.blocks.get(block)
    if bits is None:
        bits = known.blocks[block] = np.zeros(_BLOCK, np.bool_)
    elif bits is _FULL:
        bits = known.blocks[block] = _FULL.copy()
    return bits


def _pieces(start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """``(block, a, b)``: the rows ``a … b - 1`` of every block that ``[start, stop)`` touches."""
    while start < stop:
        block, a = start >> _SHIFT, start & (_BLOCK - 1)
        b = min(_BLOCK, a + stop - start)
        yield block, a, b
        start += b - a


def _by_block(numbers: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """``(block, indices of the numbers in it)``."""
    blocks = numbers >> _SHIFT
    # Sorted once: whoever spreads a batch over as many blocks as it has rows shall not cost their product.
    order = np.argsort(blocks, kind="stable")
    ordered = blocks[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    for rows in np.split(order, starts[1:]) if len(order) else ():
        yield int(blocks[rows[0]]), rows
