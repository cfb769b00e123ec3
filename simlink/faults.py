"""Faults on purpose, with ground truth: ``source | faults.drop(0.001) | faults.late(0.01, by=30)``."""

from __future__ import annotations

from simlink.generators.faults.fault import Fault, corrupt, drop, duplicate, late, out_of_order, truncate
from simlink.generators.faults.faulty import FaultySource, Label, apply
from simlink.generators.faults.fields import clock_skew, drift, flap, gap, hot_key, spike, stuck, wrong_type
from simlink.generators.faults.text import named, parse

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
