"""What a type says about its values, and the field that keeps to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

from simlink.errors import ConfigError
from simlink.generators.field import Field
from simlink.generators.fields.draws import constant, integer
from simlink.generators.fields.nesting import list_, nested
from simlink.generators.fields.patterns import matching, widths
from simlink.generators.fields.quantiles import moment
from simlink.generators.fields.texts import text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "Limits", "binary", "date", "decimal_text", "each", "email", "float32", "instant", "ipv4", "mapping", "number",
    "refuse", "time_of_day", "whole", "words",
]  # fmt: skip

SPAN = 999_999
"""Whole numbers that have no limits go from 0 to this."""
_REAL = 1_000
_LETTERS = 8
_LONGEST = 1_000
_YEAR = ("2025-01-01", "2026-01-01")


def refuse(path: str, what: str) -> ConfigError:
    """The error for what cannot be honoured."""
    name = path.partition(".")[2].partition("[")[0]
    return ConfigError(f"from_type: {path}: {what}" + (f"; give a field of yours: {{{name!r}: …}}" if name else ""))


@dataclass(slots=True)
class Limits:
    """What values of a type are held to; None where it says nothing."""

    low: Fraction | None = None
    high: Fraction | None = None
    low_open: bool = False
    high_open: bool = False
    multiple: Fraction | None = None
    shortest: int | None = None
    longest: int | None = None
    pattern: str | None = None
    places: int | None = None
    """Decimals that may be there at most."""

    def at_least(self, value: Any, path: str, *, open: bool = False) -> None:
        """The value is that or more (or more only, where open)."""
        limit = exact(value, path)
        if self.low is None or limit > self.low or (limit == self.low and open):
            self.low, self.low_open = limit, open

    def at_most(self, value: Any, path: str, *, open: bool = False) -> None:
        """The value is that or less (or less only, where open)."""
        limit = exact(value, path)
        if self.high is None or limit < self.high or (limit == self.high and open):
            self.high, self.high_open = limit, open

    def check(self, path: str, *allowed: str) -> None:
        """Refuse limits that values of this kind do not have."""
        given = {
            "range": self.low is not None or self.high is not None,
            "multiple": self.multiple is not None,
            "length": self.shortest is not None or self.longest is not None,
            "pattern": self.pattern is not None,
            "places": self.places is not None,
        }
        wrong = [name for name, there in given.items() if there and name not in allowed]
        if wrong:
            raise refuse(path, f"a limit on the {wrong[0]} of such a value is not supported")


def exact(value: Any, path: str) -> Fraction:
    """The number that was meant: 0.1 is a tenth."""
    try:
        return Fraction(str(value)) if not isinstance(value, int) else Fraction(value)
    except ValueError:
        raise refuse(path, f"the limit {value!r} is not a finite number") from None


def steps(limits: Limits, unit: Fraction, room: int, path: str) -> tuple[int, int]:
    """The whole numbers k for which ``k * unit`` keeps to the limits; ``room`` of them where a side is open."""
    low = None if limits.low is None else math.ceil(limits.low / unit)
    high = None if limits.high is None else math.floor(limits.high / unit)
    if low is not None and limits.low_open and low * unit == limits.low:
        low += 1
    if high is not None and limits.high_open and high * unit == limits.high:
        high -= 1
    if low is None and high is None:
        low, high = 0, room
    elif low is None:
        assert high is not None
        low = 0 if high >= 0 else high - room
    elif high is None:
        high = low + room
    if low > high:
        raise refuse(path, "no value keeps to its limits")
    return low, high


def whole(limits: Limits, path: str, bits: tuple[int, int] = (-(2**63), 2**63 - 1)) -> Field:
    """Whole numbers; from 0 to 999,999 where nothing is said."""
    limits.check(path, "range", "multiple")
    low, high = bits
    if limits.low is None and limits.high is None and high < SPAN:
        limits.at_most(high, path)
        limits.at_least(0, path)
    unit = limits.multiple or Fraction(1)
    if unit.denominator != 1 or unit <= 0:
        raise refuse(path, f"whole numbers that are multiples of {unit} are not supported")
    first, last = steps(limits, unit, max(SPAN // int(unit), 1), path)
    if first * unit < low or last * unit > high:
        raise refuse(path, f"its limits reach beyond the integers from {low} to {high}")
    field = integer(first, last)
    return field if unit == 1 else (field | partial(_times, int(unit))).returns(int)


def number(limits: Limits, path: str) -> Field:
    """Real numbers with three decimals, more where the range is small; from 0 to 1,000 where nothing is said."""
    limits.check(path, "range", "multiple", "places")
    unit, first, last = _grid(limits, path)
    return (_places(first, last, path) | partial(_ratio, unit.numerator, unit.denominator)).returns(float)


def _places(first: int, last: int, path: str) -> Field:
    try:
        return integer(first, last)
    except ConfigError:
        raise refuse(path, "its limits are too far from 0 for so small a step") from None


def _grid(limits: Limits, path: str) -> tuple[Fraction, int, int]:
    """The finest of some grids that is needed to have a thousand values."""
    if limits.multiple is not None:
        if limits.multiple <= 0:
            raise refuse(path, f"multiples of {limits.multiple} are not supported")
        return limits.multiple, *steps(limits, limits.multiple, _REAL, path)
    places = (3, 6, 9, 12) if limits.places is None else (limits.places,)
    for last_try, decimals in ((d == places[-1], d) for d in places):
        unit = Fraction(1, 10**decimals)
        try:
            first, last = steps(limits, unit, _REAL * 10**decimals, path)
        except ConfigError:
            if last_try:
                raise
            continue
        if max(abs(first), abs(last)) > 2**53:
            unit = Fraction(max(abs(first), abs(last)) // 2**53 + 1) * unit
            first, last = steps(limits, unit, _REAL, path)
        if last - first >= 1000 or last_try:
            break
    return unit, first, last


def float32() -> Field:
    """Real numbers from 0 to 1,024 that a float of 32 bits holds exactly."""
    return (integer(0, 2**20 - 1) | partial(_ratio, 1, 2**10)).returns(float)


def decimal_text(limits: Limits, path: str) -> Field:
    """Decimal numbers as text; two decimals where nothing is said."""
    limits.check(path, "range", "multiple", "places")
    if limits.places is None and limits.multiple is None:
        limits.places = 2
    unit, first, last = _grid(limits, path)
    return _places(first, last, path).map(partial(_decimal, unit.numerator, unit.denominator), returns=str)


def words(limits: Limits, path: str) -> Field:
    """Text: of the pattern, or eight letters A–Z, more or fewer where a length is asked for."""
    limits.check(path, "length", "pattern")
    if limits.pattern is not None:
        try:
            shortest, longest = widths(limits.pattern)
            field = matching(limits.pattern)
        except ConfigError as error:
            raise refuse(path, str(error)) from None
        if shortest < (limits.shortest or 0) or (limits.longest is not None and longest > limits.longest):
            raise refuse(path, f"texts of the pattern {limits.pattern!r} have {shortest} to {longest} characters, not "
                               f"{limits.shortest or 0} to {limits.longest}")  # fmt: skip
        return field
    return text("?" * count) if (count := _length(limits, path)) else constant("")


def binary(limits: Limits, path: str) -> Field:
    """Eight octets, more or fewer where a length is asked for."""
    limits.check(path, "length")
    count = _length(limits, path)
    return text("^" * count).map(str.encode, returns=bytes) if count else constant(b"")


def _length(limits: Limits, path: str) -> int:
    shortest = limits.shortest or 0
    if limits.longest is not None and limits.longest < shortest:
        raise refuse(path, "no value keeps to its limits")
    count = max(_LETTERS, shortest) if limits.longest is None else max(min(_LETTERS, limits.longest), shortest)
    if count > _LONGEST:
        raise refuse(path, f"values of {count:,} characters or more are not made")
    return count


def each(of: Field, limits: Limits, path: str) -> Field:
    """Lists of up to three, more where more are asked for."""
    limits.check(path, "length")
    shortest = limits.shortest or 0
    longest = shortest + 3 if limits.longest is None else min(limits.longest, shortest + 3)
    if longest < shortest:
        raise refuse(path, "no value keeps to its limits")
    try:
        return list_(of, shortest, longest)
    except ConfigError as error:
        raise refuse(path, str(error)) from None


def mapping(of: Field, limits: Limits, path: str) -> Field:
    """Objects with up to three made-up names."""
    limits.check(path)
    return list_(nested(name=text("????"), value=of), 0, 3).map(_pairs)


def instant(*, zone: bool = True) -> Field:
    """A date and time of the year 2025 as ISO 8601 text, in UTC or without a zone."""
    field = moment(*_YEAR, format="iso")
    return field if zone else field.map(partial(_cut, 0, -1), returns=str)


def date() -> Field:
    """A date of the year 2025 as ISO 8601 text."""
    return moment(*_YEAR, format="iso", grain=86_400).map(partial(_cut, 0, 10), returns=str)


def time_of_day(*, zone: bool = False) -> Field:
    """A time of day, in whole seconds, as ISO 8601 text."""
    field = moment(*_YEAR, format="iso", grain=1)
    return field.map(partial(_cut, 11, 19), returns=str).map(_zulu if zone else str, returns=str)


def ipv4() -> Field:
    """An address of 198.18.0.0/15, which is set aside for tests (RFC 2544)."""
    return integer(0, 2**17 - 1).map(_address, returns=str)


def email() -> Field:
    """An address at example.com."""
    return text("????####@example.com").map(str.lower, returns=str)


# Functions of the module, so that a generator made of them travels to another process.


def _times(unit: int, k: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return k * unit


def _ratio(top: int, bottom: int, k: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    # One division of two exact numbers: the double nearest to the decimal.
    return k * float(top) / float(bottom) + 0.0


def _decimal(top: int, bottom: int, k: int) -> str:
    # Exact: a decimal unit has a denominator of twos and fives only.
    return format(Decimal(k * top) / Decimal(bottom), "f")


def _pairs(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {item["name"]: item["value"] for item in items}


def _cut(first: int, stop: int, value: str) -> str:
    return value[first:stop]


def _zulu(value: str) -> str:
    return value + "Z"


def _address(value: int) -> str:
    return f"198.{18 + (value >> 16)}.{value >> 8 & 255}.{value & 255}"
