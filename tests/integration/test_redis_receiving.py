"""The Redis driver against a real server: who gets what, when it moves on, what is trimmed, where reading starts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections import defaultdict

import pytest

import simlink
from simlink.channels.driver import Mode, ReceiverOptions, Settlement
from simlink.channels.redis import RedisDriver
from simlink.channels.redis.failures import Lost
from simlink.channels.redis.sources import source_for
from simlink.channels.url import parse_url
from simlink.errors import ConfigError, ReceiveError, ReceiveTimeout
from simlink.message import Verdict
from simlink.testing.brokers import RedisBroker
from tests.support.command import wait_until
from tests.support.redis import client_of

TIMEOUT = 30.0


@pytest.fixture
def name():
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def url(redis_broker, name):
    return f"{redis_broker.url}/{name}"


@pytest.fixture
def client(redis_broker):
    with client_of(redis_broker) as one:
        yield one


def nothing_more(rx, seconds=0.3):
    with pytest.raises(ReceiveTimeout):
        rx.get(timeout=seconds)


def groups_of(client, key):
    return [group["name"].decode() for group in client.xinfo_groups(key)]


def test_a_connection_that_breaks_behind_a_hand_out_does_not_take_it_along(url, monkeypatch):
    with simlink.queue(url) as orders:
        orders.send_many(list(range(600)))
    driver = RedisDriver(parse_url(url), mode=Mode.QUEUE).receiver(None, ReceiverOptions(prefetch=500))
    driver.open(TIMEOUT)
    ask, broken = driver._ask, []

    def break_first(wire, count, wait):
        # Without a time to wait it asks ahead, with messages in its hands.
        if wait is None and not broken:
            broken.append(count)
            wire.close()
            raise Lost("gone")
        return ask(wire, count, wait)

    monkeypatch.setattr(driver, "_ask", break_first)
    try:
        seen = []
        while len(seen) < 600:
            try:
                incoming = driver.receive(100, TIMEOUT)
            except ReceiveError:
                driver.open(TIMEOUT)
                continue
            for part in incoming:
                seen += part.batch.bodies
                driver.settle([Settlement(part.lease, Verdict.ACK, part.tokens[0], part.tokens[-1])])
        assert broken
        assert seen == [b"%d" % number for number in range(600)]
    finally:
        driver.close(TIMEOUT)


def reader(url, **options):
    driver = RedisDriver(parse_url(url), mode=Mode.QUEUE).receiver(None, ReceiverOptions(**options))
    driver.open(TIMEOUT)
    return driver


def acknowledge(driver, incoming):
    driver.settle([Settlement(part.lease, Verdict.ACK, part.tokens[0], part.tokens[-1]) for part in incoming])


def test_in_a_flow_the_next_read_is_sent_before_the_last_is_answered_and_no_more_is_held_than_allowed(
    url, name, client, monkeypatch
):
    with simlink.queue(url) as orders:
        orders.send_many(list(range(2500)))
    driver = reader(url, prefetch=500)
    ask, under_way, pending = driver._ask, [], []

    def watch(wire, count, wait):
        ask(wire, count, wait)
        under_way.append(len(driver._reads))

    monkeypatch.setattr(driver, "_ask", watch)
    try:
        seen = []
        while len(seen) < 2500:
            incoming = driver.receive(1000, TIMEOUT)
            pending.append(client.xpending(name, name)["pending"])
            for part in incoming:
                seen += part.batch.bodies
            acknowledge(driver, incoming)
        assert seen == [b"%d" % number for number in range(2500)]
        assert max(under_way) == 2
        assert max(pending) <= 500
    finally:
        driver.close(TIMEOUT)


def test_what_is_not_settled_leaves_no_room_for_another_read(url, name, client):
    with simlink.queue(url) as orders:
        orders.send_many(list(range(1500)))
    driver = reader(url, prefetch=500)
    try:
        parts = []
        while sum(len(part.tokens) for part in parts) < 500:
            parts += driver.receive(1000, TIMEOUT)
        assert driver.receive(1000, 0.1) == []
        assert client.xpending(name, name)["pending"] == 500
        acknowledge(driver, parts)
        assert len(driver.receive(1000, TIMEOUT)[0].tokens) == 250
    finally:
        driver.close(TIMEOUT)


def test_large_messages_are_asked_for_by_their_bytes(url, name, client):
    body = "x" * 100_000
    with simlink.queue(url) as orders:
        driver = reader(url, prefetch=500, prefetch_bytes=1_000_000)
        try:
            orders.send_many([body] * 3)
            taken = 0
            while taken < 3:
                incoming = driver.receive(1000, TIMEOUT)
                taken += sum(len(part.tokens) for part in incoming)
                acknowledge(driver, incoming)
            orders.send_many([body] * 40)
            while taken < 43:
                incoming = driver.receive(1000, TIMEOUT)
                assert client.xpending(name, name)["pending"] <= 10
                taken += sum(len(part.tokens) for part in incoming)
                acknowledge(driver, incoming)
        finally:
            driver.close(TIMEOUT)


def test_the_hold_is_as_old_as_the_oldest_read_under_way():
    source = source_for(RedisDriver(parse_url("redis://h/n"), mode=Mode.QUEUE).settings, "n", ReceiverOptions())
    lane = source.lanes[0]
    long_ago = time.monotonic() - 9.0
    lane.lease.renewed = long_ago

    source.ask(250, 0, long_ago)
    assert lane.renewed_at == long_ago

    lane.lease.valid = False
    over = lane.lease
    source.ask(250, 0, long_ago - 2.0)
    assert lane.lease is not over
    assert not lane.lease.valid


# --- who holds what -----------------------------------------------------------------------------------------------


def holder(url, count, pipe):
    """A receiving process that takes ``count`` messages, tells, and acknowledges when it is told to."""
    with simlink.queue(url) as orders, orders.receiver(settle="manual", prefetch=count) as rx:
        hand = [rx.get(timeout=TIMEOUT) for _ in range(count)]
        pipe.send([delivery.value for delivery in hand])
        while pipe.recv() == "ack":
            pipe.send([delivery.ack() for delivery in hand])


@pytest.fixture
def held(url):
    """Starts a `holder`; whatever becomes of it, it is gone afterwards."""
    started = []

    def start(count):
        mine, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=holder, args=(f"{url}?min_idle=1", count, theirs))
        process.start()
        started.append(process)
        return process, mine, mine.recv()

    yield start
    for process in started:
        process.kill()
        process.join(10)
        process.close()


def test_what_a_killed_receiver_held_moves_on(url, held):
    with simlink.queue(url, min_idle=1) as orders:
        orders.send_many(list(range(8)), timeout=TIMEOUT)
        process, _, values = held(5)
        assert values == [0, 1, 2, 3, 4]
        process.kill()
        killed = time.monotonic()
        with orders.receiver() as rx:
            got = [rx.get(timeout=TIMEOUT) for _ in range(8)]
            took = time.monotonic() - killed
        assert sorted(d.value for d in got) == list(range(8))
        assert {d.value: d.attempt for d in got} == {**dict.fromkeys(range(5), 2), **dict.fromkeys(range(5, 8), 1)}
        assert took < 20


def test_a_receiver_that_slept_too_long_has_no_say_any_more(url, held):
    with simlink.queue(url, min_idle=1) as orders:
        orders.send_many([1, 2, 3], timeout=TIMEOUT)
        process, pipe, _ = held(3)
        os.kill(process.pid, signal.SIGSTOP)
        with orders.receiver(settle="manual") as rx:
            again = [rx.get(timeout=TIMEOUT) for _ in range(3)]
            os.kill(process.pid, signal.SIGCONT)
            pipe.send("ack")
            assert pipe.recv() == [False] * 3
            assert [d.ack() for d in again] == [True] * 3
        pipe.send("end")
        process.join(10)


def test_a_living_receiver_keeps_what_it_holds(url):
    with simlink.queue(url, min_idle=0.3) as orders:
        with orders.receiver(settle="manual") as slow, orders.receiver() as other:
            orders.send_many([1, 2], timeout=TIMEOUT)
            hand = [slow.get(timeout=TIMEOUT) for _ in range(2)]
            nothing_more(other, 1.5)
            assert [d.ack() for d in hand] == [True, True]
        with orders.receiver() as rx:
            nothing_more(rx)


def test_what_comes_back_to_its_holder_is_adopted(redis_broker, url, name, client):
    """A group that is deleted and made anew takes the holds with it; the same message is not delivered twice."""
    with simlink.queue(url, min_idle=0.3) as orders, orders.receiver(settle="manual") as rx:
        orders.send("once", timeout=TIMEOUT)
        first = rx.get(timeout=TIMEOUT)
        entry = client.xpending_range(name, name, "-", "+", 1)[0]["message_id"]
        client.xclaim(name, name, "thief", 0, [entry])
        deadline = time.monotonic() + TIMEOUT
        while client.xpending_range(name, name, "-", "+", 1)[0]["consumer"] == b"thief":
            assert time.monotonic() < deadline
            nothing_more(rx, 0.1)
        assert first.ack()
        nothing_more(rx)
        assert rx.stats()["redelivered"] == 1


def test_a_group_that_is_deleted_under_a_receiver_is_joined_again(url, name, client):
    with simlink.queue(url) as orders, orders.receiver() as rx:
        orders.send(1, timeout=TIMEOUT)
        assert rx.take(1, timeout=TIMEOUT) == [1]
        client.xgroup_destroy(name, name)
        orders.send(2, timeout=TIMEOUT)
        assert rx.get(timeout=TIMEOUT).value == 2


def test_nothing_is_left_behind(url, name, client):
    with simlink.topic(url) as events:
        with events.receiver() as live:
            events.send(1, timeout=TIMEOUT)
            assert live.take(1, timeout=TIMEOUT) == [1]
            assert groups_of(client, name) == []
        with events.receiver("audit"):
            assert groups_of(client, name) == [f"{name}.audit"]
        assert client.xinfo_consumers(name, f"{name}.audit") == []
    assert client.keys(f"*{name}*") == [name.encode()]


def test_waking_sends_the_verdicts_of_others(url, name, client):
    """A verdict from another thread goes out while the receiver waits inside the server."""
    driver = RedisDriver(parse_url(url), mode=Mode.QUEUE)
    client.xadd(name, {"body": "1"})
    receiver = driver.receiver(None, ReceiverOptions())
    receiver.open(TIMEOUT)
    try:
        (incoming,) = receiver.receive(10, TIMEOUT)
        timer = threading.Timer(0.1, lambda: receiver.settle([Settlement(incoming.lease, Verdict.ACK, 0, 0)]))
        timer.start()
        began = time.monotonic()
        assert receiver.receive(10, 1.0) == []
        assert time.monotonic() - began < 10
        assert client.xpending(name, name)["pending"] == 0
        timer.join()
    finally:
        receiver.close(TIMEOUT)


@pytest.mark.parametrize("waited_before", [False, True])
def test_a_server_that_is_stopped_for_a_while_costs_nothing(name, waited_before):
    """``waited_before``: the second connection, which ends waits, is there when the server stops."""
    with RedisBroker(own=True) as broker, simlink.queue(f"{broker.url}/{name}") as orders, orders.receiver() as rx:
        orders.send(0, timeout=TIMEOUT)
        assert rx.get(timeout=TIMEOUT).value == 0
        if waited_before:
            nothing_more(rx, 0.05)
        broker.pause()
        began = time.monotonic()
        nothing_more(rx, 0.3)
        assert time.monotonic() - began < 15
        late = orders.send(1, wait=False)
        nothing_more(rx, 0.3)
        broker.resume()
        assert late.wait(TIMEOUT).state == "confirmed"
        assert rx.get(timeout=TIMEOUT).value == 1
        assert rx.stats()["driver"]["rejoined"] == 0


# --- trimming and gaps --------------------------------------------------------------------------------------------


def test_a_queue_keeps_only_what_somebody_still_needs(url, name, client):
    with simlink.queue(url) as orders, simlink.queue(url, group="second") as again:
        with again.receiver():
            pass
        orders.send_many(list(range(50)), timeout=TIMEOUT)
        with orders.receiver() as rx:
            rx.take(50, timeout=TIMEOUT)
        assert client.xlen(name) == 50
        with again.receiver() as rx:
            rx.take(20, timeout=TIMEOUT)
        assert client.xlen(name) == 30
        with again.receiver(settle="manual") as rx:
            hand = [rx.get(timeout=TIMEOUT) for _ in range(30)]
            for delivery in hand[5:]:
                delivery.ack()
        assert client.xlen(name) == 30
        with again.receiver() as rx:
            rx.take(5, timeout=TIMEOUT)
        assert client.xlen(name) == 0


def test_a_queue_is_trimmed_while_it_is_read(url, name, client):
    with simlink.queue(url) as orders, orders.receiver() as rx:
        orders.send_many(list(range(50)), timeout=TIMEOUT)
        rx.take(50, timeout=TIMEOUT)
        deadline = time.monotonic() + TIMEOUT
        while client.xlen(name):
            assert time.monotonic() < deadline
            nothing_more(rx, 0.1)


def test_a_topic_keeps_everything(url, name, client):
    with simlink.topic(url) as events, events.receiver("audit") as rx:
        events.send_many([1, 2, 3], timeout=TIMEOUT)
        rx.take(3, timeout=TIMEOUT)
    assert client.xlen(name) == 3


def test_retention_drops_the_oldest_and_the_gap_is_counted_once(url, name, client):
    with simlink.topic(url, retention=100) as events:
        with events.receiver("audit") as one, events.receiver("audit") as two, events.receiver() as live:
            for at in range(0, 2_000, 100):
                events.send_many(list(range(at, at + 100)), timeout=TIMEOUT)
            length = client.xlen(name)
            assert 100 <= length < 300
            rows = one.take(length, timeout=TIMEOUT)
            nothing_more(two)
            assert rows == list(range(2_000 - length, 2_000))
            assert one.stats()["driver"]["gaps"] + two.stats()["driver"]["gaps"] == 2_000 - length
            assert live.take(length, timeout=TIMEOUT) == rows
            assert live.stats()["driver"]["gaps"] == 2_000 - length


def test_pending_entries_that_are_trimmed_are_gaps(url, name, client):
    with simlink.topic(url, min_idle=0.3) as events:
        with events.receiver("audit", settle="manual") as rx:
            events.send_many([1, 2, 3], timeout=TIMEOUT)
            assert rx.get(timeout=TIMEOUT).value == 1
        client.xtrim(name, maxlen=0, approximate=False)
        with events.receiver("audit") as rx:
            nothing_more(rx)
            assert rx.stats()["driver"]["gaps"] == 3


def test_a_gap_that_a_reconnect_finds_is_raised_once(name):
    with RedisBroker(own=True) as broker, simlink.topic(f"{broker.url}/{name}") as events:
        with events.receiver() as live, client_of(broker) as client:
            events.send(0, timeout=TIMEOUT)
            assert live.take(1, timeout=TIMEOUT) == [0]
            client.client_kill_filter(_type="normal", skipme=True)
            client.xadd(name, {"body": "1"})
            client.xadd(name, {"body": "2"})
            client.xtrim(name, maxlen=1, approximate=False)
            with pytest.raises(ReceiveError, match="1 messages were trimmed away"):
                live.get(timeout=TIMEOUT)
            assert live.get(timeout=TIMEOUT).value == 2
            assert live.stats()["driver"]["gaps"] == 1


# --- where reading starts -----------------------------------------------------------------------------------------


def test_starts(url, name, client):
    ids = [client.xadd(name, {"body": str(i)}, id=f"{1000 + i // 2}-{i % 2}").decode() for i in range(6)]
    assert ids[3] == "1001-1"
    starts = {"earliest": 0, "new": 6, ids[3]: 3, "1001": 2, 1001: 2, 1002: 4, 1: 0, 0: 0}
    with simlink.topic(url) as events:
        for at, (start, first) in enumerate(starts.items()):
            for subscription in (None, f"s-{at}"):
                with events.receiver(subscription, start=start) as rx:
                    assert rx.take(6 - first, timeout=TIMEOUT) == list(range(first, 6)), (start, subscription)
                    nothing_more(rx, 0.05)


def test_a_start_that_would_move_a_group_needs_reset(url):
    with simlink.queue(url, retention=1_000) as orders:
        orders.send_many([1, 2, 3], timeout=TIMEOUT)
        with orders.receiver() as rx:
            rx.take(3, timeout=TIMEOUT)
        with pytest.raises(ConfigError, match="reset=True"), orders.receiver(start="earliest"):
            pass
        with orders.receiver(start="earliest", reset=True) as rx:
            assert rx.take(3, timeout=TIMEOUT) == [1, 2, 3]


# --- one receiver at a time ---------------------------------------------------------------------------------------


class End:
    """A driver's receiver, exclusive."""

    def __init__(self, url, **options):
        self.end = RedisDriver(parse_url(url), mode=Mode.QUEUE, **options).receiver(
            None, ReceiverOptions(exclusive=True)
        )
        self.end.open(TIMEOUT)

    def take(self, timeout, *, ack=True):
        rows = []
        for incoming in self.end.receive(100, timeout):
            rows += [
                (int(body), attempt) for body, attempt in zip(incoming.batch.bodies, incoming.attempts, strict=True)
            ]
            if ack:
                self.end.settle([Settlement(incoming.lease, Verdict.ACK, incoming.tokens[0], incoming.tokens[-1])])
        return rows

    def close(self):
        self.end.close(TIMEOUT)


