"""Ports for servers to listen on that nobody else is given meanwhile."""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["free_ports"]

LOWEST: Final = 10_000
KEPT: Final = 600.0
"""Seconds in which nobody else is given the same port."""


def free_ports(count: int) -> list[int]:
    """Different TCP ports that nobody listens on at 127.0.0.1.

    They lie below the range that the system gives to outgoing connections: a broker that is down for a while must
    find its port free again, and a client that retries on loopback would otherwise sooner or later be given the very
    port that it is calling, and connect to itself.

    Whoever asks in the next ten minutes, in this process or another one of this user, is given others: a server takes
    a moment until it listens, and may be down for a while. What was given is noted in a file of the system's folder
    for temporary ones; where that cannot be written, only what is listening now is passed over.

    Raises:
        OSError: there are not so many.
    """
    lowest_outgoing = 32_768
    with suppress(OSError, ValueError, IndexError):
        lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    with _noted() as given:
        candidates = [p for p in range(LOWEST, max(lowest_outgoing, LOWEST + 1_000)) if p not in given]
        found: list[int] = []
        for port in random.SystemRandom().sample(candidates, k=min(len(candidates), 1_000)):
            if len(found) == count:
                break
            with socket.socket() as probe:
                # As servers do: a port in TIME_WAIT is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with suppress(OSError):
                    probe.bind(("127.0.0.1", port))
                    found.append(port)
        if len(found) < count:
            raise OSError(f"no {count} free ports on 127.0.0.1 from {LOWEST} on")
        given.update(dict.fromkeys(found, time.time()))
    return found


@contextmanager
def _noted() -> Iterator[dict[int, float]]:
    """When each port was given that is not free for others yet; what is added is noted. One process at a time."""
    path = Path(tempfile.gettempdir()) / f"simlink-ports-{os.getuid()}"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        yield {}
        return
    with os.fdopen(descriptor, "r+", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        given: dict[int, float] = {}
        with suppress(ValueError, TypeError, AttributeError):  # not ours, or written half
            now = time.time()
            given = {int(port): at for port, at in json.load(file).items() if abs(now - at) < KEPT}
        yield given
        file.seek(0)
        file.truncate()
        json.dump(given, file)
