"""The RabbitMQ transport against a real broker: what the conformance suite does not ask."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
import uuid

import pika
import psutil
import pytest

import simlink
from simlink.channels.driver import Mode, OutcomeKind, ReceiverOptions, Settlement
from simlink.channels.rabbitmq import RabbitMQDriver
from simlink.channels.url import parse_url
from simlink.errors import ConfigError, ConnectError, ConnectTimeout, ReceiveTimeout, SendError, SendTimeout
from simlink.message import Batch, Same, Verdict
from simlink.testing.brokers import RabbitMQBroker
from tests.faults.secured import Door
from tests.support.certificates import Authority
from tests.support.rabbitmq import TlsRabbitMQ, ctl, plain

TIMEOUT = 30.0
QUIET = 0.4


@pytest.fixture
def url(rabbitmq_broker):
    return f"{rabbitmq_broker.url}/t-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def own_broker():
    """One that may be stopped, frozen, and told that its memory is full."""
    with RabbitMQBroker(own=True) as broker:
        yield broker


@pytest.fixture
def own_url(own_broker):
    return f"{own_broker.url}/t-{uuid.uuid4().hex[:12]}"


def name_of(url):
    return url.rpartition("/")[2].partition("?")[0]


def until(done, what, timeout=TIMEOUT):
    deadline = time.monotonic() + timeout
    event = threading.Event()
    while not done():
        assert time.monotonic() < deadline, what
        event.wait(0.01)


def rows(first, count):
    numbers = range(first, first + count)
    return Batch(
        [b"%d" % i for i in numbers], producers=Same(bytes(16), count), sequences=numbers, timestamps=Same(1, count)
    )


def nothing_more(receiver):
    with pytest.raises(ReceiveTimeout):
        receiver.get(timeout=QUIET)


def sender_of(url, mode=Mode.QUEUE, **options):
    end = RabbitMQDriver(parse_url(url), mode=mode, **options).sender()
    end.open(TIMEOUT)
    return end


def outcomes_of(end, count, timeout=TIMEOUT):
    """Outcomes until so many positions have one."""
    found, deadline = [], time.monotonic() + timeout
    while sum(o.stop - o.first for o in found) < count:
        assert time.monotonic() < deadline, (found, end.stats())
        found += end.outcomes(0.1)
    return found


# --- what others see ----------------------------------------------------------------------------------------------


def test_what_travels_is_the_brokers_own(url, rabbitmq_broker):
    stamp = 1_700_000_000_123_456
    with simlink.queue(url) as orders:
        orders.send(
            simlink.Message(
                body=b'{"a":1}', key=b"ann", headers={"trace": "7f"}, content_type="application/json",
                producer=bytes(16), sequence=5, timestamp=stamp,
            )
        )  # fmt: skip
    with plain(rabbitmq_broker) as channel:
        method, properties, body = channel.basic_get(name_of(url), auto_ack=True)

    identity = "0" * 32 + f"/0000000000000005/{stamp}"
    assert (method.exchange, method.routing_key, body) == ("", name_of(url), b'{"a":1}')
    assert properties.headers == {"simlink-id": identity, "simlink-key": "ann", "trace": "7f"}
    assert (properties.delivery_mode, properties.content_type) == (2, "application/json")
    assert properties.timestamp == stamp // 1_000_000


def test_what_a_plain_client_publishes_is_read(url, rabbitmq_broker):
    with simlink.topic(url) as events, events.receiver("audit") as audit:
        with plain(rabbitmq_broker) as channel:
            properties = pika.BasicProperties(headers={"n": 7}, content_type="application/json", timestamp=3)
            channel.basic_publish(name_of(url), "eu.ann", b'{"a":1}', properties)
        message = (delivery := audit.get(timeout=TIMEOUT)).message

    assert (delivery.value, delivery.attempt) == ({"a": 1}, 1)
    assert (message.key, dict(message.headers), message.timestamp) == (b"eu.ann", {"n": "7"}, 3_000_000)
    assert (message.content_type, message.producer, message.sequence) == ("application/json", None, None)


def test_a_subscription_gets_the_routing_keys_that_it_names(url):
    with simlink.topic(f"{url}?exchange_type=direct&binding=ann,eve") as events, events.receiver("some") as some:
        for key in ("ann", "bob", "eve", "ann"):
            events.send(key, key=key)

        assert some.take(3, timeout=TIMEOUT) == ["ann", "eve", "ann"]
        nothing_more(some)
        assert events.stats()["driver"]["unrouted"] == 1


def test_a_fanout_exchange_gives_everything_to_everybody(url):
    with simlink.topic(f"{url}?exchange_type=fanout") as events:
        with events.receiver("audit") as audit, events.receiver() as live:
            events.send_many([1, 2], key=str)

            assert audit.take(2, timeout=TIMEOUT) == live.take(2, timeout=TIMEOUT) == [1, 2]


def test_the_virtual_host_stands_before_the_name(own_broker):
    ctl(own_broker, "add_vhost", "shop/eu")
    ctl(own_broker, "set_permissions", "-p", "shop/eu", "guest", ".*", ".*", ".*")
    with simlink.queue(f"{own_broker.url}/shop%2Feu/orders") as there, there.receiver() as rx:
        there.send("in the shop")
        assert rx.take(1, timeout=TIMEOUT) == ["in the shop"]
    with simlink.queue(f"{own_broker.url}/orders") as here, here.receiver() as rx:
        nothing_more(rx)


# --- confirmed, failed, ambiguous ---------------------------------------------------------------------------------


def test_confirmations_come_as_ranges(url):
    end = sender_of(url)
    try:
        for first in range(0, 5_000, 1_000):
            end.submit(rows(first, 1_000), first)
        found = outcomes_of(end, 5_000)
    finally:
        end.close(TIMEOUT)

    assert {OutcomeKind.CONFIRMED} == {o.kind for o in found}
    assert sorted(p for o in found for p in range(o.first, o.stop)) == list(range(5_000))
    assert len(found) < 500


def test_an_unroutable_message_is_a_failure_in_one_sentence(url, rabbitmq_broker):
    with simlink.queue(url) as orders:
        orders.send("taken")
        with plain(rabbitmq_broker) as channel:
            channel.queue_delete(name_of(url))
        with pytest.raises(SendError, match="could not route") as caught:
            orders.send("nobody takes this")
        # What cannot be told from it by its body is told by its place.
        receipt = orders.send_many(["same"] * 300, wait=False)
        receipt.wait(TIMEOUT)

        assert "\n" not in str(caught.value)
        assert receipt.failed == 300
        assert orders.stats()["driver"]["unroutable"] == 301


def test_a_topic_without_subscriptions_counts_what_nobody_got(url):
    with simlink.topic(url) as events:
        receipt = events.send_many([1, 2, 3])

        assert receipt.state == "confirmed"
        assert events.stats()["driver"]["unrouted"] == 3


def test_a_message_that_amqp_cannot_carry_fails_alone(url):
    end = sender_of(url)
    headers = [{}, {"n" * 256: "too long a name"}, {}]
    try:
        end.submit(Batch([b"1", b"2", b"3"], headers=headers), 0)
        found = sorted(outcomes_of(end, 3), key=lambda o: o.first)
    finally:
        end.close(TIMEOUT)

    assert [(o.kind.value, o.first) for o in found] == [("confirmed", 0), ("failed", 1), ("confirmed", 2)]
    assert "cannot carry" in str(found[1].error)


def test_a_key_above_255_bytes_is_refused(url):
    with simlink.queue(url) as orders, pytest.raises(SendError, match="255"):
        orders.send(1, key="k" * 256)


def test_what_the_broker_nacks_is_given_back_and_comes_through_later(url, rabbitmq_broker):
    """A full queue that rejects: ambiguous, sent again after a pause, confirmed once there is room."""
    with plain(rabbitmq_broker) as channel:
        full = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare(name_of(url), durable=True, arguments=full)
        with simlink.queue(url) as orders:
            orders.send("first")
            receipt = orders.send("second", wait=False)
            until(lambda: orders.stats()["driver"]["nacked"] >= 2, "the broker nacks, and again")
            assert receipt.pending == 1
            channel.queue_purge(name_of(url))
            receipt.wait(TIMEOUT)
            stats = orders.stats()

        assert receipt.state == "confirmed"
        assert stats["resent"] == stats["driver"]["nacked"] >= 2
        assert stats["resent"] < 100


def test_what_was_in_flight_when_the_channel_broke_is_ambiguous(url, rabbitmq_broker):
    end = sender_of(url, confirm_window=50)
    try:
        end.submit(rows(0, 500), 0)
        end._link.post(end._link._cut)
        until(lambda: end._link.error is not None, "the connection is gone")
        confirmed = end.outcomes(0.0) if end._ready else []  # what was known is told first
        with pytest.raises(SendError) as caught:
            end.outcomes(0.0)
        with pytest.raises(SendError):
            end.submit(rows(500, 10), 500)
        end.open(TIMEOUT)
        found = [*confirmed, *outcomes_of(end, 510 - sum(o.stop - o.first for o in confirmed))]
    finally:
        end.close(TIMEOUT)

    assert caught.value.retryable
    fate = {p: o for o in found for p in range(o.first, o.stop)}
    assert list(range(510)) == sorted(fate)
    back = [o for o in fate.values() if o.kind is OutcomeKind.RETURNED]
    # At most the window was published; what waited behind it is surely not there.
    assert 0 < len([o for o in back if not o.ambiguous]) >= 450
    assert not fate[509].ambiguous
    assert {OutcomeKind.CONFIRMED, OutcomeKind.RETURNED} >= {o.kind for o in found}


def test_a_blocked_connection_is_back_pressure(own_broker, own_url):
    with simlink.queue(own_url, window=100) as orders:
        orders.send("before")
        ctl(own_broker, "set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            # The broker says so to those that publish.
            receipts = [orders.send(i, wait=False) for i in range(100)]
            until(lambda: orders.stats()["driver"]["blocked"] is not None, "the broker blocks")
            with pytest.raises(SendTimeout, match="window is full"):
                orders.send("no room", timeout=0.5)
        finally:
            ctl(own_broker, "set_vm_memory_high_watermark", "0.4")
        for receipt in receipts:
            receipt.wait(TIMEOUT)

        assert {"confirmed"} == {receipt.state for receipt in receipts}
        assert orders.stats()["driver"]["blocked"] is None
        assert orders.stats()["reconnects"] == 0


# --- faults -------------------------------------------------------------------------------------------------------


def test_a_broker_that_goes_and_comes_back_costs_no_message(own_broker, own_url):
    """By the books: everything confirmed is there, raw repeats are no more than resends and lost holds."""
    total, raw = 4_000, []
    with simlink.queue(own_url) as orders, orders.receiver(idle=2.0) as rx:
        sent = []

        def send():
            for first in range(0, total, 100):
                receipt = orders.send_many(list(range(first, first + 100)), timeout=60.0)
                sent.append(receipt)

        thread = threading.Thread(target=send)
        thread.start()
        for share in (total // 3, 2 * total // 3):
            until(lambda share=share: len(sent) * 100 >= share, f"{share} were sent")
            own_broker.stop()
            own_broker.start()
        while len(set(raw)) < total:
            raw += [d.value for d in rx]
        thread.join(60.0)
        stats, read = orders.stats(), rx.stats()

    assert sum(receipt.confirmed for receipt in sent) == total
    assert set(range(total)) == set(raw)
    repeats = len(raw) - total
    assert repeats <= stats["resent"] + read["redelivered"]
    assert stats["reconnects"] >= 1


KILLED = """
import sys, simlink
with simlink.queue(sys.argv[1]) as orders, orders.receiver(settle="manual") as rx:
    for n in range(60):
        delivery = rx.get(timeout=30)
        if n < 20:
            delivery.ack()
    rx._hands.flush()
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_a_killed_receivers_messages_move_on_at_once(url):
    with simlink.queue(url) as orders:
        orders.send_many(list(range(100)))
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout.readline() == "holding\n"
            with orders.receiver() as rx:
                nothing_more(rx)  # all 100 are with the other one: 500 is the prefetch
                child.send_signal(signal.SIGKILL)
                again = []
                while len({value for value, _ in again}) < 80:
                    delivery = rx.get(timeout=10.0)
                    again.append((delivery.value, delivery.attempt))

    # Acknowledged and not yet sent may come again; what was unsettled must.
    assert set(range(20, 100)) <= {value for value, _ in again}
    assert min(attempt for _, attempt in again) >= 2


