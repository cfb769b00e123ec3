"""A receiving process for tests of pools: what it was handed stands in a file before it is acknowledged."""

from __future__ import annotations

from pathlib import Path

import simlink


def receive(url, at, path):
    """Receive until killed."""
    with Path(path).open("ab", buffering=0) as out:
        with simlink.queue(url, heartbeat=0.25, dead=5.0).receiver(at=at, settle="manual") as receiver:
            out.write(b"ready\n")
            for delivery in receiver:
                out.write(b"%d %d\n" % (int(delivery.value), delivery.attempt))
                delivery.ack()
