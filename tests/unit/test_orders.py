"""orders: whole sagas whose amounts are conserved, and books that see where they are not."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter, defaultdict

import pytest

from simlink.errors import ConfigError
from simlink.generators import catalog
from simlink.generators.catalog._saga import STEPS, Books
from simlink.generators.catalog.orders import FAULTS
from simlink.generators.fields.sessions import EPOCH_ROWS
from tests.support.statistics import chi_square, kolmogorov, normal_cdf


def sagas(rows=EPOCH_ROWS + 20_000, **options):
    """Order → its events; only of orders that were placed early enough to be complete."""
    by_order = defaultdict(list)
    for event in catalog.orders(**{"seed": 7, **options})[:rows]:
        by_order[event["order_id"]].append(event)
    return by_order


@pytest.fixture(scope="module")
def whole():
    return sagas()


def complete(orders):
    return [events for events in orders.values() if events[-1]["status"] != "open"]


def test_every_order_is_a_whole_chain(whole):
    assert len(complete(whole)) > 0.97 * len(whole)
    for events in complete(whole):
        assert list(range(len(events))) == [event["step"] for event in events]
        assert events[0]["type"] in ("order.placed", "order.rejected")
        assert {"open"} >= {event["status"] for event in events[:-1]}
        assert [None, *(e["event_id"] for e in events[:-1])] == [e["caused_by"] for e in events]
        for name in ("correlation_id", "customer_id", "sku"):
            assert len({event[name] for event in events}) == 1
        assert [e["service"] for e in events] == [e["type"].partition(".")[0] for e in events]


def test_ids_are_unique(whole):
    events = [event for events in whole.values() for event in events]
    assert len(events) == len({event["event_id"] for event in events})
    assert len(whole) == len({events[0]["correlation_id"] for events in whole.values()})


def test_time_ascends():
    times = [event["timestamp"] for event in catalog.orders(seed=7)[65_000:67_000]]
    assert sorted(times) == times


def test_the_books_balance(whole):
    books = Books()
    for events in whole.values():
        books.add(events)
    assert books.ok
    assert (books.wrong, books.first_wrong) == (0, {})
    assert books.completed + books.cancelled + books.rejected == len(complete(whole))
    assert books.open == len(whole) - len(complete(whole))
    assert books.paid - books.refunded == books.dispatched > 0
    assert books.refunded > 0
    assert books.repeated > 100


def test_the_books_take_events_in_any_order():
    events = catalog.orders(seed=7)[:6000]
    in_order = catalog.orders(seed=7).books().add(events)
    random.Random(3).shuffle(events)
    assert vars(in_order) == vars(Books().add(events))


def damaged(events, change):
    """The books after one event was changed."""
    return Books().add([change(dict(event)) for event in events])


def test_the_books_see_what_is_wrong(whole):
    events = next(e for e in complete(whole) if e[-1]["status"] == "completed" and len(e) == 5)
    assert Books().add(events).ok
    (order,) = {event["order_id"] for event in events}

    def cheaper(event):
        if event["type"] == "payment.captured":
            event["amount_cents"] -= 1
        return event

    amount = events[0]["amount_cents"]
    assert {order: f"paid {amount - 1}, refunded 0, but {amount} is due"} == damaged(events, cheaper).first_wrong

    def fewer(event):
        if event["type"] == "shipment.dispatched":
            event["quantity"] += 1
        return event

    assert "pieces are reserved" in damaged(events, fewer).first_wrong[order]
    assert ((missing := Books().add(events[:2] + events[3:])).open, missing.ok) == (1, True)


def test_a_payment_that_comes_again_counts_once(whole):
    events = next(e for e in complete(whole) if sum(x["type"] == "payment.captured" for x in e) == 2)
    keys = {e["idempotency_key"] for e in events if e["type"] == "payment.captured"}
    assert len(keys) == 1
    assert [e["attempt"] for e in events if e["type"] == "payment.captured"] == [1, 2]
    assert Books().add(events).ok
    other_key = [dict(e, idempotency_key="x") if e["attempt"] == 2 and e["service"] == "payment" else e for e in events]
    assert not Books().add(other_key).ok
    other_amount = [dict(e, amount_cents=1) if e["attempt"] == 2 and e["service"] == "payment" else e for e in events]
    assert not Books().add(other_amount).ok


def test_keys_belong_to_one_operation(whole):
    kinds = defaultdict(set)
    for events in whole.values():
        for event in events:
            kinds[event["idempotency_key"]].add((event["order_id"], event["type"].replace("timeout", "captured")))
    assert {1} == {len(kind) for kind in kinds.values()}


@pytest.mark.parametrize(("failures", "retries"), [(0.1, 0.04), (0.5, 0.3), (0, 0), (1, 0.1)])
def test_failures_and_retries_are_as_frequent_as_asked_for(failures, retries):
    orders = [e for e in complete(sagas(30_000, failures=failures, retries=retries)) if e[0]["type"] == "order.placed"]
    n = len(orders)
    cancelled = sum(events[-1]["status"] == "cancelled" for events in orders)
    # Orders that are undone have more or fewer events, and some at the end are not complete: a few per cent.
    assert abs(cancelled / n - failures) <= 4 * math.sqrt(failures * (1 - failures) / n) + 0.01 * (0 < failures < 1)
    tried = Counter(e["attempt"] for events in orders for e in events if e["service"] == "notification")
    assert abs(tried[2] / n - retries) <= 4 * math.sqrt(retries * (1 - retries) / n)
    paid = [e for e in orders if any(x["type"] == "payment.captured" for x in e)]
    again = sum(any(x["attempt"] == 2 and x["service"] == "payment" for x in e) for e in paid)
    if paid and retries:
        assert chi_square([again, len(paid) - again], [retries, 1 - retries]) > 1e-3


def test_what_fails_is_undone(whole):
    ways = Counter(tuple(e["type"] for e in events if e["attempt"] == 1) for events in complete(whole))
    undone = ("payment.refunded", "order.cancelled", "notification.sent")
    kinds = {
        ("order.rejected",),
        ("order.placed", "payment.captured", "inventory.reserved", "shipment.dispatched", "notification.sent"),
        ("order.placed", "payment.declined", "order.cancelled", "notification.sent"),
        ("order.placed", "payment.captured", "inventory.failed", *undone),
        ("order.placed", "payment.captured", "inventory.reserved", "shipment.failed", "inventory.released", *undone),
    }
    # With a timeout the captured payment is the second attempt.
    with_timeout = {tuple(t.replace("payment.captured", "payment.timeout") for t in way) for way in kinds}
    assert kinds <= set(ways) <= kinds | with_timeout


def test_delays_are_log_normal_by_service():
    shipped = []
    for events in complete(sagas(30_000, rate=5)):
        shipped += [
            math.log((b["timestamp"] - a["timestamp"]) / 20_000) / 0.5
            for a, b in itertools.pairwise(events)
            if b["type"] == "shipment.dispatched"
        ]
    assert kolmogorov(shipped, normal_cdf) < 1.95


def test_at_high_rates_no_order_is_cut():
    books = Books().add(catalog.orders(seed=7, rate=20_000)[: 3 * EPOCH_ROWS])
    assert books.ok
    assert books.open < 0.1 * EPOCH_ROWS
    last = catalog.orders(seed=7, rate=20_000)[2 * EPOCH_ROWS : 3 * EPOCH_ROWS]
    assert {event["order_id"] for event in last} >= set(books._open)


def test_every_state_is_a_step_of_a_known_service():
    assert {"order", "payment", "inventory", "shipment", "notification"} == {step.service for step in STEPS.values()}


def test_presets_name_fields_that_are_there():
    schema = catalog.orders(seed=7).schema
    named = {a[key] for preset in FAULTS.values() for _, a in preset for key in ("field", "per") if key in a}
    assert named <= set(schema)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rate": 0}, "rate"),
        ({"rate": math.nan}, "rate"),
        ({"rejected": 0}, "rejected"),
        ({"failures": 1.1}, "failures"),
        ({"failures": math.nan}, "failures"),
        ({"retries": -0.1}, "retries"),
        ({"customers": 0}, "customers is an integer from 1"),
        ({"format": "x"}, "format"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        catalog.orders(**options)


def test_the_books_take_events_of_orders_only():
    with pytest.raises(ConfigError, match="not an event"):
        Books().add([{"a": 1}])
