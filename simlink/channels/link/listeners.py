"""The listeners of this process on one transport: the receivers on one address share one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from simlink.channels.url import Host
from simlink.errors import ConfigError

__all__ = ["Listeners", "Listening"]


class Listening(Protocol):
    """What is shared."""

    port: int
    """The one that was really bound."""
    users: int
    error: Exception | None
    """Why it has ended by itself, or None."""
    settings: Any

    def unlisten(self) -> None:
        """Free the address; those who are connected stay."""

    def stop(self, timeout: float) -> None:
        """End it within about ``timeout`` seconds."""


L = TypeVar("L", bound=Listening)
S = TypeVar("S")


class Listeners(Generic[L, S]):
    """Args:
    start: makes a listener at a host and port with settings; raises ConnectError.
    where: what names the same address, whatever way it was written.
    """

    def __init__(self, start: Callable[[str, int, S], L], where: Callable[[str, int], str]) -> None:
        self._start = start
        self._where = where
        self._lock = threading.Lock()
        self._known: dict[tuple[int, str, int], L] = {}

    def acquire(self, host: str, port: int, settings: S) -> L:
        """The listener at an address, one more user of it; started if need be. Port 0 always starts one.

        Raises:
            ConnectError: the address cannot be bound.
            ConfigError: it is listened on here, with other settings.
        """
        # The process is part of the key: a forked child has the table, but none of the threads.
        where = self._where(host, port)
        with self._lock:
            listener = self._known.get((os.getpid(), where, port)) if port else None
            if listener is None or listener.error is not None:
                listener = self._start(host, port, settings)
                self._known[os.getpid(), where, listener.port] = listener
            elif listener.settings != settings:
                shown = Host(host, port)
                raise ConfigError(f"{shown} is listened on with {listener.settings}; this channel asks for {settings}")
            listener.users += 1
            return listener

    def release(self, listener: L, timeout: float) -> None:
        """One user less; the last one stops it, within about ``timeout`` seconds."""
        with self._lock:
            listener.users -= 1
            if listener.users:
                return
            for key, known in list(self._known.items()):
                if known is listener:
                    del self._known[key]
            # The address is free again before anybody can ask for it.
            listener.unlisten()
        listener.stop(timeout)
