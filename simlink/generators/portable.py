"""log, exp, power, cosine and the normal quantile from arithmetic alone.

The ``log``, ``exp``, ``power`` and ``cos`` of C libraries and of NumPy's vector code differ in the last bit from one
CPU to another. Addition, multiplication, division, the square root, ``floor``, ``frexp`` and ``ldexp`` do not: IEEE
754 fixes their results. So these functions use nothing else, each step one NumPy operation (which never fuses two
into one), and return the same bits everywhere. They are accurate to about 2 units in the last place, which is far
more than a simulation needs, and cost 20–30 array operations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["cosine", "exp", "log", "normal_quantile", "power", "round_to"]

Floats = npt.NDArray[np.float64]

_LN2_HIGH = 6.93147180369123816490e-01  # the upper 32 bits of ln 2: k · this is exact for |k| < 2**20
_LN2_LOW = 1.90821492927058770002e-10
_SQRT_HALF = 0.7071067811865476


def _horner(x: Floats, coefficients: tuple[float, ...]) -> Floats:
    """Σ coefficients[i] · x**i."""
    out = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        out *= x
        out += c
    return out


# 2·atanh(s) = 2s · (1 + s²/3 + s⁴/5 + …); |s| ≤ 0.1716 after the reduction, so 11 terms reach 2**-53.
_ATANH = tuple(1.0 / (2 * i + 1) for i in range(11))


def log(x: Floats) -> Floats:
    """The natural logarithm of positive, finite, normal doubles."""
    mantissa, exponent = np.frexp(x)  # x = mantissa · 2**exponent, mantissa in [0.5, 1)
    low = mantissa < _SQRT_HALF
    mantissa = np.where(low, mantissa * 2.0, mantissa)
    k = exponent - low
    s = (mantissa - 1.0) / (mantissa + 1.0)
    out: Floats = k * _LN2_HIGH + (2.0 * s * _horner(s * s, _ATANH) + k * _LN2_LOW)
    return out


def _inverse_factorials(terms: int) -> tuple[float, ...]:
    out, value = [], 1
    for i in range(terms):
        value *= max(i, 1)
        out.append(1.0 / value)
    return tuple(out)


_EXP = _inverse_factorials(15)  # |r| ≤ ln(2)/2: the 15th term is below 2**-60


def exp(x: Floats) -> Floats:
    """e**x; 0 below -745, infinite above 709.78."""
    clipped = np.clip(x, -800.0, 800.0)
    k = np.floor(clipped * 1.4426950408889634 + 0.5)
    r = (clipped - k * _LN2_HIGH) - k * _LN2_LOW
    with np.errstate(over="ignore", under="ignore"):
        out: Floats = np.ldexp(_horner(r, _EXP), k.astype(np.int32))
    return out


def power(base: Floats, exponent: float) -> Floats:
    """base**exponent for positive bases; exact operations where the exponent is a small integer."""
    if float(exponent).is_integer() and 0 <= abs(exponent) <= 8:
        out = np.ones_like(base)
        for _ in range(abs(int(exponent))):
            out = out * base
        return out if exponent >= 0 else 1.0 / out
    return exp(exponent * log(base))


# cos t = 1 - t²/2! + t⁴/4! - …; t ≤ pi/2 after the reduction, where the 13th term is below 2**-63.
_COS = tuple((-1) ** i / math.factorial(2 * i) for i in range(13))


def cosine(turns: Floats) -> Floats:
    """The cosine of so many whole turns (cos 2 pi x) of finite doubles; exact where it is 1, 0 or -1."""
    part = np.abs(turns - np.rint(turns))  # exact: the distance from a whole turn, at most a half
    beyond = part > 0.25
    angle = np.where(beyond, 0.5 - part, part) * 6.283185307179586
    value = np.where(part == 0.25, 0.0, _horner(angle * angle, _COS))
    out: Floats = np.where(beyond, -value, value)
    return out


# Algorithm AS 241 (PPND16), M. J. Wichura, Applied Statistics 37 (1988), 477–484; relative error about 1e-16.
_A = (
    3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
    4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3,
)  # fmt: skip
_B = (
    1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
    2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3,
)  # fmt: skip
_C = (
    1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
    1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4,
)  # fmt: skip
_D = (
    1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
    1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9,
)  # fmt: skip
_E = (
    6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
    2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7,
)  # fmt: skip
_F = (
    1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
    7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15,
)  # fmt: skip


def normal_quantile(u: Floats) -> Floats:
    """The standard normal value below which a share ``u`` in (0, 1) lies."""
    q = u - 0.5
    r = 0.180625 - q * q
    out: Floats = q * _horner(r, _A) / _horner(r, _B)
    tail = np.flatnonzero(np.abs(q) > 0.425)
    if len(tail):
        qt = q[tail]
        r = np.sqrt(-log(np.where(qt < 0, u[tail], 1.0 - u[tail])))
        near, far = r - 1.6, r - 5.0
        value = np.where(r <= 5.0, _horner(near, _C) / _horner(near, _D), _horner(far, _E) / _horner(far, _F))
        out[tail] = np.where(qt < 0, -value, value)
    return out


def round_to(x: Floats, decimals: int | None) -> Floats:
    """``x`` to that many decimals, halves to even; as it is for None. Never a negative zero. Doubles that are too large
    to have so many decimals stay as they are."""
    if decimals is None:
        return x
    scale = float(10**decimals)
    large = np.abs(x) >= 2.0**53 / scale
    if large.any():
        return np.where(large, x, round_to(np.where(large, 0.0, x), decimals))
    out: Floats = np.rint(x * scale) / scale + 0.0
    return out


def as_floats(values: Any) -> Floats:
    """The values as one array of doubles."""
    return np.asarray(values, np.float64)
