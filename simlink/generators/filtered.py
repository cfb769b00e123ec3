"""where(): the records of a generator that match."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.block import Block, Column, Schema, as_list
from simlink.errors import ConfigError, StateError, did_you_mean
from simlink.generators.evolution import Evolving
from simlink.generators.field import BLOCK_ROWS
from simlink.generators.generator import Generator
from simlink.generators.source import Chunk, Source, check_range

__all__ = ["Filtered", "where"]

_PATIENCE = 10_000


def where(generator: Generator, field: str, matches: Any) -> Filtered:
    """The records of a generator in which a field matches, in their order.

    Which row of the generator the n-th of them is cannot be known without counting. So this is a source, to be sent,
    verified and iterated over, and not a generator: it is not ``seekable``, it has no slices, no blocks by number and
    no shards. Rows far ahead are reached by reading from the beginning. Where one needs those, draw what is wanted
    instead: ``fields.choice`` of the wanted values, or ``mix`` of generators.

    Args:
        generator: of records.
        field: the name of one of its fields.
        matches: a value, several of them in a list, tuple or set, or a pure function value → bool.

    Raises:
        ConfigError: not a generator of records, or it has no such field.
        StateError: (when read) nothing matches in 40,960,000 rows.
    """
    return Filtered(generator, field, matches)


class Filtered(Source):
    """What `where` gives: a source that begins anew on every pass.

    Attributes:
        generator, field, matches: as given to `where`.
    """

    waits = False

    def __init__(self, generator: Generator, field: str, matches: Any, length: int | None = None) -> None:
        if not isinstance(generator, Generator):
            raise ConfigError(f"where: chooses from a generator's records, not from {type(generator).__name__}")
        if isinstance(generator, Evolving):
            raise ConfigError(f"where: {generator.name} has several schemas: choose from one")
        if field not in generator.schema.fields:
            raise ConfigError(
                f"where: {generator.name} has no field {field!r}{did_you_mean(str(field), generator.schema)}"
            )
        self.generator, self.field, self.matches = generator, field, matches
        self.name, self.seed = generator.name, generator.seed
        self.length = None
        self._most = length

    @property
    def schema(self) -> Schema:
        """The fields of the generator."""
        return self.generator.schema

    def take(self, n: int) -> Filtered:
        """The first ``n`` records that match, or all of them if there are fewer.

        Raises:
            ConfigError: ``n`` is not an integer from 0 up.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ConfigError(f"take: expected a number of records from 0 up, not {n!r}")
        return Filtered(self.generator, self.field, self.matches, n if self._most is None else min(n, self._most))

    def shard(self, i: int, n: int) -> Source:
        raise ConfigError(
            f"where: which records of {self.name} match is not known without counting: it cannot be divided"
        )

    def with_seed(self, seed: int | None) -> Filtered:
        """The same of the generator with another seed."""
        return Filtered(self.generator.with_seed(seed), self.field, self.matches, self._most)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for chunk in self.chunks():
            yield from chunk.rows()

    def chunks(self, start: int = 0, stop: int | None = None, size_hint: int = BLOCK_ROWS) -> Iterator[Block]:
        size = check_range(start, stop, size_hint)
        if self._most is not None:
            stop = self._most if stop is None else min(stop, self._most)
        return self._chunks(start, stop, size)

    def _chunks(self, start: int, stop: int | None, size: int) -> Iterator[Block]:
        for made in self._in_steps(start, stop, size):
            if isinstance(made, Block):
                yield made

    def in_steps(self, stop: int | None = None, size_hint: int = BLOCK_ROWS) -> Iterator[str | Chunk]:
        size = check_range(0, stop, size_hint)
        if self._most is not None:
            stop = self._most if stop is None else min(stop, self._most)
        return self._in_steps(0, stop, size)

    def _in_steps(self, start: int, stop: int | None, size: int) -> Iterator[str | Block]:
        seen, quiet, k = 0, 0, 0
        if stop is not None and start >= stop:
            return
        while self.generator.length is None or k * BLOCK_ROWS < self.generator.length:
            block = yield from self.generator.block_steps(k)
            k += 1
            yield f"{self.name}: where"
            rows = np.flatnonzero(self._tests(block.columns[self.field]))
            quiet = 0 if len(rows) else quiet + 1
            if quiet == _PATIENCE:
                raise StateError(f"where: no {self.field!r} of {self.name} matches in {quiet * BLOCK_ROWS:,} rows")
            low = max(start - seen, 0)
            high = len(rows) if stop is None else min(len(rows), stop - seen)
            for first in range(low, high, size):
                chosen = rows[first : min(first + size, high)]
                columns = {name: column.take(chosen) for name, column in block.columns.items()}
                yield Block(block.schema, columns, seen + first, len(chosen))
            seen += len(rows)
            if stop is not None and seen >= stop:
                return

    def _tests(self, column: Column) -> npt.NDArray[np.bool_]:
        values = as_list(column)
        if callable(self.matches):
            return np.fromiter((bool(self.matches(v)) for v in values), np.bool_, len(values))
        several = isinstance(self.matches, list | tuple | set | frozenset)
        wanted = list(self.matches) if several else [self.matches]
        return np.fromiter((v in wanted for v in values), np.bool_, len(values))
