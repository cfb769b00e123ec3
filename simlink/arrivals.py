"""When records are due: ``simlink.arrivals.poisson(5_000)`` and the like; see `simlink.generators.arrivals`."""

from __future__ import annotations

from simlink.generators.arrivals import Arrivals, constant, from_timestamps, poisson

__all__ = ["Arrivals", "constant", "from_timestamps", "poisson"]
