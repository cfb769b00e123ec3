"""What a stream of numbers comes to, digit by digit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.errors import ConfigError

__all__ = ["Tally"]


@dataclass
class Tally:
    """Counts and checksums of integers by their last digit. Two tallies are equal if of each digit the same numbers
    came in the same order, however the digits are interleaved; then ten ordered queues have done right.

    ``add`` takes numbers, or records with a ``number``, as they come; memory does not grow.
    """

    counts: list[int] = field(default_factory=lambda: [0] * 10)
    sums: list[int] = field(default_factory=lambda: [0] * 10)
    _states: list[Any] = field(default_factory=lambda: [hashlib.blake2b(digest_size=8) for _ in range(10)], repr=False)

    def add(self, values: Iterable[Any]) -> Tally:
        """Count these, in this order, and return the tally.

        Raises:
            ConfigError: one is neither an integer from 0 to 2**63 - 1 nor a record with such a ``number``.
        """
        numbers = [value["number"] if isinstance(value, Mapping) and "number" in value else value for value in values]
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**63:
                raise ConfigError(f"a tally counts integers from 0 to 2**63 - 1, not {number!r}")
        return self.add_array(np.array(numbers, np.int64))

    def add_array(self, numbers: npt.NDArray[np.int64]) -> Tally:
        """The same for an array of int64."""
        digits = numbers % 10
        for digit in range(10):
            own = numbers[digits == digit]
            if len(own):
                self.counts[digit] += len(own)
                self.sums[digit] += int((own >> 32).sum()) * 2**32 + int((own & 0xFFFFFFFF).sum())
                self._states[digit].update(own.astype("<i8").tobytes())
        return self

    @property
    def total(self) -> int:
        """How many numbers."""
        return sum(self.counts)

    @property
    def checksums(self) -> list[str]:
        """Of each digit, blake2b-64 in hexadecimal over its numbers in order, eight bytes each, the lowest first."""
        return [state.hexdigest() for state in self._states]

    def differences(self, other: Tally) -> dict[int, str]:
        """Digit → what is wrong with the other tally there; empty if they are equal."""
        out = {}
        for digit, (mine, theirs) in enumerate(zip(self.checksums, other.checksums, strict=True)):
            if self.counts[digit] != other.counts[digit]:
                out[digit] = f"{other.counts[digit]} numbers instead of {self.counts[digit]}"
            elif self.sums[digit] != other.sums[digit]:
                out[digit] = "other numbers"
            elif mine != theirs:
                out[digit] = "another order"
        return out

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and self.counts == other.counts and self.checksums == other.checksums

    __hash__ = None  # type: ignore[assignment]  # it changes
