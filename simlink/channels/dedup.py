"""Telling duplicates: which (producer, sequence) a receiver already holds or has settled.

A flag a sequence, in blocks of 4,096 that are made when they are needed; a full block costs next to nothing. What lies
below the producer's own ``low`` (it will not send that again), more than ``window`` below its highest, or is of the
producers that were heard of longest ago when ``max_bytes`` are full, is forgotten: should it come again it counts as
fresh, because a duplicate is better than a loss.
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

# What things cost, in bytes, rounded up from what tracemalloc tells.
_PRODUCER = 512
_PLACE = 160
"""Of a block in its producer's dictionary."""
_BITS = _BLOCK + 160
"""Of a block's flags; the full ones share theirs."""


class _Producer:
    """The sequences of one producer: block number → its flags."""

    __slots__ = ("blocks", "floor", "haze", "high", "nbytes")

    def __init__(self) -> None:
        self.blocks: dict[int, Bits] = {}
        self.floor = 0
        """Nothing below this is remembered."""
        self.haze = 0
        """What is not marked below this may have been forgotten."""
        self.high = 0
        """The highest marked sequence, plus one: what lies above is fresh without a look."""
        self.nbytes = _PRODUCER

    def put(self, block: int, bits: Bits) -> Bits:
        self.take(block)
        self.blocks[block] = bits
        self.nbytes += _PLACE if bits is _FULL else _PLACE + _BITS
        return bits

    def take(self, block: int) -> None:
        bits = self.blocks.pop(block, None)
        if bits is not None:
            self.nbytes -= _PLACE if bits is _FULL else _PLACE + _BITS

    def writable(self, block: int) -> Bits:
        bits = self.blocks.get(block)
        if bits is None:
            return self.put(block, np.zeros(_BLOCK, np.bool_))
        return self.put(block, _FULL.copy()) if bits is _FULL else bits

    def forget_below(self, low: int) -> None:
        old, new = self.floor >> _SHIFT, low >> _SHIFT
        for block in range(old, new) if new - old < len(self.blocks) else [n for n in self.blocks if n < new]:
            self.take(block)
        self.floor = low
        self.haze = max(self.haze, low)

    def forget_all(self) -> None:
        self.blocks = {}
        self.haze = self.high
        self.nbytes = _PRODUCER


