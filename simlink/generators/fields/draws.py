"""The fields of plain values: numbers, choices, keys."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from simlink.block import Coded, Column, FieldType, Kind, Pool
from simlink.errors import ConfigError
from simlink.generators import portable
from simlink.generators.field import BLOCK_ROWS, Bound, Constant, Context, Field, Scope, infer, plain
from simlink.generators.seeding import Floats, Words

__all__ = [
    "boolean",
    "check_decimals",
    "choice",
    "constant",
    "cumulative",
    "integer",
    "lognormal",
    "normal",
    "pool",
    "sequence",
    "uniform",
    "zipf",
]

DECIMALS = 6
"""The decimals of real-valued fields that were not told otherwise."""


def constant(value: Any) -> Field:
    """The same value on every row. A plain value given as a field is one too.

    Raises:
        ConfigError: the value has no plain (JSON or bytes) form.
    """
    return Constant(value)


def sequence(start: int = 0, step: int = 1) -> Field:
    """``start``, ``start + step``, … by row: row ``i`` has ``start + i * step``. Inside `list` it counts the elements
    of each list. Identical everywhere.

    Raises:
        ConfigError: ``step`` is 0, or a number is not an integer of 64 bits.
    """
    return _Sequence(start, step)


class _Sequence(Field):
    def __init__(self, start: int, step: int) -> None:
        self.start = _int64("sequence: start", start)
        self.step = _int64("sequence: step", step)
        if step == 0:
            raise ConfigError("sequence: step must not be 0; fields.constant repeats a value")

    def bind(self, scope: Scope) -> Bound:
        if not scope.counts:
            raise ConfigError(f"{scope.path}: a sequence is not an attribute of an entity: it has no position to count")

        def make(context: Context) -> Column:
            positions = context.positions()
            last = self.start + self.step * int(positions[-1]) if len(positions) else 0
            if not -(2**63) <= last < 2**63:
                raise ConfigError(f"{scope.path}: the sequence leaves the integers of 64 bits")
            return positions * self.step + self.start

        return Bound(FieldType(Kind.INT), make)


def integer(low: int, high: int) -> Field:
    """Whole numbers from ``low`` to ``high``, **both included**, all equally likely. Identical everywhere.

    Raises:
        ConfigError: ``low > high``, or the range is neither within int64 nor within uint64.
    """
    return _Integer(low, high)


class _Integer(Field):
    def __init__(self, low: int, high: int) -> None:
        for name, value in (("low", low), ("high", high)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise ConfigError(f"integer: {name} is an integer, not {value!r}")
        if low > high:
            raise ConfigError(f"integer: low={low} is above high={high}")
        self.low, self.high = int(low), int(high)
        if self.high < 2**63 and self.low >= -(2**63):
            self.kind = Kind.INT
        elif self.low >= 0 and self.high < 2**64:
            self.kind = Kind.UINT
        else:
            raise ConfigError(f"integer: {low}..{high} fits neither 64 signed nor 64 unsigned bits")

    def bind(self, scope: Scope) -> Bound:
        span = self.high - self.low + 1
        dtype: type[np.signedinteger[Any] | np.unsignedinteger[Any]] = np.int64 if self.kind is Kind.INT else np.uint64
        low = np.uint64(self.low % 2**64)

        def make(context: Context) -> Column:
            # Offsets are added modulo 2**64, so that a range across zero cannot overflow.
            return (scaled(context.words(scope.path), span) + low).view(dtype)

        return Bound(FieldType(self.kind), make)


def scaled(raw: Words, span: int) -> Words:
    """Words → integers in [0, span): ⌊raw · span / 2**64⌋; 1 ≤ span ≤ 2**64. Exact integer arithmetic."""
    if span == 2**64:
        return raw
    if span <= 2**32:
        # raw = high · 2**32 + low; the product's upper word from two 64-bit products that cannot overflow.
        n = np.uint64(span)
        out: Words = ((raw >> _32) * n + (((raw & _LOW) * n) >> _32)) >> _32
        return out
    n_high, n_low = np.uint64(span >> 32), np.uint64(span & 0xFFFFFFFF)
    high, low = raw >> _32, raw & _LOW
    middle = high * n_low + ((low * n_low) >> _32)
    cross = low * n_high + (middle & _LOW)
    upper: Words = high * n_high + (middle >> _32) + (cross >> _32)
    return upper


_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


def uniform(low: float = 0.0, high: float = 1.0, *, decimals: int | None = DECIMALS) -> Field:
    """Real numbers from ``low`` (included) to ``high`` (included only by rounding), all equally likely, rounded to
    ``decimals`` (6 by default; None for none). Identical everywhere.

    Raises:
        ConfigError: ``low > high``, one of them is not finite, or decimals are not from 0 to 15.
    """
    return _Real("uniform", low, high, decimals)


def normal(mean: float = 0.0, std: float = 1.0, *, decimals: int | None = DECIMALS) -> Field:
    """Normally distributed numbers, rounded to ``decimals`` (6 by default; None for none). The quantile function
    (Wichura's AS 241) of a uniform number, computed from operations that IEEE 754 fixes: identical everywhere.

    Raises:
        ConfigError: ``std`` is negative, a number is not finite, or decimals are not from 0 to 15.
    """
    return _Real("normal", mean, std, decimals)


def lognormal(mu: float = 0.0, sigma: float = 1.0, *, decimals: int | None = DECIMALS) -> Field:
    """The number e to the power of a normal number with mean ``mu`` and standard deviation ``sigma`` (median e**mu),
    rounded to ``decimals`` (6 by default; None for none). Prices, sizes and durations look like this. Identical
    everywhere.

    Raises:
        ConfigError: ``sigma`` is negative, a number is not finite, ``mu + 9 sigma`` is above 700 (the value would be
            infinite), or decimals are not from 0 to 15.
    """
    return _Real("lognormal", mu, sigma, decimals)


def check_decimals(where: str, decimals: int | None) -> int | None:
    """The decimals, if they can be honoured.

    Raises:
        ConfigError: they are neither None nor an integer from 0 to 15.
    """
    if decimals is None or (isinstance(decimals, int) and not isinstance(decimals, bool) and 0 <= decimals <= 15):
        return decimals
    raise ConfigError(f"{where}: decimals are an integer from 0 to 15, or None, not {decimals!r}")


class _Real(Field):
    def __init__(self, law: str, a: float, b: float, decimals: int | None) -> None:
        for value in (a, b):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ConfigError(f"{law}: expected a finite number, not {value!r}")
        if law == "uniform" and a > b:
            raise ConfigError(f"uniform: low={a} is above high={b}")
        if law != "uniform" and b < 0:
            raise ConfigError(f"{law}: the spread {b} is negative")
        if law == "lognormal" and a + 9 * b > 700:
            raise ConfigError(f"lognormal: mu={a}, sigma={b} reaches beyond the largest double")
        if not math.isfinite(abs(a) + 9.0 * abs(b)):
            raise ConfigError(f"{law}: {a}, {b} reaches beyond the largest double")
        self.law, self.a, self.b = law, float(a), float(b)
        self.decimals = check_decimals(law, decimals)

    def bind(self, scope: Scope) -> Bound:
        a, b, path = self.a, self.b, scope.path

        def make(context: Context) -> Column:
            if self.law == "uniform":
                u = context.uniform(path)
                value: Floats = a * (1.0 - u) + b * u  # not a + (b - a)·u, which may overflow or pass b
            else:
                value = portable.normal_quantile(context.open_uniform(path)) * b + a
                if self.law == "lognormal":
                    value = portable.exp(value)
            return portable.round_to(value, self.decimals)

        return Bound(FieldType(Kind.FLOAT), make)


def boolean(p: float = 0.5) -> Field:
    """True with probability ``p``. Identical everywhere.

    Raises:
        ConfigError: ``p`` is not from 0 to 1.
    """
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ConfigError(f"boolean: p is a number from 0 to 1, not {p!r}")
    return _Boolean(float(p))


class _Boolean(Field):
    def __init__(self, p: float) -> None:
        self.p = p

    def bind(self, scope: Scope) -> Bound:
        return Bound(FieldType(Kind.BOOL), lambda context: context.uniform(scope.path) < self.p)


def choice(
    options: Mapping[Any, float] | Sequence[Any] | None = None,
    /,
    *,
    weights: Sequence[float] | None = None,
    **named: float,
) -> Field:
    """One of some values, by weight. Identical everywhere.

    ``choice(view=80, click=17, purchase=3)``, ``choice({404: 1, 200: 99})`` or ``choice(["a", "b"], weights=[1, 2])``;
    a sequence without weights is drawn evenly. Weights are relative; they need not add up to anything.

    Raises:
        ConfigError: no options, options given twice, or weights that are negative, not finite, all 0 or of another
            number than the values.
    """
    if named:
        if options is not None or weights is not None:
            raise ConfigError("choice: give the options as keywords, as a mapping or as a sequence, not two of them")
        return _Choice("choice", list(named), list(named.values()))
    if isinstance(options, Mapping):
        if weights is not None:
            raise ConfigError("choice: a mapping already has its weights as values")
        return _Choice("choice", list(options), list(options.values()))
    if not _ordered(options):
        raise ConfigError("choice: give options, as choice(view=80, click=20) or choice(['a', 'b'], weights=[1, 2])")
    return _Choice("choice", list(options), weights)


def _ordered(values: Any) -> TypeGuard[Iterable[Any]]:
    """Whether values can be told apart by their place: those of a set stand elsewhere in the next process (the keys of
    a dict do not)."""
    return isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping | set | frozenset)


def pool(values: Sequence[Any], weights: Sequence[float] | None = None) -> Field:
    """One of these values on every row, evenly or by weight: `choice` under the name that says what it is for, a large
    set of ready-made values which serializers encode once. Identical everywhere.

    Raises:
        ConfigError: as `choice`.
    """
    if not _ordered(values):
        raise ConfigError(f"pool: values are a sequence, not {type(values).__name__}")
    return _Choice("pool", list(values), weights)


class _Choice(Field):
    def __init__(self, what: str, values: list[Any], weights: Sequence[float] | None) -> None:
        if not values:
            raise ConfigError(f"{what}: there is nothing to choose from")
        self.values = [plain(v) for v in values]
        self.weights = None if weights is None else list(weights)
        if weights is not None:
            if len(self.values) != len(weights):
                raise ConfigError(f"{what}: {len(values)} values, but {len(weights)} weights")
            cumulative(what, weights)

    def bind(self, scope: Scope) -> Bound:
        values = Pool(self.values)
        limits = None if self.weights is None else cumulative("choice", self.weights)

        def make(context: Context) -> Column:
            if limits is None:
                codes = scaled(context.words(scope.path), len(values)).view(np.int64)
            else:
                codes = np.searchsorted(limits, context.uniform(scope.path), side="right")
            return Coded(codes, values)

        return Bound(infer(values.values), make)


def cumulative(what: str, weights: Sequence[float] | npt.NDArray[np.float64]) -> Floats:
    """Weights → the upper limits of their shares of [0, 1). The value of a uniform number ``u`` is
    ``searchsorted(limits, u, side="right")``; a weight of 0 is never drawn.

    Raises:
        ConfigError: a weight is negative or not finite, or all are 0.
    """
    try:
        shares = np.asarray(weights, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}: weights are numbers, not {weights!r}") from error
    if not np.isfinite(shares).all() or (shares < 0).any() or not shares.any():
        raise ConfigError(f"{what}: weights must be finite, not negative, and not all 0: {list(weights)[:10]!r}")
    total = np.cumsum(shares / shares.max())
    limits: Floats = total / total[-1]
    return limits


def zipf(n: int, s: float = 1.1, *, start: int = 0) -> Field:
    """Keys ``start … start + n - 1`` of which the k-th (from 1) comes up in proportion to ``k ** -s``: a few hot keys
    and a long tail. ``s=0`` is even. The hottest key is ``start``. Identical everywhere.

    The distribution over exactly ``n`` keys (Zipf's law with a finite support), by its quantile function. It keeps a
    table of ``n`` doubles.

    Raises:
        ConfigError: ``n`` is not from 1 to 50,000,000, or ``s`` is negative or not finite.
    """
    return _Zipf(n, s, start)


class _Zipf(Field):
    def __init__(self, n: int, s: float, start: int) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 50_000_000:
            raise ConfigError(f"zipf: n is an integer from 1 to 50,000,000, not {n!r}")
        if isinstance(s, bool) or not isinstance(s, int | float) or not 0 <= s < math.inf:
            raise ConfigError(f"zipf: s is a finite number from 0 up, not {s!r}")
        self.n, self.s = n, float(s)
        self.start = _int64("zipf: start", start)
        _int64("zipf: start + n", start + n)

    def bind(self, scope: Scope) -> Bound:
        ranks = np.arange(1, self.n + 1, dtype=np.float64)
        limits = cumulative("zipf", portable.power(ranks, -self.s))
        guide = _Guide(limits)

        def make(context: Context) -> Column:
            return guide(context.uniform(scope.path)) + self.start

        return Bound(FieldType(Kind.INT), make)


class _Guide:
    """``searchsorted(limits, u, side="right")``, started from a table over equal parts of [0, 1).

    A binary search in a table that does not fit the cache is most of the cost of a large `zipf`; the guide table
    (Chen and Asau, 1974) leaves a step or two. The result is exactly the same.
    """

    def __init__(self, limits: Floats) -> None:
        self.limits = limits
        self.parts = 1 << max(BLOCK_ROWS.bit_length(), min(len(limits).bit_length() + 1, 20))
        self.first = np.searchsorted(limits, np.arange(self.parts) / self.parts, side="right")

    def __call__(self, u: Floats) -> npt.NDArray[np.int64]:
        # `take` is faster than an index in brackets.
        codes: npt.NDArray[np.int64] = self.first.take((u * self.parts).astype(np.int64))
        for _ in range(2):
            codes += self.limits.take(codes) <= u
        wrong = np.flatnonzero(self.limits.take(codes) <= u)
        if len(wrong):
            codes[wrong] = np.searchsorted(self.limits, u[wrong], side="right")
        return codes


def _int64(what: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not -(2**63) <= int(value) < 2**63:
        raise ConfigError(f"{what} is an integer of 64 bits, not {value!r}")
    return int(value)
