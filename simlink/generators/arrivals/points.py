"""Unit schedules: arrivals one a second in the mean, in whose clock all others are read.

A Poisson process is drawn slice by slice: how many arrivals, then where. Slices of one width with Poisson counts and
uniform times are exactly a Poisson process, and any of them is made alone. A renewal process (independent gaps of
another law) has no such cut: its blocks of gaps are added up from the beginning.
"""

from __future__ import annotations

import bisect
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.errors import StateError
from simlink.generators import portable, seeding

__all__ = ["SLICE", "Counts", "Points", "Regular", "Renewal", "UnitPoisson", "binomial_table", "poisson_table"]

Seconds = npt.NDArray[np.float64]
Table = tuple[int, Seconds]
BLOCK = 4096
SLICE = 1024.0
"""Width of a slice of the unit Poisson process: its mean count."""


class Points(ABC):
    """Ascending positions on the unit clock.

    Attributes:
        name: of the process, for errors.
        seed: None where nothing is drawn, or no seed was given yet.
        seekable: whether positions far ahead cost no more than near ones.
        random: whether it needs a seed.
    """

    name = "constant"
    seed: int | None = None
    seekable = True
    random = True

    @abstractmethod
    def positions(self, start: int, stop: int) -> Seconds:
        """Of the arrivals ``start … stop - 1``."""

    def seeded(self, seed: int) -> Points:
        """The same, with this seed if it has none."""
        return self

    def _check(self) -> int:
        if self.seed is None:
            raise StateError(f"{self.name} arrivals have no seed: give one, or use .seeded(seed)")
        return self.seed


class Regular(Points):
    """0, 1, 2, …"""

    random = False

    def positions(self, start: int, stop: int) -> Seconds:
        # Each from its row, not by adding up: no drift after any number of rows.
        return np.arange(start, max(start, stop), dtype=np.float64)


def _table(low: int, mode: int, high: int, up: Callable[[int], float]) -> Table:
    """Cumulated shares of the counts ``low … high`` from the ratios ``up(k)`` = share(k + 1) / share(k)."""
    weights = {mode: 1.0}
    for k in range(mode, high):
        weights[k + 1] = weights[k] * up(k)
    for k in range(mode, low, -1):
        weights[k - 1] = weights[k] / up(k - 1)
    sums = np.cumsum([weights[k] for k in range(low, high + 1)])
    sums /= sums[-1]
    return low, sums


@lru_cache(maxsize=8)
def poisson_table(mean: float) -> Table:
    """Poisson counts within 12 standard deviations, beyond which lies less than 1e-30."""
    mode, reach = int(mean), int(12 * mean**0.5) + 12
    return _table(max(0, mode - reach), mode, mode + reach, lambda k: mean / (k + 1))


@lru_cache(maxsize=64)
def binomial_table(n: int, p: float) -> Table:
    """Binomial counts, likewise; ``0 < p < 1``."""
    mode, reach = min(int((n + 1) * p), n), int(12 * (n * p * (1 - p)) ** 0.5) + 24
    odds = p / (1 - p)
    return _table(max(0, mode - reach), mode, min(n, mode + reach), lambda k: odds * (n - k) / (k + 1))


class Counts:
    """Drawn counts of numbered parts, and which part a row is in. 4,096 counts are drawn and added up at a time, so
    that a row a thousand million arrivals ahead takes some ten milliseconds once."""

    def __init__(self, seed: int, path: str, table: Table) -> None:
        self._seed, self._path, self._table = seed, path, table
        self._ends: list[int] = []
        self._recent: tuple[int, npt.NDArray[np.int64]] | None = None
        self._lock = threading.Lock()

    def _sums(self, group: int) -> npt.NDArray[np.int64]:
        """The rows up to the end of each part of a group, from the group's first on."""
        recent = self._recent
        if recent is not None and recent[0] == group:
            return recent[1]
        low, cumulative = self._table
        u = seeding.to_uniform(seeding.words(self._seed, self._path, group, BLOCK))
        drawn = np.minimum(np.searchsorted(cumulative, u, side="right"), len(cumulative) - 1) + low
        sums = np.cumsum(drawn)
        self._recent = (group, sums)
        return sums

    def _start(self, group: int) -> int:
        with self._lock:
            while len(self._ends) < group:
                before = self._ends[-1] if self._ends else 0
                self._ends.append(before + int(self._sums(len(self._ends))[-1]))
        return self._ends[group - 1] if group else 0

    def part_of(self, row: int) -> int:
        """The part that a row is in."""
        if not self._ends or self._ends[-1] <= row:
            group = len(self._ends)
            while self._start(group + 1) <= row:
                group += 1
        else:
            group = bisect.bisect_right(self._ends, row)
        return group * BLOCK + int(np.searchsorted(self._sums(group), row - self._start(group), side="right"))

    def bounds(self, part: int) -> tuple[int, int]:
        """The first row of a part, and the one behind it."""
        group, at = divmod(part, BLOCK)
        before, sums = self._start(group), self._sums(group)
        return before + (int(sums[at - 1]) if at else 0), before + int(sums[at])


