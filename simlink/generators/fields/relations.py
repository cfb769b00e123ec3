"""Fields that agree with other fields: attributes of an entity, and values that are there only sometimes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.block import Coded, Column, FieldType, Kind, Masked, Pool
from simlink.errors import ConfigError
from simlink.generators import seeding
from simlink.generators.field import (
    Bound,
    Constant,
    Context,
    EntityContext,
    Field,
    Scope,
    as_array,
    as_field,
    infer,
    object_array,
    plain,
)
from simlink.generators.fields.mapped import PoolMemo

__all__ = ["ref", "when"]


def ref(field: str, attribute: Any = None, *, entity: str | None = None) -> Field:
    """What belongs to the entity that an earlier field names: the same key has the same value, on every row and in
    every block, without a table of entities.

    - ``ref("user_id", fields.choice(FR=3, DE=2))``: the field is drawn from a hash of the key instead of the row.
    - ``ref("country", {"FR": "EUR", "GB": "GBP"})``: looked up; a key that is missing is an error.
    - ``ref("product_id", ["mug", "pen", …])``: the key is the index.
    - ``ref("user_id")``: the earlier field's own value again.

    Where the key is None, so is the attribute. Identical everywhere, as far as the attribute is.

    Args:
        field: the name of a field before this one, in this record or in one around it.
        attribute: a field that needs no position (no `sequence`, no `event_time`), a mapping, a sequence, or None.
        entity: a name for the attribute, such as ``"user.country"``. Another record with the same seed and the same
            name gives the same key the same value: a foreign key. By default the attribute belongs to its own field.

    Raises:
        ConfigError: no such field before this one, a cyclic reference, an attribute that has no value of its own for a
            key, or (when made) a key that is missing.
    """
    if isinstance(attribute, Mapping) and not any(isinstance(v, Field) for v in attribute.values()):
        inner: Field | None = None
        table: _Table | None = _Table(list(attribute.values()), {k: i for i, k in enumerate(attribute)})
    elif isinstance(attribute, Sequence) and not isinstance(attribute, str | bytes):
        inner, table = None, _Table(list(attribute), None)
    else:
        inner, table = (None if attribute is None else as_field(attribute)), None
    if entity is not None and inner is None:
        raise ConfigError("ref: entity= names an attribute that is drawn: give a field as the attribute")
    if not isinstance(field, str):
        raise ConfigError(f"ref: the earlier field is given by its name, not {field!r}")
    return _Ref(field, inner, table, entity)


class _Table:
    """Values by key, or by index."""

    def __init__(self, values: list[Any], index: dict[Any, int] | None) -> None:
        if not values:
            raise ConfigError("ref: the table of attributes is empty")
        self.values = [plain(v) for v in values]
        self.index = index

    def code(self, key: Any, path: str) -> int:
        if self.index is not None:
            if isinstance(key, Hashable) and key in self.index:
                return self.index[key]
        elif isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(self.values):
            return key
        known = f"{len(self.values)} keys" if self.index is not None else f"indices 0..{len(self.values) - 1}"
        raise ConfigError(f"{path}: the key {key!r} is not among the {known} of its attributes")


class _Ref(Field):
    def __init__(self, field: str, attribute: Field | None, table: _Table | None, entity: str | None) -> None:
        self.field, self.attribute, self.table, self.entity = field, attribute, table, entity

    def needs(self) -> Iterator[str]:
        yield self.field

    def bind(self, scope: Scope) -> Bound:
        key = scope.lookup(self.field)
        if self.attribute is not None:
            made, make = self._drawn(scope, self.attribute)
        elif self.table is not None:
            made, make = infer(self.table.values), self._looked_up(self.table, scope.path)
        else:
            return Bound(key, lambda context: context.column(self.field))

        def with_gaps(context: Context) -> Column:
            keys = context.column(self.field)
            if isinstance(keys, Masked):
                present = np.flatnonzero(keys.present)
                filler = np.zeros(len(keys), np.intp)
                filler[present] = np.arange(len(present))
                # An attribute is made for the keys that are there; the rest of the cells are never looked at.
                values = make(context, keys.values.take(present)) if len(present) else None
                if values is None:
                    return Coded(np.zeros(len(keys), np.intp), Pool([None]))
                return Masked(keys.present, values.take(filler))
            return make(context, keys)

        return Bound(replace(made, optional=made.optional or key.optional), with_gaps)

    def _drawn(self, scope: Scope, attribute: Field) -> tuple[FieldType, Callable[[Context, Column], Column]]:
        path = scope.path if self.entity is None else f"entity:{self.entity}"
        part = scope.part if self.entity is None else ""
        inner = attribute.bind(Scope(scope.seed, path, {}, counts="", part=part))
        of_pool = PoolMemo(lambda pool: np.array([seeding.hash_value(v) for v in pool.values], np.uint64))

        def make(context: Context, keys: Column) -> Column:
            words = of_pool(keys.pool)[keys.codes] if isinstance(keys, Coded) else key_words(keys)
            return inner.make(EntityContext(context.seed, words))

        return inner.type, make

    def _looked_up(self, table: _Table, path: str) -> Callable[[Context, Column], Column]:
        values = Pool(table.values)

        def codes_of(keys: Sequence[Any]) -> npt.NDArray[np.int64]:
            return np.array([table.code(k, path) for k in keys], np.int64)

        of_pool = PoolMemo(lambda pool: codes_of(pool.values))

        def make(_: Context, keys: Column) -> Column:
            if isinstance(keys, Coded):
                return Coded(of_pool(keys.pool)[keys.codes], values)
            if isinstance(keys, np.ndarray) and keys.dtype == np.int64 and table.index is None and len(keys):
                for end in (keys.min(), keys.max()):
                    table.code(int(end), path)
                return Coded(keys, values)
            if isinstance(keys, np.ndarray) and keys.dtype != object:
                distinct, where = np.unique(keys, return_inverse=True)
                return Coded(codes_of(distinct.tolist())[where], values)
            return Coded(codes_of(keys.tolist()), values)

        return make


class Indexed(Field):
    """`ref` to a field whose values are ``0 … count - 1``: the attributes of all of them are made once, at the first
    block, and looked up. The values are those of `ref`; it pays where the same few keys come again and again."""

    MOST = 200_000
    """With more keys than that, a table costs more than it saves."""

    def __init__(self, field: str, attribute: Any, count: int) -> None:
        self.field, self.attribute, self.count = field, as_field(attribute), count

    def needs(self) -> Iterator[str]:
        yield self.field

    def bind(self, scope: Scope) -> Bound:
        one_by_one = ref(self.field, self.attribute).bind(scope)
        if self.count > self.MOST:
            return one_by_one
        inner = self.attribute.bind(Scope(scope.seed, scope.path, {}, counts="", part=scope.part))
        table = lru_cache(maxsize=1)(
            lambda: inner.make(EntityContext(scope.seed, np.arange(self.count, dtype=np.uint64)))
        )
        return Bound(one_by_one.type, lambda context: table().take(np.asarray(context.column(self.field))))


def key_words(keys: Column) -> seeding.Words:
    """Keys that are not Coded → 64-bit words; equal values give equal words, whatever column they come from."""
    if isinstance(keys, np.ndarray) and keys.dtype in (np.int64, np.uint64):
        return keys.view(np.uint64)
    known: dict[Any, int] = {}
    out = []
    for key in keys.tolist():
        name = (type(key), key) if isinstance(key, Hashable) else repr(key)
        if name not in known:
            known[name] = seeding.hash_value(key)
        out.append(known[name])
    return np.array(out, np.uint64)


def when(field: str, matches: Any, then: Any, otherwise: Any = None) -> Field:
    """``then`` on the rows where an earlier field matches, ``otherwise`` (None) on the others.

    Both are drawn for every row, so that changing the condition changes no value that stays.

    Args:
        field: the name of a field before this one, in this record or in one around it.
        matches: a value, several of them in a list, tuple or set, or a pure function value → bool.
        then: a field or a plain value.
        otherwise: likewise.

    Raises:
        ConfigError: no such field before this one, or a cyclic reference.
    """
    if not isinstance(field, str):
        raise ConfigError(f"when: the earlier field is given by its name, not {field!r}")
    return _When(field, matches, as_field(then), as_field(otherwise))


class _When(Field):
    def __init__(self, field: str, matches: Any, then: Field, otherwise: Field) -> None:
        self.field, self.matches, self.then, self.otherwise = field, matches, then, otherwise
        self.wanted = list(matches) if isinstance(matches, list | tuple | set | frozenset) else [matches]

    def needs(self) -> Iterator[str]:
        yield self.field
        yield from self.then.needs()
        yield from self.otherwise.needs()

    def bind(self, scope: Scope) -> Bound:
        scope.lookup(self.field)
        then = self.then.bind(scope.at("#then"))
        absent = isinstance(self.otherwise, Constant) and self.otherwise.value is None
        otherwise = self.otherwise.bind(scope.at("#otherwise"))
        of_pool = PoolMemo(lambda pool: self._tests(pool.values))
        merge = _Merge()

        def make(context: Context) -> Column:
            column = context.column(self.field)
            if isinstance(column, Coded):
                yes = of_pool(column.pool)[column.codes]
            else:
                yes = self._tests(column if isinstance(column, np.ndarray) else column.tolist())
            values = then.make(context)
            if absent and not isinstance(values, Coded):
                return (
                    Masked(yes & values.present, values.values) if isinstance(values, Masked) else Masked(yes, values)
                )
            return merge(yes, values, otherwise.make(context))

        return Bound(_either(then.type, otherwise.type, absent), make)

    def _tests(self, values: Any) -> npt.NDArray[np.bool_]:
        if callable(self.matches):
            listed = values.tolist() if isinstance(values, np.ndarray) else values
            return np.fromiter((bool(self.matches(v)) for v in listed), np.bool_, len(listed))
        if isinstance(values, np.ndarray) and values.dtype != object:
            # One by one: np.isin would compare uint64 with int64 as doubles.
            yes = np.zeros(len(values), np.bool_)
            for wanted in self.wanted:
                if isinstance(wanted, bool | int | float):
                    yes |= values == wanted
            return yes
        listed = values.tolist() if isinstance(values, np.ndarray) else values
        return np.fromiter((v in self.wanted for v in listed), np.bool_, len(listed))


def _either(then: FieldType, otherwise: FieldType, absent: bool) -> FieldType:
    """The type of a value that is one or the other."""
    if absent:
        return replace(then, optional=True)
    same = replace(then, optional=False) == replace(otherwise, optional=False)
    optional = then.optional or otherwise.optional
    return replace(then, optional=optional) if same else FieldType(Kind.ANY, optional=optional)


class _Merge:
    """Two columns → one, by a mask."""

    def __init__(self) -> None:
        self._pools: tuple[Pool, Pool, Pool] | None = None

    def __call__(self, yes: npt.NDArray[np.bool_], then: Column, otherwise: Column) -> Column:
        if isinstance(then, Coded) and isinstance(otherwise, Coded):
            pools = self._pools
            if pools is None or pools[0] is not then.pool or pools[1] is not otherwise.pool:
                both = Pool(then.pool.values + otherwise.pool.values)
                pools = self._pools = (then.pool, otherwise.pool, both)
            return Coded(np.where(yes, then.codes, otherwise.codes + len(then.pool)), pools[2])
        if isinstance(then, np.ndarray) and isinstance(otherwise, np.ndarray) and then.dtype == otherwise.dtype:
            chosen: npt.NDArray[Any] = np.where(yes, then, otherwise)
            return chosen
        first, second = (object_array(as_array(c).tolist()) for c in (then, otherwise))
        mixed: npt.NDArray[Any] = np.where(yes, first, second)
        return mixed
