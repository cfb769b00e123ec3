"""What a field is: a pure function (seed, path, block, earlier columns) → one column of values.

A `Field` is a description that the user makes and may use in many records. `Field.bind` checks it against the record
it stands in (its path, the fields before it) and gives a `Bound`: the type of its values, and the function that makes
its column. The function gets a `Context`: how many values, their random words, and the columns made before.
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.block import Coded, Column, FieldType, Kind, Masked, Pool, Ragged, Schema, Struct
from simlink.errors import ConfigError, did_you_mean
from simlink.generators import seeding
from simlink.generators.steps import Steps

__all__ = ["BLOCK_ROWS", "Bound", "Constant", "Context", "Field", "Scope", "as_array", "as_field", "infer", "plain"]

BLOCK_ROWS = 4096
"""Rows in a block: the unit of determinism, seeking and scale-out. Part of the data's definition: never changes."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A field in its place in a record.

    Attributes:
        type: of its values.
        make: makes its column.
        steps: makes the same column in steps, where that takes longer than a sender can wait between two rows.
    """

    type: FieldType
    make: Callable[[Context], Column]
    steps: Callable[[Context], Steps[Column]] | None = None

    def in_steps(self, context: Context) -> Steps[Column]:
        """As `make`; where it can be divided, in steps."""
        if self.steps is None:
            return self.make(context)
        return (yield from self.steps(context))


@dataclass(frozen=True)
class Scope:
    """Where a field stands.

    Attributes:
        seed: the record's seed.
        path: what its random stream is named after, as ``record.field``.
        earlier: the fields before it in its record, by name, with their types.
        outer: the scope of the record around it, or None.
        later: the names of the fields behind it; only so that an error can say so.
        part: what of the path stands for a part of the field: nothing, or ``#then`` and the like.
        counts: whether values have a position: ``"stream"`` (the row), ``"list"`` (the place in its list), or ``""``
            where they have none (an attribute of an entity is the same on every row).
    """

    seed: int
    path: str
    earlier: Mapping[str, FieldType]
    outer: Scope | None = None
    later: Mapping[str, Field] | None = None
    counts: str = "stream"
    part: str = ""

    def at(self, suffix: str) -> Scope:
        """The same place, with a path of its own for a part of the field."""
        return replace(self, path=f"{self.path}{suffix}", part=f"{self.part}{suffix}")

    def lookup(self, name: str) -> FieldType:
        """The type of an earlier field, of this record or of one around it.

        Raises:
            ConfigError: there is none by that name.
        """
        scope: Scope | None = self
        names: list[str] = []
        while scope is not None:
            if name in scope.earlier:
                return scope.earlier[name]
            names.extend(scope.earlier)
            scope = scope.outer
        own = re.split(r"#|\[\]", self.path.rpartition(".")[2])[0]  # without the part of the field that asks
        if name == own:
            raise ConfigError(f"{self.path}: cyclic reference: the field refers to itself")
        later = self.later or {}
        if name in later:
            if own in _needed(name, later):
                raise ConfigError(f"{self.path}: cyclic reference: {own!r} and {name!r} refer to each other")
            raise ConfigError(f"{self.path}: {name!r} comes after {own!r}: a field refers to fields before it, move it")
        raise ConfigError(f"{self.path}: no earlier field {name!r}{did_you_mean(name, names)}")


def _needed(name: str, fields: Mapping[str, Field]) -> set[str]:
    """All the names that a field refers to, directly or not."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        for need in fields[waiting.pop()].needs():
            if need not in seen:
                seen.add(need)
                if need in fields:
                    waiting.append(need)
    return seen


class Context(ABC):
    """What a field may see while it makes a column of ``length`` values.

    Attributes:
        seed: the record's seed.
        length: how many values to make.
        columns: the columns of this record so far.
        outer: the context of the record around it, or None.
        contiguous: whether positions follow one another where they are those of the stream.
    """

    contiguous = True

    def __init__(self, seed: int, length: int, outer: Context | None = None) -> None:
        self.seed = seed
        self.length = length
        self.outer = outer
        self.columns: dict[str, Column] = {}

    @abstractmethod
    def words(self, path: str) -> seeding.Words:
        """``length`` random words for this use of randomness."""

    @abstractmethod
    def positions(self) -> npt.NDArray[np.int64]:
        """The position of each value: its row in the stream, or its place in its list."""

    @abstractmethod
    def nested(self) -> Context:
        """The context of a record inside, as long as this one."""

    @abstractmethod
    def _draws(self, lengths: npt.NDArray[np.int64]) -> Context:
        """Where the elements of lists with these lengths take their random words from."""

    def expanded(self, lengths: npt.NDArray[np.int64]) -> Context:
        """The context of the elements of lists with these lengths."""
        return _ListContext(self, self._draws(lengths), lengths)

    @property
    def block(self) -> int:
        """The number of the block; only where the field was bound with ``counts="stream"``."""
        raise ConfigError("an attribute of an entity has no block")

    def uniform(self, path: str) -> seeding.Floats:
        """``length`` doubles in [0, 1)."""
        return seeding.to_uniform(self.words(path))

    def open_uniform(self, path: str) -> seeding.Floats:
        """``length`` doubles in (0, 1)."""
        return seeding.to_open_uniform(self.words(path))

    def column(self, name: str) -> Column:
        """An earlier column, of this record or of one around it."""
        if name in self.columns:
            return self.columns[name]
        assert self.outer is not None, name  # `Scope.lookup` found it
        return self.outer.column(name)


