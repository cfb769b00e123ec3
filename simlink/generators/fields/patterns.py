"""Text that matches a regular expression."""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from simlink.block import Column, FieldType, Kind
from simlink.errors import ConfigError
from simlink.generators.field import Bound, Context, Field, Scope, object_array
from simlink.generators.fields.draws import scaled

__all__ = ["matching", "widths"]

_MORE = 8
"""What has no upper limit (``*``, ``+``, ``{3,}``) comes at most this often beyond its lower one."""
_LONGEST = 1_000
_PRINTABLE = "".join(map(chr, range(32, 127)))
_CATEGORIES = {
    "CATEGORY_DIGIT": "0123456789",
    "CATEGORY_WORD": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz",
    "CATEGORY_SPACE": " ",
}

_UNREAD = (
    "this Python does not show how it reads a regular expression, as CPython does (re._parser): give texts another "
    "way, as fields.text('??-####') or fields.choice([…])"
)
_STRANGE = {
    "ASSERT": "a look-ahead or look-behind",
    "ASSERT_NOT": "a look-ahead or look-behind",
    "AT": "an anchor in the middle",
    "GROUPREF": "a back-reference",
    "GROUPREF_EXISTS": "a conditional group",
}


def matching(pattern: str) -> Field:
    r"""Text that matches a regular expression as a whole: ``matching(r"[A-Z]{2}-\d{4}(-dev|-prod)?")``.

    It is written with printable ASCII, besides the characters that stand in the pattern. At each place every character,
    at each ``|`` every branch, and of ``{m,n}`` every number is equally likely; ``*``, ``+`` and ``{m,}`` come at most
    eight times beyond their lower limit. Identical everywhere.

    Raises:
        ConfigError: it does not parse, its text may be longer than 1,000 characters, or it has what a text cannot be
            made from: look-arounds, back-references, word boundaries, flags, anchors in the middle. On a Python that
            is not CPython, perhaps any pattern.
    """
    return _Matching(pattern)


def widths(pattern: str) -> tuple[int, int]:
    """The length of the shortest and of the longest text that `matching` makes.

    Raises:
        ConfigError: as `matching`.
    """
    part = _parse(pattern)
    return part.shortest, part.longest


class _Part(ABC):
    """A piece of a pattern."""

    shortest = 0
    longest = 0

    @abstractmethod
    def make(self, context: Context, path: str) -> Any:
        """One text a value, as an array of objects."""


class _Letters(_Part):
    def __init__(self, letters: str) -> None:
        self.letters = np.array(list(letters), dtype=object)
        self.shortest = self.longest = 1

    def make(self, context: Context, path: str) -> Any:
        if len(self.letters) == 1:
            return self.letters[np.zeros(context.length, np.intp)]
        return self.letters[scaled(context.words(path), len(self.letters)).view(np.int64)]


class _Row(_Part):
    def __init__(self, parts: Sequence[_Part]) -> None:
        self.parts = parts
        self.shortest = sum(part.shortest for part in parts)
        self.longest = sum(part.longest for part in parts)

    def make(self, context: Context, path: str) -> Any:
        out = object_array([""] * context.length)
        for i, part in enumerate(self.parts):
            out = out + part.make(context, f"{path}.{i}")
        return out


class _Branches(_Part):
    def __init__(self, parts: Sequence[_Part]) -> None:
        self.parts = parts
        self.shortest = min(part.shortest for part in parts)
        self.longest = max(part.longest for part in parts)

    def make(self, context: Context, path: str) -> Any:
        which = scaled(context.words(f"{path}|"), len(self.parts)).view(np.int64)
        made = [part.make(context, f"{path}|{i}") for i, part in enumerate(self.parts)]
        return np.stack(made)[which, np.arange(context.length)]


class _Repeated(_Part):
    def __init__(self, part: _Part, low: int, high: int) -> None:
        self.part, self.low, self.high = part, low, high
        self.shortest, self.longest = low * part.shortest, high * part.longest

    def make(self, context: Context, path: str) -> Any:
        times = scaled(context.words(f"{path}*"), self.high - self.low + 1).view(np.int64) + self.low
        out = object_array([""] * context.length)
        nothing = out
        for i in range(self.high):
            more = self.part.make(context, f"{path}*{i}")
            out = out + (more if i < self.low else np.where(times > i, more, nothing))
        return out


