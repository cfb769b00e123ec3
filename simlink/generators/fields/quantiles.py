"""Fields drawn from a table of quantiles: numbers and instants as a sample had them, or as anybody draws them up."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence

import numpy as np

from simlink.block import Column, FieldType, Kind
from simlink.errors import ConfigError
from simlink.generators import portable
from simlink.generators.field import Bound, Context, Field, Scope
from simlink.generators.fields.draws import check_decimals
from simlink.generators.fields.times import in_format, time_type, to_microseconds
from simlink.generators.seeding import Floats

__all__ = ["moment", "quantiles"]


def quantiles(table: Sequence[float], *, decimals: int | None = 6) -> Field:
    """Real numbers with these quantiles: the first is the least, the last the greatest, and equal shares of the values
    lie between neighbours, spread evenly there (inversion of a piecewise linear distribution function). So
    ``quantiles([0, 10, 100])`` is from 0 to 10 as often as from 10 to 100. Whole numbers where ``decimals=0``, as
    integers; otherwise rounded to ``decimals`` (6 by default; None for none). Identical everywhere.

    Raises:
        ConfigError: fewer than two numbers, one that is not finite, a descending table, or decimals that are not from 0
            to 15 or None; whole numbers beyond 2**53.
    """
    return _Quantiles(table, decimals)


class _Table:
    """The inverse of a piecewise linear distribution function."""

    def __init__(self, what: str, table: Sequence[float]) -> None:
        try:
            self.table = np.array(table, np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{what}: the table holds numbers: {error}") from error
        if self.table.ndim != 1 or len(self.table) < 2:
            raise ConfigError(f"{what}: a table has at least two numbers, its least and its greatest")
        if not np.isfinite(self.table).all():
            raise ConfigError(f"{what}: the table holds a number that is not finite")
        if (np.diff(self.table) < 0).any():
            raise ConfigError(f"{what}: the table must ascend")

    def __call__(self, u: Floats) -> Floats:
        place = u * (len(self.table) - 1)
        below = np.floor(place)
        part = place - below
        i = below.astype(np.int64)
        # Not a + (b - a) · part, which may pass b or overflow.
        out: Floats = self.table[i] * (1.0 - part) + self.table[i + 1] * part
        return np.clip(out, self.table[0], self.table[-1])


class _Quantiles(Field):
    def __init__(self, table: Sequence[float], decimals: int | None) -> None:
        self.at = _Table("quantiles", table)
        self.decimals = check_decimals("quantiles", decimals)
        if decimals == 0 and np.abs(self.at.table).max() > 2**53:
            raise ConfigError("quantiles: whole numbers beyond 2**53 are not exact: use fields.integer")

    def bind(self, scope: Scope) -> Bound:
        whole = self.decimals == 0

        def make(context: Context) -> Column:
            value = portable.round_to(self.at(context.uniform(scope.path)), self.decimals)
            return value.astype(np.int64) if whole else value

        return Bound(FieldType(Kind.INT if whole else Kind.FLOAT), make)


def moment(
    *table: dt.datetime | dt.date | str | float,
    format: str = "ms",
    grain: float = 0.001,
) -> Field:
    """Instants in no order, evenly between two of them, or with more of them as their quantiles (see `quantiles`):
    ``moment("2025-01-01", "2026-01-01")``. For times that ascend from row to row there is `event_time`. Identical
    everywhere.

    Args:
        table: datetimes or dates (without a zone: UTC), ISO 8601 texts, or seconds since 1970 UTC; ascending.
        format: ``"ms"``, ``"us"`` or ``"s"``: an integer since 1970 UTC; ``"iso"``: text as
            ``2025-01-01T00:00:00.000Z`` (six decimals with a grain below a millisecond).
        grain: seconds; every instant is a whole number of grains since 1970, cut off. From 1e-6 on.

    Raises:
        ConfigError: fewer than two instants, they do not ascend, one is no time, or an unknown format or grain.
    """
    return _Moment(table, format, grain)


class _Moment(Field):
    def __init__(self, table: Sequence[dt.datetime | dt.date | str | float], format: str, grain: float) -> None:
        self.type = time_type("moment", format)
        if isinstance(grain, bool) or not isinstance(grain, int | float) or not 1e-6 <= grain < math.inf:
            raise ConfigError(f"moment: grain is a number of seconds from 1e-6 up, not {grain!r}")
        micros = [to_microseconds(instant) for instant in table]
        # Counted from the first: doubles hold microseconds of 285 years exactly.
        self.first = micros[0] if micros else 0
        self.at = _Table("moment", [m - self.first for m in micros])
        self.format, self.grain = format, round(grain * 1e6)

    def bind(self, scope: Scope) -> Bound:
        def make(context: Context) -> Column:
            micros = np.rint(self.at(context.uniform(scope.path))).astype(np.int64) + self.first
            return in_format(micros // self.grain * self.grain, self.format, 3 if self.grain % 1000 == 0 else 6)

        return Bound(self.type, make)
