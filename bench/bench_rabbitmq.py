"""RabbitMQ through our channel against pika used by hand.

The work is the same on both sides: records of 150 bytes of JSON, made and encoded beforehand, to one durable queue, as
persistent messages with the identity in one header, each confirmed by the broker; read back with the header, the
identity taken apart, the value decoded and the message acknowledged. The by-hand side has pika's own loop in its only
thread, 4,000 messages in flight, refilled at half, and acknowledges 200 at a time. Ours is the whole channel:
`send_many` in parts of 1,000 and `batches()`, with its window, receipts and de-duplication.

One small message, one after the other, an idle broker: from before the send until it is in the reader's hands. Ours
waits for the confirmation first; by hand is a BlockingConnection with confirms, and a consumer on a connection of its
own, both in one thread.

    python bench/bench_rabbitmq.py [--count N] [--repeat N] [--rounds N] [--url amqp://USER:PASSWORD@HOST:PORT]

Prints medians, and ours as a share of by hand in the same repetition.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import uuid

import msgspec
import pika

import simlink
from simlink.channels.identity import ID_HEADER
from simlink.message import Batch, Same
from simlink.testing.brokers import RabbitMQBroker

PART = 1_000
IN_FLIGHT = 4_000
PREFETCH = 500
ACK_EVERY = 200
PRODUCER = uuid.uuid4().bytes
STAMP = time.time_ns() // 1000
decode = msgspec.json.Decoder().decode


def records(count):
    """Bodies of 150 bytes; made beforehand, so that only the transport is timed."""
    row = (
        '{"event_id":%d,"user_id":%d,"action":"view","page_url":"https://shop.example/products/%d","price":null,"pad":"'
    )
    bodies = []
    for i in range(count):
        text = row % (i, i % 50_000, i % 2_000)
        bodies.append((text + "x" * (148 - len(text)) + '"}').encode())
    return bodies


# --- ours ---------------------------------------------------------------------------------------------------------


def ours_out(url, queue, bodies):
    with simlink.queue(f"{url}/{queue}") as channel:
        channel.send_many(Batch([b"{}"]), timeout=30.0)  # connected
        started = time.perf_counter()
        receipts = []
        for first in range(0, len(bodies), PART):
            part = bodies[first : first + PART]
            batch = Batch(
                part,
                content_types=Same("application/json", len(part)),
                producers=Same(PRODUCER, len(part)),
                sequences=range(first, first + len(part)),
                timestamps=Same(STAMP, len(part)),
            )
            receipts.append(channel.send_many(batch, wait=False))
        for receipt in receipts:
            receipt.wait(60.0)
        seconds = time.perf_counter() - started
        assert {"confirmed"} == {receipt.state for receipt in receipts}
    return len(bodies) / seconds


def ours_in(url, queue, count):
    kept = []
    got = 0
    started = None
    with simlink.queue(f"{url}/{queue}") as channel, channel.receiver() as rx:
        for batch in rx.batches():
            if started is None:
                started = time.perf_counter()
            kept.append((batch.values, batch.sequences))
            got += len(batch)
            if got >= count:
                break
        rx.close()
        seconds = time.perf_counter() - started
    assert got == count
    return count / seconds


# --- by hand ------------------------------------------------------------------------------------------------------


def parameters(url):
    return pika.URLParameters(f"{url}/%2F")


def identity(i):
    return f"{PRODUCER.hex()}/{i:016d}/{STAMP:016d}"


def properties(i):
    return pika.BasicProperties(
        content_type="application/json", headers={ID_HEADER: identity(i)}, delivery_mode=2, timestamp=STAMP // 1_000_000
    )


def windowed_out(url, queue, bodies):
    """pika's SelectConnection with many confirms outstanding."""
    total = len(bodies)
    state = {"next": 0, "confirmed": 0, "started": 0.0, "seconds": 0.0, "low": 1, "done": set()}

    def refill(channel):
        stop = min(total, state["confirmed"] + IN_FLIGHT)
        for i in range(state["next"], stop):
            channel.basic_publish("", queue, bodies[i], properties(i), mandatory=True)
        state["next"] = max(state["next"], stop)

    def on_confirm(frame):
        method = frame.method
        assert isinstance(method, pika.spec.Basic.Ack)
        if method.multiple:
            fresh = [t for t in range(state["low"], method.delivery_tag + 1) if t not in state["done"]]
            state["confirmed"] += len(fresh)
            state["low"] = method.delivery_tag + 1
            state["done"] = {t for t in state["done"] if t >= state["low"]}
        else:
            state["confirmed"] += 1
            state["done"].add(method.delivery_tag)
        if state["confirmed"] == total:
            state["seconds"] = time.perf_counter() - state["started"]
            connection.close()
        elif state["next"] - state["confirmed"] <= IN_FLIGHT // 2:
            refill(channel_of[0])

    channel_of = []

    def on_channel(channel):
        channel_of.append(channel)
        channel.confirm_delivery(on_confirm, callback=lambda _frame: begin(channel))

    def begin(channel):
        state["started"] = time.perf_counter()
        refill(channel)

    connection = pika.SelectConnection(
        parameters(url),
        on_open_callback=lambda c: c.channel(on_open_callback=on_channel),
        on_close_callback=lambda c, _reason: c.ioloop.stop(),
    )
    connection.ioloop.start()
    return total / state["seconds"]


