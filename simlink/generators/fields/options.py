"""Values that are missing on some rows, and values of one kind or another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from simlink.block import Column, FieldType, Kind, Masked
from simlink.errors import ConfigError
from simlink.generators.field import Bound, Context, Field, Scope, as_field, object_array
from simlink.generators.fields.draws import cumulative

__all__ = ["maybe", "one_of"]


def maybe(of: Any, missing: float = 0.1) -> Field:
    """The values of a field, and None with probability ``missing`` (0 to 1). The values that are there are those of the
    field itself: another probability changes none of them. Identical everywhere, as far as the field is.

    Raises:
        ConfigError: ``missing`` is not from 0 to 1, or a value that no record can hold.
    """
    if isinstance(missing, bool) or not isinstance(missing, int | float) or not 0 <= missing <= 1:
        raise ConfigError(f"maybe: missing is a probability from 0 to 1, not {missing!r}")
    return _Maybe(as_field(of), float(missing))


class _Maybe(Field):
    def __init__(self, of: Field, missing: float) -> None:
        self.of, self.missing = of, missing

    def needs(self) -> Iterator[str]:
        return self.of.needs()

    def bind(self, scope: Scope) -> Bound:
        inner = self.of.bind(scope)
        path = f"{scope.path}#missing"

        def make(context: Context) -> Column:
            present = context.uniform(path) >= self.missing
            values = inner.make(context)
            if isinstance(values, Masked):
                return Masked(present & values.present, values.values)
            return Masked(present, values)

        return Bound(replace(inner.type, optional=True), make)


def one_of(options: Sequence[Any], weights: Sequence[float] | None = None) -> Field:
    """On every row the value of one of these fields, evenly or by weight: ``one_of([fields.uuid(), "none"])``. All of
    them are drawn on every row. Identical everywhere, as far as the fields are.

    Raises:
        ConfigError: no fields, fields in a mapping, a set or a text, or weights as in `choice`.
    """
    if isinstance(options, str | bytes | Mapping | set | frozenset) or not isinstance(options, Iterable):
        raise ConfigError(f"one_of: fields are given in a list, not as {type(options).__name__}")
    made = [as_field(option) for option in options]
    if not made:
        raise ConfigError("one_of: there is nothing to choose from")
    shares = [1.0] * len(made) if weights is None else list(weights)
    if len(shares) != len(made):
        raise ConfigError(f"one_of: {len(made)} fields, but {len(shares)} weights")
    cumulative("one_of", shares)
    return _OneOf(made, shares)


class _OneOf(Field):
    def __init__(self, options: list[Field], weights: list[float]) -> None:
        self.options, self.weights = options, weights

    def needs(self) -> Iterator[str]:
        for option in self.options:
            yield from option.needs()

    def bind(self, scope: Scope) -> Bound:
        inner = [option.bind(scope.at(f"#{i}")) for i, option in enumerate(self.options)]
        limits = cumulative("one_of", self.weights)
        path = f"{scope.path}#which"

        def make(context: Context) -> Column:
            which = np.searchsorted(limits, context.uniform(path), side="right")
            columns = [bound.make(context) for bound in inner]
            arrays = [c for c in columns if isinstance(c, np.ndarray)]
            if len(arrays) == len(columns) and len({a.dtype for a in arrays}) == 1:
                chosen: Column = np.stack(arrays)[which, np.arange(context.length)]
                return chosen
            out = object_array([None] * context.length)
            for i, column in enumerate(columns):
                rows = np.flatnonzero(which == i)
                out[rows] = object_array(column.take(rows).tolist())
            return out

        return Bound(_common([bound.type for bound in inner]), make)


def _common(types: Sequence[FieldType]) -> FieldType:
    """The type of a value that is one of these."""
    optional = any(t.optional for t in types)
    plain = [replace(t, optional=False) for t in types]
    if all(t == plain[0] for t in plain):
        return replace(plain[0], optional=optional)
    return FieldType(Kind.ANY, optional=optional)
