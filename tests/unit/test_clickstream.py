"""clickstream: sessions that are whole, a funnel that converts as asked, and the laws that its page claims."""

from __future__ import annotations

import datetime as dt
import json
import math
import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from simlink import fields
from simlink.block import Kind
from simlink.errors import ConfigError
from simlink.generators import catalog
from simlink.generators.catalog.clickstream import FAULTS, funnel
from simlink.generators.fields import sessions
from simlink.generators.fields.sessions import EPOCH_ROWS
from simlink.generators.record import Record, record
from tests.support.statistics import chi_square, kolmogorov, normal_cdf

ACTIONS = ["view", "click", "cart", "purchase"]


def visits(rows=4 * EPOCH_ROWS, start=0, **options):
    """What the events are made from: the columns of the hidden field, and the public ones asked for."""
    whole = catalog.clickstream(**{"seed": 7, **options})
    generator = Record("clickstream", whole.fields, seed=whole.seed, shown=["visit", "user_id", "product_id"])
    blocks = list(generator.blocks(start, start + rows))
    columns = {
        name: np.concatenate([_array(block.columns["visit"].columns[name]) for block in blocks])
        for name in blocks[0].columns["visit"].columns
    }
    return columns | {name: np.concatenate([b.columns[name] for b in blocks]) for name in ("user_id", "product_id")}


def _array(column):
    return getattr(column, "codes", column)


def by_session(columns, epochs=2):
    """Row indices, session by session, of the sessions that begin in the first epochs and so end before the last."""
    order = np.argsort(columns["session"], kind="stable")
    cuts = np.flatnonzero(np.diff(columns["session"][order])) + 1
    return [rows for rows in np.split(order, cuts) if rows[0] < epochs * EPOCH_ROWS]


@pytest.fixture(scope="module")
def columns():
    return visits()


@pytest.fixture(scope="module")
def whole(columns):
    return by_session(columns)


# --- sessions


def test_a_session_is_whole_also_where_epochs_meet(columns, whole):
    crossing = 0
    for rows in whole:
        assert columns["step"][rows].tolist() == list(range(len(rows)))
        assert columns["action"][rows[0]] == 0
        assert (np.diff(columns["at"][rows]) > 0).all()
        crossing += rows[0] // EPOCH_ROWS != rows[-1] // EPOCH_ROWS
    assert crossing > 500


def test_time_never_steps_back(columns):
    assert (np.diff(columns["at"]) >= 0).all()


def test_actions_follow_as_the_funnel_says(columns, whole):
    followed = Counter()
    for rows in whole:
        actions = columns["action"][rows].tolist()
        followed.update(zip(actions, [*actions[1:], 4], strict=True))
    for i, action in enumerate(ACTIONS):
        row = funnel(0.03)[action]
        observed = [followed[i, j] for j in range(5)]
        expected = [row.get(name, 0) for name in [*ACTIONS, None]]
        if action == "view":
            # How many leave after one view makes up the epoch's rows: a few per cent more or less.
            assert abs(observed[4] / sum(observed) - 0.25) < 0.02
            observed, expected = observed[:4], expected[:4]
        assert chi_square(observed, expected) > 1e-3, action


@pytest.mark.parametrize("conversion", [0, 0.03, 0.2, 0.5])
def test_the_share_of_sessions_with_a_purchase_is_what_was_asked_for(conversion):
    columns = visits(rate=20, conversion=conversion, rows=3 * EPOCH_ROWS)
    whole = by_session(columns)
    share = np.mean([(columns["action"][rows] == 3).any() for rows in whole])
    assert abs(share - conversion) <= 4 * math.sqrt(conversion / len(whole)) + 0.01 * conversion


def test_think_time_is_log_normal(columns, whole):
    # Where the next epoch ends, a session does: only those that began early are asked.
    gaps = np.concatenate([np.diff(columns["at"][rows]) for rows in whole if rows[0] < EPOCH_ROWS])
    assert kolmogorov(np.log(gaps / 10e6), normal_cdf) < 1.95


def test_users_return_by_zipfs_law(columns, whole):
    users = np.array([columns["user_id"][rows[0]] for rows in whole])
    counts = np.bincount(users, minlength=50_000)
    law = np.arange(1, 50_001) ** -1.1
    assert chi_square([*counts[:50], counts[50:].sum()], [*law[:50], law[50:].sum()]) > 1e-3
    assert (counts > 1).sum() > 2000
    # Rank and frequency on logarithmic scales are a line with the slope of the law.
    slope = np.polyfit(np.log(np.arange(1, 31)), np.log(np.sort(counts)[::-1][:30]), 1)[0]
    assert abs(slope + 1.1) < 0.1


