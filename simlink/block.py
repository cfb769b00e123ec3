"""Block and Schema: records as columns, from the generator to the serializer.

A Block is what a generator makes: ``length`` records from row ``start`` on, one column a field. A column is one of

- a NumPy array (int64, uint64, float64, bool, or object for text and anything else),
- `Coded`: small integers into a pool of values (weighted choices, Faker pools, pages of a shop), so that a serializer
  can encode each value of the pool once,
- `Masked`: values that are there only in some rows; None elsewhere,
- `Struct`: a nested record, one column a field,
- `Ragged`: lists of differing length.

All of them have ``len()``, slicing, ``take(rows)`` and ``tolist()``; `as_list` serves arrays and columns alike.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Block",
    "Coded",
    "Column",
    "FieldType",
    "Kind",
    "Lines",
    "Masked",
    "Pool",
    "Ragged",
    "Schema",
    "Struct",
    "as_list",
]


class Kind(enum.Enum):
    """What a field's values are, in the words of JSON and Protobuf."""

    INT = "int"
    UINT = "uint"
    FLOAT = "float"
    BOOL = "bool"
    STR = "str"
    BYTES = "bytes"
    RECORD = "record"
    LIST = "list"
    ANY = "any"
    """Anything a foreign function may return; JSON takes it, a derived Protobuf message refuses it."""


@dataclass(frozen=True, slots=True)
class FieldType:
    """The type of one field.

    Attributes:
        kind: what its values are.
        optional: whether a record may have None there.
        fields: the fields of a RECORD.
        item: the element of a LIST.
    """

    kind: Kind
    optional: bool = False
    fields: Schema | None = None
    item: FieldType | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """The ordered fields of a record, and its name.

    Attributes:
        absent: those that some of the records do not have at all, as where a schema evolves.
    """

    name: str
    fields: Mapping[str, FieldType] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)


class Pool:
    """Values that many rows share.

    Attributes:
        values, array: the values, as a list and as an array of objects.
        nested: whether some of them are lists or dicts, of which every row must get a copy of its own.
        cache: for serializers: what they made of the values, by serializer.
    """

    __slots__ = ("array", "cache", "nested", "values")

    def __init__(self, values: Sequence[Any]) -> None:
        self.values: list[Any] = list(values)
        # Not array[:] = values: NumPy takes lists of equal length for the rows of a matrix.
        self.array = np.fromiter(self.values, dtype=object, count=len(self.values))
        self.nested = any(issubclass(kind, list | dict) for kind in set(map(type, self.values)))
        self.cache: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.values)


class Coded:
    """A column of ``pool.values[code]``."""

    __slots__ = ("codes", "pool")

    def __init__(self, codes: npt.NDArray[np.integer[Any]], pool: Pool) -> None:
        self.codes = codes
        self.pool = pool

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: slice) -> Coded:
        return Coded(self.codes[rows], self.pool)

    def take(self, rows: npt.NDArray[np.intp]) -> Coded:
        return Coded(self.codes[rows], self.pool)

    def tolist(self) -> list[Any]:
        values: list[Any] = self.pool.array[self.codes].tolist()
        if self.pool.nested:
            return [copy.deepcopy(v) for v in values]
        return values


class Masked:
    """``values`` where ``present`` is true, None elsewhere. ``values`` has a cell for every row."""

    __slots__ = ("present", "values")

    def __init__(self, present: npt.NDArray[np.bool_], values: Column) -> None:
        self.present = present
        self.values = values

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, rows: slice) -> Masked:
        return Masked(self.present[rows], self.values[rows])

    def take(self, rows: npt.NDArray[np.intp]) -> Masked:
        return Masked(self.present[rows], self.values.take(rows))

    def tolist(self) -> list[Any]:
        out: list[Any] = [None] * len(self)
        rows = np.flatnonzero(self.present)
        for row, value in zip(rows.tolist(), self.values.take(rows).tolist(), strict=True):
            out[row] = value
        return out


class Struct:
    """A nested record: one column a field, all as long as the block."""

    __slots__ = ("columns", "length")

    def __init__(self, columns: Mapping[str, Column], length: int) -> None:
        self.columns = dict(columns)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, rows: slice) -> Struct:
        return Struct({n: c[rows] for n, c in self.columns.items()}, len(range(*rows.indices(self.length))))

    def take(self, rows: npt.NDArray[np.intp]) -> Struct:
        return Struct({n: c.take(rows) for n, c in self.columns.items()}, len(rows))

    def tolist(self) -> list[dict[str, Any]]:
        return rows_of(self.columns, self.length)


