"""Columns put together: rows of several blocks, or of several generators, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from simlink.block import Block, Coded, Column, FieldType, Kind, Masked, Pool, Ragged, Schema, Struct
from simlink.generators.field import BLOCK_ROWS, object_array
from simlink.generators.generator import Generator
from simlink.generators.steps import Steps

__all__ = ["Joiner", "block_of", "union"]


class Joiner:
    """Puts columns one after another. The pools of what it was given live as long as it does, and so do theirs."""

    def __init__(self) -> None:
        self._pools: dict[tuple[int, ...], tuple[list[Pool], Pool]] = {}

    def rows(self, generator: Generator, first: int, count: int) -> Steps[dict[str, Column]]:
        """The columns of the rows ``first … first + count - 1`` of a generator, from as many blocks as that takes."""
        blocks = []
        for k in range(first // BLOCK_ROWS, (first + count - 1) // BLOCK_ROWS + 1):
            whole = yield from generator.block_steps(k)
            blocks.append(whole[max(0, first - k * BLOCK_ROWS) : first + count - k * BLOCK_ROWS])
        if len(blocks) == 1:
            return blocks[0].columns
        yield f"{generator.name}: join"
        return {name: self.join([block.columns[name] for block in blocks]) for name in generator.schema}

    def together(self, schema: Schema, parts: Sequence[tuple[dict[str, Column], int]]) -> dict[str, Column]:
        """The columns of a union of schemas, one part after another: None where a part has no such field.

        Args:
            schema: the union.
            parts: columns, and how many rows they have.
        """
        out: dict[str, Column] = {}
        for name in schema:
            here = [columns[name] for columns, rows in parts if name in columns and rows]
            if not here:
                rows = sum(rows for _, rows in parts)
                out[name] = Coded(np.zeros(rows, np.intp), Pool([None]))
                continue
            column = self.join(here)
            present = np.concatenate([np.full(rows, name in columns, np.bool_) for columns, rows in parts])
            if not present.all():
                column = Masked(present, column.take(np.maximum(np.cumsum(present) - 1, 0)))
            out[name] = column
        return out

    def join(self, columns: Sequence[Column]) -> Column:
        """One column after another."""
        if len(columns) == 1:
            return columns[0]
        if any(isinstance(c, Masked) for c in columns):
            values = self.join([c.values if isinstance(c, Masked) else c for c in columns])
            present = [c.present if isinstance(c, Masked) else np.ones(len(c), np.bool_) for c in columns]
            return Masked(np.concatenate(present), values)
        if all(isinstance(c, Coded) for c in columns):
            return self._coded([c for c in columns if isinstance(c, Coded)])
        if all(isinstance(c, np.ndarray) for c in columns):
            arrays = [c for c in columns if isinstance(c, np.ndarray)]
            if len({array.dtype for array in arrays}) == 1:
                return np.concatenate(arrays)
        if all(isinstance(c, Struct) for c in columns):
            structs = [c for c in columns if isinstance(c, Struct)]
            if len({tuple(struct.columns) for struct in structs}) == 1:
                inner = {name: self.join([s.columns[name] for s in structs]) for name in structs[0].columns}
                return Struct(inner, sum(map(len, structs)))
        if all(isinstance(c, Ragged) for c in columns):
            return self._ragged([c for c in columns if isinstance(c, Ragged)])
        return object_array([value for column in columns for value in column.tolist()])

    def _coded(self, columns: Sequence[Coded]) -> Coded:
        pools: list[Pool] = []
        for column in columns:
            if not any(column.pool is pool for pool in pools):
                pools.append(column.pool)
        if len(pools) == 1:
            return Coded(np.concatenate([column.codes for column in columns]), pools[0])
        key = tuple(map(id, pools))
        known = self._pools.get(key)
        if known is None:
            if len(self._pools) >= 64:
                self._pools.clear()  # pools that are made for each block are not kept for ever
            known = self._pools[key] = (pools, Pool([value for pool in pools for value in pool.values]))
        offsets = dict(zip(key, np.cumsum([0, *map(len, pools)]).tolist(), strict=False))
        return Coded(np.concatenate([column.codes + offsets[id(column.pool)] for column in columns]), known[1])

    def _ragged(self, columns: Sequence[Ragged]) -> Ragged:
        lengths = np.concatenate([np.diff(column.offsets) for column in columns])
        cells = [column.values[int(column.offsets[0]) : int(column.offsets[-1])] for column in columns]
        return Ragged(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), self.join(cells))


def union(name: str, schemas: Sequence[Schema]) -> Schema:
    """All fields of these schemas, in the order in which they come first. One that some of them does not have may be
    None; one that they have with different types may be anything."""
    fields: dict[str, FieldType] = {}
    for schema in schemas:
        for field, kind in schema.fields.items():
            fields[field] = _either(fields[field], kind) if field in fields else kind
    for field, kind in fields.items():
        if not all(field in schema.fields for schema in schemas):
            fields[field] = replace(kind, optional=True)
    return Schema(name, fields)


def _either(a: FieldType, b: FieldType) -> FieldType:
    optional = a.optional or b.optional
    same = replace(a, optional=optional) == replace(b, optional=optional)
    return replace(a, optional=optional) if same else FieldType(Kind.ANY, optional=optional)


def block_of(schema: Schema, columns: dict[str, Column], start: int, length: int) -> Block:
    """The block, its columns in the schema's order."""
    return Block(schema, {name: columns[name] for name in schema}, start, length)
