"""A real RabbitMQ: the installed server, run without its system service and root-owned folders."""

from __future__ import annotations

import shutil
import socket
import uuid
from pathlib import Path
from typing import ClassVar, Final

from simlink.errors import ConfigError
from simlink.testing.brokers.base import Broker, BrokerUnavailable
from simlink.testing.brokers.process import reachable
from simlink.testing.brokers.security import Certificates

__all__ = ["RabbitMQBroker"]

DEBIAN: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The plain start script; the one that Debian puts on the PATH insists on its own user and folders."""

ERLANG: Final = (
    "-kernel inet_dist_use_interface {127,0,0,1}",
    # RabbitMQ forbids schedulers to spin, which spares an idle server. On a virtual machine, where waking a processor
    # is slow, it also doubles the time of the start (measured: 10 s without these, 5 s with them).
    "+sbwt very_short +sbwtdcpu very_short +sbwtdio very_short",
)


class RabbitMQBroker(Broker):
    """A real RabbitMQ server; ready in about 5 s. See :class:`~simlink.testing.brokers.base.Broker`.

    Every server has a node name, a cookie, an epmd and ports of its own. The user is guest unless one is given. Its
    environment variable is SIMLINK_AMQP_URL.
    """

    kind: ClassVar[str] = "rabbitmq"
    scheme: ClassVar[str] = "amqp"
    variable: ClassVar[str] = "SIMLINK_AMQP_URL"
    port_count = 4

    def __init__(
        self,
        *,
        own: bool = False,
        timeout: float = 60.0,
        tls: Certificates | None = None,
        user: str | None = None,
        password: str | None = None,
    ) -> None:
        super().__init__(own=own, timeout=timeout, tls=tls, user=user, password=password)
        if password is not None and user is None:
            raise ConfigError("RabbitMQ knows no password without a user: give user= too")
        self.node = f"simlink-{uuid.uuid4().hex[:12]}@localhost"

    @classmethod
    def locate(cls) -> str:
        script = str(DEBIAN) if DEBIAN.exists() else shutil.which("rabbitmq-server")
        if script is None or shutil.which("erl") is None:
            raise BrokerUnavailable(
                "rabbitmq-server is not installed: apt-get install rabbitmq-server, "
                "or set SIMLINK_AMQP_URL=amqp://USER:PASSWORD@HOST:PORT"
            )
        return script

    def _credentials(self) -> str:
        return self.security.userinfo or "guest:guest@"

    def _prepare(self, folder: Path) -> None:
        for name in ("home", "mnesia", "log"):
            (folder / name).mkdir()
        (folder / "enabled_plugins").write_text("[].\n", encoding="ascii")
        # Present and empty: the system's own settings must not leak in.
        (folder / "rabbitmq-env.conf").touch()
        lines = ["log.console.level = warning", *self._listeners()]
        (folder / "rabbitmq.conf").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        advanced = folder / "advanced.config"
        advanced.touch(0o600)
        advanced.write_text(f"[{self._login()}].\n", encoding="ascii")

    def _command(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        client, distribution, epmd, plain = self.ports[:4]
        return [self.locate()], {
            "HOME": str(folder / "home"),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(plain if self.security.tls else client),
            "RABBITMQ_DIST_PORT": str(distribution),
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(ERLANG),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            # Makes the script become the server instead of waiting for it, so that signals reach the server itself.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _listeners(self) -> list[str]:
        tls = self.security.tls
        if tls is None:
            return []
        files = {"certfile": tls.cert, "keyfile": tls.key, **({"cacertfile": tls.ca} if tls.ca else {})}
        must = "true" if tls.ca else "false"
        return [
            f"listeners.ssl.default = 127.0.0.1:{self.port}",
            *(f"ssl_options.{name} = {Path(path).absolute()}" for name, path in files.items()),
            f"ssl_options.verify = {'verify_peer' if tls.ca else 'verify_none'}",
            f"ssl_options.fail_if_no_peer_cert = {must}",
        ]

    def _login(self) -> str:
        """The user, as Erlang terms: the other file has no way to write every character."""
        if self.security.password is None:
            return ""
        user, password = (
            "<<" + ",".join(map(str, (text or "").encode())) + ">>"
            for text in (self.security.user, self.security.password)
        )
        return f"{{rabbit, [{{default_user, {user}}}, {{default_pass, {password}}}]}}"

    def _ready(self) -> bool:
        if self.security.tls is not None and not reachable(self.host, self.port):
            return False
        # With TLS there is a plain door besides, on a port that nobody is told: by it we see that the server is ready.
        with socket.create_connection((self.host, self.ports[3] if self.security.tls else self.port), 1) as connection:
            connection.settimeout(5)
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            # A method frame (type 1): Connection.Start.
            return connection.recv(1) == b"\x01"
