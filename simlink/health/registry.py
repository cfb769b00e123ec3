"""Failure detectors by name, as a URL or an option gives them."""

from __future__ import annotations

from simlink.errors import ConfigError, did_you_mean
from simlink.health.detector import FailureDetector
from simlink.health.empirical import EmpiricalAccrual
from simlink.health.heartbeat import Heartbeat
from simlink.health.phi import PhiAccrual

__all__ = ["DEFAULT", "detector"]

DEFAULT = EmpiricalAccrual.name

_DETECTORS = {kind.name: kind for kind in (EmpiricalAccrual, Heartbeat, PhiAccrual)}


def detector(
    what: str | FailureDetector | type[FailureDetector] | None = None, interval: float = 1.0
) -> FailureDetector:
    """The detector that a user means: a name, an object, a class, or None for the default.

    Args:
        what: ``"empirical"`` (the default), ``"heartbeat"``, ``"phi"``, a `FailureDetector` or a class of them.
        interval: seconds between beats, for a name, a class or the default; an object has its own.

    Raises:
        ConfigError: no detector has that name, or the object is none.
    """
    if what is None:
        what = DEFAULT
    if isinstance(what, str):
        kind = _DETECTORS.get(what)
        if kind is None:
            raise ConfigError(f"no detector {what!r}{did_you_mean(what, _DETECTORS)}")
        return kind(interval)
    if isinstance(what, type) and issubclass(what, FailureDetector):
        what = what(interval)
    if not isinstance(what, FailureDetector):
        raise ConfigError(
            f"detector: {what!r} is not a simlink.FailureDetector; give one, or a name: {', '.join(_DETECTORS)}"
        )
    if not hasattr(what, "interval"):
        raise ConfigError(f"detector: {type(what).__name__}.__init__ must call super().__init__(interval)")
    return what
