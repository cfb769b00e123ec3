"""A schedule as text, as on the command line: ``poisson(200)*diurnal(0.6)+burst(every=60,size=500)``."""

from __future__ import annotations

from simlink.errors import ConfigError
from simlink.generators.arrivals import clock as arrivals_clock
from simlink.generators.arrivals.schedule import Arrivals, from_timestamps
from simlink.generators.expressions import evaluate

__all__ = ["parse"]

_NAMES = ("burst", "constant", "diurnal", "gamma", "poisson", "ramp", "steps", "weekly", "weibull")
_FUNCTIONS = {name: getattr(arrivals_clock, name) for name in _NAMES} | {"from_timestamps": from_timestamps}
_METHODS = frozenset({"faster", "jitter", "then", "thin"})
_LIKE = "poisson(200)*diurnal(0.6)"


def parse(text: str) -> Arrivals:
    """The schedule that an expression describes: the functions of `simlink.arrivals`, ``+``, ``*``, ``.then()``,
    ``.faster()``, ``.thin()``, ``.jitter()``, numbers, and nothing else of Python. ``parse(repr(schedule))`` is the
    same schedule.

    Raises:
        ConfigError: it is no such expression; shows where.
    """
    value = evaluate(text, _FUNCTIONS, _METHODS, "schedule", _LIKE)
    if not isinstance(value, Arrivals):
        raise ConfigError(f"{text!r} is no schedule; expected something like {_LIKE!r}")
    return value
