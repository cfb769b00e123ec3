"""numbers: integers whose last digit says where they belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from simlink.block import Column, FieldType, Kind
from simlink.errors import ConfigError
from simlink.generators.catalog._tally import Tally
from simlink.generators.field import Bound, Context, Field, Scope
from simlink.generators.fields.draws import cumulative, scaled, sequence
from simlink.generators.record import Record
from simlink.generators.seeding import Floats

__all__ = ["FAULTS", "Numbers", "numbers"]

FAULTS: Final[Mapping[str, list[tuple[str, dict[str, Any]]]]] = MappingProxyType(
    {
        "lossy router": [("drop", {"p": 0.001}), ("duplicate", {"p": 0.001})],
        "two paths": [("out_of_order", {"p": 0.05, "window": 128})],
        "text for a number": [("wrong_type", {"p": 0.001, "field": "number"})],
        "bad line": [("corrupt", {"p": 0.001}), ("truncate", {"p": 0.001})],
        "one number": [("hot_key", {"p": 0.3, "field": "number", "value": 7})],
    }
)
"""Faults to test a router of numbers with: name → (fault, arguments), in the order in which they apply."""

_HIGHEST: Final = 10**18


def numbers(
    seed: int | None = None,
    *,
    weights: Sequence[float] | Mapping[int, float] | None = None,
    high: int = 1_000_000_000,
) -> Numbers:
    """Integers with chosen weights of the last digit, to be routed by it into ten ordered queues.

    ====== ==============================================
    id     0, 1, 2, …: the row
    number 0 … high - 1; its last digit drawn by weight
    ====== ==============================================

    ``expected(n)`` is what the first ``n`` come to by digit: counts, sums and checksums that depend on the order.

    Args:
        seed: 0 … 2**64 - 1; a random one where none is given.
        weights: of the digits 0 … 9, or a mapping of some of them; relative, as in `fields.choice`. By default even.
        high: a multiple of ten up to 10**18.

    Raises:
        ConfigError: weights that are not ten, negative, not finite or all 0, a digit that is none, or a bad ``high``.
    """
    return Numbers(seed, weights, high)


class Numbers(Record):
    """The generator that `numbers` makes.

    Attributes:
        weights: the share of each digit.
    """

    def __init__(
        self, seed: int | None, weights: Sequence[float] | Mapping[int, float] | None = None, high: int = 10**9
    ) -> None:
        if isinstance(high, bool) or not isinstance(high, int) or not 10 <= high <= _HIGHEST or high % 10:
            raise ConfigError(f"numbers: high is a multiple of ten up to 10**18, not {high!r}")
        if weights is None:
            weights = [1.0] * 10
        if isinstance(weights, Mapping):
            strange = [d for d in weights if isinstance(d, bool) or not isinstance(d, int) or not 0 <= d <= 9]
            if strange:
                raise ConfigError(f"numbers: weights are of the digits 0 to 9, not of {strange[0]!r}")
            weights = [weights.get(digit, 0.0) for digit in range(10)]
        if isinstance(weights, str | bytes) or not hasattr(weights, "__len__") or len(weights) != 10:
            raise ConfigError(f"numbers: weights are ten, of the digits 0 to 9, not {weights!r}")
        limits = cumulative("numbers", weights)
        self.weights = np.diff(limits, prepend=0.0).tolist()
        super().__init__("numbers", {"id": sequence(), "number": _Number(limits, high)}, seed=seed)

    def expected(self, n: int | None = None) -> Tally:
        """What the first ``n`` numbers come to (all of them for None, where there is an end), made anew block by block.

        Raises:
            ConfigError: None for a generator without an end, or ``n`` is negative or beyond the end, or `select`
                left the number out.
        """
        if n is None:
            n = self.length
        if isinstance(n, bool) or not isinstance(n, int) or n < 0 or (self.length is not None and n > self.length):
            raise ConfigError(f"expected: how many of the numbers there are, not {n!r}")
        tally = Tally()
        for block in self.select("number").blocks(0, n):
            tally.add_array(np.asarray(block.columns["number"]))
        return tally

    def tally(self) -> Tally:
        """An empty tally, to add to what was received."""
        return Tally()


class _Number(Field):
    def __init__(self, limits: Floats, high: int) -> None:
        self.limits, self.tens = limits, high // 10

    def bind(self, scope: Scope) -> Bound:
        def make(context: Context) -> Column:
            digit = np.searchsorted(self.limits, context.uniform(f"{scope.path}#digit"), side="right")
            tens = scaled(context.words(scope.path), self.tens).view(np.int64)
            return tens * 10 + digit

        return Bound(FieldType(Kind.INT), make)
