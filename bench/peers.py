"""What others take for records of six plain fields as JSON, and for skewed keys: one JSON object of rates.

    python bench/peers.py [--rows 20000]

Runs by itself, in an environment of its own (`make bench` makes it from bench/peers.txt): the peers ask for versions of
their own of what simlink uses too. A rate is records a second of processor time, in one thread, results kept. A peer
that is not installed is left out.

The six fields are those of the row they are held against: who, which visit, what, when, which product, which page. They
are drawn independently of each other.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator

ACTIONS = ["view", "click", "cart", "purchase"]


def faker() -> Callable[[], object]:
    from faker import Faker

    fake = Faker()

    def one() -> bytes:
        return json.dumps(
            {
                "user_id": fake.random_int(0, 50_000),
                "session_id": fake.uuid4(),
                "action": fake.random_element(ACTIONS),
                "timestamp": fake.unix_time(),
                "product_id": fake.random_int(0, 2_000),
                "page_url": fake.uri(),
            }
        ).encode()

    return one


def mimesis() -> Callable[[], object]:
    from mimesis import Generic

    g = Generic()

    def one() -> bytes:
        return json.dumps(
            {
                "user_id": g.numeric.integer_number(0, 50_000),
                "session_id": g.cryptographic.uuid(),
                "action": g.choice(ACTIONS),
                "timestamp": g.datetime.timestamp(),
                "product_id": g.numeric.integer_number(0, 2_000),
                "page_url": g.internet.uri(),
            }
        ).encode()

    return one


def khaos() -> Callable[[], object]:
    from khaos.generators.schema import SchemaPayloadGenerator
    from khaos.models.schema import FieldSchema

    return SchemaPayloadGenerator(
        [
            FieldSchema("user_id", "int", min=0, max=50_000),
            FieldSchema("session_id", "uuid"),
            FieldSchema("action", "enum", values=ACTIONS),
            FieldSchema("timestamp", "timestamp"),
            FieldSchema("product_id", "int", min=0, max=2_000),
            FieldSchema("page_url", "string", min_length=20, max_length=30),
        ]
    ).generate


def khaos_keys() -> Callable[[], object]:
    from khaos.generators.key import ZipfianKeyGenerator

    return ZipfianKeyGenerator(10_000).generate


def rate(make: Callable[[], Callable[[], object]], rows: int) -> Iterator[float]:
    try:
        one = make()
    except ImportError:
        return
    for _ in range(100):
        one()
    begun = time.process_time()
    kept = [one() for _ in range(rows)]
    yield len(kept) / (time.process_time() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    rows = parser.parse_args().rows
    # Each takes about as long as the others.
    peers = {
        "Faker": (faker, rows // 4),
        "Mimesis": (mimesis, rows),
        "khaos": (khaos, rows),
        "khaos, Zipf keys of 10,000": (khaos_keys, rows // 4),
    }
    print(json.dumps({name: found for name, (make, n) in peers.items() for found in rate(make, n)}))


if __name__ == "__main__":
    main()
