"""Redis Pub/Sub against a real server: at most once, by name."""

from __future__ import annotations

import time
import uuid

import pytest

import simlink
from simlink.errors import NotSupported, ReceiveError, ReceiveTimeout
from simlink.testing.brokers import RedisBroker
from tests.support.redis import LossyProxy, client_of

TIMEOUT = 30.0
ONCE = {"delivery": "at-most-once"}


@pytest.fixture
def name():
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def url(redis_broker, name):
    return f"{redis_broker.url.replace('redis://', 'redis+pubsub://')}/{name}"


@pytest.fixture
def client(redis_broker):
    with client_of(redis_broker) as one:
        yield one


def test_it_must_be_asked_for():
    with pytest.raises(NotSupported, match="at-most-once"):
        simlink.topic("redis+pubsub://h/events")
    with pytest.raises(NotSupported, match="no queues"):
        simlink.queue("redis+pubsub://h/orders", **ONCE)
    with simlink.topic("redis+pubsub://h/events?delivery=at-most-once") as events:
        with pytest.raises(NotSupported, match="remembers no subscription"):
            events.receiver("audit")
        with pytest.raises(NotSupported, match="replay"):
            events.receiver(start="earliest")


def test_any_client_listens_and_publishes(url, name, client):
    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(name)
    listener.get_message(timeout=TIMEOUT)
    with simlink.topic(url, **ONCE) as events, events.receiver() as rx:
        events.send({"kind": "login"}, timeout=TIMEOUT)
        assert listener.get_message(timeout=TIMEOUT)["data"] == b'{"kind":"login"}'
        assert rx.get(timeout=TIMEOUT).value == {"kind": "login"}
        assert client.publish(name, '{"kind":"logout"}') == 2
        assert rx.get(timeout=TIMEOUT).value == {"kind": "logout"}
        assert events.stats()["driver"]["unrouted"] == 0
    listener.close()


def test_that_keys_and_headers_are_left_out_is_said_once(url, caplog):
    with simlink.topic(url, **ONCE) as events, events.receiver() as rx:
        events.send(simlink.Message(body=b"1", headers={}), timeout=TIMEOUT)
        assert caplog.messages == []
        for _ in range(2):
            events.send(2, key="k", headers={"trace": "7f"}, timeout=TIMEOUT)
        assert [message.rpartition(": this ")[2] for message in caplog.messages] == [
            "transport carries no keys and no headers: they are left out"
        ]
        assert rx.take(3, timeout=TIMEOUT) == [1, 2, 2]


def test_what_nobody_listens_to_is_gone_and_counted(url):
    with simlink.topic(url, **ONCE) as events:
        events.send_many([1, 2, 3], timeout=TIMEOUT)
        assert events.stats()["driver"]["unrouted"] == 3
        with events.receiver() as rx, pytest.raises(ReceiveTimeout):
            rx.get(timeout=0.2)


def test_what_was_on_its_way_when_the_connection_broke_is_unknown_and_not_sent_again(redis_broker, name, client):
    with LossyProxy(redis_broker, b"PUBLISH", 2) as proxy, client_of(redis_broker):
        listener = client.pubsub(ignore_subscribe_messages=True)
        listener.subscribe(name)
        listener.get_message(timeout=TIMEOUT)
        with simlink.topic(f"redis+pubsub://{proxy.address}/{name}", **ONCE) as events:
            receipts = [events.send(i, wait=False).wait(TIMEOUT) for i in range(4)]
            assert [receipt.state for receipt in receipts] == ["confirmed", "unknown", "confirmed", "unknown"]
            assert events.stats()["resent"] == 0
        found = []
        while (message := listener.get_message(timeout=0.2)) is not None:
            found.append(message["data"])
        assert found == [b"0", b"1", b"2", b"3"]
        listener.close()


def test_a_lost_connection_is_a_gap_that_is_raised_once(name):
    with RedisBroker(own=True) as broker, client_of(broker) as client:
        url = f"{broker.url.replace('redis://', 'redis+pubsub://')}/{name}"
        with simlink.topic(url, **ONCE) as events, events.receiver() as rx:
            client.publish(name, "1")
            assert rx.get(timeout=TIMEOUT).value == 1
            client.client_kill_filter(_type="pubsub")
            with pytest.raises(ReceiveError, match="connection was lost"):
                rx.get(timeout=TIMEOUT)
            client.publish(name, "2")
            assert rx.get(timeout=TIMEOUT).value == 2
            assert rx.stats()["driver"]["gaps"] == 1


def test_a_slow_reader_holds_no_more_than_its_prefetch(url, client, name):
    with simlink.topic(url, **ONCE) as events, events.receiver(settle="manual", prefetch=10) as rx:
        events.send_many(list(range(500)), timeout=TIMEOUT)
        hand = [rx.get(timeout=TIMEOUT) for _ in range(10)]
        with pytest.raises(ReceiveTimeout):
            rx.get(timeout=0.2)
        held = rx.stats()["driver"]
        assert held["in_hand"] + held["buffered"] == 10
        for delivery in hand:
            delivery.ack()
        rest = []
        deadline = time.monotonic() + TIMEOUT
        while len(rest) < 490 and time.monotonic() < deadline:
            delivery = rx.get(timeout=TIMEOUT)
            rest.append(delivery.value)
            delivery.ack()
        assert rest == list(range(10, 500))
