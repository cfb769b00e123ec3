"""Numbers with a memory: AR(1) noise and random walks.

Both go from row to row without an end, and yet any block can be made alone. The value with which each block begins is
drawn by itself; what lies between two such values is drawn under the condition that it leads from one to the other, as
the law says it would (a bridge). So there is no seam.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.block import Coded, Column, FieldType, Kind
from simlink.errors import ConfigError
from simlink.generators import portable, seeding
from simlink.generators.field import BLOCK_ROWS, Bound, Context, Field, Scope
from simlink.generators.fields.draws import DECIMALS, check_decimals
from simlink.generators.fields.relations import key_words
from simlink.generators.seeding import Floats

__all__ = ["ar1", "finite", "recur", "walk"]

_STRETCH = 64
_LEVELS = 40
"""A walk is laid out over 2**40 blocks; its bounds are halved again and again."""

Flags = npt.NDArray[np.bool_]


def finite(what: str, value: object) -> float:
    """The number, if it is one.

    Raises:
        ConfigError: it is not finite, or no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{what} is a finite number, not {value!r}")
    return float(value)


def recur(factor: float, shocks: Floats, first: Flags, begins: Floats) -> Floats:
    """Row by row ``factor`` times the row before plus the row's shock; where ``first`` is true, ``begins`` instead. The
    first row is always such a beginning.

    Stretches of rows are gone through side by side, and then joined: what a stretch inherits fades by ``factor`` a row.
    """
    rows = len(shocks)
    count = -(-rows // _STRETCH)
    shocks, begins, first = _rectangle(shocks, count), _rectangle(begins, count), _rectangle(first, count)
    values, gains = np.empty((_STRETCH, count)), np.empty((_STRETCH, count))
    value, gain = np.zeros(count), np.ones(count)
    for place in range(_STRETCH):
        value = np.where(first[place], begins[place], value * factor + shocks[place])
        gain = np.where(first[place], 0.0, gain * factor)
        values[place], gains[place] = value, gain
    carry, entered = 0.0, np.empty(count)
    for stretch in range(count):
        entered[stretch] = carry
        carry = float(value[stretch]) + float(gain[stretch]) * carry
    out: Floats = (values + gains * entered).T.ravel()[:rows]
    return out


def _rectangle(values: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    padded = np.zeros(count * _STRETCH, values.dtype)
    padded[: len(values)] = values
    return np.ascontiguousarray(padded.reshape(count, _STRETCH).T)


class _State(Field):
    """What both have in common: where they may stand, and rows grouped by an entity."""

    what: str
    by: str | None
    decimals: int | None

    def needs(self) -> Iterator[str]:
        if self.by is not None:
            yield self.by

    def _check(self, by: str | None, decimals: int | None) -> None:
        if by is not None and not isinstance(by, str):
            raise ConfigError(f"{self.what}: by= is the name of an earlier field, not {by!r}")
        self.by, self.decimals = by, check_decimals(self.what, decimals)

    def bind(self, scope: Scope) -> Bound:
        if not scope.counts:
            raise ConfigError(f"{scope.path}: {self.what} is not an attribute of an entity: it needs rows to go along")
        if self.by is not None:
            if scope.counts != "stream":
                raise ConfigError(f"{scope.path}: {self.what}(by=…) follows the stream's rows: not in a list")
            scope.lookup(self.by)

        def make(context: Context) -> Column:
            shocks = portable.normal_quantile(context.open_uniform(scope.path))
            if self.by is not None:
                values = self._by(context.column(self.by), context, scope.path, shocks)
            elif scope.counts == "stream":
                values = self._stream(context, scope.path, shocks)
            else:
                first = context.positions() == 0
                values = self._anew(context, scope.path, shocks, first)
            return portable.round_to(values, self.decimals)

        return Bound(FieldType(Kind.FLOAT), make)

    def _by(self, keys: Column, context: Context, path: str, shocks: Floats) -> Floats:
        words = keys.codes if isinstance(keys, Coded) else key_words(keys)
        order = np.argsort(words, kind="stable")
        grouped = words[order]
        first = np.ones(len(order), np.bool_)
        first[1:] = grouped[1:] != grouped[:-1]
        out = np.empty(len(order))
        out[order] = self._anew(context, path, shocks[order], first)
        return out

    def _anew(self, context: Context, path: str, shocks: Floats, first: Flags) -> Floats:
        """Rows that begin anew where ``first`` says."""
        raise NotImplementedError

    def _stream(self, context: Context, path: str, shocks: Floats) -> Floats:
        """A block of the endless sequence."""
        raise NotImplementedError


def ar1(
    mean: float = 0.0,
    std: float = 1.0,
    phi: float = 0.9,
    *,
    by: str | None = None,
    decimals: int | None = DECIMALS,
) -> Field:
    """Noise with a memory (an autoregressive process of order 1): every row is ``phi`` times the deviation of the row
    before from the mean, plus something new. Every row has the normal law with ``mean`` and ``std``; rows ``n`` apart
    are correlated by ``phi ** n``.

    It goes on from block to block, each of which can be made alone: the first rows of blocks are independent draws, and
    what is between them is drawn to fit (which changes the law by the order of ``phi ** 4096``: nothing that counts up
    to ``phi = 0.998``). With ``by="device"`` each device has a sequence of its own, which moves on the rows of that
    device and begins anew in every block, inside `list` in every list, from the stationary law. Identical everywhere.

    Args:
        mean: of every row.
        std: the standard deviation of every row, 0 or more.
        phi: above -1 and below 1; 0 has no memory.
        by: the name of a field before this one, whose every value has a sequence of its own.
        decimals: to round to; None for none.

    Raises:
        ConfigError: a number that is not as said, no such field, or ``by`` in a list.
    """
    return _AR1(mean, std, phi, by, decimals)


class _AR1(_State):
    what = "ar1"

    def __init__(self, mean: float, std: float, phi: float, by: str | None, decimals: int | None) -> None:
        self.mean, self.std, self.phi = (
            finite(f"ar1: {name}", v) for name, v in (("mean", mean), ("std", std), ("phi", phi))
        )
        if self.std < 0:
            raise ConfigError(f"ar1: std is not negative, but {std!r}")
        if not -1 < self.phi < 1:
            raise ConfigError(f"ar1: phi is above -1 and below 1, not {phi!r}; fields.walk does not come back")
        self._check(by, decimals)
        self.news = math.sqrt(1 - self.phi * self.phi)
        # Of a path that is free at its end, how much of the correction there is due at each row before.
        fade = np.cumprod(np.full(BLOCK_ROWS, self.phi))
        rest = 1 - fade * fade
        self.bridge = np.zeros(BLOCK_ROWS)
        self.bridge[1:] = fade[-2::-1] * rest[:-1] / rest[-1]

    def _scaled(self, values: Floats) -> Floats:
        return values * self.std + self.mean

    def _anew(self, context: Context, path: str, shocks: Floats, first: Flags) -> Floats:
        return self._scaled(recur(self.phi, shocks * self.news, first, shocks))

    def _stream(self, context: Context, path: str, shocks: Floats) -> Floats:
        ends = [seeding.words(context.seed, f"{path}#block", context.block + i, 1) for i in (0, 1)]
        here, there = portable.normal_quantile(seeding.to_open_uniform(np.concatenate(ends))).tolist()
        first = np.zeros(len(shocks), np.bool_)
        first[0] = True
        free = recur(self.phi, shocks * self.news, first, np.full(len(shocks), here))
        # The first shock is not needed there: it is the one of the row after the last.
        missed = there - (float(free[-1]) * self.phi + float(shocks[0]) * self.news)
        return self._scaled(free + self.bridge[: len(free)] * missed)


def walk(
    start: float = 0.0,
    step: float = 1.0,
    *,
    low: float | None = None,
    high: float | None = None,
    by: str | None = None,
    decimals: int | None = DECIMALS,
) -> Field:
    """A random walk: every row is the row before plus a normal number with the standard deviation ``step``. Row 0 is
    ``start``; with ``low`` and ``high`` it is reflected there.

    It goes on from block to block without an end, each of which can be made alone: the walk over 2**52 rows is laid out
    by halving (Lévy's construction of Brownian motion), and a block fills in what lies between two of its points. With
    ``by="device"`` each device has a walk of its own, which moves on the rows of that device and begins anew in every
    block, inside `list` in every list: evenly between ``low`` and ``high``, or at ``start`` without them. Identical
    everywhere.

    Args:
        start: row 0.
        step: the standard deviation of a step, 0 or more.
        low: the lower bound, where it is reflected; with ``high`` or not at all.
        high: the upper one.
        by: the name of a field before this one, whose every value has a walk of its own.
        decimals: to round to; None for none.

    Raises:
        ConfigError: a number that is not as said, ``start`` out of bounds, no such field, ``by`` in a list, or (when
            made) a row beyond 2**52.
    """
    return _Walk(start, step, low, high, by, decimals)


class _Walk(_State):
    what = "walk"

    def __init__(
        self,
        start: float,
        step: float,
        low: float | None,
        high: float | None,
        by: str | None,
        decimals: int | None,
    ) -> None:
        self.start, self.step = finite("walk: start", start), finite("walk: step", step)
        if self.step < 0:
            raise ConfigError(f"walk: step is not negative, but {step!r}")
        if (low is None) != (high is None):
            raise ConfigError("walk: give both low and high, or none of them")
        self.low = self.high = None
        if low is not None and high is not None:
            self.low, self.high = finite("walk: low", low), finite("walk: high", high)
            if not self.low <= self.start <= self.high or self.low == self.high:
                raise ConfigError(f"walk: expected low <= start <= high and low < high, not {low}, {start}, {high}")
        self._check(by, decimals)

    def _folded(self, values: Floats) -> Floats:
        """Reflected at the bounds: to fold a free walk is the same, for its steps go both ways alike."""
        if self.low is None or self.high is None:
            return values
        span = self.high - self.low
        place = np.mod(values - self.low, 2 * span)
        out: Floats = np.clip(self.low + np.where(place > span, 2 * span - place, place), self.low, self.high)
        return out

    def _anew(self, context: Context, path: str, shocks: Floats, first: Flags) -> Floats:
        if self.low is None or self.high is None:
            begins = np.full(len(shocks), self.start)
        else:
            begins = self.low + context.uniform(f"{path}#start") * (self.high - self.low)
        return self._folded(recur(1.0, shocks * self.step, first, begins))

    def _stream(self, context: Context, path: str, shocks: Floats) -> Floats:
        here, there = (_halved(context.seed, f"{path}#block", context.block + i) for i in (0, 1))
        # In units of a step; a block is 64 of them wide.
        sums = np.cumsum(shocks)
        free = np.concatenate(([0.0], sums[:-1]))
        missed = (there - here) * math.sqrt(BLOCK_ROWS) - float(sums[-1])
        part = np.arange(len(shocks)) / BLOCK_ROWS
        return self._folded(self.start + (here * math.sqrt(BLOCK_ROWS) + free + part * missed) * self.step)


def _halved(seed: int, path: str, block: int) -> float:
    """Where the walk is at the beginning of a block, in units of a block's standard deviation.

    Of every stretch of 2**n blocks the middle is drawn, given its ends: their mean, and a normal number with a quarter
    of the stretch's variance. A middle belongs to one stretch only, and is drawn by its own number.
    """
    if block >= 1 << _LEVELS:
        raise ConfigError("walk: rows end at 2**52")
    whole = 1 << _LEVELS
    left, half, middles = 0, whole >> 1, []
    while block != left:
        middles.append(left + half)
        left += half if block >= left + half else 0
        half >>= 1
        if not half:
            break
    numbers = np.array([whole, *middles], np.uint64)
    normal = portable.normal_quantile(seeding.to_open_uniform(seeding.hash_words(seed, path, numbers))).tolist()
    low, high, size, left = 0.0, normal[0] * math.sqrt(whole), whole, 0
    for middle, z in zip(middles, normal[1:], strict=True):
        size >>= 1
        value = (low + high) / 2 + z * math.sqrt(size / 2)
        if block >= middle:
            low = value
        else:
            high = value
    return low
