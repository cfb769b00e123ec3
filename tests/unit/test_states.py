"""AR(1) noise, random walks and seasons: the laws that they claim, and no seam where blocks meet."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink import fields
from simlink.errors import ConfigError
from simlink.generators import portable
from simlink.generators.fields.states import recur
from simlink.generators.generator import BLOCK_ROWS
from simlink.generators.record import record
from tests.support.statistics import kolmogorov, normal_cdf

BLOCKS = 64
SEAMS = np.arange(1, BLOCKS) * BLOCK_ROWS


def column(field, blocks=BLOCKS, first=0, **others):
    generator = record("r", seed=11, **others, x=field)
    return np.concatenate([np.asarray(generator.make_block(first + k).columns["x"]) for k in range(blocks)])


@pytest.mark.parametrize("phi", [0.95, 0.0, -0.6])
def test_ar1_is_normal_and_remembers_as_told(phi):
    x = (column(fields.ar1(20, 2, phi)) - 20) / 2
    # Every hundredth row is as good as independent.
    assert kolmogorov(x[::100], normal_cdf) < 1.95
    size = math.sqrt((1 + phi * phi) / (1 - phi * phi) / len(x))
    for lag in (1, 2, 5, 20):
        assert abs(np.mean(x[lag:] * x[:-lag]) - phi**lag) < 4 * size
    news = (x[1:] - phi * x[:-1]) / math.sqrt(1 - phi * phi)
    assert kolmogorov(news, normal_cdf) < 1.95


def test_ar1_has_no_seam_between_blocks():
    x = column(fields.ar1(phi=0.95))
    news = (x[SEAMS] - 0.95 * x[SEAMS - 1]) / math.sqrt(1 - 0.95**2)
    assert kolmogorov(news, normal_cdf) < 1.95
    after = (x[SEAMS + 1] - 0.95 * x[SEAMS]) / math.sqrt(1 - 0.95**2)
    assert kolmogorov(after, normal_cdf) < 1.95


def test_the_first_rows_of_blocks_have_the_stationary_law():
    assert kolmogorov(column(fields.ar1(phi=0.99), blocks=400)[::BLOCK_ROWS], normal_cdf) < 1.95


def test_each_entity_has_noise_of_its_own():
    generator = record("r", seed=11, who=fields.zipf(20, 0.5), x=fields.ar1(phi=0.9, by="who"))
    pairs = []
    for k in range(8):
        columns = generator.make_block(k).columns
        for who in range(20):
            own = columns["x"][np.asarray(columns["who"]) == who]
            pairs.append(np.stack([own[:-1], own[1:]]))
    before, after = np.concatenate(pairs, axis=1)
    assert kolmogorov((after - 0.9 * before) / math.sqrt(1 - 0.81), normal_cdf) < 1.95
    assert abs(np.std(after) - 1) < 0.05


def test_a_walk_goes_on_from_block_to_block():
    x = column(fields.walk(100, 0.5, decimals=None))
    assert x[0] == 100
    steps = np.diff(x) / 0.5
    assert kolmogorov(steps, normal_cdf) < 1.95
    assert kolmogorov(steps[SEAMS - 1], normal_cdf) < 1.95
    assert abs(np.corrcoef(steps[1:], steps[:-1])[0, 1]) < 4 / math.sqrt(len(steps))


def test_a_walk_spreads_with_the_root_of_its_length():
    far = [
        record("r", seed=seed, x=fields.walk(decimals=None))[rows]["x"] / math.sqrt(rows)
        for seed, rows in enumerate([BLOCK_ROWS * 3, BLOCK_ROWS * 1000, 2**40 + 17, 10**15] * 40)
    ]
    assert kolmogorov(far, normal_cdf) < 1.95


def test_a_walk_is_reflected_at_its_bounds():
    free = column(fields.walk(5, 0.3, decimals=None), blocks=16)
    kept = column(fields.walk(5, 0.3, low=0, high=10, decimals=None), blocks=16)
    assert 0 <= kept.min() < 0.1
    assert 9.9 < kept.max() <= 10
    assert np.abs(np.diff(kept)).max() <= np.abs(np.diff(free)).max() + 1e-9
    # In the long run it is everywhere alike.
    late = column(fields.walk(5, 3, low=0, high=10, decimals=None))[:: BLOCK_ROWS // 16]
    assert kolmogorov(late, lambda v: v / 10) < 1.95


def test_walks_of_entities_begin_anew_with_each_block():
    generator = record("r", seed=3, who=fields.integer(0, 3), x=fields.walk(1, 0.1, by="who"))
    for k in range(3):
        columns = generator.make_block(k).columns
        _, first = np.unique(columns["who"], return_index=True)
        assert columns["x"][first].tolist() == [1.0] * 4


def test_in_a_list_they_begin_anew():
    rows = record("r", seed=3, xs=fields.list(fields.walk(7, 1), 2, 5))[:50]
    assert {7.0} == {row["xs"][0] for row in rows}


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-1, 1), st.lists(st.tuples(st.floats(-5, 5), st.booleans(), st.floats(-5, 5)), min_size=1, max_size=200)
)
def test_a_recurrence_in_stretches_is_the_recurrence_row_by_row(factor, rows):
    shocks, first, begins = (np.array(values) for values in zip(*rows, strict=True))
    first[0] = True
    value, expected = 0.0, []
    for shock, anew, begin in zip(shocks, first, begins, strict=True):
        value = begin if anew else value * factor + shock
        expected.append(value)
    assert np.allclose(expected, recur(factor, shocks, first, begins), atol=1e-9)


def test_the_cosine_is_the_cosine():
    turns = np.concatenate([np.linspace(-3, 3, 10_001), [0, 0.25, 0.5, 0.75, 1e6 + 0.125]])
    assert np.abs(portable.cosine(turns) - np.cos(2 * np.pi * np.mod(turns, 1))).max() < 1e-14
    assert portable.cosine(np.array([0, 0.25, 0.5, -0.25, 7.0])).tolist() == [1, 0, -1, 0, 1]


def test_seasons_are_added_by_nesting():
    day = fields.season("t", "day", 4, around=fields.season("t", "year", 8, around=10, peak=0.5), peak=15 / 24)
    rows = record("r", seed=1, t=fields.event_time("1970-07-02T15:00:00Z", step=3600), x=day)[:25]
    # The middle of the year, three in the afternoon: both are highest.
    assert abs(rows[0]["x"] - 22) < 0.01
    assert abs(rows[12]["x"] - 14) < 0.01
    assert abs(rows[24]["x"] - 22) < 0.01


@pytest.mark.parametrize("format", ["s", "ms", "us"])
def test_a_week_begins_on_monday(format):
    field = fields.season("t", "week", 1, unit=format)
    row = record("r", seed=1, t=fields.event_time("2025-01-06", format=format), x=field)[0]
    assert row["x"] == 1.0


def test_a_season_over_any_numbers_and_gaps():
    field = fields.season("n", 4)
    rows = record("r", seed=1, i=fields.sequence(), n=fields.when("i", lambda i: i != 2, fields.ref("i")), x=field)[:5]
    assert [row["x"] for row in rows] == [1.0, 0.0, None, 0.0, 1.0]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: fields.ar1(std=-1), "std is not negative"),
        (lambda: fields.ar1(phi=1), "below 1"),
        (lambda: fields.ar1(mean=math.nan), "finite number"),
        (lambda: fields.ar1(by=3), "name of an earlier field"),
        (lambda: fields.walk(step=-1), "step is not negative"),
        (lambda: fields.walk(low=0), "both low and high"),
        (lambda: fields.walk(20, low=0, high=10), "low <= start <= high"),
        (lambda: fields.walk(step=True), "finite number"),
        (lambda: fields.season("t", "dya"), "did you mean 'day'"),
        (lambda: fields.season("t", 0), "above 0"),
        (lambda: fields.season("t", unit="m"), "unknown unit"),
        (lambda: fields.season("t", amplitude="x"), "finite number"),
        (lambda: fields.season(3), "by its name"),
        (lambda: record("r", x=fields.ar1(by="later"), later=1), "comes after"),
        (lambda: record("r", x=fields.season("t")), "no earlier field"),
        (lambda: record("r", t="text", x=fields.season("t")), "over numbers"),
        (lambda: record("r", t=1, x=fields.season("t", around=fields.uuid())), "field of numbers"),
        (lambda: record("r", k=1, x=fields.ref("k", fields.walk())), "not an attribute"),
        (lambda: record("r", k=1, x=fields.list(fields.ar1(by="k"))), "not in a list"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_built(make, said):
    with pytest.raises(ConfigError, match=said):
        make()
