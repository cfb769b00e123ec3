"""A real Redis: the ``redis-server`` program."""

from __future__ import annotations

import shutil
import socket
from typing import TYPE_CHECKING, ClassVar

from simlink.testing.brokers.base import Broker, BrokerUnavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RedisBroker"]


class RedisBroker(Broker):
    """A real Redis server; ready in about 0.1 s. See :class:`~simlink.testing.brokers.base.Broker`.

    It writes its data before it answers, so they survive ``kill()``. Its environment variable is SIMLINK_REDIS_URL.
    """

    kind: ClassVar[str] = "redis"
    scheme: ClassVar[str] = "redis"
    variable: ClassVar[str] = "SIMLINK_REDIS_URL"

    @classmethod
    def locate(cls) -> str:
        found = shutil.which("redis-server") or shutil.which("valkey-server")
        if found is None:
            raise BrokerUnavailable(
                "redis-server is not installed: apt-get install redis-server, or set SIMLINK_REDIS_URL=redis://HOST:PORT"
            )
        return found

    def _prepare(self, folder: Path) -> None:
        (folder / "data").mkdir()

    def _command(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(folder / "data"),
            # Written (not synced) before the reply: a killed process loses nothing, and no time is spent on the disk.
            "appendonly": "yes",
            "appendfsync": "no",
            "save": "",
            "daemonize": "no",
        }
        return [self.locate(), *(word for key, value in settings.items() for word in (f"--{key}", value))], {}

    def _ready(self) -> bool:
        with socket.create_connection((self.host, self.port), 1) as connection:
            connection.sendall(b"PING\r\n")
            # While it reads its data back it answers -LOADING.
            return connection.recv(64).startswith(b"+PONG")
