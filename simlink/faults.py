"""Faults on purpose, with ground truth: ``source | faults.drop(0.001) | faults.late(0.01, by=30)``."""

from __future__ import annotations

from simlink.generators.fault_fields import clock_skew, drift, flap, gap, hot_key, spike, stuck, wrong_type
from simlink.generators.fault_text import named, parse
from simlink.generators.faults import Fault, corrupt, drop, duplicate, late, out_of_order, truncate
from simlink.generators.faulty import FaultySource, Label, apply

__all__ = [
    "Fault",
    "FaultySource",
    "Label",
    "apply",
    "clock_skew",
    "corrupt",
    "drift",
    "drop",
    "duplicate",
    "flap",
    "gap",
    "hot_key",
    "late",
    "named",
    "out_of_order",
    "parse",
    "spike",
    "stuck",
    "truncate",
    "wrong_type",
]
