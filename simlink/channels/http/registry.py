"""The servers of this process: the receivers on one address share one."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from simlink.channels.http.settings import Settings
from simlink.channels.tcp.settings import resolve, shown
from simlink.errors import ConfigError

if TYPE_CHECKING:
    from simlink.channels.http.server import Server

__all__ = ["acquire", "release"]

_lock = threading.Lock()
_servers: dict[tuple[int, str | int, int], Server] = {}


def acquire(host: str, port: int, settings: Settings) -> Server:
    """The server at an address, one more user of it; started if need be. Port 0 always starts one.

    Raises:
        ConnectError: the address cannot be bound.
        ConfigError: it is served here with other settings.
    """
    from simlink.channels.http.server import Server

    # The process is part of the key: a forked child has the table, but none of the threads.
    where = resolve(host, port, passive=True)[0][1][0]
    with _lock:
        server = _servers.get((os.getpid(), where, port)) if port else None
        if server is None or server.error is not None:
            server = Server(host, port, settings)
            _servers[os.getpid(), where, server.port] = server
        elif server.settings != settings:
            raise ConfigError(f"{shown(host, port)} is served with {server.settings}; this channel asks for {settings}")
        server.users += 1
        return server


def release(server: Server, timeout: float) -> None:
    """One user less; the last one stops it, within about ``timeout`` seconds."""
    with _lock:
        server.users -= 1
        if server.users:
            return
        for key, known in list(_servers.items()):
            if known is server:
                del _servers[key]
        # The address is free again before anybody can ask for it.
        server.unlisten()
    server.stop(timeout)
