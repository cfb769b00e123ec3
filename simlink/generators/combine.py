"""Generators made of generators: mixed by an exact ratio, one after another, again and again.

Of all of them any block can be made alone, because the row of a part is a function of the row of the whole.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Self

import numpy as np

from simlink.block import Block, FieldType, Kind, Lines, Schema
from simlink.errors import ConfigError
from simlink.generators.evolution import Evolving
from simlink.generators.field import BLOCK_ROWS
from simlink.generators.generator import Generator
from simlink.generators.joining import Joiner, block_of, union
from simlink.generators.steps import Steps, at_once

__all__ = ["concat", "cycle", "mix"]

_PERIOD = 65_536


class _Combined(Generator):
    """A generator made of others.

    Attributes:
        parts: the others.
        seed: of the first one; `with_seed` gives all of them the same.
    """

    def __init__(self, what: str, name: str, parts: list[Generator]) -> None:
        if not parts:
            raise ConfigError(f"{what}: there is nothing to put together")
        for part in parts:
            if not isinstance(part, Generator):
                raise ConfigError(f"{what}: puts generators together, not {type(part).__name__}: {part!r}")
            if isinstance(part, Evolving):
                raise ConfigError(f"{what}: {part.name} has several schemas; they are not put together")
            kinds = list(part.schema.fields.values())
            if kinds == [FieldType(Kind.STR)] and isinstance(part.block(0), Lines):
                raise ConfigError(f"{what}: {part.name} makes lines of text: put the records together instead")
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{what}: the name is text, not {name!r}")
        super().__init__(name, parts[0].seed)
        self.parts = parts
        self._schema = union(name, [part.schema for part in parts])
        self._joiner = Joiner()

    @property
    def schema(self) -> Schema:
        return self._schema

    def with_seed(self, seed: int | None) -> Self:
        other = super().with_seed(seed)
        other.parts = [part.with_seed(other.seed) for part in self.parts]
        return other

    def make_block(self, k: int) -> Block:
        return at_once(self.make_steps(k))

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "_joiner"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._joiner = Joiner()


def mix(*shares: tuple[int, Generator], name: str = "mix") -> Generator:
    """Records of several generators by an exact ratio: ``mix((3, clicks), (1, orders))`` has in every four rows three
    clicks and one order, spread as evenly as can be, and each generator's own records in their order.

    Its fields are those of all of them; a record has None where its own generator has no such field. It ends where one
    of them does. Any block can be made alone. ``with_seed`` gives all of them the same seed.

    Args:
        shares: how many of each, from 1, and the generator; 65,536 together at most.
        name: of the records.

    Raises:
        ConfigError: no shares, one that is not a whole number from 1, or something that is not a generator of records.
    """
    for share in shares:
        if not isinstance(share, tuple) or len(share) != 2:
            raise ConfigError(f"mix: a share is (how many, generator), not {share!r}")
        if isinstance(share[0], bool) or not isinstance(share[0], int) or share[0] < 1:
            raise ConfigError(f"mix: a ratio is exact: how many is a whole number from 1, not {share[0]!r}")
    if sum(many for many, _ in shares) > _PERIOD:
        raise ConfigError(f"mix: the shares are more than {_PERIOD:,} together; use smaller numbers")
    return _Mix(name, [part for _, part in shares], [many for many, _ in shares])


class _Mix(_Combined):
    def __init__(self, name: str, parts: list[Generator], many: list[int]) -> None:
        super().__init__("mix", name, parts)
        self.many = many
        period = sum(many)
        # Each generator's rows stand at the middles of equal parts of the period.
        places = np.concatenate([(np.arange(m) + 0.5) / m for m in many])
        whose = np.repeat(np.arange(len(many)), many)
        self.pattern = whose[np.lexsort((whose, places))]
        self.before = np.zeros((len(many), period + 1), np.int64)
        for i in range(len(many)):
            np.cumsum(self.pattern == i, out=self.before[i, 1:])
        lengths = [self._length(i, part.length) for i, part in enumerate(parts) if part.length is not None]
        self.length = min(lengths, default=None)

    def _length(self, i: int, length: int) -> int:
        """The row at which part ``i`` has no more."""
        periods, rest = divmod(length, self.many[i])
        return periods * len(self.pattern) + int(np.searchsorted(self.before[i], rest + 1)) - 1

    def _count(self, i: int, row: int) -> int:
        """How many rows of part ``i`` come before this row."""
        periods, rest = divmod(row, len(self.pattern))
        return periods * self.many[i] + int(self.before[i, rest])

    def make_steps(self, k: int) -> Steps[Block]:
        first = k * BLOCK_ROWS
        last = first + BLOCK_ROWS if self.length is None else min(first + BLOCK_ROWS, self.length)
        whose = self.pattern[
            np.arange(first % len(self.pattern), first % len(self.pattern) + last - first) % len(self.pattern)
        ]
        parts = []
        for i, part in enumerate(self.parts):
            begin, end = self._count(i, first), self._count(i, last)
            made = (yield from self._joiner.rows(part, begin, end - begin)) if end > begin else {}
            parts.append((made, end - begin))
        yield f"{self.name}: together"
        columns = self._joiner.together(self._schema, parts)
        where = np.empty(len(whose), np.intp)
        where[np.argsort(whose, kind="stable")] = np.arange(len(whose))
        return block_of(self._schema, {n: c.take(where) for n, c in columns.items()}, first, len(whose))


def concat(*parts: Generator, name: str = "concat") -> Generator:
    """All records of the first generator, then all of the next, and so on. Only the last one may have no end: ``take``
    gives the others one.

    Its fields are those of all of them; a record has None where its own generator has no such field. Any block can be
    made alone. ``with_seed`` gives all of them the same seed.

    Raises:
        ConfigError: no generators, something that is not one of records, or one without an end before the last.
    """
    return _Concat("concat", name, list(parts))


class _Concat(_Combined):
    def __init__(self, what: str, name: str, parts: list[Generator]) -> None:
        super().__init__(what, name, parts)
        ends = []
        for part in parts[:-1]:
            if part.length is None:
                raise ConfigError(f"concat: {part.name} has no end, and nothing comes after it; take(n) gives it one")
            ends.append(part.length)
        self.starts = [0, *accumulate(ends)]
        last = parts[-1].length
        self.length = None if last is None else self.starts[-1] + last

    def make_steps(self, k: int) -> Steps[Block]:
        first = k * BLOCK_ROWS
        last = first + BLOCK_ROWS if self.length is None else min(first + BLOCK_ROWS, self.length)
        parts = []
        for start, part in zip(self.starts, self.parts, strict=True):
            end = last if part.length is None else min(last, start + part.length)
            begin = max(first, start)
            if begin < end:
                made = yield from self._joiner.rows(part, begin - start, end - begin)
                parts.append((made, end - begin))
        yield f"{self.name}: together"
        return block_of(self._schema, self._joiner.together(self._schema, parts), first, max(last - first, 0))


def cycle(generator: Generator) -> Generator:
    """The records of a generator with an end (``take``), again and again without one. Any block can be made alone.

    Raises:
        ConfigError: it has no end, no records, or is not a generator of records.
    """
    return _Cycle(generator)


class _Cycle(_Combined):
    def __init__(self, generator: Generator) -> None:
        super().__init__("cycle", getattr(generator, "name", "cycle"), [generator])
        if not generator.length:
            what = "no end: take(n) gives it one" if generator.length is None else "no records"
            raise ConfigError(f"cycle: {generator.name} has {what}")
        self.period = generator.length

    def make_steps(self, k: int) -> Steps[Block]:
        first, (part,) = k * BLOCK_ROWS, self.parts
        if self.period <= BLOCK_ROWS:
            whole = yield from part.block_steps(0)
            yield f"{self.name}: together"
            rows = (first + np.arange(BLOCK_ROWS)) % self.period
            columns = {name: column.take(rows) for name, column in whole.columns.items()}
            return block_of(self._schema, columns, first, BLOCK_ROWS)
        begin = first % self.period
        many = min(BLOCK_ROWS, self.period - begin)
        parts = [((yield from self._joiner.rows(part, begin, many)), many)]
        if many < BLOCK_ROWS:
            parts.append(((yield from self._joiner.rows(part, 0, BLOCK_ROWS - many)), BLOCK_ROWS - many))
        yield f"{self.name}: together"
        return block_of(self._schema, self._joiner.together(self._schema, parts), first, BLOCK_ROWS)
