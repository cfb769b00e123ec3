"""numbers: digits by weight, and a tally that sees what ten ordered queues did wrong."""

from __future__ import annotations

import math
import random

import pytest

from simlink.errors import ConfigError
from simlink.generators import catalog
from simlink.generators.catalog._tally import Tally
from simlink.generators.catalog.numbers import FAULTS
from tests.support.statistics import chi_square, kolmogorov

WEIGHTS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 64]


def test_digits_come_by_their_weights():
    rows = catalog.numbers(seed=7, weights=WEIGHTS)[:50_000]
    seen = [0] * 10
    for row in rows:
        seen[row["number"] % 10] += 1
    assert chi_square(seen, WEIGHTS) > 1e-3
    assert seen[0] == 0


@pytest.mark.parametrize("high", [10, 1_000_000_000, 10**18])
def test_what_stands_before_the_digit_is_even(high):
    numbers = [row["number"] for row in catalog.numbers(seed=8, high=high)[:20_000]]
    assert 0 <= min(numbers) <= max(numbers) < high
    if high > 10:
        assert kolmogorov(numbers, lambda v: v / high) < 1.95


def test_the_expected_counts_are_those_of_the_rows():
    generator = catalog.numbers(seed=7, weights={3: 1, 5: 2})
    rows = generator[:10_000]
    expected = generator.expected(10_000)
    assert expected.counts == [sum(r["number"] % 10 == d for r in rows) for d in range(10)]
    assert expected.sums == [sum(r["number"] for r in rows if r["number"] % 10 == d) for d in range(10)]
    assert (expected.total, expected.counts[4]) == (10_000, 0)
    assert pytest.approx(generator.weights) == [0, 0, 0, 1 / 3, 0, 2 / 3, 0, 0, 0, 0]
    assert generator.take(10_000).expected() == expected


def test_queues_may_be_emptied_in_any_order_but_each_in_its_own():
    generator = catalog.numbers(seed=7)
    rows = generator[:5_000]
    queues = [[row for row in rows if row["number"] % 10 == digit] for digit in range(10)]
    random.Random(1).shuffle(queues)
    received = generator.tally()
    for queue in queues:
        received.add(queue)
    assert generator.expected(5_000) == received
    assert generator.expected(5_000).differences(received) == {}


def test_what_went_wrong_is_told_by_digit():
    expected = Tally().add([1, 11, 21, 2, 12, 3, 13, 4])
    got = Tally().add([11, 1, 21, 2, 3, 23, 4])
    assert expected.differences(got) == {1: "another order", 2: "1 numbers instead of 2", 3: "other numbers"}
    assert expected != got
    assert expected != "a tally"


def test_sums_do_not_overflow():
    assert sum(Tally().add([2**63 - 8] * 9).sums) == 9 * (2**63 - 8)


def test_presets_name_fields_that_are_there():
    schema = catalog.numbers(seed=7).schema
    assert {a["field"] for preset in FAULTS.values() for _, a in preset if "field" in a} <= set(schema)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: catalog.numbers(weights=[1] * 9), "ten"),
        (lambda: catalog.numbers(weights=[-1] + [1] * 9), "weights"),
        (lambda: catalog.numbers(weights=[math.nan] * 10), "weights"),
        (lambda: catalog.numbers(weights=[0] * 10), "weights"),
        (lambda: catalog.numbers(weights={10: 1}), "digits 0 to 9"),
        (lambda: catalog.numbers(high=15), "multiple of ten"),
        (lambda: catalog.numbers(seed=1).expected(), "how many"),
        (lambda: catalog.numbers(seed=1).expected(-1), "how many"),
        (lambda: catalog.numbers(seed=1).select("id").expected(5), "no field 'number'"),
        (lambda: Tally().add(["7"]), "counts integers"),
        (lambda: Tally().add([-7]), "counts integers"),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()
