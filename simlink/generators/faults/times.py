"""The time that a record says, in whatever form, and the same form some seconds later."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from simlink.errors import ConfigError
from simlink.generators.fields.times import to_microseconds

__all__ = ["TIME_FIELDS", "later", "micros_of"]

TIME_FIELDS = ("timestamp", "time", "event_time", "ts", "at")

# Since 1970, of the years 1973 to 5138: which unit an integer counts.
_UNITS = ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0), (float("inf"), 1e-3))
_ISO = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:?\d\d)?$")
_CLF = "%d/%b/%Y:%H:%M:%S %z"


def _micros_a_unit(number: float) -> float:
    return next(unit for limit, unit in _UNITS if abs(number) < limit)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def micros_of(value: Any) -> float:
    """Microseconds since 1970.

    Raises:
        ConfigError: it is no time.
    """
    if _is_number(value):
        return float(value) * _micros_a_unit(value)
    if isinstance(value, str):
        if value.isdecimal():
            return micros_of(int(value))
        found = _clf(value)
        return float(to_microseconds(value if found is None else found))
    raise ConfigError(f"{value!r} is not a time")


def _clf(text: str) -> dt.datetime | None:
    """The time of the Common Log Format, as 10/Oct/2025:13:55:36 +0000."""
    if len(text) == 26 and text[2:3] == "/":
        try:
            return dt.datetime.strptime(text, _CLF)  # noqa: DTZ007 – the zone is in the text (%z)
        except ValueError:
            return None
    return None


def later(value: Any, seconds: float) -> Any:
    """The same time so many seconds later, in the same form: a number of the same unit, text with as many decimals.

    Raises:
        ConfigError: it is no time, or in no year from 1 to 9999.
    """
    try:
        return _later(value, seconds)
    except OverflowError:
        raise ConfigError(f"{value!r} and {seconds:g} seconds: only the years 1 to 9999 can be written") from None


def _later(value: Any, seconds: float) -> Any:
    if _is_number(value):
        moved = value + seconds * 1e6 / _micros_a_unit(value)
        return round(moved) if isinstance(value, int) else moved
    if not isinstance(value, str):
        raise ConfigError(f"{value!r} is not a time")
    if value.isdecimal():
        return str(later(int(value), seconds))
    logged = _clf(value)
    if logged is not None:
        return (logged + dt.timedelta(seconds=seconds)).strftime(_CLF)
    match = _ISO.match(value)
    if match is None:
        raise ConfigError(f"{value!r} is not an ISO 8601 time")
    whole, decimals, zone = match.groups(default="")
    moved_time = dt.datetime.fromisoformat(value) + dt.timedelta(seconds=seconds)
    text = moved_time.strftime("%Y-%m-%dT%H:%M:%S").replace("T", whole[10])
    fraction = f".{moved_time.microsecond:06d}".ljust(len(decimals) + 1, "0")[: len(decimals) + 1] if decimals else ""
    return f"{text}{fraction}{zone}"
