"""fit(): a generator like its sample, printed as Python that makes the same."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
import pickle
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simlink
from simlink import fields
from simlink.errors import ConfigError, DecodeError
from simlink.generators import catalog

N = 20_000


def shop(seed=3):
    """A sample whose laws are known."""
    return simlink.record(
        "shop",
        order_id=fields.sequence(100),
        user_id=fields.zipf(300, 1.2, start=7),
        country=fields.ref("user_id", fields.choice(FR=3, DE=2, US=5)),
        currency=fields.ref("country", {"FR": "EUR", "DE": "EUR", "US": "USD"}),
        action=fields.choice(view=80, click=17, buy=3),
        amount=fields.when("action", "buy", fields.coupled(fields.lognormal(3, 0.5, decimals=2))),
        weight=fields.coupled(fields.uniform(1, 9, decimals=3)),
        height=fields.coupled(fields.normal(50, 9, decimals=1), {"weight": -0.7}),
        returned=fields.maybe(fields.boolean(0.3), 0.4),
        token=fields.uuid(),
        code=fields.text("K-####-??"),
        at=fields.event_time(arrivals=simlink.arrivals.poisson(50), format="iso"),
        seed=seed,
    )


@pytest.fixture(scope="module")
def pair():
    """The sample's columns, and those of as many records of what was fitted to it."""
    sample = shop().to_pandas(N)
    fitted = simlink.fit(shop(), rows=N, seed=11)
    return sample, fitted.to_pandas(N), fitted


def made_by(source):
    scope = {}
    exec(source, scope)
    return scope["generator"]


def spearman(a, b):
    return float(a.rank().corr(b.rank()))


def test_the_fields_and_their_kinds_are_those_of_the_sample(pair):
    sample, made, fitted = pair
    assert list(made.columns) == list(sample.columns)
    for name, kind in shop().schema.fields.items():
        assert fitted.schema.fields[name].kind is kind.kind, name


def test_numbers_have_the_same_distribution(pair):
    sample, made, _ = pair
    for name in ("weight", "height"):
        grid = np.sort(sample[name])
        shares = (np.searchsorted(np.sort(made[name]), grid, side="right") - np.arange(1, N + 1)) / N
        # Two samples of N: the 0.1 % point of Kolmogorov–Smirnov is 1.95 √(2/N); and the table's own step.
        assert np.abs(shares).max() < 1.95 * math.sqrt(2 / N) + 1 / 256
    assert made["height"].map(lambda v: round(v, 1) == v).all()
    assert made["weight"].map(lambda v: round(v, 3) == v).all()


def test_categories_have_the_same_mix(pair):
    sample, made, _ = pair
    for name in ("action", "country"):
        want, got = Counter(sample[name]), Counter(made[name])
        chi = sum((got[k] - n) ** 2 / (2 * n) for k, n in want.items())
        assert chi < 20, name  # 2 degrees of freedom: beyond the 0.01 % point


def test_keys_have_the_same_ranks_and_frequencies(pair):
    sample, made, _ = pair
    want, got = Counter(sample["user_id"]), Counter(made["user_id"])
    assert set(got) <= set(want)
    hottest = [key for key, _ in want.most_common(20)]
    assert all(abs(got[key] - want[key]) < 5 * math.sqrt(2 * want[key]) for key in hottest)
    assert abs(len(got) - len(want)) < 0.05 * len(want)


def test_what_belongs_to_a_key_still_does(pair):
    sample, made, fitted = pair
    assert sample.groupby("user_id")["country"].first().to_dict().items() >= (
        made.groupby("user_id")["country"].first().to_dict().items()
    )
    assert made.groupby("user_id")["country"].nunique().max() == 1
    assert made.groupby("country")["currency"].nunique().max() == 1
    assert "currency=fields.ref('country', " in fitted.source()


def test_what_is_missing_is_missing_for_the_same_reason(pair):
    sample, made, fitted = pair
    assert (made["amount"].notna() == (made["action"] == "buy")).all()
    assert abs(made["returned"].isna().mean() - sample["returned"].isna().mean()) < 0.02
    assert abs(made["returned"].mean() - sample["returned"].mean()) < 0.03
    assert "fields.when(" in fitted.source()


