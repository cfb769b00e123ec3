"""SPEC: what to send, as the command line names it."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any

from simlink.cli.output import say
from simlink.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from simlink.generators.generator import Generator

__all__ = ["load_generator", "load_spec", "record_of", "with_faults"]


def load_spec(spec: str, seed: int | None, *, on_error: str = "stop", again: bool = False) -> Any:
    """The source that SPEC names.

    Args:
        spec: a name of the catalog, also with options as ``clickstream(users=100)``, ``module:object``,
            ``replay:FILE``, or ``-`` for NDJSON from standard input.
        seed: for what is drawn from one; None draws a random one.
        on_error: of a file's line that does not parse: "skip" (it is shown on stderr) or "stop".
        again: it is to make what somebody else has made, so a random seed will not do.

    Raises:
        ConfigError: there is nothing by that name, or it has no use for a seed, or needs one.
    """
    if spec == "-" or spec.startswith("replay:"):
        if seed is not None:
            raise ConfigError(f"--seed: {spec} is recorded, not drawn from a seed")
        from simlink.generators.replay.replay import replay

        def shown(line: Any) -> None:
            say(f"line {line.line} does not parse ({line.reason}), skipped: {line.text[:200]}")

        if spec == "-" and sys.stdin is None:
            raise ConfigError("SPEC -: standard input is closed")
        where: Any = sys.stdin.buffer if spec == "-" else spec.removeprefix("replay:")
        if where == "":
            raise ConfigError("replay: names no file, as in replay:access.log")
        kind: Any = "ndjson" if spec == "-" else None
        policy: Any = on_error
        return replay(where, format=kind, on_error=policy, on_bad_line=shown)
    module, colon, name = spec.partition(":")
    if colon and "(" not in module:
        return _from_module(spec, module, name, seed)
    return _from_catalog(spec, seed, again=again)


def load_generator(spec: str, seed: int | None) -> Generator:
    """The generator that SPEC names.

    Raises:
        ConfigError: as `load_spec`, or it is something else.
    """
    from simlink.generators.generator import Generator

    found = load_spec(spec, seed)
    if not isinstance(found, Generator):
        raise ConfigError(f"SPEC {spec!r}: needs a generator, which has fields; this is recorded or made one by one")
    return found


def record_of(found: Any) -> Any:
    """What has the fields of the records that SPEC names, for a serializer that derives a message from them: the
    generator, also below faults; anything else as it is."""
    from simlink.generators.faults.faulty import FaultySource
    from simlink.generators.source import GeneratorSource

    if isinstance(found, FaultySource):
        found = found.base
    return found.generator if isinstance(found, GeneratorSource) else found


def _from_catalog(spec: str, seed: int | None, *, again: bool) -> Any:
    """``clickstream``, or ``clickstream(users=100, format="iso")``: only names and plain values can be written."""
    from simlink.generators import catalog

    name, bracket, _ = spec.partition("(")
    name = name.strip()
    if name not in catalog.names():
        hint = did_you_mean(name, catalog.names())
        raise ConfigError(f"no SPEC {name!r}{hint} (or module:object, replay:FILE, -)")
    make = catalog.get(name)
    options: dict[str, Any] = {}
    if bracket:
        known = inspect.signature(make).parameters
        for option, value in _options(spec).items():
            if option not in known:
                raise ConfigError(f"SPEC {spec!r}: {name} has no option {option!r}{did_you_mean(option, known)}")
            options[option] = value
    if seed is not None and "seed" in options:
        raise ConfigError(f"SPEC {spec!r} has a seed, and --seed is another one: give it once")
    if again and seed is None and "seed" not in options:
        raise ConfigError(f"SPEC {spec!r} is made again from its seed: give --seed, as the sender reported it")
    return make(**{"seed": seed, **options})


def _options(spec: str) -> dict[str, Any]:
    expected = f"SPEC {spec!r}: expected something like 'clickstream(users=100)'"
    try:
        call = ast.parse(spec.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(k.arg is None for k in call.keywords):
            raise ConfigError(f"{expected}: options have names")
        return {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except SyntaxError as error:
        raise ConfigError(f"{expected}: {error.msg} at character {error.offset}") from error
    except (ValueError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{expected}: values are numbers, texts, lists and the like") from error


def with_faults(found: Any, text: str | None) -> Any:
    """What SPEC names, with the faults of ``--faults``.

    Raises:
        ConfigError: they do not parse, or do not fit.
    """
    if text is None:
        return found
    from simlink.generators.faults.faulty import apply
    from simlink.generators.faults.text import parse

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
    from simlink.generators.faults.faulty import FaultySource
    from simlink.generators.generator import Generator

    if inspect.isfunction(found):
        parameter = inspect.signature(found).parameters.get("seed")
        if seed is not None and parameter is None:
            raise ConfigError(f"--seed: {spec} is a function that takes no seed")
        # Its own default is as good as any other.
        default = parameter is None or (seed is None and parameter.default is not parameter.empty)
        options = {} if default else {"seed": seed}
        made = _call(spec, found, options)
        # A function that gives a generator was a recipe; one that gives an iterator is called anew for every pass.
        if isinstance(made, Generator | FaultySource):
            return made

        @wraps(found)  # reports have its name
        def again() -> Any:
            return _call(spec, found, options)

        return again
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
