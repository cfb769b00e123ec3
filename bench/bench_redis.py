"""Redis through our channel against redis-py used by hand.

The same on both sides: bodies of 150 bytes of JSON with a key, the identity and the content type in fields of their
own, appended to one stream; read back through a consumer group, 500 at a time, with everything decoded, kept and
acknowledged. By hand it is what redis-py offers for speed: pipelines of 1,000 XADD without a transaction, XREADGROUP
and XACK. It writes the identity, but does not read it, tells no duplicates, keeps no window, and does not know what
became of a batch whose reply was lost.

Latency is one small message at a time on an idle machine, from just before it is sent to its arrival in another
process.

    python bench/bench_redis.py [--count N] [--repeat N] [--rounds N] [--url redis://HOST:PORT]

Prints medians, and ours as a share of by hand in the same repetition.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
import uuid

import msgspec
import redis

import simlink
from simlink.message import Batch, Same
from simlink.testing.brokers import RedisBroker

BATCH = 1000
PREFETCH = 500
PRODUCER = uuid.uuid4().bytes
STAMP = time.time_ns() // 1000
PAUSE = 0.002
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


# --- streams ------------------------------------------------------------------------------------------------------


def ours_out(url, bodies, keys):
    total = len(bodies)
    with simlink.queue(url) as channel:
        channel.sender.connect(30)
        started = time.perf_counter()
        for first in range(0, total, BATCH):
            n = min(BATCH, total - first)
            channel.submit(
                Batch(
                    bodies[first : first + n],
                    keys=keys[first : first + n],
                    content_types=Same("application/json", n),
                    producers=Same(PRODUCER, n),
                    sequences=range(first, first + n),
                    timestamps=Same(STAMP, n),
                ),
                30,
            )
        assert channel.sender.wait_confirmed(60)
        seconds = time.perf_counter() - started
        assert channel.stats()["confirmed"] == total
    return total / seconds


def ours_in(url, count, *, one_by_one=False):
    kept = []
    with simlink.queue(url) as channel, channel.receiver(prefetch=PREFETCH) as rx:
        started = time.perf_counter()
        if one_by_one:
            for delivery in rx:
                kept.append(delivery.value)
                if len(kept) == count:
                    break
        else:
            for batch in rx.batches():
                kept += batch.values
                if len(kept) == count:
                    break
        rx.acknowledge()
        seconds = time.perf_counter() - started
    assert len({row["event_id"] for row in kept}) == count
    return count / seconds


def hand_out(client, key, bodies, keys):
    started = time.perf_counter()
    for first in range(0, len(bodies), BATCH):
        pipeline = client.pipeline(transaction=False)
        for i in range(first, min(first + BATCH, len(bodies))):
            pipeline.xadd(
                key,
                {
                    "body": bodies[i],
                    "key": keys[i],
                    "simlink-id": f"{PRODUCER.hex()}/{i:016d}/{STAMP:016d}",
                    "content-type": "application/json",
                },
            )
        pipeline.execute()
    return len(bodies) / (time.perf_counter() - started)


def hand_in(client, key, count):
    client.xgroup_create(key, "bench", "0")
    kept = []
    started = time.perf_counter()
    while len(kept) < count:
        found = client.xreadgroup("bench", "one", {key: ">"}, count=PREFETCH)
        entries = found[0][1]
        kept += [decode(fields[b"body"]) for _, fields in entries]
        client.xack(key, "bench", *[i for i, _ in entries])
    return count / (time.perf_counter() - started)


# --- Pub/Sub ------------------------------------------------------------------------------------------------------


def ours_published(url, bodies):
    address = url.replace("redis://", "redis+pubsub://")
    with simlink.topic(address, delivery="at-most-once") as channel:
        channel.sender.connect(30)
        started = time.perf_counter()
        for first in range(0, len(bodies), BATCH):
            channel.submit(Batch(bodies[first : first + BATCH]), 30)
        assert channel.sender.wait_confirmed(60)
        return len(bodies) / (time.perf_counter() - started)


def hand_published(client, name, bodies):
    started = time.perf_counter()
    for first in range(0, len(bodies), BATCH):
        pipeline = client.pipeline(transaction=False)
        for body in bodies[first : first + BATCH]:
            pipeline.publish(name, body)
        pipeline.execute()
    return len(bodies) / (time.perf_counter() - started)


# --- latency ------------------------------------------------------------------------------------------------------


def ours_listens(url, rounds, pipe):
    took = []
    with simlink.queue(url, serializer=simlink.Bytes()) as channel, channel.receiver() as rx:
        pipe.send("ready")
        for _ in range(rounds):
            body = rx.get(timeout=30).value
            took.append(time.monotonic_ns() - int(body))
    pipe.send(took)


def hand_listens(url, key, rounds, pipe):
    client = redis.Redis.from_url(url)
    client.xgroup_create(key, "bench", "$", mkstream=True)
    pipe.send("ready")
    took = []
    while len(took) < rounds:
        for entry, fields in client.xreadgroup("bench", "one", {key: ">"}, count=PREFETCH, block=30_000)[0][1]:
            took.append(time.monotonic_ns() - int(fields[b"body"]))
            client.xack(key, "bench", entry)
    pipe.send(took)


def latency(listen, args, rounds, send):
    """The median in µs of ``rounds`` messages."""
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=listen, args=(*args, rounds, theirs))
    process.start()
    try:
        assert mine.recv() == "ready"
        for _ in range(rounds):
            time.sleep(PAUSE)
            send(b"%d" % time.monotonic_ns())
        took = mine.recv()
    finally:
        process.join(30)
    return statistics.median(took) / 1000


def measure_latency(url, rounds):
    client = redis.Redis.from_url(url)
    key = f"bench-{uuid.uuid4().hex[:8]}"
    hand = latency(hand_listens, (url, key), rounds, lambda body: client.xadd(key, {"body": body}))
    name = f"{url}/bench-{uuid.uuid4().hex[:8]}"
    with simlink.queue(name, serializer=simlink.Bytes()) as channel:
        mine = latency(ours_listens, (name,), rounds, channel.send)
    return hand, mine


# --- all ----------------------------------------------------------------------------------------------------------


def measure(url, count, repeat, rounds):
    bodies, keys = records(count)
    client = redis.Redis.from_url(url)
    ways = ("sent", "read and acknowledged", "read one by one", "published", "p50")
    rows = {way: [] for way in ways}
    for _ in range(repeat):
        client.flushall()
        hand_sent = hand_out(client, "by-hand", bodies, keys)
        hand_read = hand_in(client, "by-hand", count)
        client.flushall()
        rows["sent"].append((hand_sent, ours_out(f"{url}/bench", bodies, keys)))
        rows["read and acknowledged"].append((hand_read, ours_in(f"{url}/bench", count)))
        client.flushall()
        ours_out(f"{url}/bench", bodies, keys)
        rows["read one by one"].append((hand_read, ours_in(f"{url}/bench", count, one_by_one=True)))
        client.flushall()
        rows["published"].append((hand_published(client, "bench", bodies), ours_published(f"{url}/bench", bodies)))
        rows["p50"].append(measure_latency(url, rounds))
    client.flushall()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200_000, help="messages in a run")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1_000, help="single messages for the latency")
    parser.add_argument("--url", help="a server that may be emptied; one is started where none is given")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args()
    if given.url:
        run(given.url, given)
        return
    with RedisBroker(own=True) as broker:
        run(broker.url, given)


def run(url, given):
    rows = measure(url, given.count, given.repeat, given.rounds)
    if given.json:
        # By hand first, ours second: messages/s, and µs for the latency.
        medians = {
            way: [statistics.median(column) for column in zip(*pairs, strict=True)] for way, pairs in rows.items()
        }
        print(json.dumps(medians))
        return
    print(f"{given.count:,} messages of 150 B, median of {given.repeat}")
    for way, pairs in rows.items():
        hand, mine = (statistics.median(column) for column in zip(*pairs, strict=True))
        share = statistics.median(m / h for h, m in pairs)
        unit = " µs" if way == "p50" else "/s"
        print(f"  {way:22} by hand {hand:>9,.0f}{unit}   ours {mine:>9,.0f}{unit}   {share:.2f}x")


if __name__ == "__main__":
    main()