class Deduplicator:
    """Drops nothing itself: `check` tells, the caller decides, `mark` remembers. For one thread.

    When it is full, the producers that were heard of longest ago lose their marks first. They themselves stay known,
    for as long as they take no more than an eighth of the room, so that what comes of theirs is counted.

    Args:
        max_bytes: what it takes at most, of all producers together; at least what one window takes.
        window: how far below a producer's highest sequence is remembered.

    Attributes:
        nbytes: what it takes now.
        forgotten: how many sequences came that may have been forgotten, and so could not be judged.
        evicted: how many producers were forgotten altogether; their sequences are as good as new.

    Raises:
        ValueError: ``max_bytes`` is less than one window may take.
    """

    def __init__(self, max_bytes: int = 32 * 1024 * 1024, window: int = 1 << 20) -> None:
        # A window touches one block more than it fills.
        least = _PRODUCER + (window // _BLOCK + 2) * (_PLACE + _BITS)
        if max_bytes < least:
            raise ValueError(f"max_bytes={max_bytes}, and a window of {window} sequences takes up to {least}")
        self.max_bytes = max_bytes
        self.window = window
        self.nbytes = 0
        self.forgotten = 0
        self.evicted = 0
        # Both from the one that was used longest ago to the one that was used last.
        self._marked: OrderedDict[bytes, _Producer] = OrderedDict()
        self._bare: OrderedDict[bytes, _Producer] = OrderedDict()
        """Those that have lost their marks."""

    def __len__(self) -> int:
        """The number of producers known."""
        return len(self._marked) + len(self._bare)

    def _find(self, producer: bytes) -> _Producer | None:
        for known in (self._marked, self._bare):
            if (found := known.get(producer)) is not None:
                known.move_to_end(producer)
                return found
        return None

    def check(self, producer: bytes, sequences: Sequences) -> Bits | None:
        """Which rows are duplicates, of what was marked or of an earlier row; None when all are fresh."""
        known = self._find(producer)
        if isinstance(sequences, range) and sequences.step == 1:
            if known is None or not sequences or sequences.start >= known.high:
                return None
            return self._check_range(known, sequences.start, sequences.stop)
        numbers = np.asarray(sequences, np.int64)
        seen = np.zeros(len(numbers), np.bool_)
        if len(numbers) > 1 and not (np.diff(numbers) > 0).all():
            seen[:] = True
            seen[np.unique(numbers, return_index=True)[1]] = False
        if known is not None and len(numbers) and int(numbers.min()) < known.high:
            for block, rows in _by_block(numbers):
                bits = known.blocks.get(block)
                if bits is not None:
                    seen[rows] |= bits[numbers[rows] & (_BLOCK - 1)] & (numbers[rows] >= known.floor)
            self.forgotten += int(((numbers < known.haze) & ~seen).sum())
        return seen if seen.any() else None

    def _check_range(self, known: _Producer, start: int, stop: int) -> Bits | None:
        seen: Bits | None = None
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
        if start < known.haze:
            hazy = min(stop, known.haze) - start
            self.forgotten += hazy if seen is None else hazy - int(seen[:hazy].sum())
        return seen

    def mark(self, producer: bytes, sequences: Sequences) -> None:
        """Remember these as held or settled."""
        if not len(sequences):
            return
        known = self._find(producer)
        if known is None:
            known = self._marked[producer] = _Producer()
            self.nbytes += known.nbytes
        elif self._bare.pop(producer, None) is not None:
            self._marked[producer] = known
        before = known.nbytes
        if isinstance(sequences, range) and sequences.step == 1:
            high = sequences.stop
            start = max(sequences.start, known.floor, high - self.window)
            if start + 1 == high and high & (_BLOCK - 1):
                # One message, which does not end its block: somebody may be waiting for it.
                known.writable(start >> _SHIFT)[start & (_BLOCK - 1)] = True
            else:
                for block, a, b in _pieces(start, high):
                    _mark_piece(known, block, a, b)
        else:
            numbers = np.asarray(sequences, np.int64)
            high = int(numbers.max()) + 1
            # What would be forgotten at once, because the batch itself goes so far beyond it, is not noted at all.
            numbers = numbers[numbers >= max(known.floor, high - self.window)]
            for block, rows in _by_block(numbers):
                bits = known.writable(block)
                bits[numbers[rows] & (_BLOCK - 1)] = True
                if bits.all():
                    known.put(block, _FULL)
        if high > known.high:
            known.high = high
            if high - self.window > known.floor:
                known.forget_below(high - self.window)
        self._grew(known.nbytes - before)

    def unmark(self, producer: bytes, sequences: Sequences) -> None:
        """Forget these: they were handed back unsettled, and may rightly come again."""
        known = self._find(producer)
        if known is None:
            return
        before = known.nbytes
        numbers = np.asarray(sequences, np.int64)
        for block, rows in _by_block(numbers):
            if block in known.blocks:
                known.writable(block)[numbers[rows] & (_BLOCK - 1)] = False
        self._grew(known.nbytes - before)

    def forget_below(self, producer: bytes, low: int) -> None:
        """The producer will not send anything below ``low`` again."""
        known = self._find(producer)
        if known is not None and low > known.floor:
            before = known.nbytes
            known.forget_below(low)
            self._grew(known.nbytes - before)

    def _grew(self, nbytes: int) -> None:
        """Keep to the bound. The producer that has grown is the last to lose anything, and fits in alone."""
        self.nbytes += nbytes
        while self.nbytes > self.max_bytes:
            if len(self._bare) * _PRODUCER > self.max_bytes // 8 or len(self._marked) == 1:
                self._bare.popitem(last=False)
                self.nbytes -= _PRODUCER
                self.evicted += 1
            else:
                name, known = self._marked.popitem(last=False)
                self.nbytes -= known.nbytes - _PRODUCER
                known.forget_all()
                self._bare[name] = known


def _mark_piece(known: _Producer, block: int, a: int, b: int) -> None:
    if b - a == _BLOCK:
        known.put(block, _FULL)
        return
    bits = known.writable(block)
    bits[a:b] = True
    # In order, a block is filled by the piece that reaches its end; it is looked at then only.
    if b == _BLOCK and bits.all():
        known.put(block, _FULL)


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