def test_numbers_rise_and_fall_together(pair):
    sample, made, _ = pair
    want, got = (spearman(table["weight"], table["height"]) for table in (sample, made))
    assert want < -0.6
    assert abs(want - got) < 5 / math.sqrt(N)
    assert abs(spearman(made["weight"], made["order_id"])) < 4 / math.sqrt(N)


def test_identifiers_and_times_go_on_as_they_did(pair):
    sample, made, _ = pair
    assert made["order_id"].tolist() == list(range(100, 100 + N))
    assert made["token"].nunique() == N
    assert made["code"].str.fullmatch(r"K-\d{4}-[A-Z]{2}").all()
    times = pd.to_datetime(made["at"])
    gaps = times.diff().dt.total_seconds()[1:]
    assert (times.is_monotonic_increasing, abs(gaps.mean() - 0.02) < 4 * 0.02 / math.sqrt(N)) == (True, True)
    assert times[0] >= pd.to_datetime(sample["at"])[0]


def test_a_negative_sign_of_a_boolean_is_kept():
    g = simlink.record(
        "r",
        a=fields.coupled(fields.uniform()),
        b=fields.coupled(fields.uniform(), {"a": 0.9}).map(lambda v: v > 0.5, returns=bool),
        seed=1,
    )
    made = simlink.fit(g, rows=5_000, seed=2).to_pandas(5_000)
    assert spearman(made["a"], made["b"].astype(int)) > 0.5


@pytest.mark.parametrize(
    "make",
    [
        lambda: simlink.fit(shop(), rows=3_000, seed=5),
        lambda: simlink.fit(catalog.clickstream(seed=1, users=500), rows=3_000, seed=5),
        lambda: simlink.fit(catalog.access_log(seed=1), rows=3_000, seed=5),
    ],
    ids=["shop", "clickstream", "access_log"],
)
def test_the_printed_source_makes_the_same_generator(make):
    fitted = make()
    made = made_by(fitted.source())
    assert (made.name, made.seed, made.schema) == (fitted.name, fitted.seed, fitted.schema)
    assert made.digest(5_000) == fitted.digest(5_000)


def test_the_source_follows_what_was_done_to_the_generator():
    fitted = simlink.fit(shop(), rows=3_000, seed=5)
    for other in (fitted.with_seed(9), fitted.take(20), fitted.select("height", "country")):
        assert made_by(other.source())[:20] == other[:20]
        assert made_by(other.source()).length == other.length
    assert pickle.loads(pickle.dumps(fitted)).source() == fitted.source()


def test_an_edited_source_makes_what_it_says():
    source = simlink.fit(shop(), rows=3_000, seed=5).source()
    edited = source.replace("fields.sequence(100)", "fields.sequence(5)")
    assert made_by(edited)[0] == {**made_by(source)[0], "order_id": 5}


def test_names_that_are_no_identifiers_and_records_inside():
    rows = [{"a b": i % 7, "in": {"x.y": i / 8, "seed": None if i % 3 else "s"}, "l": [i % 2]} for i in range(300)]
    fitted = simlink.fit(rows, seed=5)
    assert made_by(fitted.source()).digest(1_000) == fitted.digest(1_000)
    row = fitted[0]
    assert list(row) == ["a b", "in", "l"]
    assert list(row["in"]) == ["x.y", "seed"]
    assert {json.dumps(r["l"]) for r in fitted[:50]} == {"[0]", "[1]"}


