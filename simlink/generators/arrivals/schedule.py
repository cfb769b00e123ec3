"""When records are due: intended times as a function of the row.

An `Arrivals` gives the due times of rows ``start … stop - 1`` in seconds since the start of the run, absolute and
ascending. It says nothing of when a record says it happened (`fields.event_time` may use one of its own) and never
reads a clock. Schedules are added (``+``), multiplied (``*``), followed by one another (``then``), thinned and
jittered; see `simlink.generators.arrivals.algebra`.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simlink.errors import ConfigError

if TYPE_CHECKING:
    from simlink.generators.arrivals.rate import Rate

__all__ = ["Arrivals", "check_speed", "from_timestamps", "number_text"]

Seconds = npt.NDArray[np.float64]


class Arrivals(ABC):
    """A schedule. Its ``repr`` is the expression that makes it again.

    Attributes:
        seed: what it is drawn from, or None where it is not random, was not given one yet, or has several.
        length: how many arrivals there are, or None where there is no end or that is not known before they are drawn.
        endless: whether there is no end.
        seekable: whether `due` costs about the same for any row. Where it does not, the result is the same all the
            same, but the first call far ahead passes over what comes before.
        slice: of a random schedule that can be sought: the seconds whose arrivals are drawn together, first how many,
            then when (on average, where the rate changes). None elsewhere.
        negative_gaps: of a recorded schedule: how many of the rows asked for so far stepped back in time. Such a row
            is due at once, with the latest one before it.
    """

    seed: int | None = None
    length: int | None = None
    endless: bool = True
    seekable: bool = True
    slice: float | None = None
    negative_gaps: int = 0
    random: bool = False
    depth: int = 0
    leaves: int = 1

    def stepped_back(self, rows: int) -> int:
        """Of a recorded schedule: how many of its first ``rows`` rows stepped back in time; of those asked for so far,
        and looked for no further back than 8,192 steps. 0 elsewhere."""
        return 0

    @abstractmethod
    def due(self, start: int, stop: int) -> Seconds:
        """The times of rows ``start … stop - 1`` in seconds since the start: absolute, ascending, none below 0. Fewer
        where the schedule ends before.

        Raises:
            StateError: it is random and has no seed; see `seeded`.
        """

    def seeded(self, seed: int) -> Arrivals:
        """This schedule, drawn from ``seed`` if it is random and has no seed of its own. Of a sum every part is drawn
        from another seed; the first one is drawn as it would be alone."""
        return self

    def between(self, begin: float, end: float) -> Seconds:
        """The due times from ``begin`` up to, not including, ``end``, in seconds: what a seek in time gives.

        Raises:
            ConfigError: a time that is not finite. StateError: as for `due`.
        """
        if not (math.isfinite(begin) and math.isfinite(end)):
            raise ConfigError(f"between takes two finite times, not {begin!r} and {end!r}")
        first = self.before(begin)
        return self.due(first, max(first, self.before(end, first)))

    def before(self, time: float, near: int = 0) -> int:
        """How many arrivals are due before ``time``; found by steps that double, from row ``near`` on, and then halve.
        For a time without end, of a schedule that has one: all."""

        def early(row: int) -> bool:
            due = self.due(row, row + 1)
            return len(due) > 0 and float(due[0]) < time

        low, high, step = 0, near, 1
        if early(near):
            low = near + 1
            while early(low + step):
                low, step = low + step + 1, step * 2
            high = low + step
        else:
            while near - step > 0 and not early(near - step):
                high, step = near - step, step * 2
            low = max(0, near - step)
        while low < high:
            middle = (low + high) // 2
            if early(middle):
                low = middle + 1
            else:
                high = middle
        return low

    def __add__(self, other: object) -> Arrivals:
        """Both at once, merged in the order of their times; of two at one time the left one comes first."""
        from simlink.generators.arrivals.algebra import Sum

        if not isinstance(other, Arrivals):
            return NotImplemented
        return Sum(self, other)

    def __mul__(self, other: object) -> Arrivals:
        """So many times the rate, at every instant: ``other`` is a number above 0, or a schedule that is nothing but a
        rate (`constant`, `ramp`, `steps`, `diurnal`, `weekly`, `burst`, and their products).

        Raises:
            ConfigError: a number that is not above 0, or two schedules neither of which is just a rate.
        """
        if isinstance(other, int | float) and not isinstance(other, bool):
            if not 0 < other < math.inf:
                raise ConfigError(f"a schedule is multiplied by a finite number above 0, not by {other!r}")
            return self.scaled(float(other))
        if not isinstance(other, Arrivals):
            return NotImplemented
        for one, two in ((self, other), (other, self)):
            rate = two.as_rate()
            if rate is not None:
                return one.shaped(rate, two.factors())
        raise ConfigError(f"{self!r} * {other!r}: one of the two has to be just a rate, as diurnal(0.6)")

    __rmul__ = __mul__

    def then(self, other: Arrivals, *, after: float | None = None) -> Arrivals:
        """This schedule, and ``other`` from ``after`` seconds on; what would be due here from there on is left out.

        Args:
            other: what follows; its own second 0 is ``after``.
            after: by default, where this schedule has an end: its last arrival.

        Raises:
            ConfigError: no ``after`` for a schedule without an end, or one that is not a finite number above 0.
        """
        from simlink.generators.arrivals.algebra import Then

        return Then(self, other, after)

    def thin(self, p: float, seed: int | None = None) -> Arrivals:
        """Each arrival with probability ``p``, independently.

        Raises:
            ConfigError: ``p`` is not above 0 and at most 1, or no seed.
        """
        from simlink.generators.arrivals.algebra import Thin

        return Thin(self, p, seed)

    def jitter(self, by: float, seed: int | None = None) -> Arrivals:
        """Each arrival later by its own share of ``by`` seconds, uniformly drawn; put in order again.

        Raises:
            ConfigError: ``by`` is not a finite number above 0, or no seed.
        """
        from simlink.generators.arrivals.algebra import Jitter

        return Jitter(self, by, seed)

    def faster(self, factor: float) -> Arrivals:
        """The whole schedule so many times as fast: every time divided by ``factor``, days and bursts included. (``*``
        multiplies the rate and leaves days and bursts as long as they are.)

        Raises:
            ConfigError: it is not a finite number above 0.
        """
        from simlink.generators.arrivals.algebra import Faster

        return Faster(self, check_speed(factor))

    # --- what the algebra asks of a schedule

    def scaled(self, factor: float) -> Arrivals:
        """This schedule at ``factor`` times the rate."""
        from simlink.generators.arrivals.rate import Rate

        return self.shaped(Rate.constant(factor), (number_text(factor),))

    def shaped(self, rate: Rate, factors: tuple[str, ...]) -> Arrivals:
        """This schedule times a rate, which the texts ``factors`` describe.

        Raises:
            ConfigError: it has no rate to be multiplied.
        """
        raise ConfigError(f"{self!r} cannot be multiplied by a rate")

    def as_rate(self) -> Rate | None:
        """Its rate, if it is nothing else."""
        return None

    def factors(self) -> tuple[str, ...]:
        """Its ``repr`` as factors of a product."""
        return (repr(self),)


def number_text(value: float) -> str:
    """A number as short as it can be read again."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def from_timestamps(times: Iterable[float], *, speed: float = 1.0) -> Arrivals:
    """The schedule of recorded times: row ``i`` is due at ``(times[i] - times[0]) / speed``, or at once where a row
    before it is due later. So a row that steps back in time is sent at once (and counted in ``negative_gaps``), and the
    recording as a whole takes as long as it did.

    Args:
        times: seconds, of any epoch; numbers, or datetimes and ISO 8601 texts (without a zone: UTC).
        speed: 2 plays the recording twice as fast.

    Raises:
        ConfigError: no times, one that is no time, or a speed that is not a finite number above 0.
    """
    return _Recorded(times, check_speed(speed))


