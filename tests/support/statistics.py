"""Whether a sample follows a law, without a statistics package."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["chi_square", "kolmogorov", "normal_cdf"]


def chi_square(observed: Sequence[float], expected: Sequence[float]) -> float:
    """The probability of a deviation this large or larger, of counts from expected counts (or shares, which are scaled
    to the same total). Cells that expect less than 5 are put together. By Wilson and Hilferty's cube root (1931)."""
    counts, shares = np.asarray(observed, float), np.asarray(expected, float)
    assert counts[shares == 0].sum() == 0, "something happened that cannot"
    wanted = shares / shares.sum() * counts.sum()
    small = wanted < 5
    if small.any():
        counts = np.append(counts[~small], counts[small].sum())
        wanted = np.append(wanted[~small], wanted[small].sum())
        counts, wanted = counts[wanted > 0], wanted[wanted > 0]
    freedom = len(counts) - 1
    value = float(((counts - wanted) ** 2 / wanted).sum())
    z = ((value / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    return 0.5 * math.erfc(z / math.sqrt(2))


def kolmogorov(sample: Sequence[float], cdf: Callable[[np.ndarray], np.ndarray]) -> float:
    """The largest distance of the sample's distribution from a continuous law, times the root of its size; 1.95 is
    passed once in a thousand samples that follow the law."""
    values = np.sort(np.asarray(sample, float))
    n = len(values)
    law = cdf(values)
    steps = np.arange(n + 1) / n
    return math.sqrt(n) * float(max((steps[1:] - law).max(), (law - steps[:-1]).max()))


def normal_cdf(values: np.ndarray) -> np.ndarray:
    """Of the standard normal law."""
    return 0.5 * np.array([math.erfc(-v / math.sqrt(2)) for v in values])