class Ragged:
    """Lists of differing length: row ``i`` is ``values[offsets[i]:offsets[i + 1]]``."""

    __slots__ = ("offsets", "values")

    def __init__(self, offsets: npt.NDArray[np.int64], values: Column) -> None:
        self.offsets = offsets
        self.values = values

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: slice) -> Ragged:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            return self.take(np.arange(start, stop, step))
        stop = max(start, stop)
        return Ragged(self.offsets[start : stop + 1], self.values)

    def take(self, rows: npt.NDArray[np.intp]) -> Ragged:
        lengths = (self.offsets[1:] - self.offsets[:-1])[rows]
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        cells = np.concatenate(
            [np.arange(self.offsets[r], self.offsets[r + 1]) for r in rows] or [np.empty(0, np.int64)]
        ).astype(np.intp)
        return Ragged(offsets, self.values.take(cells))

    def tolist(self) -> list[list[Any]]:
        first = int(self.offsets[0])
        cells = as_list(self.values[first : int(self.offsets[-1])])
        return [cells[a - first : b - first] for a, b in pairwise(self.offsets.tolist())]


Column: TypeAlias = "npt.NDArray[Any] | Coded | Masked | Struct | Ragged"


def as_list(column: Column) -> list[Any]:
    """The column as plain Python values."""
    return column.tolist()


def rows_of(columns: Mapping[str, Column], length: int) -> list[dict[str, Any]]:
    """Columns → one dict a row."""
    if not columns:
        return [{} for _ in range(length)]
    return _row_maker(tuple(columns))(*(c.tolist() for c in columns.values()))


_MAKERS: dict[tuple[str, ...], Callable[..., list[dict[str, Any]]]] = {}


def _row_maker(names: tuple[str, ...]) -> Callable[..., list[dict[str, Any]]]:
    """A function with a dict display for exactly these names: twice as fast as ``dict(zip(names, row))``."""
    maker = _MAKERS.get(names)
    if maker is None:
        args = [f"c{i}" for i in range(len(names))]
        cells = [f"v{i}" for i in range(len(names))]
        display = ", ".join(f"{name!r}: {cell}" for name, cell in zip(names, cells, strict=True))
        source = f"lambda {', '.join(args)}: [{{{display}}} for {', '.join(cells)}, in zip({', '.join(args)})]"
        # The names are only ever used as string literals, quoted by repr().
        maker = eval(source, {"zip": zip})  # noqa: S307 – see the line above
        _MAKERS[names] = maker
    return maker


class Block:
    """``length`` records from row ``start`` on, as columns.

    Attributes:
        schema: the names and types of the fields.
        columns: one column a field, in the schema's order.
        start: the row index of the first record in its generator's stream.
        length: how many records.
    """

    __slots__ = ("_rows", "columns", "length", "schema", "start")

    def __init__(self, schema: Schema, columns: Mapping[str, Column], start: int, length: int) -> None:
        self.schema = schema
        self.columns = dict(columns)
        self.start = start
        self.length = length
        self._rows: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, rows: slice) -> Block:
        start, stop, step = rows.indices(self.length)
        if step != 1:
            raise ValueError("a block is sliced with step 1")
        stop = max(start, stop)
        part = slice(start, stop)
        return Block(self.schema, {n: c[part] for n, c in self.columns.items()}, self.start + start, stop - start)

    def rows(self) -> list[dict[str, Any]]:
        """One dict a record, made on first use and kept."""
        if self._rows is None:
            self._rows = rows_of(self.columns, self.length)
        return self._rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows())

    def __repr__(self) -> str:
        rows = f"rows {self.start}..{self.start + self.length}"
        return f"{type(self).__name__}({self.schema.name}, {rows}, {', '.join(self.schema)})"


class Lines(Block):
    """Records that are one line of text each, and nothing else: `rows` gives str.

    As columns (for a table or a file) they are one column of text, named by the schema's only field. It is made when
    it is asked for: a serializer takes the whole text.

    Attributes:
        text: all lines, with a newline between them.
        origin: the records that the lines were written from, as columns: a key may name a field of theirs.
    """

    __slots__ = ("origin", "text")

    def __init__(self, schema: Schema, text: str, origin: Block) -> None:
        # Not Block's: the columns come later.
        self.schema = schema
        self.text = text
        self.origin = origin
        self.start = origin.start
        self.length = origin.length
        self._rows = None

    def __getattr__(self, name: str) -> Any:
        if name != "columns":
            raise AttributeError(name)
        (field,) = self.schema
        lines = self.lines()
        self.columns = {field: np.fromiter(lines, dtype=object, count=len(lines))}
        return self.columns

    def lines(self) -> list[str]:
        """Each line."""
        return self.text.split("\n") if self.length else []

    def __getitem__(self, rows: slice) -> Lines:
        part = self.origin[rows]
        if part.length == self.length:
            return self
        first = part.start - self.start
        return Lines(self.schema, "\n".join(self.lines()[first : first + part.length]), part)

    def rows(self) -> list[Any]:
        """The lines."""
        return self.lines()
