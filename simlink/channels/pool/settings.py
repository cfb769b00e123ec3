"""What can be set on a channel over several endpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simlink.balancing.balancer import Balancer
from simlink.balancing.consistent_hash import ConsistentHash
from simlink.balancing.registry import balancer as balancer_of
from simlink.balancing.slow_start import SlowStart
from simlink.channels.driver import Mode
from simlink.errors import ConfigError
from simlink.health.detector import FailureDetector
from simlink.health.registry import detector as detector_of

__all__ = ["PoolSettings", "check_weights"]


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """The options of `simlink.channels.making.POOL_OPTIONS`, checked and with their defaults.

    Attributes:
        balancer: with slow start around it.
        weights: by endpoint.
    """

    balancer: Balancer
    detector: FailureDetector
    order: str
    slow: str
    backlog: int
    weights: Mapping[str, float]
    slow_start: float
    resolver: str | Callable[[], Sequence[str]] | None
    resolve_every: float

    @property
    def keyed(self) -> bool:
        """Whether the strategy looks at keys, so that messages must be picked for by key."""
        return self.balancer.keyed

    @classmethod
    def of(
        cls, chosen: Mapping[str, Any], names: Sequence[str], *, mode: Mode, heartbeat: float | None, where: str
    ) -> PoolSettings:
        """From options, for these endpoints. ``heartbeat`` is how often the transport's receivers are heard.

        Raises:
            ConfigError: one of them cannot be.
        """
        detector = _detector(chosen["detector"], heartbeat, where)
        balancer = balancer_of(chosen["balancer"])
        _check_mode(chosen, balancer, mode, where)
        weights = _weights(chosen["weights"], names, where)
        check_weights(balancer, weights.values(), where)
        resolver = chosen["resolver"]
        if resolver is not None and not isinstance(resolver, str) and not callable(resolver):
            raise ConfigError(f"{where}: resolver is a DNS name or a function that returns names, not {resolver!r}")
        return cls(
            balancer=balancer if isinstance(balancer, SlowStart) else SlowStart(balancer),
            detector=detector,
            order=chosen["order"] or "none",
            slow=chosen["slow"] or "block",
            backlog=chosen["backlog"] or 16_384,
            weights=weights,
            slow_start=10.0 if chosen["slow_start"] is None else chosen["slow_start"],
            resolver=resolver,
            resolve_every=chosen["resolve_every"] or 30.0,
        )


def _detector(what: Any, heartbeat: float | None, where: str) -> FailureDetector:
    if isinstance(what, FailureDetector):
        return what
    if what is not None and not isinstance(what, str):
        raise ConfigError(f"{where}: detector is a name or a FailureDetector such as simlink.Heartbeat(), not {what!r}")
    return detector_of(what, 1.0 if heartbeat is None else heartbeat)


def _check_mode(chosen: Mapping[str, Any], balancer: Balancer, mode: Mode, where: str) -> None:
    """Nothing is taken that would mean nothing."""
    if mode is Mode.TOPIC:
        if chosen["order"] == "per_key":
            raise ConfigError(f"{where}: order='per_key' is for a queue; across a topic's endpoints no key is pinned")
        if isinstance(_inner(balancer), ConsistentHash):
            raise ConfigError(
                f"{where}: balancer {balancer.name!r} goes by keys, which is for a queue; for a topic take another,"
                " such as 'least_connections'"
            )
        return
    for name in ("slow", "backlog"):
        if chosen[name] is not None:
            raise ConfigError(f"{where}: {name}= is for a topic, whose slow members hold others up; a queue has none")


def _inner(balancer: Balancer) -> Balancer:
    return balancer.inner if isinstance(balancer, SlowStart) else balancer


def check_weights(balancer: Balancer, weights: Iterable[float], where: str) -> None:
    """Whether the strategy follows them.

    Raises:
        ConfigError: they differ, and it does not.
    """
    inner = _inner(balancer)
    if not inner.weighted and len(set(weights)) > 1:
        raise ConfigError(
            f"{where}: balancer {inner.name!r} gives all endpoints the same share; with weights use"
            " 'weighted_round_robin' or 'least_connections'"
        )


def _weights(given: Any, names: Sequence[str], where: str) -> dict[str, float]:
    if given is None:
        return dict.fromkeys(names, 1.0)
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ConfigError(f"{where}: weights= names {unknown[0]!r}, and the endpoints are {', '.join(names)}")
        values = [given.get(name, 1.0) for name in names]
    else:
        if not isinstance(given, str | Sequence):
            raise ConfigError(f"{where}: weights are '2,1,1', a list, or a mapping by endpoint, not {given!r}")
        values = given.split(",") if isinstance(given, str) else list(given)
        if len(values) != len(names):
            raise ConfigError(f"{where}: {len(values)} weights for {len(names)} endpoints")
    out = {}
    for name, value in zip(names, values, strict=True):
        try:
            weight = float(value)
        except (TypeError, ValueError):
            weight = math.nan
        if not (math.isfinite(weight) and weight > 0):
            raise ConfigError(
                f"{where}: the weight of {name!r} must be a number above 0, not {value!r}; leave out or drain an"
                " endpoint that should get nothing"
            )
        out[name] = weight
    return out
