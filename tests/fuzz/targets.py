"""What is fuzzed: every decoder of ours that reads what strangers send.

A target takes any bytes. It may refuse them with a typed error of simlink; anything else that it raises, and any broken
promise that it asserts, is a finding.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from simlink.block import FieldType, Kind, Schema
from simlink.channels.http.plain import read_post
from simlink.channels.http.problem import Problem, read_problem
from simlink.channels.http.requests import retry_after
from simlink.channels.identity import ID_HEADER, format_identities, parse_identities
from simlink.channels.redis.entries import read_entries
from simlink.channels.url import parse_url
from simlink.channels.wire.codec import HEAD, decode, encode
from simlink.channels.wire.frames import BatchFrame, FrameError
from simlink.channels.wire.framing import FrameReader, read_frames
from simlink.errors import DecodeError, SimlinkError
from simlink.generators.replay.replay import replay
from simlink.serializers.json import Json
from simlink.serializers.protobuf import Protobuf
from simlink.serializers.schema_registry import read_frame, write_frame
from simlink.serializers.text import Text

GOLDEN = Path(__file__).parents[1] / "golden" / "wire-v1.txt"


@dataclass(frozen=True)
class Target:
    """What to call, what to begin with, and the longest input worth trying."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    longest: int = 2048


def frames() -> tuple[bytes, ...]:
    """One frame of every kind, as they are pinned for other languages."""
    lines = GOLDEN.read_text(encoding="ascii").splitlines()
    return tuple(bytes.fromhex(line.split()[-1]) for line in lines if line.strip() and not line.startswith("#"))


def run_frame(data: bytes) -> None:
    """A frame that can be read can be written, and reads the same again."""
    try:
        frame = decode(data)
    except FrameError:
        return
    if frame is None:
        return
    again = decode(encode(frame)[HEAD.size :])
    if isinstance(frame, BatchFrame):
        assert isinstance(again, BatchFrame)
        # Lows of producers that sent none of the messages are not written again.
        assert (again.position, again.low) == (frame.position, frame.low)
        assert list(again.batch) == list(frame.batch)
    else:
        assert again == frame


def run_stream(data: bytes) -> None:
    """However a stream is cut, the same frames come out of it, and no more memory is held than one frame."""
    whole, pieces = _read(data, len(data) or 1), _read(data, 1 + len(data) % 7)
    assert whole == pieces


def _read(data: bytes, step: int) -> tuple[int, str | None]:
    reader = FrameReader(max_frame_bytes=65_536)
    count = 0
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
        try:
            while reader.next_frame() is not None:
                count += 1
        except FrameError as error:
            return count, str(error)
        assert len(reader._buffer) <= 4 * 65_536
    return count, None


def run_identity(data: bytes) -> None:
    """Many at once are read as each alone; what has an identity is written as it was read."""
    values = data.split(b"\n")
    one_by_one = [tuple(column[0] for column in parse_identities([value])) for value in values]
    together = parse_identities(values)
    assert list(zip(*map(list, together), strict=True)) == one_by_one
    for producer, sequence, timestamp in one_by_one:
        if producer is not None:
            written = format_identities([producer], [sequence], [timestamp])
            assert [tuple(column[0] for column in parse_identities(written))] == [(producer, sequence, timestamp)]


def run_url(data: bytes) -> None:
    """A URL that is understood is shown without its password, and understood again as it is shown."""
    text = data.decode("utf-8", "replace")
    try:
        target = parse_url(text)
    except SimlinkError:
        return
    if target.password and len(target.password) > 3:
        # It may stand elsewhere as well, as the user's name say.
        assert str(target).count(target.password) < max(text.count(target.password), 1)
        assert repr(target).count(target.password) < max(text.count(target.password), 1)


def run_json(data: bytes) -> None:
    """What is read can be written, and is read as the same again; nothing deeper than the stack ends the process."""
    try:
        value = Json().loads(data)
    except SimlinkError:
        return
    assert Json().loads(Json().dumps(value)) == value
    assert Json().loads_many([data, data]) == [value, value]


def run_text(data: bytes) -> None:
    """A line that is read is written as the same bytes."""
    try:
        value = Text().loads(data)
        written = Text().dumps(value)
    except SimlinkError:
        return
    assert written == data


def run_post(data: bytes) -> None:
    """A request of any client is refused with a problem that is sound JSON, or is messages that can be read."""
    head, _, body = data.partition(b"\n\n")
    headers = dict(pair for line in head.split(b"\n") if len(pair := tuple(line.split(b": ", 1))) == 2)
    try:
        posted = read_post(headers, body)
    except Problem as problem:
        refusal = problem
    else:
        refusal = None
    if refusal is not None:
        assert 400 <= refusal.status < 500
        json.loads(refusal.body())
        return
    n = len(posted.batch)
    for message in posted.batch:
        if posted.batch.content_types[0] == "application/json":
            Json().loads(message.body)
    columns = (posted.batch.keys, posted.batch.headers, posted.batch.producers, posted.batch.sequences)
    assert [len(column) for column in columns] == [n] * 4


