"""Ready-made generators by name: ``simlink.generators.catalog.clickstream(seed=7)``.

Each is a file of this folder with a function of the same name. They are imported here, all of them, because a module
that is imported later would take its function's place under that name.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from simlink.errors import ConfigError, did_you_mean
from simlink.generators.catalog.access_log import access_log
from simlink.generators.catalog.clickstream import clickstream
from simlink.generators.catalog.ijinus import ijinus
from simlink.generators.catalog.numbers import numbers
from simlink.generators.catalog.orders import orders
from simlink.generators.catalog.sensors import sensors
from simlink.generators.generator import Generator

__all__ = ["access_log", "clickstream", "get", "ijinus", "names", "numbers", "orders", "sensors"]

_ENTRIES: MappingProxyType[str, Callable[..., Generator]] = MappingProxyType(
    {
        "access_log": access_log,
        "clickstream": clickstream,
        "ijinus": ijinus,
        "numbers": numbers,
        "orders": orders,
        "sensors": sensors,
    }
)


def names() -> list[str]:
    """The names of the catalog, sorted."""
    return sorted(_ENTRIES)


def get(name: str) -> Callable[..., Generator]:
    """The function that makes the generator of that name; all of them take ``seed=`` and their own options.

    Raises:
        ConfigError: there is none, with a did-you-mean.
    """
    if name not in _ENTRIES:
        raise ConfigError(f"no generator {name!r} in the catalog{did_you_mean(str(name), _ENTRIES)}")
    return _ENTRIES[name]


def __getattr__(name: str) -> Any:
    raise AttributeError(f"no generator {name!r} in the catalog{did_you_mean(name, _ENTRIES)}")
