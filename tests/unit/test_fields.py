"""Each field: what it makes, what it refuses, and that it makes the same tomorrow."""

from __future__ import annotations

import datetime as dt
import enum
import math
import re
import statistics
import sys
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink import arrivals, fields
from simlink.block import Coded, Kind
from simlink.errors import ConfigError, MissingExtra
from simlink.generators import portable, seeding
from simlink.generators.fields.draws import _Guide, cumulative, scaled
from simlink.generators.record import record


def column(field, n=4096, **others):
    return [row["x"] for row in record("r", seed=1, **others, x=field)[:n]]


# --- where the numbers come from


def test_words_are_those_of_philox_at_the_blocks_counter():
    doubles = seeding.stream(7, "click.user", 3).random(4096)
    assert doubles.tolist() == seeding.to_uniform(seeding.words(7, "click.user", 3, 4096)).tolist()


def test_blocks_paths_and_seeds_have_words_of_their_own():
    draws = [seeding.words(*at, 8).tolist() for at in ((7, "a", 0), (7, "a", 1), (7, "b", 0), (8, "a", 0))]
    assert len({word for words in draws for word in words}) == 32


def test_open_uniform_never_reaches_its_ends():
    ends = seeding.to_open_uniform(np.array([0, 2**64 - 1], np.uint64)).tolist()
    assert ends == [2.0**-53, 1 - 2.0**-53]


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "7", True])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(ConfigError, match="a seed is an integer"):
        record("r", seed=seed, x=1)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(1, 2**64))
def test_scaled_is_the_upper_word_of_the_product(raw, span):
    expected = [word * span >> 64 for word in raw]
    assert expected == scaled(np.array(raw, np.uint64), span).tolist()


@settings(deadline=None)  # the machine may be busy
@given(st.floats(1e-300, 1e300))
def test_log_is_within_two_units_in_the_last_place(x):
    assert math.isclose(math.log(x), portable.log(np.array([x]))[0], rel_tol=5e-16, abs_tol=5e-16)


@settings(deadline=None)  # the machine may be busy
@given(st.floats(-700, 700))
def test_exp_is_within_two_units_in_the_last_place(x):
    assert math.isclose(math.exp(x), portable.exp(np.array([x]))[0], rel_tol=5e-16)


def test_exp_ends_in_zero_and_infinity():
    assert [0.0, math.inf] == portable.exp(np.array([-800.0, 800.0])).tolist()


@settings(deadline=None)  # the machine may be busy
@given(st.floats(1e-15, 1 - 1e-15))
def test_the_normal_quantile_agrees_with_the_standard_library(u):
    expected = statistics.NormalDist().inv_cdf(u)
    assert math.isclose(expected, portable.normal_quantile(np.array([u]))[0], rel_tol=1e-9, abs_tol=1e-12)


def test_rounding_knows_no_negative_zero_and_leaves_large_numbers():
    rounded = portable.round_to(np.array([-1e-9, 2.5e-6, 1e305]), 6).tolist()
    assert [repr(v) for v in rounded] == ["0.0", "2e-06", "1e+305"]


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200).filter(any))
def test_the_guide_table_finds_what_a_binary_search_finds(weights):
    limits = cumulative("test", weights)
    u = np.concatenate([seeding.to_uniform(seeding.words(1, "u", 0, 500)), limits[limits < 1], [0.0, 1 - 2.0**-53]])
    assert np.searchsorted(limits, u, side="right").tolist() == _Guide(limits)(u).tolist()


# --- numbers


def test_sequence_counts_rows():
    assert column(fields.sequence(10, -3), 3) == [10, 7, 4]
    assert record("r", seed=1, x=fields.sequence(step=3))[10**12]["x"] == 3 * 10**12


def test_a_sequence_that_leaves_64_bits_says_so():
    with pytest.raises(ConfigError, match="leaves the integers of 64 bits"):
        record("r", seed=1, x=fields.sequence(step=2**62))[0]


def test_integers_include_both_ends():
    assert {1, 2, 3} == set(column(fields.integer(1, 3)))
    assert {5} == set(column(fields.integer(5, 5)))


@pytest.mark.parametrize(("low", "high"), [(-(2**63), 2**63 - 1), (0, 2**64 - 1), (2**63, 2**63 + 9)])
def test_integers_span_64_bits(low, high):
    values = column(fields.integer(low, high))
    assert low <= min(values) <= max(values) <= high
    middle = (low + high) // 2
    assert 0.45 < sum(v > middle for v in values) / len(values) < 0.55