class BlockContext(Context):
    """One block of the stream: random words come from Philox at the block's counter."""

    def __init__(self, seed: int, block: int, length: int = BLOCK_ROWS, outer: Context | None = None) -> None:
        super().__init__(seed, length, outer)
        self._block = block

    @property
    def block(self) -> int:
        return self._block

    def words(self, path: str) -> seeding.Words:
        return seeding.words(self.seed, path, self._block, self.length)

    def positions(self) -> npt.NDArray[np.int64]:
        first = self._block * BLOCK_ROWS
        return np.arange(first, first + self.length, dtype=np.int64)

    def nested(self) -> Context:
        return BlockContext(self.seed, self._block, self.length, self)

    def _draws(self, lengths: npt.NDArray[np.int64]) -> Context:
        return BlockContext(self.seed, self._block, int(lengths.sum()))


class EntityContext(Context):
    """One value a key: random words are a hash of the key, so that the same key gives the same value."""

    def __init__(self, seed: int, keys: seeding.Words, outer: Context | None = None) -> None:
        super().__init__(seed, len(keys), outer)
        self._keys = keys

    def words(self, path: str) -> seeding.Words:
        return seeding.hash_words(self.seed, path, self._keys)

    def positions(self) -> npt.NDArray[np.int64]:
        raise ConfigError("an attribute of an entity has no position")

    def nested(self) -> Context:
        return EntityContext(self.seed, self._keys, self)

    def _draws(self, lengths: npt.NDArray[np.int64]) -> Context:
        places = _places(lengths).astype(np.uint64)
        return EntityContext(self.seed, seeding.hash_words(self.seed, "[]", np.repeat(self._keys, lengths)) + places)


class _ListContext(Context):
    """The elements of lists: words from ``source``, positions within each list, outer columns repeated."""

    def __init__(self, outer: Context, source: Context, lengths: npt.NDArray[np.int64]) -> None:
        super().__init__(source.seed, source.length)
        self._around = outer
        self._source = source
        self._lengths = lengths

    @property
    def block(self) -> int:
        return self._source.block

    def words(self, path: str) -> seeding.Words:
        return self._source.words(path)

    def positions(self) -> npt.NDArray[np.int64]:
        return _places(self._lengths)

    def nested(self) -> Context:
        inner = _ListContext(self._around, self._source, self._lengths)
        inner.outer = self
        return inner

    def _draws(self, lengths: npt.NDArray[np.int64]) -> Context:
        return self._source._draws(lengths)

    def column(self, name: str) -> Column:
        if name in self.columns:
            return self.columns[name]
        if self.outer is not None:
            return self.outer.column(name)
        rows = np.repeat(np.arange(len(self._lengths)), self._lengths)
        return self._around.column(name).take(rows)


