"""The Kafka driver's two ends against a real broker, with each of the two client libraries."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import threading
import time
import uuid
from collections import defaultdict
from datetime import UTC, datetime

import psutil
import pytest
from confluent_kafka import admin as native

import simlink
from simlink.channels.driver import Mode, OutcomeKind, ReceiverOptions, Settlement
from simlink.channels.kafka import KafkaDriver
from simlink.channels.kafka.confluent_admin import ConfluentAdmin, common_config
from simlink.channels.url import parse_url
from simlink.errors import ConfigError, ConnectTimeout, InvalidURL, NotSupported
from simlink.message import Batch, Same, Verdict
from simlink.testing.brokers import KafkaBroker

TIMEOUT = 30.0
# Now: a broker drops what is older than a week by its own timestamp, and it looks soon after it started.
STAMP = int(time.time()) * 1_000_000
QUICK = {"heartbeat": 0.3, "session_timeout": 6.0, "commit_interval": 0.05}


@pytest.fixture(params=["kafka+confluent", "kafka+python"])
def scheme(request):
    return request.param


@pytest.fixture
def make(kafka_broker, scheme):
    """Makes drivers on fresh names; what they created is deleted afterwards."""
    made = []

    def driver(name=None, mode=Mode.QUEUE, **options):
        name = name or f"t-{uuid.uuid4().hex[:12]}"
        url = kafka_broker.url.replace("kafka://", f"{scheme}://")
        made.append(KafkaDriver(parse_url(f"{url}/{name}"), mode=mode, **{**QUICK, **options}))
        return made[-1]

    yield driver
    for one in made:
        one.delete(TIMEOUT)


def rows(first, count, *, producer=bytes(16), keys=20, stamp=STAMP):
    numbers = range(first, first + count)
    return Batch(
        [b"%d" % i for i in numbers],
        keys=[b"key-%d" % (i % keys) for i in numbers] if keys else None,
        content_types=Same("text/plain", count),
        producers=Same(producer, count),
        sequences=numbers,
        timestamps=Same(stamp, count),
    )


class Sending:
    """A sender with the layer above it in its plainest form: positions, and sending again what comes back."""

    def __init__(self, driver):
        self.end = driver.sender()
        self.end.open(TIMEOUT)
        self.position = 0
        self.open = {}  # position → the message
        self.failed = []
        self.resent = 0

    def send(self, batch):
        self.open.update(zip(range(self.position, self.position + len(batch)), batch, strict=True))
        self.end.submit(batch, self.position)
        self.position += len(batch)

    def step(self, timeout=0.1):
        again = []
        for outcome in self.end.outcomes(timeout):
            told = [self.open.pop(at) for at in range(outcome.first, outcome.stop)]
            if outcome.kind is OutcomeKind.RETURNED:
                again += told
            elif outcome.kind is OutcomeKind.FAILED:
                self.failed += [(message, outcome.error) for message in told]
            else:
                assert outcome.kind is OutcomeKind.CONFIRMED
        if again:
            self.resent += len(again)
            self.send(Batch.of(again))

    def drain(self, timeout=TIMEOUT):
        deadline = time.monotonic() + timeout
        while self.open:
            assert time.monotonic() < deadline, f"{len(self.open)} messages without an outcome: {self.end.stats()}"
            self.step()

    def close(self):
        self.end.close(TIMEOUT)


def send(driver, batch):
    sending = Sending(driver)
    sending.send(batch)
    sending.drain()
    sending.close()
    assert sending.failed == []
    assert sending.resent == 0


class Receiving:
    """A receiver that settles as it is told, and tends as the layer above does."""

    def __init__(self, driver, subscription=None, **options):
        self.end = driver.receiver(subscription, ReceiverOptions(**options))
        self.end.open(TIMEOUT)
        self.messages = []  # (message, attempt), in order

    def take(self, timeout=0.2, limit=500, verdict=Verdict.ACK, delay=0.0):
        """One call of receive, settled as a whole; how many messages it brought."""
        found = self.end.receive(limit, timeout)
        for incoming in found:
            self.messages += zip(incoming.batch, incoming.attempts, strict=True)
            if verdict is not None:
                tokens = incoming.tokens
                self.end.settle([Settlement(incoming.lease, verdict, tokens[0], tokens[-1], delay)])
        return sum(len(i.tokens) for i in found)

    def hold(self, count):
        """Take so many messages of one partition without settling them; their lease."""
        leases = set()
        while len(self.messages) < count:
            for incoming in self.end.receive(count, TIMEOUT):
                self.messages += zip(incoming.batch, incoming.attempts, strict=True)
                leases.add(incoming.lease)
        (lease,) = leases
        return lease

    def until(self, count, timeout=TIMEOUT):
        deadline = time.monotonic() + timeout
        while len(self.messages) < count:
            assert time.monotonic() < deadline, f"{len(self.messages)} of {count}: {self.end.stats()}"
            self.take()
        return self

    @property
    def numbers(self):
        return [int(m.body) for m, _ in self.messages]

    def close(self):
        self.end.close(TIMEOUT)


def in_order_per_key(received):
    by_key = defaultdict(list)
    for message, attempt in received:
        if attempt == 1:
            by_key[message.key].append(message.sequence)
    return all(sequence == sorted(sequence) for sequence in by_key.values())


# --- one way and back ---------------------------------------------------------------------------------------------


def test_everything_about_a_message_arrives(make):
    driver = make()
    producer = os.urandom(16)
    batch = Batch(
        [b"", b'{"a":1}', b"\x00\xff" * 5000],
        keys=[b"k", None, "schlüssel".encode()],
        headers=[{}, {"trace": "7f", "größe": "ä"}, {"x": ""}],
        content_types=["application/json", None, "text/plain"],
        producers=Same(producer, 3),
        sequences=range(7, 10),
        timestamps=[STAMP + 123_456, None, STAMP + 1],
    )

    send(driver, batch)
    receiving = Receiving(driver).until(3)
    receiving.close()

    got = sorted((m for m, _ in receiving.messages), key=lambda m: m.sequence)
    assert list(batch) == got
    assert [attempt for _, attempt in receiving.messages] == [1, 1, 1]


def test_what_travels_is_the_brokers_own(make, kafka_broker):
    """Another client sees the plain body, the key, two headers and the intended time, and nothing else."""
    from kafka import KafkaConsumer, TopicPartition

    driver = make(partitions=1)
    send(driver, rows(5, 1))

    consumer = KafkaConsumer(bootstrap_servers=kafka_broker.url.removeprefix("kafka://"))
    try:
        part = TopicPartition(driver.target.name, 0)
        consumer.assign([part])
        consumer.seek_to_beginning(part)
        (record,) = consumer.poll(timeout_ms=10_000)[part]
    finally:
        consumer.close()

    identity = b"0" * 32 + b"/0000000000000005/%d" % STAMP
    assert (record.value, record.key, record.timestamp) == (b"5", b"key-5", STAMP // 1000)
    assert [("simlink-id", identity), ("content-type", b"text/plain")] == record.headers


def test_without_identity_no_header_of_ours_is_sent(make):
    driver = make(identity=False)

    send(driver, rows(0, 3))
    receiving = Receiving(driver).until(3)
    receiving.close()

    assert {(None, None, STAMP)} == {(m.producer, m.sequence, m.timestamp) for m, _ in receiving.messages}
    assert {"text/plain"} == {m.content_type for m, _ in receiving.messages}


def test_order_holds_per_key_over_six_partitions(make):
    driver = make(partitions=6)
    sending = Sending(driver)
    for first in range(0, 6000, 250):
        sending.send(rows(first, 250, keys=40))
        sending.step(0)
    sending.drain()
    sending.close()

    receiving = Receiving(driver).until(6000)
    stats = receiving.end.stats()
    receiving.close()

    assert list(range(6000)) == sorted(receiving.numbers)
    assert in_order_per_key(receiving.messages)
    assert list(range(6)) == stats["partitions"]


def test_both_clients_send_a_key_to_the_same_partition(make, kafka_broker):
    from confluent_kafka import Consumer, TopicPartition

    driver = make(partitions=6)
    other = "kafka+python" if driver.target.scheme == "kafka+confluent" else "kafka+confluent"
    url = kafka_broker.url.replace("kafka://", f"{other}://")
    twin = KafkaDriver(parse_url(f"{url}/{driver.target.name}"), mode=Mode.QUEUE, **QUICK)

    send(driver, rows(0, 200, keys=200))
    send(twin, rows(0, 200, keys=200))

    where = defaultdict(set)
    consumer = Consumer({"bootstrap.servers": kafka_broker.url.removeprefix("kafka://"), "group.id": "unused"})
    try:
        consumer.assign([TopicPartition(driver.target.name, p, 0) for p in range(6)])
        for message in consumer.consume(400, 20):
            where[message.key()].add(message.partition())
    finally:
        consumer.close()
    assert len(where) == 200
    assert {1} == {len(partitions) for partitions in where.values()}


# --- sharing ------------------------------------------------------------------------------------------------------


def alternate(receivings, done, timeout=TIMEOUT):
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline, [r.end.stats() for r in receivings]
        for receiving in receivings:
            receiving.take(0.05)


def test_two_receivers_share_a_queue_each_message_once(make):
    driver = make()
    one = Receiving(driver)
    # Both ends of a rebalance must poll, so the second joins while the first is looked after.
    two = in_background(one, lambda: Receiving(driver))
    alternate([one, two], lambda: one.end.assigned and two.end.assigned)

    send(driver, rows(0, 3000))
    alternate([one, two], lambda: len(one.messages) + len(two.messages) >= 3000)
    one.close()
    two.close()

    assert list(range(3000)) == sorted(one.numbers + two.numbers)
    assert min(len(one.messages), len(two.messages)) > 0


def in_background(tended, action):
    """Run the action in a thread while the application of ``tended`` is away."""
    result = []
    thread = threading.Thread(target=lambda: result.append(action()))
    thread.start()
    while thread.is_alive():
        tended.end.tend()
        thread.join(0.05)
    return result[0]


def test_each_subscription_gets_every_message(make):
    driver = make(mode=Mode.TOPIC)
    audit, billing, live = (Receiving(driver, name) for name in ("audit", "billing", None))

    send(driver, rows(0, 500))
    for receiving in (audit, billing, live):
        receiving.until(500).close()

    for receiving in (audit, billing, live):
        assert list(range(500)) == sorted(receiving.numbers)


def test_a_named_subscription_is_remembered_and_an_unnamed_one_is_not(make):
    driver = make(mode=Mode.TOPIC)
    send(driver, rows(0, 10))
    Receiving(driver, "audit").close()
    Receiving(driver).close()
    send(driver, rows(10, 10))

    audit = Receiving(driver, "audit").until(10)
    live = Receiving(driver)
    send(driver, rows(20, 10))
    audit.until(20).close()
    live.until(10).close()

    assert list(range(10, 30)) == sorted(audit.numbers)
    assert list(range(20, 30)) == sorted(live.numbers)


def test_a_queue_keeps_what_was_sent_before_its_first_receiver(make):
    driver = make()
    send(driver, rows(0, 20))

    receiving = Receiving(driver).until(20)
    receiving.close()

    assert list(range(20)) == sorted(receiving.numbers)


def test_a_receiver_joins_and_leaves_in_the_middle_and_nothing_is_lost(make):
    driver = make()
    sending = Sending(driver)
    one = Receiving(driver)
    second: list[Receiving] = []
    stop = threading.Event()

    def guest():
        receiving = Receiving(driver)
        second.append(receiving)
        while not stop.is_set():
            receiving.take(0.05)
        receiving.close()

    thread = threading.Thread(target=guest)
    deadline = time.monotonic() + 60
    sent = 0
    seen: set[int] = set()
    # So many, and on until the guest has had its part: how long the group takes to take it in is the broker's business.
    while sent < 12_000 or not stop.is_set() or len(seen) < sent:
        assert time.monotonic() < deadline, (len(seen), sent, one.end.stats())
        if (sent < 12_000 or not stop.is_set()) and len(sending.open) < 2000 and sent - len(seen) < 4000:
            sending.send(rows(sent, 200))
            sent += 200
            if sent == 3000:
                thread.start()
        sending.step(0)
        one.take(0.01)
        if second and len(second[0].messages) > 500:
            stop.set()  # it leaves in the middle
        seen = set(one.numbers) | set(second[0].numbers if second else ())
    in_background(one, thread.join)
    sending.drain()
    sending.close()
    one.close()

    assert set(range(sent)) == seen
    assert sending.resent == 0
    assert len(second[0].messages) > 500
    # Repeats are told: what comes to one receiver a second time from the same place is a second attempt.
    for receiving in (one, second[0]):
        firsts = [m.sequence for m, attempt in receiving.messages if attempt == 1]
        assert len(set(firsts)) == len(firsts)
        assert in_order_per_key(receiving.messages)


# --- verdicts -----------------------------------------------------------------------------------------------------


def test_a_nacked_message_comes_again_before_the_later_ones_of_its_key(make):
    driver = make(partitions=1)
    send(driver, rows(0, 6, keys=2))
    receiving = Receiving(driver)

    assert receiving.take(TIMEOUT, limit=1, verdict=Verdict.NACK, delay=0.3) == 1
    receiving.until(7)
    receiving.close()

    assert receiving.numbers == [0, 1, 3, 5, 0, 2, 4]
    assert [attempt for _, attempt in receiving.messages] == [1, 1, 1, 1, 2, 1, 1]


def test_a_partition_that_was_paused_goes_on(make):
    """With one message in hand at most, a nacked one pauses its partition, which must come back by itself."""
    driver = make()
    send(driver, rows(0, 5, keys=1))
    receiving = Receiving(driver, prefetch=1)

    assert receiving.take(TIMEOUT, verdict=Verdict.NACK, delay=0.2) == 1
    receiving.until(6)
    receiving.close()

    assert receiving.numbers == [0, 0, 1, 2, 3, 4]


def test_acknowledged_out_of_order_then_crashed_nothing_is_lost(make):
    driver = make(partitions=1)
    send(driver, rows(0, 100))
    first = Receiving(driver)
    lease = first.hold(100)

    first.end.settle([Settlement(lease, Verdict.ACK, 40, 99), Settlement(lease, Verdict.ACK, 0, 9)])
    first.close()
    second = Receiving(driver).until(90)
    assert second.take(0.3) == 0
    second.close()

    assert list(range(10, 100)) == second.numbers
    assert not lease.valid


def test_acknowledgements_are_committed_soon_without_closing(make, kafka_broker):
    driver = make(partitions=1)
    send(driver, rows(0, 50))
    receiving = Receiving(driver).until(50)

    admin = driver._client.consumer(driver.settings, driver.target.name, TIMEOUT)
    try:
        deadline = time.monotonic() + TIMEOUT
        while (committed := admin.committed([0], TIMEOUT)) != {0: 50}:
            assert time.monotonic() < deadline, committed
            receiving.end.tend()
    finally:
        admin.close(TIMEOUT)
        receiving.close()


def test_a_message_that_is_never_settled_stops_its_partition_at_the_bound(make):
    driver = make(partitions=1)
    send(driver, rows(0, 100))
    receiving = Receiving(driver, prefetch=30)
    (incoming,) = receiving.end.receive(1, TIMEOUT)

    deadline = time.monotonic() + TIMEOUT
    while not receiving.end.stats()["paused"]:
        assert time.monotonic() < deadline, receiving.end.stats()
        receiving.take(0.05)
    stats = receiving.end.stats()
    receiving.end.settle([Settlement(incoming.lease, Verdict.ACK, 0, 0)])
    receiving.until(99)
    receiving.close()

    assert (stats["blocked_by"], stats["span"], stats["paused"]) == ({0: 0}, {0: 30}, [0])
    assert list(range(1, 100)) == receiving.numbers


def test_no_more_than_the_prefetch_is_in_hand(make):
    driver = make()
    send(driver, rows(0, 300))
    receiving = Receiving(driver, prefetch=50)

    deadline = time.monotonic() + TIMEOUT
    while len(receiving.messages) < 50:
        assert time.monotonic() < deadline
        receiving.take(0.1, verdict=None)

    assert receiving.take(0.3, verdict=None) == 0
    receiving.end.reserve(80)
    while len(receiving.messages) < 80:
        assert time.monotonic() < deadline
        receiving.take(0.1, verdict=None)
    assert receiving.take(0.3, verdict=None) == 0
    receiving.close()


def test_a_verdict_after_the_lease_ended_is_dropped_and_counted(make):
    driver = make(partitions=1)
    send(driver, rows(0, 10))
    one = Receiving(driver)
    lease = one.hold(10)
    one.end.close(TIMEOUT)

    one.end.open(TIMEOUT)
    one.end.settle([Settlement(lease, Verdict.ACK, 0, 9)])
    one.until(20)
    stale = one.end.stats()["stale"]
    one.close()

    assert stale == 1
    assert [attempt for _, attempt in one.messages] == [1] * 10 + [2] * 10


# --- where reading starts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("earliest", range(30)),
        ("new", range(30, 40)),
        (12, range(12, 30)),
        (10_000, range(30, 40)),
        (datetime.fromtimestamp(STAMP / 1e6 - 1800, tz=UTC), range(20, 30)),
    ],
)
@pytest.mark.parametrize("name", ["audit", None])
def test_reading_starts_where_it_is_told(make, start, expected, name):
    driver = make(mode=Mode.TOPIC, partitions=1)
    send(driver, rows(0, 20, stamp=STAMP - 3_600_000_000))
    send(driver, rows(20, 10))

    receiving = Receiving(driver, name, start=start)
    if start in {"new", 10_000}:
        send(driver, rows(30, 10))
    receiving.until(len(expected))
    assert receiving.take(0.2) == 0
    receiving.close()

    assert list(expected) == receiving.numbers


def test_an_existing_group_is_only_moved_when_that_is_said(make):
    driver = make(partitions=1)
    send(driver, rows(0, 10))
    Receiving(driver).until(10).close()

    with pytest.raises(ConfigError, match="reset=True"):
        Receiving(driver, start="earliest")
    again = Receiving(driver, start="earliest", reset=True).until(10)
    with pytest.raises(ConfigError, match="live receivers"):
        in_background(again, lambda: catch(lambda: Receiving(driver, start="earliest", reset=True)))()
    again.close()

    assert list(range(10)) == again.numbers


def catch(action):
    """Run the action; what is returned raises its error again, in the caller's thread."""
    try:
        action()
    except Exception as error:
        caught = error

        def again():
            raise caught

        return again
    return lambda: None


