"""Declared lengths, bombs, deep JSON, heads without end: refused in time and in little memory, the others unharmed."""

from __future__ import annotations

import contextlib
import gzip
import io
import socket
import struct
import time

import pytest

grpc = pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'simlink[grpc]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'simlink[http]'")

from simlink.errors import DecodeError, EncodeError  # noqa: E402  # behind the skip
from simlink.generators.replay.replay import replay  # noqa: E402
from simlink.serializers import Json  # noqa: E402
from tests.support.bystander import LOCAL, GoodClient, Victim  # noqa: E402
from tests.support.crowd import DATA, HEADERS, PREFACE, SETTINGS, call, h2  # noqa: E402

DEEP = 100_000
ZEROS = gzip.compress(bytes(200_000_000), 9)
NESTED = {"lists": b"[" * DEEP + b"]" * DEEP, "objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP, "open": b"[" * DEEP}
PATIENCE = 20.0


def http_post(body, *headers, length=None):
    lines = ["POST /orders HTTP/1.1", "Host: x", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def grpc_message(data, *, flag=0, length=None):
    prefix = struct.pack(">BI", flag, len(data) if length is None else length)
    pieces = prefix + data[:60_000]
    return PREFACE + h2(SETTINGS, 0, 0, b"") + call("Link") + h2(DATA, 0, 1, pieces[:16_000])


JSON = "Content-Type: application/json"
ATTACKS = {
    "tcp, a length of 2^31": ("tcp", struct.pack(">IB", 2**31, 1), b""),
    "tcp, a length of 2^32 - 1": ("tcp", struct.pack(">IB", 2**32 - 1, 1) + b"\0" * 100_000, b""),
    "http, a length of 2^31": ("http", http_post(b"1" * 1000, JSON, "Expect: 100-continue", length=2**31), b" 413 "),
    "http, a length that is no number of ours": ("http", http_post(b"1", JSON, length=10**40), b" 400 "),
    "http, a bomb": ("http", http_post(ZEROS, JSON, "Content-Encoding: gzip"), b" 415 "),
    "http, a million headers": ("http", http_post(b"1", JSON, *[f"h{i}: v" for i in range(10**6)]), b" 431 "),
    **{f"http, JSON 100,000 deep: {kind}": ("http", http_post(body, JSON), b" 400 ") for kind, body in NESTED.items()},
    "http, lines 100,000 deep": (
        "http",
        http_post(b"1\n" + NESTED["lists"], "Content-Type: application/x-ndjson"),
        b" 400 ",
    ),
    "grpc, a length of 2^31": ("grpc", grpc_message(b"x", length=2**31), b""),
    "grpc, a bomb that says so": ("grpc", grpc_message(ZEROS, flag=1), b""),
    "grpc, headers without end": (
        "grpc",
        PREFACE
        + h2(SETTINGS, 0, 0, b"")
        + h2(HEADERS, 0, 1, b"\0\1a\1b" * 4000)
        + h2(9, 0, 1, b"\0\1a\1b" * 4000) * 60,
        b"",
    ),
}


@pytest.fixture(scope="module")
def victims():
    """A receiver in a process of its own for each transport, with short deadlines."""
    short = {
        "tcp": {"hello_timeout": 2.0, "frame_timeout": 2.0},
        "http": {"header_timeout": 2.0, "body_timeout": 2.0},
        "grpc": {"hello_timeout": 2.0, "frame_timeout": 2.0, "heartbeat": 0.5, "dead": 2.0},
    }
    with contextlib.ExitStack() as stack:
        yield {scheme: stack.enter_context(Victim(scheme, **options)) for scheme, options in short.items()}


def say(port, data):
    """What is answered until the connection is closed, and how long that took."""
    said = b""
    since = time.monotonic()
    with socket.create_connection((LOCAL, port), timeout=PATIENCE) as sock:
        with contextlib.suppress(OSError):  # cut off while it was still sending
            sock.sendall(data)
            if data.startswith(b"POST"):
                sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while more := sock.recv(65536):
                said += more
    return said, time.monotonic() - since


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_is_refused_in_time_and_memory_and_the_others_are_unharmed(attack, victims):
    scheme, data, answer = ATTACKS[attack]
    victim = victims[scheme]
    with GoodClient(victim.url) as good:
        before = victim.rss()
        for _ in range(3):
            said, took = say(victim.port, data)
            # Who is cut off while still sending may lose the answer.
            assert answer in said[:40] or (said == b"" and len(data) > 10**6)
            assert took < 12.0
        grown = victim.rss() - before
        sends = len(good.waits)
    assert good.failure is None
    assert sends > 0
    assert grown < 100
    print(f"\n{attack}: {said[:60]!r} in {took:.2f} s, +{grown:.1f} MiB, {sends} sends")


@pytest.mark.parametrize("body", NESTED.values(), ids=NESTED)
def test_deep_json_is_a_typed_error(body):
    with pytest.raises(DecodeError, match="maximum recursion depth"):
        Json().loads(body)
    good, bad = Json().loads_many([b"1", body])
    assert (good, type(bad)) == (1, DecodeError)


def test_a_deep_value_is_a_typed_error():
    value = []
    for _ in range(DEEP):
        value = [value]
    with pytest.raises(EncodeError, match="nested too deeply"):
        Json().dumps(value)


def test_a_deep_line_of_a_file_is_a_typed_error():
    lines = b'{"a":1}\n{"a":' + NESTED["lists"] + b"}\n"
    with pytest.raises(DecodeError):
        list(replay(io.BytesIO(lines), format="ndjson"))


def test_of_a_key_that_stands_twice_the_last_one_counts():
    twice = b'{"a":1,"b":2,"a":3}'
    assert Json().loads(twice) == {"a": 3, "b": 2}
    assert Json().loads_many([twice, b'{"a":0}']) == [{"a": 3, "b": 2}, {"a": 0}]