def test_uniform_stays_in_its_range_with_its_decimals():
    values = column(fields.uniform(-2, 2, decimals=1))
    assert {round(i / 10, 1) for i in range(-20, 21)} == set(values)


def test_real_numbers_have_six_decimals_unless_told_otherwise():
    for field in (fields.uniform(), fields.normal(), fields.lognormal()):
        assert all(v == round(v, 6) for v in column(field))
    assert any(v != round(v, 12) for v in column(fields.uniform(decimals=None)))


def test_normal_and_lognormal_have_their_moments():
    values = np.array(column(fields.normal(10, 2)))
    assert abs(values.mean() - 10) < 0.15
    assert abs(values.std() - 2) < 0.1
    assert abs(np.log(column(fields.lognormal(3, 0.5, decimals=None))).mean() - 3) < 0.05


def test_boolean_has_its_share():
    assert 0.27 < sum(column(fields.boolean(0.3))) / 4096 < 0.33
    assert {True} == set(column(fields.boolean(1)))
    assert {False} == set(column(fields.boolean(0)))


def test_choice_takes_keywords_a_mapping_or_a_sequence():
    wanted = {"a": 3 / 4, "b": 1 / 4}
    for field in (fields.choice(a=3, b=1), fields.choice({"a": 3, "b": 1}), fields.choice(["a", "b"], weights=[3, 1])):
        values = column(field)
        assert {"a", "b"} == set(values)
        assert all(abs(values.count(v) / 4096 - share) < 0.03 for v, share in wanted.items())


def test_a_weight_of_zero_is_never_drawn():
    assert {"b"} == set(column(fields.choice(a=0, b=1, c=0)))


def test_the_keys_of_a_dict_are_options_in_order():
    named = {"a": 1, "b": 2}
    assert column(fields.choice(named.keys())) == column(fields.choice(["a", "b"]))
    assert column(fields.pool(named.values())) == column(fields.pool([1, 2]))


def test_finite_sets_are_coded_in_one_pool():
    generator = record("r", seed=1, x=fields.choice(a=1, b=2), y=fields.text("A-##"), z="c")
    first, second = generator.make_block(0), generator.make_block(1)
    for name in "xyz":
        assert isinstance(first.columns[name], Coded)
        assert first.columns[name].pool is second.columns[name].pool