def test_purged_records_are_a_counted_gap(make):
    driver = make(partitions=1)
    send(driver, rows(0, 10))
    receiving = Receiving(driver)
    receiving.until(10)
    receiving.close()
    send(driver, rows(10, 20))

    purged = driver.purge(TIMEOUT)
    send(driver, rows(30, 5))
    receiving = Receiving(driver).until(5)
    gaps = receiving.end.stats()["gaps"]
    receiving.close()

    assert (purged, gaps) == (30, 20)
    assert list(range(30, 35)) == receiving.numbers


# --- topics and groups --------------------------------------------------------------------------------------------


def test_topics_have_the_partitions_asked_for_and_a_mismatch_shows_both(make):
    driver = make(partitions=4)
    send(driver, rows(0, 1))

    sender = make(driver.target.name, partitions=7).sender()
    with pytest.raises(ConfigError, match=r"partitions=7 .* has 4"):
        sender.open(TIMEOUT)
    sender.close(TIMEOUT)
    indifferent = Sending(make(driver.target.name))
    assert indifferent.end.stats()["partitions"] == 4
    indifferent.close()


def test_deleting_leaves_neither_topic_nor_groups_behind(make):
    driver = make(mode=Mode.TOPIC)
    queue = make(f"{driver.target.name}.other")
    Receiving(driver, "audit").close()
    Receiving(driver, "billing").close()
    Receiving(driver).close()
    Receiving(queue).close()
    admin = driver._client.admin(driver.settings, TIMEOUT)
    name = driver.target.name

    def groups():
        return sorted(g for g in admin.groups(TIMEOUT) if g.startswith(name))

    try:
        before = groups()
        driver.delete_subscription("billing", TIMEOUT)
        driver.delete_subscription("billing", TIMEOUT)
        between = groups()
        driver.delete(TIMEOUT)
        after = groups(), admin.partitions(name, TIMEOUT)
        driver.delete(TIMEOUT)
    finally:
        admin.close()

    assert [f"{name}.audit", f"{name}.billing", f"{name}.other"] == before
    assert [f"{name}.audit", f"{name}.other"] == between
    # The queue's group has a name like a subscription's, and is none of this topic's.
    assert ([f"{name}.other"], None) == after


