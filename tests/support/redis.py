"""A Redis with a password and TLS, a proxy that loses replies, and what a plain client sees."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, suppress

import redis

from simlink.testing.brokers import RedisBroker

__all__ = ["GuardedRedis", "LossyProxy", "client_of"]


def client_of(broker, database=0):
    """redis-py on the same server."""
    return closing(redis.Redis(host=broker.host, port=broker.port, db=database))


class GuardedRedis(RedisBroker):
    """A real server that wants a password, with a second port for TLS that wants a client certificate."""

    port_count = 2
    password = "open sesame/ü"

    def __init__(self, authority, server):
        super().__init__(own=True)
        self.authority = authority
        self.server = server

    @property
    def tls_address(self):
        return f"127.0.0.1:{self.ports[1]}"

    def _command(self, folder):
        command, env = super()._command(folder)
        more = {
            "requirepass": self.password,
            "tls-port": str(self.ports[1]),
            "tls-ca-cert-file": self.authority.ca,
            "tls-cert-file": self.server.cert,
            "tls-key-file": self.server.key,
            "tls-auth-clients": "yes",
        }
        return [*command, *(word for key, value in more.items() for word in (f"--{key}", value))], env

    def _ready(self):
        with socket.create_connection((self.host, self.port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"-NOAUTH")


class LossyProxy:
    """Forwards to a server; of the replies to what contains ``mark`` every ``every``-th is lost together with its
    connection, after the server has done the work.

    Attributes:
        lost: how many.
    """

    def __init__(self, broker, mark, every):
        self._target = (broker.host, broker.port)
        self._mark = mark
        self._every = every
        self._seen = 0
        self.lost = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, name="proxy-accept")]
        self._sockets = []

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            _shut(one)
        for thread in self._threads:
            thread.join(10)
        for one in self._sockets:
            one.close()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            doomed = threading.Event()
            for name, work in (("there", self._there), ("back", self._back)):
                thread = threading.Thread(target=work, args=(near, far, doomed), name=f"proxy-{name}")
                self._threads.append(thread)
                thread.start()

    def _there(self, near, far, doomed):
        while data := _receive(near):
            if self._mark in data:
                self._seen += 1
                if self._seen % self._every == 0:
                    doomed.set()
            far.sendall(data)
        _shut(far)

    def _back(self, near, far, doomed):
        while data := _receive(far):
            if doomed.is_set():
                self.lost += 1
                break
            near.sendall(data)
        _shut(near)
        _shut(far)


def _receive(connection):
    try:
        return connection.recv(65_536)
    except OSError:
        return b""


def _shut(connection):
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
