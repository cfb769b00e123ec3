"""Queues: what goes in comes out, once, intact and in order."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from typing import Any

from simlink.channels.driver import Capabilities, Kept, Mode, Order
from simlink.errors import ConnectError, DecodeError, EncodeError, SendError, SendTimeout
from simlink.message import Batch, Message
from simlink.serializers.raw import Bytes
from simlink.testing.conformance.harness import Harness, case, in_thread

Q = Mode.QUEUE


def collect(receiver: Any, expected: int, harness: Harness) -> list[Any]:
    """At least ``expected`` values, one by one, until it is quiet."""
    out: list[Any] = []
    deadline = time.monotonic() + harness.patience
    receiver.idle = harness.quiet
    while len(out) < expected and time.monotonic() < deadline:
        out += [d.value for d in receiver]
    return out


@case(Q)
def bodies_arrive_as_they_are(h: Harness) -> None:
    bodies = [
        b"",
        b"\x00",
        b"\xff\xfe not utf-8 \x80",
        b"x" * 1_048_576 if _takes_a_mebibyte(h) else b"x" * 1_000,
        b"\n\n",
    ]
    with h.queue(serializer=Bytes()) as channel, channel.receiver() as rx:
        for body in bodies:
            channel.send(body, key="k", timeout=h.patience)

        assert bodies == rx.take(len(bodies), timeout=h.patience)


def _takes_a_mebibyte(h: Harness) -> bool:
    limit = h.capabilities[Q].max_message_bytes
    return limit is None or limit >= 1_048_576


@case(Q, lambda c: c.keys)
def keys_arrive(h: Harness) -> None:
    given: list[Any] = ["text", "naïve ☃", b"\x00\xff", 17, -3, None]
    expected = [b"text", "naïve ☃".encode(), b"\x00\xff", b"17", b"-3", None]
    with h.queue() as channel, channel.receiver() as rx:
        for row, key in enumerate(given):
            channel.send(row, key=key, timeout=h.patience)
        found = {}
        for _ in given:
            delivery = rx.get(timeout=h.patience)
            found[delivery.value] = delivery.message.key

    assert expected == [found[row] for row in range(len(given))]


@case(Q, lambda c: c.headers)
def a_trace_context_passes_through_untouched(h: Harness) -> None:
    """W3C Trace Context, https://www.w3.org/TR/trace-context/: header names in lower case, values as they are."""
    headers = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
        "baggage": "userId=alice,serverNode=DF%2028;p=1",
    }
    with h.queue() as channel, channel.receiver() as rx:
        channel.send({"a": 1}, headers=headers, timeout=h.patience)
        channel.send_many([{"a": i} for i in (2, 3)], headers=headers, timeout=h.patience)
        found = [dict(rx.get(timeout=h.patience).message.headers) for _ in range(3)]

        assert [headers] * 3 == found


@case(Q, lambda c: c.headers and c.keys and c.identity)
def all_that_a_message_has_arrives_together(h: Harness) -> None:
    """In one batch, each row with its own: nothing of one message may end up with another."""
    sent = [
        Message(
            body=b"%d" % i,
            key=b"k%d" % i,
            headers={"n": str(i), **({"traceparent": f"00-{i:032x}-{i + 1:016x}-01"} if i % 2 else {})},
            content_type="application/json" if i % 3 else "text/plain; charset=utf-8",
            producer=bytes(15) + b"\x07",
            sequence=i,
            timestamp=1_700_000_000_000_001 + i,
        )
        for i in range(40)
    ]
    with h.queue() as channel, channel.receiver() as rx:
        channel.send_many(sent, timeout=h.patience)
        found = sorted((rx.get(timeout=h.patience).message for _ in sent), key=lambda m: int(m.body))

    assert [(m.body, m.key, dict(m.headers), m.content_type, m.sequence, m.timestamp) for m in sent] == [
        (m.body, m.key, dict(m.headers), m.content_type, m.sequence, m.timestamp) for m in found
    ]


@case(Q, lambda c: c.headers)
def headers_and_content_type_arrive(h: Harness) -> None:
    headers = {"trace": "7f", "x-empty": "", "x-odd": "a=b; c, ü ☃ \"quoted\" 'single' \\", "CamelCase": "kept"}
    with h.queue() as channel, channel.receiver() as rx:
        channel.send({"a": 1}, headers=headers, timeout=h.patience)
        message = rx.get(timeout=h.patience).message

        assert headers == dict(message.headers)
        assert message.content_type == "application/json"


