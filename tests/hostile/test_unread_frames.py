"""Peers that send most of a large frame and then drip: together they cost a bounded memory, and others go on."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import Self

import simlink
from tests.support.bystander import LOCAL, GoodClient, Victim
from tests.support.crowd import tcp_hello

MIB = 1024 * 1024
PEERS = 60
DECLARED = 8 * MIB
BROUGHT = 4 * MIB
LARGE = MIB
BOUND = 16 * MIB
PATIENCE = 60.0


class Hoarder:
    """Declares a large frame, brings half of it as fast as it is read, then a byte at a time."""

    def __init__(self, port: int, number: int) -> None:
        self.sock = socket.create_connection((LOCAL, port), timeout=PATIENCE)
        self.sock.sendall(tcp_hello(number.to_bytes(16, "big")) + struct.pack(">IB", DECLARED, 1))
        self.sock.setblocking(False)
        self.left = BROUGHT

        self.cut = False

    def push(self) -> None:
        """Send what goes, and see whether it was cut off."""
        if self.cut:
            return
        try:
            with contextlib.suppress(BlockingIOError):
                self.left -= self.sock.send(bytes(max(1, min(self.left, 256 * 1024))))
            while self.sock.recv(65536):
                pass
            self.cut = True
        except BlockingIOError:
            pass
        except OSError:
            self.cut = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def test_half_read_frames_have_one_bound_and_a_good_client_s_large_ones_pass():
    # Without the bound these would take 60 × 4 MiB.
    with Victim("tcp", unread_bytes=BOUND) as victim, GoodClient(victim.url) as good, contextlib.ExitStack() as stack:
        hoarders = [stack.enter_context(Hoarder(victim.port, number)) for number in range(PEERS)]
        large = stack.enter_context(simlink.queue(victim.url, serializer=simlink.Bytes(), max_frame_bytes=DECLARED))
        receipts = []
        began = time.monotonic()
        while time.monotonic() < began + PATIENCE and not (
            receipts and all(receipt.state == "confirmed" for receipt in receipts)
        ):
            for hoarder in hoarders:
                hoarder.push()
            # Once there is no room any more.
            if not receipts and any(hoarder.cut for hoarder in hoarders):
                receipts = [large.send(bytes(LARGE), wait=False) for _ in range(5)]
        took = time.monotonic() - began
        grown = victim.grown()
        good.until(len(good.waits) + 50)
    cut = sum(hoarder.cut for hoarder in hoarders)
    print(f"\n{cut} cut in {took:.1f} s, +{grown:.0f} MiB, p50 {good.p(0.5):.1f} p99 {good.p(0.99):.1f} ms")
    assert [receipt.state for receipt in receipts] == ["confirmed"] * 5
    assert good.failure is None
    assert grown < 100
