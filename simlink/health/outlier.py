"""Passive outlier ejection: an endpoint that lives and answers, but fails what it is given, rests for a while.

The rules are those of Envoy's outlier detection: failures in a row, or a success rate far below the others'. Rates are
taken over exact buckets of time, since a weighted average hides a tight burst of failures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from simlink.errors import ConfigError
from simlink.health.detector import at_least

__all__ = ["Outliers"]

_BUCKETS: Final = 10
_DEVIATIONS: Final = 1.9
"""Standard deviations below the mean from where a success rate is an outlier's: Envoy's default."""

_LEAST: Final = 0.01
"""Rates within a hundredth of the mean are no outlier's, however alike the others are."""


@dataclass(slots=True)
class _Record:
    failed_in_a_row: int = 0
    times: int = 0  # ejected so often, less one for each rest that it was well afterwards
    back_at: float = 0.0


class Outliers:
    """Counts outcomes, and says who is worth ejecting. Whether it may be is the membership's decision.

    Args:
        consecutive: failures in a row that eject, at least 1; default 5.
        window: seconds over which success rates are compared, above 0; default 10.
        calls: outcomes within the window below which a rate says nothing, at least 1; default 100.
        endpoints: endpoints with a rate, below which none is compared, at least 3; default 5.
        rest: seconds of the first ejection, above 0; the n-th takes n times as long. Default 30.
        longest: seconds that no ejection exceeds, not below ``rest``; default 300.
        share: the part of all endpoints that may be ejected at once, in (0, 1]; one always may. Default 0.1.

    Raises:
        ConfigError: an argument out of its range.
    """

    def __init__(
        self,
        *,
        consecutive: int = 5,
        window: float = 10.0,
        calls: int = 100,
        endpoints: int = 5,
        rest: float = 30.0,
        longest: float = 300.0,
        share: float = 0.1,
    ) -> None:
        self.consecutive = int(at_least("consecutive", consecutive, 1, "a number of failures in a row, at least 1"))
        self.window = at_least("window", window, 0.001, "seconds, above 0")
        self.calls = int(at_least("calls", calls, 1, "a number of outcomes, at least 1"))
        self.endpoints = int(at_least("endpoints", endpoints, 3, "a number of endpoints, at least 3"))
        self.rest = at_least("rest", rest, 0.001, "seconds, above 0")
        self.longest = at_least("longest", longest, self.rest, f"seconds, not below rest={self.rest:g}")
        hint = "a part of all endpoints, above 0 and at most 1"
        self.share = at_least("share", share, 1e-9, hint)
        if self.share > 1:
            raise ConfigError(f"share is {share!r}: {hint}")
        self._records: dict[str, _Record] = {}
        self._buckets: dict[int, dict[str, list[int]]] = {}
        self._bucket = -1

    def record(self, name: str, now: float, ok: bool) -> list[tuple[str, str]]:
        """An outcome of ``name``. Return who is an outlier now, each with the reason."""
        found = []
        bucket = math.floor(now * _BUCKETS / self.window)
        if bucket != self._bucket:
            found = self._slow_ones()
            self._bucket = bucket
            for old in [at for at in self._buckets if at <= bucket - _BUCKETS]:
                del self._buckets[old]
        counts = self._buckets.setdefault(bucket, {}).setdefault(name, [0, 0])
        counts[not ok] += 1
        record = self._records.setdefault(name, _Record())
        record.failed_in_a_row = 0 if ok else record.failed_in_a_row + 1
        if record.failed_in_a_row >= self.consecutive:
            found.append((name, f"{record.failed_in_a_row} failures in a row"))
            record.failed_in_a_row = 0  # whether it was ejected or not, the next verdict takes as many again
        return found

    def ejected(self, name: str, now: float) -> float:
        """``name`` is ejected ``now``. Return until when."""
        record = self._records.setdefault(name, _Record())
        well = max(0.0, now - record.back_at) if record.times else 0.0
        record.times = max(0, record.times - int(well / self.rest)) + 1
        record.back_at = now + min(self.rest * record.times, self.longest)
        self.clear(name)
        return record.back_at

    def clear(self, name: str) -> None:
        """What ``name`` did so far counts no more."""
        if name in self._records:
            self._records[name].failed_in_a_row = 0
        for counts in self._buckets.values():
            counts.pop(name, None)

    def forget(self, name: str) -> None:
        """``name`` is gone."""
        self.clear(name)
        self._records.pop(name, None)

    def most(self, total: int) -> int:
        """How many of ``total`` endpoints may be ejected at once."""
        return max(1, math.floor(self.share * total))

    def _slow_ones(self) -> list[tuple[str, str]]:
        sums: dict[str, list[int]] = {}
        for counts in self._buckets.values():
            for name, (good, bad) in counts.items():
                whole = sums.setdefault(name, [0, 0])
                whole[0] += good
                whole[1] += bad
        rates = {name: good / (good + bad) for name, (good, bad) in sums.items() if good + bad >= self.calls}
        if len(rates) < self.endpoints:
            return []
        mean = math.fsum(rates.values()) / len(rates)
        deviation = math.sqrt(math.fsum((rate - mean) ** 2 for rate in rates.values()) / len(rates))
        line = min(mean - _DEVIATIONS * deviation, mean - _LEAST)
        return [
            (name, f"{rate:.1%} succeed, {mean:.1%} on average")
            for name, rate in sorted(rates.items(), key=lambda each: each[1])
            if rate < line
        ]
