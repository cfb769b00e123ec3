"""When records are due: intended times as a function of the row.

An `Arrivals` gives the due times of rows ``start … stop - 1`` in seconds since the start of the run, absolute and
ascending. It says nothing of when a record says it happened (`fields.event_time` may use one of its own) and never
reads a clock. More processes (ramps, bursts, a day's rhythm) and their algebra join this file as further classes.
"""

from __future__ import annotations

import copy
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.errors import ConfigError, StateError
from simlink.generators import portable, seeding

__all__ = ["Arrivals", "constant", "from_timestamps", "poisson"]

Seconds = npt.NDArray[np.float64]
_BLOCK = 4096


class Arrivals(ABC):
    """A schedule.

    Attributes:
        seed: what it is drawn from, or None where it is not random or was not given one yet.
        length: how many arrivals there are, or None for no end.
        seekable: whether `due` costs the same for any row. Where it does not, the result is the same all the same, but
            the first call far ahead passes over what comes before.
        negative_gaps: of a recorded schedule: how many of the rows asked for so far stepped back in time. Such a row
            is due at once, with the latest one before it.
    """

    seed: int | None = None
    length: int | None = None
    seekable: bool = True
    negative_gaps: int = 0

    @abstractmethod
    def due(self, start: int, stop: int) -> Seconds:
        """The times of rows ``start … stop - 1`` in seconds since the start: absolute, ascending, none below 0. Fewer
        where the schedule ends before.

        Raises:
            StateError: it is random and has no seed; see `seeded`.
        """

    def seeded(self, seed: int) -> Arrivals:
        """This schedule, drawn from ``seed`` if it is random and has no seed of its own."""
        return self


def constant(rate: float) -> Arrivals:
    """``rate`` a second, evenly: row ``i`` is due at ``i / rate``. Any rate above 0, fractions included (0.5 is one
    every two seconds).

    Raises:
        ConfigError: the rate is not a finite number above 0.
    """
    return _Constant(rate)


def _check_rate(what: str, rate: float) -> float:
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise ConfigError(f"{what}: the rate is a finite number above 0, in records a second, not {rate!r}")
    return float(rate)


class _Constant(Arrivals):
    def __init__(self, rate: float) -> None:
        self.rate = _check_rate("constant", rate)

    def due(self, start: int, stop: int) -> Seconds:
        # Each from its row, not by adding up: no drift after any number of rows.
        return np.arange(start, max(start, stop), dtype=np.float64) / self.rate

    def __repr__(self) -> str:
        return f"constant({self.rate:g})"


def poisson(rate: float, seed: int | None = None) -> Arrivals:
    """A Poisson process of ``rate`` a second: independent, exponentially distributed gaps of mean ``1 / rate``, by the
    quantile function -ln(u) / rate.

    Not ``seekable``: the time of a row is a sum over the rows before it. They are passed over at some ten million a
    second, once: the sums of whole blocks of 4,096 are kept.

    Args:
        rate: records a second, above 0; fractions are fine.
        seed: 0 … 2**64 - 1; without one the run (or the record) gives its own.

    Raises:
        ConfigError: a rate that is not a finite number above 0, or no seed.
    """
    return _Poisson(rate, seed)


class _Poisson(Arrivals):
    seekable = False

    def __init__(self, rate: float, seed: int | None) -> None:
        self.rate = _check_rate("poisson", rate)
        self.seed = None if seed is None else seeding.check_seed(seed)
        self._ends: list[float] = []  # the time at the end of each block, in mean gaps
        self._recent: tuple[int, Seconds] | None = None
        self._lock = threading.Lock()

    def seeded(self, seed: int) -> Arrivals:
        return self if self.seed is not None else _Poisson(self.rate, seeding.check_seed(seed))

    def _gaps(self, block: int) -> Seconds:
        assert self.seed is not None
        return -portable.log(seeding.to_open_uniform(seeding.words(self.seed, "arrivals.poisson", block, _BLOCK)))

    def _times(self, block: int) -> Seconds:
        """The times of one block, in mean gaps. One is kept: a run asks for a few rows at a time."""
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

    def due(self, start: int, stop: int) -> Seconds:
        if self.seed is None:
            raise StateError("poisson arrivals have no seed: give one, or use .seeded(seed)")
        if stop <= start:
            return np.empty(0, np.float64)
        first, last = start // _BLOCK, (stop - 1) // _BLOCK
        times = np.concatenate([self._times(k) for k in range(first, last + 1)])
        due: Seconds = times[start - first * _BLOCK : stop - first * _BLOCK] / self.rate
        return due

    def __getstate__(self) -> dict[str, Any]:
        return {"rate": self.rate, "seed": self.seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a lock does not travel to another process

    def __repr__(self) -> str:
        return f"poisson({self.rate:g}, seed={self.seed})"


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
        from simlink.generators.times import to_microseconds

        recorded = [t if isinstance(t, int | float) else to_microseconds(t) / 1e6 for t in times]
        values = np.asarray(recorded, np.float64)
        if not len(values) or not np.isfinite(values).all():
            raise ConfigError("from_timestamps: give at least one time, all of them finite")
        back = np.diff(values, prepend=values[0]) < 0
        self._back = np.concatenate(([0], np.cumsum(back)))
        self._due = (np.maximum.accumulate(values) - values[0]) / speed
        self._due.flags.writeable = False
        self.length = len(values)
        self.speed = speed

    def due(self, start: int, stop: int) -> Seconds:
        assert self.length is not None
        stop = max(start, min(stop, self.length))
        self.negative_gaps = max(self.negative_gaps, int(self._back[stop]))
        due: Seconds = self._due[start:stop]
        return due

    def with_speed(self, speed: float) -> Arrivals:
        """The same recording at another speed."""
        other = copy.copy(self)
        other._due = self._due * (self.speed / check_speed(speed))
        other.speed = speed
        return other

    def __repr__(self) -> str:
        return f"from_timestamps({self.length} times, speed={self.speed:g})"
