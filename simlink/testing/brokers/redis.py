"""A real Redis: the ``redis-server`` program."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import ClassVar

from simlink.testing.brokers.base import Broker, BrokerUnavailable

__all__ = ["RedisBroker"]


class RedisBroker(Broker):
    """A real Redis server; ready in about 0.1 s. See :class:`~simlink.testing.brokers.base.Broker`.

    It writes its data before it answers, so they survive ``kill()``. Its environment variable is SIMLINK_REDIS_URL. A
    ``password`` without a ``user`` is that of the default one.
    """

    kind: ClassVar[str] = "redis"
    scheme: ClassVar[str] = "redis"
    variable: ClassVar[str] = "SIMLINK_REDIS_URL"
    port_count = 2

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
        # In a file: arguments can be seen by everybody.
        lines, security = [], self.security
        if security.password is not None and security.user is None:
            lines.append(f"requirepass {_quoted(security.password)}")
        elif security.password is not None:
            user, password = _quoted(security.user or ""), _quoted(">" + security.password)
            # Off, and yet with all rights: in its name the server reads its append-only file when it starts, and drops
            # the transactions in it, which are all that scripts have written, where they are denied to it (7.0.15).
            lines += ["user default off ~* &* +@all", f"user {user} on {password} ~* &* +@all"]
        file = folder / "redis.conf"
        file.touch(0o600)
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

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
        if self.security.tls is not None:
            tls = self.security.tls
            settings |= {
                "tls-port": str(self.port),
                "tls-cert-file": str(Path(tls.cert).absolute()),
                "tls-key-file": str(Path(tls.key).absolute()),
                "tls-auth-clients": "yes" if tls.ca else "no",
                # A plain door besides, on a port that nobody is told: by it we see that the server is ready.
                "port": str(self.ports[1]),
            }
            if tls.ca:
                settings["tls-ca-cert-file"] = str(Path(tls.ca).absolute())
        return [
            self.locate(),
            str(folder / "redis.conf"),
            *(word for key, value in settings.items() for word in (f"--{key}", value)),
        ], {}

    def _ready(self) -> bool:
        with socket.create_connection((self.host, self.ports[1] if self.security.tls else self.port), 1) as connection:
            connection.settimeout(5)
            connection.sendall(b"".join(_request(*words) for words in self._greeting()))
            answer = b""
            while answer.count(b"\r\n") < len(self._greeting()):
                part = connection.recv(256)
                if not part:
                    return False
                answer += part
            # While it reads its data back it answers -LOADING.
            return answer.endswith(b"+PONG\r\n")

    def _greeting(self) -> list[tuple[str, ...]]:
        security = self.security
        login = [("AUTH", security.user or "default", security.password)] if security.password is not None else []
        return [*login, ("PING",)]


def _quoted(text: str) -> str:
    escaped = "".join(f"\\x{byte:02x}" for byte in text.encode())
    return f'"{escaped}"'


def _request(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words)
