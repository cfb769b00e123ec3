"""The longest silence that passed of late, and a margin: no assumption about how beats are spread."""

from __future__ import annotations

from collections import deque
from typing import ClassVar, Final

from simlink.errors import ConfigError
from simlink.health.detector import FailureDetector, Level, at_least

__all__ = ["EmpiricalAccrual"]

_YOUNG: Final = 7.0
"""The least silence allowed, in beats, while less than a third of the window is filled."""

_SHORTEST_WINDOW: Final = 30


class EmpiricalAccrual(FailureDetector):
    """Dead after the longest silence of the last ``window`` beats times ``margin``; the default.

    A stall that passes is learnt, so it convicts at most once; when stalls cease, the window forgets them and detection
    is quick again. Where beats come evenly, ``dead`` beats of silence decide; 7 while less than a third of the window
    is filled. Nothing is assumed of how beats are spread: one setting fits a machine that stalls and one that does not.

    Stalls that come once in a hundred beats are all missing from a window of 1,000 once in 23,000 beats, which makes a
    false death in 70 hours of ten beats a second; from one of 1,500, once in 3 million: hence the default. Measured
    beside the others by ``bench/detection.py``.

    Args:
        interval: seconds between beats, at least 0.01; default 1.
        window: beats remembered, at least 30; default 1500.
        margin: how much longer than the longest a silence must be, at least 1; default 1.15.
        suspect: beats of silence with which an endpoint leaves the rotation, at least 1; default 3.
        dead: beats of silence before which nobody is dead, not below ``suspect``. Default: 5, but ``suspect`` where
            beats come more often than every second, since who asks for such beats asks for a quick verdict.
        cap: beats of silence after which anybody is dead, whatever was learnt, not below ``dead``; default 30.

    Raises:
        ConfigError: an argument out of its range.
    """

    name: ClassVar[str] = "empirical"

    def __init__(
        self,
        interval: float = 1.0,
        *,
        window: int = 1500,
        margin: float = 1.15,
        suspect: float = 3.0,
        dead: float | None = None,
        cap: float = 30.0,
    ) -> None:
        super().__init__(interval, suspect=suspect)
        self.window = int(at_least("window", window, _SHORTEST_WINDOW, "a number of beats, at least 30; 1500 is calm"))
        self.margin = at_least("margin", margin, 1.0, "a factor of at least 1; 1.15 is a silence longer by 15 %")
        if dead is None:
            dead = max(5.0, self.suspect) if self.interval >= 1.0 else self.suspect
        self.dead = at_least("dead", dead, 1.0, "a number of beats, not below suspect; 5 is calm, 3 is quick")
        if self.dead < self.suspect:
            raise ConfigError(
                f"suspect={suspect} is above dead={dead}: silence makes an endpoint suspect first; "
                f"give dead={suspect} or more"
            )
        self.cap = at_least("cap", cap, self.dead, f"a number of beats, not below dead={self.dead:g}")
        self.forget()

    def allowed(self, level: Level) -> float:
        if level is not Level.DEAD:
            return self.interval * self.suspect
        return self._allowed

    def learn(self, silence: float, quiet: bool) -> None:
        # Decreasing from the left: the first is the longest of the window, and each sample comes and goes once.
        longest = self._longest
        while longest and longest[-1][1] <= silence:
            longest.pop()
        longest.append((self._learnt, silence))
        self._learnt += 1
        if longest[0][0] < self._learnt - self.window:
            longest.popleft()
        beats = self.dead if self._learnt >= self.window // 3 else max(_YOUNG, self.dead)
        self._allowed = min(max(longest[0][1] * self.margin, beats * self.interval), self.cap * self.interval)

    def forget(self) -> None:
        self._longest: deque[tuple[int, float]] = deque()
        self._learnt = 0
        self._allowed = min(max(_YOUNG, self.dead), self.cap) * self.interval
