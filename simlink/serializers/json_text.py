"""A block with records or lists inside as JSON: written as one text, and cut.

A row's text is the same names and brackets as every row's, with the values between them. So each column is encoded as a
whole and cut into its values, and everything is joined once: for nested records that is several times as fast as to
make the objects first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from simlink.block import Block, Coded, Column, Pool, Ragged, Struct

__all__ = ["block_text"]

Encode: TypeAlias = Callable[[Any], bytes]
Part: TypeAlias = "bytes | list[bytes]"
"""What stands there in every row, or in each one."""

_CACHE = "json text"
_MANY = 64
"""Elements of lists that are written this way; longer lists have more parts than it pays to interleave."""


class _Otherwise(Exception):
    """Something that is not written this way."""


def block_text(block: Block, encode: Encode) -> list[bytes] | None:
    """One body a row, byte for byte what encoding the rows as dicts gives.

    None where the block is flat, or has something that is not written this way: lists of differing length, values that
    are not there, texts with characters to escape, what is not JSON.
    """
    if not block.length or not any(isinstance(c, Struct | Ragged) for c in block.columns.values()):
        return None
    try:
        parts = _joined([*_record(block.columns, encode), b"\n"])
    except _Otherwise:
        return None
    pieces = [b""] * (len(parts) * block.length)
    for place, part in enumerate(parts):
        pieces[place :: len(parts)] = [part] * block.length if isinstance(part, bytes) else part
    bodies = b"".join(pieces).split(b"\n")
    bodies.pop()
    return bodies


def _joined(parts: list[Part]) -> list[Part]:
    """Neighbours that are the same in every row as one."""
    out: list[Part] = []
    for part in parts:
        last = out[-1] if out else None
        if isinstance(part, bytes) and isinstance(last, bytes):
            out[-1] = last + part
        else:
            out.append(part)
    return out


def _record(columns: Mapping[str, Column], encode: Encode) -> list[Part]:
    parts: list[Part] = []
    for name, column in columns.items():
        parts += [b"," if parts else b"{", encode(name), b":", *_column(column, encode)]
    return [*parts, b"}"] if parts else [b"{}"]


def _column(column: Column, encode: Encode) -> list[Part]:
    if isinstance(column, Struct):
        return _record(column.columns, encode)
    if isinstance(column, Ragged):
        return _list(column, encode)
    if isinstance(column, Coded):
        texts = _texts_of(column.pool, encode)
        return [texts[0]] if len(texts) == 1 else [texts[column.codes].tolist()]
    if not isinstance(column, np.ndarray):
        raise _Otherwise
    values = column.tolist()
    if column.dtype.kind in "iub" or (column.dtype.kind == "f" and np.isfinite(column).all()):
        return [encode(values)[1:-1].split(b",")]
    if set(map(type, values)) != {str}:
        raise _Otherwise
    try:
        text = encode(values)
    except (ValueError, TypeError):
        raise _Otherwise from None
    # Without a backslash no quote is escaped, and so every one begins or ends a value.
    if b"\\" in text:
        raise _Otherwise
    return [b'"', text[2:-2].split(b'","'), b'"']


def _list(column: Ragged, encode: Encode) -> list[Part]:
    offsets = column.offsets
    many = int(offsets[1] - offsets[0])
    if many > _MANY or (np.diff(offsets) != many).any():
        raise _Otherwise
    if not many:
        return [b"[]"]
    items = _joined(_column(column.values[int(offsets[0]) : int(offsets[-1])], encode))
    parts: list[Part] = [b"["]
    for place in range(many):
        if place:
            parts.append(b",")
        parts += [part if isinstance(part, bytes) else part[place::many] for part in items]
    return [*parts, b"]"]


def _texts_of(pool: Pool, encode: Encode) -> Any:
    """The JSON of each value of the pool, as an array of objects."""
    texts = pool.cache.get(_CACHE)
    if texts is None:
        if len(pool) > 200_000 or not {str, int, bool, type(None)}.issuperset(map(type, pool.values)):
            raise _Otherwise
        try:
            texts = np.fromiter(map(encode, pool.values), dtype=object, count=len(pool))
        except (ValueError, TypeError, OverflowError):
            raise _Otherwise from None
        pool.cache[_CACHE] = texts
    return texts
