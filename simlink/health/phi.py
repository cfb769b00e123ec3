"""Phi accrual: how unlikely a silence is, if beats are spread normally around their mean.

After Hayashibara and others, "The φ accrual failure detector" (SRDS 2004): phi is −log10 of the probability that a beat
comes later than this. The tail is the normal distribution's own, by the complementary error function, and not the
logistic stand-in that is in wide use, whose "8" is 7.06 in truth.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import NormalDist
from typing import ClassVar, Final

from simlink.errors import ConfigError
from simlink.health.detector import FailureDetector, Level, at_least

__all__ = ["PhiAccrual"]

_WINDOW: Final = 1000
_NS: Final = 1_000_000_000
_FAR: Final = 30.0  # standard deviations from where on the tail's first term is exact to three digits, and erfc nears 0


class PhiAccrual(FailureDetector):
    """Dead when phi reaches ``threshold``: after mean + pause + y · deviation, y the normal quantile of 10^−threshold.

    Mean and deviation are those of the last 1,000 gaps between beats, and start as one interval, more or less.
    Suspect after ``suspect`` beats. Silences that pass are learnt, and widen the deviation.

    Args:
        interval: seconds between beats, at least 0.01; default 1.
        threshold: phi with which an endpoint is dead, in (0, 300]; default 8, one beat in 10^8.
        min_deviation: seconds below which the deviation does not fall, above 0; default a fifth of the interval.
        pause: seconds of silence on top that are always borne; default 5 intervals. It is what bears stalls: at 0 each
            one is a death.
        suspect: beats of silence with which an endpoint leaves the rotation, at least 1; default 3. Nobody is
            dead before.

    Raises:
        ConfigError: an argument out of its range.
    """

    name: ClassVar[str] = "phi"

    def __init__(
        self,
        interval: float = 1.0,
        *,
        threshold: float = 8.0,
        min_deviation: float | None = None,
        pause: float | None = None,
        suspect: float = 3.0,
    ) -> None:
        self._gaps: deque[int] = deque()
        self._sum = self._squares = 0
        super().__init__(interval, suspect=suspect)
        hint = "phi, from 0.1 to 300; 8 is one beat in a hundred million"
        self.threshold = at_least("threshold", threshold, 0.1, hint)
        if self.threshold > 300:  # 10^−threshold must be a double
            raise ConfigError(f"threshold is {threshold!r}: {hint}")
        self.min_deviation = at_least(
            "min_deviation",
            self.interval / 5 if min_deviation is None else min_deviation,
            1e-6,
            "seconds, above 0; leave it out for a fifth of the interval",
        )
        self.pause = at_least(
            "pause",
            5 * self.interval if pause is None else pause,
            0.0,
            "seconds, 0 or more; leave it out for five intervals",
        )
        self._quantile = -NormalDist().inv_cdf(10.0**-self.threshold)
        self.forget()

    def allowed(self, level: Level) -> float:
        suspect = self.interval * self.suspect
        if level is not Level.DEAD:
            return suspect
        mean, deviation = self._normal()
        return max(suspect, mean + self.pause + self._quantile * deviation)

    def suspicion(self, now: float) -> float:
        """Phi at ``now``."""
        mean, deviation = self._normal()
        y = (self.silence(now) - mean - self.pause) / deviation
        if y > _FAR:
            return (y * y / 2 + math.log(y * math.sqrt(2 * math.pi))) / math.log(10)
        return abs(math.log10(math.erfc(y / math.sqrt(2)) / 2))

    def learn(self, silence: float, quiet: bool) -> None:
        # Traffic in between would say that beats come sooner than they do; a longer silence is one all the same.
        self._add(round((silence if quiet else max(silence, self.interval)) * _NS))

    def forget(self) -> None:
        self._gaps = deque()
        self._sum = self._squares = 0
        for share in (0.75, 1.25):
            self._add(round(self.interval * share * _NS))

    def _add(self, gap: int) -> None:
        # Whole nanoseconds: running sums of integers are exact, however long they run.
        self._gaps.append(gap)
        self._sum += gap
        self._squares += gap * gap
        if len(self._gaps) > _WINDOW:
            old = self._gaps.popleft()
            self._sum -= old
            self._squares -= old * old

    def _normal(self) -> tuple[float, float]:
        """Mean and deviation, in seconds."""
        count = len(self._gaps)
        variance = (count * self._squares - self._sum * self._sum) / (count * count)
        return self._sum / count / _NS, max(math.sqrt(variance) / _NS, self.min_deviation)