def test_a_data_frame_with_gaps_and_times():
    frame = pd.DataFrame(
        {
            "n": [None if i % 5 == 0 else i * 0.5 for i in range(200)],
            "when": pd.to_datetime([1_700_000_000 + (i * 7919) % 100_000 for i in range(200)], unit="s"),
            "c": pd.Categorical(["x", "y"] * 100),
        }
    )
    fitted = simlink.fit(frame, seed=1)
    rows = fitted[:2_000]
    assert abs(sum(row["n"] is None for row in rows) - 400) < 4 * 18
    times = [dt.datetime.fromisoformat(row["when"]) for row in rows]
    assert min(times) >= dt.datetime(2023, 11, 14, tzinfo=dt.UTC)
    assert max(times) <= dt.datetime(2023, 11, 16, 3, tzinfo=dt.UTC)
    assert {row["c"] for row in rows} == {"x", "y"}
    assert made_by(fitted.source()).digest(500) == fitted.digest(500)


def test_files(tmp_path):
    rows = shop()[:500]
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "b.csv").write_text("n,x,code\n" + "\n".join(f"{i % 30},{i / 4},{i % 10:03d}" for i in range(500)))
    fitted = simlink.fit(tmp_path / "a.ndjson", seed=1)
    assert (fitted.name, list(fitted.schema)) == ("a", list(rows[0]))
    from_csv = simlink.fit(tmp_path / "b.csv", seed=1, keys=["n"])[:200]
    assert {type(r["n"]) for r in from_csv} == {int}
    assert {type(r["x"]) for r in from_csv} == {float}
    assert {r["code"] for r in from_csv} <= {f"{i:03d}" for i in range(10)}


def test_keys_and_columns_can_be_said():
    rows = [{"n": (i * i) % 101, "m": i} for i in range(1_000)]
    assert {r["n"] for r in simlink.fit(rows, keys=["n"], seed=1)[:2_000]} == {r["n"] for r in rows}
    assert list(simlink.fit(rows, columns=["m"], seed=1).schema) == ["m"]


def test_names_that_are_words_of_python_are_printed_so_that_it_runs():
    sample = [{"class": i % 3, "seed": i % 7, "in": {"if": i % 5}} for i in range(300)]
    fitted = simlink.fit(sample, seed=7)
    assert made_by(fitted.source())[:500] == fitted[:500]


def test_a_recording_at_even_steps_with_holes_keeps_its_step():
    """As an hourly recording that missed ten of 7,000 hours does, now and then by days."""
    hours = [i + 48 * (i // 100) for i in range(1_000)]
    times = [(dt.datetime(2025, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=h)).isoformat() for h in hours]
    source = simlink.fit([{"at": at, "v": i * i % 97} for i, at in enumerate(times)], seed=7).source()
    assert "at=fields.event_time('2025-01-01T00:00:00+00:00', step=3600.0, format='iso')" in source


class Word(enum.StrEnum):
    YES = "yes"
    NO = "no"


MIDNIGHT = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ([np.float64(i % 7 + 0.5) for i in range(99)], {float}),
        ([[np.float64(i)] for i in range(30)], {list}),
        ([np.str_("xy"[i % 2]) for i in range(99)], {str}),
        ([Word.YES if i % 3 else Word.NO for i in range(99)], {str}),
        ([np.datetime64("2024-01-01") + np.timedelta64(i, "h") for i in range(9)], {str}),
        ([np.datetime64("2024-01-01T00:00:00.000000001") + np.timedelta64(i * i, "h") for i in range(9)], {str}),
        ([MIDNIGHT if i % 3 else "never" for i in range(99)], {str}),
        ([{} for _ in range(9)], {dict}),
        ([{} if i % 2 else None for i in range(9)], {dict, type(None)}),
        ([10**400 if i % 2 else 1 for i in range(9)], {int}),
        ([2**64, -1] * 9, {int}),
        ([2**63, -1] * 9, {int}),
        ([2**63 + i for i in range(9)], {int}),
        ([0, 10**14], {int}),
    ],
)
def test_a_column_of_any_kind_is_fitted_and_its_source_runs(values, kinds):
    fitted = simlink.fit([{"a": value, "n": i} for i, value in enumerate(values)], seed=1)
    again = made_by(fitted.source())
    assert again[:50] == fitted[:50]
    assert {type(row["a"]) for row in fitted[:50]} == kinds
    assert again[10**6 : 10**6 + 2] == fitted[10**6 : 10**6 + 2]