def each_out(url, queue, bodies):
    """pika's BlockingConnection, which waits for the confirmation of every message."""
    connection = pika.BlockingConnection(parameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    started = time.perf_counter()
    for i, body in enumerate(bodies):
        channel.basic_publish("", queue, body, properties(i), mandatory=True)
    seconds = time.perf_counter() - started
    connection.close()
    return len(bodies) / seconds


def hand_in(url, queue, count):
    """pika's SelectConnection, decoding in its callback."""
    kept = []
    state = {"started": 0.0, "seconds": 0.0}

    def on_message(channel, method, props, body):
        if not kept:
            state["started"] = time.perf_counter()
        producer, sequence, _ = props.headers[ID_HEADER].split("/")
        kept.append((decode(body), producer, int(sequence)))
        if len(kept) % ACK_EVERY == 0 or len(kept) == count:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if len(kept) == count:
            state["seconds"] = time.perf_counter() - state["started"]
            connection.close()

    def on_channel(channel):
        channel.basic_qos(
            prefetch_count=PREFETCH,
            callback=lambda _frame: channel.basic_consume(queue, on_message_callback=on_message),
        )

    connection = pika.SelectConnection(
        parameters(url),
        on_open_callback=lambda c: c.channel(on_open_callback=on_channel),
        on_close_callback=lambda c, _reason: c.ioloop.stop(),
    )
    connection.ioloop.start()
    return count / state["seconds"]


# --- one at a time ------------------------------------------------------------------------------------------------


def ours_wait(url, queue, rounds):
    """Microseconds from before the send until the value is there: a reader that asks in the same thread."""
    waits = []
    with simlink.queue(f"{url}/{queue}") as channel, channel.receiver() as rx:
        for i in range(rounds + 20):
            started = time.perf_counter()
            channel.send({"i": i})
            assert rx.get(timeout=10.0).value == {"i": i}
            waits.append((time.perf_counter() - started) * 1e6)
    return statistics.median(waits[20:])


def hand_wait(url, queue, rounds):
    out = pika.BlockingConnection(parameters(url))
    into = pika.BlockingConnection(parameters(url))
    sending, reading = out.channel(), into.channel()
    sending.confirm_delivery()
    reading.basic_qos(prefetch_count=PREFETCH)
    messages = reading.consume(queue, inactivity_timeout=10.0)
    waits = []
    for i in range(rounds + 20):
        started = time.perf_counter()
        sending.basic_publish("", queue, msgspec.json.encode({"i": i}), properties(i), mandatory=True)
        method, _, body = next(messages)
        assert decode(body) == {"i": i}
        waits.append((time.perf_counter() - started) * 1e6)
        reading.basic_ack(method.delivery_tag)
    reading.cancel()
    out.close()
    into.close()
    return statistics.median(waits[20:])


# --- the whole ----------------------------------------------------------------------------------------------------


def measure(url, count, repeat, rounds):
    bodies = records(count)
    few = bodies[: max(1_000, count // 20)]
    names = ("each", "windowed", "out", "in by hand", "in", "p50 by hand", "p50")
    rows = {name: [] for name in names}
    for turn in range(repeat):
        queues = [f"bench-{uuid.uuid4().hex[:8]}" for _ in range(3)]
        admin = pika.BlockingConnection(parameters(url))
        for queue in queues:
            admin.channel().queue_declare(queue, durable=True)
        try:
            rows["each"].append(each_out(url, queues[2], few))
            # Who goes first has the colder broker, so they take turns.
            sides = [("windowed", windowed_out, queues[0]), ("out", ours_out, queues[1])]
            for name, side, queue in sides if turn % 2 else reversed(sides):
                rows[name].append(side(url, queue, bodies))
            mine = simlink.queue(f"{url}/{queues[1]}")
            with mine, mine.receiver() as rx:
                rx.get(timeout=10.0)  # the one that connected
            sides = [("in by hand", hand_in, queues[0]), ("in", ours_in, queues[1])]
            for name, side, queue in sides if turn % 2 else reversed(sides):
                rows[name].append(side(url, queue, count))
            admin.channel().queue_purge(queues[2])
            sides = [("p50 by hand", hand_wait, queues[2]), ("p50", ours_wait, queues[2])]
            for name, side, queue in sides if turn % 2 else reversed(sides):
                rows[name].append(side(url, queue, rounds))
        finally:
            for queue in queues:
                admin.channel().queue_delete(queue)
            admin.close()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60_000, help="messages in a run (60,000)")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=500, help="messages sent one at a time")
    parser.add_argument("--url", help="a broker; one is started where none is given")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args()
    if given.url:
        run(given.url, given)
        return
    with RabbitMQBroker(own=True) as broker:
        run(broker.url, given)


def run(url, given):
    rows = measure(url, given.count, given.repeat, given.rounds)
    found = {name: statistics.median(values) for name, values in rows.items()}
    # Shares within one repetition: the broker's mood is the same for both sides.
    for mine, hand in (("out", "windowed"), ("out", "each"), ("in", "in by hand"), ("p50", "p50 by hand")):
        found[f"{mine} / {hand}"] = statistics.median(a / b for a, b in zip(rows[mine], rows[hand], strict=True))
    if given.json:
        print(json.dumps(found))
        return
    print(f"RabbitMQ, {given.count:,} messages of 150 B, median of {given.repeat}")
    print(f"  sent      confirm per message  {found['each']:>9,.0f}/s")
    print(f"            windowed by hand     {found['windowed']:>9,.0f}/s")
    print(f"            ours                 {found['out']:>9,.0f}/s   {found['out / windowed']:.2f}x windowed, "
          f"{found['out / each']:.1f}x per message")  # fmt: skip
    print(f"  consumed  by hand              {found['in by hand']:>9,.0f}/s")
    print(f"            ours                 {found['in']:>9,.0f}/s   {found['in / in by hand']:.2f}x")
    print(f"  one       by hand, p50         {found['p50 by hand']:>9,.0f} us")
    print(f"            ours, p50            {found['p50']:>9,.0f} us  {found['p50 / p50 by hand']:.2f}x")


if __name__ == "__main__":
    main()
