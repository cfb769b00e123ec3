"""SPEC: what to send, as the command line names it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from simlink.cli.output import say
from simlink.errors import ConfigError, did_you_mean

__all__ = ["load_spec", "with_faults"]


def load_spec(spec: str, seed: int | None, *, on_error: str = "stop") -> Any:
    """The source that SPEC names.

    Args:
        spec: a name of the catalog, ``module:object``, ``replay:FILE``, or ``-`` for NDJSON from standard input.
        seed: for what is drawn from one; None draws a random one.
        on_error: of a file's line that does not parse: "skip" (it is shown on stderr) or "stop".

    Raises:
        ConfigError: there is nothing by that name, or it has no use for a seed.
    """
    if spec == "-" or spec.startswith("replay:"):
        if seed is not None:
            raise ConfigError(f"--seed: {spec} is recorded, not drawn from a seed")
        from simlink.generators.replay import replay

        def shown(line: Any) -> None:
            say(f"line {line.line} does not parse ({line.reason}), skipped: {line.text[:200]}")

        where: Any = sys.stdin.buffer if spec == "-" else spec.removeprefix("replay:")
        if where == "":
            raise ConfigError("replay: names no file, as in replay:access.log")
        kind: Any = "ndjson" if spec == "-" else None
        policy: Any = on_error
        return replay(where, format=kind, on_error=policy, on_bad_line=shown)
    module, colon, name = spec.partition(":")
    if colon:
        return _from_module(spec, module, name, seed)
    from simlink.generators import catalog

    if spec not in catalog.names():
        hint = did_you_mean(spec, catalog.names())
        raise ConfigError(f"no SPEC {spec!r}{hint} (or module:object, replay:FILE, -)")
    return catalog.get(spec)(seed=seed)


def with_faults(found: Any, text: str | None) -> Any:
    """What SPEC names, with the faults of ``--faults``.

    Raises:
        ConfigError: they do not parse, or do not fit.
    """
    if text is None:
        return found
    from simlink.generators.fault_text import parse
    from simlink.generators.faulty import apply

    try:
        return apply(found, *parse(text))
    except ConfigError as error:
        raise ConfigError(f"--faults: {error}") from error


def _from_module(spec: str, module: str, name: str, seed: int | None) -> Any:
    if not module or not name:
        raise ConfigError(f"SPEC {spec!r}: expected module:object, as in shop.records:orders")
    # As `python -m` does: what stands in the current folder can be named.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
            raise ConfigError(f"SPEC {spec!r}: there is no module {error.name!r}") from error
        raise ConfigError(f"SPEC {spec!r}: {module} cannot be imported: {error}") from error
    except Exception as error:
        raise ConfigError(f"SPEC {spec!r}: {module} cannot be imported: {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"SPEC {spec!r}: no {part!r} there{did_you_mean(part, dir(found))}")
        found = getattr(found, part)
    return _seeded(spec, found, seed)


def _seeded(spec: str, found: Any, seed: int | None) -> Any:
    from simlink.generators.faulty import FaultySource
    from simlink.generators.generator import Generator

    if inspect.isfunction(found):
        takes_seed = "seed" in inspect.signature(found).parameters
        if seed is not None and not takes_seed:
            raise ConfigError(f"--seed: {spec} is a function that takes no seed")
        made = _call(spec, found, {"seed": seed} if takes_seed else {})
        # A function that gives an iterator is called anew for every pass; one that gives a generator was a recipe.
        return (
            made
            if isinstance(made, Generator | FaultySource)
            else (lambda: _call(spec, found, {"seed": seed} if takes_seed else {}))
        )
    if seed is None:
        return found
    if isinstance(found, Generator | FaultySource):
        return found.with_seed(seed)
    raise ConfigError(f"--seed: {spec} is not drawn from a seed")


def _call(spec: str, function: Callable[..., Any], options: dict[str, Any]) -> Any:
    try:
        return function(**options)
    except TypeError as error:
        raise ConfigError(f"SPEC {spec!r} cannot be called without arguments: {error}") from error