@case(Q, lambda c: c.identity)
def identity_and_intended_time_arrive(h: Harness) -> None:
    producer = bytes(range(16))
    sent = Message(body=b"1", key=b"k", producer=producer, sequence=41, timestamp=1_700_000_000_123_456)
    with h.queue() as channel, channel.receiver() as rx:
        channel.send(sent, timeout=h.patience)
        message = rx.get(timeout=h.patience).message

        assert (producer, 41, 1_700_000_000_123_456) == (message.producer, message.sequence, message.timestamp)


@case(Q)
def one_key_stays_in_order(h: Harness) -> None:
    with h.queue() as channel, channel.receiver() as rx:
        for part in range(10):
            channel.send_many([{"k": i % 16, "i": part * 200 + i} for i in range(200)], key="k", timeout=h.patience)
        seen = collect(rx, 2_000, h)
    assert len(seen) == 2_000
    by_key: dict[int, list[int]] = defaultdict(list)
    for value in seen:
        by_key[value["k"]].append(value["i"])
    for key, rows in by_key.items():
        assert sorted(rows) == rows, f"key {key} came out of order"


@case(Q, lambda c: c.order is not Order.NONE)
def competing_receivers_share_the_messages(h: Harness) -> None:
    with h.queue() as channel, channel.receiver(prefetch=50) as one, channel.receiver(prefetch=50) as two:
        got: dict[str, list[Any]] = {"one": [], "two": []}
        both = threading.Barrier(2)

        def read(name: str, rx: Any) -> None:
            for delivery in rx:
                got[name].append(delivery.value)
                if len(got[name]) == 1:
                    # Busy with its first message until the other has one too: nobody may sit on everything.
                    both.wait(h.patience)

        threads = []
        for name, rx in (("one", one), ("two", two)):
            rx._owner = None
            threads.append(in_thread(lambda name=name, rx=rx: read(name, rx)))  # type: ignore[misc]
        for part in range(10):
            channel.send_many([{"k": i, "i": part * 200 + i} for i in range(200)], key="k", timeout=h.patience)
        h.until(lambda: len(got["one"]) + len(got["two"]) >= 2_000, "all 2,000 messages came")
        one.stop()
        two.stop()
        for thread, raised in threads:
            thread.join(h.patience)
            assert not raised, raised
    rows = sorted(v["i"] for values in got.values() for v in values)
    assert list(range(2_000)) == rows
    if h.capabilities[Q].order is Order.EXCLUSIVE:
        for values in got.values():
            by_key: dict[int, list[int]] = defaultdict(list)
            for value in values:
                by_key[value["k"]].append(value["i"])
            assert all(sorted(rows) == rows for rows in by_key.values()), "a key came out of order"


@case(Q, lambda c: c.kept is not Kept.NO)
def a_queue_keeps_what_came_before_its_first_receiver(h: Harness) -> None:
    with h.queue() as channel:
        channel.send_many([1, 2, 3], key=lambda _: "k", timeout=h.patience)
        with channel.receiver() as rx:
            assert rx.take(3, timeout=h.patience) == [1, 2, 3]


@case(Q, lambda c: c.brokerless)
def a_brokerless_send_waits_for_a_receiver(h: Harness) -> None:
    url = h.url()
    with h.queue(url) as channel:
        started = time.monotonic()
        try:
            channel.send(1, timeout=0.3)
        except ConnectError as error:
            assert isinstance(error, TimeoutError), error
        else:
            raise AssertionError("a send without a receiver was confirmed")
        assert 0.2 <= time.monotonic() - started < 3.0
        with h.queue(url) as other, other.receiver() as rx:
            channel.send(2, timeout=h.patience)
            assert rx.take(1, timeout=h.patience) == [2]


@case(Q)
def many_are_sent_without_waiting_for_each(h: Harness) -> None:
    with h.queue() as channel, channel.receiver() as rx:
        receipts = [channel.send({"i": i}, key="k", wait=False, timeout=h.patience) for i in range(500)]
        for receipt in receipts:
            receipt.wait(h.patience)

        assert {"confirmed"} == {receipt.state for receipt in receipts}
        assert list(range(500)) == [v["i"] for v in rx.take(500, timeout=h.patience)]


@case(Q)
def batches_are_settled_as_a_whole(h: Harness) -> None:
    with h.queue() as channel, channel.receiver(idle=h.quiet) as rx:
        channel.send_many([{"i": i} for i in range(300)], key=lambda _: "k", timeout=h.patience)
        rows: list[int] = []
        while len(rows) < 300:
            for batch in rx.batches():
                assert len(batch.values) == len(batch.bodies) == len(batch.keys) == len(batch)
                rows += [v["i"] for v in batch.values]
    assert list(range(300)) == rows


