"""One eligible endpoint, as a balancer is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from simlink.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint that may be picked now, in an immutable view of all that may.

    Args:
        name: the endpoint's name, ``host:port``; unique within a view.
        weight: its share relative to the others', finite and above 0. Only ratios count.
        warm: slow start's factor of that share, above 0 and at most 1. `SlowStart` is who reads it.

    Raises:
        ConfigError: the name is empty, or a number is outside its range.
    """

    name: str
    weight: float = 1.0
    warm: float = 1.0

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("an endpoint needs a name, such as 'host:port'")
        if not (isfinite(self.weight) and self.weight > 0):
            raise ConfigError(
                f"endpoint {self.name!r}: weight is {self.weight!r}; give a number above 0, or drain the endpoint"
            )
        if not 0 < self.warm <= 1:
            raise ConfigError(f"endpoint {self.name!r}: warm is {self.warm!r}; it lies above 0 and is at most 1")
