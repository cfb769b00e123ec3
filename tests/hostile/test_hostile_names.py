"""CR, LF and NUL in keys, headers and names: a typed error before anything is sent; in a key of bytes they are data."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

import simlink
from simlink import fields
from simlink.channels.channel import queue
from simlink.channels.wire import wire_pb2 as pb
from simlink.channels.wire.frames import FrameError
from simlink.channels.wire.framing import read_frames
from simlink.errors import ConfigError, InvalidURL
from simlink.message import Batch, Message, Same

ODD = {"crlf": "a\r\nX-Evil: y", "lf": "a\nb", "cr": "a\rb", "nul": "a\0b"}
LOCAL = "127.0.0.1"
SCHEMES = ["memory", "tcp", "http", "grpc"]


def base(scheme):
    return "memory://" if scheme == "memory" else f"{scheme}://{LOCAL}:0/"


def given(what, odd):
    return {"key": {"key": odd}, "name": {"headers": {odd: "v"}}, "value": {"headers": {"x": odd}}}[what]


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("what", ["key", "name", "value"])
@pytest.mark.parametrize("scheme", [*SCHEMES, "kafka", "redis", "amqp"])
def test_a_text_that_would_end_a_line_is_refused_before_anything_is_sent(scheme, what, odd):
    # Nobody listens there: it is not asked for.
    where = f"{scheme}://" if scheme == "memory" else f"{scheme}://{LOCAL}:1/"
    with queue(f"{where}n{uuid.uuid4().hex}") as channel:
        with pytest.raises(ConfigError, match="no CR, LF or NUL"):
            channel.send({"a": 1}, timeout=20.0, **given(what, odd))
        more = {"key": lambda _: odd} if what == "key" else given(what, odd)
        with pytest.raises(ConfigError, match="no CR, LF or NUL"):
            channel.send_many([{"a": 1}], timeout=20.0, **more)
        if what != "key":
            message = Message(body=b"1", headers=given(what, odd)["headers"])
            same = Same(message.headers, 1)
            for ready in ([message], Batch([b"1", b"2"], headers=[{}, message.headers]), Batch([b"1"], headers=same)):
                with pytest.raises(ConfigError, match="no CR, LF or NUL"):
                    channel.send_many(ready, timeout=20.0)
        assert channel.stats()["in_flight"] == 0


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("column", ["plain", "coded"])
def test_a_field_that_is_the_key_is_looked_through(column, odd):
    coded = fields.choice(["ann", odd])
    values = coded if column == "coded" else fields.sequence() | (lambda i: np.where(i % 2, "ann", odd).astype(object))
    records = simlink.record("r", name=values, seed=1).take(64)
    with queue("memory://n") as channel, pytest.raises(ConfigError, match="no CR, LF or NUL"):
        channel.send_many(next(records.blocks()), key="name")


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize(
    "scheme",
    [
        *SCHEMES,
        pytest.param("redis", marks=pytest.mark.broker("redis")),
        pytest.param("kafka+confluent", marks=pytest.mark.broker("kafka")),
        pytest.param("kafka+python", marks=pytest.mark.broker("kafka")),
        pytest.param("amqp", marks=pytest.mark.broker("rabbitmq")),
    ],
)
def test_a_key_of_bytes_travels_as_it_is(scheme, odd, request):
    if scheme in SCHEMES:
        url = base(scheme)
    else:
        kind = {"redis": "redis", "amqp": "rabbitmq"}.get(scheme, "kafka")
        where = request.getfixturevalue(f"{kind}_broker").url.partition("://")[2].partition("/")[0]
        url = f"{scheme}://{where}/"
    with queue(f"{url}n{uuid.uuid4().hex}") as channel, channel.receiver() as rx:
        channel.send({"a": 1}, key=odd.encode(), timeout=20.0)
        delivery = rx.get(timeout=20.0)
        delivery.ack()
        assert (delivery.message.key, delivery.message.body) == (odd.encode(), b'{"a":1}')


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("what", ["name", "value"])
def test_a_frame_with_such_a_header_is_no_frame(what, odd):
    wire = pb.Frame(batch=pb.Batch(bodies=[b"1", b"2"]))
    header = wire.batch.headers.add(name="x", values=["v"])
    if what == "name":
        header.name = odd
    else:
        header.values[0] = odd
    payload = wire.SerializeToString()
    with pytest.raises(FrameError, match="a header with CR, LF or NUL"):
        read_frames((len(payload) + 1).to_bytes(4, "big") + b"\1" + payload)


@pytest.mark.parametrize("odd", [*ODD.values(), "a%0d%0ab", "a%00b"])
@pytest.mark.parametrize("scheme", [*SCHEMES, "kafka", "redis", "redis+pubsub", "amqp"])
def test_no_destination_has_them(scheme, odd):
    with pytest.raises(InvalidURL):
        queue((f"{scheme}://" if scheme == "memory" else f"{scheme}://{LOCAL}:1/") + f"or{odd}")


@pytest.mark.parametrize("part", ["name", "value"])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_plain_http_headers_are_refused_before_anything_is_sent(part, odd):
    given = {odd: "v"} if part == "name" else {"x": odd}
    with pytest.raises(ConfigError):
        queue(f"http://{LOCAL}:1/orders", rest=True, headers=given)