@case(Q)
def one_bad_body_costs_no_good_one(h: Harness) -> None:
    with h.queue() as channel, channel.receiver() as rx:
        channel.send_many(Batch([b"1", b"{bad", b"3"], keys=[b"k"] * 3), timeout=h.patience)

        assert rx.get(timeout=h.patience).value == 1
        poison = rx.get(timeout=h.patience)
        try:
            _ = poison.value
        except DecodeError as error:
            assert error.body == b"{bad"
        else:
            raise AssertionError("a body that is no JSON was decoded")
        assert rx.get(timeout=h.patience).value == 3


@case(Q)
def what_cannot_be_encoded_is_refused_before_it_is_sent(h: Harness) -> None:
    with h.queue() as channel, channel.receiver() as rx:
        try:
            channel.send_many([1, float("nan"), 3], timeout=h.patience)
        except EncodeError as error:
            assert error.row == 1
        else:
            raise AssertionError("NaN is not JSON and was sent")
        channel.send("fine", timeout=h.patience)

        assert rx.take(1, timeout=h.patience) == ["fine"]


@case(Q)
def a_message_above_the_limit_is_refused(h: Harness) -> None:
    with h.queue(max_message_bytes=1_000) as channel, channel.receiver() as rx:
        try:
            channel.send("x" * 2_000, timeout=h.patience)
        except SendError as error:
            assert "2002 bytes" in str(error), error
        else:
            raise AssertionError("a message above the limit was sent")
        channel.send("fine", timeout=h.patience)

        assert rx.take(1, timeout=h.patience) == ["fine"]


def _absorbs(caps: Capabilities) -> bool:
    """Whether a broker takes what nobody reads, as far as a test can tell."""
    return caps.kept in {Kept.DURABLE, Kept.REPLAYABLE}


@case(Q, lambda c: c.brokerless)
def a_clogged_sender_blocks_and_then_times_out(h: Harness) -> None:
    with h.queue(window=100) as channel, channel.receiver() as rx:
        sent = 0
        try:
            while sent < 1_000:
                # What must go out may take its time on a busy machine; only what must not is waited for briefly.
                channel.send({"i": sent}, key="k", timeout=h.patience if sent < 100 else 0.3)
                sent += 1
        except SendTimeout as error:
            assert "read concurrently" in str(error), error
        assert sent == 100, f"a window of 100 took {sent}"
        assert [{"i": i} for i in range(100)] == rx.take(100, timeout=h.patience)
        channel.send({"i": "again"}, key="k", timeout=h.patience)
        assert rx.take(1, timeout=h.patience) == [{"i": "again"}]


@case(Q, lambda c: c.kept is Kept.IN_PROCESS)
def a_full_hub_blocks_and_then_times_out(h: Harness) -> None:
    with h.queue(max_messages=100, window=10) as channel:
        receipts = [channel.send(i, wait=False, timeout=0.3) for i in range(110)]
        assert {"confirmed"} == {r.state for r in receipts[:100]}
        try:
            channel.send(110, timeout=0.3)
        except SendTimeout as error:
            assert "window is full" in str(error), error
        else:
            raise AssertionError("a full hub took one more")
        with channel.receiver() as rx:
            # In two parts: what is held and unsettled fills the hub too.
            assert list(range(60)) == rx.take(60, timeout=h.patience)
            assert list(range(60, 110)) == rx.take(50, timeout=h.patience)


@case(Q, lambda c: c.kept in {Kept.DURABLE, Kept.REPLAYABLE}, needs_broker=True)
def a_broker_restart_in_mid_stream_loses_nothing(h: Harness) -> None:
    assert h.broker is not None
    total, sent = 3_000, [0]
    with h.queue() as channel, channel.receiver() as rx:

        def send() -> None:
            for at in range(0, total, 100):
                channel.send_many([{"i": i} for i in range(at, at + 100)], key="i", timeout=60.0)
                sent[0] = at + 100

        thread, raised = in_thread(send)
        h.until(lambda: sent[0] >= total // 3 or bool(raised), "a third was sent")
        h.broker.stop()
        h.broker.start()
        seen: list[int] = []
        deadline = time.monotonic() + 3 * h.patience
        rx.idle = 1.0
        while len(set(seen)) < total and time.monotonic() < deadline:
            seen += [d.value["i"] for d in rx]
        thread.join(60.0)
        assert not raised, raised
    assert set(range(total)) == set(seen), f"{total - len(set(seen))} of {total} were lost"
