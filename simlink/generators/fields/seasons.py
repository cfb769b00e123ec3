"""What comes back every day, week or year."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.block import Column, FieldType, Kind, Masked
from simlink.errors import ConfigError, did_you_mean
from simlink.generators import portable
from simlink.generators.field import Bound, Context, Field, Scope
from simlink.generators.fields.draws import DECIMALS, check_decimals
from simlink.generators.fields.states import finite
from simlink.generators.seeding import Floats

__all__ = ["season"]

_UNITS = {"us": 1_000_000, "ms": 1_000, "s": 1}
_PERIODS = {"day": 86_400, "week": 7 * 86_400, "year": 31_557_600}
"""In seconds; a year has 365.25 days."""
_MONDAY = 4 * 86_400
"""1970 began on a Thursday; a week begins on Monday."""


def season(
    field: str,
    period: str | float = "day",
    amplitude: float = 1.0,
    *,
    around: float | Field = 0.0,
    peak: float = 0.0,
    unit: str = "ms",
    decimals: int | None = DECIMALS,
) -> Field:
    """A wave over an earlier field, such as a time: ``around + amplitude * cos(2 pi (field / period - peak))``.

    ``season("timestamp", "day", 4, around=fields.ar1(18, 0.8), peak=15 / 24)`` is warmest at three in the afternoon.
    Waves are added by nesting: ``around=fields.season("timestamp", "year", 8, peak=0.55)``. It has no state. Identical
    everywhere.

    Args:
        field: the name of a field of numbers before this one, as `event_time` in any format but ``"iso"``.
        period: ``"day"``, ``"week"`` (from Monday) or ``"year"`` (365.25 days from the first of January 1970), UTC, for
            a field that counts since 1970; or how much of the field's own unit a wave takes.
        amplitude: how far it goes up and down.
        around: what it goes around: a number, or a field of numbers.
        peak: where in the period it is highest, as a part of it.
        unit: of the field where the period is a name: ``"ms"``, ``"us"`` or ``"s"``.
        decimals: to round to; None for none.

    Raises:
        ConfigError: an argument that is not as said, or no such field of numbers before this one.
    """
    return _Season(field, period, amplitude, around, peak, unit, decimals)


class _Season(Field):
    def __init__(
        self,
        field: str,
        period: str | float,
        amplitude: float,
        around: float | Field,
        peak: float,
        unit: str,
        decimals: int | None,
    ) -> None:
        if not isinstance(field, str):
            raise ConfigError(f"season: the earlier field is given by its name, not {field!r}")
        if unit not in _UNITS:
            raise ConfigError(f"season: unknown unit {unit!r}{did_you_mean(str(unit), _UNITS)}")
        self.shift = 0
        self.period: int | float
        if isinstance(period, str):
            if period not in _PERIODS:
                raise ConfigError(f"season: unknown period {period!r}{did_you_mean(period, _PERIODS)}")
            self.period = _PERIODS[period] * _UNITS[unit]
            self.shift = _MONDAY * _UNITS[unit] if period == "week" else 0
        else:
            finite("season: period", period)
            if period <= 0:
                raise ConfigError(f"season: period is above 0, not {period!r}")
            self.period = int(period) if float(period).is_integer() and period < 2**62 else float(period)
        self.field = field
        self.amplitude, self.peak = finite("season: amplitude", amplitude), finite("season: peak", peak)
        self.around = around if isinstance(around, Field) else finite("season: around", around)
        self.decimals = check_decimals("season", decimals)

    def needs(self) -> Iterator[str]:
        yield self.field
        if isinstance(self.around, Field):
            yield from self.around.needs()

    def bind(self, scope: Scope) -> Bound:
        over = scope.lookup(self.field)
        if over.kind not in (Kind.INT, Kind.UINT, Kind.FLOAT):
            raise ConfigError(f"{scope.path}: a season goes over numbers, and {self.field!r} is {over.kind.value}")
        around, level = None, 0.0
        if isinstance(self.around, Field):
            around = self.around.bind(scope.at("#around"))
            if around.type.kind not in (Kind.INT, Kind.UINT, Kind.FLOAT) or around.type.optional:
                raise ConfigError(f"{scope.path}: around= is a field of numbers, not of {around.type.kind.value}")

        else:
            level = self.around

        def make(context: Context) -> Column:
            column = context.column(self.field)
            middle: float | Floats
            middle = level if around is None else _numbers(around.make(context)).astype(np.float64)
            if isinstance(column, Masked):
                return Masked(column.present, self._wave(_numbers(column.values), middle))
            return self._wave(_numbers(column), middle)

        return Bound(FieldType(Kind.FLOAT, optional=over.optional), make)

    def _wave(self, values: npt.NDArray[Any], middle: float | Floats) -> Floats:
        # The rest is exact, however large the number: a time in microseconds keeps its last one.
        rest: npt.NDArray[Any]
        if values.dtype == np.int64 and isinstance(self.period, int):
            rest = (values - self.shift) % self.period
        else:
            rest = np.mod(values.astype(np.float64) - self.shift, float(self.period))
        turns: Floats = rest / float(self.period) - self.peak
        return portable.round_to(middle + self.amplitude * portable.cosine(turns), self.decimals)


def _numbers(column: Column) -> npt.NDArray[Any]:
    return column if isinstance(column, np.ndarray) else np.array(column.tolist(), np.float64)
