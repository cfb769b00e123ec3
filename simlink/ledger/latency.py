"""Percentiles of a stream of times, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Latencies"]

Seconds = npt.NDArray[np.float64]
_KEPT = 65_536


class Latencies:
    """Collects times and gives their percentiles.

    Exact up to 65,536 values; of more, a uniform random sample of that size is kept (every value gets a random tag,
    those with the lowest tags stay: bottom-k sampling), so that the q-th percentile of the sample is, with 99 %
    probability, between the percentiles q ± 0.5 of all. Count, maximum and mean are always exact. The percentiles are
    NumPy's, with linear interpolation. At most 3 MiB.

    One thread adds, any thread may read.
    """

    def __init__(self, seed: int = 0) -> None:
        self.count = 0
        self.maximum = 0.0
        self.total = 0.0
        self._random = np.random.default_rng(seed)
        self._values: Seconds = np.empty(0)
        self._tags: Seconds = np.empty(0)
        self._limit = 1.0
        # They get their tags, below the limit that they were added under, when they are folded in.
        self._fresh: list[Seconds] = []
        self._fresh_count = 0
        self._ones: list[float] = []  # as `_fresh`; those that were booked one by one

    def add(self, seconds: Seconds) -> None:
        """Book these values."""
        n = len(seconds)
        if not n:
            return
        if n == 1:
            self.add_one(float(seconds[0]))
            return
        self._count(n, float(seconds.max()), float(seconds.sum()))
        if self._limit < 1.0:
            # Which of them get a tag that is low enough; what tag that is, is drawn for those alone.
            seconds = seconds[self._random.random(n, dtype=np.float32) < self._limit]
        self._sample(seconds)

    def add_one(self, seconds: float) -> None:
        """Book one value, without an array made of it."""
        self._count(1, seconds, seconds)
        if self._limit >= 1.0 or self._random.random() < self._limit:
            self._ones.append(seconds)
            if len(self._ones) > 4096:
                self._fold()

    def add_same(self, seconds: float, count: int) -> None:
        """Book one value ``count`` times."""
        if count == 1:
            self.add_one(seconds)
        elif count:
            self._count(count, seconds, seconds * count)
            self._sample(np.full(int(self._random.binomial(count, self._limit)), seconds))

    def _count(self, count: int, maximum: float, total: float) -> None:
        self.maximum = maximum if not self.count else max(self.maximum, maximum)
        self.count += count
        self.total += total

    def _sample(self, seconds: Seconds) -> None:
        if not len(seconds):
            return
        self._fresh.append(seconds)
        self._fresh_count += len(seconds)
        if self._fresh_count > _KEPT or len(self._fresh) > 4096:
            self._fold()

    def _fold(self) -> None:
        fresh, self._fresh, self._fresh_count = self._fresh, [], 0
        ones, self._ones = self._ones, []
        values = np.concatenate([self._values, *fresh, ones])
        tags = np.concatenate([self._tags, self._random.random(len(values) - len(self._values)) * self._limit])
        self._keep(values, tags)

    def _keep(self, values: Seconds, tags: Seconds) -> None:
        if len(values) > _KEPT:
            kept = np.argpartition(tags, _KEPT)[: _KEPT + 1]
            self._limit = float(tags[kept].max())
            kept = kept[tags[kept] < self._limit]
            values, tags = values[kept], tags[kept]
        self._values, self._tags = values, tags

    @classmethod
    def merged(cls, parts: Sequence[Latencies]) -> Latencies:
        """All the values of all parts."""
        whole = cls()
        for part in parts:
            part._fold()
            if part.count:
                whole._count(part.count, part.maximum, part.total)
        # A tag above the lowest limit would not have stayed in the part that has that limit.
        whole._limit = min([1.0, *(part._limit for part in parts)])
        values = np.concatenate([whole._values, *(part._values for part in parts)])
        tags = np.concatenate([whole._tags, *(part._tags for part in parts)])
        low = tags < whole._limit
        whole._keep(values[low], tags[low])
        return whole

    def percentiles(self, *q: float) -> list[float]:
        """The percentiles ``q`` (0 … 100) in seconds; NaN where nothing was booked."""
        values = np.concatenate([self._values, *list(self._fresh), self._ones.copy()])
        if not len(values):
            return [float("nan")] * len(q)
        return [float(x) for x in np.percentile(values, q)]

    def as_ms(self) -> dict[str, float] | None:
        """``{"p50", "p90", "p99", "max"}`` in milliseconds, or None where nothing was booked."""
        if not self.count:
            return None
        p50, p90, p99 = self.percentiles(50, 90, 99)
        return {
            "p50": round(p50 * 1e3, 3),
            "p90": round(p90 * 1e3, 3),
            "p99": round(p99 * 1e3, 3),
            "max": round(self.maximum * 1e3, 3),
        }
