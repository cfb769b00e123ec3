"""Who is an outlier: failures in a row, and success rates far below the others'."""

from simlink.health.outlier import Outliers


def feed(outliers, now, rates, count=100):
    """Each endpoint has so many outcomes at ``now``, of which its rate succeeds, evenly."""
    found = []
    for number in range(count):
        for name, rate in rates.items():
            found += outliers.record(name, now, ok=(number * rate) % 1 + rate >= 1)
    return found


def names(found):
    return [name for name, _ in found]


def test_a_success_in_between_starts_the_count_again():
    outliers = Outliers(consecutive=3)
    found = [outliers.record("a", 0.0, ok=ok) for ok in (False, False, True, False, False)]
    assert found == [[]] * 5
    assert outliers.record("a", 0.0, ok=False) == [("a", "3 failures in a row")]
    assert outliers.record("a", 0.0, ok=False) == []  # told once; the next time takes as many again


def test_a_rate_far_below_the_others_is_told_when_the_bucket_ends():
    outliers = Outliers(consecutive=1000)
    rates = {"a": 0.5, "b": 0.99, "c": 0.98, "d": 1.0, "e": 0.99, "f": 0.97}
    assert feed(outliers, 0.5, rates) == []
    assert outliers.record("b", 1.5, ok=True) == [("a", "50.0% succeed, 90.2% on average")]


def test_rates_that_are_alike_are_no_outliers_however_alike():
    outliers = Outliers(consecutive=1000)
    feed(outliers, 0.5, {"a": 0.995, "b": 1.0, "c": 1.0, "d": 1.0, "e": 1.0, "f": 1.0}, count=1000)
    assert outliers.record("b", 1.5, ok=True) == []


def test_rates_that_are_spread_wide_have_no_outlier():
    outliers = Outliers(consecutive=1000)
    feed(outliers, 0.5, {"a": 0.8, "b": 0.84, "c": 0.88, "d": 0.92, "e": 0.96, "f": 1.0})
    assert outliers.record("b", 1.5, ok=True) == []


def test_few_outcomes_or_few_endpoints_say_nothing():
    rates = {"a": 0.2, "b": 1.0, "c": 1.0, "d": 1.0, "e": 1.0, "f": 1.0}
    few = Outliers(consecutive=1000)
    feed(few, 0.5, rates, count=99)
    assert few.record("b", 1.5, ok=True) == []
    small = Outliers(consecutive=1000)
    feed(small, 0.5, dict(list(rates.items())[:4]))
    assert small.record("b", 1.5, ok=True) == []


def test_what_is_older_than_the_window_is_forgotten():
    outliers = Outliers(consecutive=1000, window=10.0)
    feed(outliers, 0.5, {"a": 0.2, "b": 1.0, "c": 1.0, "d": 1.0, "e": 1.0, "f": 1.0})
    assert names(outliers.record("b", 9.5, ok=True)) == ["a"]
    outliers.record("b", 10.5, ok=True)
    assert outliers.record("b", 11.5, ok=True) == []
    assert sorted(outliers._buckets) == [9, 10, 11]


def test_each_ejection_is_longer_and_time_makes_up_for_them():
    outliers = Outliers(rest=30.0, longest=100.0)
    assert outliers.ejected("a", 0.0) == 30.0
    assert outliers.ejected("a", 30.0) == 90.0
    assert outliers.ejected("a", 90.0) == 180.0
    assert outliers.ejected("a", 180.0) == 280.0  # not 120 s: the longest is 100
    assert outliers.ejected("a", 10_000.0) == 10_030.0


def test_how_many_may_be_ejected():
    outliers = Outliers()
    assert [outliers.most(total) for total in (1, 5, 10, 19, 20, 100)] == [1, 1, 1, 1, 2, 10]


def test_what_an_ejected_one_did_before_counts_no_more():
    outliers = Outliers(consecutive=3)
    for _ in range(2):
        outliers.record("a", 0.0, ok=False)
    outliers.ejected("a", 0.0)
    assert outliers.record("a", 30.0, ok=False) == []
    outliers.forget("a")
    assert outliers._records == {}