SLEEPER = """
import sys, simlink
with simlink.queue(sys.argv[1]) as orders, orders.receiver(settle="manual") as rx:
    first = rx.get(timeout=30)
    print("holding", flush=True)
    sys.stdin.readline()
    first.ack()
    rx.idle = 1.0
    for delivery in rx:
        print(delivery.value, flush=True)
        delivery.ack()
"""


def test_a_receiver_that_slept_does_not_hand_out_what_moved_on(url):
    """Frozen for longer than the heartbeats: its buffer is somebody else's by then (rule 10 of the semantics)."""
    where = f"{url}?heartbeat=1"
    with simlink.queue(where) as orders:
        orders.send_many(list(range(100)))
        with subprocess.Popen(
            [sys.executable, "-c", SLEEPER, where], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout.readline() == "holding\n"
            child.send_signal(signal.SIGSTOP)
            with orders.receiver() as rx:
                moved = rx.take(100, timeout=TIMEOUT)
            child.stdin.write("\n")
            child.stdin.flush()
            child.send_signal(signal.SIGCONT)
            seen = child.stdout.read().split()

    assert sorted(moved) == list(range(100))
    assert seen == []


def test_slow_user_code_keeps_its_hold(url):
    """Four heartbeats' time in the application's hands: the broker would have given up a client that is as silent."""
    with simlink.queue(f"{url}?heartbeat=1") as orders, orders.receiver(settle="manual") as rx:
        orders.send("slow")
        delivery = rx.get(timeout=TIMEOUT)
        beating = time.monotonic() + 4.0
        while time.monotonic() < beating:
            sum(range(100_000))
        assert delivery.ack()
        orders.send("next")
        second = rx.get(timeout=TIMEOUT)

        assert (second.value, second.attempt) == ("next", 1)
        assert rx.stats()["redelivered"] == 0
        assert orders.stats()["reconnects"] == 0
        second.ack()


def test_a_frozen_broker_does_not_hold_up_close(own_broker, own_url):
    before = set(threading.enumerate())
    sockets = len(psutil.Process().net_connections())
    orders = simlink.queue(own_url)
    rx = orders.receiver()
    rx.open()
    orders.send(1)
    own_broker.pause()
    try:
        receipt = orders.send(2, wait=False)
        started = time.monotonic()
        orders.close(timeout=1.0)
        took = time.monotonic() - started
    finally:
        own_broker.resume()

    assert took < 15.0
    assert receipt.state == "unknown"
    until(lambda: not [t for t in threading.enumerate() if t not in before and t.name.startswith("simlink")],
          "threads end")  # fmt: skip
    until(lambda: len(psutil.Process().net_connections()) <= sockets, "sockets are closed")


def test_the_second_host_is_taken_when_the_first_is_down(rabbitmq_broker, url):
    where = url.replace("@", "@127.0.0.1:1,")
    with simlink.queue(where) as orders, orders.receiver() as rx:
        orders.send("there")
        assert rx.take(1, timeout=TIMEOUT) == ["there"]


def test_a_deleted_queue_is_made_again_for_its_reader(url, rabbitmq_broker):
    with simlink.queue(url) as orders, orders.receiver() as rx:
        orders.send(1)
        assert rx.take(1, timeout=TIMEOUT) == [1]
        with plain(rabbitmq_broker) as channel:
            channel.queue_delete(name_of(url))
        nothing_more(rx)  # joins again
        orders.send(2)

        assert rx.take(1, timeout=TIMEOUT) == [2]
        assert rx.stats()["driver"]["cancelled"] == 1


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["send", "receive"])
def test_a_wrong_password_is_one_clear_sentence(rabbitmq_broker, caplog, end):
    where = f"amqp://ann:S3cr3t@{rabbitmq_broker.host}:{rabbitmq_broker.port}/orders"
    with caplog.at_level(logging.DEBUG), simlink.queue(where) as orders:
        started = time.monotonic()
        with pytest.raises(ConnectError) as caught:
            orders.send(1) if end == "send" else orders.receiver().open()

    assert str(caught.value) == (
        f"RabbitMQ at {rabbitmq_broker.host}:{rabbitmq_broker.port} refused the user 'ann': wrong name or password, "
        "or not allowed from this host"
    )
    assert (caught.value.retryable, time.monotonic() - started < 20.0) == (False, True)
    assert "S3cr3t" not in f"{caplog.text} {caught.value!r} {caught.value.url}"


