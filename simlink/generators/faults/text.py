"""Faults as text and as plain data: on the command line, and in the presets of the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from simlink.errors import ConfigError, did_you_mean
from simlink.generators.expressions import evaluate
from simlink.generators.faults import fault as faults
from simlink.generators.faults import fields as fault_fields
from simlink.generators.faults.fault import Fault

__all__ = ["named", "parse"]

_FUNCTIONS = {
    **{name: getattr(faults, name) for name in ("corrupt", "drop", "duplicate", "late", "out_of_order", "truncate")},
    **{
        name: getattr(fault_fields, name)
        for name in ("clock_skew", "drift", "flap", "gap", "hot_key", "spike", "stuck", "wrong_type")
    },
}


def parse(text: str) -> tuple[Fault, ...]:
    """The faults of an expression: one, or several with commas, as ``drop(0.001), late(0.01, by=30)``.

    Raises:
        ConfigError: it is no such expression; shows where.
    """
    found = evaluate(text, _FUNCTIONS, frozenset(), "fault", "drop(0.001), late(0.01, by=30)")
    made = found if isinstance(found, tuple) else (found,)
    if not made or not all(isinstance(fault, Fault) for fault in made):
        raise ConfigError(f"{text!r}: expected faults, as 'drop(0.001), late(0.01, by=30)'")
    return made


def named(faults: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[Fault, ...]:
    """Faults from names and arguments, as the presets of the catalog give them: ``[("drop", {"p": 0.01})]``.

    Raises:
        ConfigError: there is no such fault, or it does not take these arguments.
    """
    made = []
    for name, arguments in faults:
        function = _FUNCTIONS.get(name)
        if function is None:
            raise ConfigError(f"no fault {name!r}{did_you_mean(name, _FUNCTIONS)}")
        try:
            made.append(function(**arguments))
        except TypeError as error:
            raise ConfigError(f"{name}: {error}") from error
    return tuple(made)
