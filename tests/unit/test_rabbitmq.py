"""What the RabbitMQ driver decides without a broker: URLs, names, arguments, columns, and what an error says."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import exceptions
from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorAMQPHandshakeError,
    AMQPConnectorSocketConnectError,
)

import simlink
from simlink.channels.driver import Mode, Order
from simlink.channels.rabbitmq import columns, failures
from simlink.channels.rabbitmq.settings import OPTIONS, Settings
from simlink.channels.url import parse_url
from simlink.errors import ConfigError, ConnectError, InvalidURL, NotSupported, SendError
from simlink.message import EMPTY_HEADERS, Batch, Same


class Deliver(NamedTuple):
    """What there is of pika's own in a delivery."""

    delivery_tag: int
    redelivered: bool
    routing_key: Any


def settings(url="amqp://mq/orders", mode=Mode.QUEUE, **options):
    return Settings.of(parse_url(url), mode, options)


# --- what is asked for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "hosts", "vhost"),
    [
        ("amqp://mq/orders", (("mq", 5672),), "/"),
        ("amqps://mq/orders", (("mq", 5671),), "/"),
        ("amqp://a:1,b/shop/orders", (("a", 1), ("b", 5672)), "shop"),
        ("amqp://[::1]/%2F/orders", (("::1", 5672),), "/"),
        ("amqp://mq/a%2Fb/orders", (("mq", 5672),), "a/b"),
    ],
)
def test_where_to(url, hosts, vhost):
    found = settings(url)

    assert (found.hosts, found.vhost, found.name) == (hosts, vhost, "orders")


@pytest.mark.parametrize(
    ("url", "mode", "options", "error", "words"),
    [
        ("amqp:///orders", Mode.QUEUE, {}, InvalidURL, "broker is missing"),
        ("amqp://mq/a/b/orders", Mode.QUEUE, {}, InvalidURL, "%2F"),
        ("amqp://mq/amq.orders", Mode.QUEUE, {}, InvalidURL, "keeps for itself"),
        ("amqp://mq/orders", Mode.QUEUE, {"exchange": "x"}, NotSupported, "for topics"),
        ("amqp://mq/orders", Mode.QUEUE, {"binding": "x"}, NotSupported, "for topics"),
        ("amqp://mq/orders", Mode.QUEUE, {"queue": "q" * 256}, InvalidURL, "255"),
        ("amqp://mq/orders", Mode.TOPIC, {"binding": "a," + "b" * 256}, NotSupported, "255"),
        ("amqp://mq/orders", Mode.QUEUE, {"dead_letter_routing_key": "x"}, NotSupported, "needs dead_letter_exchange"),
        ("amqp://mq/orders", Mode.QUEUE, {"declare": False, "queue_type": "quorum"}, NotSupported, "declares nothing"),
        ("amqp://mq/orders", Mode.QUEUE, {"ca": "ca.pem"}, ConfigError, "TLS"),
    ],
)
def test_what_is_refused_before_anything_is_sent(url, mode, options, error, words):
    with pytest.raises(error, match=words):
        settings(url, mode, **options)


@pytest.mark.parametrize(
    ("options", "receiver", "words"),
    [
        ({}, {"start": "earliest"}, "replay"),
        ({}, {"at": "mq"}, "nobody listens"),
        ({}, {"overflow": "drop"}, "overflow"),
    ],
)
def test_what_a_receiver_is_refused(options, receiver, words):
    with simlink.topic("amqp://mq/events", **options) as channel, pytest.raises(NotSupported, match=words):
        channel.receiver("audit", **receiver)


def test_an_unnamed_subscription_is_exclusive_anyway():
    with simlink.topic("amqp://mq/events") as channel, pytest.raises(NotSupported, match="one receiver anyway"):
        channel.receiver(exclusive=True)


def test_a_direct_exchange_needs_to_be_told_what_a_subscription_gets():
    with simlink.topic("amqp://mq/events?exchange_type=direct") as channel:
        with pytest.raises(ConfigError, match="binding="):
            channel.receiver("audit")


def test_what_a_subscription_is_bound_with():
    assert settings(mode=Mode.TOPIC).bindings == ("#",)
    assert settings(mode=Mode.TOPIC, exchange_type="fanout").bindings == ("",)
    assert settings(mode=Mode.TOPIC, binding="eu.*, us.#").bindings == ("eu.*", "us.#")


def test_names_that_others_can_rely_on():
    assert settings().queue_of(None) == "orders"
    assert settings(queue="other").queue_of(None) == "other"
    events = settings(mode=Mode.TOPIC)
    assert (events.topic_exchange, events.queue_of("audit"), events.queue_of(None)) == ("orders", "orders.audit", None)
    assert settings(mode=Mode.TOPIC, exchange="bus").queue_of("audit") == "bus.audit"
    with pytest.raises(ConfigError, match="255"):
        events.queue_of("a" * 250)


