"""Frames pinned byte for byte: what version 1 has written must be read for as long as version 1 is read."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simlink.channels.driver import Mode
from simlink.channels.wire.codec import encode
from simlink.channels.wire.frames import (
    Accept,
    BatchFrame,
    Bye,
    Challenge,
    Code,
    ErrorFrame,
    Heartbeat,
    Hello,
    Moved,
    Proof,
    Returned,
    Settle,
    Subscribed,
    Void,
    Welcome,
)
from simlink.channels.wire.framing import FrameReader
from simlink.message import Batch, Same

GOLDEN = Path(__file__).parent.parent / "golden" / "wire-v1.txt"
ROOT = Path(__file__).parent.parent.parent
SENDER = bytes(range(16))
INCARNATION = bytes(range(16, 32))

FRAMES = {
    "hello": Hello(SENDER, "orders", Mode.QUEUE, "", INCARNATION, 3, 70, 1000, 8388608),
    "hello-topic": Hello(SENDER, "events", Mode.TOPIC, "audit"),
    "welcome": Welcome(
        INCARNATION, 50, 40, [(42, 44)], [(7, 8)], [(30, 31)], [(31, 33)], 32768, 1048576, 1000, 8388608
    ),
    "batch-plain": BatchFrame(0, Batch([b"one", b"", b"three"])),
    "batch-full": BatchFrame(
        70,
        Batch(
            [b'{"a":1}', b'{"a":2}', b'{"a":3}'],
            keys=[b"ann", None, b""],
            headers=[{"trace": "7f"}, {}, {"trace": "80", "x": "ü"}],
            content_types=Same("application/json", 3),
            producers=Same(SENDER, 3),
            sequences=range(1000, 1003),
            timestamps=np.array([1_700_000_000_000_000, 1_700_000_000_000_100, 1_700_000_000_000_050]),
        ),
        40,
        {SENDER: 990},
    ),
    "batch-mixed": BatchFrame(
        73,
        Batch(
            [b"a", b"b", b"c"],
            keys=Same(b"k", 3),
            producers=[SENDER, None, INCARNATION],
            sequences=[5, None, 9],
            timestamps=[None, 1, None],
        ),
    ),
    "accept": Accept(73, 40000, 2000000),
    "settle": Settle(45, [(50, 60)], [(45, 46)], 41000, 2000001),
    "returned": Returned([(60, 61)], [(61, 73)]),
    "void": Void(73, 80),
    "moved": Moved([(60, 73), (75, 76)]),
    "heartbeat": Heartbeat(45),
    "bye": Bye(),
    "error": ErrorFrame(Code.NO_RECEIVER, "nobody receives 'orders' here", True),
    "hello-secret": Hello(SENDER, "orders", Mode.QUEUE, nonce=bytes(range(32))),
    "challenge": Challenge(bytes(range(32, 64)), bytes(range(64, 96))),
    "proof": Proof(bytes(range(96, 128))),
    "error-secret": ErrorFrame(Code.SECRET, "the shared secrets differ"),
    "welcome-topic": Welcome(INCARNATION, subscriptions=["audit", ""], addressable=True),
    "subscribed": Subscribed(["audit", "", "stock"]),
    "batch-for": BatchFrame(80, Batch([b"one", b"two"]), 79, subscriptions=("audit", "")),
}


def pinned():
    return dict(line.split() for line in GOLDEN.read_text().splitlines())


def cells(frame):
    if isinstance(frame, BatchFrame):
        return (frame.position, frame.low, frame.subscriptions, list(frame.batch))
    return frame


@pytest.mark.parametrize("name", FRAMES)
def test_a_pinned_frame_is_read(name):
    reader = FrameReader()
    reader.feed(bytes.fromhex(pinned()[name]))
    assert [cells(f) for f in reader.frames()] == [cells(FRAMES[name])]


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_is_still_written_so(name):
    assert encode(FRAMES[name]).hex() == pinned()[name]


def test_every_pinned_frame_is_tested():
    assert list(pinned()) == list(FRAMES)


def test_the_generated_code_is_what_the_script_makes():
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed: pip install grpcio-tools")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "make-protos", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("code", ["wire/wire_pb2.py", "grpc/service_pb2.py"])
def test_the_generated_code_asks_for_no_version_of_its_runtime(code):
    assert "ValidateProtobufRuntimeVersion" not in (ROOT / "simlink" / "channels" / code).read_text()