def test_the_second_stands_by_until_the_first_leaves_and_gets_its_rest_first(url):
    one, two = End(url), End(url)
    try:
        with simlink.queue(url) as orders:
            orders.send_many([0, 1, 2], timeout=TIMEOUT)
            assert (one.end.assigned, two.end.assigned) == (True, False)
            assert two.take(0.4) == []
            assert one.take(TIMEOUT, ack=False) == [(0, 1), (1, 1), (2, 1)]
            orders.send(3, timeout=TIMEOUT)
            one.close()
            rows = []
            deadline = time.monotonic() + TIMEOUT
            while len(rows) < 4:
                assert time.monotonic() < deadline
                rows += two.take(0.2)
            assert rows == [(0, 2), (1, 2), (2, 2), (3, 1)]
    finally:
        one.close()
        two.close()


def test_a_lease_that_is_not_renewed_moves_on(url):
    one, two = End(url, min_idle=0.6), End(url, min_idle=0.6)
    try:
        with simlink.queue(url) as orders:
            orders.send_many([0, 1], timeout=TIMEOUT)
            (incoming,) = one.end.receive(100, TIMEOUT)
            rows = []
            deadline = time.monotonic() + TIMEOUT
            while len(rows) < 2:
                assert time.monotonic() < deadline
                rows += two.take(0.2)
            assert rows == [(0, 2), (1, 2)]
            assert not incoming.lease.valid
            orders.send(2, timeout=TIMEOUT)
            assert one.take(0.3) == []
            assert two.take(TIMEOUT) == [(2, 1)]
    finally:
        one.close()
        two.close()


