"""Kafka through our driver against the same client library used by hand.

The work is the same on both sides: records of 150 bytes of JSON with a key, acks=all, an idempotent producer, a
delivery report for each, the identity in one header; read back with value, key and header, the identity taken apart,
and the value decoded. The by-hand side has the settings that were found fastest (a longer linger, a short fetch
back-off, reads of 1,000), and no other duties: no content type, no window, no order after failures, no commits.

    python bench/bench_kafka.py [--count N] [--repeat N] [--url kafka://HOST:PORT] [--client confluent|python]

Prints medians in messages/s, and ours as a share of by hand in the same repetition.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import uuid

import msgspec
import numpy as np

from simlink.channels.driver import Mode, OutcomeKind, ReceiverOptions, Settlement
from simlink.channels.identity import ID_HEADER
from simlink.channels.kafka import KafkaDriver
from simlink.channels.url import parse_url
from simlink.message import Batch, Same, Verdict
from simlink.testing.brokers import KafkaBroker

BATCH = 1000
WINDOW = 65_536
PARTITIONS = 6
PRODUCER = uuid.uuid4().bytes
STAMP = time.time_ns() // 1000  # a broker drops what is older than a week by its own timestamp
decode = msgspec.json.Decoder().decode


def records(count):
    """Bodies of 150 bytes and keys; made beforehand, so that only the transport is timed."""
    row = (
        '{"event_id":%d,"user_id":%d,"action":"view","page_url":"https://shop.example/products/%d","price":null,"pad":"'
    )
    bodies, keys = [], []
    for i in range(count):
        text = row % (i, i % 50_000, i % 2_000)
        bodies.append((text + "x" * (148 - len(text)) + '"}').encode())
        keys.append(b"%d" % (i % 50_000))
    return bodies, keys


def driver_for(url, client, topic):
    scheme = f"kafka+{client}"
    target = parse_url(f"{url.replace('kafka://', scheme + '://')}/{topic}")
    return KafkaDriver(target, mode=Mode.QUEUE, partitions=PARTITIONS)


# --- ours ---------------------------------------------------------------------------------------------------------


def ours_out(driver, bodies, keys):
    sender = driver.sender()
    sender.open(30)
    total, confirmed = len(bodies), 0
    started = time.perf_counter()
    for first in range(0, total, BATCH):
        last = min(first + BATCH, total)
        n = last - first
        while first - confirmed > WINDOW - BATCH:
            confirmed += count_confirmed(sender.outcomes(0.01))
        sender.submit(
            Batch(
                bodies[first:last],
                keys=keys[first:last],
                content_types=Same("application/json", n),
                producers=Same(PRODUCER, n),
                sequences=range(first, last),
                timestamps=Same(STAMP, n),
            ),
            first,
        )
        confirmed += count_confirmed(sender.outcomes(0))
    while confirmed < total:
        confirmed += count_confirmed(sender.outcomes(0.01))
    seconds = time.perf_counter() - started
    sender.close(30)
    return total / seconds


def count_confirmed(outcomes):
    assert all(o.kind is OutcomeKind.CONFIRMED for o in outcomes), outcomes
    return sum(o.stop - o.first for o in outcomes)


def ours_in(driver, count):
    receiver = driver.receiver(None, ReceiverOptions(start="earliest", reset=True))
    receiver.open(30)
    got, kept = 0, []
    started = None
    while got < count:
        for incoming in receiver.receive(500, 5.0):
            if started is None:
                started = time.perf_counter()
            batch = incoming.batch
            kept.append((list(map(decode, batch.bodies)), batch.keys, batch.sequences))
            got += len(batch)
            receiver.settle([Settlement(incoming.lease, Verdict.ACK, incoming.tokens[0], incoming.tokens[-1])])
    seconds = time.perf_counter() - started
    receiver.close(30)
    assert len(np.unique(np.concatenate([np.asarray(s) for _, _, s in kept]))) == count
    return count / seconds


# --- by hand ------------------------------------------------------------------------------------------------------


def identity(i):
    return f"{PRODUCER.hex()}/{i:016d}/{STAMP:016d}".encode()


def confluent_out(address, topic, bodies, keys):
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": address,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            "batch.size": 262_144,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    reports = 0

    def report(error, _message):
        nonlocal reports
        assert error is None
        reports += 1

    producer.list_topics(topic, 10)
    started = time.perf_counter()
    for first in range(0, len(bodies), BATCH):
        while first - reports > WINDOW - BATCH:
            producer.poll(0.01)
        for i in range(first, min(first + BATCH, len(bodies))):
            producer.produce(topic, bodies[i], keys[i], on_delivery=report, headers=[(ID_HEADER, identity(i))])
        producer.poll(0)
    producer.flush()
    seconds = time.perf_counter() - started
    assert reports == len(bodies)
    return len(bodies) / seconds


def confluent_in(address, topic, count):
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": uuid.uuid4().hex,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    kept = []
    started = None
    while len(kept) < count:
        for message in consumer.consume(1000, 0.05):
            if started is None:
                started = time.perf_counter()
            producer, sequence, _ = dict(message.headers())[ID_HEADER].split(b"/")
            kept.append((decode(message.value()), message.key(), producer, int(sequence)))
    seconds = time.perf_counter() - started
    consumer.close()
    return count / seconds


def python_out(address, topic, bodies, keys):
    from kafka import KafkaProducer

    producer = KafkaProducer(
        bootstrap_servers=address,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        batch_size=262_144,
        metrics_enabled=False,
    )
    producer.partitions_for(topic)
    futures = []
    reported = 0
    started = time.perf_counter()
    for i, (body, key) in enumerate(zip(bodies, keys, strict=True)):
        futures.append(producer.send(topic, body, key, [(ID_HEADER, identity(i))]))
        if i % BATCH == 0:
            while reported < len(futures) and futures[reported].is_done:
                reported += 1
            while len(futures) - reported > WINDOW:
                futures[reported].get(30)
                reported += 1
    for future in futures[reported:]:
        future.get(30)
    seconds = time.perf_counter() - started
    producer.close()
    return len(bodies) / seconds


def python_in(address, topic, count):
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=address,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=1000,
        check_crcs=False,
        metrics_enabled=False,
    )
    parts = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    consumer.assign(parts)
    consumer.seek_to_beginning(*parts)
    kept = []
    started = None
    while len(kept) < count:
        for found in consumer.poll(timeout_ms=500).values():
            if started is None:
                started = time.perf_counter()
            for message in found:
                producer, sequence, _ = dict(message.headers)[ID_HEADER].split(b"/")
                kept.append((decode(message.value), message.key, producer, int(sequence)))
    seconds = time.perf_counter() - started
    consumer.close()
    return count / seconds


BY_HAND = {"confluent": (confluent_out, confluent_in), "python": (python_out, python_in)}


def measure(url, client, count, repeat):
    bodies, keys = records(count)
    address = url.partition("://")[2]
    hand_out, hand_in = BY_HAND[client]
    rows = {"out by hand": [], "out": [], "in by hand": [], "in": []}
    for _ in range(repeat):
        driver = driver_for(url, client, f"bench-{uuid.uuid4().hex[:8]}")
        sender = driver.sender()  # makes the topic
        sender.open(30)
        sender.close(30)
        name = driver.target.name
        rows["out by hand"].append(hand_out(address, name, bodies, keys))
        driver.delete(30)

        driver = driver_for(url, client, f"bench-{uuid.uuid4().hex[:8]}")
        rows["out"].append(ours_out(driver, bodies, keys))
        rows["in by hand"].append(hand_in(address, driver.target.name, count))
        rows["in"].append(ours_in(driver, count))
        driver.delete(30)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, help="messages in a run (400,000; kafka-python 60,000)")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--url", help="a broker; one is started where none is given")
    parser.add_argument("--client", choices=sorted(BY_HAND), action="append")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args()
    if given.url:
        run(given.url, given)
        return
    with KafkaBroker(own=True) as broker:
        run(broker.url, given)


def run(url, given):
    found = {}
    for client in given.client or sorted(BY_HAND):
        count = given.count or (400_000 if client == "confluent" else 60_000)
        rows = measure(url, client, count, given.repeat)
        if given.json:
            # By hand first, ours second, in messages/s.
            found[client] = {
                way: [statistics.median(rows[f"{way} by hand"]), statistics.median(rows[way])] for way in ("out", "in")
            }
            continue
        print(f"{client}, {count:,} messages of 150 B, median of {given.repeat}")
        for way in ("out", "in"):
            hand, mine = rows[f"{way} by hand"], rows[way]
            share = statistics.median(m / h for m, h in zip(mine, hand, strict=True))
            print(
                f"  {way:3}  by hand {statistics.median(hand):>9,.0f}/s   driver {statistics.median(mine):>9,.0f}/s   "
                f"{share:.2f}x"
            )
    if given.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
