"""Fields made from other fields by a function, and fields whose type is declared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.block import Coded, Column, FieldType, Kind, Masked, Pool
from simlink.errors import ConfigError
from simlink.generators.field import Bound, Context, Field, Scope, as_array, object_array

__all__ = ["Mapped", "PoolMemo", "Typed"]


class PoolMemo:
    """What was made of a pool, so that it is made once and not once a block.

    The pools of a record live as long as the record; a field sees one of them, or a few behind a `when`.
    """

    def __init__(self, function: Callable[[Pool], Any]) -> None:
        self._function = function
        self._made: dict[int, tuple[Pool, Any]] = {}

    def __call__(self, pool: Pool) -> Any:
        known = self._made.get(id(pool))
        # The pool is kept beside the result, so that its id cannot be taken by another one.
        if known is None or known[0] is not pool:
            if len(self._made) >= 8:
                self._made.clear()
            known = self._made[id(pool)] = (pool, self._function(pool))
        return known[1]


class Mapped(Field):
    """A function over a whole column, or over each of its values."""

    def __init__(self, field: Field, function: Callable[[Any], Any], *, whole: bool) -> None:
        if not callable(function):
            raise ConfigError(f"a field is mapped by a function, not by {function!r}")
        self.field = field
        self.function = function
        self.whole = whole

    def needs(self) -> Iterator[str]:
        return self.field.needs()

    def bind(self, scope: Scope) -> Bound:
        inner = self.field.bind(scope)
        make = self._whole(inner, scope.path) if self.whole else self._each(inner)
        return Bound(FieldType(Kind.ANY, optional=True), make)

    def _whole(self, inner: Bound, path: str) -> Callable[[Context], Column]:
        def make(context: Context) -> Column:
            result = self.function(as_array(inner.make(context)))
            if not isinstance(result, np.ndarray):
                if not isinstance(result, Iterable):
                    raise ConfigError(
                        f"{path}: the function after | gets a whole column and must return one value a row, "
                        f"not {result!r:.80}; map() takes a function of one value"
                    )
                result = object_array(list(result))
            if result.shape != (context.length,):
                raise ConfigError(
                    f"{path}: the function after | must return one value a row: "
                    f"expected {context.length}, got an array of shape {result.shape}"
                )
            return _canonical(result)

        return make

    def _each(self, inner: Bound) -> Callable[[Context], Column]:
        function = self.function
        mapped_pool = PoolMemo(lambda pool: Pool([None if v is None else function(v) for v in pool.values]))

        def make(context: Context) -> Column:
            column = inner.make(context)
            if isinstance(column, Coded):
                return Coded(column.codes, mapped_pool(column.pool))
            return object_array([None if v is None else function(v) for v in column.tolist()])

        return make


def _canonical(array: Any) -> Column:
    """Arrays of the kinds that a Block may hold; text and everything odd as objects."""
    if array.dtype.kind == "b" or array.dtype in (np.int64, np.uint64, np.float64):
        column: Column = array
        return column
    if array.dtype.kind in "iu":
        return np.asarray(array, np.int64 if array.dtype.kind == "i" else np.uint64)
    if array.dtype.kind == "f":
        return np.asarray(array, np.float64)
    return object_array(array.tolist())


_TYPES: dict[type, tuple[Kind, str]] = {
    int: (Kind.INT, "i"),
    float: (Kind.FLOAT, "f"),
    bool: (Kind.BOOL, "b"),
    str: (Kind.STR, ""),
    bytes: (Kind.BYTES, ""),
}


class Typed(Field):
    """A field whose values are declared to be of one type; None stays allowed where the field had it."""

    def __init__(self, field: Field, type: type) -> None:
        if type not in _TYPES:
            raise ConfigError(f"a field returns int, float, bool, str or bytes, not {type!r}")
        self.field = field
        self.type = type

    def needs(self) -> Iterator[str]:
        return self.field.needs()

    def bind(self, scope: Scope) -> Bound:
        inner = self.field.bind(scope)
        kind, code = _TYPES[self.type]
        if kind is Kind.INT and inner.type.kind is Kind.UINT:
            kind, code = Kind.UINT, "u"
        good = PoolMemo(lambda pool: Pool([self._checked(v, scope.path) for v in pool.values]))

        def make(context: Context) -> Column:
            column = inner.make(context)
            if isinstance(column, Coded):
                return Coded(column.codes, good(column.pool))
            if isinstance(column, np.ndarray) and code and column.dtype.kind == code:
                return column
            values = [self._checked(v, scope.path) for v in column.tolist()]
            if not code:
                return object_array(values)
            present = np.fromiter((v is not None for v in values), np.bool_, len(values))
            try:
                # From Python values of one exact type, so the dtype is int64, float64 or bool.
                numbers: npt.NDArray[Any] = np.array([self.type() if v is None else v for v in values], dtype=self.type)
            except OverflowError as error:
                raise ConfigError(f"{scope.path}: an integer beyond 64 bits in a field that returns int") from error
            return numbers if present.all() else Masked(present, numbers)

        return Bound(FieldType(kind, optional=inner.type.optional), make)

    def _checked(self, value: Any, path: str) -> Any:
        if value is None or type(value) is self.type:
            return value
        if self.type is float and type(value) is int:
            return float(value)
        raise ConfigError(f"{path}: declared to return {self.type.__name__}, but a value is {value!r}")
