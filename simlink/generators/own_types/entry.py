"""from_type(): a generator of the records that a type describes."""

from __future__ import annotations

import builtins
import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, is_typeddict

from simlink.errors import ConfigError
from simlink.generators.field import Field
from simlink.generators.own_types.fields_of import Overrides
from simlink.generators.record import Record

__all__ = ["from_type"]


def from_type(
    type: Any,
    overrides: Mapping[str, Any] | None = None,
    /,
    *,
    seed: int | None = None,
    name: str | None = None,
    **fields: Any,
) -> Record:
    """A generator of the records that a type describes, in the type's own words for its fields.

    The type is a dataclass, a TypedDict, a NamedTuple, a ``msgspec.Struct``, a pydantic model, a Protobuf message
    class, a JSON Schema (a dict: an object with ``properties``) or an Avro schema (a dict: a record). A field's
    values keep to all that the type says about them: ranges, multiples, lengths, patterns, formats, enumerations,
    optional values (None on a tenth of the rows), nested records, lists, maps, unions. Where it says nothing, whole
    numbers go from 0 to 999,999, others from 0 to 1,000 with three decimals, texts have eight letters, instants are
    of the year 2025, lists and maps have up to three elements. Defaults of a class are not used. Values are plain, as
    in every record: times, decimals and UUIDs are text (in Avro what its logical types are made of), members of an
    Enum are their values (in Protobuf their names).

    What cannot be honoured is refused when the generator is built, with its name, and never left out: give these
    fields yourself. A field in an annotation counts too: ``user: Annotated[int, fields.zipf(50_000)]``.

    Args:
        type: the type.
        overrides: path → field or plain value; ``"address.city"`` is a field of a record inside.
        seed: as for `record`.
        name: of the record; by default that of the type.
        fields: overrides by keyword.

    Raises:
        ConfigError: it is no such type, has a feature that cannot be honoured (named, with its path), or an override
            names no field.
        MissingExtra: an Avro schema, and fastavro is not installed.
    """
    chosen = Overrides({**(overrides or {}), **fields})
    found, made = _read(type, chosen)
    chosen.finish()
    hidden = {n: f for n, f in made.items() if n.startswith("#")}
    shown = [n for n in made if n not in hidden]
    return Record(name or found, {**hidden, **made}, seed=seed, shown=shown)


def _read(type: Any, overrides: Overrides) -> tuple[str, dict[str, Field]]:
    if isinstance(type, Mapping):
        if type.get("type") == "record" and "fields" in type:
            from simlink.generators.own_types.avro import read_avro

            return read_avro(type, overrides)
        from simlink.generators.own_types.json_schema import read_json_schema

        return read_json_schema(type, overrides)
    if isinstance(type, builtins.type):
        # Without importing what the user has not: a Protobuf class was made by its library.
        message = sys.modules.get("google.protobuf.message")
        if message is not None and issubclass(type, message.Message):
            from simlink.generators.own_types.protobuf import read_protobuf

            return read_protobuf(type, overrides)
    from simlink.generators.own_types.classes import Classes, is_record

    if not is_record(type):
        instance = dataclasses.is_dataclass(type) or is_typeddict(type) or hasattr(type, "DESCRIPTOR")
        what = "an instance: give its class" if instance else "none of these"
        raise ConfigError(
            "from_type takes a dataclass, TypedDict, NamedTuple, msgspec.Struct, pydantic model, Protobuf message "
            f"class, JSON Schema or Avro record; {repr(type) or builtins.type(type).__name__:.200} is {what}"
        )
    return type.__name__, Classes(overrides).record(type, type.__name__)