def run_posted_frames(data: bytes) -> None:
    """Frames in a body are those of a stream that ends with it."""
    try:
        frames = read_frames(data, 65_536)
    except FrameError:
        return
    assert read_frames(b"".join(map(encode, frames)), 65_536) is not None


def run_problem(data: bytes) -> None:
    """What a server answers is shown as one line, and how long it asks to be left alone is a finite time."""
    text = read_problem("application/problem+json", data)
    assert "\n" not in text
    seconds = retry_after(data.decode("latin-1"))
    assert seconds is None or 0 <= seconds < float("inf")


def run_entries(data: bytes) -> None:
    """Entries of a stream, whatever their fields, are as many messages; alone and together they read the same."""
    rows = [row.split(b"\x00") for row in data.split(b"\n")]
    rows = [row if len(row) % 2 == 0 else row[:-1] for row in rows]
    together = read_entries(rows)
    assert list(together) == [read_entries([row])[0] for row in rows]


FRAMED = Protobuf(Schema("order", {"id": FieldType(Kind.INT), "user": FieldType(Kind.STR)}), schema_id=7)


def run_schema_registry(data: bytes) -> None:
    """A frame of Confluent's that is read is written as one that reads the same, whatever the message behind it."""
    (value,) = FRAMED.loads_many([data])
    try:
        schema_id, index, at = read_frame(data)
    except DecodeError:
        assert isinstance(value, DecodeError)
        return
    head = write_frame(schema_id, index)
    # The numbers may have come in more bytes than they need.
    assert len(head) <= at <= len(data)
    assert read_frame(head) == (schema_id, index, len(head))
    if not isinstance(value, DecodeError):
        assert index == [0]
        assert FRAMED.loads(FRAMED.dumps(value)) == value


def _run_replay(format_: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        try:
            for record in replay(BytesIO(data), format=format_, on_error="skip"):
                json.dumps(record)
        except SimlinkError:  # a CSV without a header, say
            return

    return run


_LOG_LINE = (
    b'127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326 "http://www.example.com/s" "Mozilla"\n'
)
TARGETS: dict[str, Target] = {
    "frame": Target(run_frame, tuple(f[HEAD.size :] for f in frames())),
    "stream": Target(run_stream, (b"".join(frames()), *frames())),
    "identity": Target(
        run_identity,
        (b"00112233445566778899aabbccddeeff/0000000000000007/1700000000000000\n" * 13, ID_HEADER.encode()),
    ),
    "url": Target(
        run_url, (b"kafka+python://user:secret@a:1,[::1]:2/vhost/name?client=x&y=%20", b"memory://name"), 256
    ),
    "post": Target(
        run_post,
        (
            b'content-type: application/json\nidempotency-key: "a"\nsimlink-key: k\n\n[{"a":1},2]',
            b'content-type: application/x-ndjson\n\n1\n{"b":2}\n',
            b"content-type: text/plain\n\nhello",
        ),
    ),
    "posted-frames": Target(run_posted_frames, (b"".join(frames()), *frames())),
    "problem": Target(run_problem, (b'{"title":"no","detail":"why","status":400}', b"120"), 512),
    "entries": Target(
        run_entries,
        (b"body\x00{}\x00key\x00k\x00simlink-id\x0000112233445566778899aabbccddeeff/1/2\nheader:body\x00x\x00a\x00b",),
    ),
    "json": Target(run_json, (b'{"a":[1,2.5e3,"\\u00e9",null,true],"b":{"c":-9223372036854775808}}', b"[" * 200)),
    "schema-registry": Target(
        run_schema_registry,
        (
            FRAMED.dumps({"id": 1, "user": "u"}),
            write_frame(7, [1, 0]),
            write_frame(2**31 - 1, [64, 300]) + b"\x08\x01",
            write_frame(7, [1] * 32),
        ),
        256,
    ),
    "text": Target(run_text, (b"a line", "é".encode())),
    "replay-clf": Target(_run_replay("clf"), (_LOG_LINE, b"garbage\n" + _LOG_LINE)),
    "replay-csv": Target(_run_replay("csv"), (b'a,b,timestamp\n1,"x, ""y""",2020-01-01T00:00:00Z\n',)),
    "replay-ndjson": Target(_run_replay("ndjson"), (b'{"a":1,"timestamp":1700000000}\n[]\nnot\n',)),
}
