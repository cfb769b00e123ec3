"""The drivers that listen themselves, side by side: what tests over all of them share."""

from __future__ import annotations

import contextlib
import threading
import time

from simlink.channels.driver import Mode, ReceiverOptions, Settlement
from simlink.channels.grpc import GrpcDriver
from simlink.channels.http import HttpDriver
from simlink.channels.tcp import TcpDriver
from simlink.channels.url import parse_url
from simlink.message import Batch, Same, Verdict

LOCAL = "127.0.0.1"
PATIENCE = 20.0
DRIVERS = {
    "tcp": TcpDriver,
    "tcps": TcpDriver,
    "http": HttpDriver,
    "https": HttpDriver,
    "grpc": GrpcDriver,
    "grpcs": GrpcDriver,
}


def until(condition, what="it", tick=lambda: threading.Event().wait(0.002)):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE} s"
        tick()
    return found


def driver(scheme, port=0, *, name="orders", mode=Mode.QUEUE, **options):
    return DRIVERS[scheme](parse_url(f"{scheme}://{LOCAL}:{port}/{name}"), mode=mode, **options)


@contextlib.contextmanager
def receiving(d, **options):
    rx = d.receiver(None, ReceiverOptions(**{"prefetch": 100_000, **options}))
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


def take(rx, count, *senders):
    """Bodies of the next messages, each settled."""
    got = []

    def more():
        for tx in senders:
            tx.outcomes(0.0)
        for incoming in rx.receive(count - len(got), 0.02):
            got.extend(incoming.batch.bodies)
            rx.settle([Settlement(incoming.lease, Verdict.ACK, incoming.tokens[0], incoming.tokens[-1])])
        return len(got) >= count

    until(more, f"receiving {count}")
    return got
