"""The JSON Schema of a generator's records."""

from __future__ import annotations

from typing import Any

from simlink.block import FieldType, Kind, Schema
from simlink.errors import ConfigError

__all__ = ["json_schema"]

_SIMPLE: dict[Kind, dict[str, Any]] = {
    Kind.INT: {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    Kind.UINT: {"type": "integer", "minimum": 0, "maximum": 2**64 - 1},
    Kind.FLOAT: {"type": "number"},
    Kind.BOOL: {"type": "boolean"},
    Kind.STR: {"type": "string"},
    Kind.ANY: {},
}


def json_schema(*schemas: Schema) -> dict[str, Any]:
    """See `Generator.json_schema`; of several schemas, one of which every record has."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": schemas[0].name}
    objects = [_object(schema, "") for schema in schemas]
    return {**head, **objects[0]} if len(objects) == 1 else {**head, "anyOf": objects}


def _object(schema: Schema, where: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _value(kind, f"{where}{name}") for name, kind in schema.fields.items()},
        "required": list(schema),
        "additionalProperties": False,
    }


def _value(kind: FieldType, where: str) -> dict[str, Any]:
    if kind.kind is Kind.BYTES:
        raise ConfigError(f"{where}: JSON has no bytes")
    if kind.kind is Kind.RECORD and kind.fields is not None:
        out = _object(kind.fields, f"{where}.")
    elif kind.kind is Kind.LIST and kind.item is not None:
        out = {"type": "array", "items": _value(kind.item, f"{where}[]")}
    else:
        out = dict(_SIMPLE[kind.kind])
    if kind.optional and "type" in out:
        out["type"] = [out["type"], "null"]
    return out