# --- trouble ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["kafka+confluent"], indirect=True)
def test_a_client_that_waits_in_vain_gives_way_to_a_new_one(make, monkeypatch):
    driver, asked = make(), []
    new = ConfluentAdmin._new

    def first_to_nobody(admin):
        asked.append(admin._settings.servers)
        if len(asked) > 1:
            return new(admin)
        settings = dataclasses.replace(admin._settings, servers=(f"127.0.0.1:{silent.getsockname()[1]}",))
        return native.AdminClient(common_config(settings))

    monkeypatch.setattr(ConfluentAdmin, "_new", first_to_nobody)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sender = driver.sender()
        sender.open(6.0)
        sender.close(5.0)
    assert len(asked) == 2


@pytest.mark.parametrize("end", ["sender", "receiver"])
def test_no_broker_is_one_clear_line_in_time(scheme, end, capfd, caplog):
    caplog.set_level(logging.CRITICAL)
    driver = KafkaDriver(parse_url(f"{scheme}://127.0.0.1:1/orders"), mode=Mode.QUEUE)
    before = psutil.Process().num_threads()
    one = driver.sender() if end == "sender" else driver.receiver(None, ReceiverOptions())
    started = time.monotonic()

    with pytest.raises(ConnectTimeout) as caught:
        one.open(1.0)
    took = time.monotonic() - started
    one.close(1.0)

    assert "no Kafka broker answered at 127.0.0.1:1 within" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None
    assert (caught.value.retryable, caught.value.endpoint) == (True, "127.0.0.1:1")
    assert took < 15
    assert_threads(before)
    assert tuple(capfd.readouterr()) == ("", "")


