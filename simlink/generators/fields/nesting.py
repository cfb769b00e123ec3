"""Records inside records, and lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from simlink.block import Column, FieldType, Kind, Ragged, Schema, Struct
from simlink.errors import ConfigError
from simlink.generators.field import Bound, Context, Field, Scope, as_field
from simlink.generators.fields.draws import scaled
from simlink.generators.steps import Steps, at_once

__all__ = ["Nested", "bind_fields", "list_", "nested", "step_name"]


def step_name(name: str) -> str:
    """A field's name as a step of a path: a dot inside it is not a step of its own."""
    return name.replace("\\", "\\\\").replace(".", "\\.")


def bind_fields(
    fields: Mapping[str, Field], scope: Callable[[str, Mapping[str, FieldType]], Scope]
) -> dict[str, Bound]:
    """Bind the fields of one record in order; ``scope(name, earlier types)`` says where each stands."""
    types: dict[str, FieldType] = {}
    bound: dict[str, Bound] = {}
    for name, field in fields.items():
        bound[name] = field.bind(scope(name, types))
        types = {**types, name: bound[name].type}
    return bound


def nested(**fields: Any) -> Field:
    """A record inside the record, with fields of its own. They may refer to earlier ones of it, and of the records
    around it.

    Raises:
        ConfigError: a value that no record can hold, or no fields.
    """
    return Nested({name: as_field(value) for name, value in fields.items()})


class Nested(Field):
    """An ordered set of named fields as one field; only those in ``shown`` are in its records, by default all."""

    def __init__(self, fields: Mapping[str, Field], shown: Sequence[str] | None = None) -> None:
        if not fields:
            raise ConfigError("record: a record has at least one field")
        self.fields = dict(fields)
        self.shown = tuple(self.fields if shown is None else shown)

    def needs(self) -> Iterator[str]:
        for field in self.fields.values():
            yield from (name for name in field.needs() if name not in self.fields)

    def bind(self, scope: Scope) -> Bound:
        def inner(name: str, earlier: Mapping[str, FieldType]) -> Scope:
            path = f"{scope.path}.{step_name(name)}"
            return replace(scope, path=path, earlier=earlier, outer=scope, later=self.fields, part="")

        bound = bind_fields(self.fields, inner)
        schema = Schema(scope.path.rpartition(".")[2], {n: bound[n].type for n in self.shown})

        def make(context: Context) -> Column:
            return at_once(steps(context))

        def steps(context: Context) -> Steps[Column]:
            inside = context.nested()
            for name, field in bound.items():
                yield f"{scope.path}.{name}"
                inside.columns[name] = yield from field.in_steps(inside)
            return Struct({name: inside.columns[name] for name in self.shown}, context.length)

        return Bound(FieldType(Kind.RECORD, fields=schema), make, steps)


def list_(of: Any, min: int = 0, max: int = 3) -> Field:
    """A list of ``min`` to ``max`` elements (both included, all lengths equally likely), each drawn from ``of``.

    ``of`` may be any field, a nested record with ``sequence()`` in it for the place in the list, or a plain value.

    Raises:
        ConfigError: ``min`` and ``max`` are not integers with 0 <= min <= max <= 10,000.
    """
    return _List(as_field(of), min, max)


class _List(Field):
    def __init__(self, of: Field, low: int, high: int) -> None:
        for name, value in (("min", low), ("max", high)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"list: {name} is an integer, not {value!r}")
        if not 0 <= low <= high <= 10_000:
            raise ConfigError(f"list: expected 0 <= min <= max <= 10,000, not min={low}, max={high}")
        self.of, self.low, self.high = of, low, high

    def needs(self) -> Iterator[str]:
        return self.of.needs()

    def bind(self, scope: Scope) -> Bound:
        counts = "list" if scope.counts else ""
        part = f"{scope.part}[]" if scope.part else ""
        item = self.of.bind(replace(scope, path=f"{scope.path}[]", counts=counts, part=part))
        span = self.high - self.low + 1

        def make(context: Context) -> Column:
            return at_once(steps(context))

        def steps(context: Context) -> Steps[Column]:
            lengths = scaled(context.words(f"{scope.path}#length"), span).view(np.int64) + self.low
            offsets = np.concatenate(([0], np.cumsum(lengths)))
            return Ragged(offsets, (yield from item.in_steps(context.expanded(lengths))))

        return Bound(FieldType(Kind.LIST, item=item.type), make, steps)
