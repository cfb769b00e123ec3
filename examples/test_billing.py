"""simlink as the fixture around a system under test: here a function that books orders.

pytest examples/test_billing.py                          # in memory
pytest examples/test_billing.py --simlink-url=kafka://   # over a real Kafka that the plugin starts
"""

import simlink
from simlink import fields


def book(channel, ledger, count):
    """The system under test: reads orders, and puts those it cannot book back."""
    with channel.receiver(settle="manual") as rx:
        while len(ledger) < count:
            delivery = rx.get(timeout=10)
            if delivery.value["total"] > 90 and delivery.attempt == 1:
                delivery.nack()  # a service behind it is busy; try again later
            else:
                ledger[delivery.value["order_id"]] = delivery.value["total"]
                delivery.ack()


def test_every_order_is_booked_although_some_are_put_back(simlink_queue, simlink_seed):
    orders = simlink.record(
        "order",
        order_id=fields.sequence(),
        total=fields.uniform(1, 99, decimals=2),
        seed=simlink_seed,
    )
    simlink.run(orders, simlink_queue, count=200, key="order_id")
    ledger = {}

    book(simlink_queue, ledger, 200)

    assert {order["order_id"]: order["total"] for order in orders[0:200]} == ledger
