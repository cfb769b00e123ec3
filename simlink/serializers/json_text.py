"""A block as JSON: written as one text, and cut.

A row's text is the same names and brackets as every row's, with the values between them. So each column is encoded as a
whole and cut into its values, and everything is joined once. What a pool's values look like in JSON is found out once,
with the names around them; a row only looks it up. For nested and for wide records that is several times as fast as to
make the objects first; where it is not, see `worth_it`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import isfinite
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from simlink.block import Block, Coded, Column, Masked, Pool, Ragged, Struct

__all__ = ["block_bodies", "block_text"]

Encode: TypeAlias = Callable[[Any], bytes]
Part: TypeAlias = "bytes | list[bytes] | _Pick"
"""What stands there in every row, or in each one."""

_CACHE = "json text"
_MANY = 64
"""Elements of lists that are written this way; longer lists have more parts than it pays to interleave."""
_AT_ONCE = 1024
"""Rows that are put together at once: what they need stays in the processor's cache."""
_FEW = 64
_SMALL = 1 << 16
_PLAIN = frozenset({str, int, float, bool, type(None)})
_REFUSED = (ValueError, TypeError, OverflowError)


class _Otherwise(Exception):
    """Something that is not written this way."""


def worth_it(block: Block) -> bool:
    """Whether a block is written faster this way: one with records inside is, and one of which most is looked up. A
    number and a text of its own take longer to cut out and to join again than to be encoded in their place."""
    columns = block.columns.values()
    if any(isinstance(column, Struct | Ragged) for column in columns):
        return True
    picked = sum(isinstance(column, Coded) for column in columns)
    return picked > 2 * (len(columns) - picked) and block.length >= _FEW


def block_bodies(block: Block, encode: Encode) -> list[bytes] | None:
    """One body a row, byte for byte what encoding the rows as dicts gives.

    None where the block has something that is not written this way (lists of differing length, what is not JSON), or
    would not be written faster.
    """
    texts = _texts(block, encode)
    if texts is None:
        return None
    bodies: list[bytes] = []
    for text in texts:
        bodies += text.split(b"\n")
        bodies.pop()
    return bodies


def block_text(block: Block, encode: Encode) -> bytes | None:
    """The same as one text, with a newline behind each body."""
    texts = _texts(block, encode)
    return None if texts is None else b"".join(texts)


def _texts(block: Block, encode: Encode) -> list[bytes] | None:
    if not block.length or not worth_it(block):
        return None
    try:
        parts = _joined([*_record(block.columns, block.length, encode), b"\n"], block.length)
        return list(_interleaved([_made(part, encode) for part in parts], block.length))
    except _Otherwise:
        return None


def _interleaved(parts: Sequence[bytes | list[bytes]], length: int) -> Iterator[bytes]:
    many = len(parts)
    for first in range(0, length, _AT_ONCE):
        rows = min(_AT_ONCE, length - first)
        pieces = [b""] * (many * rows)
        for place, part in enumerate(parts):
            pieces[place::many] = [part] * rows if isinstance(part, bytes) else part[first : first + rows]
        yield b"".join(pieces)


class _Pick:
    """In each row a text of a pool, with the same before and behind it."""

    __slots__ = ("after", "before", "codes", "pool")

    def __init__(self, pool: Pool, codes: npt.NDArray[Any], before: bytes = b"", after: bytes = b"") -> None:
        self.pool, self.codes, self.before, self.after = pool, codes, before, after


def _made(part: Part, encode: Encode) -> bytes | list[bytes]:
    if not isinstance(part, _Pick):
        return part
    texts: list[bytes] = _texts_of(part.pool, encode, part.before, part.after)[part.codes].tolist()
    return texts


def _joined(parts: list[Part], rows: int) -> list[Part]:
    """Neighbours that are the same in every row as one."""
    out: list[Part] = []
    for part in parts:
        last = out[-1] if out else None
        if isinstance(part, bytes) and isinstance(last, bytes):
            out[-1] = last + part
        elif isinstance(part, bytes) and isinstance(last, _Pick) and _pays(last.pool, rows):
            out[-1] = _Pick(last.pool, last.codes, last.before, last.after + part)
        elif isinstance(part, _Pick) and isinstance(last, bytes) and _pays(part.pool, rows):
            out[-1] = _Pick(part.pool, part.codes, last + part.before, part.after)
        else:
            out.append(part)
    return out


def _pays(pool: Pool, rows: int) -> bool:
    """Whether to keep the texts of a pool with what stands around them: it is small, or was seen before."""
    known = pool.cache.get(_CACHE)
    return len(pool) * 4 <= rows or (known is not None and known.blocks > 1)


def _record(columns: Mapping[str, Column], rows: int, encode: Encode) -> list[Part]:
    parts: list[Part] = []
    for name, column in columns.items():
        parts += [b"," if parts else b"{", encode(name), b":", *_column(column, rows, encode)]
    return [*parts, b"}"] if parts else [b"{}"]