class _Drawn(Points):
    """With a seed, and things that do not travel to another process."""

    def __init__(self, seed: int | None) -> None:
        self.seed = None if seed is None else seeding.check_seed(seed)

    def _arguments(self) -> tuple[Any, ...]:
        return ()

    def seeded(self, seed: int) -> Points:
        if self.seed is not None:
            return self
        return self._again(seed)

    def _again(self, seed: int) -> Points:
        make: Any = type(self)
        made: Points = make(*self._arguments(), seed)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self._arguments(), self.seed)


class UnitPoisson(_Drawn):
    """A Poisson process of rate 1, in slices of 1,024 seconds of its clock."""

    name = "poisson"

    def __init__(self, seed: int | None) -> None:
        super().__init__(seed)
        self._counts = None if self.seed is None else Counts(self.seed, "arrivals.poisson", poisson_table(SLICE))
        self._recent: tuple[int, Seconds] | None = None

    def _times(self, part: int, count: int) -> Seconds:
        recent = self._recent
        if recent is not None and recent[0] == part:
            return recent[1]
        assert self.seed is not None
        drawn = seeding.to_uniform(seeding.words(self.seed, "arrivals.poisson.times", part, count))
        drawn.sort()
        times: Seconds = drawn * SLICE + part * SLICE
        self._recent = (part, times)
        return times

    def positions(self, start: int, stop: int) -> Seconds:
        self._check()
        assert self._counts is not None
        if stop <= start:
            return np.empty(0, np.float64)
        out = []
        part = self._counts.part_of(start)
        while True:
            first, last = self._counts.bounds(part)
            times = self._times(part, last - first)
            out.append(times[max(0, start - first) : stop - first])
            if last >= stop:
                return np.concatenate(out)
            part += 1


class Renewal(_Drawn):
    """Independent gaps of mean 1: "gamma" with a coefficient of variation, or "weibull" with a shape."""

    seekable = False

    def __init__(self, law: str, parameter: float, seed: int | None) -> None:
        super().__init__(seed)
        self.name = law
        self.parameter = parameter
        self._ends: list[float] = []  # the clock at the end of each block
        self._recent: tuple[int, Seconds] | None = None
        self._lock = threading.Lock()

    def _arguments(self) -> tuple[Any, ...]:
        return self.name, self.parameter

    def _gaps(self, block: int) -> Seconds:
        seed = self._check()
        if self.name == "gamma":
            return _gamma_gaps(seed, block, self.parameter)
        u = seeding.to_open_uniform(seeding.words(seed, "arrivals.weibull", block, BLOCK))
        # Γ comes from the C library: rounded to where they agree.
        mean = float(f"{math.gamma(1.0 + 1.0 / self.parameter):.13g}")
        gaps: Seconds = portable.power(-portable.log(u), 1.0 / self.parameter) / mean
        return gaps

    def positions(self, start: int, stop: int) -> Seconds:
        self._check()
        if stop <= start:
            return np.empty(0, np.float64)
        first, last = start // BLOCK, (stop - 1) // BLOCK
        times = np.concatenate([self._times(k) for k in range(first, last + 1)])
        return times[start - first * BLOCK : stop - first * BLOCK]

    def _times(self, block: int) -> Seconds:
        # One block is kept: a run asks for a few rows at a time.
        recent = self._recent
        if recent is not None and recent[0] == block:
            return recent[1]
        with self._lock:
            while len(self._ends) < block:
                k = len(self._ends)
                self._ends.append(float(np.cumsum(self._gaps(k))[-1]) + (self._ends[-1] if k else 0.0))
            before = self._ends[block - 1] if block else 0.0
        times: Seconds = np.cumsum(self._gaps(block)) + before
        self._recent = (block, times)
        return times


def _gamma_gaps(seed: int, block: int, cv: float) -> Seconds:
    """Gamma gaps of mean 1 and that coefficient of variation, by rejection: G. Marsaglia and W. W. Tsang, *A simple
    method for generating gamma variables*, ACM TOMS 26 (2000), 363–372."""
    shape = 1.0 / (cv * cv)
    boosted = shape + 1.0 if shape < 1.0 else shape
    d = boosted - 1.0 / 3.0
    c = 1.0 / (9.0 * d) ** 0.5
    out = np.zeros(BLOCK)
    left = np.arange(BLOCK)
    turn = 0
    while len(left):
        raw = seeding.words(seed, f"arrivals.gamma.{turn}", block, 2 * BLOCK)
        x = portable.normal_quantile(seeding.to_open_uniform(raw[:BLOCK]))[left]
        u = seeding.to_open_uniform(raw[BLOCK:])[left]
        cube = 1.0 + c * x
        v = np.where(cube > 0, cube * cube * cube, 1.0)
        good = (cube > 0) & (portable.log(u) < 0.5 * x * x + d - d * v + d * portable.log(v))
        out[left[good]] = d * v[good]
        left = left[~good]
        turn += 1
    if shape < 1.0:
        u = seeding.to_open_uniform(seeding.words(seed, "arrivals.gamma.boost", block, BLOCK))
        out *= portable.exp(portable.log(u) / shape)
    return out / shape
