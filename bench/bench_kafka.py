"""A Kafka queue through its channel against the same client library used by hand.

The work is the same on both sides: ready bodies of 150 bytes with a key, acks=all, an idempotent producer, a delivery
report for each, the identity in one header; read back with value, key and header, the identity taken apart, the value
decoded, and all of it kept. By hand has the settings that were found fastest (a longer linger, a short fetch back-off,
reads of 1,000, a larger fetch), and no other duties: no window in bytes, no receipts, no order after failures, no
group, no commits, no de-duplication. The channel lingers as long as by hand, or (a row of its own) as it comes.

    python bench/bench_kafka.py [--count N] [--repeat N] [--url kafka://HOST:PORT] [--client confluent|python]

Prints medians in messages/s, and ours as a share of by hand: the median over the rounds. Within a round the two take
turns, and every round begins with the other one.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
import uuid

import msgspec
import numpy as np

import simlink
from simlink.channels.identity import ID_HEADER
from simlink.message import Batch
from simlink.testing.brokers import KafkaBroker

BATCH = 1000
WINDOW = 65_536
PARTITIONS = 6
LINGER = 50
"""Milliseconds: the fastest of 2, 5, 20 and 50 for both clients (measured)."""
WAYS = {"out": "out by hand", "out, as it comes": "out by hand", "in": "in by hand"}
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


# --- ours ---------------------------------------------------------------------------------------------------------


def channel(url, client, topic, **options):
    url = f"{url.replace('kafka://', f'kafka+{client}://')}/{topic}"
    return simlink.queue(url, partitions=PARTITIONS, **options)


def ours_out(url, client, topic, bodies, keys, **options):
    with channel(url, client, topic, **options) as orders:
        orders.sender.connect(30)  # as the other one: the topic is there and known before the clock starts
        receipts = []
        started = time.perf_counter()
        for first in range(0, len(bodies), BATCH):
            last = first + BATCH
            receipts.append(orders.send_many(Batch(bodies[first:last], keys=keys[first:last]), wait=False))
        for receipt in receipts:
            receipt.wait()
        seconds = time.perf_counter() - started
        assert sum(receipt.confirmed for receipt in receipts) == len(bodies)
    return len(bodies) / seconds


def ours_in(url, client, topic, count):
    kept = []
    got, started = 0, None
    group = uuid.uuid4().hex  # a new one reads from the start
    with channel(url, client, topic, group=group) as orders, orders.receiver() as rx:
        for batch in rx.batches():
            if started is None:
                started = time.perf_counter()
            kept.append((batch.values, batch.keys, batch.headers, batch.producers, batch.sequences))
            got += len(batch)
            if got >= count:
                break
        seconds = time.perf_counter() - started
    assert len(np.unique(np.concatenate([np.asarray(row[-1]) for row in kept]))) == count == got
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
            "linger.ms": LINGER,
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
        linger_ms=LINGER,
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
        max_partition_fetch_bytes=4 * 1024 * 1024,
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


COUNTS = {"confluent": {"out": 400_000, "in": 400_000}, "python": {"out": 60_000, "in": 200_000}}
BY_HAND = {"confluent": (confluent_out, confluent_in), "python": (python_out, python_in)}


def measure(url, client, count, repeat):
    address = url.partition("://")[2]
    hand_out, hand_in = BY_HAND[client]
    rows = {"out by hand": [], "out": [], "out, as it comes": [], "in by hand": [], "in": []}
    bodies, keys = records(count["out"])
    for round_ in range(repeat):
        ours, plain, theirs = make_topic(url), make_topic(url), make_topic(url)
        turns = [
            ("out by hand", lambda topic=theirs: hand_out(address, topic, bodies, keys)),
            ("out", lambda topic=ours: ours_out(url, client, topic, bodies, keys, linger_ms=LINGER)),
            ("out, as it comes", lambda topic=plain: ours_out(url, client, topic, bodies, keys)),
        ]
        take_turns(rows, turns, round_)
        for topic in (ours, plain, theirs):
            delete_topic(url, topic)

    topic = make_topic(url)
    ours_out(url, "confluent", topic, *records(count["in"]))
    for round_ in range(repeat):
        turns = [
            ("in by hand", lambda: hand_in(address, topic, count["in"])),
            ("in", lambda: ours_in(url, client, topic, count["in"])),
        ]
        take_turns(rows, turns, round_)
    delete_topic(url, topic)
    return rows


def take_turns(rows, turns, round_):
    for name, work in turns if round_ % 2 == 0 else reversed(turns):
        gc.collect()
        rows[name].append(work())


def make_topic(url):
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    with channel(url, "confluent", topic) as orders:
        orders.sender.connect(30)
    return topic


def delete_topic(url, topic):
    with channel(url, "confluent", topic) as orders:
        orders.delete()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, help="messages in a run (400,000; kafka-python 60,000 out, 200,000 in)")
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
        count = {way: given.count or usual for way, usual in COUNTS[client].items()}
        rows = measure(url, client, count, given.repeat)
        if given.json:
            # By hand first, ours second, in messages/s.
            found[client] = {
                way: [statistics.median(rows[hand]), statistics.median(rows[way])] for way, hand in WAYS.items()
            }
            continue
        print(f"{client}, messages of 150 B, {count['out']:,} out and {count['in']:,} in, median of {given.repeat}")
        for way, by_hand in WAYS.items():
            hand, mine = rows[by_hand], rows[way]
            share = statistics.median(m / h for m, h in zip(mine, hand, strict=True))
            print(
                f"  {way:16}  by hand {statistics.median(hand):>9,.0f}/s   "
                f"channel {statistics.median(mine):>9,.0f}/s   "
                f"{share:.2f}x"
            )
    if given.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