def test_zipf_follows_its_law_exactly_over_n_keys():
    values = np.array(column(fields.zipf(100, 1.0), 40_960))
    expected = 1 / np.arange(1, 101)
    expected /= expected.sum()
    shares = np.bincount(values, minlength=100) / len(values)
    assert len(shares) == 100
    assert np.abs(shares - expected).max() < 0.01
    assert {5, 6} == set(column(fields.zipf(2, 0, start=5)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fields.integer(2, 1), "low=2 is above high=1"),
        (lambda: fields.integer(-1, 2**63), "neither 64 signed nor 64 unsigned"),
        (lambda: fields.integer(0.5, 2), "low is an integer"),
        (lambda: fields.uniform(1, 0), "above high"),
        (lambda: fields.uniform(0, math.inf), "finite"),
        (lambda: fields.uniform(decimals=-1), "decimals"),
        (lambda: fields.normal(0, -1), "negative"),
        (lambda: fields.normal(0, 1e308), "largest double"),
        (lambda: fields.lognormal(700, 1), "largest double"),
        (lambda: fields.boolean(1.5), "from 0 to 1"),
        (fields.choice, "give options"),
        (lambda: fields.choice("ab"), "give options"),
        (lambda: fields.choice([]), "nothing to choose"),
        (lambda: fields.choice({"a", "b"}), "give options"),
        (lambda: fields.choice(5), "give options"),
        (lambda: fields.pool({"a", "b"}), "a sequence, not set"),
        (lambda: fields.one_of({"a": 9, "b": 1}), "in a list, not as dict"),
        (lambda: fields.one_of("ab"), "in a list, not as str"),
        (lambda: fields.choice({"a": 1}, b=1), "not two of them"),
        (lambda: fields.choice(["a"], weights=[1, 2]), "1 values, but 2 weights"),
        (lambda: fields.choice(a=-1, b=2), "weights must be"),
        (lambda: fields.choice(a=math.nan), "weights must be"),
        (lambda: fields.choice(a=0), "weights must be"),
        (lambda: fields.choice({"a": "x"}), "weights are numbers"),
        (lambda: fields.pool({"a": 1}), "sequence"),
        (lambda: fields.zipf(0), "from 1 to"),
        (lambda: fields.zipf(10, -1), "from 0 up"),
        (lambda: fields.sequence(step=0), "must not be 0"),
        (lambda: fields.sequence(2**63), "64 bits"),
        (lambda: fields.text(""), "pattern"),
        (lambda: fields.text("a\\"), "lone backslash"),
        (lambda: fields.text("a\0"), "NUL"),
        (lambda: fields.event_time(format="mss"), "did you mean 'ms'"),
        (lambda: fields.event_time(step=0), "above 0"),
        (lambda: fields.event_time(step=1e-9), "finer than a microsecond"),
        (lambda: fields.event_time("yesterday"), "ISO 8601"),
        (lambda: fields.event_time(step=1, arrivals=arrivals.constant(1)), "not both"),
        (lambda: fields.event_time(arrivals=5), "simlink.arrivals"),
        (lambda: fields.list(1, 3, 2), "min <= max"),
        (fields.record, "at least one field"),
        (lambda: fields.constant(object()), "plain values"),
        (lambda: fields.ref("a", []), "empty"),
        (lambda: fields.ref("a", {1: 2}, entity="x"), "entity="),
        (lambda: fields.when(3, 1, 2), "by its name"),
        (lambda: fields.sequence() | 3, "by a function"),
        (lambda: fields.sequence().returns(dict), "int, float, bool, str or bytes"),
        (lambda: record("r", x=[fields.sequence()]), "fields.list"),
        (lambda: record("r", x=fields.sequence), "call it"),
        (lambda: record("r"), "no fields"),
        (lambda: record("", x=1), "name"),
    ],
)
def test_what_cannot_be_honoured_is_refused(make, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        make()


# --- text and time


def test_uuids_are_version_4_and_distinct():
    values = column(fields.uuid())
    assert len(set(values)) == 4096
    assert all(str(uuid.UUID(v)) == v for v in values)
    assert {4} == {uuid.UUID(v).version for v in values}
    assert {uuid.RFC_4122} == {uuid.UUID(v).variant for v in values}


@pytest.mark.parametrize(
    ("pattern", "expression"),
    [
        ("SKU-####-??", r"SKU-\d{4}-[A-Z]{2}"),
        ("#", r"\d"),
        (r"\#\\é😀#^?", r"#\\é😀\d[0-9a-f][A-Z]"),
        ("^" * 40, r"[0-9a-f]{40}"),
        ("plain", "plain"),
    ],
)
def test_text_follows_its_pattern(pattern, expression):
    values = column(fields.text(pattern))
    assert all(re.fullmatch(expression, v) for v in values)


def test_every_place_of_a_long_pattern_takes_every_character():
    values = column(fields.text("#" * 30))
    assert all({*"0123456789"} == {v[place] for v in values} for place in range(30))


def test_event_time_steps_from_a_fixed_epoch():
    assert column(fields.event_time(), 2) == [1735689600000, 1735689601000]
    assert column(fields.event_time(step=dt.timedelta(hours=1), format="s"), 2) == [1735689600, 1735693200]
    at = dt.datetime(2024, 2, 29, 23, 59, 59, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert column(fields.event_time(at, step=1.5, format="iso"), 2) == [
        "2024-02-29T21:59:59.000Z",
        "2024-02-29T22:00:00.500Z",
    ]


def test_event_time_of_a_step_that_is_no_whole_number_does_not_drift():
    values = column(fields.event_time(0, step=1 / 3, format="us"))
    assert [round(i * 1e6 / 3) for i in range(4096)] == values


@settings(deadline=None)  # the machine may be busy
@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999 - 4096 * 1_500_000))
def test_iso_text_is_what_the_standard_library_writes(micros):
    rows = column(fields.event_time(micros / 1e6, step=1.5, format="iso"), 2)
    start = round(micros / 1e6 * 1e6)
    begin = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=start)
    spec = "milliseconds" if start % 1000 == 0 else "microseconds"
    expected = [(begin + i * dt.timedelta(seconds=1.5)).isoformat(timespec=spec) for i in range(2)]
    assert [text.replace("+00:00", "Z") for text in expected] == rows


def test_event_time_follows_arrivals_of_its_own():
    due = arrivals.poisson(100, seed=3).due(0, 5000)
    assert np.rint(due * 1e6).astype(int).tolist() == column(
        fields.event_time(0, arrivals=arrivals.poisson(100, seed=3), format="us"), 5000
    )
    drawn = column(fields.event_time(0, arrivals=arrivals.poisson(100), format="us"), 5000)
    assert drawn == sorted(drawn)
    assert drawn == column(fields.event_time(0, arrivals=arrivals.poisson(100), format="us"), 5000)


