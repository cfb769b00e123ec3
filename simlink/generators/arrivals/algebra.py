"""Schedules made of schedules: the sum, one after another, a share of one, and one that is less exact.

All are functions of the row, as schedules are, and cost about what their parts cost.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simlink.errors import ConfigError, StateError
from simlink.generators import seeding
from simlink.generators.arrivals.clock import check_number
from simlink.generators.arrivals.points import BLOCK, Counts, binomial_table
from simlink.generators.arrivals.schedule import Arrivals, number_text

if TYPE_CHECKING:
    from simlink.generators.arrivals.rate import Rate

__all__ = ["Faster", "Jitter", "Sum", "Then", "Thin"]

Seconds = npt.NDArray[np.float64]


def _total(*lengths: int | None) -> int | None:
    known = [n for n in lengths if n is not None]
    return sum(known) if len(known) == len(lengths) else None


class Sum(Arrivals):
    """Two schedules at once."""

    def __init__(self, left: Arrivals, right: Arrivals) -> None:
        self.left, self.right = left, right
        self.random = left.random or right.random
        self.seekable = left.seekable and right.seekable
        self.endless = left.endless or right.endless
        self.length = _total(left.length, right.length)
        self.leaves = left.leaves + right.leaves
        self.depth = max(left.depth, right.depth)
        slices = [s for s in (left.slice, right.slice) if s is not None]
        self.slice = max(slices) if slices and self.seekable else None
        self._recent = (0, 0)

    def seeded(self, seed: int) -> Arrivals:
        return Sum(self.left.seeded(seed), self.right.seeded(seeding.derive_seed(seed, f"+{self.left.leaves}")))

    def shaped(self, rate: Rate, factors: tuple[str, ...]) -> Arrivals:
        return Sum(self.left.shaped(rate, factors), self.right.shaped(rate, factors))

    def scaled(self, factor: float) -> Arrivals:
        return Sum(self.left.scaled(factor), self.right.scaled(factor))

    def _of_left(self, row: int) -> int:
        """How many of the first ``row`` arrivals are the left one's."""
        known, left = self._recent
        if known == row:
            return left
        low, high = 0, row
        while low < high:
            middle = (low + high) // 2
            # Is the left one's arrival `middle` among the first `row`? Then the right one has row - middle - 1 before
            # it.
            mine, other = self.left.due(middle, middle + 1), self.right.due(row - middle - 1, row - middle)
            if len(mine) and (not len(other) or mine[0] <= other[0]):
                low = middle + 1
            else:
                high = middle
        return low

    def due(self, start: int, stop: int) -> Seconds:
        count = max(0, stop - start)
        at = self._of_left(start)
        left, right = self.left.due(at, at + count), self.right.due(start - at, start - at + count)
        times = np.concatenate((left, right))
        order = np.argsort(times, kind="stable")[:count]
        self._recent = (start + len(order), at + int(np.count_nonzero(order < len(left))))
        merged: Seconds = times[order]
        return merged

    def before(self, time: float, near: int = 0) -> int:
        return self.left.before(time, near // 2) + self.right.before(time, near // 2)

    def __repr__(self) -> str:
        right = f"({self.right!r})" if isinstance(self.right, Sum) else repr(self.right)
        return f"{self.left!r} + {right}"

    def factors(self) -> tuple[str, ...]:
        return (f"({self!r})",)


class Then(Arrivals):
    """One schedule, and another one from a time on."""

    def __init__(self, first: Arrivals, second: Arrivals, after: float | None) -> None:
        if not isinstance(second, Arrivals):
            raise ConfigError(f"then is followed by a schedule, not by {second!r}")
        if after is None and first.endless:
            raise ConfigError(f"{first!r} has no end: say with after= how many seconds it lasts")
        self.first, self.second = first, second
        self.after = None if after is None else check_number("then", "after", after)
        self.random = first.random or second.random
        self.seekable = first.seekable and second.seekable
        self.endless = second.endless
        self.leaves = first.leaves + second.leaves
        self.depth = max(first.depth, second.depth)
        slices = [s for s in (first.slice, second.slice) if s is not None]
        self.slice = max(slices) if slices and self.seekable else None
        self._turn: tuple[int, float] | None = None

    def _at(self) -> tuple[int, float]:
        """How many arrivals the first one has, and when the second one begins."""
        if self._turn is None:
            if self.after is not None:
                self._turn = self.first.before(self.after), self.after
            else:
                count = self.first.before(math.inf) if self.first.length is None else self.first.length
                last = self.first.due(count - 1, count) if count else np.zeros(1)
                self._turn = count, float(last[-1])
        return self._turn

    def seeded(self, seed: int) -> Arrivals:
        second = self.second.seeded(seeding.derive_seed(seed, f"+{self.first.leaves}"))
        return Then(self.first.seeded(seed), second, self.after)

    def scaled(self, factor: float) -> Arrivals:
        return Then(self.first.scaled(factor), self.second.scaled(factor), self.after)

    def shaped(self, rate: Rate, factors: tuple[str, ...]) -> Arrivals:
        if rate.flat is not None:
            return self.scaled(rate.flat)
        raise ConfigError(f"{self!r}: multiply the schedules that stand before and in then(), not the whole")

    def due(self, start: int, stop: int) -> Seconds:
        count, begin = self._at()
        early = self.first.due(start, min(stop, count)) if start < count else np.empty(0)
        if stop <= count:
            return early
        late = self.second.due(max(0, start - count), max(start, stop) - count) + begin
        return np.concatenate((early, late)) if len(early) else late

    def __repr__(self) -> str:
        after = "" if self.after is None else f", after={number_text(self.after)}"
        return f"{_inner(self.first)}.then({self.second!r}{after})"


def _inner(schedule: Arrivals) -> str:
    """The text before a dot."""
    text = repr(schedule)
    return f"({text})" if isinstance(schedule, Sum) or len(schedule.factors()) > 1 else text


class Thin(Arrivals):
    """A share of the arrivals. Of every 4,096 so many are kept as the binomial law says, and then which ones is drawn:
    that is one independent decision each, and can be sought."""

    random = True

    def __init__(self, whole: Arrivals, p: float, seed: int | None = None) -> None:
        p = check_number("thin", "p", p)
        if p > 1:
            raise ConfigError(f"thin: p is above 0 and at most 1, not {p!r}")
        self.whole, self.p = whole, p
        self.seed = None if seed is None else seeding.check_seed(seed)
        self.seekable, self.endless = whole.seekable, whole.endless
        self.leaves, self.depth = whole.leaves, whole.depth + 1
        self.slice = whole.slice
        self._counts = None
        if self.seed is not None and p < 1:
            self._counts = Counts(self.seed, "arrivals.thin", binomial_table(BLOCK, p))

    def seeded(self, seed: int) -> Arrivals:
        own = seeding.derive_seed(seed, f"thin.{self.depth}") if self.seed is None else self.seed
        return Thin(self.whole.seeded(seed), self.p, own)

    def scaled(self, factor: float) -> Arrivals:
        return Thin(self.whole.scaled(factor), self.p, self.seed)

    def shaped(self, rate: Rate, factors: tuple[str, ...]) -> Arrivals:
        return Thin(self.whole.shaped(rate, factors), self.p, self.seed)

    def due(self, start: int, stop: int) -> Seconds:
        if self.seed is None:
            raise StateError("thinned arrivals have no seed: give one, or use .seeded(seed)")
        if self._counts is None:
            return self.whole.due(start, stop)
        if stop <= start:
            return np.empty(0)
        out = []
        part = self._counts.part_of(start)
        while True:
            first, last = self._counts.bounds(part)
            times = self.whole.due(part * BLOCK, (part + 1) * BLOCK)
            order = np.argsort(seeding.words(self.seed, "arrivals.thin.rows", part, BLOCK), kind="stable")
            kept = np.sort(order[: last - first])
            kept = kept[kept < len(times)]
            out.append(times[kept][max(0, start - first) : stop - first])
            if last >= stop or len(times) < BLOCK:
                return np.concatenate(out)
            part += 1

    def __getstate__(self) -> dict[str, Any]:
        return {"whole": self.whole, "p": self.p, "seed": self.seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a lock does not travel to another process

    def __repr__(self) -> str:
        return f"{_inner(self.whole)}.thin({number_text(self.p)}{'' if self.seed is None else f', seed={self.seed}'})"


class Jitter(Arrivals):
    """Arrivals that come later than they should.

    A cut is made at the time of every 4,096th arrival. What comes from a cut to the next one is what was due there and
    is not put off beyond it, and what was put off from the ``by`` seconds before.
    """

    random = True

    def __init__(self, whole: Arrivals, by: float, seed: int | None = None) -> None:
        self.whole, self.by = whole, check_number("jitter", "by", by)
        self.seed = None if seed is None else seeding.check_seed(seed)
        self.length = whole.length
        self.seekable, self.endless = whole.seekable, whole.endless
        self.leaves, self.depth = whole.leaves, whole.depth + 1
        self.slice = whole.slice
        self._recent: tuple[int, int, Seconds, bool] | None = None

    def seeded(self, seed: int) -> Arrivals:
        own = seeding.derive_seed(seed, f"jitter.{self.depth}") if self.seed is None else self.seed
        return Jitter(self.whole.seeded(seed), self.by, own)

    def scaled(self, factor: float) -> Arrivals:
        return Jitter(self.whole.scaled(factor), self.by, self.seed)

    def shaped(self, rate: Rate, factors: tuple[str, ...]) -> Arrivals:
        return Jitter(self.whole.shaped(rate, factors), self.by, self.seed)

    def _moved(self, start: int, stop: int) -> Seconds:
        """The moved times of rows of the whole, in its order."""
        assert self.seed is not None
        times = self.whole.due(start, stop)
        blocks = range(start // BLOCK, (max(stop, start + 1) - 1) // BLOCK + 1)
        raw = np.concatenate([seeding.words(self.seed, "arrivals.jitter", k, BLOCK) for k in blocks])
        at = start - blocks[0] * BLOCK
        moved: Seconds = times + seeding.to_uniform(raw[at : at + len(times)]) * self.by
        return moved

    def _part(self, k: int) -> tuple[int, Seconds, bool]:
        """What comes from cut ``k`` up to the next one: the row of the first, the times, and whether it is the end."""
        recent = self._recent
        if recent is not None and recent[0] == k:
            return recent[1:]
        cuts = [self.whole.due(b * BLOCK, b * BLOCK + 1) for b in (k, k + 1)]
        low = float(cuts[0][0]) if k and len(cuts[0]) else -math.inf if not k else math.inf
        high = float(cuts[1][0]) if len(cuts[1]) else math.inf
        from_row = self.whole.before(low - self.by, k * BLOCK) if k else 0
        moved = self._moved(from_row, (k + 1) * BLOCK)
        first = from_row + int(np.count_nonzero(moved < low))
        inside = np.sort(moved[(moved >= low) & (moved < high)])
        found = (first, inside, not len(cuts[1]))
        self._recent = (k, *found)
        return found

    def due(self, start: int, stop: int) -> Seconds:
        if self.seed is None:
            raise StateError("jittered arrivals have no seed: give one, or use .seeded(seed)")
        if stop <= start:
            return np.empty(0)
        # No more than 4096 k arrivals can have come before cut k.
        k = start // BLOCK
        if self.length is not None:
            k = min(k, max(0, self.length - 1) // BLOCK)
        out = []
        while True:
            first, times, last = self._part(k)
            out.append(times[max(0, start - first) : max(0, stop - first)])
            if last or first + len(times) >= stop:
                return np.concatenate(out)
            k += 1

    def __repr__(self) -> str:
        seed = "" if self.seed is None else f", seed={self.seed}"
        return f"{_inner(self.whole)}.jitter({number_text(self.by)}{seed})"


class Faster(Arrivals):
    """A schedule whose clock goes faster, or slower."""

    def __init__(self, whole: Arrivals, factor: float) -> None:
        self.whole, self.factor = whole, factor
        self.seed, self.random, self.length = whole.seed, whole.random, whole.length
        self.seekable, self.endless = whole.seekable, whole.endless
        self.leaves, self.depth = whole.leaves, whole.depth
        self.slice = None if whole.slice is None else whole.slice / factor

    def seeded(self, seed: int) -> Arrivals:
        return Faster(self.whole.seeded(seed), self.factor)

    def scaled(self, factor: float) -> Arrivals:
        return Faster(self.whole.scaled(factor), self.factor)

    def due(self, start: int, stop: int) -> Seconds:
        due: Seconds = self.whole.due(start, stop) / self.factor
        return due

    def __repr__(self) -> str:
        return f"{_inner(self.whole)}.faster({number_text(self.factor)})"