def assert_threads(expected):
    deadline = time.monotonic() + 5
    while psutil.Process().num_threads() > expected:
        assert time.monotonic() < deadline, threading.enumerate()
        threading.Event().wait(0.02)


def test_every_thread_is_gone_after_close(make):
    driver = make()
    send(driver, rows(0, 10))  # what NumPy and the libraries start once is started now
    before = psutil.Process().num_threads()

    send(driver, rows(10, 100))
    Receiving(driver).until(110).close()

    assert_threads(before)


def test_a_message_that_is_too_large_fails_alone(make):
    driver = make(partitions=1)
    sending = Sending(driver)
    large = rows(1, 1)
    large = Batch([b"x" * 2_000_000], keys=large.keys, producers=large.producers, sequences=large.sequences)

    sending.send(Batch.concat([rows(0, 1), large, rows(2, 1)]))
    sending.drain()
    sending.close()
    receiving = Receiving(driver).until(2)
    receiving.close()

    ((message, error),) = sending.failed
    assert (message.sequence, receiving.numbers, sending.resent) == (1, [0, 2], 0)
    assert error.__cause__ is not None


@pytest.fixture(scope="module")
def own_broker():
    """A broker that may be stopped."""
    with KafkaBroker(own=True) as broker:
        yield broker


def own_driver(broker, scheme, **options):
    url = broker.url.replace("kafka://", f"{scheme}://")
    name = f"t-{uuid.uuid4().hex[:12]}"
    return KafkaDriver(parse_url(f"{url}/{name}"), mode=Mode.QUEUE, **{**QUICK, **options})


