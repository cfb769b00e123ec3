"""The drivers that listen themselves, side by side: what tests over all of them share."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time

import pytest

from simlink.channels.driver import Mode, ReceiverOptions, Settlement
from simlink.channels.grpc import GrpcDriver
from simlink.channels.http import HttpDriver
from simlink.channels.tcp import TcpDriver
from simlink.channels.url import parse_url
from simlink.errors import ConnectError
from simlink.message import Batch, Same, Verdict
from simlink.testing.brokers.ports import free_ports

LOCAL = "127.0.0.1"
PATIENCE = 20.0
QUICK = {"heartbeat": 0.05, "dead": 0.4, "orphan_after": 0.8}
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


def free_port():
    return free_ports(1)[0]


# --- both ends -------------------------------------------------------------------------------------------------------


def driver(scheme, port=0, *, name="orders", mode=Mode.QUEUE, **options):
    return DRIVERS[scheme](parse_url(f"{scheme}://{LOCAL}:{port}/{name}"), mode=mode, **options)


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


def refused(d):
    """Why a sender is not let in."""
    tx = d.sender()
    try:
        with pytest.raises(ConnectError) as caught:
            tx.open(PATIENCE)
    finally:
        tx.close(0.0)
    return caught.value


def numbered(first, count, producer=b"p" * 16):
    return Batch(
        [b"%d" % i for i in range(first, first + count)],
        producers=Same(producer, count),
        sequences=range(first, first + count),
    )


def take(rx, count, *senders, settle=True):
    """``(body, attempt)`` of the next messages, while the senders go on."""
    got = []

    def more():
        for tx in senders:
            tx.outcomes(0.0)
        for incoming in rx.receive(count - len(got), 0.02):
            got.extend(zip(incoming.batch.bodies, incoming.attempts, strict=True))
            if settle:
                rx.settle([Settlement(incoming.lease, Verdict.ACK, incoming.tokens[0], incoming.tokens[-1])])
        return len(got) >= count

    until(more, f"receiving {count}")
    return got


def bodies(rx, count, *senders):
    """The same without the attempts."""
    return [body for body, _ in take(rx, count, *senders)]


def listen_for(tx, kind, count):
    """Every outcome until ``count`` messages had one of this kind."""
    seen = []

    def enough():
        seen.extend(tx.outcomes(0.05))
        return sum(o.stop - o.first for o in seen if o.kind is kind) >= count

    until(enough, f"{count} × {kind.value}")
    return seen


# --- another process -------------------------------------------------------------------------------------------------

_RECEIVER = """
import sys
from simlink.channels.channel import queue
with queue(sys.argv[1]) as channel, channel.receiver() as rx, open(sys.argv[2], "a") as out:
    print("ready", flush=True)
    for delivery in rx:
        out.write(f"{delivery.value}\\n")
        out.flush()
"""


@contextlib.contextmanager
def receiving_process(url, path):
    """A receiver that writes a line for each value, and is killed in the end."""
    command = [sys.executable, "-c", _RECEIVER, url, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "ready\n"
            yield
        finally:
            child.kill()


# --- between the ends ------------------------------------------------------------------------------------------------


class Proxy:
    """Passes bytes between senders and a receiver, and cuts a connection when so many went towards the receiver.

    Args:
        port: of the receiver.
        limits: in bytes, one a cut. They are counted on connections that begin with ``start``.
    """

    def __init__(self, port, limits, start=b""):
        self.server = socket.create_server((LOCAL, 0))
        self.port = self.server.getsockname()[1]
        self.target = port
        self.limits = list(limits)
        self.start = start
        self.cuts = 0
        self.sockets = []
        self.threads = [threading.Thread(target=self.run)]
        self.threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:  # the first one may add others before it ends
            thread.join()
        for sock in (self.server, *self.sockets):
            sock.close()

    def run(self):
        while True:
            try:
                here, _ = self.server.accept()
            except OSError:
                return
            there = socket.create_connection((LOCAL, self.target))
            self.sockets += (here, there)
            for way in ((here, there, True), (there, here, False)):
                self.threads.append(threading.Thread(target=self.pass_on, args=way))
                self.threads[-1].start()

    def pass_on(self, source, sink, counted):
        left = None
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                # Only a cut uses a limit up: a client may give a connection up before so much went over it.
                if counted and left is None and self.limits and data.startswith(self.start):
                    left = self.limits[0]
                if left is not None and len(data) >= left and self.limits:
                    self.limits.pop(0)
                    sink.sendall(data[:left])
                    self.cuts += 1
                    break
                sink.sendall(data)
                if left is not None:
                    left -= len(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def answering(data, *, stays=True):
    """The port of a server that answers whatever comes first with ``data``, reads nothing more, and stays or closes."""
    with socket.create_server((LOCAL, 0)) as server, contextlib.ExitStack() as held:
        server.settimeout(PATIENCE)

        def serve():
            peer, _ = server.accept()
            held.enter_context(peer)
            peer.recv(65536)
            peer.sendall(data)
            if not stays:
                peer.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            thread.join()
