"""What an endpoint can be, and from what it can become what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["LEGAL", "State", "Transition"]


class State(Enum):
    """Where an endpoint stands. Only `UP`, `WARMING` and, for one batch, `HALF_OPEN` are in the rotation."""

    CONNECTING = "connecting"
    UP = "up"
    SUSPECT = "suspect"  # silent, or its link broke: nothing new for it, nothing is moved
    DEAD = "dead"  # silent for too long, or proven dead: what it held is sent elsewhere
    HALF_OPEN = "half open"  # back from the dead, and on trial with one batch
    WARMING = "warming"  # in rotation, with a share that grows
    EJECTED = "ejected"  # alive, but it fails what it is given
    DRAINING = "draining"  # leaving: nothing new for it, it may finish what it holds
    REMOVED = "removed"

    def __str__(self) -> str:
        return self.value


_LEAVES: Final = frozenset({State.DEAD, State.DRAINING, State.REMOVED})

LEGAL: Final = {
    State.CONNECTING: _LEAVES | {State.UP, State.WARMING},
    State.UP: _LEAVES | {State.SUSPECT, State.EJECTED},
    State.SUSPECT: _LEAVES | {State.UP, State.WARMING, State.HALF_OPEN, State.EJECTED},
    # From dead straight to work only one that never lived: it was refused, or silent, before it was first connected.
    State.DEAD: frozenset({State.HALF_OPEN, State.UP, State.WARMING, State.REMOVED}),
    State.HALF_OPEN: _LEAVES | {State.WARMING, State.UP, State.SUSPECT},
    State.WARMING: _LEAVES | {State.UP, State.SUSPECT, State.EJECTED},
    State.EJECTED: _LEAVES | {State.UP, State.WARMING, State.SUSPECT},
    State.DRAINING: frozenset({State.DEAD, State.REMOVED}),
    State.REMOVED: frozenset(),
}
"""The states that may follow each."""


@dataclass(frozen=True, slots=True)
class Transition:
    """An endpoint changed.

    Attributes:
        at: when, on the clock that the membership is told.
        endpoint: its name.
        old: what it was.
        new: what it is.
        why: a clause that says it, such as ``silent for 5.0 s``.
        incarnation: the life of the endpoint that ``new`` is about, or None where none was known.
    """

    at: float
    endpoint: str
    old: State
    new: State
    why: str
    incarnation: object = None

    def __str__(self) -> str:
        return f"{self.endpoint}: {self.old} → {self.new}: {self.why}"
