"""Balancers by name, as a URL or an option gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol

from simlink.balancing.balancer import Balancer
from simlink.balancing.pick import EndpointLoad
from simlink.errors import ConfigError, did_you_mean

DEFAULT = "least_connections"

STRATEGIES = {
    "round_robin": "round_robin:RoundRobin",
    "random": "uniform:Random",
    "least_connections": "least_connections:LeastConnections",
    "weighted_round_robin": "weighted_round_robin:WeightedRoundRobin",
    "power_of_two": "power_of_two:PowerOfTwoChoices",
    "peak_ewma": "peak_ewma:PeakEwma",
    "least_estimated_delay": "least_estimated_delay:LeastEstimatedDelay",
    "consistent_hash": "consistent_hash:ConsistentHash",
}
"""Name → where the strategy lives, as ``module:class`` of this room; loaded at first use."""

ALIASES = {"p2c": "power_of_two", "led": "least_estimated_delay"}


class Chooser(Protocol):
    """What a strategy of one's own must have at least."""

    def choose(self, endpoints: Sequence[EndpointLoad], key: bytes | None) -> EndpointLoad:
        """One of ``endpoints``, for messages with this key."""


class Chosen(Balancer):
    """Keeps the books for a user's class that has ``choose`` and nothing else."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser
        # An instance attribute over the class's: what an error calls this balancer is what the user calls it.
        self.name = type(chooser).__name__  # type: ignore[misc]

    def choose(self, endpoints: Sequence[EndpointLoad], key: bytes | None) -> EndpointLoad:
        return self._chooser.choose(endpoints, key)


def balancer(what: str | Balancer | Chooser | type | None = None) -> Balancer:
    """The balancer that a user means: a name, an object, a class with a method ``choose``, or None for the default.

    Names: ``round_robin``, ``random``, ``least_connections`` (the default), ``weighted_round_robin``,
    ``power_of_two`` or ``p2c``, ``peak_ewma``, ``least_estimated_delay`` or ``led``, ``consistent_hash``.

    Raises:
        ConfigError: no strategy has that name, or the object has no ``choose``.
    """
    if what is None:
        what = DEFAULT
    if isinstance(what, str):
        home = STRATEGIES.get(ALIASES.get(what, what))
        if home is None:
            raise ConfigError(f"no balancer {what!r}{did_you_mean(what, [*STRATEGIES, *ALIASES])}")
        module, _, kind = home.partition(":")
        made: Balancer = getattr(import_module(f"simlink.balancing.{module}"), kind)()
        return made
    if isinstance(what, type):
        what = _made(what)
    if isinstance(what, Balancer):
        return what
    if not callable(getattr(what, "choose", None)):
        raise ConfigError(
            f"balancer: {what!r} has no method choose(endpoints, key); give such an object, or a name: "
            f"{', '.join(STRATEGIES)}"
        )
    return Chosen(what)


def _made(kind: Callable[[], object]) -> Chooser:
    try:
        made = kind()
    except TypeError as error:
        raise ConfigError(f"balancer: {kind!r} cannot be made without arguments; give an object of it") from error
    return made  # type: ignore[return-value]  # what it has is looked at by the caller
