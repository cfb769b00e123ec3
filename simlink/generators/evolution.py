"""evolve(): records whose schema changes at a given block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from simlink.block import Block, Column, FieldType, Kind, Masked, Schema
from simlink.errors import ConfigError, did_you_mean
from simlink.generators.field import as_array, as_field, object_array
from simlink.generators.generator import BLOCK_ROWS, Generator
from simlink.generators.record import Record
from simlink.generators.steps import Steps, at_once

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["Evolving", "evolve"]

_WIDER: dict[type, tuple[Kind, frozenset[Kind]]] = {
    float: (Kind.FLOAT, frozenset({Kind.INT, Kind.UINT})),
    str: (Kind.STR, frozenset({Kind.INT, Kind.UINT, Kind.FLOAT})),
}


@dataclass(frozen=True)
class _Stage:
    """The records from a block on.

    Attributes:
        block: the first one.
        record: what makes the values.
        names: name → the record's field.
        wider: name → the type that its values are made.
    """

    block: int
    record: Record
    names: Mapping[str, str]
    wider: Mapping[str, type]

    def schema(self) -> Schema:
        fields = {}
        for name, own in self.names.items():
            kind = self.record.schema.fields[own]
            fields[name] = FieldType(_WIDER[self.wider[name]][0], kind.optional) if name in self.wider else kind
        return Schema(self.record.name, fields)


def evolve(
    generator: Record | Evolving,
    at: int,
    *,
    add: Mapping[str, Any] | None = None,
    rename: Mapping[str, str] | None = None,
    widen: Mapping[str, type] | None = None,
) -> Evolving:
    """The same records, with another schema from block ``at`` (row ``4096 * at``) on: as when a producer is released
    anew while others read. What is not named does not change, and neither does any value but for its name or type. It
    can be evolved again, and any block can be made alone. Protobuf writes all of them as one message
    (`Evolving.message_schema`).

    Args:
        generator: from `record`, of the catalog, or from here.
        at: the first block with the new schema, from 1, and after every change before.
        add: new fields, at the end. They may refer to others, by the names with which those were made.
        rename: name → new name.
        widen: name → ``float`` (for integers; beyond 2**53 to the nearest) or ``str`` (for numbers).

    Raises:
        ConfigError: no change, a block that is not as said, a field that is not there or that is there already, a type
            that is not wider, or a field that is wrong by itself or in its place.
    """
    if isinstance(generator, Record):
        same = {name: name for name in generator.schema}
        stages = [_Stage(0, generator, same, {})]
    elif isinstance(generator, Evolving):
        stages = list(generator.stages)
    else:
        raise ConfigError(f"evolve: changes a generator from simlink.record, not {type(generator).__name__}")
    for what, given in (("add", add), ("rename", rename), ("widen", widen)):
        if not isinstance(given, Mapping | None):
            raise ConfigError(f"evolve: {what}= is a mapping from names, not {given!r}")
    for new in (rename or {}).values():
        if not isinstance(new, str):
            raise ConfigError(f"evolve: rename: a name is text, not {new!r}")
    add, rename, widen = dict(add or {}), dict(rename or {}), dict(widen or {})
    if not (add or rename or widen):
        raise ConfigError("evolve: say what changes: add=, rename= or widen=")
    if isinstance(at, bool) or not isinstance(at, int) or at <= stages[-1].block:
        raise ConfigError(f"evolve: at is a block after {stages[-1].block}, not {at!r}")
    changed = Evolving([*stages, _changed(stages[-1], at, add, rename, widen)])
    changed.length = generator.length
    return changed


def _changed(
    last: _Stage, at: int, add: Mapping[str, Any], rename: Mapping[str, str], widen: Mapping[str, type]
) -> _Stage:
    now = last.schema()
    for what, names in (("rename", rename), ("widen", widen)):
        for name in names:
            if name not in now.fields:
                raise ConfigError(f"evolve: {what}: there is no field {name!r}{did_you_mean(str(name), now)}")
    for name, wider in widen.items():
        if wider not in _WIDER or now.fields[name].kind not in _WIDER[wider][1]:
            kind = getattr(wider, "__name__", wider)
            raise ConfigError(f"evolve: widen: {name!r} is {now.fields[name].kind.value}, and {kind} is not wider")
    record = last.record
    if add:
        for name in add:
            if name in record.fields:
                raise ConfigError(f"evolve: add: there is a field {name!r} already")
        made = dict(record.fields) | {name: as_field(field) for name, field in add.items()}
        record = Record(record.name, made, seed=record.seed, shown=[*record.schema, *add])
    names = {rename.get(name, name): own for name, own in last.names.items()}
    if len(names) != len(last.names) or set(names) & set(add):
        raise ConfigError(f"evolve: two fields would have one name: {sorted([*rename.values(), *add])!r}")
    types = {rename.get(name, name): kind for name, kind in {**last.wider, **widen}.items()}
    return _Stage(at, record, names | {name: name for name in add}, types)


class Evolving(Generator):
    """What `evolve` gives.

    Attributes:
        stages: the schemas and the blocks from which they hold.
    """

    def __init__(self, stages: list[_Stage]) -> None:
        super().__init__(stages[0].record.name, stages[0].record.seed)
        self.stages = stages
        self._schemas = [stage.schema() for stage in stages]

    @property
    def schema(self) -> Schema:
        """The last one; `schema_at` has those before."""
        return self._schemas[-1]

    @property
    def all_names(self) -> list[str]:
        """Every name that a field has in some block, in the order in which they came."""
        return list(dict.fromkeys(name for schema in self._schemas for name in schema))

    @property
    def message_schema(self) -> Schema:
        """One schema for the records of all blocks, as a Protobuf message needs it: every name in the order in which it
        came, those that some blocks do not have optional, and numbers that are widened as they end up.

        Raises:
            ConfigError: a field is a number in some blocks and text in others.
        """
        kinds: dict[str, FieldType] = {}
        for stage, schema in zip(self.stages, self._schemas, strict=True):
            for name, kind in schema.fields.items():
                known = kinds.get(name, kind)
                if known.kind is not kind.kind and {known.kind, kind.kind} > {Kind.STR}:
                    raise ConfigError(
                        f"{self.name}: {name!r} is {known.kind.value} before block {stage.block} and {kind.kind.value} "
                        "from there on: no message holds both; widen it to float, or send JSON"
                    )
                kinds[name] = replace(kind, optional=known.optional or kind.optional)
        absent = frozenset(name for name in kinds if not all(name in schema.fields for schema in self._schemas))
        fields = {name: replace(kind, optional=kind.optional or name in absent) for name, kind in kinds.items()}
        return Schema(self.name, fields, absent)

    def json_schema(self) -> dict[str, Any]:
        """As of every generator: ``anyOf`` the schemas that its records have one after another."""
        from simlink.generators.json_schemas import json_schema

        return json_schema(*self._schemas)

    def schema_at(self, block: int) -> Schema:
        """The schema of this block."""
        return self._schemas[self._stage(block)]

    def _stage(self, block: int) -> int:
        return max(i for i, stage in enumerate(self.stages) if stage.block <= block)

    def make_block(self, k: int) -> Block:
        return at_once(self.make_steps(k))

    def make_steps(self, k: int) -> Steps[Block]:
        number = self._stage(k)
        stage = self.stages[number]
        made = (yield from stage.record.make_steps(k)).columns
        columns = {name: _widened(made[own], stage.wider.get(name)) for name, own in stage.names.items()}
        return Block(self._schemas[number], columns, k * BLOCK_ROWS, BLOCK_ROWS)

    def with_seed(self, seed: int | None) -> Self:
        other = super().with_seed(seed)
        other.stages = [replace(stage, record=stage.record.with_seed(other.seed)) for stage in self.stages]
        return other

    def to_pandas(self, n: int | None = None) -> pd.DataFrame:
        """Refused: a table has one schema, and these records have several."""
        raise self._refusal()

    def to_arrow(self, n: int | None = None) -> pa.Table:
        """Refused: a table has one schema, and these records have several."""
        raise self._refusal()

    def _refusal(self) -> ConfigError:
        where = self.stages[1].block
        return ConfigError(f"{self.name}: a table has one schema, and these records change theirs at block {where}")


def _widened(column: Column, kind: type | None) -> Column:
    if kind is None:
        return column
    if isinstance(column, Masked):
        return Masked(column.present, _widened(column.values, kind))
    if kind is float:
        numbers: Column = as_array(column).astype(np.float64)
        return numbers
    return object_array([None if value is None else str(value) for value in column.tolist()])
