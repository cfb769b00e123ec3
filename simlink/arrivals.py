"""When records are due: ``simlink.arrivals.poisson(5_000)`` and the like, and their algebra; see
`simlink.generators.arrivals.schedule`."""

from __future__ import annotations

from simlink.generators.arrivals.clock import burst, constant, diurnal, gamma, poisson, ramp, steps, weekly, weibull
from simlink.generators.arrivals.schedule import Arrivals, from_timestamps
from simlink.generators.arrivals.text import parse

__all__ = [
    "Arrivals",
    "burst",
    "constant",
    "diurnal",
    "from_timestamps",
    "gamma",
    "parse",
    "poisson",
    "ramp",
    "steps",
    "weekly",
    "weibull",
]
