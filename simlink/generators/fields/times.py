"""Event time: when a record says that it happened, which is not when it is sent."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.block import Column, FieldType, Kind
from simlink.errors import ConfigError, did_you_mean
from simlink.generators.arrivals.schedule import Arrivals
from simlink.generators.field import Bound, Context, Field, Scope
from simlink.generators.fields.texts import codepoints, to_texts
from simlink.generators.seeding import derive_seed

__all__ = ["EPOCH", "event_time", "in_format", "iso_texts", "time_type", "to_microseconds"]

EPOCH = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
"""Where event time starts unless told otherwise: fixed, so that the same seed gives the same data next year."""

_FAR = 2.0**62.8
"""Microseconds, some 250,000 years; a little below 2**63, because a double is not exact there."""
_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000}
Micros = npt.NDArray[np.int64]


def event_time(
    start: dt.datetime | dt.date | str | float = EPOCH,
    *,
    step: float | dt.timedelta | None = None,
    arrivals: Arrivals | None = None,
    format: str = "ms",
) -> Field:
    """When the event happened: ``start`` plus a constant step, or plus the times of an arrival process.

    Row ``i`` has ``start + i * step``, or ``start + arrivals.due(i)``. It never depends on how the run is paced. With
    the default start 2025-01-01T00:00:00Z and step 1 s, identical everywhere.

    Args:
        start: a datetime or date (without a zone: UTC), its ISO 8601 text, or seconds since 1970 UTC.
        step: seconds, or a timedelta, from one row to the next; microseconds are the finest grain.
        arrivals: from `simlink.arrivals`, instead of a step; drawn from the record's seed where it has none.
        format: ``"ms"``, ``"us"`` or ``"s"``: an integer since 1970 UTC; ``"iso"``: text as
            ``2025-01-01T00:00:00.000Z`` (six decimals where the start or the step needs them).

    Raises:
        ConfigError: an unknown format, both a step and arrivals, a step that is not a finite number or is below a
            microsecond, or a start that is not a time.
    """
    return _EventTime(start, step, arrivals, format)


class _EventTime(Field):
    def __init__(
        self,
        start: dt.datetime | dt.date | str | float,
        step: float | dt.timedelta | None,
        arrivals: Arrivals | None,
        format: str,
    ) -> None:
        self.type = time_type("event_time", format)
        if step is not None and arrivals is not None:
            raise ConfigError("event_time: give a step or arrivals, not both")
        if arrivals is not None and not isinstance(arrivals, Arrivals):
            raise ConfigError(f"event_time: arrivals come from simlink.arrivals, not {arrivals!r}")
        self.start = to_microseconds(start)
        self.format = format
        self.arrivals = arrivals
        seconds = step.total_seconds() if isinstance(step, dt.timedelta) else 1.0 if step is None else step
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise ConfigError(f"event_time: step is a number of seconds above 0, not {step!r}")
        self.step = seconds * 1e6
        if arrivals is None and self.step < 1:
            raise ConfigError(f"event_time: a step of {seconds} s is finer than a microsecond")
        fine = arrivals is None and (self.start % 1000 or round(self.step) % 1000 or not self.step.is_integer())
        self.decimals = 6 if fine else 3

    def bind(self, scope: Scope) -> Bound:
        if scope.counts != "stream":
            raise ConfigError(
                f"{scope.path}: event_time follows the stream's rows: it has no place in a list or entity"
            )
        arrivals = self.arrivals
        if arrivals is not None:
            arrivals = arrivals.seeded(derive_seed(scope.seed, scope.path))
            if not arrivals.endless:
                after = "" if arrivals.length is None else f" after {arrivals.length}"
                raise ConfigError(f"{scope.path}: these arrivals end{after}, a record's rows do not")

        def make(context: Context) -> Column:
            return in_format(self._micros(context, arrivals), self.format, self.decimals)

        return Bound(self.type, make)

    def _micros(self, context: Context, arrivals: Arrivals | None) -> Micros:
        rows = context.positions()
        if arrivals is not None:
            if not context.contiguous:
                raise ConfigError("event_time with arrivals has no time for a row alone")
            due = arrivals.due(int(rows[0]), int(rows[0]) + len(rows))
            _check_range(self.start + due[-1] * 1e6)
            micros: Micros = np.rint(due * 1e6).astype(np.int64) + self.start
            return micros
        _check_range(self.start + int(rows.max(initial=0)) * self.step)
        if self.step.is_integer():
            exact: Micros = rows * int(self.step) + self.start
            return exact
        rounded: Micros = np.rint(rows * self.step).astype(np.int64) + self.start
        return rounded


def time_type(what: str, format: str) -> FieldType:
    """The type of times in this format.

    Raises:
        ConfigError: there is no such format.
    """
    formats = [*_UNITS, "iso"]
    if format not in formats:
        raise ConfigError(f"{what}: unknown format {format!r}{did_you_mean(str(format), formats)}")
    return FieldType(Kind.STR if format == "iso" else Kind.INT)


def in_format(micros: Micros, format: str, decimals: int = 3) -> npt.NDArray[Any]:
    """Microseconds since 1970 UTC → a column in a format of `event_time`."""
    if format == "iso":
        return iso_texts(micros, decimals)
    unit = _UNITS[format]
    return micros if unit == 1 else micros // unit


def _check_range(micros: float) -> None:
    if micros >= _FAR:
        raise ConfigError("event_time: a time this far ahead does not fit 64 bits of microseconds")


def to_microseconds(time: dt.datetime | dt.date | str | float) -> int:
    """A point in time → microseconds since 1970 UTC. Without a zone it is UTC.

    Raises:
        ConfigError: it is not a time.
    """
    if isinstance(time, str):
        try:
            time = dt.datetime.fromisoformat(time)
        except ValueError as error:
            raise ConfigError(f"{time!r} is not an ISO 8601 time, as 2025-01-01T00:00:00Z") from error
    if isinstance(time, dt.date) and not isinstance(time, dt.datetime):
        time = dt.datetime(time.year, time.month, time.day, tzinfo=dt.UTC)
    if isinstance(time, dt.datetime):
        if time.tzinfo is None:
            time = time.replace(tzinfo=dt.UTC)
        return (time - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    if isinstance(time, bool) or not isinstance(time, int | float) or not math.isfinite(time):
        raise ConfigError(f"a time is a datetime, ISO 8601 text or seconds since 1970, not {time!r}")
    if abs(time) >= _FAR / 1e6:
        raise ConfigError(f"a time of {time!r} seconds since 1970 does not fit 64 bits of microseconds")
    return round(time * 1_000_000)


_DAY = 86_400_000_000
_DIGITS = codepoints("0123456789")
_SHAPE = codepoints("0000-00-00T00:00:00.000000Z")


def iso_texts(micros: Micros, decimals: int = 3) -> npt.NDArray[Any]:
    """Microseconds since 1970 UTC → ``YYYY-MM-DDTHH:MM:SS.mmmZ``, with 3 or 6 decimals (cut off, not rounded)."""
    width = 21 + decimals
    letters = np.tile(_SHAPE[:width], (len(micros), 1))
    letters[:, -1] = ord("Z")
    days, rest = np.divmod(micros, _DAY)
    # A block spans few days: each is written once, by NumPy's calendar.
    distinct, where = np.unique(days, return_inverse=True)
    dates = [codepoints(str(np.datetime64(int(day), "D"))) for day in distinct]
    if any(len(date) != 10 for date in dates):
        raise ConfigError("event_time: ISO 8601 text needs years from 0 to 9999")
    letters[:, :10] = np.stack(dates)[where] if dates else 0
    for place, unit, count in ((11, 3_600_000_000, 2), (14, 60_000_000, 2), (17, 1_000_000, 2), (20, 1, 6)):
        number, rest = np.divmod(rest, unit)
        for i in range(count - 1, -1, -1):
            if place + i < width - 1:
                letters[:, place + i] = _DIGITS[number % 10]
            number //= 10
    return to_texts(letters)
