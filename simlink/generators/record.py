"""record(): a generator from named fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from simlink.block import Block, FieldType, Schema
from simlink.errors import ConfigError, did_you_mean
from simlink.generators.field import BLOCK_ROWS, BlockContext, Bound, Context, Field, Scope, as_field
from simlink.generators.fields.nesting import Nested, bind_fields, step_name
from simlink.generators.generator import Generator
from simlink.generators.steps import Steps

__all__ = ["Record", "record"]


def record(name: str, more: Mapping[str, Any] | None = None, /, *, seed: int | None = None, **fields: Any) -> Record:
    """A generator of records with these fields, in this order.

    A field is made by `simlink.fields`; any other plain value is a constant, a dict with fields in it or another record
    is a nested record. The values of a field depend on the seed and on ``"name.field"`` only: adding, removing or
    moving fields changes no other (except one that refers to it).

    Args:
        name: of the record; part of where its random numbers come from.
        more: name → field, for names that Python has no keyword for, as ``seed`` or ``class``; before the others.
        seed: 0 … 2**64 - 1; a random one of 63 bits where none is given, kept in ``.seed``.
        fields: name=field.

    Raises:
        ConfigError: a bad name or seed, no fields, or a field that is wrong by itself or in its place.
    """
    first = {} if more is None else more
    if not isinstance(first, Mapping) or not all(isinstance(n, str) for n in first):
        raise ConfigError(f"record: fields are given by name, or as names → fields, not as {more!r:.100}")
    twice = next((n for n in first if n in fields), None)
    if twice is not None:
        raise ConfigError(f"record: {twice!r} is given twice")
    return Record(name, {n: as_field(f) for n, f in {**first, **fields}.items()}, seed=seed)


class Record(Generator):
    """A generator made of fields; see `record`. Only those in ``shown`` are in its records, by default all."""

    def __init__(
        self, name: str, fields: Mapping[str, Field], *, seed: int | None = None, shown: Sequence[str] | None = None
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"record: the name is text, not {name!r}")
        if not fields:
            raise ConfigError(f"record {name!r} has no fields")
        super().__init__(name, seed)
        self._fields = dict(fields)
        self._shown: tuple[str, ...] | None = None if shown is None else tuple(shown)
        self._bind()

    def _bind(self) -> None:
        root = step_name(self.name)

        def scope(name: str, earlier: Mapping[str, FieldType]) -> Scope:
            return Scope(self.seed, f"{root}.{step_name(name)}", earlier, later=self._fields)

        self._bound: dict[str, Bound] = bind_fields(self._fields, scope)
        shown = self._fields if self._shown is None else self._shown
        self._schema = Schema(self.name, {n: self._bound[n].type for n in shown})

    @property
    def schema(self) -> Schema:
        return self._schema

    @property
    def fields(self) -> Mapping[str, Field]:
        """The fields, by name, also those that `select` left out."""
        return dict(self._fields)

    def make_block(self, k: int) -> Block:
        context = BlockContext(self.seed, k)
        self.fill(context)
        return self._shown_of(context, k)

    def _shown_of(self, context: Context, k: int) -> Block:
        columns = {name: context.columns[name] for name in self._schema}
        return Block(self._schema, columns, k * BLOCK_ROWS, BLOCK_ROWS)

    def make_steps(self, k: int) -> Steps[Block]:
        if type(self).make_block is not Record.make_block:
            # Somebody's own way to make a block: it has no steps.
            return (yield from super().make_steps(k))
        context = BlockContext(self.seed, k)
        for name, bound in self._bound.items():
            yield f"{self.name}.{name}"
            context.columns[name] = yield from bound.in_steps(context)
        return self._shown_of(context, k)

    def fill(self, context: Context) -> None:
        """Make all columns, also those that are not shown, in a context of this record's seed."""
        for name, bound in self._bound.items():
            context.columns[name] = bound.make(context)

    def select(self, *names: str) -> Self:
        """The same records with these fields only, in this order, and with the same values. Fields that none of them
        refers to are not made at all.

        Raises:
            ConfigError: no names, one twice, or one that is not shown now.
        """
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"select: give each field once, and at least one: {names!r}")
        for name in names:
            if name not in self._schema.fields:
                raise ConfigError(f"select: {self.name} has no field {name!r}{did_you_mean(name, self._schema)}")
        wanted = set(names)
        for name in reversed(self._fields):
            if name in wanted:
                wanted.update(self._fields[name].needs())
        other = self._copy()
        other._fields = {name: field for name, field in self._fields.items() if name in wanted}
        other._shown = names
        other._bind()
        return other

    def with_seed(self, seed: int | None) -> Self:
        other = super().with_seed(seed)
        other._bind()
        return other

    def as_nested_field(self) -> Field:
        """The record as a field of another one; its values then depend on that one's seed and path."""
        return Nested(self._fields, tuple(self._schema))

    def __getstate__(self) -> dict[str, Any]:
        # What was bound holds functions, which do not travel to another process; it is bound again there.
        return {k: v for k, v in super().__getstate__().items() if k not in ("_bound", "_schema")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind()