@pytest.mark.parametrize(
    ("options", "exclusive", "version", "expected"),
    [
        ({}, False, (3, 10, 8), {}),
        ({"queue_type": "classic"}, False, (4, 0, 0), {}),
        ({"queue_type": "quorum"}, False, (3, 10, 8), {"x-queue-type": "quorum"}),
        ({"queue_type": "quorum"}, False, (), {"x-queue-type": "quorum"}),
        ({"queue_type": "quorum"}, False, (4, 1, 0), {"x-queue-type": "quorum", "x-delivery-limit": -1}),
        ({}, True, (3, 10, 8), {"x-single-active-consumer": True}),
        ({"single_active_consumer": True}, False, (3, 10, 8), {"x-single-active-consumer": True}),
        ({"dead_letter_exchange": "dead"}, False, (3, 10, 8), {"x-dead-letter-exchange": "dead"}),
        (
            {"dead_letter_exchange": "", "dead_letter_routing_key": "bin"},
            False,
            (3, 10, 8),
            {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "bin"},
        ),
    ],
)
def test_how_a_queue_is_declared(options, exclusive, version, expected):
    assert settings(**options).queue_arguments(exclusive=exclusive, version=version) == expected


def test_what_is_promised():
    with simlink.queue("amqp://mq/orders?heartbeat=4") as channel:
        caps = channel.capabilities
    assert (caps.order, caps.takeover, caps.max_key_bytes, caps.replay) == (Order.DISPATCH, 12.0, 255, False)


def test_secrets_do_not_show():
    with simlink.queue("amqp://ann:S3cr3t@mq/orders") as channel:
        shown = f"{channel!r} {channel.url} {channel._driver.settings!r} {channel.stats()!r}"
    assert "S3cr3t" not in shown


def test_every_option_says_what_it_is():
    assert all(option.doc for option in OPTIONS.values())


# --- columns ------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
NAMES = TEXT.filter(lambda name: not name.startswith("simlink-") and name != "x-delivery-count")
MESSAGES = st.lists(
    st.tuples(
        st.binary(max_size=40),
        st.none() | st.binary(max_size=40),
        st.dictionaries(NAMES, TEXT, max_size=3),
        st.none() | st.sampled_from(["application/json", "text/plain"]),
        st.booleans(),
        st.none() | st.integers(0, 2**50),
    ),
    min_size=1,
    max_size=20,
)


def through_pika(row, queue):
    """What a consumer is given of a row: pika's own encoding there and back."""
    encoded = b"".join(row.properties.encode())
    properties = pika.BasicProperties().decode(encoded)
    method = pika.spec.Basic.Publish(exchange="", routing_key=row.routing_key)
    decoded = pika.spec.Basic.Publish().decode(b"".join(method.encode()))
    return Deliver(1, False, decoded.routing_key), properties, row.body


