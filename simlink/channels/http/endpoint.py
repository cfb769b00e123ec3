"""What both senders need of an endpoint: connections, waiting for them, and what is wrong in simlink's words."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from simlink.channels import tls
from simlink.channels.http.client import Connection, Reply, connect
from simlink.channels.http.problem import read_problem
from simlink.channels.http.requests import retry_after
from simlink.errors import ConnectError, ConnectTimeout

if TYPE_CHECKING:
    from simlink.channels.http.driver import HttpDriver

__all__ = ["Endpoint", "Waiter"]

_BOTH = select.POLLIN | select.POLLOUT


class Endpoint:
    """The one server of a URL.

    Attributes:
        not_before: when it may be asked again, by the monotonic clock; a Retry-After has said so.
    """

    def __init__(self, driver: HttpDriver) -> None:
        self._driver = driver
        self._url = str(driver.target)
        self.shown = ""
        self.host = ""
        self.port = 0
        self.not_before = 0.0
        self.connects = 0

    def find(self) -> None:
        """Which address it is now.

        Raises:
            ConnectError: the port is 0, and no receiver of this channel has bound one.
        """
        self.host, self.port = self._driver.endpoint()
        self.shown = self._driver.shown(self.host, self.port)

    def connect(self, deadline: float) -> Connection:
        """A new connection.

        Raises:
            ConnectError, ConnectTimeout.
        """
        try:
            sock = connect(self.host, self.port, deadline, self._driver.client_context())
        except TimeoutError as error:
            raise self.problem(ConnectTimeout, "does not answer") from error
        except OSError as error:
            if (refusal := self.untrusted(error)) is not None:
                raise refusal from error
            reason = "nobody listens there" if isinstance(error, ConnectionRefusedError) else str(error)
            raise self.problem(ConnectError, f"cannot be reached: {reason}") from error
        self.connects += 1
        return Connection(sock)

    def untrusted(self, error: Exception | None) -> ConnectError | None:
        """The error for a connection that TLS has refused; None if that was not it."""
        return None if error is None else tls.refusal(error, endpoint=self.shown, url=self._url)

    def problem(self, kind: type[ConnectError], what: str, *, retryable: bool = True) -> ConnectError:
        return kind(f"{self.shown} {what}", url=self._url, endpoint=self.shown, retryable=retryable)

    def refused(self, reply: Reply, what: str, *, retryable: bool) -> ConnectError:
        """The error for a reply that is a no."""
        said = read_problem(reply.content_type, bytes(reply.body))
        return self.problem(
            ConnectError, f"{what} with {reply.status}" + (f": {said}" if said else ""), retryable=retryable
        )

    def wait_until_allowed(self, deadline: float) -> None:
        """Wait as long as a Retry-After asked for.

        Raises:
            ConnectError: that is beyond the deadline.
        """
        while (left := self.not_before - time.monotonic()) > 0:
            slice_ = min(left, deadline - time.monotonic())
            if slice_ <= 0:
                raise self.problem(ConnectTimeout, f"asked to be left alone for another {left:.1f} s (Retry-After)")
            time.sleep(slice_)

    def hold_off(self, reply: Reply, default: float | None = None) -> bool:
        """Note a Retry-After; whether there was one, or a default."""
        seconds = retry_after(reply.headers.get("retry-after"))
        if seconds is None:
            seconds = default
        if seconds is None:
            return False
        self.not_before = max(self.not_before, time.monotonic() + seconds)
        return True


class Waiter:
    """Waits for several connections, and for `wake` from another thread."""

    def __init__(self) -> None:
        self._out, self._in = socket.socketpair()
        self._out.setblocking(False)
        self._in.setblocking(False)

    def wait(self, connections: Iterable[Connection], timeout: float) -> bool:
        """Until one of them has, or takes, something; at most ``timeout`` seconds. Each that may is marked `ready`;
        the others need not be looked at. Whether `wake` was called."""
        woken = False
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        watched: dict[int, Connection] = {}
        for connection in connections:
            connection.ready = connection.closed
            if connection.closed:
                timeout = 0.0
                continue
            sock = connection.sock
            if isinstance(sock, ssl.SSLSocket) and sock.pending():
                connection.ready = True
                timeout = 0.0
            fd = sock.fileno()
            watched[fd] = connection
            poll.register(fd, _BOTH if connection.out else select.POLLIN)
        for fd, _ in poll.poll(max(timeout, 0.0) * 1000):
            if fd in watched:
                watched[fd].ready = True
            else:
                woken = True
                with contextlib.suppress(OSError):
                    self._out.recv(4096)
        return woken

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self._in.send(b"\0")

    def close(self) -> None:
        self._in.close()
        self._out.close()