def _places(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """[2, 3] → [0, 1, 0, 1, 2]."""
    ends = np.cumsum(lengths)
    return np.arange(int(lengths.sum()), dtype=np.int64) - np.repeat(ends - lengths, lengths)


class Field(ABC):
    """One column of a record, described. Immutable, and free to be used in many records."""

    @abstractmethod
    def bind(self, scope: Scope) -> Bound:
        """Check the field in its place.

        Raises:
            ConfigError: it cannot be made there.
        """

    def needs(self) -> Iterator[str]:
        """The names of the earlier fields that it refers to."""
        yield from ()

    def __or__(self, function: Callable[[Any], Any]) -> Field:
        """``field | function``: the function gets the whole column as a NumPy array (of objects, where the values are
        not numbers) and returns as many values, as an array or a sequence. It must be pure."""
        from simlink.generators.fields.mapped import Mapped

        return Mapped(self, function, whole=True)

    def map(self, function: Callable[[Any], Any], *, returns: type | None = None) -> Field:
        """Each value → ``function(value)``; None stays None. The function must be pure: a value from a pool is mapped
        once, not once a row.

        Args:
            function: value → value.
            returns: ``int``, ``float``, ``bool``, ``str`` or ``bytes``, checked; without it the values may be anything,
                and a Protobuf message cannot be derived from the record.
        """
        from simlink.generators.fields.mapped import Mapped

        mapped = Mapped(self, function, whole=False)
        return mapped if returns is None else mapped.returns(returns)

    def returns(self, type: type) -> Field:
        """The same field, with its values declared (and checked) to be of this type."""
        from simlink.generators.fields.mapped import Typed

        return Typed(self, type)


class Constant(Field):
    """The same value on every row."""

    def __init__(self, value: Any) -> None:
        self.value = plain(value)

    def bind(self, scope: Scope) -> Bound:
        pool = Pool([self.value])

        def make(context: Context) -> Column:
            return Coded(np.zeros(context.length, np.intp), pool)

        return Bound(infer(pool.values), make)


def as_field(value: Any) -> Field:
    """A field as it is, a mapping with fields inside as a nested record, anything else as a constant.

    Raises:
        ConfigError: a value that no record can hold.
    """
    if isinstance(value, Field):
        return value
    nested = getattr(value, "as_nested_field", None)
    if nested is not None:
        inner: Field = nested()
        return inner
    if isinstance(value, Mapping) and _holds_field(value):
        from simlink.generators.fields.nesting import Nested

        return Nested({str(name): as_field(inner) for name, inner in value.items()})
    if isinstance(value, list | tuple) and _holds_field(value):
        raise ConfigError("a list with fields in it: use fields.list(of, min, max)")
    if callable(value):
        raise ConfigError(f"{value!r} is a function, not a field: call it, or use fields.constant(…).map(function)")
    return Constant(value)


def _holds_field(value: Any) -> bool:
    if isinstance(value, Field) or hasattr(value, "as_nested_field"):
        return True
    if isinstance(value, Mapping):
        return any(map(_holds_field, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_field, value))


_PLAIN = (str, bool, int, float, bytes)


def plain(value: Any) -> Any:
    """The value as JSON can say it: dates and times as ISO 8601, decimals and UUIDs as text, tuples as lists.

    Raises:
        ConfigError: there is no plain form.
    """
    if value is None or type(value) in _PLAIN:
        return value
    # NumPy's own float, an enumeration of texts: they are such values, but their repr is not that of the value.
    if isinstance(value, str):
        return str.__str__(value)
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, np.datetime64):
        # Nanoseconds come out as a bare number.
        time = value.astype("M8[us]").item() if isinstance(value.item(), int) else value.item()
        if time is None or isinstance(time, dt.date):
            return plain(time)
    elif isinstance(value, np.generic) and not isinstance(value, np.timedelta64) and value.item() is not value:
        return plain(value.item())
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, set | frozenset):
        try:
            return sorted(plain(v) for v in value)
        except TypeError:
            raise ConfigError(f"a set becomes a list in order, and this one has none: {value!r}") from None
    raise ConfigError(f"a record holds plain values, not {type(value).__name__}: {value!r}")


def infer(values: Sequence[Any]) -> FieldType:
    """The type of these plain values together; ANY where they differ in kind."""
    optional = any(v is None for v in values)
    present = [v for v in values if v is not None]
    if not present:
        return FieldType(Kind.ANY, optional=True)
    kinds = {_kind(v) for v in present}
    if kinds == {Kind.INT, Kind.UINT} and min(present) >= 0:
        kinds = {Kind.UINT}
    if len(kinds) != 1:
        return FieldType(Kind.ANY, optional=optional)
    kind = kinds.pop()
    if kind is Kind.RECORD:
        names = list(present[0])
        if any(list(v) != names for v in present):
            return FieldType(Kind.ANY, optional=optional)
        schema = Schema("", {n: infer([v[n] for v in present]) for n in names})
        return FieldType(kind, optional=optional, fields=schema)
    if kind is Kind.LIST:
        return FieldType(kind, optional=optional, item=infer([item for v in present for item in v]))
    return FieldType(kind, optional=optional)


def _kind(value: Any) -> Kind:
    if isinstance(value, bool):
        return Kind.BOOL
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return Kind.INT
        return Kind.UINT if 0 <= value < 2**64 else Kind.ANY
    for kind, type_ in _KINDS.items():
        if isinstance(value, type_):
            return kind
    return Kind.ANY


_KINDS: dict[Kind, type] = {
    Kind.FLOAT: float,
    Kind.STR: str,
    Kind.BYTES: bytes,
    Kind.RECORD: dict,
    Kind.LIST: list,
}


def as_array(column: Column) -> npt.NDArray[Any]:
    """The column as one array: numbers as they are, everything else as an array of objects."""
    if isinstance(column, np.ndarray):
        return column
    if isinstance(column, Coded) and not column.pool.nested:
        chosen: npt.NDArray[Any] = column.pool.array[column.codes]
        return chosen
    assert isinstance(column, Coded | Masked | Ragged | Struct)
    return object_array(column.tolist())


def object_array(values: Sequence[Any]) -> npt.NDArray[np.object_]:
    """A flat array of these objects; ``np.array`` would make lists of equal length into rows of a matrix."""
    return np.fromiter(values, dtype=object, count=len(values))
