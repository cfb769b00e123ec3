"""The oracle: the bodies that should have come, made again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from simlink.block import Block
from simlink.errors import ConfigError
from simlink.generators.faults.stretches import Altered
from simlink.generators.source import Chunk, Source, key_column

if TYPE_CHECKING:
    from simlink.serializers.serializer import Serializer

__all__ = ["Index", "Oracle"]

_BLOCK = 4096
_CACHE_BYTES = 64 * 1024 * 1024
_Ints: TypeAlias = "npt.NDArray[np.int64]"


class Oracle:
    """The bodies that a source makes, row by row, in any order; at most 64 MiB of them are kept.

    Args:
        count: rows from there on are never asked for.
    """

    def __init__(self, source: Source, serializer: Serializer, count: int) -> None:
        self._source = source
        self._serializer = serializer
        self._count = count
        self._kept: OrderedDict[int, tuple[list[bytes], int]] = OrderedDict()
        self._nbytes = 0
        # Where a source is not seekable it is read from its beginning, and once more when a row is asked for that lies
        # behind what is kept.
        self._ahead: Iterator[tuple[int, list[Chunk]]] | None = None
        self._at = 0

    def bodies(self, rows: _Ints) -> list[bytes]:
        """The bodies of these rows."""
        first, last = int(rows[0]), int(rows[-1])
        base = first // _BLOCK
        if last - first == len(rows) - 1 and base == last // _BLOCK and bool((np.diff(rows) == 1).all()):
            here = self.block(base)
            self._check(last, here)
            return here[first - base * _BLOCK : last + 1 - base * _BLOCK]
        out: list[bytes] = []
        block = -1
        here = []
        for row in rows.tolist():
            if row >> 12 != block:
                block = row >> 12
                here = self.block(block)
            self._check(row, here)
            out.append(here[row & (_BLOCK - 1)])
        return out

    def block(self, k: int) -> list[bytes]:
        """The bodies of the rows ``4096 k …``."""
        found = self._kept.get(k)
        if found is not None:
            self._kept.move_to_end(k)
            return found[0]
        for number, values in self._made(k):
            bodies = self._encoded(values)
            size = sum(map(len, bodies))
            self._kept[number] = (bodies, size)
            self._nbytes += size
            while self._nbytes > _CACHE_BYTES and len(self._kept) > 2:
                self._nbytes -= self._kept.popitem(last=False)[1][1]
            if number == k:
                return bodies
        raise self._ended(k * _BLOCK)

    def values(self, k: int) -> Chunk:
        """The rows ``4096 k …`` as the source makes them."""
        for number, values in self._made(k):
            if number == k:
                here = _joined(values)
                self._check(min(self._count, (k + 1) * _BLOCK) - 1, here)
                return here
        raise self._ended(k * _BLOCK)

    def _check(self, row: int, here: Chunk | list[bytes]) -> None:
        """Whether a row is in its block; nobody knows how long a source is that is read."""
        if row % _BLOCK >= len(here):
            raise self._ended(row - row % _BLOCK + len(here))

    def _ended(self, row: int) -> ConfigError:
        return ConfigError(f"{self._source.name} has no row {row}: it ended before; give the count that was sent")

    def _encoded(self, chunks: list[Chunk]) -> list[bytes]:
        parts = [
            c.encode(self._serializer) if isinstance(c, Altered) else self._serializer.dumps_many(c) for c in chunks
        ]
        return parts[0] if len(parts) == 1 else [body for part in parts for body in part]

    def _made(self, k: int) -> Iterator[tuple[int, list[Chunk]]]:
        """Block ``k``, in the chunks in which it came; of a source that is not seekable, whatever comes before it
        too."""
        first = k * _BLOCK
        stop = min(first + _BLOCK, self._count)
        if self._source.seekable:
            yield k, list(self._source.chunks(first, stop, _BLOCK)) or [[]]
            return
        if self._ahead is None or self._at > k:
            self._ahead = self._read()
        for number, values in self._ahead:
            self._at = number + 1
            yield number, values
            if number >= k:
                return

    def _read(self) -> Iterator[tuple[int, list[Chunk]]]:
        self._at = number = rows = 0
        pieces: list[Chunk] = []
        for whole in self._source.chunks(0, self._count, _BLOCK):
            chunk: Chunk = whole
            while rows + len(chunk) >= _BLOCK:
                cut = _BLOCK - rows
                yield number, [*pieces, chunk[:cut]]
                number, rows, pieces, chunk = number + 1, 0, [], chunk[cut:]
            if len(chunk):
                pieces.append(chunk)
                rows += len(chunk)
        if rows:
            yield number, pieces


def _joined(chunks: list[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    return [row for chunk in chunks for row in (chunk.rows() if isinstance(chunk, Block) else chunk)]


class Index:
    """From the value of a field to its row, 16 bytes a row: hashes, sorted."""

    def __init__(self, oracle: Oracle, field: str, count: int) -> None:
        self._field = field
        hashes = np.empty(count, np.int64)
        for first in range(0, count, _BLOCK):
            column = self._hashes(oracle.values(first // _BLOCK))
            hashes[first : first + len(column)] = column
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]
        same = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        if len(same):
            rows = sorted(self._order[same[0] : same[0] + 2].tolist())
            raise ConfigError(f"on={field!r} does not tell the rows: rows {rows[0]} and {rows[1]} have the same value")

    def _hashes(self, values: list[Any] | Block) -> _Ints:
        # As a key: text, bytes and integers, whatever they were decoded into.
        keys = key_column(values, self._field)
        return np.fromiter(map(hash, keys), np.int64, len(keys))

    def rows_of(self, values: list[Any]) -> _Ints:
        """The rows, -1 where there is none."""
        try:
            hashes = self._hashes(values)
        except ConfigError:
            # Some value has no such field; find out which one by one.
            return np.asarray([self._row_of(value) for value in values], np.int64)
        at = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        return np.where(self._sorted[at] == hashes, self._order[at], -1).astype(np.int64)

    def _row_of(self, value: Any) -> int:
        try:
            hashes = self._hashes([value])
        except ConfigError:
            return -1
        at = min(int(np.searchsorted(self._sorted, hashes[0])), len(self._sorted) - 1)
        return int(self._order[at]) if self._sorted[at] == hashes[0] else -1
