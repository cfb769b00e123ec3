"""Many senders, each with one huge message, while the application reads nothing: what is kept of them has one bound."""

from __future__ import annotations

import contextlib

import pytest

import simlink
from tests.support.brokerless import bodies, driver, receiving, until

MIB = 1024 * 1024
SENDERS = 24
HUGE = 3 * MIB
BUFFER = 2 * MIB
BEYOND = 16 * MIB


@pytest.mark.parametrize("scheme", ["tcp", "http", "grpc"])
def test_what_is_kept_for_an_application_that_has_stopped_is_bounded(scheme):
    body = bytes(HUGE)
    with receiving(driver(scheme, buffer_bytes=BUFFER)) as rx, contextlib.ExitStack() as stack:
        url = f"{scheme}://{rx.address}/orders"

        def kept():
            stats = rx.stats()
            buffer = stats["subscriptions"]["orders"]
            return stats["crowded"], buffer["messages"] + stats["parked"], buffer["bytes"] + stats["parked_bytes"]

        senders = [
            stack.enter_context(simlink.queue(url, serializer=simlink.Bytes(), close_timeout=1.0))
            for _ in range(SENDERS)
        ]
        for sender in senders:
            sender.send(b"hello", timeout=20.0)  # everybody is there, and has credit
        receipts = [sender.send(body, wait=False) for sender in senders]
        most = 0

        def everybody_was_heard():
            nonlocal most
            crowded, messages, nbytes = kept()
            most = max(most, nbytes)
            return crowded + messages >= 2 * SENDERS

        until(everybody_was_heard, "hearing everybody")
        assert rx.stats()["crowded"] > 0
        # The buffer exceeded by one message, what may wait beside it, and the credit that everybody has at first.
        assert most <= BUFFER + HUGE + BEYOND + BUFFER
        # Whoever sends to another application at the same address does not notice.
        port = int(rx.address.rpartition(":")[2])
        with receiving(driver(scheme, port, name="beside")) as beside:
            good = stack.enter_context(
                simlink.queue(f"{scheme}://{rx.address}/beside", serializer=simlink.Bytes(), close_timeout=1.0)
            )
            for number in range(20):
                good.send(b"%d" % number, timeout=20.0)
            assert bodies(beside, 20) == [b"%d" % number for number in range(20)]
        # When it is read, all of it comes, each message once.
        got = bodies(rx, 2 * SENDERS)
        assert sorted(map(len, got)) == [len(b"hello")] * SENDERS + [HUGE] * SENDERS
        for receipt in receipts:
            receipt.wait(20.0)
        assert {receipt.state for receipt in receipts} == {"confirmed"}
        small = senders[0].send(b"small", wait=False)
        assert bodies(rx, 1) == [b"small"]
        small.wait(20.0)
        assert small.state == "confirmed"
        assert rx.stats()["garbage"] == 0
