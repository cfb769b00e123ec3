"""The fields of a JSON Schema (draft 2020-12, and what earlier ones share with it)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

from simlink.errors import ConfigError
from simlink.generators.field import Field
from simlink.generators.fields.draws import boolean, choice, constant
from simlink.generators.fields.options import maybe, one_of
from simlink.generators.fields.texts import text, uuid
from simlink.generators.own_types import limits as make
from simlink.generators.own_types.fields_of import Overrides, nested
from simlink.generators.own_types.json_values import check_shape, listed_in, of_type, told_apart
from simlink.generators.own_types.limits import Limits, refuse

__all__ = ["read_json_schema"]

_FOR_PEOPLE = {
    "$schema", "$id", "$comment", "$anchor", "$defs", "definitions", "title", "description", "default", "examples",
    "deprecated", "readOnly", "writeOnly", "contentMediaType", "contentEncoding",
}  # fmt: skip
_KEYWORDS = {
    "object": {"properties", "required", "additionalProperties", "minProperties", "maxProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "format"},
    "boolean": set(),
    "null": set(),
}
_KEYWORDS["integer"] = _KEYWORDS["number"]
_FORMATS: dict[str, Callable[[], Field]] = {
    "uuid": uuid,
    "date-time": make.instant,
    "date": make.date,
    "time": lambda: make.time_of_day(zone=True),
    "email": make.email,
    "ipv4": make.ipv4,
    "hostname": lambda: text("host-####.example.com"),
    "uri": lambda: text("https://example.com/####"),
}
_INTEGERS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


def read_json_schema(schema: Mapping[str, Any], overrides: Overrides) -> tuple[str, dict[str, Field]]:
    """The name (its title) and the fields of a schema of objects. Properties that are not required are always there.

    Raises:
        ConfigError: it is no schema of an object with properties, or has what cannot be honoured.
    """
    name = str(schema.get("title") or "record")
    reader = _Schemas(schema, overrides)
    root = reader.resolved(schema, name) if schema else {}
    if root.get("type", "object") != "object" or not isinstance(root.get("properties"), Mapping):
        raise ConfigError("from_type: a JSON Schema of records is one of objects with properties, or an Avro record")
    with reader.entered(schema, name):
        return name, reader.object(root, name)


class _Schemas:
    def __init__(self, root: Mapping[str, Any], overrides: Overrides) -> None:
        self.root, self.overrides = root, overrides
        self._inside: list[str] = []

    def entered(self, schema: Mapping[str, Any], path: str) -> _Entered:
        """Inside of a schema that others may refer to."""
        reference = schema.get("$ref", "#" if schema is self.root else None)
        if reference is not None and reference in self._inside:
            raise refuse(path, f"{reference} holds itself, without an end")
        return _Entered(self._inside, reference)

    def resolved(self, schema: Any, path: str, through: tuple[Any, ...] = ()) -> dict[str, Any]:
        """The schema without references (``through`` which it was come to) and ``allOf``."""
        if schema is True or schema == {}:
            raise refuse(path, "the schema allows anything: say of what type")
        if not isinstance(schema, Mapping):
            raise refuse(path, f"{schema!r} is not a schema that values can be made of")
        check_shape(schema, path)
        merged = {k: v for k, v in schema.items() if k not in ("$ref", "allOf") and k not in _FOR_PEOPLE}
        parts = list(schema.get("allOf", ()))
        if "$ref" in schema:
            reference = schema["$ref"]
            if reference in through:
                raise refuse(path, f"{reference} refers to itself and nothing else")
            through = (*through, reference)
            parts.append(self._target(reference, path))
        for part in parts:
            inner = self.resolved(part, path, through)
            for keyword, value in inner.items():
                if keyword in merged and merged[keyword] != value:
                    if keyword == "properties" and not set(merged[keyword]) & set(value):
                        merged[keyword] = {**merged[keyword], **value}
                        continue
                    if keyword == "required":
                        merged[keyword] = [*merged[keyword], *value]
                        continue
                    raise refuse(path, f"{keyword!r} is said twice, in parts that hold together")
                merged[keyword] = value
        return merged

    def _target(self, reference: Any, path: str) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise refuse(path, f"the reference {reference!r} leaves the schema")
        found: Any = self.root
        for step in filter(None, reference[1:].split("/")):
            key = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or key not in found:
                raise refuse(path, f"the reference {reference!r} names nothing")
            found = found[key]
        return found

    def object(self, schema: Mapping[str, Any], path: str) -> dict[str, Field]:
        """The fields of an object."""
        _known(schema, {"type", *_KEYWORDS["object"]}, path)
        properties = schema.get("properties", {})
        missing = [name for name in schema.get("required", ()) if name not in properties]
        if missing:
            raise refuse(f"{path}.{missing[0]}", "required, but not among the properties")
        if not schema.get("minProperties", 0) <= len(properties) <= schema.get("maxProperties", len(properties)):
            raise refuse(path, f"it has {len(properties)} properties, which is not as many as it must have")
        return {
            name: self.overrides.field(f"{path}.{name}", self._maker(inner, f"{path}.{name}"))
            for name, inner in properties.items()
        }

    def _maker(self, schema: Any, path: str) -> Callable[[], Field]:
        return lambda: self.field(schema, path)

    def field(self, schema: Any, path: str) -> Field:
        """One value."""
        said = self.resolved(schema, path)
        with self.entered(schema, path):
            return self._field(said, path)

    def _field(self, said: dict[str, Any], path: str) -> Field:
        listed = listed_in(said)
        if listed is not None:
            _known(said, {"type", "const", "enum"}, path)
            if not listed:
                raise refuse(path, "an enum of nothing")
            allowed = [value for value in listed if of_type(value, said.get("type"))]
            if not allowed:
                raise refuse(path, f"no value of the type {said['type']!r} is among those that are listed")
            return constant(allowed[0]) if "const" in said else choice(allowed)
        for keyword in ("anyOf", "oneOf"):
            if keyword in said:
                return self._alternatives(said, keyword, path)
        kinds = said.get("type")
        if kinds is None:
            guesses = [kind for kind, words in _KEYWORDS.items() if kind != "integer" and set(said) & words]
            if len(guesses) != 1:
                raise refuse(path, "it has no type")
            kinds = guesses[0]
        if isinstance(kinds, str):
            return self._typed(kinds, said, path)
        present = [kind for kind in kinds if kind != "null"]
        made = [
            self._typed(k, {n: v for n, v in said.items() if n == "type" or n in _KEYWORDS.get(k, ())}, path)
            for k in present
        ]
        _known(said, {"type", *(word for kind in present for word in _KEYWORDS.get(kind, ()))}, path)
        if not made:
            return constant(None)
        field = made[0] if len(made) == 1 else one_of(made)
        return maybe(field) if len(present) < len(kinds) else field

    def _alternatives(self, said: dict[str, Any], keyword: str, path: str) -> Field:
        _known(said, {keyword}, path)
        branches = [self.resolved(branch, path) for branch in said[keyword]]
        nothing = [branch for branch in branches if branch.get("type") == "null"]
        others = [b for b, r in zip(said[keyword], branches, strict=True) if r.get("type") != "null"]
        if keyword == "oneOf":
            for first, second in combinations(branches, 2):
                told_apart(first, second, path)
        if not others:
            return constant(None)
        made = [self.field(branch, path) for branch in others]
        field = made[0] if len(made) == 1 else one_of(made)
        return maybe(field) if nothing else field

    def _typed(self, kind: str, said: Mapping[str, Any], path: str) -> Field:
        if kind not in _KEYWORDS:
            raise refuse(path, f"the type {kind!r} is not JSON's")
        _known(said, {"type", *_KEYWORDS[kind]}, path)
        if kind == "object":
            return self._object(said, path)
        if kind == "array":
            return self._array(said, path)
        if kind == "null":
            return constant(None)
        if kind == "boolean":
            return boolean()
        if kind == "string":
            return _string(said, path)
        limits = Limits()
        for keyword, at, open_ in (
            ("minimum", limits.at_least, False), ("exclusiveMinimum", limits.at_least, True),
            ("maximum", limits.at_most, False), ("exclusiveMaximum", limits.at_most, True),
        ):  # fmt: skip
            if isinstance(value := said.get(keyword), bool):
                raise refuse(path, f"{keyword} of an early draft is not supported")
            if value is not None:
                at(value, path, open=open_)
        if "multipleOf" in said:
            limits.multiple = make.exact(said["multipleOf"], path)
        form = said.get("format")
        if kind == "integer" and (form is None or form in _INTEGERS):
            return make.whole(limits, path, _INTEGERS[form or "int64"])
        if kind == "number" and form in (None, "double"):
            return make.number(limits, path)
        raise refuse(path, f"the format {form!r} is not supported")

    def _object(self, said: Mapping[str, Any], path: str) -> Field:
        if said.get("properties"):
            return nested(self.object(said, path), path)
        values = said.get("additionalProperties")
        if not isinstance(values, Mapping) or said.get("required") or said.get("minProperties", 0) > 0:
            raise refuse(path, "an object without properties: say what is in it")
        if said.get("maxProperties", 3) < 3:
            raise refuse(path, "maxProperties below 3 is not supported for made-up names")
        return make.mapping(self.field(values, f"{path}[]"), Limits(), path)

    def _array(self, said: Mapping[str, Any], path: str) -> Field:
        if said.get("uniqueItems"):
            raise refuse(path, "uniqueItems is not supported")
        if "prefixItems" in said:
            first = said["prefixItems"]
            if said.get("minItems", 0) > len(first) or said.get("maxItems", len(first)) < len(first):
                raise refuse(path, "prefixItems of another number than minItems and maxItems allow")
            parts = {str(i): self.field(item, f"{path}[{i}]") for i, item in enumerate(first)}
            return nested(parts, path).map(_values)
        limits = Limits(shortest=said.get("minItems"), longest=said.get("maxItems"))
        if "items" not in said or isinstance(said["items"], list):
            raise refuse(path, "an array whose items have no schema")
        return make.each(self.field(said["items"], f"{path}[]"), limits, path)


class _Entered:
    """While it is open, a reference to the schema it stands for is one to itself."""

    def __init__(self, inside: list[str], reference: str | None) -> None:
        self._inside, self._reference = inside, reference

    def __enter__(self) -> None:
        if self._reference is not None:
            self._inside.append(self._reference)

    def __exit__(self, *_: object) -> None:
        if self._reference is not None:
            self._inside.pop()


def _string(said: Mapping[str, Any], path: str) -> Field:
    limits = Limits(shortest=said.get("minLength"), longest=said.get("maxLength"), pattern=said.get("pattern"))
    form = said.get("format")
    if form is None:
        return make.words(limits, path)
    if form not in _FORMATS:
        raise refuse(path, f"the format {form!r} is not supported")
    limits.check(path)
    return _FORMATS[form]()


def _known(said: Mapping[str, Any], keywords: set[str], path: str) -> None:
    """Refuse what would be passed over. Names with x- are nobody's."""
    for keyword in said:
        if keyword not in keywords and keyword not in _FOR_PEOPLE and not keyword.startswith("x-"):
            raise refuse(path, f"{keyword!r} is not supported here")


def _values(record: dict[str, Any]) -> list[Any]:
    return list(record.values())
