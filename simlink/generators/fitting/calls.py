"""Calls of field constructors as data: they can be made, and printed as Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from keyword import iskeyword
from typing import Any

__all__ = ["Call", "is_keyword", "render"]

_WIDTH = 100


@dataclass(frozen=True)
class Call:
    """``module.name(*arguments, **options)`` of `simlink.fields` or `simlink.arrivals`, with plain values and calls."""

    name: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> Any:
        """What the call gives."""
        module, _, function = self.name.rpartition(".")
        make = getattr(import_module(f"simlink.{module.removeprefix('simlink.')}"), function)
        return make(*map(_built, self.arguments), **{name: _built(value) for name, value in self.options.items()})


def _built(value: Any) -> Any:
    if isinstance(value, Call):
        return value.build()
    if isinstance(value, Mapping):
        return {k: _built(v) for k, v in value.items()}
    return value


def is_keyword(name: str) -> bool:
    """Whether an argument can have that name in Python."""
    return name.isidentifier() and not iskeyword(name)


def render(value: Any, indent: int = 0) -> str:
    """The value as Python source, its lines after the first indented by so many columns."""
    if isinstance(value, Call):
        plain = all(map(is_keyword, value.options))
        parts = [render(a, indent + 4) for a in value.arguments]
        named = [(name, render(v, indent + 4)) for name, v in value.options.items()]
        parts += [f"{name}={text}" for name, text in named] if plain else []
        if not plain:
            inner = render(dict(value.options), indent + 4)
            parts.append(f"**{inner}")
        return _laid_out(f"{value.name}(", parts, ")", indent)
    if isinstance(value, Mapping):
        return _laid_out("{", [f"{k!r}: {render(v, indent + 4)}" for k, v in value.items()], "}", indent, filled=True)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _laid_out("[", [render(v, indent + 4) for v in value], "]", indent, filled=True)
    return repr(value)


def _laid_out(opening: str, parts: Sequence[str], closing: str, indent: int, *, filled: bool = False) -> str:
    line = f"{opening}{', '.join(parts)}{closing}"
    if len(line) + indent <= _WIDTH and "\n" not in line:
        return line
    pad = " " * (indent + 4)
    if filled and not any("\n" in part for part in parts):
        body = _filled(parts, pad)
    else:
        body = "".join(f"{pad}{part},\n" for part in parts)
    return f"{opening}\n{body}{' ' * indent}{closing}"


def _filled(parts: Sequence[str], pad: str) -> str:
    """As many as go into a line: texts may hold spaces, so that no text wrapper can do it."""
    lines: list[str] = []
    line = pad
    for part in parts:
        if len(line) > len(pad) and len(line) + len(part) + 2 > _WIDTH:
            lines.append(line.rstrip())
            line = pad
        line += f"{part}, "
    return "\n".join([*lines, line.rstrip()]) + "\n"
