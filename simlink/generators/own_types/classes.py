"""Fields from Python's own types: dataclasses, TypedDict, NamedTuple, msgspec structs and pydantic models."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import enum
import ipaddress
import sys
import types
import typing
import uuid as uuids
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import typing_extensions

from simlink.generators.field import Field
from simlink.generators.fields.draws import boolean, choice, constant
from simlink.generators.fields.options import maybe, one_of
from simlink.generators.fields.texts import uuid
from simlink.generators.own_types import limits as make
from simlink.generators.own_types.fields_of import Overrides, nested
from simlink.generators.own_types.limits import Limits, refuse

__all__ = ["Classes", "is_record"]

_LISTS = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Iterable,
    collections.abc.Collection,
)
_MAPS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_QUALIFIERS = {typing.Required, typing.NotRequired, typing_extensions.Required, typing_extensions.NotRequired,
               typing_extensions.ReadOnly, typing.Final}  # fmt: skip
_SAID_FOR_PEOPLE = {"title", "description", "examples", "json_schema_extra", "deprecated"}


def is_record(type_: Any) -> bool:
    """Whether it is a class with named fields that can be read here."""
    return isinstance(type_, type) and (
        dataclasses.is_dataclass(type_)
        or typing_extensions.is_typeddict(type_)
        or (issubclass(type_, tuple) and hasattr(type_, "_fields"))
        or hasattr(type_, "__struct_fields__")
        or _is_pydantic(type_)
    )


def _is_pydantic(type_: Any) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(type_, type) and issubclass(type_, pydantic.BaseModel)


class Classes:
    """Reads types; knows which it is inside of, so that one that holds itself is refused."""

    def __init__(self, overrides: Overrides) -> None:
        self.overrides = overrides
        self._inside: list[type] = []

    def record(self, type_: Any, path: str) -> dict[str, Field]:
        """The fields of a class, by the names under which it reads them."""
        if type_ in self._inside:
            raise refuse(path, f"{type_.__name__} holds itself, without an end")
        self._inside.append(type_)
        try:
            out: dict[str, Field] = {}
            for name, annotation, metadata in self._members(type_, path):
                where = f"{path}.{name}"
                out[name] = self.overrides.field(where, self._maker(annotation, metadata, where))
            return out
        finally:
            self._inside.pop()

    def _maker(self, annotation: Any, metadata: Iterable[Any], path: str) -> Callable[[], Field]:
        return lambda: self._annotated(annotation, tuple(metadata), Limits(), path)

    def _members(self, type_: Any, path: str) -> list[tuple[str, Any, tuple[Any, ...]]]:
        if _is_pydantic(type_):
            from simlink.generators.own_types.models import members

            return members(type_, path, self.overrides)
        try:
            hints = typing_extensions.get_type_hints(type_, include_extras=True)
        except (NameError, TypeError) as error:
            raise refuse(path, f"its annotations cannot be read: {error}") from error
        if hasattr(type_, "__post_init__") and not self._looked_at(hints, path):
            raise refuse(path, "its __post_init__ may refuse any record: give at least one of the fields it looks at")
        if hasattr(type_, "__struct_fields__"):
            return self._struct(type_, hints, path)
        if dataclasses.is_dataclass(type_):
            fields = [(f.name, hints[f.name], ()) for f in dataclasses.fields(type_) if f.init]
            # What only its __init__ takes is no field, but nobody can do without it: it is for the user to give.
            return fields + [(n, hint, ()) for n, hint in hints.items() if isinstance(hint, dataclasses.InitVar)]
        if typing_extensions.is_typeddict(type_):
            return [(name, hint, ()) for name, hint in hints.items()]
        missing = [name for name in type_._fields if name not in hints]
        if missing:
            raise refuse(f"{path}.{missing[0]}", "has no annotation")
        return [(name, hints[name], ()) for name in type_._fields]

    def _looked_at(self, hints: Mapping[str, Any], path: str) -> bool:
        """Whether some field is the user's, from outside or in its annotation."""
        given = (item for hint in hints.values() for item in getattr(hint, "__metadata__", ()))
        return self.overrides.within(path) or any(isinstance(item, Field) for item in given)

    def _struct(self, type_: Any, hints: Mapping[str, Any], path: str) -> list[tuple[str, Any, tuple[Any, ...]]]:
        config = type_.__struct_config__
        if config.array_like:
            raise refuse(path, "a struct that is written as an array has no names for its fields")
        tagged = [] if config.tag is None else [(config.tag_field, typing.Literal[config.tag], ())]
        names = zip(type_.__struct_fields__, type_.__struct_encode_fields__, strict=True)
        return [*tagged, *((encoded, hints[name], ()) for name, encoded in names)]

    # --- one annotation

    def _annotated(self, annotation: Any, metadata: tuple[Any, ...], limits: Limits, path: str) -> Field:
        for item in _flat(metadata):
            if isinstance(item, Field):
                return item
            _read(item, limits, path)
        return self._field(annotation, limits, path)

    def _field(self, annotation: Any, limits: Limits, path: str) -> Field:
        origin, arguments = typing_extensions.get_origin(annotation), typing_extensions.get_args(annotation)
        if origin in (typing.Annotated, typing_extensions.Annotated):
            return self._annotated(arguments[0], tuple(annotation.__metadata__), limits, path)
        if origin in _QUALIFIERS:
            return self._field(arguments[0], limits, path)
        if isinstance(annotation, typing_extensions.TypeAliasType) or type(annotation).__name__ == "TypeAliasType":
            return self._field(annotation.__value__, limits, path)
        if isinstance(annotation, typing.NewType):
            return self._field(annotation.__supertype__, limits, path)
        if origin in (typing.Union, types.UnionType):
            return self._union(arguments, limits, path)
        if origin in (typing.Literal, typing_extensions.Literal):
            limits.check(path)
            return choice([a.value if isinstance(a, enum.Enum) else a for a in arguments])
        if annotation is None or annotation is type(None):
            return constant(None)
        if origin is tuple or annotation is tuple:
            return self._tuple(arguments, limits, path)
        kind = origin or annotation
        if kind in _LISTS:
            if len(arguments) != 1:
                raise refuse(path, "a list of what? Its elements have no type")
            return make.each(self._field(arguments[0], Limits(), f"{path}[]"), limits, path)
        if kind in _MAPS:
            return self._map(arguments, limits, path)
        if is_record(annotation):
            limits.check(path)
            return nested(self.record(annotation, path), path)
        if isinstance(annotation, type):
            return self._plain(annotation, limits, path)
        raise refuse(path, f"the type {_shown(annotation)} is not supported")

    def _union(self, arguments: tuple[Any, ...], limits: Limits, path: str) -> Field:
        present = [a for a in arguments if a is not type(None)]
        copies = [dataclasses.replace(limits) for _ in present]
        made = [self._field(a, limit, path) for a, limit in zip(present, copies, strict=True)]
        field = made[0] if len(made) == 1 else one_of(made)
        return field if len(present) == len(arguments) else maybe(field)

    def _tuple(self, arguments: tuple[Any, ...], limits: Limits, path: str) -> Field:
        if not arguments:
            raise refuse(path, "a tuple of what? Its elements have no type")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return make.each(self._field(arguments[0], Limits(), f"{path}[]"), limits, path)
        limits.check(path)
        parts = {str(i): self._field(a, Limits(), f"{path}[{i}]") for i, a in enumerate(arguments)}
        return nested(parts, path).map(_values)

    def _map(self, arguments: tuple[Any, ...], limits: Limits, path: str) -> Field:
        if len(arguments) != 2 or arguments[0] is not str:
            raise refuse(path, "a map needs names of type str, and a type for its values")
        return make.mapping(self._field(arguments[1], Limits(), f"{path}[]"), limits, path)

    def _plain(self, type_: type, limits: Limits, path: str) -> Field:
        if issubclass(type_, enum.Enum):
            limits.check(path)
            if issubclass(type_, enum.Flag) or not list(type_):
                raise refuse(path, f"{type_.__name__} has no single values to choose from")
            return choice([member.value for member in type_])
        if type_ in (int, float, str, bytes, Decimal):
            known: dict[type, Callable[[Limits, str], Field]] = {
                int: make.whole, float: make.number, str: make.words, bytes: make.binary, Decimal: make.decimal_text,
            }  # fmt: skip
            return known[type_](limits, path)
        simple: dict[type, Callable[[], Field]] = {
            bool: boolean, uuids.UUID: uuid, dt.datetime: make.instant, dt.date: make.date, dt.time: make.time_of_day,
            ipaddress.IPv4Address: make.ipv4,
        }  # fmt: skip
        if type_ in simple:
            limits.check(path)
            return simple[type_]()
        if _is_pydantic_email(type_):
            limits.check(path)
            return make.email()
        raise refuse(path, f"the type {_shown(type_)} is not supported")


