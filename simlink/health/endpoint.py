"""What a membership remembers of one endpoint."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Final

from simlink.health.detector import FailureDetector
from simlink.health.states import State

__all__ = ["STEPS", "Endpoint"]

STEPS: Final = 10
"""Slow start's share grows in so many steps: each is a new view for the balancer."""


class Endpoint:
    """The record of one endpoint. Only `simlink.health.membership.Membership` writes it."""

    __slots__ = (
        "back",
        "deaths",
        "detector",
        "draining",
        "due",
        "ejected_until",
        "incarnation",
        "linked",
        "lived",
        "name",
        "proven",
        "pulse",
        "quarantine",
        "revived",
        "state",
        "step",
        "trial",
        "warm_since",
        "weight",
        "why",
    )  # fmt: skip – a list of names

    def __init__(self, name: str, now: float, weight: float, detector: FailureDetector) -> None:
        self.name = name
        self.weight = weight
        self.detector = detector
        self.state = State.CONNECTING
        self.why = "added"
        self.incarnation: Hashable = None
        self.linked = False  # there is a link to it now
        self.lived = False  # it was connected once
        self.draining = False
        # Death and return
        self.proven = False  # dead by more than silence
        self.back = False  # it lives again, and may return when its quarantine is over
        self.deaths = 0
        self.quarantine = now
        self.revived = now  # when it last came back
        self.trial: bool | None = None  # half-open: True while its one batch may be given, False once it was
        # Slow start and ejection
        self.warm_since: float | None = None
        self.step = 0
        self.ejected_until = -math.inf
        # Timers: when the record is looked at next, and, dead but used in panic, when what it was given is moved again
        self.due = math.inf
        self.pulse = math.inf

    @property
    def seen(self) -> float | None:
        """The moment of its last sign of life."""
        return self.detector.seen if self.lived else None

    @property
    def share(self) -> float:
        """The part of its weight that counts: all of it when it is up, or waits for the one batch that it may get."""
        if self.state is State.UP or (self.state is State.HALF_OPEN and self.trial):
            return 1.0
        return max(1, self.step if self.state is State.WARMING else 0) / STEPS