def test_a_wrong_virtual_host_is_one_clear_sentence(rabbitmq_broker):
    with simlink.queue(f"{rabbitmq_broker.url}/nowhere/orders") as orders:
        with pytest.raises(ConnectError) as caught:
            orders.send(1)

    assert str(caught.value) == (
        f"RabbitMQ at {rabbitmq_broker.host}:{rabbitmq_broker.port} refused the virtual host 'nowhere' to 'guest': "
        "vhost nowhere not found"
    )
    assert not caught.value.retryable


def test_a_server_that_is_no_broker_is_told_from_one(redis_broker):
    with simlink.queue(f"amqp://{redis_broker.host}:{redis_broker.port}/orders") as orders:
        with pytest.raises(ConnectTimeout, match=r"RabbitMQ|AMQP"):
            orders.send(1, timeout=2.0)


def test_a_queue_that_was_declared_otherwise_shows_both_sides(url):
    with simlink.queue(url) as orders:
        orders.send(1)
    with simlink.queue(f"{url}?queue_type=quorum") as orders:
        with pytest.raises(ConfigError, match=r"x-queue-type is (none|'classic') there and 'quorum' here") as caught:
            orders.send(2)
        with pytest.raises(ConfigError, match="'quorum' here"):
            orders.receiver().open()
    with simlink.queue(f"{url}?declare=false") as orders, orders.receiver() as rx:
        assert rx.take(1, timeout=TIMEOUT) == [1]

    assert "\n" not in str(caught.value)