def test_arrivals_that_end_are_refused_as_event_time():
    with pytest.raises(ConfigError, match="end after 2"):
        record("r", x=fields.event_time(arrivals=arrivals.from_timestamps([0, 1])))


# --- fields of fields


def test_an_attribute_is_the_same_wherever_its_key_stands():
    rows = record("r", seed=1, user=fields.zipf(50), x=fields.ref("user", fields.uuid()))[:20_000]
    assert len({(row["user"], row["x"]) for row in rows}) == 50
    assert len({row["x"] for row in rows}) == 50


@pytest.mark.parametrize("key", [fields.choice(a=1, b=1), fields.choice(a=1, b=1).map(str) | list, fields.text("##")])
def test_attributes_of_text_keys(key):
    rows = record("r", seed=1, k=key, x=fields.ref("k", fields.normal()))[:9000]
    assert len({row["k"] for row in rows}) == len({(row["k"], row["x"]) for row in rows})


def test_equal_keys_agree_whatever_their_column():
    plain = record("r", seed=1, k=fields.zipf(9), x=fields.ref("k", fields.uuid()))
    coded = record("r", seed=1, k=fields.choice(list(range(9))), x=fields.ref("k", fields.uuid()))
    odd = record("r", seed=1, k=fields.zipf(9).map(int), x=fields.ref("k", fields.uuid()))
    by_key = {row["k"]: row["x"] for row in plain[:999]}
    assert all(by_key[row["k"]] == row["x"] for row in [*coded[:999], *odd[:999]])


def test_an_entity_agrees_across_records():
    country = fields.ref("user", fields.choice(FR=1, DE=1, ES=1), entity="user.country")
    clicks = record("click", seed=1, user=fields.zipf(20), country=country)
    orders = record("order", seed=1, id=fields.uuid(), user=fields.integer(0, 19), home=country)
    by_user = {row["user"]: row["country"] for row in clicks[:4096]}
    assert all(by_user[row["user"]] == row["home"] for row in orders[:4096])


def test_ref_looks_up_tables_and_repeats_fields():
    rows = record(
        "r",
        seed=1,
        k=fields.zipf(3),
        name=fields.ref("k", ["mug", "pen", "cup"]),
        price=fields.ref("name", {"mug": 5, "pen": 1, "cup": 4}),
        again=fields.ref("k"),
    )[:999]
    expected = {(0, "mug", 5, 0), (1, "pen", 1, 1), (2, "cup", 4, 2)}
    assert expected == {tuple(row.values()) for row in rows}


def test_a_key_that_is_missing_from_its_table_is_named():
    with pytest.raises(ConfigError, match="the key 'b' is not among the 1 keys"):
        record("r", seed=1, k="b", x=fields.ref("k", {"a": 1}))[0]
    with pytest.raises(ConfigError, match=r"the key 4095 is not among the indices 0\.\.1"):
        record("r", seed=1, k=fields.sequence(), x=fields.ref("k", ["a", "b"]))[0]


def test_the_attribute_of_no_key_is_none():
    rows = record(
        "r",
        seed=1,
        a=fields.choice(x=1, y=1),
        k=fields.when("a", "x", fields.zipf(5)),
        v=fields.ref("k", fields.uuid()),
        w=fields.ref("k", ["A", "B", "C", "D", "E"]),
    )[:999]
    assert all((row["k"] is None) == (row["v"] is None) == (row["w"] is None) for row in rows)
    assert len({(row["k"], row["v"], row["w"]) for row in rows}) == 6


@pytest.mark.parametrize("inner", [fields.sequence(), fields.event_time(), fields.list(fields.event_time())])
def test_an_attribute_has_no_position(inner):
    with pytest.raises(ConfigError, match="entity"):
        record("r", k=1, x=fields.ref("k", inner))


def test_an_attribute_may_be_a_record_with_lists():
    person = fields.record(name=fields.text("????????"), pets=fields.list(fields.text("????"), 0, 3))
    rows = record("r", seed=1, k=fields.zipf(9), x=fields.ref("k", person))[:2000]
    assert len({(row["k"], row["x"]["name"], *row["x"]["pets"]) for row in rows}) == 9
    assert {0, 1, 2, 3} >= {len(row["x"]["pets"]) for row in rows}


