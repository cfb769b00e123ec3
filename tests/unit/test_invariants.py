"""What holds over all records together, checked by verify(): here that the amounts of orders are conserved."""

from __future__ import annotations

import signal
import uuid

import pytest

import simlink
from simlink import faults
from simlink.generators import catalog
from simlink.message import Batch, Same
from tests.support.command import Command, run_simlink

COUNT = 6_000


@pytest.fixture(scope="module")
def orders():
    return catalog.orders(seed=7)


@pytest.fixture(scope="module")
def events(orders):
    return orders[:COUNT]


@pytest.fixture(scope="module")
def undone(events):
    """(row of a refund, its order, what was paid), of an order that has ended."""
    ended = {event["order_id"] for event in events if event["status"] == "cancelled"}
    row = next(i for i, e in enumerate(events) if e["type"] == "payment.refunded" and e["order_id"] in ended)
    return row, events[row]["order_id"], events[row]["amount_cents"]


@pytest.fixture
def channel():
    with simlink.queue(f"memory://invariants-{uuid.uuid4().hex[:8]}") as opened:
        yield opened


def send(channel, events, rows):
    bodies = [simlink.Json().dumps(events[row]) for row in rows]
    channel.send_many(Batch(bodies, producers=Same(b"a" * 16, len(rows)), sequences=list(rows)))


def verified(channel, orders, **options):
    with channel.receiver() as receiver:
        return simlink.verify(receiver, orders, count=COUNT, invariants=orders.invariants(), timeout=0.1, **options)


def test_what_was_sent_balances(channel, orders, events):
    with channel.receiver() as receiver:
        simlink.run(orders, channel, count=COUNT, progress=False)
        found = simlink.verify(receiver, orders, count=COUNT, invariants=orders.invariants())
    # At the end of what was sent some orders go on, which is no violation.
    assert orders.books().add(events).open > 0
    assert (found.violated, found.violations, found.ok) == (0, (), True)


def test_a_lost_compensation_is_told(channel, orders, events, undone):
    row, order, paid = undone
    send(channel, events, [i for i in range(COUNT) if i != row])
    found = verified(channel, orders)
    step = events[row]["step"]
    told = (
        f"amounts are conserved: order {order}: it is cancelled, without step {step}: "
        f"paid {paid}, refunded 0, but 0 is due"
    )
    assert (found.lost, found.missing) == (1, (row,))
    assert (found.violated, found.violations, found.ok) == (1, (told,), False)
    assert told in str(found)
    assert (found.as_dict()["violated"], found.as_dict()["violations"]) == (1, [told])


def test_a_compensation_of_another_amount_is_told(channel, orders, events, undone):
    row, order, paid = undone
    changed = [*events[:row], {**events[row], "amount_cents": paid - 1}, *events[row + 1 :]]
    send(channel, changed, range(COUNT))
    found = verified(channel, orders)
    told = f"amounts are conserved: order {order}: paid {paid}, refunded {paid - 1}, but 0 is due"
    assert (found.corrupt, found.violated, found.violations) == (1, 1, (told,))


def test_what_comes_in_another_order_and_twice_balances(channel, orders, events):
    # Whole orders come again when their books are closed already.
    send(channel, events, [*range(COUNT - 1, 1999, -1), *range(5000, 5999), *range(2000)])
    found = verified(channel, orders)
    assert (found.lost, found.duplicated, found.corrupt) == (0, 999, 0)
    assert (found.violated, found.violations) == (0, ())


def test_what_cannot_be_read_is_corrupt_and_keeps_no_other_out(channel, orders, events, undone):
    row, order, _ = undone
    bodies = [simlink.Json().dumps(event) for event in events]
    bodies[row], bodies[0] = b"{", b"[1]"
    channel.send_many(Batch(bodies, producers=Same(b"a" * 16, COUNT), sequences=list(range(COUNT))))
    found = verified(channel, orders)
    assert found.corrupt == 2
    assert any(order in text for text in found.violations)


def test_books_of_foreign_events_are_found_by_a_field(channel, orders, events, undone):
    row, _, _ = undone
    channel.send_many([event for i, event in enumerate(events) if i != row])
    found = verified(channel, orders, on="event_id")
    assert (found.lost, found.violated) == (1, 1)


def test_books_that_cannot_hold_are_refused(channel, orders):
    with pytest.raises(simlink.ConfigError, match="one sender"):
        verified(channel, orders, senders=2)
    with channel.receiver() as receiver:
        with pytest.raises(simlink.ConfigError, match="break them on purpose"):
            simlink.verify(receiver, orders.take(9) | faults.drop(0.1), invariants=orders.invariants())
        with pytest.raises(simlink.ConfigError, match=r"name, add\(\) and violations\(\)"):
            simlink.verify(receiver, orders, count=1, invariants=[sum])


def test_the_command_line_tells_a_lost_compensation(events, undone):
    row, order, paid = undone
    with Command(
        *("receive", "tcp://127.0.0.1:0/orders", "--verify", "orders", "--seed", 7, "--count", COUNT),
        *("--invariants", "--json"),
    ) as receiver:
        with simlink.queue(receiver.ready()) as channel:
            send(channel, events, [i for i in range(COUNT) if i != row])
        # All that was sent is settled; what is not sent would be waited for.
        receiver.signal(signal.SIGINT)
        done = receiver.done(status=130)
    assert (done.report["lost"], done.report["violated"]) == (1, 1)
    assert f"order {order}" in done.report["violations"][0]
    assert f"paid {paid}, refunded 0, but 0 is due" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--invariants",), "--invariants goes with --verify SPEC"),
        (("--verify", "numbers", "--seed", 1, "--count", 1, "--invariants"), "numbers has none"),
        (
            ("--verify", "orders", "--seed", 1, "--count", 1, "--invariants", "--faults", "drop(0.1)"),
            "--invariants do not hold where --faults break them",
        ),
    ],
)
def test_the_command_line_refuses_what_cannot_hold(options, said):
    assert said in run_simlink("receive", "memory://x", *options, status=2).complaint