def run_through_outage(broker, driver, total, outage):
    """Send and receive all the while; the broker is away for a while at a third."""
    sending, receiving = Sending(driver), Receiving(driver)
    state = {"down": threading.Event(), "up": threading.Event()}

    def interrupt():
        broker.stop()
        state["down"].set()
        time.sleep(outage)
        broker.start()
        state["up"].set()

    thread = threading.Thread(target=interrupt)
    deadline = time.monotonic() + 120
    sent = 0
    try:
        while len(set(receiving.numbers)) < total or sending.open:
            assert time.monotonic() < deadline, (sent, sending.end.stats(), receiving.end.stats())
            # A third before, a third while it is away, and a third when it is back.
            allowed = total / 3 if not state["down"].is_set() else 2 * total / 3 if not state["up"].is_set() else total
            if sent < allowed and len(sending.open) < 5000:
                sending.send(rows(sent, 100))
                sent += 100
            elif sent >= total / 3 and not thread.ident and len(set(receiving.numbers)) > total / 6:
                thread.start()
            sending.step(0.01)
            receiving.take(0.01)
    finally:
        if thread.ident:
            thread.join()
        sending.close()
        receiving.close()
    return sending, receiving


def test_a_broker_that_stops_for_three_seconds_costs_nothing(own_broker, scheme):
    sending, receiving = run_through_outage(own_broker, own_driver(own_broker, scheme), 6000, 3.0)

    assert set(range(6000)) == set(receiving.numbers)
    assert (sending.resent, sending.failed) == (0, [])
    firsts = [m.sequence for m, attempt in receiving.messages if attempt == 1]
    assert len(set(firsts)) == len(firsts)
    assert in_order_per_key(receiving.messages)