@pytest.mark.parametrize("matches", ["b", ["b"], {"b", "zz"}, lambda v: v > "a"])
def test_when_matches_a_value_values_or_a_predicate(matches):
    rows = record("r", seed=1, a=fields.choice(a=1, b=1), x=fields.when("a", matches, fields.sequence(), "no"))[:999]
    assert [i if row["a"] == "b" else "no" for i, row in enumerate(rows)] == [row["x"] for row in rows]


@pytest.mark.parametrize(
    "key", [fields.integer(0, 3), fields.integer(0, 3) | (lambda a: a.astype(object)), fields.choice([0, 1, 2, 3])]
)
@pytest.mark.parametrize(
    ("then", "otherwise"),
    [
        (fields.choice(a=1, b=1), None),
        (fields.choice(a=1, b=1), fields.choice(c=1)),
        (fields.normal(), fields.uniform()),
        (fields.integer(0, 9), fields.uuid()),
        (fields.record(u=fields.uuid()), None),
        (fields.list(fields.zipf(5)), []),
    ],
)
def test_when_joins_columns_of_any_kind(key, then, otherwise):
    parts = record("r", seed=1, a=key, x=fields.when("a", 1, then, otherwise))
    rows = parts[:999]
    whole = {
        True: [r["x"] for r in record("r", seed=1, a=key, x=fields.when("a", lambda _: True, then, otherwise))[:999]],
        False: [r["x"] for r in record("r", seed=1, a=key, x=fields.when("a", lambda _: False, then, otherwise))[:999]],
    }
    assert [whole[row["a"] == 1][i] for i, row in enumerate(rows)] == [row["x"] for row in rows]


def test_when_tells_large_integers_apart():
    rows = record("r", seed=1, a=fields.integer(2**64 - 2, 2**64 - 1), x=fields.when("a", 2**64 - 1, 1, 0))[:99]
    assert [row["a"] - (2**64 - 2) for row in rows] == [row["x"] for row in rows]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: record("r", user=1, x=fields.ref("usr")), "did you mean 'user'"),
        (lambda: record("r", x=fields.ref("y"), y=1), "comes after"),
        (lambda: record("r", x=fields.ref("x")), "cyclic"),
        (lambda: record("r", x=fields.when("x", 1, 2)), "cyclic"),
        (lambda: record("r", a=1, x=fields.when("a", 1, fields.ref("x"))), "cyclic"),
        (lambda: record("r", x=fields.ref("y"), y=fields.when("x", 1, 2)), "cyclic"),
        (lambda: record("r", x=fields.ref("y"), y=fields.ref("z"), z=fields.ref("x").map(str)), "cyclic"),
        (lambda: record("r", k=1, x=fields.ref("k", fields.ref("k"))), "no earlier field"),
    ],
)
def test_a_reference_that_cannot_be_followed_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_column_is_mapped_whole_or_value_by_value():
    assert column(fields.sequence() | (lambda a: a * 2), 3) == [0, 2, 4]
    assert column(fields.sequence().map(lambda v: f"{v}!"), 2) == ["0!", "1!"]
    assert column(fields.choice(a=1) | (lambda a: [v.upper() for v in a]), 3) == ["A"] * 3
    assert column(fields.sequence(1).map(float, returns=float), 2) == [1.0, 2.0]


def test_a_pool_is_mapped_once():
    seen = []
    generator = record("r", seed=1, x=fields.choice(a=1, b=1).map(lambda v: seen.append(v) or v))
    generator[0:20_000]
    assert seen == ["a", "b"]


def test_none_stays_none_when_mapped():
    values = column(fields.when("a", 1, fields.zipf(9)).map(str), a=fields.integer(0, 1))
    assert None in values
    assert {type(None), str} == {type(v) for v in values}


def test_a_map_of_the_wrong_length_is_refused():
    with pytest.raises(ConfigError, match="one value a row"):
        column(fields.sequence() | (lambda a: a[1:]))


def test_a_declared_type_is_held_to():
    kinds = record(
        "r", a=fields.sequence().map(str), b=fields.sequence().map(str, returns=str), c=fields.integer(0, 2**64 - 1)
    )
    assert [t.kind for t in kinds.schema.fields.values()] == [Kind.ANY, Kind.STR, Kind.UINT]
    with pytest.raises(ConfigError, match="declared to return int"):
        column(fields.sequence().map(str, returns=int))
    assert Kind.UINT is record("r", c=fields.integer(0, 2**64 - 1).returns(int)).schema.fields["c"].kind


