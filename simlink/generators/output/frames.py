"""Records as a DataFrame or an Arrow table, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simlink.block import Block, Coded, Column, FieldType, Kind, Masked, Ragged, Struct
from simlink.errors import ConfigError, EncodeError, MissingExtra
from simlink.generators.field import as_array

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from simlink.generators.generator import Generator

__all__ = ["arrow_table", "looked_at", "to_arrow", "to_pandas"]


def _blocks(generator: Generator, n: int | None) -> list[Block]:
    if n is None and generator.length is None:
        raise ConfigError(f"{generator.name} has no end: say how many records")
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 0):
        raise ConfigError(f"expected a number of records from 0 up, not {n!r}")
    blocks = list(generator.blocks(0, n))
    # An empty table still has its columns and their types: they are cut from a block.
    return blocks or [generator.make_block(0)[:0]]


def to_pandas(generator: Generator, n: int | None) -> pd.DataFrame:
    """See `Generator.to_pandas`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtra("to_pandas", "dataframe", package="pandas") from error
    blocks = _blocks(generator, n)
    columns: dict[str, Any] = {}
    for name, t in generator.schema.fields.items():
        values = np.concatenate([as_array(b.columns[name]) for b in blocks])
        # Numbers with gaps: pandas would keep objects.
        nullable = _NULLABLE.get(t.kind) if values.dtype == object else None
        columns[name] = values if nullable is None else pd.array(values.tolist(), dtype=nullable)
    return pd.DataFrame(columns)


_NULLABLE = {Kind.INT: "Int64", Kind.UINT: "UInt64", Kind.FLOAT: "Float64", Kind.BOOL: "boolean"}


def to_arrow(generator: Generator, n: int | None) -> pa.Table:
    """See `Generator.to_arrow`."""
    return arrow_table(_blocks(generator, n))


def arrow_table(blocks: Sequence[Block]) -> pa.Table:
    """Blocks of one schema, at least one, as one Arrow table.

    Raises:
        MissingExtra: pyarrow is not installed.
        EncodeError: a column of values of several types.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtra("to_arrow", "dataframe", package="pyarrow") from error
    fields = blocks[0].schema.fields
    # Arrow finds the type of ANY by looking, over all rows at once: block by block it could come out differently.
    arrays = {
        name: looked_at(pa, name, [v for b in blocks for v in b.columns[name].tolist()])
        if _type(pa, t) is None
        else pa.chunked_array([_array(pa, b.columns[name], t) for b in blocks], type=_type(pa, t))
        for name, t in fields.items()
    }
    return pa.table(arrays)


def looked_at(pa: Any, name: str, values: list[Any]) -> Any:
    """An Arrow array of values whose type only they tell.

    Raises:
        EncodeError: they have several.
    """
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise EncodeError(
            f"{name}: a column of Arrow has one type, and these values have none in common: {error}"
        ) from error


def _type(pa: Any, t: FieldType) -> Any:
    """The Arrow type of a field; None where only its values tell."""
    simple = {
        Kind.INT: pa.int64,
        Kind.UINT: pa.uint64,
        Kind.FLOAT: pa.float64,
        Kind.BOOL: pa.bool_,
        Kind.STR: pa.string,
        Kind.BYTES: pa.binary,
    }
    if t.kind in simple:
        return simple[t.kind]()
    if t.kind is Kind.RECORD and t.fields is not None:
        inner = {name: _type(pa, f) for name, f in t.fields.fields.items()}
        return None if None in inner.values() else pa.struct(inner)
    if t.kind is Kind.LIST and t.item is not None:
        item = _type(pa, t.item)
        return None if item is None else pa.list_(item)
    return None


def _array(pa: Any, column: Column, t: FieldType) -> Any:
    arrow = _type(pa, t)
    if isinstance(column, Coded) and not column.pool.nested:
        return pa.array(column.pool.values, arrow).take(pa.array(column.codes))
    if isinstance(column, Masked):
        cells = column.values  # noqa: PD011 – a column of ours, not a DataFrame
        if isinstance(cells, np.ndarray) and cells.dtype != object:
            return pa.array(cells, arrow, mask=~column.present)
    if isinstance(column, Struct) and t.fields is not None and len(column):
        parts = [_array(pa, column.columns[name], f) for name, f in t.fields.fields.items()]
        return pa.StructArray.from_arrays(parts, fields=list(arrow))
    if isinstance(column, np.ndarray):
        return pa.array(column, arrow)
    assert isinstance(column, Coded | Masked | Struct | Ragged)
    return pa.array(column.tolist(), arrow)