def test_an_exchange_that_was_declared_otherwise_shows_both_sides(url):
    with simlink.topic(url) as events:
        events.send(1)
    with simlink.topic(f"{url}?exchange_type=fanout") as events, pytest.raises(ConfigError) as caught:
        events.send(2)

    assert "'topic' there and 'fanout' here" in str(caught.value)


def test_without_declaring_nothing_is_made(url):
    with simlink.queue(f"{url}?declare=false") as orders:
        with pytest.raises(ConfigError, match="no queue"):
            orders.send(1)
    with simlink.topic(f"{url}?declare=false") as events:
        with pytest.raises(ConfigError, match="no exchange"):
            events.send(1)


# --- verdicts -----------------------------------------------------------------------------------------------------


def test_attempts_go_on_counting(url):
    with simlink.queue(url) as orders, orders.receiver(settle="manual") as rx:
        orders.send("again")
        attempts = []
        for _ in range(3):
            delivery = rx.get(timeout=TIMEOUT)
            attempts.append(delivery.attempt)
            delivery.nack()
        delivery = rx.get(timeout=TIMEOUT)
        delivery.ack()

    assert [*attempts, delivery.attempt] == [1, 2, 3, 4]


def test_what_is_rejected_goes_to_the_dead_letter_exchange(url):
    dead = f"{name_of(url)}-dead"
    bin_url = url.replace(name_of(url), dead)
    with simlink.queue(f"{url}?dead_letter_exchange={dead}") as orders, orders.receiver(settle="manual") as rx:
        with simlink.topic(bin_url) as letters, letters.receiver("kept") as kept:
            orders.send("bad", key="ann", headers={"trace": "7f"})
            assert rx.get(timeout=TIMEOUT).reject()
            message = (delivery := kept.get(timeout=TIMEOUT)).message

    assert (delivery.value, message.key, message.headers["trace"]) == ("bad", b"ann", "7f")
    assert message.headers["x-first-death-reason"] == "rejected"