# --- nesting


def test_lists_hold_their_range_of_elements():
    values = column(fields.list(fields.zipf(10), 1, 3))
    assert {1, 2, 3} == {len(v) for v in values}
    assert set(range(10)) == {item for v in values for item in v}


def test_a_sequence_counts_within_a_list_and_outer_fields_are_seen():
    line = fields.record(no=fields.sequence(1), order=fields.ref("id"), tags=fields.list(fields.sequence(), 2, 2))
    rows = record("r", seed=1, id=fields.sequence(), lines=fields.list(line, 0, 4))[4090:5000]
    for row in rows:
        expected = [{"no": i + 1, "order": row["id"], "tags": [0, 1]} for i in range(len(row["lines"]))]
        assert expected == row["lines"]


def test_a_dict_with_fields_and_a_record_are_nested_records():
    inner = record("inner", seed=9, n=fields.sequence(), double=fields.ref("n").map(lambda v: 2 * v))
    row = record("r", seed=1, a={"b": fields.sequence(5), "c": [1, 2]}, d=inner)[3]
    assert row == {"a": {"b": 8, "c": [1, 2]}, "d": {"n": 3, "double": 6}}


def test_plain_values_are_constants_and_no_row_shares_them():
    rows = record("r", a=None, b=True, c=2, d=1.5, e="t", f=[1, {"g": 2}], h=dt.date(2025, 1, 2))[:2]
    assert rows[1] == {"a": None, "b": True, "c": 2, "d": 1.5, "e": "t", "f": [1, {"g": 2}], "h": "2025-01-02"}
    rows[0]["f"][1]["g"] = 3
    assert rows[1]["f"][1]["g"] == 2


# --- Faker


def test_faker_draws_a_pool_once_and_from_the_seed():
    pytest.importorskip("faker")
    values = column(fields.faker("name", pool=50))
    assert 50 >= len(set(values)) > 30
    assert values == column(fields.faker("name", pool=50))
    assert values != [row["x"] for row in record("r", seed=2, x=fields.faker("name", pool=50))[:4096]]


def test_exact_faker_is_the_same_for_any_slice():
    pytest.importorskip("faker")
    generator = record("r", seed=1, x=fields.faker("first_name", pool=None, locale="fr_FR"))
    assert generator[0:5000][4090:4100] == generator.with_seed(1)[4090:4100]
    assert generator[0]["x"] != generator[4096]["x"] or generator[1]["x"] != generator[4097]["x"]


def test_values_become_those_of_python():
    class Code(enum.IntEnum):
        ONE = 1

    given = [np.str_("x"), np.float64(1.5), np.bool_(True), Code.ONE, np.datetime64("2024-01-01"), {3, 1}]
    given += [np.datetime64("2024-01-01T00:00:00.5", unit) for unit in ("ms", "ns")]
    row = record("r", {str(i): value for i, value in enumerate(given)}, seed=1)[0]
    half = "2024-01-01T00:00:00.500000"
    assert list(row.values()) == ["x", 1.5, True, 1, "2024-01-01", [1, 3], half, half]
    assert [type(value) for value in row.values()] == [str, float, bool, int, str, list, str, str]
    for value in ({1, "x"}, np.timedelta64(5, "ns"), np.complex128(1)):
        with pytest.raises(ConfigError):
            record("r", a=value)


def test_faker_values_become_plain():
    pytest.importorskip("faker")
    values = column(fields.faker("pydecimal", left_digits=3, right_digits=2, pool=5))
    assert {str} == {type(v) for v in values}
    assert Kind.STR is record("r", x=fields.faker("date_object", pool=5)).schema.fields["x"].kind


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fields.faker("nmae"), "did you mean 'name'"),
        (lambda: fields.faker("seed_instance"), "no provider"),
        (lambda: fields.faker("name", nothing=1), "does not take"),
        (lambda: fields.faker("name", locale="xx_XX"), "no locale"),
        (lambda: fields.faker("name", pool=0), "pool is an integer"),
        (lambda: record("r", k=1, x=fields.ref("k", fields.faker("name", pool=None))), "give a pool"),
    ],
)
def test_faker_refuses_what_it_cannot_do(make, message):
    pytest.importorskip("faker")
    with pytest.raises(ConfigError, match=message):
        make()


def test_without_faker_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faker", None)
    with pytest.raises(MissingExtra, match=r"pip install 'simlink\[faker\]'"):
        fields.faker("name")