def _parse(pattern: str) -> _Part:
    if not isinstance(pattern, str):
        raise ConfigError(f"matching: a pattern is text, not {pattern!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated syntax is the pattern's own affair
            # The parser of the standard library's own compiler; `re` has no public way to its tree. CPython has had it
            # under this name since 3.11; elsewhere it may be missing, or its tree another one.
            parser: Any = getattr(re, "_parser", None)
            if parser is None:
                raise ConfigError(f"matching: {_UNREAD}")
            tree = parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"matching: {pattern!r} is not a regular expression: {error}") from error
    try:
        return _read(tree, pattern)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"matching: {pattern!r}: {_UNREAD}") from error


def _read(tree: Any, pattern: str) -> _Part:
    if tree.state.flags & ~re.UNICODE.value:
        raise ConfigError(f"matching: {pattern!r}: flags are not supported")
    tokens = list(tree)
    if tokens and _is(tokens[0], "AT_BEGINNING", "AT_BEGINNING_STRING"):
        tokens = tokens[1:]
    if tokens and _is(tokens[-1], "AT_END", "AT_END_STRING"):
        tokens = tokens[:-1]
    part = _row(tokens, pattern)
    if part.longest > _LONGEST:
        raise ConfigError(
            f"matching: {pattern!r} may be {part.longest:,} characters long, at most {_LONGEST:,} are made"
        )
    return part


def _is(token: tuple[Any, Any], *names: str) -> bool:
    return str(token[0]) == "AT" and str(token[1]) in names


def _row(tokens: Sequence[tuple[Any, Any]], pattern: str) -> _Part:
    parts = [_part(str(op), argument, pattern) for op, argument in tokens]
    return parts[0] if len(parts) == 1 else _Row(parts)


def _part(op: str, argument: Any, pattern: str) -> _Part:
    if op == "LITERAL":
        return _Letters(chr(argument))
    if op == "NOT_LITERAL":
        return _Letters(_PRINTABLE.replace(chr(argument), ""))
    if op == "ANY":
        return _Letters(_PRINTABLE)
    if op == "IN":
        return _Letters(_members(argument, pattern))
    if op == "BRANCH":
        return _Branches([_row(list(branch), pattern) for branch in argument[1]])
    if op == "SUBPATTERN" and not argument[1] and not argument[2]:
        return _row(list(argument[3]), pattern)
    if op in ("MAX_REPEAT", "MIN_REPEAT"):
        low, high = int(argument[0]), int(argument[1])
        # The parser's word for no limit is a number that nobody writes.
        return _Repeated(_row(list(argument[2]), pattern), low, low + _MORE if high >= 2**31 else high)
    what = _STRANGE.get(op, op.lower())
    raise ConfigError(f"matching: {pattern!r}: {what} is not supported")


def _members(items: Sequence[tuple[Any, Any]], pattern: str) -> str:
    r"""The characters of a class as ``[a-z\d]``; of a negated one those of printable ASCII."""
    negated = bool(items) and str(items[0][0]) == "NEGATE"
    chosen: dict[str, None] = {}
    for op, argument in items[negated:]:
        name = str(op)
        if name == "LITERAL":
            chosen[chr(argument)] = None
        elif name == "RANGE":
            if argument[1] - argument[0] > 4096:
                raise ConfigError(f"matching: {pattern!r}: a range of more than 4,096 characters is not supported")
            chosen.update(dict.fromkeys(map(chr, range(argument[0], argument[1] + 1))))
        else:
            category = str(argument)
            letters = _CATEGORIES.get(category.replace("_NOT_", "_"), "")
            whole = [c for c in _PRINTABLE if c not in letters] if "_NOT_" in category else letters
            chosen.update(dict.fromkeys(whole))
    letters = "".join(c for c in _PRINTABLE if c not in chosen) if negated else "".join(chosen)
    if not letters:
        raise ConfigError(f"matching: {pattern!r}: a class of characters that has no printable one")
    return letters


class _Matching(Field):
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.part = _parse(pattern)

    def bind(self, scope: Scope) -> Bound:
        def make(context: Context) -> Column:
            made: Column = self.part.make(context, scope.path)
            return made

        return Bound(FieldType(Kind.STR), make)
