"""Deliveries taken out of the buffer: the same as pika makes of it, whatever it is and however it is cut."""

from datetime import UTC, datetime
from itertools import pairwise

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec

from simlink.channels.rabbitmq.columns import decoded
from simlink.channels.rabbitmq.frames import Deliver, read_properties, take_deliveries
from simlink.channels.rabbitmq.link import _Connection, _Loop

CHANNEL, TAG = 3, "ctag3.ours"
SMALL = 64
"""A body frame's size here, so that larger bodies come in pieces."""

texts = st.text(max_size=12)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
values = st.one_of(
    texts,
    st.binary(max_size=5),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.none(),
    st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
)
tables = st.one_of(
    st.none(),
    st.dictionaries(names, texts, max_size=3),
    st.dictionaries(names, values, max_size=3),
    st.fixed_dictionaries({"in": st.dictionaries(names, values, max_size=2), "list": st.lists(values, max_size=2)}),
)
properties = st.builds(
    pika.BasicProperties,
    content_type=st.none() | texts,
    headers=tables,
    delivery_mode=st.none() | st.just(2),
    timestamp=st.none() | st.integers(0, 2**62),
    message_id=st.none() | st.none() | texts,
    cluster_id=st.none() | st.none() | texts,
)
messages = st.tuples(
    st.integers(0, 2**63), st.booleans(), texts, texts, properties, st.binary(max_size=SMALL) | st.binary(max_size=200)
)


def frames_of(tag, redelivered, exchange, route, own, body, *, channel=CHANNEL, consumer=TAG):
    method = spec.Basic.Deliver(consumer, tag, redelivered, exchange, route)
    out = [frame.Method(channel, method).marshal(), frame.Header(channel, len(body), own).marshal()]
    out += [frame.Body(channel, body[at : at + SMALL]).marshal() for at in range(0, len(body), SMALL)]
    return out


def shown(row):
    method, own, body = row
    route = method.routing_key
    headers = own.headers or {}
    kind, time = own.content_type, own.timestamp
    return (
        method.delivery_tag,
        method.redelivered,
        route.encode() if isinstance(route, str) else route,
        kind,
        headers,
        time,
        body,
    )


class Taken:
    """A connection that is fed what a broker would send; without `take` it is pika alone."""

    def __init__(self, *, take):
        self.loop = _Loop()
        self.connection = _Connection(pika.ConnectionParameters(), custom_ioloop=self.loop)
        self.connection._set_connection_state(pika.SelectConnection.CONNECTION_OPEN)
        self.by_pika, self.rows, self.batches, self.beats = [], [], 0, 0
        self.connection._heartbeat_checker = self
        for number in (CHANNEL, CHANNEL + 1):
            channel = self.connection._channels[number] = self.connection._create_channel(number, None)
            channel._set_state(channel.OPEN)
            for consumer in (TAG, "another"):
                channel._consumers[consumer] = self.on_message
        if take:
            self.connection.consumers = {TAG.encode()}
            self.connection.consumer_channel = CHANNEL
            self.connection.on_deliveries = self.on_deliveries

    def received(self):
        self.beats += 1

    def on_message(self, _channel, method, own, body):
        self.by_pika.append(method.delivery_tag)
        self.rows.append(shown((method, own, body)))

    def on_deliveries(self, rows):
        self.batches += 1
        self.rows += [shown(decoded(row)) for row in rows]

    def feed(self, data, cuts=()):
        bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        for start, stop in pairwise(bounds):
            self.connection._on_data_available(data[start:stop])
        self.loop.close()
        connection = self.connection
        return self.rows, self.beats, connection.bytes_received, connection.frames_received, connection._frame_buffer


heartbeats = st.just([frame.Heartbeat().marshal()])
ours = messages.map(lambda m: frames_of(*m))
of_others = st.one_of(
    messages.map(lambda m: frames_of(*m, channel=CHANNEL + 1)),
    messages.map(lambda m: frames_of(*m, consumer="another")),
)


@given(st.lists(ours | ours | heartbeats | of_others, max_size=8), st.lists(st.integers(0, 4000), max_size=5))
def test_whatever_comes_is_what_pika_makes_of_it(parts, cuts):
    data = b"".join(b"".join(part) for part in parts)

    assert Taken(take=True).feed(data, cuts) == Taken(take=False).feed(data, cuts)


@given(st.lists(messages.filter(lambda m: len(m[5]) <= SMALL), min_size=1, max_size=5), st.integers(0, 4000))
def test_whole_messages_are_taken_and_the_rest_waits(rows, cut):
    pieces = [b"".join(frames_of(*row)) for row in rows]
    data = b"".join(pieces)[: cut % (sum(map(len, pieces)) + 1)]
    whole, end = 0, 0
    while whole < len(pieces) and end + len(pieces[whole]) <= len(data):
        end += len(pieces[whole])
        whole += 1

    taken, at, _ = take_deliveries(data, CHANNEL, {TAG.encode()})

    assert ([row[0].delivery_tag for row in taken], at) == ([row[0] for row in rows[:whole]], end)


def test_the_usual_way_is_not_pikas():
    end = Taken(take=True)
    end.feed(b"".join(b"".join(frames_of(n, False, "", "q", pika.BasicProperties(), b"{}")) for n in range(1, 51)))

    assert ([row[0] for row in end.rows], end.by_pika, end.batches) == (list(range(1, 51)), [], 1)


@pytest.mark.parametrize("at", range(4))
def test_a_frame_without_its_end_is_pikas_to_refuse(at):
    parts = frames_of(1, False, "", "q", pika.BasicProperties(), b"{}")
    data = bytearray(b"".join(parts))
    data[len(b"".join(parts[: at % 3 + 1])) - 1] = 0

    with pytest.raises(pika.exceptions.InvalidFrameError):
        Taken(take=True).feed(bytes(data))


@given(properties)
def test_properties_are_what_pika_reads(own):
    data = b"".join(own.encode())
    expected = pika.BasicProperties().decode(data)

    found = read_properties(data)

    assert (found.content_type, found.headers, found.timestamp) == (
        expected.content_type,
        expected.headers,
        expected.timestamp,
    )


def test_texts_that_are_none_are_bytes_as_with_pika():
    data = b"".join(pika.BasicProperties(headers={"a": "??"}, content_type="??").encode()).replace(b"??", b"\xff\xfe")

    found = read_properties(data)

    assert (found.content_type, found.headers) == (b"\xff\xfe", {"a": b"\xff\xfe"})


def test_properties_that_cannot_be_read_are_none_and_told(caplog):
    table = b"\x01aT" + (2**63).to_bytes(8, "big")
    data = (1 << 13).to_bytes(2, "big") + len(table).to_bytes(4, "big") + table

    found = read_properties(data)

    assert (found.content_type, found.headers, found.timestamp) == (None, None, None)
    assert "cannot be read" in caplog.text


def test_a_delivery_is_three_things():
    ((method, own, body),), _, more = take_deliveries(
        b"".join(frames_of(7, True, "x", "eu.de", pika.BasicProperties(), b"")), CHANNEL, {TAG.encode()}
    )

    assert (method, read_properties(own).headers, body, more) == (Deliver(7, True, b"eu.de"), None, b"", False)
