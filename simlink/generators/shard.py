"""One worker's part of a generator."""

from __future__ import annotations

from simlink.block import Block, Schema
from simlink.errors import ConfigError
from simlink.generators.generator import BLOCK_ROWS, Generator
from simlink.generators.steps import Steps

__all__ = ["Shard"]


class Shard(Generator):
    """The blocks k ≡ i (mod n) of another generator.

    Its own rows are counted from 0 without gaps; the ``start`` of its blocks is the row in the whole.
    """

    def __init__(self, whole: Generator, i: int, n: int) -> None:
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in (i, n)) or not 0 <= i < n:
            raise ConfigError(f"shard: expected 0 <= i < n, not i={i!r}, n={n!r}")
        super().__init__(whole.name, whole.seed)
        self.whole, self.i, self.n = whole, i, n
        if whole.length is not None:
            full, rest = divmod(whole.length, BLOCK_ROWS)
            mine = len(range(i, full, n)) * BLOCK_ROWS
            self.length = mine + (rest if full % n == i else 0)

    @property
    def schema(self) -> Schema:
        return self.whole.schema

    def make_block(self, k: int) -> Block:
        return self.whole.make_block(self.i + k * self.n)

    def make_steps(self, k: int) -> Steps[Block]:
        return (yield from self.whole.make_steps(self.i + k * self.n))

    def with_seed(self, seed: int | None) -> Shard:
        other = Shard(self.whole.with_seed(seed), self.i, self.n)
        other.length = self.length
        return other
