"""A block as JSON: columns become cells, cells become structs, and the encoder never sees a dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from math import isfinite
from typing import Any

import msgspec
import numpy as np

from simlink.block import Block, Coded, Column, Masked, Pool, Ragged, Struct
from simlink.serializers.json_check import check

__all__ = ["block_bodies", "block_text", "bodies_of"]

Encode = Callable[[Any], bytes]

_SCALARS = frozenset({str, int, float, bool, type(None)})
_CACHE = "json"
_LONG = 256
"""Bytes of a body that is written by itself."""


def bodies_of(values: Sequence[Any], encoder: msgspec.json.Encoder) -> list[bytes]:
    """One body a value. Short ones all at once and then cut, which is a fifth to a quarter faster than one by one; of
    long ones the text in between is so large that it costs more than it saves.

    Raises:
        ValueError, TypeError, …: one of them cannot be written.
    """
    if len(values) and len(encoder.encode(values[0])) > _LONG:
        return list(map(encoder.encode, values))
    bodies = encoder.encode_lines(values).split(b"\n")
    bodies.pop()
    # The encoder escapes what ends a line in text. Only JSON that somebody has written himself may have one.
    return bodies if len(bodies) == len(values) else list(map(encoder.encode, values))


def block_bodies(block: Block, encoder: msgspec.json.Encoder) -> list[bytes]:
    """One body a row, byte for byte what encoding the rows as dicts gives.

    Raises:
        ValueError, TypeError, …: some row cannot be written; which one is for the caller to find out.
    """
    return bodies_of(_records(block.columns, block.length, encoder.encode), encoder)


def block_text(block: Block, encoder: msgspec.json.Encoder) -> bytes:
    """The same as one text, with a newline behind each body.

    Raises:
        ValueError, TypeError, …: as `block_bodies`.
    """
    return encoder.encode_lines(_records(block.columns, block.length, encoder.encode))


def _records(columns: Mapping[str, Column], length: int, encode: Encode) -> list[Any]:
    if not columns:
        return [{} for _ in range(length)]
    cells = [_cells(column, encode) for column in columns.values()]
    names = tuple(columns)
    struct = _struct(names)
    if struct is None:
        return [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]
    # A constructor mapped over column lists runs in C, and a struct is encoded faster than a dict.
    return list(map(struct, *cells))


@lru_cache(maxsize=1024)
def _struct(names: tuple[str, ...]) -> type[msgspec.Struct] | None:
    """A struct with these JSON names; None where msgspec does not take them (they need escaping)."""
    slots = [f"c{i}" for i in range(len(names))]
    try:
        return msgspec.defstruct("Row", slots, rename=dict(zip(slots, names, strict=True)), gc=False)
    except (ValueError, UnicodeError):
        return None


def _cells(column: Column, encode: Encode) -> list[Any]:
    """The column as values that the encoder writes faithfully."""
    if isinstance(column, np.ndarray):
        return _array_cells(column)
    if isinstance(column, Coded):
        return _coded_cells(column, encode)
    if isinstance(column, Masked):
        # Only the cells that are there count: the others may hold anything.
        rows = np.flatnonzero(column.present)
        out: list[Any] = [None] * len(column)
        for row, cell in zip(rows.tolist(), _cells(column.values.take(rows), encode), strict=True):
            out[row] = cell
        return out
    if isinstance(column, Struct):
        return _records(column.columns, column.length, encode)
    if isinstance(column, Ragged):
        first = int(column.offsets[0])
        cells = _cells(column.values[first : int(column.offsets[-1])], encode)
        return [cells[a - first : b - first] for a, b in pairwise(column.offsets.tolist())]
    raise TypeError(f"{type(column).__name__} is not a column")


def _array_cells(column: np.ndarray[Any, Any]) -> list[Any]:
    kind = column.dtype.kind
    cells: list[Any] = column.tolist()
    if kind in "iub":
        return cells
    if kind == "f":
        if not np.isfinite(column).all():
            raise ValueError("NaN and infinity are not JSON numbers")
        return cells
    return _checked(cells)


def _checked(cells: list[Any]) -> list[Any]:
    kinds = set(map(type, cells))
    if not kinds <= _SCALARS:
        for cell in cells:
            check(cell)
    elif float in kinds and not all(map(isfinite, [cell for cell in cells if type(cell) is float])):
        raise ValueError("NaN and infinity are not JSON numbers")
    return cells


def _coded_cells(column: Coded, encode: Encode) -> list[Any]:
    pool = column.pool
    prepared = pool.cache.get(_CACHE)
    if prepared is None:
        if len(pool) > 64 * max(len(column), 1024):
            # A handful of rows does not pay for looking through a huge pool.
            return _checked(column.tolist())
        prepared = pool.cache[_CACHE] = _prepare(pool, encode)
    cells: list[Any] = prepared.cells[column.codes].tolist()
    return cells if prepared.safe else _checked(cells)


class _Prepared(msgspec.Struct, frozen=True):
    """What is kept in a pool's cache.

    Attributes:
        cells: an object array of what the encoder gets for each value of the pool.
        safe: whether each of them can be written; if not, it matters only to the rows that have the others.
    """

    cells: Any
    safe: bool


def _prepare(pool: Pool, encode: Encode) -> _Prepared:
    try:
        if _SCALARS.issuperset(map(type, _checked(pool.values))):
            # Encoding text again costs msgspec less than copying it from a Raw, so checking it once is the gain.
            for value in pool.values:
                encode(value)
            return _Prepared(pool.array, safe=True)
        raws = np.empty(len(pool), dtype=object)
        for index, value in enumerate(pool.values):
            raws[index] = msgspec.Raw(encode(value))
        return _Prepared(raws, safe=True)
    except (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError):
        return _Prepared(pool.array, safe=False)
