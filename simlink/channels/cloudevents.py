"""``envelope="cloudevents"``: messages as CloudEvents 1.0 in binary mode, attributes in headers, data in the body.

Sources: the core specification (https://github.com/cloudevents/spec, 1.0.2) and its protocol bindings. How an attribute
``NAME`` is written:

===================  ====================  ===========================================================================
transport            header                from
===================  ====================  ===========================================================================
``kafka``            ``ce_NAME``           Kafka binding 3.2.4.2; values are UTF-8
``http``             ``ce-NAME``           HTTP binding 3.1.3; values are percent-encoded (3.1.3.2)
``amqp``             ``cloudEvents_NAME``  AMQP binding 3.1.3.1; a RabbitMQ header is what AMQP 1.0 calls a property
all others           ``ce-NAME``           no binding of their own
===================  ====================  ===========================================================================

``datacontenttype`` is the content type. In the application an attribute is the header ``ce-NAME`` on every transport,
so that changing the URL changes nothing: one given with a message overrides the default, one that came is read there.
"""

from __future__ import annotations

import copy
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from simlink.errors import ConfigError, EncodeError
from simlink.message import EMPTY_HEADERS, Batch, Same

__all__ = ["PREFIX", "CloudEvents"]

PREFIX = "ce-"
"""Of an attribute's header, as the application sees it."""
SPECVERSION = "1.0"
_WRITTEN = {"kafka": "ce_", "amqp": "cloudEvents_"}
_READ = re.compile(r"(?:ce[-_]|cloudevents[_:])([a-z0-9]+)\Z", re.IGNORECASE)
"""Whatever the transport: a bridge may have carried the message over from another one."""
_NAME = re.compile(r"[a-z0-9]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""What a CloudEvents String may not have (core specification, "Type System")."""
_HTTP_SAFE = "".join(map(chr, range(0x21, 0x7F))).replace('"', "").replace("%", "")
_MILLISECONDS = re.compile(r"[0-9]{1,15}")
_LATEST = 253_402_300_799_999
"""The last millisecond of the year 9999."""
_REQUIRED = ("id", "source", "type")


class CloudEvents:
    """Puts the envelope on and takes it off, a batch at a time.

    ==================  ===========================================================================================
    ``specversion``     1.0
    ``id``              ``PRODUCER-SEQUENCE``, the message's identity; unique within any source
    ``source``          given, else ``/NAME`` of the destination
    ``type``            given, else ``simlink.message``
    ``time``            the intended send time, UTC with microseconds
    ``partitionkey``    the key, where it is text; not on Kafka, whose own key it is
    ==================  ===========================================================================================

    Args:
        scheme: of the channel's URL.
        name: of its destination.
        source, type: for messages that do not name their own; None for the defaults.

    Raises:
        ConfigError: ``source`` or ``type`` is empty, or has what no attribute may have.
    """

    def __init__(self, scheme: str, name: str, *, source: str | None = None, type: str | None = None) -> None:
        family = scheme.partition("+")[0].removesuffix("s")
        self._prefix = _WRITTEN.get(family, PREFIX)
        self._escapes = family == "http"
        self._keyed = family == "kafka"
        self._defaults = {
            "specversion": SPECVERSION,
            "source": f"/{quote(name, safe='')}" if source is None else source,
            "type": "simlink.message" if type is None else type,
        }
        try:
            _check({**self._defaults, "id": "1"})
        except EncodeError as error:
            raise ConfigError(str(error)) from None

    def wrap(self, batch: Batch) -> Batch:
        """The batch with every message's attributes in its headers, as the transport's binding writes them.

        Raises:
            EncodeError: an attribute that no CloudEvent may have, with its ``row``.
        """
        rows = zip(batch.headers, batch.keys, batch.producers, batch.sequences, batch.timestamps, strict=True)
        out: list[Mapping[str, str]] = []
        for row, (headers, key, producer, sequence, timestamp) in enumerate(rows):
            attributes, others = _split(headers)
            given = {**self._defaults, "id": _id(producer, sequence)}
            if timestamp is not None:
                try:
                    given["time"] = _rfc3339(int(timestamp))
                except (ValueError, OverflowError) as error:
                    raise EncodeError(f"row {row}: {timestamp} µs is no time that can be written", row=row) from error
            if key is not None and not self._keyed and (text := _text(key)):
                given["partitionkey"] = text
            given |= attributes
            try:
                _check(given)
            except EncodeError as error:
                raise EncodeError(f"row {row}: {error}", row=row) from None
            others.update((self._prefix + name, self._written(value)) for name, value in given.items())
            out.append(others)
        wrapped = copy.copy(batch)
        wrapped.headers = out
        return wrapped

    def unwrap(self, batch: Batch) -> Batch:
        """The batch with the attributes of its CloudEvents as ``ce-NAME``; other messages stay as they are.

        A message without a time or a key of its own gets the event's ``time`` and ``partitionkey``.
        """
        if isinstance(batch.headers, Same) and batch.headers.value is EMPTY_HEADERS:
            return batch
        headers = list(batch.headers)
        keys: dict[int, bytes] = {}
        times: dict[int, int | None] = {}
        for row, found in enumerate(headers):
            attributes, others = _split(found)
            if "specversion" not in attributes:
                continue
            if self._escapes:
                attributes = {name: unquote(value) for name, value in attributes.items()}
            if _MILLISECONDS.fullmatch(time := attributes.get("time", "")) and int(time) <= _LATEST:
                # AMQP's own timestamp, since 1970 UTC (AMQP binding 3.1.1), which the driver gives as text.
                attributes["time"] = _rfc3339(int(time) * 1000)
            others.update((PREFIX + name, value) for name, value in attributes.items())
            headers[row] = others
            if "partitionkey" in attributes and batch.keys[row] is None:
                keys[row] = attributes["partitionkey"].encode("utf-8", "replace")
            if "time" in attributes and batch.timestamps[row] is None:
                times[row] = _microseconds(attributes["time"])
        plain = copy.copy(batch)
        plain.headers = headers
        plain.keys = _patched(batch.keys, keys)
        plain.timestamps = _patched(batch.timestamps, times)
        plain._nbytes = -1
        return plain

    def _written(self, value: str) -> str:
        return quote(value, safe=_HTTP_SAFE) if self._escapes else value


def _patched(column: Sequence[Any], cells: Mapping[int, Any]) -> Sequence[Any]:
    if not cells:
        return column
    return [cells.get(row, value) for row, value in enumerate(column)]


def _split(headers: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The attributes among the headers, and the rest."""
    attributes: dict[str, str] = {}
    others: dict[str, str] = {}
    for name, value in headers.items():
        match = _READ.match(name)
        if match is None:
            others[name] = value
        else:
            attributes[match[1].lower()] = value
    return attributes, others


def _check(attributes: Mapping[str, str]) -> None:
    for name in _REQUIRED:
        if not attributes.get(name):
            raise EncodeError(f"a CloudEvent needs a {name} that is not empty")
    for name, value in attributes.items():
        if _CONTROL.search(value):
            raise EncodeError(f"the CloudEvents attribute {name!r} has a character that none may have: {value!r:.80}")
    if attributes["specversion"] != SPECVERSION:
        raise EncodeError(f"CloudEvents {attributes['specversion']!r:.20} are not written here, {SPECVERSION} are")
    if "datacontenttype" in attributes:
        raise EncodeError("datacontenttype is the message's content type, which the serializer gives")
    if "time" in attributes and _microseconds(attributes["time"]) is None:
        raise EncodeError(f"the CloudEvents attribute 'time' is RFC 3339, not {attributes['time']!r:.80}")


def _id(producer: bytes | None, sequence: int | None) -> str:
    return uuid.uuid4().hex if producer is None or sequence is None else f"{producer.hex()}-{int(sequence)}"


def _text(key: bytes) -> str | None:
    """The key as an attribute's value, or None where it cannot be one."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    return None if _CONTROL.search(text) else text


def _rfc3339(microseconds: int) -> str:
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:06d}Z"


_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)\Z")


def _microseconds(time: str) -> int | None:
    """Microseconds since 1970 UTC of an RFC 3339 time; None where it is none."""
    found = _RFC3339.match(time)
    if found is None:
        return None
    zone = "+00:00" if found[4] in {"Z", "z"} else found[4]
    try:
        whole = datetime.fromisoformat(f"{found[1]}T{found[2]}{zone}")
    except ValueError:
        return None
    return int(whole.timestamp()) * 1_000_000 + int(((found[3] or "") + "000000")[:6])