def _column(column: Column, rows: int, encode: Encode) -> list[Part]:
    if isinstance(column, Struct):
        return _record(column.columns, rows, encode)
    if isinstance(column, Ragged):
        return _list(column, encode)
    if isinstance(column, Masked):
        return [_gaps(column, encode)]
    if isinstance(column, Coded):
        texts = _texts_of(column.pool, encode, b"", b"", rows)
        return [texts[0]] if len(texts) == 1 else [_Pick(column.pool, column.codes)]
    if not isinstance(column, np.ndarray):
        raise _Otherwise
    kind = column.dtype.kind
    if kind in "iu" and rows >= _AT_ONCE and column.min() >= 0 and column.max() < _SMALL:
        return [_small()[column].tolist()]
    values = column.tolist()
    if kind in "iub" or (kind == "f" and np.isfinite(column).all()):
        return [encode(values)[1:-1].split(b",")]
    return _objects(values, encode)


def _objects(values: list[Any], encode: Encode) -> list[Part]:
    kinds = set(map(type, values))
    if not kinds <= _PLAIN or (float in kinds and not all(isfinite(v) for v in values if type(v) is float)):
        raise _Otherwise
    try:
        if kinds == {str}:
            text = encode(values)
            # Without a backslash no quote is escaped, and so every one begins or ends a value.
            if b"\\" not in text:
                return [b'"', text[2:-2].split(b'","'), b'"']
        return [list(map(encode, values))]
    except _REFUSED:
        raise _Otherwise from None


def _gaps(column: Masked, encode: Encode) -> list[bytes]:
    """Values that are there only in some rows. Only those count: the other cells may hold anything."""
    rows = np.flatnonzero(column.present)
    out = [b"null"] * len(column)
    if len(rows):
        parts = [_made(part, encode) for part in _column(column.values.take(rows), len(rows), encode)]
        if len(parts) == 1 and isinstance(parts[0], list):
            texts = parts[0]
        else:
            texts = b"".join(_interleaved([*parts, b"\n"], len(rows))).split(b"\n")
            texts.pop()
        if len(rows) == len(column):
            return texts
        for row, text in zip(rows.tolist(), texts, strict=True):
            out[row] = text
    return out


def _list(column: Ragged, encode: Encode) -> list[Part]:
    offsets = column.offsets
    many = int(offsets[1] - offsets[0])
    if many > _MANY or (np.diff(offsets) != many).any():
        raise _Otherwise
    if not many:
        return [b"[]"]
    values = column.values[int(offsets[0]) : int(offsets[-1])]
    items = _joined(_column(values, len(values), encode), len(column))
    parts: list[Part] = [b"["]
    for place in range(many):
        if place:
            parts.append(b",")
        parts += [_every(part, place, many) for part in items]
    return [*parts, b"]"]


def _every(part: Part, place: int, many: int) -> Part:
    if isinstance(part, bytes):
        return part
    if isinstance(part, list):
        return part[place::many]
    return _Pick(part.pool, part.codes[place::many], part.before, part.after)


@lru_cache(maxsize=1)
def _small() -> npt.NDArray[np.object_]:
    """The texts of small integers: looked up faster than written."""
    return np.fromiter((b"%d" % i for i in range(_SMALL)), dtype=object, count=_SMALL)


class _Known:
    """What is kept in a pool's cache: its texts by what stands around them, and in how many blocks it was seen."""

    __slots__ = ("blocks", "texts")

    def __init__(self, texts: npt.NDArray[np.object_]) -> None:
        self.texts = {(b"", b""): texts}
        self.blocks = 0


def _texts_of(
    pool: Pool, encode: Encode, before: bytes, after: bytes, rows: int | None = None
) -> npt.NDArray[np.object_]:
    """The JSON of each value of the pool with this before and behind it, as an array of objects. The first time in a
    block ``rows`` says how many there are."""
    known: _Known | None = pool.cache.get(_CACHE)
    if known is None:
        # A handful of rows does not pay for looking through a huge pool.
        if len(pool) > min(200_000, 64 * max(rows or 0, 1024)) or not _PLAIN.issuperset(map(type, pool.values)):
            raise _Otherwise
        if not all(isfinite(v) for v in pool.values if type(v) is float):
            raise _Otherwise
        try:
            texts = np.fromiter(map(encode, pool.values), dtype=object, count=len(pool))
        except _REFUSED:
            raise _Otherwise from None
        known = pool.cache[_CACHE] = _Known(texts)
    if rows is not None:
        known.blocks += 1
    made = known.texts.get((before, after))
    if made is None:
        if len(known.texts) > 16:
            known.texts = {(b"", b""): known.texts[b"", b""]}
        made = known.texts[before, after] = np.fromiter(
            (before + text + after for text in known.texts[b"", b""].tolist()), dtype=object, count=len(pool)
        )
    return made