@pytest.mark.parametrize(("there", "here"), [(3, 1), (3, 2), (1, 3), (256, 1)])
def test_another_number_of_streams_is_refused_with_both_sides(url, client, there, here):
    with simlink.queue(url, streams=there) as orders:
        with orders.receiver():
            pass
        orders.send({"n": 1}, timeout=TIMEOUT)
    with simlink.queue(url, streams=here) as other:
        says = f"made with streams={there} there, and streams={here} is given here"
        with pytest.raises(ConfigError, match=says):
            other.send({"n": 2}, timeout=TIMEOUT)
        with pytest.raises(ConfigError, match=says):
            other.receiver().open(TIMEOUT)
    with simlink.queue(url, streams=there) as orders, orders.receiver() as rx:
        assert rx.take(1, timeout=TIMEOUT) == [{"n": 1}]


def test_a_key_of_another_kind_is_no_stream_of_ours(url, name, client):
    client.set(name, "a text")
    client.set(f"{{{name}}}:7", "another")
    with simlink.queue(url, streams=2) as orders, orders.receiver() as rx:
        orders.send(1, timeout=TIMEOUT)
        assert rx.take(1, timeout=TIMEOUT) == [1]


def test_several_streams_are_shared_and_each_key_stays_in_order(url):
    with simlink.queue(url, streams=4) as orders, orders.receiver(prefetch=20) as one:
        seen = defaultdict(list)
        with orders.receiver(prefetch=20) as two:
            # The first lets go of one at a time, and the second has opened when it has any.
            wait_until(lambda: [len(rx.stats()["driver"]["streams"]) for rx in (one, two)] == [2, 2], "two for each")
            orders.send_many([{"k": i % 40, "i": i} for i in range(800)], key="k", timeout=TIMEOUT)
            for rx in (one, two):
                for value in rx.take(100, timeout=TIMEOUT):
                    seen[value["k"]].append(value["i"])
        for value in one.take(600, timeout=TIMEOUT):
            seen[value["k"]].append(value["i"])
    assert dict(seen) == {key: list(range(key, 800, 40)) for key in range(40)}