def test_what_the_client_gives_up_is_sent_again_in_order(own_broker, scheme):
    driver = own_driver(own_broker, scheme, delivery_timeout=1.5, request_timeout=1.0)

    sending, receiving = run_through_outage(own_broker, driver, 3000, 5.0)

    assert set(range(3000)) == set(receiving.numbers)
    assert sending.failed == []
    assert sending.resent > 0
    assert sending.end.stats()["recoveries"] > 0
    # A copy that was stored although its report was lost is a repeat of the identity, never more than was declared.
    copies = [m.sequence for m, attempt in receiving.messages if attempt == 1]
    assert len(copies) - 3000 <= sending.resent
    firsts = {}
    for message, _ in receiving.messages:
        firsts.setdefault(message.sequence, message)
    assert in_order_per_key([(m, 1) for m in firsts.values()])


@pytest.mark.parametrize("scheme", ["kafka+python"], indirect=True)
def test_a_broker_that_stalls_is_not_asked_without_a_pause(own_broker, scheme, monkeypatch):
    driver = own_driver(own_broker, scheme)
    send(driver, rows(0, 10))
    receiving = Receiving(driver).until(10)
    fetcher, asked = receiving.end.native._fetcher, []
    fetch = fetcher.fetch_records

    def counted(*args, **options):
        asked.append(args)
        return fetch(*args, **options)

    monkeypatch.setattr(fetcher, "fetch_records", counted)
    own_broker.pause()
    try:
        deadline = time.monotonic() + 3  # ten heartbeats without an answer
        while time.monotonic() < deadline:
            receiving.take(0.1)
    finally:
        own_broker.resume()
    assert 0 < len(asked) < 1_000, len(asked)  # without pauses 7,000
    send(driver, rows(10, 10))
    receiving.until(20).close()
    assert sorted(set(receiving.numbers)) == list(range(20))