def test_acknowledged_out_of_order_then_lost_nothing_is_lost(url):
    driver = RabbitMQDriver(parse_url(url), mode=Mode.QUEUE)
    with simlink.queue(url) as orders:
        orders.send_many(list(range(100)))
    first = driver.receiver(None, ReceiverOptions())
    first.open(TIMEOUT)
    lease, held = None, 0
    while held < 100:
        for incoming in first.receive(100, 1.0):
            lease, held = incoming.lease, held + len(incoming.batch)
    first.settle([Settlement(lease, Verdict.ACK, 41, 100), Settlement(lease, Verdict.ACK, 1, 10)])
    first.close(TIMEOUT)
    first.settle([Settlement(lease, Verdict.ACK, 11, 40)])

    assert (lease.valid, first.stats()["stale"]) == (False, 1)
    with simlink.queue(url) as orders, orders.receiver() as rx:
        assert rx.take(30, timeout=TIMEOUT) == list(range(10, 40))
        nothing_more(rx)


def test_take_reaches_beyond_the_prefetch(url):
    with simlink.queue(url) as orders, orders.receiver(prefetch=100) as rx:
        orders.send_many(list(range(3_000)))

        assert rx.take(1_000, timeout=TIMEOUT) == list(range(1_000))
        assert rx.take(2_000, timeout=TIMEOUT) == list(range(1_000, 3_000))


