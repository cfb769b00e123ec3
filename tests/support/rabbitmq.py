"""What a plain pika sees of a broker, and brokers of a special kind: independent of the driver that is tested."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pika

from simlink.testing.brokers import RabbitMQBroker

__all__ = ["TlsRabbitMQ", "ctl", "plain"]

CTL = Path("/usr/lib/rabbitmq/bin/rabbitmqctl")
"""As with the server: the one on the PATH insists on its own user."""


@contextmanager
def plain(broker):
    """A channel of a BlockingConnection."""
    connection = pika.BlockingConnection(pika.URLParameters(f"{broker.url}/%2F"))
    try:
        yield connection.channel()
    finally:
        if connection.is_open:
            connection.close()


def ctl(broker, *arguments):
    """Run rabbitmqctl against a broker of ours; what it printed."""
    assert broker.folder is not None
    env = {
        **os.environ,
        "HOME": str(broker.folder / "home"),
        "ERL_EPMD_PORT": str(broker.ports[2]),
        "RABBITMQ_NODENAME": broker.node,
        "RABBITMQ_CONF_ENV_FILE": str(broker.folder / "rabbitmq-env.conf"),
    }
    done = subprocess.run(
        [str(CTL), "--quiet", *arguments], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class TlsRabbitMQ(RabbitMQBroker):
    """A server that speaks TLS as well; with ``ca`` it wants certificates of that CA from its clients.

    Args:
        server: its own certificate and key, as PEM files.
        ca: the CA's PEM file.
    """

    port_count = 4

    def __init__(self, server, ca=None):
        super().__init__(own=True)
        self._server = server
        self._ca = ca

    @property
    def tls_url(self):
        return f"amqps://guest:guest@127.0.0.1:{self.ports[3]}"

    def _prepare(self, folder):
        super()._prepare(folder)
        lines = [
            f"listeners.ssl.1 = 127.0.0.1:{self.ports[3]}",
            f"ssl_options.certfile = {self._server.cert}",
            f"ssl_options.keyfile = {self._server.key}",
        ]
        if self._ca is not None:
            lines += [
                f"ssl_options.cacertfile = {self._ca}",
                "ssl_options.verify = verify_peer",
                "ssl_options.fail_if_no_peer_cert = true",
            ]
        with (folder / "rabbitmq.conf").open("a", encoding="ascii") as file:
            file.write("\n".join(lines) + "\n")