def test_closing_is_bounded_without_a_broker(scheme):
    with KafkaBroker(own=True) as broker:
        driver = own_driver(broker, scheme)
        send(driver, rows(0, 40))
        receiving, sending = Receiving(driver), Sending(driver)
        (held, *_) = receiving.end.receive(10, TIMEOUT)
        broker.stop()
        sending.send(rows(40, 100))
        receiving.end.settle([Settlement(held.lease, Verdict.ACK, held.tokens[0], held.tokens[0])])

        seconds = []
        for end in (receiving.end, sending.end):
            started = time.monotonic()
            end.close(1.0)
            seconds.append(time.monotonic() - started)

    assert [s < 2.5 for s in seconds] == [True, True], seconds


# --- what is refused without asking a broker ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options", "error", "says"),
    [
        ("kafka://h/a/b", {}, InvalidURL, "one name"),
        ("kafka://h/a~b", {}, InvalidURL, "letters, digits"),
        ("kafka://h/a", {"heartbeat": 9.0}, NotSupported, "third"),
    ],
)
def test_what_cannot_be_is_refused_at_construction(url, options, error, says):
    with pytest.raises(error, match=says) as caught:
        KafkaDriver(parse_url(url), mode=Mode.QUEUE, **options)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("mode", "options"), [(Mode.QUEUE, {}), (Mode.TOPIC, {"partitions": 1})])
