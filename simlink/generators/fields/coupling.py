"""Columns that rise and fall together: a Gaussian copula over fields that are drawn by inversion.

A copula joins any marginals to a common law (Sklar, 1959); the Gaussian one takes correlated standard normal numbers,
turns each into a uniform one by the normal distribution function, and inverts the marginals at these (Nelsen, *An
Introduction to Copulas*, 2006). A rank correlation ``r`` (Spearman's) of the values needs the correlation
``2 sin(pi r / 6)`` of the normal numbers (Pearson, 1907; Kruskal, *Ordinal Measures of Association*, 1958).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.errors import ConfigError
from simlink.generators import portable
from simlink.generators.field import Bound, Context, Field, Scope, as_field
from simlink.generators.fields.draws import _Boolean, _Choice, _Integer, _Real, _Zipf
from simlink.generators.fields.mapped import Mapped, Typed
from simlink.generators.fields.nesting import step_name
from simlink.generators.fields.options import _Maybe, _OneOf
from simlink.generators.fields.quantiles import _Moment, _Quantiles
from simlink.generators.fields.relations import _When
from simlink.generators.seeding import Floats, Words

__all__ = ["coupled", "normal_cdf"]


_STEP = re.compile(r"\.(?:[^.\\]|\\.)*", re.DOTALL)  # a dot or a backslash in a name has a backslash before it
_DRAWN = (_Boolean, _Choice, _Integer, _Moment, _Quantiles, _Real, _Zipf)


def coupled(of: Any, weights: Mapping[str, float] | None = None) -> Field:
    """The same field, with the same distribution, its values high where those of other fields are.

    Every coupled field has a standard normal number of its own on each row. What decides about the value is the sum of
    those of the named fields, by weight, and its own one with the weight that is left to make the sum of the squares 1:
    a row of the Cholesky factor of a correlation matrix. With one other field the weight is the correlation of the
    normal numbers: ``price=coupled(quantiles(…), {}), weight=coupled(quantiles(…), {"price": 0.8})``.

    The field must be drawn by inversion of one uniform number: `quantiles`, `moment`, `uniform`, `integer`, `normal`,
    `lognormal`, `zipf`, `boolean`, or `choice` and `pool` in their values' order; also what `map`, ``|`` or `maybe`
    make of one. Identical everywhere, as far as that field is.

    Args:
        of: the field.
        weights: earlier coupled fields of the same record → weight, from -1 to 1; none by default.

    Raises:
        ConfigError: a weight that is not a number, squares that add up to more than 1, a field of another kind, another
            field that is not there, is not coupled, or is of another record.
    """
    inner = as_field(of)
    if not isinstance(_within(inner, Mapped, Typed, _Maybe), _DRAWN):
        raise ConfigError("coupled: only a field that is drawn from one uniform number, such as quantiles or integer")
    if not isinstance(weights, Mapping | None):
        raise ConfigError(f"coupled: weights are a mapping field → weight, not {weights!r}")
    chosen = dict(weights or {})
    for name, weight in chosen.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not -1 <= weight <= 1:
            raise ConfigError(f"coupled: the weight of {name!r} is a number from -1 to 1, not {weight!r}")
    squares = math.fsum(w * w for w in chosen.values())
    if squares > 1 + 1e-9:
        raise ConfigError(f"coupled: the squares of the weights add up to {squares:.6g}, more than 1")
    return _Coupled(inner, chosen, math.sqrt(max(0.0, 1.0 - squares)))


class _Coupled(Field):
    def __init__(self, of: Field, weights: dict[str, float], own: float) -> None:
        self.of, self.weights, self.own = of, weights, own

    def needs(self) -> Iterator[str]:
        yield from self.of.needs()
        yield from self.weights

    def bind(self, scope: Scope) -> Bound:
        # Inside a `when` the path has the part's name behind it; the others know the field by its own.
        path, field = scope.path, scope.path.removesuffix(scope.part)
        for name in self.weights:
            scope.lookup(name)
            if field.endswith("[]") or not _is_coupled((scope.later or {}).get(name)):
                raise ConfigError(f"{path}: {name!r} is not a coupled field of the same record")
        inner = self.of.bind(scope)
        own = f"{field}#normal"
        home = field[: [step.start() for step in _STEP.finditer(field)][-1]] if self.weights else ""
        terms = [(f"{home}.{step_name(other)}#normal", weight) for other, weight in self.weights.items()]

        def drawn(context: Context) -> Words:
            total = portable.normal_quantile(context.open_uniform(own)) * self.own
            for other, weight in terms:
                total = total + portable.normal_quantile(context.open_uniform(other)) * weight
            u = normal_cdf(total)
            # Back to a word, as every field takes one: 53 bits of it, below 1.
            limited = np.minimum(u * 2.0**53, 2.0**53 - 1.0)
            words: Words = limited.astype(np.uint64) << np.uint64(11)
            return words

        return Bound(inner.type, lambda context: inner.make(_Given(context, path, drawn)))


def _within(field: Field, *kinds: type) -> Field:
    """The field that these are made of."""
    while isinstance(field, kinds):
        field = field.of if isinstance(field, _Maybe) else field.field  # type: ignore[attr-defined]  # the kinds have it
    return field


def _is_coupled(field: Field | None) -> bool:
    """Whether a field draws its own normal number on every row, in whichever part."""
    if field is None:
        return False
    inner = _within(field, Mapped, Typed, _Maybe)
    if isinstance(inner, _When):
        return _is_coupled(inner.then) or _is_coupled(inner.otherwise)
    if isinstance(inner, _OneOf):
        return any(map(_is_coupled, inner.options))
    return isinstance(inner, _Coupled)


class _Given(Context):
    """A context in which one use of randomness is decided elsewhere."""

    def __init__(self, around: Context, path: str, drawn: Callable[[Context], Words]) -> None:
        super().__init__(around.seed, around.length, around.outer)
        self.columns = around.columns
        self._around, self._path, self._drawn = around, path, drawn

    @property
    def block(self) -> int:
        return self._around.block

    def words(self, path: str) -> Words:
        return self._drawn(self._around) if path == self._path else self._around.words(path)

    def positions(self) -> npt.NDArray[np.int64]:
        return self._around.positions()

    def nested(self) -> Context:
        return self._around.nested()

    def _draws(self, lengths: npt.NDArray[np.int64]) -> Context:
        return self._around._draws(lengths)

    def column(self, name: str) -> Any:
        return self._around.column(name)


# J. F. Hart, Computer Approximations (1968), algorithm 5666, as in G. West, Better approximations to cumulative normal
# functions, Wilmott Magazine (2005): about 15 digits.
_P = (
    220.206867912376, 221.213596169931, 112.079291497871, 33.912866078383,
    6.37396220353165, 0.700383064443688, 0.0352624965998911,
)  # fmt: skip
_Q = (
    440.413735824752, 793.826512519948, 637.333633378831, 296.564248779674,
    86.7807322029461, 16.064177579207, 1.75566716318264, 0.0883883476483184,
)  # fmt: skip


def normal_cdf(z: Floats) -> Floats:
    """The share of a standard normal law below ``z``, with an absolute error below 1e-14; from arithmetic that IEEE 754
    fixes, so the same bits everywhere."""
    x = np.minimum(np.abs(z), 37.0)
    e = portable.exp(-0.5 * x * x)
    near = e * portable._horner(x, _P) / portable._horner(x, _Q)
    far = e / (x + 1.0 / (x + 2.0 / (x + 3.0 / (x + 4.0 / (x + 0.65))))) / 2.506628274631
    tail = np.where(x < 7.07106781186547, near, far)
    out: Floats = np.where(z > 0, 1.0 - tail, tail)
    return out
