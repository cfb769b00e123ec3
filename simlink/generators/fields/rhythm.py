"""When things happen in a week: an intensity that rises and falls by the hour and the day.

The expected number of rows up to a point in time is a sum over quarters of an hour, and so is its inverse. Both are
computed from divisions and comparisons, the boundaries of blocks exactly (as fractions), so that the time of row
10**12 is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from simlink.errors import ConfigError
from simlink.generators.seeding import Floats

__all__ = ["Rhythm"]

Micros = npt.NDArray[np.int64]
_WEEK = 7 * 86_400 * 1_000_000
_MONDAY = 4 * 86_400 * 1_000_000
"""1970-01-05, the first Monday."""
_QUARTERS = 7 * 24 * 4
_QUARTER = _WEEK // _QUARTERS


class Rhythm:
    """A mean rate, and how much of it there is in each quarter of an hour of a week (UTC).

    Args:
        rate: rows a second, on average over a week.
        start: where row 0 is, in microseconds since 1970 UTC.
        hours: 24 relative intensities, at each hour from 0 to 23 UTC; between them a straight line.
        days: 7 relative intensities, Monday first. Without both the rate is constant.
    """

    def __init__(
        self, rate: float, start: int, *, hours: Sequence[float] | None = None, days: Sequence[float] | None = None
    ) -> None:
        self.rate = rate
        self._week = Fraction(rate) * (_WEEK // 1_000_000)
        weights = [
            Fraction(days[quarter // 96] if days else 1) * _between(hours, quarter % 96) for quarter in range(_QUARTERS)
        ]
        one = self._week / sum(weights)
        shares = [weight * one for weight in weights]
        before = [Fraction(0), *accumulate(shares)]
        weeks, rest = divmod(start - _MONDAY, _WEEK)
        quarter, within = divmod(rest, _QUARTER)
        self._origin = weeks * self._week + before[quarter] + shares[quarter] * Fraction(within, _QUARTER)
        self._before = np.array([float(b) for b in before[:-1]])
        self._shares = np.array([float(s) for s in shares])

    def times(self, row: int, offsets: Floats) -> Micros:
        """The points in time, in microseconds since 1970 UTC, at which ``row + offset`` rows are expected to have
        happened since the start.

        Raises:
            ConfigError: one is too far ahead for 64 bits.
        """
        weeks, rest = divmod(self._origin + row, self._week)
        week = float(self._week)
        x = offsets + float(rest)
        more = np.floor(x / week)
        x = x - more * week
        quarter = np.searchsorted(self._before, x, side="right") - 1
        # A rounding error may leave x a hair outside of its week; the ends of the week are near enough then.
        quarter = np.clip(quarter, 0, _QUARTERS - 1)
        within = np.clip((x - self._before[quarter]) / self._shares[quarter], 0.0, 1.0)
        if (weeks + float(more.max(initial=0.0)) + 2) * _WEEK >= 2.0**62.8:
            raise ConfigError("a time this far ahead does not fit 64 bits of microseconds")
        out: Micros = np.rint(within * _QUARTER).astype(np.int64) + (
            quarter * _QUARTER + more.astype(np.int64) * _WEEK + (weeks * _WEEK + _MONDAY)
        )
        return out


def _between(hours: Sequence[float] | None, quarter: int) -> Fraction:
    if hours is None:
        return Fraction(1)
    hour, part = divmod(quarter, 4)
    return Fraction(hours[hour]) * Fraction(4 - part, 4) + Fraction(hours[(hour + 1) % 24]) * Fraction(part, 4)