def check_speed(speed: float) -> float:
    """The speed, if it is one.

    Raises:
        ConfigError: it is not a finite number above 0.
    """
    if isinstance(speed, bool) or not isinstance(speed, int | float) or not 0 < speed < math.inf:
        raise ConfigError(f"speed is a finite number above 0, not {speed!r}")
    return float(speed)


class _Recorded(Arrivals):
    def __init__(self, times: Iterable[float], speed: float) -> None:
        from simlink.generators.fields.times import to_microseconds

        recorded = [t if isinstance(t, int | float) else to_microseconds(t) / 1e6 for t in times]
        values = np.asarray(recorded, np.float64)
        if not len(values) or not np.isfinite(values).all():
            raise ConfigError("from_timestamps: give at least one time, all of them finite")
        back = np.diff(values, prepend=values[0]) < 0
        self._back = np.concatenate(([0], np.cumsum(back)))
        self._due = (np.maximum.accumulate(values) - values[0]) / speed
        self._due.flags.writeable = False
        self.length = len(values)
        self.endless = False
        self.speed = speed
        self._times = values

    def due(self, start: int, stop: int) -> Seconds:
        assert self.length is not None
        start = min(start, self.length)
        stop = max(start, min(stop, self.length))
        self.negative_gaps = max(self.negative_gaps, int(self._back[stop]))
        due: Seconds = self._due[start:stop]
        return due

    def stepped_back(self, rows: int) -> int:
        assert self.length is not None
        return int(self._back[min(rows, self.length)])

    def with_speed(self, speed: float) -> Arrivals:
        """The same recording at another speed."""
        other = copy.copy(self)
        other._due = self._due * (self.speed / check_speed(speed))
        other.speed = speed
        return other

    def scaled(self, factor: float) -> Arrivals:
        return self.with_speed(self.speed * factor)

    def shaped(self, rate: Rate, factors: tuple[str, ...]) -> Arrivals:
        from simlink.generators.arrivals.clock import Clocked, RecordedPoints

        return Clocked(RecordedPoints(self), rate, repr(self), factors)

    def __repr__(self) -> str:
        # A long recording stands in a file, and not in an expression.
        times = self._times.tolist() if len(self._times) <= 16 else f"<{self.length} times>"
        return f"from_timestamps({times}{'' if self.speed == 1 else f', speed={number_text(self.speed)}'})"
