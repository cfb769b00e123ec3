"""What a JSON Schema says of values before any is made: that it is one, of which type they are, which branch holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from simlink.generators.own_types.limits import refuse

__all__ = ["check_shape", "listed_in", "of_type", "told_apart"]


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_SHAPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
        (_count, "a whole number from 0 up"),
    ),
    "type": (lambda value: isinstance(value, str) or (bool(value) and _texts(value)), "the name of a type or a list"),
    "properties": (lambda value: isinstance(value, Mapping), "an object"),
    "required": (_texts, "a list of names"),
    "enum": (lambda value: isinstance(value, list), "a list"),
    "pattern": (lambda value: isinstance(value, str), "text"),
    "format": (lambda value: isinstance(value, str), "text"),
    **dict.fromkeys(
        ("anyOf", "oneOf", "allOf", "prefixItems"),
        (lambda value: isinstance(value, list) and bool(value), "a list of schemas, of one at least"),
    ),
}


def check_shape(schema: Mapping[str, Any], path: str) -> None:
    """Raises ConfigError where a keyword has a value that no JSON Schema gives it."""
    for keyword, (holds, expected) in _SHAPES.items():
        if keyword in schema and not holds(schema[keyword]):
            raise refuse(path, f"{keyword!r} is {expected}, not {schema[keyword]!r}")


def listed_in(schema: Mapping[str, Any]) -> list[Any] | None:
    """The only values that are allowed, or None."""
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _type(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if isinstance(value, int | float):
        return "integer" if value == int(value) else "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def of_type(value: Any, types: Any) -> bool:
    """Whether a value is of a type, or of one of some; of any for None."""
    if types is None:
        return True
    kind = _type(value)
    return kind in (types := [types] if isinstance(types, str) else types) or (kind == "integer" and "number" in types)


def told_apart(first: Mapping[str, Any], second: Mapping[str, Any], path: str) -> None:
    """Refuse two branches of a oneOf if a value that is made for one may hold for the other.

    They differ by type, in the values that they list, or, of objects, by a property that both must have with another
    constant in each, or by one that each must have and the other one has not: an object that is made has the
    properties of its branch and no others.

    Raises:
        ConfigError: it may, or that cannot be told.
    """
    lists = listed_in(first), listed_in(second)
    if lists[0] is not None and lists[1] is not None:
        if not {_key(value) for value in lists[0]} & {_key(value) for value in lists[1]}:
            return
    else:
        kinds = [_types(branch, path) for branch in (first, second)]
        if not kinds[0] & kinds[1]:
            return
        if kinds[0] == kinds[1] == {"object"} and lists == (None, None) and _other_objects(first, second):
            return
    raise refuse(path, "a oneOf whose branches may hold for the same value is not supported")


def _key(value: Any) -> str:
    # 1 and 1.0 are the same value, and true is another one.
    whole = isinstance(value, float) and value == int(value)
    return json.dumps(int(value) if whole else value, sort_keys=True)


def _types(branch: Mapping[str, Any], path: str) -> set[str]:
    listed, kinds = listed_in(branch), branch.get("type")
    if listed is not None:
        return {_type(value) for value in listed}
    if kinds is None:
        kinds = "object" if "properties" in branch else None
    if kinds is None:
        raise refuse(path, "a oneOf whose branches have no types of their own is not supported")
    found = {kinds} if isinstance(kinds, str) else set(kinds)
    return found | {"integer"} if "number" in found else found


def _other_objects(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    properties = first.get("properties", {}), second.get("properties", {})
    needs = set(first.get("required", ())), set(second.get("required", ()))
    for name in needs[0] & needs[1]:
        there = [listed_in(p[name]) for p in properties if isinstance(p.get(name), Mapping)]
        keys = [set(map(_key, listed)) for listed in there if listed is not None]
        if len(keys) == 2 and not keys[0] & keys[1]:
            return True
    return not needs[1] <= set(properties[0]) and not needs[0] <= set(properties[1])
