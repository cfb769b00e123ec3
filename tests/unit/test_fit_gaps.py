"""Ascending times of a sample: which law their gaps follow, and the shape of it, recovered from the sample alone."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import simlink
from simlink import arrivals, fields
from simlink.generators.fitting.gaps import _gamma, _weibull


def fitted(law, *, format="ms", seed=3, count=6_000):
    """What fit() writes of times that follow this law."""
    sample = simlink.record("r", at=fields.event_time(arrivals=arrivals.parse(law), format=format), seed=seed)
    source = simlink.fit(sample[:count], seed=1).source()
    scope = {}
    exec(source, scope)  # what is printed can be run
    assert len(scope["generator"][:10]) == 10
    return re.search(r"arrivals=simlink\.arrivals\.(\w+)\(\s*([\d.]+)(?:,\s*(\w+)=([\d.]+))?", source).groups()


@pytest.mark.parametrize("format", ["ms", "us", "iso"])
@pytest.mark.parametrize(
    ("law", "name", "rate", "option", "value"),
    [
        ("gamma(50, cv=2)", "gamma", 50, "cv", 2),
        ("gamma(50, cv=0.5)", "gamma", 50, "cv", 0.5),
        ("gamma(5, cv=1.3)", "gamma", 5, "cv", 1.3),
        ("weibull(50, shape=0.5)", "weibull", 50, "shape", 0.5),
        ("weibull(5, shape=2)", "weibull", 5, "shape", 2),
    ],
)
def test_the_law_and_its_shape_are_recovered(format, law, name, rate, option, value):
    found = fitted(law, format=format)
    assert (found[0], found[2]) == (name, option)
    # The rate as good as the mean of so many gaps tells it; the shape within 6 %.
    spread = value if option == "cv" else math.sqrt(math.gamma(1 + 2 / value) / math.gamma(1 + 1 / value) ** 2 - 1)
    assert abs(float(found[1]) / rate - 1) < 4 * spread / math.sqrt(6_000)
    assert float(found[3]) == pytest.approx(value, rel=0.06)


def test_random_times_stay_random():
    for seed in range(20):
        assert fitted("poisson(20)", seed=seed, count=2_000)[0] == "poisson"


@pytest.mark.parametrize(
    ("law", "options"),
    [("gamma(50, cv=2)", {"format": "s"}), ("gamma(5, cv=1.3)", {"count": 150}), ("gamma(5, cv=1.01)", {})],
)
def test_what_the_sample_cannot_tell_is_not_claimed(law, options):
    # Times cut to whole seconds, too few of them, a difference that chance may make.
    assert fitted(law, **options)[0] == "poisson"


@given(st.floats(0.01, 60), st.floats(0.3, 9))
def test_the_distribution_functions_are_those_of_their_densities(shape, most):
    for law, low in ((_gamma, 0.0), (_weibull, 0.1)):
        at = np.linspace(0.01, most, 50)
        made = law(at, max(shape, low))
        assert np.all((made >= 0) & (made <= 1))
        assert np.all(np.diff(made) >= -1e-9)
    # Of whole shapes the gamma distribution is that of a sum of exponentials (Erlang).
    n = max(1, int(shape) % 20)
    at = np.linspace(0.01, 3, 40)
    terms = sum((n * at) ** k / math.factorial(k) for k in range(n))
    assert _gamma(at, float(n)) == pytest.approx(1 - np.exp(-n * at) * terms, abs=1e-9)
    assert _weibull(at, 1.0) == pytest.approx(1 - np.exp(-at), abs=1e-12)
