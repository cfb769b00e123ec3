"""The fixed deadline: so many beats without a sign of life."""

from __future__ import annotations

from typing import ClassVar

from simlink.errors import ConfigError
from simlink.health.detector import FailureDetector, Level, at_least

__all__ = ["Heartbeat"]


class Heartbeat(FailureDetector):
    """Suspect after ``suspect`` beats of silence, dead after ``dead``. It learns nothing, and is easy to foretell.

    Args:
        interval: seconds between beats, at least 0.01; default 1.
        suspect: beats of silence with which an endpoint leaves the rotation, at least 1; default 3.
        dead: beats of silence with which what it held is sent elsewhere, not below ``suspect``; default 5.

    Raises:
        ConfigError: an argument out of its range.
    """

    name: ClassVar[str] = "heartbeat"

    def __init__(self, interval: float = 1.0, suspect: float = 3.0, dead: float = 5.0) -> None:
        super().__init__(interval, suspect=suspect)
        self.dead = at_least("dead", dead, 1.0, "a number of beats, not below suspect; 5 is calm, 3 is quick")
        if self.dead < self.suspect:
            raise ConfigError(
                f"suspect={suspect} is above dead={dead}: silence makes an endpoint suspect first; "
                f"give dead={suspect} or more"
            )

    def allowed(self, level: Level) -> float:
        return self.interval * (self.dead if level is Level.DEAD else self.suspect)
