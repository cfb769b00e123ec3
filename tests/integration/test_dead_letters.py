"""Dead letters from one transport to another, over real sockets and a real broker."""

import uuid
from contextlib import ExitStack

import pytest
import redis

import simlink
from simlink.message import Batch

PATIENCE = 30.0
KAFKA = ["kafka+confluent", "kafka+python"]
BROKERLESS = ["memory", "tcp"]
WAYS = [(a, b) for a in BROKERLESS for b in BROKERLESS if a != b]
WAYS += [(k, "tcp") for k in KAFKA] + [("tcp", k) for k in KAFKA] + [(k, k) for k in KAFKA]


@pytest.fixture
def url(request):
    """A URL of a destination that nobody used before; what was made on the broker is deleted afterwards."""
    made = []

    def make(scheme):
        name = f"t-{uuid.uuid4().hex[:12]}"
        if scheme == "memory":
            return f"memory://{name}"
        if scheme == "tcp":
            return f"tcp://127.0.0.1:0/{name}"
        broker = request.getfixturevalue("kafka_broker").url.partition("://")[2]
        made.append(f"{scheme}://{broker}/{name}")
        return made[-1]

    yield make
    for one in made:
        with simlink.queue(one) as channel:
            channel.delete()


@pytest.mark.parametrize(("here", "there"), WAYS, ids=["-".join(way) for way in WAYS])
def test_any_transport_to_any(url, here, there):
    origin = url(here)
    with ExitStack() as stack:
        orders = stack.enter_context(simlink.queue(origin))
        dead = stack.enter_context(simlink.queue(url(there)))
        graves = stack.enter_context(dead.receiver())
        target = graves.url  # with the port that was really bound
        rx = stack.enter_context(orders.receiver(settle="manual", dead_letter=target, max_attempts=2, prefetch=1))
        receipt = orders.send_many(
            Batch([b"1", b"{bad", b'"poison"', b"4"], keys=[b"ann"] * 4, headers=[{"traceparent": "00-7f"}] * 4),
            wait=False,
        )
        good = []
        while len(good) < 2:
            delivery = rx.get(timeout=PATIENCE)
            if delivery.message.body == b"{bad":
                delivery.reject()
            elif delivery.value == "poison":
                delivery.nack()
            else:
                good.append(delivery.value)
                delivery.ack()
        letters = [graves.get(timeout=PATIENCE).message for _ in range(2)]
        graves.acknowledge()
        receipt.wait(PATIENCE)

    assert (receipt.state, good) == ("confirmed", [1, 4])
    assert {m.body: m.headers["simlink-reason"].partition(":")[0] for m in letters} == {
        b"{bad": "undecodable",
        b'"poison"': "handed out too often",
    }
    for letter in letters:
        assert (letter.key, letter.headers["traceparent"]) == (b"ann", "00-7f")
        assert letter.headers["simlink-origin-url"].partition("://")[0] == here
        assert letter.headers["simlink-origin"].startswith(orders._producer.hex())


@pytest.mark.parametrize("scheme", KAFKA)
def test_a_letter_that_cannot_be_sent_holds_its_partition_until_it_can(url, scheme):
    """The dead letter queue is away: nothing is committed past the letter, and it is not lost by a restart."""
    origin, target = url(scheme), url("tcp")
    with simlink.queue(origin, partitions=1, heartbeat=0.3, session_timeout=6.0) as orders:
        orders.send_many([1, 2, 3])
        # Nobody listens there.
        rx = orders.receiver(settle="manual", dead_letter=target.replace(":0/", ":9/"))
        with rx:
            assert rx.get(timeout=PATIENCE).reject()
            assert rx.get(timeout=PATIENCE).ack()
            rx.close(timeout=1.0)
            stats = rx.stats()["dead_letters"]
        with simlink.queue(target) as dead, dead.receiver() as graves:
            with orders.receiver(settle="manual", dead_letter=graves.url) as again:
                delivery = again.get(timeout=PATIENCE)
                first = delivery.value
                delivery.reject()
                letter = graves.get(timeout=PATIENCE).value

    assert (stats["sent"], first, letter) == (0, 1, 1)


@pytest.mark.broker("redis")
def test_a_foreign_header_that_no_sender_of_ours_takes_stands_escaped_in_the_letter(redis_broker):
    origin = f"redis://{redis_broker.url.partition('://')[2].partition('/')[0]}/t-{uuid.uuid4().hex[:12]}"
    with ExitStack() as stack:
        dead = stack.enter_context(simlink.queue("tcp://127.0.0.1:0/dead"))
        graves = stack.enter_context(dead.receiver())
        orders = stack.enter_context(simlink.queue(origin))
        rx = stack.enter_context(orders.receiver(settle="manual", dead_letter=graves.url))
        with redis.Redis.from_url(redis_broker.url) as client:
            client.xadd(origin.rpartition("/")[2], {"body": "1", "who": "ann\r\nX-Evil: \\y\0"})
        delivery = rx.get(timeout=PATIENCE)
        assert delivery.message.headers["who"] == "ann\r\nX-Evil: \\y\0"
        delivery.reject()
        letter = graves.get(timeout=PATIENCE)
        letter.ack()
        orders.delete()
    assert letter.message.headers["who"] == "ann\\r\\nX-Evil: \\\\y\\0"
