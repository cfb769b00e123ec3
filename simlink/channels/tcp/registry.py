"""The listeners of this process: the receivers on one address share one."""

from __future__ import annotations

import os
import threading

from simlink.channels.tcp.listener import Listener
from simlink.channels.tcp.settings import Settings, resolve, shown
from simlink.errors import ConfigError

__all__ = ["acquire", "release"]

_lock = threading.Lock()
_listeners: dict[tuple[int, str | int, int], Listener] = {}


def acquire(host: str, port: int, settings: Settings) -> Listener:
    """The listener at an address, one more user of it; started if need be. Port 0 always starts one.

    Raises:
        ConnectError: the address cannot be bound.
        ConfigError: it is listened on here, with other settings.
    """
    # The process is part of the key: a forked child has the table, but none of the threads.
    where = resolve(host, port, passive=True)[0][1][0]
    with _lock:
        listener = _listeners.get((os.getpid(), where, port)) if port else None
        if listener is None or listener.error is not None:
            listener = Listener(host, port, settings)
            _listeners[os.getpid(), where, listener.port] = listener
        elif listener.settings != settings:
            raise ConfigError(
                f"{shown(host, port)} is listened on with {listener.settings}; this channel asks for {settings}"
            )
        listener.users += 1
        return listener


def release(listener: Listener, timeout: float) -> None:
    """One user less; the last one stops it, within about ``timeout`` seconds."""
    with _lock:
        listener.users -= 1
        if listener.users:
            return
        for key, known in list(_listeners.items()):
            if known is listener:
                del _listeners[key]
        # The address is free again before anybody can ask for it.
        listener.unlisten()
    listener.stop(timeout)
