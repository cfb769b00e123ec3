"""Records from a seed: fields, generators, arrivals, replay, and what turns any of them into a source of chunks.

``simlink.generators.catalog`` and the other modules of this folder are loaded when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

_MODULES = frozenset({"arrivals", "catalog", "generator", "record", "replay", "source"})


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
