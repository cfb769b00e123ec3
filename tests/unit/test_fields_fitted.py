"""The fields that types and samples need: missing values, alternatives, patterns, quantiles, instants, coupled ones."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import simlink
from simlink import fields
from simlink.errors import ConfigError
from simlink.generators.fields.coupling import normal_cdf
from simlink.generators.fields.patterns import widths


def column(field, rows=20_000, **others):
    g = simlink.record("r", **others, x=field, seed=7)
    return [row["x"] for row in g[:rows]]


def ranks(values):
    return np.argsort(np.argsort(values, kind="stable"), kind="stable")


def spearman(a, b):
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def test_maybe_hides_values_and_changes_none():
    plain, some = column(fields.zipf(100)), column(fields.maybe(fields.zipf(100), 0.25))
    assert all(a == b or b is None for a, b in zip(plain, some, strict=True))
    # A share of 0.25 of 20,000 has a standard deviation of 61.
    assert abs(some.count(None) - 5_000) < 4 * 61
    assert column(fields.maybe(5, 0), 100) == [5] * 100
    assert column(fields.maybe(fields.when("y", True, 5), 1), 100, y=fields.boolean()) == [None] * 100


def test_one_of_takes_by_weight():
    values = column(fields.one_of([fields.integer(0, 9), "none", fields.record(a=1)], [6, 3, 1]))
    assert abs(values.count("none") - 6_000) < 4 * 65
    assert abs(values.count({"a": 1}) - 2_000) < 4 * 43
    assert {v for v in values if isinstance(v, int)} == set(range(10))
    assert (
        simlink.record("r", x=fields.one_of([fields.integer(0, 9), fields.integer(90, 99)]))
        .schema.fields["x"]
        .kind.value
        == "int"
    )


@pytest.mark.parametrize(
    "pattern",
    [r"[A-Z]{2}-\d{4}(-dev|-prod)?", r"^a+b*c$", r"\w{1,3}\s[^a-y0-9]?", r"x|yy|(z{2,3}){2}",
     r".", r"[^\d]{3}", r"\D\W", "", r"é[à-ü]?"],
)  # fmt: skip
def test_matching_writes_what_matches(pattern):
    values = column(fields.matching(pattern), 500)
    assert all(re.fullmatch(pattern, value) for value in values)
    low, high = widths(pattern)
    assert low <= min(map(len, values))
    assert max(map(len, values)) <= high


def test_matching_takes_every_branch_and_length_alike():
    values = column(fields.matching("a|b|c{1,2}"))
    counts = [sum(v == wanted for v in values) for wanted in ("a", "b")]
    assert all(abs(count - 20_000 / 3) < 4 * 67 for count in counts)
    assert abs(values.count("c") - 20_000 / 6) < 4 * 53


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(a", "not a regular"), (r"(a)\1", "back-reference"), ("a(?=b)", "look-ahead"), ("a^b", "anchor"),
     ("(?i)a", "flags"),
     ("a{2000}", "2,000 characters"), (r"\ba", "anchor"), (5, "is text"), ("(?i:a)", "subpattern")],
)  # fmt: skip
def test_matching_refuses_what_it_cannot_write(pattern, message):
    with pytest.raises(ConfigError, match=message):
        fields.matching(pattern)


@pytest.mark.parametrize("pattern", ["a++", "(?>a|ab)c"])
def test_matching_refuses_what_newer_patterns_have(pattern):
    with pytest.raises(ConfigError, match="is not supported"):
        fields.matching(pattern)


@pytest.mark.parametrize("there", [None, SimpleNamespace(parse=lambda pattern: [("LITERAL",)])])
def test_matching_says_where_python_shows_no_tree(monkeypatch, there):
    monkeypatch.setattr(re, "_parser", there)
    with pytest.raises(ConfigError, match=r"matching: .*this Python does not show .* fields\.text"):
        fields.matching("a|b")


def test_quantiles_are_those_of_the_table():
    values = np.array(column(fields.quantiles([0, 1, 5, 100], decimals=2)))
    assert np.array_equal(values, np.round(values, 2))
    for q, limit in ((1 / 3, 1), (2 / 3, 5)):
        assert abs((values <= limit).mean() - q) < 0.014
    assert (values.min() >= 0, values.max() <= 100) == (True, True)
    # Even between two of them: Kolmogorov–Smirnov, far beyond the 0.1 % level.
    part = np.sort(values[(values > 5)])
    assert np.abs((part - 5) / 95 - np.arange(1, len(part) + 1) / len(part)).max() < 2 / math.sqrt(len(part))
    whole = column(fields.quantiles([-2, 3], decimals=0))
    assert {type(v) for v in whole} == {int}
    assert set(whole) == {-2, -1, 0, 1, 2, 3}


@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=8), st.none() | st.integers(1, 9))
def test_quantiles_stay_within_their_table(table, decimals):
    table = sorted(table)
    values = column(fields.quantiles(table, decimals=None), 200)
    assert table[0] <= min(values) <= max(values) <= table[-1]


def test_moments_are_whole_grains_in_their_range():
    texts = column(fields.moment("2025-01-01", "2025-01-02", format="iso", grain=3600), 2_000)
    assert set(texts) == {f"2025-01-01T{hour:02d}:00:00.000Z" for hour in range(24)}
    assert set(column(fields.moment(0, 2, format="s", grain=1), 100)) == {0, 1}
    assert column(fields.moment(5, 5, format="us"), 3) == [5_000_000] * 3


def after(first, **rest):
    """A record whose first field is this."""
    return simlink.record("r", a=first, **rest)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fields.maybe(1, 1.5), "probability"),
        (lambda: fields.one_of([]), "nothing to choose"),
        (lambda: fields.one_of([1, 2], [1]), "2 fields, but 1 weights"),
        (lambda: fields.one_of([1, 2], [0, 0]), "not all 0"),
        (lambda: fields.quantiles([1]), "at least two"),
        (lambda: fields.quantiles([2, 1]), "ascend"),
        (lambda: fields.quantiles([1, math.nan]), "finite"),
        (lambda: fields.quantiles(["a", "b"]), "numbers"),
        (lambda: fields.quantiles([0, 2.0**60], decimals=0), "not exact"),
        (lambda: fields.moment("2025-01-01"), "at least two"),
        (lambda: fields.moment("2025-01-01", "2024-01-01"), "ascend"),
        (lambda: fields.moment(0, 1, grain=0), "grain"),
        (lambda: fields.moment(0, 1, format="x"), "format"),
        (lambda: fields.coupled(fields.uniform(), {"a": 2}), "from -1 to 1"),
        (lambda: fields.coupled(fields.uniform(), {"a": 0.8, "b": 0.7}), "more than 1"),
        (lambda: simlink.record("r", x=fields.coupled(fields.uniform(), {"y": 0.5})), "no earlier field 'y'"),
        (lambda: fields.coupled(fields.uniform(), ["a"]), "a mapping"),
        (lambda: fields.coupled(fields.uuid()), "one uniform number"),
        (lambda: fields.coupled(fields.when("a", 1, fields.uniform())), "one uniform number"),
        (lambda: after(fields.uniform(), x=fields.coupled(fields.uniform(), {"a": 0.5})), "'a' is not a coupled"),
        (
            lambda: after(fields.coupled(fields.uniform()), x={"y": fields.coupled(fields.uniform(), {"a": 0.5})}),
            "same",
        ),
        (
            lambda: after(
                fields.coupled(fields.uniform()), x=fields.list(fields.coupled(fields.uniform(), {"a": 0.5}))
            ),
            "same record",
        ),
    ],
)
def test_what_is_wrong_is_said_when_it_is_built(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_normal_distribution_function():
    z = np.linspace(-12, 12, 4_801)
    exact = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in z])
    assert np.abs(normal_cdf(z) - exact).max() < 1e-14
    assert normal_cdf(np.array([0.0, 40.0])).tolist() == [0.5, 1.0]
    assert normal_cdf(np.array([-40.0]))[0] < 1e-290


@pytest.mark.parametrize("weight", [-0.9, -0.3, 0.0, 0.5, 0.95, 1.0])
def test_coupled_fields_have_the_rank_correlation_and_keep_their_distribution(weight):
    g = simlink.record(
        "r",
        a=fields.coupled(fields.quantiles([0, 1, 5, 100])),
        b=fields.coupled(fields.integer(0, 999_999), {"a": weight}),
        c=fields.quantiles([0, 1, 5, 100]),
        seed=7,
    )
    rows = g[:20_000]
    a, b, c = ([row[n] for row in rows] for n in "abc")
    assert abs(spearman(a, b) - 6 / math.pi * math.asin(weight / 2)) < 4 / math.sqrt(20_000)
    assert abs(np.quantile(b, 0.1) - 100_000) < 9_000
    assert abs((np.array(a) <= 5).mean() - (np.array(c) <= 5).mean()) < 0.02


def test_a_coupling_reaches_through_conditions_and_nested_records():
    inner = {
        "price.net": fields.when("on", True, fields.coupled(fields.uniform(1, 9))),
        "weight": fields.when("on", True, fields.coupled(fields.lognormal(), {"price.net": 0.9})),
    }
    g = simlink.record("r", on=fields.boolean(), x=fields.record(**inner), seed=7)
    rows = [row["x"] for row in g[:10_000] if row["on"]]
    assert spearman([r["price.net"] for r in rows], [r["weight"] for r in rows]) > 0.85


@pytest.mark.parametrize("names", [("a#1", "a#2"), ("a.b", "a"), ("\\", "\\\\"), ("a\\", "a\\.b")])
@pytest.mark.parametrize("outside", ["r", "\\", "x#y.z"])
def test_a_coupling_knows_fields_by_any_name(names, outside):
    first, second = names
    both = {first: fields.coupled(fields.normal()), "alone": fields.coupled(fields.normal())}
    of_both = {**both, second: fields.coupled(fields.normal(), {first: 0.9})}
    rows = [row[outside] for row in simlink.record(outside, {outside: fields.record(**of_both)}, seed=7)[:4_000]]
    columns = {name: [row[name] for row in rows] for name in of_both}
    assert spearman(columns[first], columns[second]) > 0.8
    # A number of its own for each.
    apart = simlink.record("r", {first: both[first], second: fields.coupled(fields.normal())}, seed=7)[:4_000]
    assert abs(spearman([row[first] for row in apart], [row[second] for row in apart])) < 0.1


def test_an_attribute_can_be_coupled_under_a_name_of_its_own():
    g = simlink.record("r", k=fields.zipf(9), a=fields.ref("k", fields.coupled(fields.normal()), entity="k"), seed=7)
    assert len({(row["k"], row["a"]) for row in g[:1_000]}) == 9


def test_seeking_a_coupled_field_is_scanning_it():
    g = simlink.record("r", a=fields.coupled(fields.uniform()), b=fields.coupled(fields.zipf(9), {"a": -0.5}), seed=3)
    assert g[9_000:9_010] == g[:9_010][-10:]
