"""A real RabbitMQ: the installed server, run without its system service and root-owned folders."""

from __future__ import annotations

import shutil
import socket
import uuid
from pathlib import Path
from typing import ClassVar, Final

from simlink.testing.brokers.base import Broker, BrokerUnavailable

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

    Every server has a node name, a cookie, an epmd and ports of its own. The user is guest. Its environment variable
    is SIMLINK_AMQP_URL.
    """

    kind: ClassVar[str] = "rabbitmq"
    scheme: ClassVar[str] = "amqp"
    variable: ClassVar[str] = "SIMLINK_AMQP_URL"
    port_count = 3

    def __init__(self, *, own: bool = False, timeout: float = 60.0) -> None:
        super().__init__(own=own, timeout=timeout)
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
        return "guest:guest@"

    def _prepare(self, folder: Path) -> None:
        for name in ("home", "mnesia", "log"):
            (folder / name).mkdir()
        (folder / "enabled_plugins").write_text("[].\n", encoding="ascii")
        # Present and empty: the system's own settings must not leak in.
        (folder / "rabbitmq-env.conf").touch()
        (folder / "rabbitmq.conf").write_text("log.console.level = warning\n", encoding="ascii")
        (folder / "advanced.config").write_text("[].\n", encoding="ascii")

    def _command(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        client, distribution, epmd = self.ports
        return [self.locate()], {
            "HOME": str(folder / "home"),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(client),
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

    def _ready(self) -> bool:
        with socket.create_connection((self.host, self.port), 1) as connection:
            connection.settimeout(5)
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            # A method frame (type 1): Connection.Start.
            return connection.recv(1) == b"\x01"
