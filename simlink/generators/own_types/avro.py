"""The fields of an Avro schema (1.11): a record, in the form that writers of Avro take."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from simlink.errors import ConfigError, MissingExtra
from simlink.generators.field import Field
from simlink.generators.fields.draws import boolean, choice, constant, integer
from simlink.generators.fields.options import maybe, one_of
from simlink.generators.fields.quantiles import moment
from simlink.generators.fields.texts import uuid
from simlink.generators.own_types import limits as make
from simlink.generators.own_types.fields_of import Overrides, nested
from simlink.generators.own_types.limits import Limits, refuse

__all__ = ["read_avro"]

_YEAR = ("2025-01-01", "2026-01-01")
_DAY_2025 = 20_089
_LOGICAL: dict[tuple[str, str], Callable[[], Field]] = {
    ("string", "uuid"): uuid,
    ("int", "date"): lambda: integer(_DAY_2025, _DAY_2025 + 364),
    ("int", "time-millis"): lambda: integer(0, 86_400_000 - 1),
    ("long", "time-micros"): lambda: integer(0, 86_400_000_000 - 1),
    **{("long", f"{local}timestamp-{unit}"): make_ for local in ("", "local-") for unit, make_ in (
        ("millis", lambda: moment(*_YEAR, format="ms")), ("micros", lambda: moment(*_YEAR, format="us", grain=1e-6)))},
}  # fmt: skip


def read_avro(schema: Mapping[str, Any], overrides: Overrides) -> tuple[str, dict[str, Field]]:
    """The name and the fields of a record. An enum's value is its symbol; dates and times are the numbers that the
    schema stores, which every writer takes.

    Raises:
        ConfigError: it is no Avro schema, or has what cannot be honoured.
        MissingExtra: fastavro is not installed.
    """
    try:
        from fastavro.schema import SchemaParseException, UnknownType, expand_schema
    except ImportError as error:
        raise MissingExtra("an Avro schema", "schema", package="fastavro") from error
    try:
        # Named types are written out where they are used, but for those that hold themselves.
        expanded: Any = expand_schema(copy.deepcopy(dict(schema)))
    except (SchemaParseException, UnknownType, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"from_type: this is not an Avro schema: {type(error).__name__}: {error}") from error
    name = expanded["name"].rpartition(".")[2]
    return name, _Avro(overrides).record(expanded, name)


class _Avro:
    def __init__(self, overrides: Overrides) -> None:
        self.overrides = overrides

    def record(self, schema: Mapping[str, Any], path: str) -> dict[str, Field]:
        """The fields of a record."""
        return {
            field["name"]: self.overrides.field(
                f"{path}.{field['name']}", self._maker(field["type"], f"{path}.{field['name']}")
            )
            for field in schema["fields"]
        }

    def _maker(self, schema: Any, path: str) -> Callable[[], Field]:
        return lambda: self.field(schema, path)

    def field(self, schema: Any, path: str) -> Field:
        """One value."""
        if isinstance(schema, list):
            present = [branch for branch in schema if _name(branch) != "null"]
            if not present:
                return constant(None)
            made = [self.field(branch, path) for branch in present]
            field = made[0] if len(made) == 1 else one_of(made)
            return maybe(field) if len(present) < len(schema) else field
        kind = _name(schema)
        logical = schema.get("logicalType") if isinstance(schema, Mapping) else None
        if logical is not None:
            if (kind, logical) not in _LOGICAL:
                raise refuse(path, f"the logical type {logical!r} of {kind} is not supported")
            return _LOGICAL[kind, logical]()
        if kind == "record":
            return nested(self.record(schema, path), path)
        if kind == "enum":
            if not schema["symbols"]:
                raise refuse(path, "an enum of nothing")
            return choice(schema["symbols"])
        if kind == "array":
            return make.each(self.field(schema["items"], f"{path}[]"), Limits(), path)
        if kind == "map":
            return make.mapping(self.field(schema["values"], f"{path}[]"), Limits(), path)
        if kind == "fixed":
            return make.binary(Limits(shortest=schema["size"], longest=schema["size"]), path)
        known: dict[str, Callable[[], Field]] = {
            "null": lambda: constant(None),
            "boolean": boolean,
            "int": lambda: make.whole(Limits(), path),
            "long": lambda: make.whole(Limits(), path),
            "float": make.float32,
            "double": lambda: make.number(Limits(), path),
            "bytes": lambda: make.binary(Limits(), path),
            "string": lambda: make.words(Limits(), path),
        }
        if kind not in known:
            raise refuse(path, f"{kind} holds itself, without an end")
        return known[kind]()


def _name(schema: Any) -> str:
    return str(schema["type"] if isinstance(schema, Mapping) else schema)
