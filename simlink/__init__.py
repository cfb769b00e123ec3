"""Simulated data from a seed, sent between machines over any transport, and proven to have arrived."""

from __future__ import annotations

__version__ = "0.1.0"
