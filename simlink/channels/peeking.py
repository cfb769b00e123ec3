"""Looking for an answer without sleeping, where that was worth it lately."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

__all__ = ["Peeker"]

PEEK = 0.0005
"""Seconds that a caller who waits for one message looks for its acceptance before it sleeps."""
MAX_MISSED = 8
"""2 to the power of this many waits are slept through at once, at most, when looking was in vain."""
SPARE = (os.cpu_count() or 1) > 1

Ready = list[tuple[int, int]]


class Peeker:
    """Falling asleep and being woken takes about as long as a peer takes to accept one message: so look for it first.

    Attributes:
        missed: how often looking was in vain of late.
        naps: so many waits are slept through before it looks again.
    """

    __slots__ = ("missed", "naps")

    def __init__(self) -> None:
        self.missed = 0
        self.naps = 0

    def __call__(self, poll: Callable[[float], Ready], timeout: float) -> Ready:
        """What is ready by ``poll``, looked at for `PEEK` or ``timeout`` seconds; nothing where it is better to sleep.

        Each look lets go of the interpreter lock, so other threads lose nothing but the processor.
        """
        if not SPARE:
            return []
        if self.naps:
            self.naps -= 1
            return []
        until = time.monotonic() + min(timeout, PEEK)
        while not (ready := poll(0)):
            if time.monotonic() >= until:
                # The peer is slow, or has no processor to run on but this one.
                self.missed = min(self.missed + 1, MAX_MISSED)
                self.naps = 2**self.missed
                return []
        self.missed = max(self.missed - 1, 0)
        return ready