def test_products_are_viewed_by_zipfs_law_and_kept_until_the_next_view(columns, whole):
    viewed = columns["product_id"][columns["action"] == 0]
    counts = np.bincount(viewed, minlength=2000)
    law = np.arange(1, 2001) ** -1.1
    assert chi_square([*counts[:100], counts[100:].sum()], [*law[:100], law[100:].sum()]) > 1e-3
    for rows in whole[:5000]:
        for before, row in pairwise(rows):
            if columns["action"][row] != 0:
                assert columns["product_id"][before] == columns["product_id"][row]


def test_a_day_and_a_week_have_their_rhythm():
    # Two weeks; one would do, but the share of an hour is known to a per cent only.
    rate = 0.25
    rows = 2 * 7 * 86_400 * rate
    at = visits(rate=rate, rows=int(rows), start=EPOCH_ROWS)["at"]
    seconds = (at[-1] - at[0]) / 1e6
    assert abs(rows / seconds / rate - 1) < 0.02
    hours = np.bincount(at // 3_600_000_000 % 24, minlength=24) / rows * 24
    assert hours.argmin() == 5
    assert 0.4 < hours.min() < 0.6
    assert hours.argmax() in (19, 20)
    assert 1.4 < hours.max() < 1.7
    days = np.bincount((at // 86_400_000_000 + 3) % 7, minlength=7) / rows * 7
    assert days.argmax() == 6
    assert 1.05 < days.max() < 1.17


@pytest.mark.parametrize("rate", [1e-4, 1, 100, 1000, 1e6])
def test_rows_a_second_are_about_the_rate(rate):
    week = 604_800 * rate
    # So far ahead that a whole week passes, or at once where that would take too long to make.
    rows = int(week) if week < EPOCH_ROWS else EPOCH_ROWS
    at = visits(rate=rate, rows=rows)["at"]
    assert (np.diff(at) >= 0).all()
    assert abs(rows / ((at[-1] - at[0]) / 1e6) / rate - 1) < 0.25


def test_event_time_begins_where_it_is_told_to():
    first = dt.datetime(2031, 5, 17, 12, 30, tzinfo=dt.UTC)
    rows = catalog.clickstream(seed=7, start=first, format="us")[:50]
    begin = int(first.timestamp() * 1e6)
    assert begin <= rows[0]["timestamp"] < begin + 1_000_000
    assert catalog.clickstream(seed=7, start="2031-05-17T12:30:00Z", format="us")[:50] == rows
    iso = catalog.clickstream(seed=7, start=first, format="iso")[:50]
    assert [dt.datetime.fromisoformat(row["timestamp"]) for row in iso] == [
        dt.datetime.fromtimestamp(row["timestamp"] // 1000 / 1000, dt.UTC) for row in rows
    ]


# --- epochs


@pytest.mark.parametrize("factor", [1.2, 4])
def test_an_epoch_is_made_full_even_of_too_many_sessions(monkeypatch, factor):
    made = sessions.Sessions.__init__

    def crowded(self, *args):
        made(self, *args)
        self.count = round(self.count * factor)

    monkeypatch.setattr(sessions.Sessions, "__init__", crowded)
    columns = visits(rows=3 * EPOCH_ROWS)
    assert (np.diff(columns["at"]) >= 0).all()
    assert len(np.unique(columns["event"])) == 3 * EPOCH_ROWS
    whole = by_session(columns, 1)
    for rows in whole:
        assert columns["step"][rows].tolist() == list(range(len(rows)))
    assert max(map(len, whole)) > 5


def test_the_order_of_time_is_found_the_same_in_both_ways():
    rng = np.random.default_rng(1)
    at = rng.integers(0, 5000, 60_000)
    expected = np.argsort(at, kind="stable").tolist()
    assert expected == sessions._order(at).tolist()
    assert expected == sessions._order(at * 2**40).tolist()


@pytest.mark.parametrize("rate", [0.01, 700])
def test_far_blocks_are_made_alone(rate):
    blocks = [0, 15, 16, 17, 1000, 10**7]
    whole = catalog.clickstream(seed=3, rate=rate)
    made = [whole.block(k).rows() for k in blocks]
    assert made[::-1] == [catalog.clickstream(seed=3, rate=rate).block(k).rows() for k in blocks[::-1]]


# --- the record


def test_events_agree_with_themselves():
    rows = catalog.clickstream(seed=7, users=500, products=50, rate=10, conversion=0.1)[:20_000]
    json.dumps(rows, allow_nan=False)
    assert [row["event_id"] for row in rows] == list(range(20_000))
    for row in rows:
        bought = row["action"] == "purchase"
        assert bought == (row["quantity"] is not None) == (row["order_id"] is not None)
        assert row["page_url"].endswith("/checkout" if bought else f"/{row['product_id']}")
        assert row["price_cents"] >= 1
    for owner, attributes in (
        ("user_id", ("ip", "user_agent", "country", "currency")),
        ("product_id", ("price_cents",)),
        ("session_id", ("user_id", "referrer", "ip", "user_agent")),
    ):
        for attribute in attributes:
            assert len({r[owner] for r in rows}) == len({(r[owner], r[attribute]) for r in rows}), (owner, attribute)
    orders = [row["order_id"] for row in rows if row["order_id"]]
    assert len(orders) == len(set(orders)) > 300
    assert set(ACTIONS) == {row["action"] for row in rows}


def test_what_leads_to_a_purchase_comes_before_it():
    earlier = {}
    for row in catalog.clickstream(seed=7, conversion=0.2)[:30_000]:
        seen = earlier.setdefault(row["session_id"], set())
        for needed in {"click": {"view"}, "cart": {"view", "click"}, "purchase": {"view", "click", "cart"}}.get(
            row["action"], ()
        ):
            assert needed in seen
        seen.add(row["action"])


def test_some_fields_are_the_same_as_in_the_whole():
    whole, rows = catalog.clickstream(seed=7), catalog.clickstream(seed=7)[:5000]
    for names in (("timestamp",), ("order_id", "user_id"), tuple(whole.schema)):
        assert [{name: row[name] for name in names} for row in rows] == whole.select(*names)[:5000]
    assert "visit" not in whole.schema.fields
    assert rows == pickle.loads(pickle.dumps(whole))[:5000]
    assert whole.with_seed(8)[:10] == catalog.clickstream(seed=8)[:10] != rows[:10]
    with pytest.raises(ConfigError, match="no field 'visit'"):
        whole.select("visit")


def test_it_may_stand_in_another_record():
    inside = record("outer", seed=3, event=catalog.clickstream(seed=1), n=1)
    rows = inside[:100]
    assert list(rows[0]["event"]) == list(catalog.clickstream().schema)
    assert rows[99]["event"]["event_id"] == 99
    with pytest.raises(ConfigError, match="no place in a list"):
        record("outer", events=fields.list(catalog.clickstream(seed=1)))


@pytest.mark.parametrize(
    "options",
    [
        *({"users": 0}, {"products": 0}, {"skew": -1}, {"rate": 0}, {"rate": math.nan}, {"format": "x"}, {"seed": -1}),
        *({"conversion": 0.6}, {"conversion": -0.1}, {"conversion": "x"}, {"conversion": True}, {"start": "noon"}),
        *({"think": 0}, {"think": math.inf}, {"think": 60}, {"think": "x"}),
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError):
        catalog.clickstream(**options)


def test_a_think_time_that_is_too_long_is_refused_with_the_longest():
    with pytest.raises(ConfigError, match=r"at a rate of 100 a median think time is 55.9 s at most, not 60"):
        catalog.clickstream(rate=100, think=60)
    catalog.clickstream(rate=10, think=60)


def test_faults_name_fields_that_are_there():
    schema = catalog.clickstream().schema.fields
    assert schema["price_cents"].kind is Kind.INT
    for preset in FAULTS.values():
        for fault, arguments in preset:
            assert isinstance(fault, str)
            assert {arguments.get("field", "user_id"), arguments.get("per", "user_id")} <= set(schema)


def test_a_funnel_is_one_of_probabilities():
    for conversion in np.linspace(0, 0.5, 51).tolist():
        for row in funnel(conversion).values():
            assert all(0 <= p <= 1 for p in row.values())
            assert math.isclose(sum(row.values()), 1)
