"""Schedules with a rate: a unit schedule whose clock runs at that rate, and the functions that make them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simlink.errors import ConfigError
from simlink.generators.arrivals.points import SLICE, Points, Regular, Renewal, UnitPoisson
from simlink.generators.arrivals.rate import Line, Rate
from simlink.generators.arrivals.schedule import Arrivals, number_text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Clocked",
    "RecordedPoints",
    "burst",
    "constant",
    "diurnal",
    "gamma",
    "poisson",
    "ramp",
    "steps",
    "weekly",
    "weibull",
]

Seconds = npt.NDArray[np.float64]
DAY = 86_400.0
_QUARTERS = 96


class Clocked(Arrivals):
    """A unit schedule on a clock that runs at a rate.

    Args:
        text: the expression without its seed and its last parenthesis' contents, as ``poisson(200)``.
        more: texts of the rates that it was multiplied by.
    """

    def __init__(self, points: Points, rate: Rate, text: str, more: tuple[str, ...] = ()) -> None:
        self.points, self.rate = points, rate
        self._text, self._more = text, more
        self.seed = points.seed
        self.random = points.random
        self.seekable = points.seekable
        self.endless = rate.limit == math.inf and not isinstance(points, RecordedPoints)
        if isinstance(points, UnitPoisson) and rate.mean > 0:
            self.slice = SLICE / rate.mean
        if not self.endless and (self.seed is not None or not self.random):
            self.length = self._count()

    def _count(self) -> int:
        if isinstance(self.points, RecordedPoints):
            most = self.points.positions(0, self.points.length)
            return int(np.searchsorted(most, self.rate.limit, side="left"))
        step = 4096
        count = 0
        while True:
            found = self.points.positions(count, count + step)
            inside = int(np.searchsorted(found, self.rate.limit, side="left"))
            count += inside
            if inside < step:
                return count

    def due(self, start: int, stop: int) -> Seconds:
        positions = self.points.positions(start, stop)
        limit = self.rate.limit
        if limit != math.inf:
            positions = positions[: int(np.searchsorted(positions, limit, side="left"))]
        return self.rate.invert(positions)

    def seeded(self, seed: int) -> Arrivals:
        points = self.points.seeded(seed)
        return self if points is self.points else Clocked(points, self.rate, self._text, self._more)

    def shaped(self, rate: Rate, factors: tuple[str, ...]) -> Arrivals:
        return Clocked(self.points, self.rate * rate, self._text, (*self._more, *factors))

    def as_rate(self) -> Rate | None:
        return self.rate if isinstance(self.points, Regular) else None

    def factors(self) -> tuple[str, ...]:
        if self.seed is None:
            return (self._text, *self._more)
        return (f"{self._text[:-1]}, seed={self.seed})", *self._more)

    def __repr__(self) -> str:
        return "*".join(self.factors())


class RecordedPoints(Points):
    """Recorded times as a unit schedule: a rate of 1 plays them as they were."""

    name = "recorded"
    random = False

    def __init__(self, recording: Arrivals) -> None:
        assert recording.length is not None
        self.length = recording.length
        self._recording = recording

    def positions(self, start: int, stop: int) -> Seconds:
        return self._recording.due(start, stop)


def check_number(what: str, name: str, value: Any, *, above: float = 0.0, zero: bool = False) -> float:
    """A finite number above ``above`` (from it on, with ``zero``).

    Raises:
        ConfigError: it is not.
    """
    good = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool | np.bool_)
    if not good or not (above < value < math.inf or (zero and value == above)):
        raise ConfigError(f"{what}: {name} is a finite number {'from' if zero else 'above'} {above:g}, not {value!r}")
    return float(value)


def check_rate(what: str, rate: Any) -> float:
    """A rate in records a second.

    Raises:
        ConfigError: it is not a finite number above 0.
    """
    return check_number(what, "the rate, in records a second,", rate)


def constant(rate: float) -> Arrivals:
    """``rate`` a second, evenly: row ``i`` is due at ``i / rate``. Any rate above 0, fractions included (0.5 is one
    every two seconds).

    Raises:
        ConfigError: the rate is not a finite number above 0.
    """
    rate = check_rate("constant", rate)
    return Clocked(Regular(), Rate.constant(rate), f"constant({number_text(rate)})")


def poisson(rate: float, seed: int | None = None) -> Arrivals:
    """A Poisson process of ``rate`` a second: independent, exponentially distributed gaps of mean ``1 / rate``.

    Drawn in slices of ``1024 / rate`` seconds: how many (the quantile function of the Poisson law), then when
    (uniformly, in order). So it can be sought: only the counts before a row are drawn, not the times.

    Args:
        rate: records a second, above 0; fractions are fine. Times a rate that changes it is the Poisson process of that
            rate.
        seed: 0 … 2**64 - 1; without one the run (or the record) gives its own.

    Raises:
        ConfigError: a rate that is not a finite number above 0, or no seed.
    """
    rate = check_rate("poisson", rate)
    return Clocked(UnitPoisson(seed), Rate.constant(rate), f"poisson({number_text(rate)})")


def gamma(rate: float, cv: float = 2.0, seed: int | None = None) -> Arrivals:
    """Independent gamma-distributed gaps of mean ``1 / rate``: burstier than Poisson with a ``cv`` above 1, more
    regular below. Not ``seekable``: a time is a sum over the gaps before it, which are passed over at some millions a
    second.

    Args:
        rate: records a second, above 0.
        cv: the coefficient of variation of the gaps, standard deviation over mean, from 0.01 to 100; 1 is Poisson.
        seed: as for `poisson`.

    Raises:
        ConfigError: a number out of its range, or no seed.
    """
    rate = check_rate("gamma", rate)
    cv = check_number("gamma", "cv", cv)
    if not 0.01 <= cv <= 100:
        raise ConfigError(f"gamma: cv is from 0.01 to 100, not {cv!r}")
    text = f"gamma({number_text(rate)}, cv={number_text(cv)})"
    return Clocked(Renewal("gamma", cv, seed), Rate.constant(rate), text)


def weibull(rate: float, shape: float = 0.5, seed: int | None = None) -> Arrivals:
    """Independent Weibull-distributed gaps of mean ``1 / rate``: with a ``shape`` below 1 many short and few long
    ones, as in network traffic. Not ``seekable``, see `gamma`.

    Args:
        rate: records a second, above 0.
        shape: from 0.1 to 100; 1 is Poisson.
        seed: as for `poisson`.

    Raises:
        ConfigError: a number out of its range, or no seed.
    """
    rate = check_rate("weibull", rate)
    shape = check_number("weibull", "shape", shape)
    if not 0.1 <= shape <= 100:
        raise ConfigError(f"weibull: shape is from 0.1 to 100, not {shape!r}")
    text = f"weibull({number_text(rate)}, shape={number_text(shape)})"
    return Clocked(Renewal("weibull", shape, seed), Rate.constant(rate), text)


def ramp(start: float, end: float, over: float) -> Arrivals:
    """A rate that goes in a straight line from ``start`` to ``end`` records a second within ``over`` seconds, and stays
    there. With an ``end`` of 0 the schedule ends.

    Raises:
        ConfigError: a rate below 0, both rates 0, or a time that is not above 0.
    """
    start, end = (check_number("ramp", name, v, zero=True) for name, v in (("start", start), ("end", end)))
    over = check_number("ramp", "over", over)
    if not start and not end:
        raise ConfigError("ramp: one of the two rates is above 0")
    text = f"ramp({number_text(start)}, {number_text(end)}, {number_text(over)})"
    return Clocked(Regular(), Rate(Line([0.0, over], [start, end]), Line([0.0, 1.0], [end, end])), text)


def steps(*stages: Sequence[float], repeat: bool = False) -> Arrivals:
    """One rate after another: ``steps((60, 10), (30, 200))`` is 10 a second for 60 seconds, then 200.

    Args:
        stages: pairs ``(seconds, rate)``; a rate of 0 is a pause.
        repeat: begin again after the last one. By default its rate stays; a last rate of 0 ends the schedule.

    Raises:
        ConfigError: no stages, one that is no such pair, or no rate above 0.
    """
    times, rates = [0.0], []
    for stage in stages:
        if isinstance(stage, str) or not hasattr(stage, "__len__") or len(stage) != 2:
            raise ConfigError(f"steps: a stage is (seconds, rate), not {stage!r}")
        seconds = check_number("steps", "the seconds of a stage", stage[0])
        rate = check_number("steps", "the rate of a stage", stage[1], zero=True)
        times += [times[-1] + seconds] * 2
        rates += [rate, rate]
    if not any(rates):
        raise ConfigError("steps: at least one stage has a rate above 0")
    if not isinstance(repeat, bool):
        raise ConfigError(f"steps: repeat is True or False, not {repeat!r}")
    line = Line(times[:-1], rates)
    pairs = ", ".join(f"({number_text(s)}, {number_text(r)})" for s, r in stages)
    text = f"steps({pairs}{', repeat=True' if repeat else ''})"
    if repeat:
        return Clocked(Regular(), Rate(None, line), text)
    return Clocked(Regular(), Rate(line, Line([0.0, 1.0], [rates[-1], rates[-1]])), text)


def diurnal(depth: float = 0.6, *, peak: float = 15.0, start: float = 0.0, day: float = DAY) -> Arrivals:
    """A day's rhythm: the rate 1 + depth · cos(2π (h - peak) / 24) at hour h, drawn in straight lines from quarter
    hour to quarter hour. Its mean over a day is 1, so ``poisson(200)*diurnal(0.6)`` is 200 a second on average.

    Args:
        depth: 0 … 1: how far the rate goes above and below its mean.
        peak: the hour with most arrivals.
        start: the hour at which the schedule begins.
        day: how many seconds a day lasts; 60 makes a day of a minute.

    Raises:
        ConfigError: a number out of its range.
    """
    depth = check_number("diurnal", "depth", depth, zero=True)
    if depth > 1:
        raise ConfigError(f"diurnal: depth is from 0 to 1, not {depth!r}")
    hours = [check_number("diurnal", name, v, zero=True) for name, v in (("peak", peak), ("start", start))]
    day = check_number("diurnal", "day", day)
    # The cosine comes from the C library: rounded to where they agree.
    rates = [
        1.0 + depth * round(math.cos(2 * math.pi * (i / _QUARTERS + (hours[1] - hours[0]) / 24)), 12)
        for i in range(_QUARTERS)
    ]
    times = np.arange(_QUARTERS + 1) / _QUARTERS * day
    text = f"diurnal({number_text(depth)}{_given(peak=(peak, 15.0), start=(start, 0.0), day=(day, DAY))})"
    return Clocked(Regular(), Rate(None, Line(times, [*rates, rates[0]])), text)


def weekly(damping: float = 0.5, *, start: int = 0, day: float = DAY) -> Arrivals:
    """A week's rhythm: at the weekend the rate is ``damping`` less than on other days; its mean over a week is 1.

    Args:
        damping: 0 … 1; with 1 nothing comes at the weekend.
        start: the weekday on which the schedule begins, at midnight: 0 is Monday, 6 is Sunday.
        day: how many seconds a day lasts, as for `diurnal`.

    Raises:
        ConfigError: a number out of its range.
    """
    damping = check_number("weekly", "damping", damping, zero=True)
    if damping > 1:
        raise ConfigError(f"weekly: damping is from 0 to 1, not {damping!r}")
    if isinstance(start, bool) or not isinstance(start, int) or not 0 <= start <= 6:
        raise ConfigError(f"weekly: start is a weekday from 0 (Monday) to 6, not {start!r}")
    day = check_number("weekly", "day", day)
    work = 7.0 / (7.0 - 2.0 * damping)
    days = [work * (1.0 - damping) if (start + i) % 7 >= 5 else work for i in range(7)]
    text = f"weekly({number_text(damping)}{_given(start=(start, 0), day=(day, DAY))})"
    return Clocked(
        Regular(),
        Rate(None, Line([day * i for i in range(8) for _ in "ab"][1:-1], [r for r in days for _ in "ab"])),
        text,
    )


def burst(every: float, size: float, over: float | None = None) -> Arrivals:
    """On and off: ``size`` arrivals, evenly within ``over`` seconds, every ``every`` seconds; nothing in between. Times
    ``poisson(1)`` both the number and the times of a burst are random.

    Args:
        every: seconds from the start of one burst to the start of the next.
        size: arrivals a burst.
        over: seconds that a burst lasts; by default one second, or half of ``every`` where that is less.

    Raises:
        ConfigError: a number that is not above 0, or a burst that lasts longer than until the next one.
    """
    every, size = check_number("burst", "every", every), check_number("burst", "size", size)
    lasts = min(1.0, every / 2) if over is None else check_number("burst", "over", over)
    if lasts > every:
        raise ConfigError(f"burst: over={lasts:g} is longer than every={every:g}")
    text = f"burst(every={number_text(every)}, size={number_text(size)}{_given(over=(over, None))})"
    high = size / lasts
    return Clocked(Regular(), Rate(None, Line([0.0, lasts, lasts, every], [high, high, 0.0, 0.0])), text)


def _given(**values: tuple[Any, Any]) -> str:
    """The arguments that are not at their defaults."""
    return "".join(f", {name}={number_text(v)}" for name, (v, default) in values.items() if v != default)
