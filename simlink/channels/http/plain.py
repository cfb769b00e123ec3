"""What plain clients post – curl, a browser, any service – as a Batch. A body of a message is the bytes that came."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

import msgspec

from simlink.channels.http.problem import Problem
from simlink.channels.http.settings import KEY
from simlink.channels.identity import parse_identities
from simlink.message import EMPTY_HEADERS, Batch, Same

__all__ = ["Posted", "header_map", "read_post"]

_LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})
_RAW = frozenset({"text/plain", "application/octet-stream", "application/x-protobuf", "application/protobuf"})
_PASSED = frozenset({"traceparent", "tracestate", "baggage"})
_PASSED_PREFIXES = ("x-", "ce-")
_NOT_PASSED = re.compile(r"x-(forwarded|real|original|envoy|amzn|request-start|api-?key|auth|csrf|xsrf)")
"""Headers of proxies, and credentials by their usual names: they are about the request, not about the message."""
_value = msgspec.json.Decoder(msgspec.Raw).decode
_values = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Posted(msgspec.Struct, frozen=True):
    """A post of a plain client.

    Attributes:
        batch: its messages.
        idempotency: what names this post among all others, or None.
        digest: of the body; a post of the same name must have the same.
        identified: the messages have an identity of simlink's own.
    """

    batch: Batch
    idempotency: bytes | None
    digest: bytes
    identified: bool


def read_post(headers: Mapping[bytes, bytes], body: bytes, *, key_scope: bytes = b"") -> Posted:
    """The messages of a request.

    Args:
        headers: names in lower case.
        body: as it came.
        key_scope: what an Idempotency-Key is unique within: the destination and whoever is allowed in.

    Raises:
        Problem: 415 or 400.
    """
    said = headers.get(b"content-type", b"").decode("latin-1")
    kind = said.partition(";")[0].strip().lower()
    bodies, content_type = _bodies(kind, said, body)
    n = len(bodies)
    batch = Batch(
        bodies,
        keys=Same(_key(headers), n),
        headers=Same(_passed(headers), n),
        content_types=Same(content_type, n),
    )
    digest = b""
    idempotency = None
    if (name := headers.get(b"idempotency-key")) is not None:
        # A structured string by the draft of the IETF; most clients leave the quotes out.
        name = name.strip()
        if name[:1] == name[-1:] == b'"' and len(name) > 1:
            name = name[1:-1]
        if not name or len(name) > 255:
            raise Problem(400, "idempotency-key", "an Idempotency-Key has 1 to 255 characters")
        if n == 1 and (found := parse_identities([name])).producers[0] is not None:
            # A sender of simlink's in its REST mode: the identity itself, better than a hash of it.
            batch.producers, batch.sequences, batch.timestamps = found
            return Posted(batch, None, b"", identified=True)
        idempotency = hashlib.blake2b(key_scope + b"\0" + name, digest_size=16).digest()
        digest = hashlib.blake2b(body, digest_size=16).digest()
        batch.producers = Same(idempotency, n)
        batch.sequences = range(n)
    return Posted(batch, idempotency, digest, identified=False)


def _bodies(kind: str, said: str, body: bytes) -> tuple[list[bytes], str]:
    if kind in _LINES:
        lines = [line.strip(b" \t\r") for line in body.split(b"\n")]
        bodies = [line for line in lines if line]
        _check_lines(lines)
        return bodies, "application/json"
    if kind == "application/json" or kind.endswith("+json"):
        _check_text(body)
        if body.lstrip(b" \t\r\n")[:1] == b"[":
            try:
                return [bytes(raw) for raw in _values(body)], "application/json"
            except (msgspec.DecodeError, RecursionError) as error:
                raise _not_json(error) from error
        _check_value(body)
        return [body], said
    if kind in _RAW:
        return [body], said
    what = f"the content type {kind!r}" if kind else "a body without a content type"
    raise Problem(
        415,
        "content-type",
        f"{what} is not taken here; send application/json (one value, or an array of them), application/x-ndjson, "
        "text/plain, application/x-protobuf or application/octet-stream (one message each)",
    )


def _check_lines(lines: Sequence[bytes]) -> None:
    for number, line in enumerate(lines, 1):
        if line:
            try:
                _check_value(line)
            except Problem as problem:
                raise Problem(400, problem.kind, f"line {number}: {problem.detail}", line=number) from problem


def _check_value(body: bytes) -> None:
    if not body or body.isspace():
        raise Problem(400, "json", "the body is empty, and that is no JSON")
    _check_text(body)
    try:
        _value(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _not_json(error) from error


def _check_text(body: bytes) -> None:
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Problem(400, "json", f"JSON is UTF-8, and the body is not, from byte {error.start} on") from error


def _not_json(error: Exception) -> Problem:
    if isinstance(error, RecursionError):
        return Problem(400, "json", "the JSON is nested too deeply")
    return Problem(400, "json", str(error))


def _key(headers: Mapping[bytes, bytes]) -> bytes | None:
    value = headers.get(KEY.encode())
    return None if value is None else unquote_to_bytes(value)


def _passed(headers: Mapping[bytes, bytes]) -> Mapping[str, str]:
    out: dict[str, str] = {}
    for raw, value in headers.items():
        name = raw.decode("latin-1")
        if name in _PASSED or (name.startswith(_PASSED_PREFIXES) and not _NOT_PASSED.match(name)):
            try:
                out[name] = value.decode()
            except UnicodeDecodeError:
                out[name] = value.decode("latin-1")
    return MappingProxyType(out) if out else EMPTY_HEADERS


def header_map(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Header fields by name; those that came more than once are joined, as RFC 9110 (5.3) has it.

    Raises:
        Problem: one came twice that may come once only.
    """
    out: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name not in out:
            out[name] = value
        elif name in _ONCE:
            raise Problem(400, "header", f"the header {name.decode('latin-1')} came twice")
        else:
            out[name] += b", " + value
    return out


_ONCE = frozenset(
    [
        b"authorization",
        b"content-type",
        b"content-length",
        b"idempotency-key",
        b"host",
        b"origin",
        b"simlink-session",
        KEY.encode(),
    ]
)
