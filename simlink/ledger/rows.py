"""A set of row numbers, by batches, in little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["RowSet"]

_SHIFT = 16
_PAGE = 1 << _SHIFT
_MASK = _PAGE - 1
_OPEN = 16

Rows: TypeAlias = "Sequence[int] | npt.NDArray[np.int64]"
Firsts: TypeAlias = "npt.NDArray[np.bool_]"


class _Page:
    """The members of a page with holes: a byte each while it is in use, a bit each when it is not."""

    __slots__ = ("_bits", "_packed", "members")

    def __init__(self, bits: Firsts, members: int) -> None:
        self._bits: Firsts | None = bits
        self._packed: npt.NDArray[np.uint8] | None = None
        self.members = members

    def open(self) -> Firsts:
        """The members, to be written to; `close` it later."""
        if self._bits is None:
            assert self._packed is not None
            self._bits, self._packed = np.unpackbits(self._packed).astype(np.bool_), None
        return self._bits

    def read(self) -> Firsts:
        """The members."""
        if self._bits is not None:
            return self._bits
        assert self._packed is not None
        return np.unpackbits(self._packed).astype(np.bool_)

    def close(self) -> None:
        """Keep it small."""
        if self._bits is not None:
            self._packed, self._bits = np.packbits(self._bits), None


class RowSet:
    """Non-negative integers, kept in pages of 65,536.

    A page whose members are its first ones (a stream in order, so far) costs one integer; any other costs a bit a row,
    8 KiB (the 16 that were opened last: a byte a row). Beyond ``max_pages`` of them the oldest is forgotten: a row in
    it that comes again counts as new.

    Args:
        max_pages: default 16,384: 128 MiB, or a thousand million rows with holes.

    Attributes:
        count: how many different rows were added.
        forgotten: how many pages were forgotten.
    """

    def __init__(self, max_pages: int = 16_384) -> None:
        self.count = 0
        self.forgotten = 0
        self._max_pages = max_pages
        # The number of leading members, or the page with holes.
        self._pages: dict[int, int | _Page] = {}
        self._open: dict[int, _Page] = {}

    def add(self, rows: Rows) -> Firsts | None:
        """Add rows.

        Returns:
            Which of them were new (of a row that stands there twice, the first one); None when all were.

        Raises:
            ValueError: a negative row.
        """
        n = len(rows)
        if not n:
            return None
        if isinstance(rows, range) and rows.step == 1:
            return self._add_range(rows.start, rows.stop)
        numbers = np.asarray(rows, np.int64)
        first, last = int(numbers[0]), int(numbers[-1])
        step = int(np.diff(numbers).min()) if n > 1 else 1
        if step == 1 and last - first == n - 1:
            return self._add_range(first, last + 1)
        ascending = step > 0
        low, high = (first, last) if ascending else (int(numbers.min()), int(numbers.max()))
        if low < 0:
            raise ValueError("rows are counted from 0")
        if low >> _SHIFT == high >> _SHIFT:
            firsts = self._add_to(low >> _SHIFT, numbers & _MASK, ascending=ascending)
        else:
            pages = numbers >> _SHIFT
            firsts = np.empty(n, np.bool_)
            for page in np.unique(pages).tolist():
                here = pages == page
                firsts[here] = self._add_to(page, numbers[here] & _MASK, ascending=ascending)
        new = int(np.count_nonzero(firsts))
        self.count += new
        return None if new == n else firsts

    def _add_range(self, start: int, stop: int) -> Firsts | None:
        if start < 0:
            raise ValueError("rows are counted from 0")
        firsts: Firsts | None = None
        at = start
        while at < stop:
            page, low = at >> _SHIFT, at & _MASK
            high = min(stop - at + low, _PAGE)
            known = self._pages.get(page, 0)
            if isinstance(known, int) and known == low:
                self._put(page, high)
                self.count += high - low
            else:
                new = self._add_to(page, np.arange(low, high), ascending=True)
                count = int(np.count_nonzero(new))
                self.count += count
                if count < high - low:
                    if firsts is None:
                        firsts = np.ones(stop - start, np.bool_)
                    firsts[at - start : at - start + high - low] = new
            at += high - low
        return firsts

    def _add_to(self, page: int, offsets: npt.NDArray[np.int64], *, ascending: bool) -> Firsts:
        """Add to one page; which were new."""
        known = self._pages.get(page, 0)
        if isinstance(known, int):
            old = offsets < known
            if old.all():
                return ~old
            known = _Page(np.arange(_PAGE) < known, known)
            self._put(page, known)
        bits = known.open()
        firsts = ~bits[offsets]
        bits[offsets] = True
        if not ascending:
            # Some row may stand twice in this very batch: only its first place counts.
            once = np.zeros(len(offsets), np.bool_)
            once[np.unique(offsets, return_index=True)[1]] = True
            firsts &= once
        known.members += int(np.count_nonzero(firsts))
        if known.members == _PAGE:
            self._open.pop(page, None)
            self._put(page, _PAGE)
        elif page not in self._open:
            self._open[page] = known
            if len(self._open) > _OPEN:
                self._open.pop(next(iter(self._open))).close()
        return firsts

    def _put(self, page: int, state: int | _Page) -> None:
        self._pages[page] = state
        if len(self._pages) > self._max_pages:
            oldest = next(iter(self._pages))
            self._pages.pop(oldest)
            self._open.pop(oldest, None)
            self.forgotten += 1

    def __len__(self) -> int:
        return self.count

    def __contains__(self, row: int) -> bool:
        known = self._pages.get(row >> _SHIFT, 0)
        offset = row & _MASK
        if isinstance(known, int):
            return offset < known
        return bool(known.read()[offset])

    def below(self, stop: int) -> int:
        """How many members are less than ``stop``."""
        total, last, rest = 0, stop >> _SHIFT, stop & _MASK
        for page, known in self._pages.items():
            if page < last:
                total += known if isinstance(known, int) else known.members
            elif page == last:
                total += min(known, rest) if isinstance(known, int) else int(known.read()[:rest].sum())
        return total

    def missing(self, stop: int) -> Iterator[int]:
        """The rows from 0 up to ``stop - 1`` that are not members, ascending."""
        for page in range((stop + _MASK) >> _SHIFT):
            known = self._pages.get(page, 0)
            base = page << _SHIFT
            end = min(stop - base, _PAGE)
            if isinstance(known, int):
                yield from range(base + known, base + end)
            else:
                yield from (base + np.flatnonzero(~known.read()[:end])).tolist()