def _is_pydantic_email(type_: type) -> bool:
    return type_.__module__ == "pydantic.networks" and type_.__name__ == "EmailStr"


def _values(record: dict[str, Any]) -> list[Any]:
    return list(record.values())


def _shown(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


def _flat(metadata: Iterable[Any]) -> Iterable[Any]:
    """Groups of limits (``annotated_types.Interval``, pydantic's ``Field``) one by one."""
    for item in metadata:
        inner = getattr(item, "metadata", None)
        if isinstance(inner, list) and type(item).__name__ == "FieldInfo":
            yield from _flat(inner)
        elif hasattr(type(item), "__is_annotated_types_grouped_metadata__"):
            yield item if type(item).__name__ == "StringConstraints" else None
            yield from item
        else:
            yield item


_NUMBERS = {"ge": (True, False), "gt": (True, True), "le": (False, False), "lt": (False, True)}


def _read(item: Any, limits: Limits, path: str) -> None:
    """One limit of an annotation: `annotated_types`, ``msgspec.Meta``, pydantic's general ones. What is none (words for
    people, other libraries' marks) is passed over."""
    if item is None or isinstance(item, str):
        return
    home = type(item).__module__.partition(".")[0]
    if home not in ("annotated_types", "msgspec", "pydantic"):
        return
    said = {name: getattr(item, name, None) for name in dir(item) if not name.startswith("_")}
    if type(item).__name__ == "PydanticGeneralMetadata":
        said = dict(item.__dict__)
    for name, value in said.items():
        if value is None or (callable(value) and name != "func"):
            continue
        if name in _NUMBERS:
            low, open_ = _NUMBERS[name]
            (limits.at_least if low else limits.at_most)(value, path, open=open_)
        elif name == "multiple_of":
            limits.multiple = make.exact(value, path)
        elif name == "min_length":
            limits.shortest = value
        elif name == "max_length":
            limits.longest = value
        elif name in ("pattern", "regex"):
            limits.pattern = value if isinstance(value, str) else value.pattern
        elif name == "decimal_places":
            limits.places = value
        elif name == "max_digits":
            limits.at_most(10 ** (value - (said.get("decimal_places") or 2)), path, open=True)
        elif name == "uuid_version" and value == 4:
            continue  # those that are made are random ones
        elif name == "strict" or name in _SAID_FOR_PEOPLE or (value is False and name != "tz"):
            continue
        elif name != "tz" or value is False:
            raise refuse(path, f"{type(item).__name__}({name}={value!r}) is not supported")
