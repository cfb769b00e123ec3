"""Which law the gaps between ascending times follow: exponential, gamma or Weibull."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from simlink.generators.fitting.calls import Call

__all__ = ["gaps_law"]

_Floats = npt.NDArray[np.float64]
_LEAST = 200
"""Gaps; of fewer nothing is told apart."""
_POINTS = 200
_CRITICAL = 1.95
"""Kolmogorov's statistic at the 0.1 % level."""
_GOLDEN = (math.sqrt(5) - 1) / 2


def gaps_law(gaps: _Floats, grain: float) -> Call:
    """The arrivals whose gaps these are.

    A Poisson process, unless its exponential gaps are refused at the 0.1 % level (Kolmogorov–Smirnov) and gamma or
    Weibull gaps of the same mean come twice as near. Their shape is the one whose distribution is nearest (the mean
    squared distance, as Cramér–von Mises), which takes times that were cut to a grain: only gaps of three grains and
    more are looked at. Where a gap has less than 10 grains on average nothing but its mean is taken.

    Args:
        gaps: seconds, none negative, of a mean above 0.
        grain: of the times, in seconds.
    """
    mean = float(gaps.mean())
    rate = float(f"{1 / mean:.6g}")
    poisson = Call("simlink.arrivals.poisson", (rate,))
    ordered = np.sort(gaps) / mean
    at = np.unique(ordered[ordered >= 2.5 * grain / mean])
    if len(gaps) < _LEAST or mean < 10 * grain or len(at) < 20:
        return poisson
    at = np.unique(at[np.linspace(0, len(at) - 1, _POINTS).astype(int)])
    # A gap that was cut to the grain stands for those up to half a grain longer.
    at = at + grain / mean / 2
    seen = np.searchsorted(ordered, at, side="right") / len(ordered)

    def far(cdf: _Floats) -> float:
        return float(np.abs(cdf - seen).max())

    exponential = far(1 - np.exp(-at))
    if exponential * math.sqrt(len(gaps)) < _CRITICAL:
        return poisson

    def fitted(
        name: str, law: Callable[[_Floats, float], _Floats], low: float, high: float
    ) -> tuple[float, str, float]:
        shape = _nearest(lambda shape: float(np.square(law(at, shape) - seen).mean()), low, high)
        return far(law(at, shape)), name, shape

    # The bounds are those of the arrivals' own options.
    found = [fitted("gamma", _gamma, 1e-3, 1e3), fitted("weibull", _weibull, 0.1, 100.0)]
    distance, name, shape = min(found)
    if distance > exponential / 2:
        return poisson
    # The shape of gamma-distributed gaps is told by their coefficient of variation, 1 / sqrt(shape).
    option = {"cv": 1 / math.sqrt(shape)} if name == "gamma" else {"shape": shape}
    return Call(f"simlink.arrivals.{name}", (rate,), {k: float(f"{v:.4g}") for k, v in option.items()})


def _nearest(distance: Callable[[float], float], low: float, high: float) -> float:
    """The shape of the least distance, by golden sections of its logarithm."""
    a, b = math.log(low), math.log(high)
    for _ in range(40):
        width = _GOLDEN * (b - a)
        if distance(math.exp(b - width)) < distance(math.exp(a + width)):
            b = a + width
        else:
            a = b - width
    return math.exp((a + b) / 2)


def _weibull(x: _Floats, shape: float) -> _Floats:
    """The distribution function of mean 1."""
    cdf: _Floats = -np.expm1(-((x * math.gamma(1 + 1 / shape)) ** shape))
    return cdf


def _gamma(x: _Floats, shape: float) -> _Floats:
    """The distribution function of mean 1: the regularized incomplete gamma function P(shape, shape x), by its series
    below the mean and its continued fraction above (NIST's Digital Library of Mathematical Functions, 8.7.1, 8.9.2)."""
    z = shape * x
    front = np.exp(shape * np.log(z) - z - math.lgamma(shape))
    out = np.empty_like(z)
    low = z < shape + 1
    out[low] = front[low] * _series(z[low], shape)
    out[~low] = 1 - front[~low] * _fraction(z[~low], shape)
    return np.clip(out, 0.0, 1.0)


def _series(z: _Floats, shape: float) -> _Floats:
    term = np.full_like(z, 1 / shape)
    total = term.copy()
    for n in range(1, 500):
        term = term * z / (shape + n)
        total += term
        if not len(z) or float(term.max()) < 1e-12 * float(total.min()):
            break
    return total


def _fraction(z: _Floats, shape: float) -> _Floats:
    """By Lentz's method."""
    tiny = 1e-300
    b = z + 1 - shape
    c = np.full_like(z, 1 / tiny)
    d = 1 / np.where(b == 0, tiny, b)
    out = d
    for n in range(1, 500):
        a = -n * (n - shape)
        b = b + 2
        d = a * d + b
        d = 1 / np.where(np.abs(d) < tiny, tiny, d)
        c = b + a / c
        c = np.where(np.abs(c) < tiny, tiny, c)
        out = out * d * c
        if not len(z) or float(np.abs(d * c - 1).max()) < 1e-10:
            break
    return out
