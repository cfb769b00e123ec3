"""Failure detectors by name, as a URL or an option gives them."""
from __future__ import annotations
from simlink.errors import ConfigError, did_you_mean
from simlink.health.detector import FailureDetector


def detector(what: str | FailureDetector | None = None, interval: float = 1.0) -> FailureDetector:
    from simlink.health.empirical import EmpiricalAccrual
    from simlink.health.heartbeat import Heartbeat
    from simlink.health.phi import PhiAccrual
    kinds = {"empirical": EmpiricalAccrual, "heartbeat": Heartbeat, "phi": PhiAccrual}
    if isinstance(what, FailureDetector):
        return what
    kind = kinds.get(what or "empirical")
    if kind is None:
        raise ConfigError(f"no detector {what!r}{did_you_mean(str(what), kinds)}")
    return kind(interval)
