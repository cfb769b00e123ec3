"""Markov chains: what they make is what the transitions say, in any block, and without a loop over rows."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink import fields
from simlink.errors import ConfigError
from simlink.generators.fields.chains import _BITS, Chain, Shelves, stationary
from simlink.generators.generator import BLOCK_ROWS
from simlink.generators.record import record
from tests.support.statistics import chi_square

WEATHER = {
    "sun": {"sun": 7, "cloud": 3},
    "cloud": {"sun": 3, "cloud": 4, "rain": 3},
    "rain": {"cloud": 6, "rain": 4},
}
ROWS = 20 * BLOCK_ROWS


def states(**more):
    generator = record("day", seed=5, host=fields.zipf(40, 0.8), weather=fields.markov(WEATHER, **more))
    return generator[:ROWS]


def test_transitions_are_as_likely_as_their_weights():
    rows = [row["weather"] for row in states()]
    followed = Counter((a, b) for i, (a, b) in enumerate(pairwise(rows), 1) if i % BLOCK_ROWS)
    for state, row in WEATHER.items():
        observed = [followed[state, other] for other in WEATHER]
        assert chi_square(observed, [row.get(other, 0) for other in WEATHER]) > 1e-3


def test_every_row_has_the_shares_of_the_long_run():
    # (2, 2, 1) / 5: what goes from sun to cloud comes back, and from cloud to rain likewise.
    rows = [
        row["weather"] for row in record("day", seed=9, weather=fields.markov(WEATHER))[: 400 * BLOCK_ROWS : BLOCK_ROWS]
    ]
    assert chi_square([rows.count(state) for state in WEATHER], [2, 2, 1]) > 1e-3


@pytest.mark.parametrize(("start", "expected"), [("rain", {"rain"}), ({"sun": 1, "cloud": 1}, {"sun", "cloud"})])
def test_a_block_begins_as_told(start, expected):
    firsts = [row["weather"] for row in states(start=start)[::BLOCK_ROWS]]
    assert expected == set(firsts)


def test_each_entity_has_a_chain_of_its_own():
    rows = states(by="host")
    followed = Counter()
    for block in range(0, ROWS, BLOCK_ROWS):
        latest = {}
        for row in rows[block : block + BLOCK_ROWS]:
            if row["host"] in latest:
                followed[latest[row["host"]], row["weather"]] += 1
            latest[row["host"]] = row["weather"]
    for state, row in WEATHER.items():
        assert chi_square([followed[state, other] for other in WEATHER], [row.get(o, 0) for o in WEATHER]) > 1e-3
    assert (
        followed["sun", "rain"] == 0 < sum(a["weather"] == "sun" and b["weather"] == "rain" for a, b in pairwise(rows))
    )


def test_keys_may_be_text():
    hosts = fields.choice(a=3, b=2, c=1)
    rows = record("day", seed=5, host=hosts, weather=fields.markov(WEATHER, "sun", by="host"))[:BLOCK_ROWS]
    latest = {}
    for row in rows:
        before = latest.get(row["host"])
        assert row["weather"] in (WEATHER[before] if before else {"sun"})
        latest[row["host"]] = row["weather"]


def test_a_list_begins_anew():
    days = fields.list(fields.markov(WEATHER, "sun"), 1, 9)
    for row in record("week", seed=3, days=days)[:2000]:
        assert row["days"][0] == "sun"
        assert all(b in WEATHER[a] for a, b in pairwise(row["days"]))


def test_blocks_are_made_alone():
    make = lambda: record("day", seed=5, host=fields.zipf(9), weather=fields.markov(WEATHER, by="host"))  # noqa: E731
    whole = make()[: 4 * BLOCK_ROWS]
    assert [row for k in (3, 0, 2, 1) for row in make().block(k).rows()] == [
        row for k in (3, 0, 2, 1) for row in whole[k * BLOCK_ROWS : (k + 1) * BLOCK_ROWS]
    ]


@settings(deadline=None)  # the machine may be busy
@given(st.data())
def test_walking_is_stepping(data):
    n = data.draw(st.integers(1, 5))
    weight = st.integers(0, 3)
    rows = [data.draw(st.lists(weight, min_size=n, max_size=n).filter(any)) for _ in range(n)]
    length = data.draw(st.integers(1, 300))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    draws = rng.integers(0, 2**_BITS, length)
    begins = rng.integers(0, n, length)
    first = rng.random(length) < data.draw(st.sampled_from([0.0, 0.1, 1.0]))
    first[0] = True
    state, expected = 0, []
    for draw, begin, anew in zip(draws, begins, first, strict=True):
        limits = np.cumsum(rows[state]) / sum(rows[state]) * 2.0**_BITS
        state = int(begin) if anew else int(np.searchsorted(limits, draw, side="right"))
        expected.append(state)
    assert expected == Chain("test", rows).walk(draws, begins, first).tolist()


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.lists(st.floats(0, 1e6), min_size=1, max_size=200).filter(any), min_size=1, max_size=5))
def test_shelves_are_searched_exactly(weights):
    weights = [[math.ldexp(1, -30) if 0 < w < 1e-9 else w for w in row] for row in weights]
    shelves = Shelves("test", weights)
    rng = np.random.default_rng(1)
    rows = rng.integers(0, len(weights), 500)
    words = rng.integers(0, 2**64, 500, dtype=np.uint64)
    words[:2] = 0, 2**64 - 1
    found = shelves(rows, words)
    first = np.cumsum([0, *map(len, weights)])
    for row, word, index in zip(rows.tolist(), words.tolist(), found.tolist(), strict=True):
        place = index - first[row]
        assert 0 <= place < len(weights[row])
        assert weights[row][place] > 0
        below, upto = math.fsum(weights[row][:place]), math.fsum(weights[row][: place + 1])
        total = math.fsum(weights[row])
        assert below / total - 1e-9 <= word / 2**64 <= upto / total + 1e-9


def test_the_stationary_law_is_the_one_that_stays():
    rows = [[0, 3, 1, 2], [1, 0, 5, 0], [2, 2, 2, 2], [9, 0, 0, 1]]
    law = np.array(stationary(rows))
    moves = np.array(rows) / np.sum(rows, axis=1, keepdims=True)
    assert np.allclose(law @ moves, law, rtol=0, atol=1e-15)
    assert math.isclose(law.sum(), 1)
    assert stationary([[1, 1], [0, 1]]) is None
    assert stationary([[1]]) == [1.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fields.markov({}), "a state at least"),
        (lambda: fields.markov([1]), "a mapping"),
        (lambda: fields.markov({"a": 1}), "after 'a': expected a mapping"),
        (lambda: fields.markov({"sun": {"sn": 1}}), "did you mean 'sun'"),
        (lambda: fields.markov({"a": {"a": -1}}), "not negative"),
        (lambda: fields.markov({"a": {"a": math.nan}}), "finite"),
        (lambda: fields.markov({"a": {"a": 0}}), "not all 0"),
        (lambda: fields.markov({"a": {}}), "not all 0"),
        (lambda: fields.markov({"a": {"b": 1}, "b": {"b": 1}}), "say start="),
        (lambda: fields.markov(WEATHER, "snow"), "nothing is said about the state 'snow'"),
        (lambda: fields.markov(WEATHER, by=3), "by= is the name"),
        (lambda: fields.markov({i: {0: 1} for i in range(257)}), "at most 256"),
        (lambda: record("r", x=fields.markov(WEATHER, by="y")), "no earlier field 'y'"),
        (lambda: record("r", y=1, x=fields.ref("y", fields.markov(WEATHER))), "not an attribute of an entity"),
        (lambda: record("r", y=1, x=fields.list(fields.markov(WEATHER, by="y"))), "no place in a list"),
    ],
)
def test_what_cannot_be_walked_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
