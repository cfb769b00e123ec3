"""Work that is done in steps, so that somebody with a deadline can do it a little at a time.

A `Steps` is a Python generator that names each step *before* it does it and returns the result in the end. What a step
costs can so be learnt by its name, and it is begun only when there is time for it. The result is the same however long
the pauses between the steps are, and the same as `at_once` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Generic, TypeAlias, TypeVar

__all__ = ["Kept", "Steps", "at_once"]

T = TypeVar("T")

Steps: TypeAlias = Generator[str, None, T]


def at_once(steps: Steps[T]) -> T:
    """All steps without a pause: the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


class Kept(Generic[T]):
    """The latest few results of a pure function of a number that works in steps.

    It may be shared by threads: they see the results of before or of after; at worst one is made twice.

    Args:
        make: the function.
        size: how many are kept.
    """

    def __init__(self, make: Callable[[int], Steps[T]], size: int) -> None:
        self._make, self._size = make, size
        self._kept: tuple[tuple[int, T], ...] = ()

    def __call__(self, number: int) -> T:
        """The result, made at once where it is not kept."""
        return at_once(self.steps(number))

    def steps(self, number: int) -> Steps[T]:
        """The result; no step where it is kept."""
        for known, result in self._kept:
            if known == number:
                return result
        made = yield from self._make(number)
        self._kept = ((number, made), *self._kept[: self._size - 1])
        return made