# --- one at a time ------------------------------------------------------------------------------------------------


def test_exclusive_receivers_follow_one_another_in_order(url):
    with simlink.queue(url) as orders, orders.receiver(exclusive=True) as first:
        with orders.receiver(exclusive=True, settle="manual") as second:
            orders.send_many(list(range(1_000)))
            seen = [first.get(timeout=TIMEOUT).value for _ in range(300)]
            nothing_more(second)
            first.close()
            while len(seen) < 1_000:
                delivery = second.get(timeout=TIMEOUT)
                seen.append(delivery.value)
                delivery.ack()

    assert seen == list(range(1_000))


def test_exclusive_receivers_of_a_quorum_queue_follow_one_another_in_order_and_lose_no_acknowledgement(url):
    seen = []
    with simlink.queue(url, queue_type="quorum", single_active_consumer=True) as orders:
        receivers = [orders.receiver(exclusive=True, prefetch=prefetch) for prefetch in (3, 1, 500)]
        for receiver in receivers:
            receiver.open()
        orders.send_many(list(range(20)))
        for receiver in receivers:
            seen += [receiver.get(timeout=TIMEOUT).value for _ in range(4)]
            receiver.close()
        with orders.receiver(exclusive=True) as last:
            seen += last.take(8, timeout=TIMEOUT)
            nothing_more(last)

    assert seen == list(range(20))


def test_a_queue_that_a_sender_made_is_not_exclusive_unless_it_was_told(url):
    with simlink.queue(url) as orders:
        orders.send(1)
        with pytest.raises(ConfigError, match=r"x-single-active-consumer is none there and 'true' here"):
            orders.receiver(exclusive=True).open()
    told = f"{url}-told?single_active_consumer=true"
    with simlink.queue(told) as orders:
        orders.send(1)
        with orders.receiver(exclusive=True) as rx, pytest.raises(ConfigError, match="raise prefetch="):
            rx.take(1_000)


# --- what is left behind ------------------------------------------------------------------------------------------


def queues_of(broker):
    return set(ctl(broker, "list_queues", "name", "--no-table-headers").split())


def test_an_unnamed_subscription_leaves_nothing_behind(own_broker, own_url):
    with simlink.topic(own_url) as events:
        with events.receiver("audit"), events.receiver() as live:
            events.send(1)
            assert live.take(1, timeout=TIMEOUT) == [1]
            private = live.stats()["driver"]["queue"]
            assert {private, f"{name_of(own_url)}.audit"} <= queues_of(own_broker)
        assert private not in queues_of(own_broker)
        events.delete_subscription("audit")
        assert f"{name_of(own_url)}.audit" not in queues_of(own_broker)


