"""CR, LF and NUL in keys, headers and names: delivered as they are, or refused by a typed error; never structure."""

from __future__ import annotations

import uuid

import pytest

from simlink.channels.channel import queue
from simlink.errors import BatchError, InvalidURL, SimlinkError
from simlink.message import Message

ODD = {"crlf": "a\r\nX-Evil: y", "lf": "a\nb", "cr": "a\rb", "nul": "a\0b"}
LOCAL = "127.0.0.1"
SCHEMES = ["memory", "tcp", "http", "grpc"]


def base(scheme):
    return "memory://" if scheme == "memory" else f"{scheme}://{LOCAL}:0/"


def outcome(url, what, odd):
    """The message that arrived, or the error's type, always one of ours."""
    try:
        with queue(url) as channel, channel.receiver() as rx:
            more = {"key": {"key": odd}, "name": {"headers": {odd: "v"}}, "value": {"headers": {"x": odd}}}[what]
            channel.send({"a": 1}, timeout=20.0, **more)
            delivery = rx.get(timeout=20.0)
            delivery.ack()
            return delivery.message
    except SimlinkError as error:
        return error


def faithful(found, what, odd):
    if isinstance(found, SimlinkError):
        return True
    headers = dict(found.headers)
    expected = {"key": (odd.encode(), {}), "name": (None, {odd: "v"}), "value": (None, {"x": odd})}[what]
    return (found.key, headers) == expected and found.body == b'{"a":1}'


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("what", ["key", "name", "value"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_frames_carry_them_as_they_are(scheme, what, odd):
    found = outcome(base(scheme) + f"n{uuid.uuid4().hex}", what, odd)
    assert not isinstance(found, SimlinkError), found
    assert faithful(found, what, odd)


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("what", ["key", "name", "value"])
@pytest.mark.parametrize(
    "scheme",
    [
        pytest.param("redis", marks=pytest.mark.broker("redis")),
        pytest.param("kafka+confluent", marks=pytest.mark.broker("kafka")),
        pytest.param("kafka+python", marks=pytest.mark.broker("kafka")),
        pytest.param("amqp", marks=pytest.mark.broker("rabbitmq")),
    ],
)
def test_brokers_carry_them_or_they_are_refused(scheme, what, odd, request):
    kind = {"redis": "redis", "amqp": "rabbitmq"}.get(scheme, "kafka")
    broker = request.getfixturevalue(f"{kind}_broker")
    where = broker.url.partition("://")[2].partition("/")[0]
    found = outcome(f"{scheme}://{where}/n{uuid.uuid4().hex}", what, odd)
    print(f"\n{scheme} {what}: {found!r:.150}")
    assert faithful(found, what, odd)


@pytest.mark.parametrize("odd", [*ODD.values(), "a%0d%0ab", "a%00b"])
@pytest.mark.parametrize("scheme", [*SCHEMES, "kafka", "redis", "redis+pubsub", "amqp"])
def test_no_destination_has_them(scheme, odd):
    with pytest.raises(InvalidURL):
        queue((f"{scheme}://" if scheme == "memory" else f"{scheme}://{LOCAL}:1/") + f"or{odd}")


@pytest.mark.parametrize("part", ["name", "value"])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_plain_http_headers_are_refused_before_anything_is_sent(part, odd):
    given = {odd: "v"} if part == "name" else {"x": odd}
    with pytest.raises(SimlinkError):
        queue(f"http://{LOCAL}:1/orders", rest=True, headers=given)


@pytest.mark.broker("kafka")
@pytest.mark.parametrize("client", ["kafka+confluent", "kafka+python"])
def test_only_the_message_with_a_nul_in_a_kafka_header_s_name_is_refused(client, kafka_broker):
    where = kafka_broker.url.partition("://")[2].partition("/")[0]
    # One key, and so one partition: in what order those without a key come is the partitions' affair.
    messages = [Message(body=b"%d" % i, key=b"k", headers={"a\0b" if i == 1 else "a": "v"}) for i in range(3)]
    with queue(f"{client}://{where}/n{uuid.uuid4().hex}") as channel, channel.receiver() as rx:
        with pytest.raises(BatchError, match="1 of 3 messages were refused") as caught:
            channel.send_many(messages, timeout=20.0)
        assert list(caught.value.failed) == [1]
        assert rx.take(2, timeout=20.0) == [0, 2]
