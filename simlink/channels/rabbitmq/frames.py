"""Deliveries as they come in, taken out of the buffer whole instead of frame by frame.

Method, header and body of a message are three frames (AMQP 0-9-1, 2.3.5 and 4.2). pika makes an object of each, takes
all properties apart, and cuts the buffer anew behind every one; in a flow that is most of what a receiver does. Here
the common case is read at once: three whole frames of a consumer that is known. Anything else is pika's.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Container
from typing import Any, NamedTuple

from pika import BasicProperties, spec

__all__ = ["Deliver", "Properties", "read_properties", "take_deliveries"]

log = logging.getLogger("simlink.rabbitmq")

_METHOD = struct.Struct(">BHLL").unpack_from
_HEADER = struct.Struct(">BHLHHQ").unpack_from
_BODY = struct.Struct(">BHL").unpack_from
_TAG = struct.Struct(">QB").unpack_from
_START, _END = spec.FRAME_HEADER_SIZE, spec.FRAME_END
_CLASS = spec.BasicProperties.INDEX
_DELIVER = spec.Basic.Deliver.INDEX

_KIND, _HEADERS, _MODE, _TIME = (
    BasicProperties.FLAG_CONTENT_TYPE,
    BasicProperties.FLAG_HEADERS,
    BasicProperties.FLAG_DELIVERY_MODE,
    BasicProperties.FLAG_TIMESTAMP,
)
_OTHERS = 0xFFFF & ~(_KIND | _HEADERS | _MODE | _TIME)
_LONG, _TIMESTAMP = struct.Struct(">L").unpack_from, struct.Struct(">Q").unpack_from
_TEXT = ord("S")


class Deliver(NamedTuple):
    """What is used of ``basic.deliver``."""

    delivery_tag: int
    redelivered: bool
    routing_key: bytes


class Properties(NamedTuple):
    """What is used of a message's properties, named as in pika's."""

    content_type: str | bytes | None
    headers: dict[Any, Any] | None
    timestamp: int | None


def take_deliveries(
    data: bytes, channel: int, consumers: Container[bytes]
) -> tuple[list[tuple[Deliver, bytes, bytes]], int, bool]:
    """The deliveries at the beginning of what came in.

    Args:
        data: where a frame begins.
        channel: the number of the channel they are on.
        consumers: the tags of the consumers they are for.

    Returns:
        Of each the method, the undecoded properties and the body; where they end; and whether the rest begins as
        another one, of which more has to come.
    """
    rows: list[tuple[Deliver, bytes, bytes]] = []
    at, end = 0, len(data)
    try:
        while at < end:
            kind, number, size, method = _METHOD(data, at)
            if kind != spec.FRAME_METHOD or number != channel or method != _DELIVER:
                return rows, at, False
            header = at + _START + size
            here = at + 12 + data[at + 11]
            if data[at + 12 : here] not in consumers:
                return rows, at, False
            tag, bits = _TAG(data, here)
            here += 10 + data[here + 9]  # behind the exchange
            route = data[here + 1 : here + 1 + data[here]]
            if here + 1 + len(route) != header or data[header] != _END:
                return rows, at, False
            header += 1
            kind, number, size, family, _, length = _HEADER(data, header)
            body = header + _START + size
            if kind != spec.FRAME_HEADER or number != channel or family != _CLASS or data[body] != _END:
                return rows, at, False
            properties, content = data[header + 19 : body], b""
            following = body + 1
            if length:
                kind, number, size = _BODY(data, following)
                if kind != spec.FRAME_BODY or number != channel or size != length:
                    return rows, at, False
                body = following + _START + size
                if data[body] != _END:
                    return rows, at, False
                content, following = data[following + _START : body], body + 1
            rows.append((Deliver(tag, bits & 1 == 1, route), properties, content))
            at = following
    except (struct.error, IndexError):
        # A heartbeat is shorter than what is looked at first, and must not wait.
        return rows, at, data[at] == spec.FRAME_METHOD
    return rows, at, False


def read_properties(data: bytes) -> Properties | BasicProperties:
    """Properties of a message as they came; pika's own where they are more than what we write.

    Those that pika cannot read, a date of the year 300,000 among another client's headers, count as none: to fail here
    would be to fail again each time that the message comes.
    """
    try:
        return _read(data) or BasicProperties().decode(data)
    except Exception as error:
        log.warning("the properties of a message cannot be read, and count as none: %s", error)
        return Properties(None, None, None)


def _read(data: bytes) -> Properties | None:
    """None where there is more than a content type, texts as headers, a delivery mode and a time."""
    flags = data[0] << 8 | data[1]
    if flags & _OTHERS:
        return None
    kind: str | bytes | None = None
    headers: dict[Any, Any] | None = None
    time: int | None = None
    at = 2
    try:
        if flags & _KIND:
            at = 3 + data[2]
            kind = data[3:at].decode()
        if flags & _HEADERS:
            headers = {}
            stop = at + 4 + _LONG(data, at)[0]
            at += 4
            while at < stop:
                value = at + 1 + data[at]
                if data[value] != _TEXT:
                    return None
                following = value + 5 + _LONG(data, value + 1)[0]
                headers[data[at + 1 : value].decode()] = data[value + 5 : following].decode()
                at = following
        if flags & _MODE:
            at += 1
        if flags & _TIME:
            (time,) = _TIMESTAMP(data, at)
    except UnicodeDecodeError:
        return None
    return Properties(kind, headers, time)
