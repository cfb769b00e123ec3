"""Records from a seed, through a queue, and the proof that all of them arrived.

    python examples/quickstart.py [URL]

The URL is memory://orders by default; tcp://127.0.0.1:7001/orders and kafka://host:9092/orders work the same.
"""

import sys

import simlink
from simlink import fields

clicks = simlink.record(
    "click",
    event_id=fields.sequence(),
    user_id=fields.zipf(50_000),
    action=fields.choice(view=80, click=17, purchase=3),
    price=fields.when("action", "purchase", fields.lognormal(3, 0.5)),
    timestamp=fields.event_time(),
    seed=7,
)


def main(url: str = "memory://orders") -> None:
    print(clicks.preview())
    with simlink.queue(url) as orders, orders.receiver() as rx:
        report = simlink.run(clicks, orders, count=10_000, key="user_id")
        result = simlink.verify(rx, clicks, count=10_000)
    print(report)
    print(result)
    assert result.ok


if __name__ == "__main__":
    main(*sys.argv[1:])