@given(MESSAGES, st.booleans())
def test_everything_about_a_message_comes_through(messages, topic):
    bodies, keys, headers, kinds, stamped, times = map(list, zip(*messages, strict=True))
    sent = Batch(
        bodies,
        keys=keys,
        headers=headers,
        content_types=kinds,
        producers=[bytes(range(16)) if yes else None for yes in stamped],
        sequences=[row if yes else None for row, yes in enumerate(stamped)],
        # Without an identity only whole seconds travel, and an identity writes "none" as 0.
        timestamps=[(t or None) if yes else (None if t is None else t // 1_000_000 * 1_000_000)
                    for t, yes in zip(times, stamped, strict=True)],
    )  # fmt: skip

    rows = columns.write_rows(sent, None if topic else "orders", identity=True)
    got = columns.read_rows([through_pika(row, topic) for row in rows], topic=topic)

    assert list(got) == list(sent)


def test_what_is_written_is_the_brokers_own():
    batch = Batch(
        [b"{}"],
        keys=[b"ann"],
        headers=[{"trace": "7f"}],
        content_types=["application/json"],
        producers=Same(bytes(16), 1),
        sequences=range(5, 6),
        timestamps=[1_700_000_000_123_456],
    )

    (row,) = columns.write_rows(batch, "orders", identity=True)
    (routed,) = columns.write_rows(batch, None, identity=False)

    identity = "0" * 32 + "/0000000000000005/1700000000123456"
    assert (row.routing_key, row.body) == ("orders", b"{}")
    assert row.properties.headers == {"simlink-id": identity, "simlink-key": "ann", "trace": "7f"}
    assert (row.properties.content_type, row.properties.delivery_mode) == ("application/json", 2)
    assert row.properties.timestamp == 1_700_000_000
    assert (routed.routing_key, routed.properties.headers) == (b"ann", {"trace": "7f"})


def test_headers_of_other_clients_are_shown_as_text():
    table = {
        "n": 7, "yes": True, "none": None, "raw": b"\xff", "when": datetime(2026, 1, 2, tzinfo=UTC),
        "list": [1, b"x"], "table": {"a": datetime(2026, 1, 2, tzinfo=UTC)}, "simlink-id": 12, "simlink-key": 5,
    }  # fmt: skip
    delivered = (Deliver(1, False, "orders"), pika.BasicProperties(headers=table, timestamp=3), b"x")

    (message,) = columns.read_rows([delivered], topic=False)

    assert dict(message.headers) == {
        "n": "7", "yes": "true", "none": "", "raw": "\\xff", "when": "2026-01-02 00:00:00+00:00",
        "list": '[1, "x"]', "table": '{"a": "2026-01-02 00:00:00+00:00"}',
    }  # fmt: skip
    assert (message.key, message.producer, message.timestamp) == (b"5", None, 3_000_000)


def test_attempts_are_what_the_broker_knows():
    def delivered(again, headers):
        return Deliver(1, again, "q"), pika.BasicProperties(headers=headers), b""

    assert columns.attempts_of([delivered(False, None), delivered(False, None)]) is None
    rows = [delivered(False, None), delivered(True, None), delivered(True, {"x-delivery-count": 4, "a": "b"})]
    assert columns.attempts_of(rows) == [1, 2, 5]
    assert columns.read_rows(rows, topic=False).headers == [EMPTY_HEADERS, EMPTY_HEADERS, {"a": "b"}]


# --- errors -------------------------------------------------------------------------------------------------------


def handshake(error):
    return AMQPConnectionWorkflowFailed([AMQPConnectorAMQPHandshakeError(error)])


REFUSED = AMQPConnectorSocketConnectError(ConnectionRefusedError(111, "Connection refused"))


def closed(code, text):
    return repr(exceptions.ConnectionClosedByBroker(code, text))


@pytest.mark.parametrize(
    ("error", "retryable", "words"),
    [
        (
            handshake(exceptions.ProbableAuthenticationError(closed(403, "ACCESS_REFUSED - Login was refused"))),
            False,
            "refused the user 'ann': wrong name or password",
        ),
        (
            handshake(exceptions.ProbableAccessDeniedError(closed(530, "NOT_ALLOWED - vhost shop not found"))),
            False,
            "refused the virtual host 'shop' to 'ann': vhost shop not found",
        ),
        (
            handshake(exceptions.ProbableAccessDeniedError(closed(541, "INTERNAL_ERROR - vhost 'shop' is down"))),
            True,
            "vhost 'shop' is down",
        ),
        (handshake(exceptions.ProbableAuthenticationError("StreamLostError: …")), True, "closed during the login"),
        (handshake(exceptions.IncompatibleProtocolError("x")), True, "does not speak AMQP"),
        (
            AMQPConnectionWorkflowFailed([REFUSED]),
            True,
            "Connection refused",
        ),
        (
            AMQPConnectionWorkflowFailed(
                [
                    AMQPConnectorAMQPHandshakeError(
                        exceptions.ProbableAuthenticationError(closed(403, "ACCESS_REFUSED - no"))
                    ),
                    REFUSED,
                ]
            ),
            False,
            "wrong name or password",
        ),
    ],
)  # fmt: skip
def test_why_there_is_no_connection(error, retryable, words):
    found = failures.connect_failure(error, settings("amqp://ann:S3cr3t@mq/shop/orders"), "ann")

    assert isinstance(found, ConnectError)
    assert (found.retryable, found.endpoint) == (retryable, "mq:5672")
    assert words in str(found)
    assert "\n" not in str(found)
    assert "S3cr3t" not in f"{found} {found!r} {found.url}"


def test_a_mismatch_shows_both_sides():
    said = (
        "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'orders' in vhost '/': received the value "
        "'quorum' of type 'longstr' but current is none"
    )
    found = failures.operation_failure(exceptions.ChannelClosedByBroker(406, said), "declaring", settings())

    assert isinstance(found, ConfigError)
    assert "the queue 'orders' at mq:5672 was declared otherwise" in str(found)
    assert "x-queue-type is none there and 'quorum' here" in str(found)


@pytest.mark.parametrize(("code", "retryable"), [(403, False), (406, False), (404, True), (320, True), (541, True)])
def test_what_the_broker_would_say_again_is_final(code, retryable):
    found = failures.send_failure(exceptions.ChannelClosedByBroker(code, "WHY - that is why"), settings())

    assert isinstance(found, SendError)
    assert (found.retryable, str(found)) == (
        retryable,
        "the channel to RabbitMQ at mq:5672 is gone: that is why",
    )
