"""The fields of made-up text: UUIDs and patterns."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.block import Coded, Column, FieldType, Kind, Pool
from simlink.errors import ConfigError
from simlink.generators.field import Bound, Context, Field, Scope, object_array
from simlink.generators.fields.draws import scaled

__all__ = ["text", "uuid"]

Letters = npt.NDArray[np.uint32]
"""A matrix of code points: one row a text."""


def to_texts(letters: Letters) -> npt.NDArray[np.object_]:
    """A matrix of code points (none of them 0) → an array of str."""
    width = letters.shape[1]
    return object_array(np.ascontiguousarray(letters).view(f"<U{width}").ravel().tolist())


def codepoints(characters: str) -> Letters:
    """The code points of a text, little-endian as `to_texts` reads them."""
    return np.frombuffer(characters.encode("utf-32-le"), "<u4").astype("<u4")


# Both digits of an octet in one cell of 64 bits: four times as fast to look up as a row of two cells.
_HEX_PAIRS = np.stack([codepoints(f"{octet:02x}") for octet in range(256)]).view("<u8").ravel()


def hex_letters(raw: npt.NDArray[np.uint64]) -> Letters:
    """The 16 hexadecimal digits of each word, most significant first."""
    octets = raw.astype(">u8").view(np.uint8).reshape(-1, 8)
    letters: Letters = _HEX_PAIRS[octets].view("<u4")
    return letters


def hex_texts(raw: npt.NDArray[np.uint64]) -> npt.NDArray[np.object_]:
    """Each word as text of 16 hexadecimal digits."""
    return to_texts(hex_letters(raw))


def uuid() -> Field:
    """A random UUID (version 4, RFC 9562) as text of 36 characters. Identical everywhere."""
    return _Uuid()


# first digit, its place in the text, how many
_UUID_PARTS = ((0, 0, 8), (8, 9, 4), (12, 14, 4), (16, 19, 4), (20, 24, 12))


class _Uuid(Field):
    def bind(self, scope: Scope) -> Bound:
        def make(context: Context) -> Column:
            high, low = context.words(f"{scope.path}#high"), context.words(f"{scope.path}#low")
            high = (high & np.uint64(0xFFFFFFFFFFFF0FFF)) | np.uint64(0x4000)
            low = (low & np.uint64(0x3FFFFFFFFFFFFFFF)) | np.uint64(0x8000000000000000)
            digits = np.concatenate([hex_letters(high), hex_letters(low)], axis=1)
            letters = np.full((context.length, 36), ord("-"), "<u4")
            for first, place, count in _UUID_PARTS:
                letters[:, place : place + count] = digits[:, first : first + count]
            return to_texts(letters)

        return Bound(FieldType(Kind.STR), make)


_SETS = {"#": "0123456789", "?": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "^": "0123456789abcdef"}
_FINITE = 10_000
"""Patterns with at most this many texts become a pool, which serializers encode once."""


def text(pattern: str) -> Field:
    r"""Text after a pattern: ``#`` is a digit 0–9, ``?`` a letter A–Z, ``^`` a hexadecimal digit 0–9 a–f, ``\`` takes
    the next character as it is, and everything else stands for itself. ``text("SKU-####-??")`` → ``"SKU-0482-QX"``.
    All texts are equally likely. Identical everywhere.

    Raises:
        ConfigError: the pattern is empty, ends in a lone backslash, or has a NUL.
    """
    return _Text(pattern)


class _Text(Field):
    def __init__(self, pattern: str) -> None:
        if not isinstance(pattern, str) or not pattern:
            raise ConfigError(f"text: a pattern is text such as 'SKU-####', not {pattern!r}")
        if "\0" in pattern:
            raise ConfigError("text: a pattern cannot hold a NUL")
        self.pattern = pattern
        self.cells: list[str] = []
        """What may stand at each place."""
        escaped = False
        for character in pattern:
            if escaped or (character != "\\" and character not in _SETS):
                self.cells.append(character)
                escaped = False
            elif character == "\\":
                escaped = True
            else:
                self.cells.append(_SETS[character])
        if escaped:
            raise ConfigError(f"text: {pattern!r} ends in a lone backslash")

    def bind(self, scope: Scope) -> Bound:
        count = math.prod(map(len, self.cells))
        make = self._pooled(scope, count) if count <= _FINITE else self._drawn(scope)
        return Bound(FieldType(Kind.STR), make)

    def _pooled(self, scope: Scope, count: int) -> Any:
        values = Pool(["".join(letters) for letters in itertools.product(*self.cells)])

        def make(context: Context) -> Column:
            return Coded(scaled(context.words(f"{scope.path}#0"), count).view(np.int64), values)

        return make

    def _drawn(self, scope: Scope) -> Any:
        template = codepoints("".join(cell[0] for cell in self.cells))
        groups = [(math.prod(len(self.cells[p]) for p in group), self._runs(group)) for group in self._groups()]

        def make(context: Context) -> Column:
            letters = np.tile(template, (context.length, 1))
            for number, (span, runs) in enumerate(groups):
                index = scaled(context.words(f"{scope.path}#{number}"), span)
                for place, table in reversed(runs):
                    rest = index // np.uint64(len(table))
                    chosen = (index - rest * np.uint64(len(table))).view(np.int64)
                    letters[:, place : place + table.shape[1]] = np.take(table, chosen, axis=0)
                    index = rest
            return to_texts(letters)

        return make

    def _runs(self, group: list[int]) -> list[tuple[int, Letters]]:
        """The group in runs of places side by side, each with the table of what may stand there: dividing once a run
        is faster than once a place."""
        runs: list[list[int]] = []
        for place in reversed(group):
            run = runs[-1] if runs else []
            size = math.prod(len(self.cells[p]) for p in [*run, place])
            if run and run[-1] == place + 1 and size <= _FINITE:
                run.append(place)
            else:
                runs.append([place])
        tables = []
        for run in reversed(runs):
            cells = [self.cells[place] for place in reversed(run)]
            letters = [codepoints("".join(characters)) for characters in itertools.product(*cells)]
            tables.append((run[-1], np.stack(letters)))
        return tables

    def _groups(self) -> list[list[int]]:
        """The places to draw, in groups that one word decides with a bias below 2**-16."""
        groups: list[list[int]] = []
        span = 1
        for place, cell in enumerate(self.cells):
            if len(cell) == 1:
                continue
            if not groups or span * len(cell) > 2**48:
                groups.append([])
                span = 1
            groups[-1].append(place)
            span *= len(cell)
        return groups