def test_deleting_a_topic_takes_the_subscriptions_of_this_process_along(own_broker, own_url):
    with simlink.topic(own_url) as events:
        with events.receiver("audit"):
            pass
        events.delete()
        events.delete()

    assert f"{name_of(own_url)}.audit" not in queues_of(own_broker)
    assert name_of(own_url) not in ctl(own_broker, "list_exchanges", "name")


def test_an_unnamed_subscription_outlives_a_broken_connection(url):
    with simlink.topic(url) as events, events.receiver() as live:
        link = live._driver._hold.link
        link.post(link._cut)
        until(lambda: link.error is not None, "the connection is gone")
        events.send("meanwhile")

        assert live.take(1, timeout=TIMEOUT) == ["meanwhile"]
        assert live.stats()["driver"]["gaps"] == 0


def test_a_gap_is_raised_and_counted(url, rabbitmq_broker):
    with simlink.topic(url) as events, events.receiver() as live:
        with plain(rabbitmq_broker) as channel:
            channel.queue_delete(live.stats()["driver"]["queue"])
        with pytest.raises(ConnectError, match="did not outlive the outage"):
            live.get(timeout=TIMEOUT)

        assert live.stats()["driver"]["gaps"] == 1


def test_purge_says_how_many(url):
    with simlink.queue(url) as orders:
        assert orders.purge() == 0
        orders.send_many([1, 2, 3])
        assert orders.purge() == 3


# --- encryption ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


def test_over_tls_with_certificates_on_both_sides(authority, tmp_path):
    server, client = authority.issue("127.0.0.1"), authority.issue("client.example")
    stranger = Authority(tmp_path, "stranger")
    with TlsRabbitMQ(server, ca=authority.ca) as broker:
        options = {"ca": authority.ca, "cert": client.cert, "key": client.key}
        with simlink.queue(f"{broker.tls_url}/orders", **options, tls_min="1.2") as orders, orders.receiver() as rx:
            receipt = orders.send_many(list(range(2_000)))
            assert receipt.state == "confirmed"
            assert rx.take(2_000, timeout=TIMEOUT) == list(range(2_000))

        for given, why in (
            ({"ca": stranger.ca, "cert": client.cert, "key": client.key}, "not signed by a trusted CA"),
            ({"ca": authority.ca}, "client certificate"),
        ):
            with simlink.queue(f"{broker.tls_url}/orders", **given) as orders:
                with pytest.raises(ConnectError, match=why) as caught:
                    orders.send(1, timeout=5.0)
            assert not caught.value.retryable
            assert "\n" not in str(caught.value)


def test_a_certificate_for_another_name_or_an_expired_one_is_refused(authority):
    for server, why in (
        (authority.issue("elsewhere.example"), "another name"),
        (authority.issue("127.0.0.1", expired=True), "has expired"),
    ):
        # Nobody gets as far as a broker behind this door; one with a certificate is tried by the fault suite.
        with Door(server) as door, simlink.queue(f"amqps://127.0.0.1:{door.port}/orders", ca=authority.ca) as orders:
            with pytest.raises(ConnectError, match=why) as caught:
                orders.send(1)
            assert not caught.value.retryable
        assert (door.knocks > 0, door.entered) == (True, 0)


# --- the command line ---------------------------------------------------------------------------------------------


def test_the_command_line_sends_and_receives_and_verifies(url, tmp_path):
    command = [sys.executable, "-m", "simlink.cli"]

    def run(*arguments):
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=60)

    sent = run("send", "clickstream", "--to", url, "--count", "500", "--seed", "7", "--key", "user_id")
    assert sent.returncode == 0, sent.stderr
    got = run("receive", url, "--verify", "clickstream", "--seed", "7", "--count", "500", "--idle", "5")
    assert got.returncode == 0, got.stderr
