"""The fields of a record as they come out of a type, and the user's overrides among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from simlink.errors import ConfigError, did_you_mean
from simlink.generators.field import Field, as_field
from simlink.generators.fields.nesting import Nested

__all__ = ["Overrides"]


class Overrides:
    """What the user said about single fields, by their dotted path."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = dict(given)
        self._seen: dict[str, None] = {}
        self._used: set[str] = set()

    def field(self, path: str, make: Callable[[], Field]) -> Field:
        """The user's field at ``T.path``, or what ``make`` makes of the type."""
        name = path.partition(".")[2]
        self._seen[name] = None
        if name in self._given:
            self._used.add(name)
            return as_field(self._given[name])
        return make()

    def within(self, path: str) -> bool:
        """Whether some field inside the record at that path is the user's."""
        inside = path.partition(".")[2]
        prefix = f"{inside}." if inside else ""
        return any(name.startswith(prefix) and name != inside for name in self._given)

    def finish(self) -> None:
        """Refuse those that named no field.

        Raises:
            ConfigError: there is one.
        """
        for name in self._given:
            if name not in self._used:
                raise ConfigError(f"from_type: no field {name!r} to override{did_you_mean(name, self._seen)}")


def nested(fields: Mapping[str, Field], path: str, hidden: Mapping[str, Field] | None = None) -> Field:
    """A record inside the record.

    Raises:
        ConfigError: it has no fields.
    """
    if not fields:
        raise ConfigError(f"from_type: {path}: a record without fields")
    return Nested({**(hidden or {}), **fields}, tuple(fields))
