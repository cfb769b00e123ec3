"""What tests of grpc:// share: both ends as drivers, and helpers to wait."""

from __future__ import annotations

import contextlib
import threading
import time

import grpc
import pytest

from simlink.channels.driver import Mode, ReceiverOptions, Settlement
from simlink.channels.grpc import GrpcDriver
from simlink.channels.url import parse_url
from simlink.errors import ConnectError
from simlink.message import Batch, Same, Verdict
from tests.support.grpc import LOCAL

PATIENCE = 20.0
QUICK = {"heartbeat": 0.05, "dead": 0.4, "orphan_after": 0.8, "frame_timeout": 0.4}


def until(condition, what="it", tick=lambda: threading.Event().wait(0.002)):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE} s"
        tick()
    return found


def driver(port=0, *, name="orders", mode=Mode.QUEUE, scheme="grpc", **options):
    return GrpcDriver(parse_url(f"{scheme}://{LOCAL}:{port}/{name}"), mode=mode, **options)


@contextlib.contextmanager
def receiving(d, subscription=None, **options):
    rx = d.receiver(subscription, ReceiverOptions(**{"prefetch": 100_000, **options}))
    rx.open(5.0)
    try:
        yield rx
    finally:
        rx.close(5.0)


@contextlib.contextmanager
def sending(d):
    tx = d.sender()
    try:
        tx.open(5.0)
        yield tx
    finally:
        tx.close(1.0)


def numbered(first, count, producer=b"p" * 16):
    return Batch(
        [b"%d" % i for i in range(first, first + count)],
        producers=Same(producer, count),
        sequences=range(first, first + count),
    )


def take(rx, count, tx=None):
    """``(body, attempt)`` of the next messages."""
    got = []

    def more():
        if tx is not None:
            tx.outcomes(0.0)
        for incoming in rx.receive(count - len(got), 0.02):
            got.extend(zip(incoming.batch.bodies, incoming.attempts, strict=True))
            rx.settle([Settlement(incoming.lease, Verdict.ACK, incoming.tokens[0], incoming.tokens[-1])])
        return len(got) >= count

    until(more, f"receiving {count}")
    return got


def listen_for(tx, kind, count):
    """Every outcome until ``count`` messages had one of this kind."""
    seen = []

    def enough():
        seen.extend(tx.outcomes(0.05))
        return sum(o.stop - o.first for o in seen if o.kind is kind) >= count

    until(enough, f"{count} × {kind.value}")
    return seen


def status_of(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def refused(d):
    tx = d.sender()
    with pytest.raises(ConnectError) as caught:
        tx.open(PATIENCE)
    tx.close(0.0)
    return caught.value
