"""Batches ↔ what pika publishes and delivers: a body, its properties and a routing key.

==================  ====================================================================
of a message        in AMQP
==================  ====================================================================
body                the body
key                 the routing key on topics; the header ``simlink-key`` on queues
headers             headers, as long strings
content type        the property ``content_type``
identity            the header ``simlink-id``
intended time       in the identity, and in whole seconds as the property ``timestamp``
==================  ====================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pika import BasicProperties

from simlink.channels.identity import ID_HEADER, Identities, format_identities, parse_identities
from simlink.channels.rabbitmq.frames import read_properties
from simlink.message import EMPTY_HEADERS, Batch, Same

__all__ = ["DELIVERY_COUNT", "KEY_HEADER", "Row", "attempts_of", "decoded", "read_rows", "write_rows"]

KEY_HEADER = "simlink-key"
DELIVERY_COUNT = "x-delivery-count"
"""A quorum queue's header: how often the message was handed out before."""

PERSISTENT = 2

Delivered = tuple[Any, Any, bytes]
"""``basic.deliver``, the properties, the body; pika's own, or as `frames.take_deliveries` gives them, decoded."""


class Row(NamedTuple):
    """One message as it is published."""

    routing_key: str | bytes
    properties: BasicProperties
    body: bytes


def write_rows(batch: Batch, queue: str | None, *, identity: bool) -> list[Row]:
    """A batch as it is published: to one queue, or with ``queue`` None to a topic, where the key is the way. With or
    without the identity."""
    n = len(batch)
    ids: Sequence[bytes | None] = Same(None, n)
    if identity:
        ids = format_identities(batch.producers, batch.sequences, batch.timestamps)
    rows: list[Row] = []
    columns = zip(batch.bodies, batch.keys, batch.headers, batch.content_types, ids, _seconds(batch), strict=True)
    for body, key, own, kind, name, seconds in columns:
        headers: dict[str, Any] = {} if name is None else {ID_HEADER: name.decode()}
        if key is not None and (queue is not None or not key):
            # An empty key and none are the same routing key, so the empty one is said besides.
            headers[KEY_HEADER] = _text_or_bytes(key)
        if own:
            headers.update(own)
        properties = BasicProperties(kind, None, headers or None, PERSISTENT)
        properties.timestamp = seconds
        rows.append(Row(queue if queue is not None else key or "", properties, body))
    return rows


def _seconds(batch: Batch) -> Sequence[int | None]:
    times = batch.timestamps
    if isinstance(times, Same):
        return Same(_second(times.value), len(times))
    return list(map(_second, times))


def _second(time: int | None) -> int | None:
    """AMQP's timestamps begin in 1970."""
    return None if time is None or time < 0 else int(time) // 1_000_000


def _text_or_bytes(key: bytes) -> str | bytes:
    """Text where it is text, because that is what others can read; a byte array otherwise."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key


def decoded(row: Delivered) -> Delivered:
    """A delivery with its properties taken apart, in the reader's thread rather than the link's."""
    method, properties, body = row
    return (method, read_properties(properties), body) if type(properties) is bytes else row


def read_rows(rows: Sequence[Delivered], *, topic: bool) -> Batch:
    """What was delivered, as a batch. The headers are taken out of the rows."""
    n = len(rows)
    methods, properties, bodies = zip(*rows, strict=True)
    tables = [p.headers or {} for p in properties]
    ids = _column([table.pop(ID_HEADER, None) for table in tables])
    keys = _column([table.pop(KEY_HEADER, None) for table in tables])
    if topic:
        routes = _column([m.routing_key or None for m in methods])
        keys = routes if isinstance(keys, Same) else [r if k is None else k for k, r in zip(keys, routes, strict=True)]
    users: Sequence[Mapping[str, str]] = Same(EMPTY_HEADERS, n)
    if any(tables):
        users = [_headers(table) for table in tables]
    found = _identities(ids, properties)
    return Batch(
        bodies,
        keys=keys,
        headers=users,
        content_types=_kinds([p.content_type for p in properties]),
        producers=found.producers,
        sequences=found.sequences,
        timestamps=found.timestamps,
    )


def attempts_of(rows: Sequence[Delivered]) -> list[int] | None:
    """How often each was handed out, as far as the broker knows; None where all are fresh. Before `read_rows`."""
    if True not in [method.redelivered for method, _, _ in rows]:
        return None
    out = []
    for method, properties, _ in rows:
        # The count is there from the second time on, and is not part of what was sent.
        before = (properties.headers or {}).pop(DELIVERY_COUNT, 0)
        known = before if isinstance(before, int) else 0
        out.append(max(known + 1, 2) if method.redelivered else 1)
    return out


def _identities(ids: Sequence[bytes | None], properties: Sequence[Any]) -> Identities:
    n = len(ids)
    if isinstance(ids, Same):
        return Identities(Same(None, n), Same(None, n), [_stamp(p) for p in properties])
    found = parse_identities(ids)
    if isinstance(found.producers, Same) or None not in found.producers:
        return found
    rows = zip(found.producers, found.timestamps, properties, strict=True)
    return Identities(found.producers, found.sequences, [t if p is not None else _stamp(own) for p, t, own in rows])


def _stamp(properties: Any) -> int | None:
    seconds = properties.timestamp
    return None if seconds is None else int(seconds) * 1_000_000


def _kinds(values: Sequence[Any]) -> Sequence[str | None]:
    if values.count(values[0]) == len(values):
        return Same(None if values[0] is None else _text(values[0]), len(values))
    return [None if value is None else _text(value) for value in values]


def _headers(table: Mapping[Any, Any]) -> Mapping[str, str]:
    return {_text(name): _text(value) for name, value in table.items()} or EMPTY_HEADERS


def _column(values: list[Any]) -> Sequence[bytes | None]:
    """Texts, byte arrays and what else others may send, as bytes; in the common cases at once."""
    if values.count(None) == len(values):
        return Same(None, len(values))
    try:
        return [value.encode() for value in values]
    except AttributeError:  # not text, all of it
        return [_bytes(value) for value in values]


def _bytes(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return _text(value).encode()


def _text(value: Any) -> str:
    """A header as text, whatever type another client gave it: tables and lists as JSON, none as nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if value is None:
        return ""
    if isinstance(value, dict | list | bool):
        return json.dumps(value, default=_text, ensure_ascii=False)
    return str(value)