def test_exclusive_needs_one_partition_and_a_group(scheme, mode, options):
    driver = KafkaDriver(parse_url(f"{scheme}://h/a"), mode=mode, **options)

    with pytest.raises(NotSupported, match="partitions=1 and share a group"):
        driver.receiver(None, ReceiverOptions(exclusive=True))


def test_of_exclusive_receivers_one_reads_and_the_other_takes_over(kafka_broker, scheme):
    url = f"{kafka_broker.url.replace('kafka://', f'{scheme}://')}/t-{uuid.uuid4().hex[:12]}"
    with simlink.queue(url, partitions=1, **QUICK) as orders:
        alone = {"exclusive": True, "settle": "manual"}
        with orders.receiver(**alone) as one, orders.receiver(**alone) as two:
            orders.send_many(list(range(20)))
            found = {one: [], two: []}
            deadline = time.monotonic() + TIMEOUT
            while sum(map(len, found.values())) < 20:
                assert time.monotonic() < deadline
                for rx, values in found.items():
                    # Not by iterating: one that has nothing assigned to it is not idle, and would wait for ever.
                    with contextlib.suppress(simlink.ReceiveTimeout):
                        delivery = rx.get(timeout=0.2)
                        values.append(delivery.value)
                        delivery.ack()
            first, second = (one, two) if found[one] else (two, one)
            first.close()
            orders.send_many(list(range(20, 40)))
            after = second.take(20, timeout=TIMEOUT)
        orders.delete()

    assert (found[first], found[second], after) == (list(range(20)), [], list(range(20, 40)))


@pytest.mark.parametrize("start", [-1, True, "latest", 1.5])
def test_a_start_that_means_nothing_is_refused(scheme, start):
    driver = KafkaDriver(parse_url(f"{scheme}://h/a"), mode=Mode.QUEUE)

    with pytest.raises(ConfigError, match="start="):
        driver.receiver(None, ReceiverOptions(start=start))
