"""What every failure detector has in common: which sign of life counts, and how much silence is too much.

A detector says nothing about time by itself: it knows the moment of the last proof of life and how long a silence it
allows after it, so one timer an endpoint is enough and nothing is polled.
"""

from __future__ import annotations

import copy
import enum
import math
from abc import ABC, abstractmethod
from typing import ClassVar, Final, Self

from simlink.errors import ConfigError

__all__ = ["FailureDetector", "Level", "at_least"]

_SHORTEST: Final = 0.01
"""Seconds. A busy interpreter hands its lock on every 5 ms, and loops wake late: shorter beats measure just that."""

_BUCKET: Final = 64
"""Beats whose smallest transit is kept, twice: what a clock drifts meanwhile is less than any beat is jittered."""


class Level(enum.IntEnum):
    """How bad the silence is."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2


def at_least(name: str, value: float, least: float, hint: str) -> float:
    """``value`` as a float, or a `ConfigError` that says the hint when it is no finite number of at least ``least``."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {value!r}, not a number: {hint}") from None
    if not math.isfinite(number) or number < least:
        raise ConfigError(f"{name} is {value!r}: {hint}")
    return number


class FailureDetector(ABC):
    """Judges one endpoint by its signs of life. The one that a user passes is a pattern: each endpoint gets `fresh`.

    A class of one's own needs one method, `allowed`; one that learns from past silences has `learn` and `forget` too.

    Args:
        interval: seconds between the endpoint's beats, at least 0.01.
        suspect: after how many beats' worth of silence it is suspect, at least 1.

    Raises:
        ConfigError: an argument out of its range; the message says what to do.
    """

    name: ClassVar[str] = ""

    _life: float | None  # the last proof of life
    _borne: float  # seconds since then that are nobody's fault but ours
    _seq: int | None
    _silence: float  # the longest one since the last beat in time
    _quiet: bool  # no traffic since then
    _lesson: float  # when traffic tells the longest silence, as no beat did
    _paused: bool  # our own loop was late since then

    def __init__(self, interval: float = 1.0, *, suspect: float = 3.0) -> None:
        self.interval = at_least(
            "interval",
            interval,
            _SHORTEST,
            f"seconds between beats, at least {_SHORTEST} (a busy Python process cannot keep a shorter one)",
        )
        self.suspect = at_least("suspect", suspect, 1.0, "a number of beats, at least 1; 3 bears two lost ones")
        self._start()

    # ---- what a subclass says

    @abstractmethod
    def allowed(self, level: Level) -> float:
        """Seconds of silence with which ``level`` is reached: for SUSPECT no more than for DEAD."""

    def learn(self, silence: float, quiet: bool) -> None:
        """The longest silence, in seconds, since the last time: told by each beat that comes in time, and once an
        interval where answers come instead, for a peer that has something to say sends no beats.

        ``quiet``: nothing but beats came meanwhile.
        """

    def forget(self) -> None:
        """Drop all that was learnt."""

    # ---- what happens to the endpoint

    def fresh(self) -> Self:
        """A detector with these arguments that has seen nothing."""
        twin = copy.copy(self)
        twin.forget()
        twin._start()
        return twin

    def heartbeat(self, now: float, seq: int | None = None, sent_at: float | None = None) -> bool:
        """A beat came. Return whether it proves life later than what was known.

        A beat proves that its sender lived when it was *sent*: one that waited in a queue renews no more than that.

        Args:
            now: when it came.
            seq: its number; one that is not above the last is a repeat or was overtaken, and is ignored.
            sent_at: when it was sent, by the sender's monotonic clock in seconds. The clocks need not agree: the beat
                with the shortest transit of the last 64 to 128 is the measure of the others.
        """
        if seq is not None:
            if self._seq is not None and seq <= self._seq:
                return False
            self._seq = seq
        waited = 0.0 if sent_at is None else self._waited(now, sent_at)
        if self._life is None:
            self._lesson = now + self.interval
            return self._renew(now - waited)
        self._silence = max(self._silence, now - self._life)
        if waited < self.interval:  # else: a queue that drains; its silence is told by the first that is in time
            self._tell(now)
            self._quiet = True
        return self._renew(now - waited)

    def traffic(self, now: float) -> None:
        """Something else came from it, at ``now``: proves life as a beat does, but is no sample of how beats come."""
        self._quiet = False
        if self._life is None:
            self._lesson = now + self.interval
        else:
            self._silence = max(self._silence, now - self._life)
            if now >= self._lesson:
                self._tell(now)
        self._renew(now)

    def _tell(self, now: float) -> None:
        if not self._paused:
            self.learn(self._silence, self._quiet)
        self._silence, self._paused = 0.0, False
        self._lesson = now + self.interval

    def local_pause(self, now: float, late: float) -> None:
        """Our own loop was ``late`` seconds late at ``now``: what came meanwhile is not read yet.

        So that time does not count as silence and is not learnt, and one beat more is given to read what came.
        """
        if late > 0 and self._life is not None:
            self._borne = max(0.0, min(now - self._life, self._borne + late + self.interval))
            self._paused = True

    def reset(self, now: float) -> None:
        """A new link, at ``now``: silence counts from here, beats are numbered and timed anew.

        What was learnt is kept; the gap that ends here was an outage, and is not learnt.
        """
        self._start()
        self._life = now
        self._lesson = now + self.interval

    # ---- what it says

    def deadline(self, level: Level) -> float:
        """When ``level`` is reached if nothing comes, on the clock of ``now``; infinity while nothing has begun."""
        if self._life is None:
            return math.inf
        if level is Level.ALIVE:
            return self._life
        return self._life + self._borne + self.allowed(level)

    def level(self, now: float) -> Level:
        """How bad it is at ``now``: exactly at its deadline a level is reached."""
        if now >= self.deadline(Level.DEAD):
            return Level.DEAD
        return Level.SUSPECT if now >= self.deadline(Level.SUSPECT) else Level.ALIVE

    def suspicion(self, now: float) -> float:
        """The silence at ``now`` as a share of what makes it dead: 1 is dead."""
        return self.silence(now) / self.allowed(Level.DEAD)

    def silence(self, now: float) -> float:
        """Seconds since the last proof of life, without those in which we could not hear; 0 before the first."""
        return 0.0 if self._life is None else max(0.0, now - self._life - self._borne)

    @property
    def seen(self) -> float | None:
        """The moment of the last proof of life, or of the last `reset`; None before."""
        return self._life

    # ---- inside

    def _start(self) -> None:
        self._life = None
        self._seq = None
        self._borne = self._silence = self._lesson = 0.0
        self._quiet, self._paused = True, False
        self._transit = self._transit_before = math.inf  # the shortest of this bucket, and of the one before
        self._timed = 0

    def _renew(self, at: float) -> bool:
        if self._life is None:
            self._life = at
        elif at <= self._life:
            return False
        else:
            if self._borne:  # what was read late may be older than what was borne
                self._borne = max(0.0, self._life + self._borne - at)
            self._life = at
        return True

    def _waited(self, now: float, sent_at: float) -> float:
        """Seconds that a beat was longer on its way than the quickest of late."""
        transit = now - sent_at
        if not math.isfinite(transit):
            return 0.0
        if self._timed == _BUCKET:
            self._transit_before, self._transit, self._timed = self._transit, math.inf, 0
        self._timed += 1
        self._transit = min(self._transit, transit)
        return transit - min(self._transit, self._transit_before)

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value}" for name, value in self.__dict__.items() if not name.startswith("_"))
        return f"{type(self).__name__}({given})"