def test_few_values_are_as_often_as_they_were_however_large():
    fitted = simlink.fit([{"a": 2**60 if i % 4 else 5} for i in range(400)], seed=1)
    found = Counter(row["a"] for row in fitted[:4_000])
    assert set(found) == {5, 2**60}
    assert 800 < found[5] < 1_200


def test_columns_of_one_name_and_lines_that_do_not_parse_are_told(tmp_path):
    with pytest.raises(ConfigError, match="2 columns have the name '1': rename all but one"):
        simlink.fit(pd.DataFrame([[1, 2], [3, 4]], columns=[1, "1"]))
    with pytest.raises(ConfigError, match="fit: span: a record holds plain values, not Timedelta"):
        simlink.fit(pd.DataFrame({"span": pd.to_timedelta([1, 2], unit="s")}))
    file = tmp_path / "x.ndjson"
    file.write_text('{"a":1}\nwhat\n{"a":2}\n')
    with pytest.raises(DecodeError, match=r"line 2 .*fit\(simlink.replay\(.*on_error='skip'\)\) leaves such lines out"):
        simlink.fit(file)
    assert simlink.fit(simlink.replay(file, on_error="skip"), seed=1)[:2] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("sample", "options", "message"),
    [
        ([], {}, "the sample is empty"),
        ([{}], {}, "the sample is empty"),
        (pd.DataFrame({"a": []}), {}, "the sample is empty"),
        ([{"a": 1, "b": "x"}] * 50, {}, "the sample is constant: its 50 records"),
        ([{"a": 1}], {}, "constant"),
        ([{"a": 1.0}, {"a": math.inf}], {}, "a holds a number that is not finite"),
        ([{"a": str(i)} for i in range(50)] * 2, {"most": 10}, "a has 50 different values"),
        ([{"a": 1}, 5], {}, "record 1 is no dict: 5"),
        ([{"a": 1}, {"a": 2}], {"keys": ["b"]}, "no field 'b' for a key"),
        ([{"a": 1}, {"a": 2}], {"columns": ["b"]}, "no field 'b', it has a"),
        ([{"a": 1}, {"a": 2}], {"rows": 0}, "from 1 up"),
        ([{"a": 1}, {"a": 2}], {"most": "x"}, "from 1 up"),
        ([{"a": math.nan, "b": i} for i in range(9)], {}, "a holds a number that is not finite"),
        ([{"a": {"b": [math.inf, i]}} for i in range(9)], {}, "b holds a number that is not finite"),
        ([{"a": math.nan if i % 2 else "x"} for i in range(9)], {}, "a holds a number that is not finite"),
        (5, {}, "not int"),
    ],
)
def test_what_cannot_be_fitted_is_said(sample, options, message):
    with pytest.raises(ConfigError, match=message):
        simlink.fit(sample, **options)


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(-1e9, 1e9),
    st.text(max_size=4),
    st.dates().map(str),
)
COLUMNS = st.sampled_from(["a", "b_id", "timestamp", "x y"])


@settings(max_examples=60)
@given(st.lists(st.dictionaries(COLUMNS, CELLS, min_size=1), min_size=1, max_size=40))
def test_any_sample_is_refused_clearly_or_fitted_and_printed(rows):
    columns = {name: {(type(row.get(name)), str(row.get(name))) for row in rows} for name in set().union(*rows)}
    if all(len(values) == 1 for values in columns.values()):
        with pytest.raises(ConfigError, match="constant"):
            simlink.fit(rows)
        return
    fitted = simlink.fit(rows, seed=1)
    assert set(fitted.schema) == set().union(*rows)
    assert made_by(fitted.source()).digest(300) == fitted.digest(300)
    for name in fitted.schema:
        seen = [row.get(name) for row in rows]
        numbers = [v for v in seen if type(v) in (int, float)]
        if len(numbers) == len(seen):
            made = [row[name] for row in fitted[:300]]
            kept = len(set(map(str, seen))) > 1 and "fields.sequence" not in fitted.source()
            assert not kept or "timestamp" in name or min(numbers) <= min(made) <= max(made) <= max(numbers)
