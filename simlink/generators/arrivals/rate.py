"""A rate that changes with time, as straight lines, and its exact inverse.

The arrivals of a schedule with rate r(t) are those of a unit schedule, read at the inverse of R(t) = ∫ r: the
time-change theorem for point processes (Cox and Lewis, *The Statistical Analysis of Series of Events*, 1966; Çinlar,
1975). A rate is made of straight lines, so R is a parabola on each and its inverse needs a square root, which IEEE 754
fixes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from simlink.errors import ConfigError

__all__ = ["Line", "Rate"]

Seconds = npt.NDArray[np.float64]
_MAX_NODES = 1_000_000
_PARTS = 8


class Line:
    """A rate over a stretch of time: straight from node to node; two nodes at one time are a step."""

    def __init__(self, times: Sequence[float] | Seconds, rates: Sequence[float] | Seconds) -> None:
        self.times = np.asarray(times, np.float64)
        self.rates = np.asarray(rates, np.float64)
        widths = np.diff(self.times)
        with np.errstate(over="ignore"):  # who makes a rate refuses what is not finite
            self.sums: Seconds = np.concatenate(([0.0], np.cumsum(widths * (self.rates[1:] + self.rates[:-1]) * 0.5)))

    @property
    def width(self) -> float:
        """Seconds."""
        return float(self.times[-1])

    @property
    def total(self) -> float:
        """The expected arrivals in it."""
        return float(self.sums[-1])

    def invert(self, y: Seconds) -> Seconds:
        """The time at which ``y`` (0 … total) are expected to have come; where nothing comes for a while, its end."""
        at = np.clip(np.searchsorted(self.sums, y, side="right") - 1, 0, max(len(self.sums) - 2, 0))
        width = self.times[at + 1] - self.times[at]
        low, high = self.rates[at], self.rates[at + 1]
        rest = y - self.sums[at]
        safe = np.where(width > 0, width, 1.0)
        root = np.sqrt(np.maximum(low * low + 2.0 * (high - low) / safe * rest, 0.0))
        bottom = low + root
        still = np.where(high > 0, 0.0, width)
        inside = np.where(bottom > 0, 2.0 * rest / np.where(bottom > 0, bottom, 1.0), still)
        out: Seconds = self.times[at] + np.clip(inside, 0.0, width)
        return out


class Rate:
    """A rate for all time: ``head`` once, then ``cycle`` for ever.

    A constant is a cycle alone; what ends has a cycle of 0.
    """

    def __init__(self, head: Line | None, cycle: Line) -> None:
        self.head = head
        self.cycle = cycle
        for line in (head, cycle):
            if line is not None and (not np.isfinite(line.sums).all() or (line.rates < 0).any()):
                raise ConfigError("a rate is finite and not below 0, at any time")
        values = cycle.rates
        self.flat = float(values[0]) if head is None and bool((values == values[0]).all()) else None

    @classmethod
    def constant(cls, rate: float) -> Rate:
        """The same at any time."""
        return cls(None, Line([0.0, 1.0], [rate, rate]))

    @property
    def limit(self) -> float:
        """The expected arrivals in all time."""
        if self.cycle.total > 0:
            return math.inf
        return self.head.total if self.head is not None else 0.0

    @property
    def mean(self) -> float:
        """Arrivals a second, in the long run."""
        return self.cycle.total / self.cycle.width

    def invert(self, y: Seconds) -> Seconds:
        """When ``y`` arrivals are expected to have come; all of them below `limit`."""
        if self.flat is not None:
            return y / self.flat
        cycle, head = self.cycle, self.head
        if head is None:
            return self._cycled(y, 0.0, 0.0)
        if cycle.total <= 0:
            return head.invert(y)
        early = y < head.total
        if early.all():
            return head.invert(y)
        out = np.empty_like(y)
        out[early] = head.invert(y[early])
        out[~early] = self._cycled(y[~early], head.total, head.width)
        return out

    def _cycled(self, y: Seconds, before: float, since: float) -> Seconds:
        z = y - before
        turns = np.floor(z / self.cycle.total)
        rest = np.clip(z - turns * self.cycle.total, 0.0, self.cycle.total)
        out: Seconds = self.cycle.invert(rest) + (turns * self.cycle.width + since)
        return out

    def __mul__(self, other: Rate | float) -> Rate:
        """The product at every instant. Where two slopes meet it is a parabola, drawn in eight straight parts.

        Raises:
            ConfigError: two cycles that fit together only after very long.
        """
        if not isinstance(other, Rate):
            head = None if self.head is None else Line(self.head.times, self.head.rates * other)
            return Rate(head, Line(self.cycle.times, self.cycle.rates * other))
        for one, two in ((self, other), (other, self)):
            if one.flat is not None:
                return two * one.flat
        end = max(line.width if line is not None else 0.0 for line in (self.head, other.head))
        head = None if end == 0 else _product(self._nodes, other._nodes, 0.0, end)
        width = _common(self.cycle.width, other.cycle.width)
        if _is_flat(self.cycle):
            width = other.cycle.width
        elif _is_flat(other.cycle):
            width = self.cycle.width
        return Rate(head, _product(self._nodes, other._nodes, end, end + width))

    def _nodes(self, start: float, stop: float) -> tuple[Seconds, Seconds]:
        """Nodes that draw the rate from ``start`` to ``stop``, both included."""
        times: list[Seconds] = []
        rates: list[Seconds] = []
        since = 0.0
        if self.head is not None:
            since = self.head.width
            times.append(self.head.times)
            rates.append(self.head.rates)
        width = self.cycle.width
        if _is_flat(self.cycle):
            times.append(np.array([since, max(stop, since) + 1.0]))
            rates.append(self.cycle.rates[:2])
        else:
            first = max(0, math.floor((start - since) / width))
            last = max(first + 1, math.ceil((stop - since) / width) + 1)
            if (last - first) * len(self.cycle.times) > _MAX_NODES:
                raise ConfigError("these rates repeat too often within one another to be multiplied")
            for turn in range(first, last):
                times.append(self.cycle.times + (since + turn * width))
                rates.append(self.cycle.rates)
        return np.concatenate(times), np.concatenate(rates)


_Nodes = Callable[[float, float], tuple[Seconds, Seconds]]


def _product(one: _Nodes, two: _Nodes, start: float, stop: float) -> Line:
    t1, r1 = one(start, stop)
    t2, r2 = two(start, stop)
    inner = np.concatenate((t1, t2))
    edges = np.unique(np.concatenate(([start, stop], inner[(inner > start) & (inner < stop)])))
    if len(edges) * _PARTS * 2 > _MAX_NODES:
        raise ConfigError("these rates have too many corners to be multiplied")
    # Parts finer than the corners: the product of two slopes is no straight line.
    steps = np.arange(_PARTS) / _PARTS
    fine = np.append((edges[:-1, None] + np.diff(edges)[:, None] * steps).ravel(), edges[-1])
    low, high = fine[:-1], fine[1:]
    times = np.ravel(np.column_stack((low, high))) - start
    # The value just behind a corner and just before the next one: a step has both.
    after = _value(t1, r1, low, "right") * _value(t2, r2, low, "right")
    before = _value(t1, r1, high, "left") * _value(t2, r2, high, "left")
    return Line(times, np.ravel(np.column_stack((after, before))))


def _value(times: Seconds, rates: Seconds, at: Seconds, side: str) -> Seconds:
    """The rate just after (right) or just before (left) these times."""
    index = np.searchsorted(times, at, side="right" if side == "right" else "left")
    i = np.clip(index - 1, 0, len(times) - 2)
    width = times[i + 1] - times[i]
    share = np.where(width > 0, (at - times[i]) / np.where(width > 0, width, 1.0), 0.0)
    out: Seconds = rates[i] + (rates[i + 1] - rates[i]) * np.clip(share, 0.0, 1.0)
    return out


def _is_flat(line: Line) -> bool:
    return bool((line.rates == line.rates[0]).all())


def _common(one: float, two: float) -> float:
    """The shortest time that is a whole number of both."""
    a, b = Fraction(one).limit_denominator(1_000_000), Fraction(two).limit_denominator(1_000_000)
    return float(
        Fraction(math.lcm(a.numerator * b.denominator, b.numerator * a.denominator), a.denominator * b.denominator)
    )
