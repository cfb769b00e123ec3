"""A place in a nested record: ``"user.address"``, ``"datas.0.value"``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simlink.errors import ConfigError, did_you_mean

__all__ = ["get_at", "has_at", "parts_of", "put_at"]

Parts = tuple[str | int, ...]


def parts_of(field: str) -> Parts:
    """Names, and numbers of list elements, between the dots.

    Raises:
        ConfigError: no text, or an empty one.
    """
    if not isinstance(field, str) or not field:
        raise ConfigError(f"a field is named by its text, not by {field!r}")
    return tuple(int(part) if part.isdecimal() else part for part in field.split("."))


def _missing(value: Any, part: str | int, what: str) -> ConfigError:
    if isinstance(value, Mapping):
        return ConfigError(f"{what}: a record has no field {part!r}{did_you_mean(str(part), map(str, value))}")
    return ConfigError(f"{what}: a {type(value).__name__} has no field {part!r}")


def get_at(value: Any, parts: Parts, what: str) -> Any:
    """What stands there; a list that is too short has None there.

    Raises:
        ConfigError: no such field, said of ``what``.
    """
    for part in parts:
        if isinstance(value, Mapping):
            if part not in value and str(part) not in value:
                raise _missing(value, part, what)
            value = value[part] if part in value else value[str(part)]
        elif isinstance(value, list | tuple) and isinstance(part, int):
            value = value[part] if part < len(value) else None
        elif value is None:
            return None
        else:
            raise _missing(value, part, what)
    return value


def has_at(value: Any, parts: Parts) -> bool | None:
    """Whether there is such a place, where `put_at` can put something; None where a None stands in the way."""
    for part in parts:
        if isinstance(value, Mapping):
            key = part if part in value else str(part)
            if key not in value:
                return False
            value = value[key]
        elif isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None if value is None else False
    return True


def put_at(value: Any, parts: Parts, new: Any) -> Any:
    """The record with ``new`` there; what it had is left as it is."""
    if not parts:
        return new
    part, rest = parts[0], parts[1:]
    if isinstance(value, Mapping):
        key = part if part in value else str(part)
        return {**value, key: put_at(value[key], rest, new)}
    items = list(value)
    assert isinstance(part, int)
    items[part] = put_at(items[part], rest, new)
    return items
