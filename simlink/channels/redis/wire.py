"""One connection: opened by redis-py, read and written here without blocking.

redis-py connects, proves who we are and chooses the database; from then on whole packed commands go out and hiredis
takes the answers apart. redis-py's own pipeline costs three times as much for each message (measured), and cannot be
woken while it waits.
"""

from __future__ import annotations

import os
import select
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from simlink.channels.redis.failures import Lost, Refusal, connect_failure, nobody_answered
from simlink.channels.redis.scripts import Script
from simlink.channels.redis.settings import Address
from simlink.channels.tls import client_context
from simlink.errors import ConnectError

__all__ = ["NOTHING", "Waker", "Wire", "connect"]

NOTHING = object()
"""What `Wire.next` returns while no answer is complete."""

_CHUNK = 262_144
_WANTS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Waker:
    """Ends a wait in `Wire.wait` from any thread. One-shot: one byte stands in the pipe however often it is set."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        self._lock = threading.Lock()
        self._set = False
        self._closed = False

    def fileno(self) -> int:
        return self._read

    def set(self) -> None:
        if self._set:
            return
        with self._lock:
            if not self._set and not self._closed:
                self._set = True
                os.write(self._write, b"!")

    def clear(self) -> bool:
        """Whether it was set."""
        if not self._set:
            return False
        with self._lock:
            if not self._set or self._closed:
                return False
            os.read(self._read, 1)
            self._set = False
            return True

    def wait(self, timeout: float) -> None:
        """Sleep until it is set, at most ``timeout`` seconds."""
        poller = select.poll()
        poller.register(self._read, select.POLLIN)
        poller.poll(_milliseconds(timeout))

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._read)
                os.close(self._write)


class Wire:
    """Made by `connect`. For one thread at a time.

    Every method raises Lost when the connection is gone.
    """

    def __init__(self, connection: Any, endpoint: str) -> None:
        import hiredis

        self.endpoint = endpoint
        self.pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
        self._connection = connection
        self._socket = connection._sock
        self._socket.setblocking(False)
        self._tls = isinstance(self._socket, ssl.SSLSocket)
        self._reader = hiredis.Reader(replyError=Refusal, protocolError=Lost, notEnoughData=NOTHING)
        self._buffer = bytearray(_CHUNK)
        self._out: deque[memoryview] = deque()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._asks_out = False
        self._waker: Waker | None = None

    def pack_ids(self, command: tuple[Any, ...]) -> bytes:
        """As `pack`, of a name, two words and IDs, which are bytes; several times faster where these are of one length,
        as those of one read mostly are."""
        head, ids = command[:3], command[3:]
        sizes = set(map(len, ids))
        if len(sizes) != 1:
            return self.pack(command)
        each = b"\r\n$%d\r\n" % sizes.pop()
        # The head as hiredis packs it, but for how many words there are.
        words = self.pack(head).partition(b"\r\n")[2]
        return b"*%d\r\n%s%s%s\r\n" % (len(command), words[:-2], each, each.join(ids))

    # --- out ----------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Give away packed commands; what the system does not take yet is kept."""
        self._out.append(memoryview(data))
        self.flush()

    def flush(self) -> None:
        out = self._out
        try:
            while out:
                sent = self._socket.send(out[0])
                if sent == len(out[0]):
                    out.popleft()
                else:
                    out[0] = out[0][sent:]
        except _WANTS:
            return
        except OSError as error:
            raise Lost(str(error)) from error

    def waits_for(self) -> tuple[int, int]:
        """The descriptor, and what is polled for there, for whoever waits for many at once."""
        return self._socket.fileno(), select.POLLIN | (select.POLLOUT if self._out else 0)

    @property
    def unsent(self) -> bool:
        return bool(self._out)

    # --- in -----------------------------------------------------------------------------------------------------

    def next(self) -> Any:
        """The next answer that is complete, NOTHING where there is none. An error reply is a Refusal, returned."""
        reply = self._reader.gets()
        if isinstance(reply, Lost):
            raise reply
        return reply

    def wait(self, timeout: float, waker: Waker | None = None) -> bool:
        """Move bytes both ways; whether some came in. Returns after ``timeout`` seconds, or when ``waker`` is set."""
        if self._tls and self._read():
            return True  # decrypted before, so that poll would not tell
        self._watch(waker)
        came = False
        for descriptor, event in self._poll.poll(_milliseconds(timeout)):
            if waker is not None and descriptor == waker.fileno():
                continue
            if event & select.POLLOUT:
                self.flush()
            if event & ~select.POLLOUT:
                came = self._read()
        return came

    def _watch(self, waker: Waker | None) -> None:
        asks = bool(self._out)
        if asks is not self._asks_out:
            self._asks_out = asks
            self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if asks else 0))
        if waker is not self._waker:
            if self._waker is not None:
                self._poll.unregister(self._waker.fileno())
            if waker is not None:
                self._poll.register(waker.fileno(), select.POLLIN)
            self._waker = waker

    def _read(self) -> bool:
        try:
            count = self._socket.recv_into(self._buffer)
        except _WANTS:
            return False
        except OSError as error:
            raise Lost(str(error)) from error
        if not count:
            raise Lost(f"{self.endpoint} closed the connection")
        self._reader.feed(self._buffer, 0, count)  # type: ignore[arg-type]  # it takes any buffer
        return True

    # --- both ---------------------------------------------------------------------------------------------------

    def call(self, *command: Any, timeout: float) -> Any:
        """One command and its answer; nothing else may be under way. Raises Refusal: the answer is an error."""
        return self.call_many([command], timeout=timeout)[0]

    def call_many(self, commands: list[tuple[Any, ...]], *, timeout: float) -> list[Any]:
        """Several commands at once, their answers in order. Raises Refusal: one of them is an error."""
        self.send(b"".join(map(self.pack, commands)))
        deadline = time.monotonic() + timeout
        answers: list[Any] = []
        while len(answers) < len(commands):
            reply = self.next()
            if reply is not NOTHING:
                answers.append(reply)
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise Lost(f"{self.endpoint} did not answer within {timeout:g} s")
            self.wait(left)
        for answer in answers:
            if isinstance(answer, Refusal):
                raise answer
        return answers

    def run(self, script: Script, keys: Sequence[Any], *arguments: Any, timeout: float) -> Any:
        """The answer of a script; the server gets its source where it does not know it. Raises as `call`."""
        try:
            return self.call("EVALSHA", script.sha, len(keys), *keys, *arguments, timeout=timeout)
        except Refusal as refusal:
            if refusal.code != "NOSCRIPT":
                raise
        return self.call("EVAL", script.source, len(keys), *keys, *arguments, timeout=timeout)

    def close(self) -> None:
        self._out.clear()
        self._connection.disconnect()


def _milliseconds(seconds: float) -> int:
    """Rounded up, so that a wait is never a busy loop."""
    return max(0, int(seconds * 1000 + 0.999))


def connect(address: Address, timeout: float) -> Wire:
    """Connect to the first host that answers.

    Raises:
        ConnectError: refused; ``retryable`` says whether to try again. ConnectTimeout: no answer in time.
    """
    deadline = time.monotonic() + timeout
    failure: ConnectError | None = None
    for host, port in address.hosts:
        endpoint = f"{host}:{port}"
        left = deadline - time.monotonic()
        if left <= 0 and failure is not None:
            break
        try:
            return _connect(address, host, port, max(left, 0.01))
        except ConnectError as error:
            if not error.retryable:
                raise
            failure = error
        except (Refusal, Lost, OSError) as error:
            failure = connect_failure(error, url=address.url, endpoint=endpoint)
            if not failure.retryable:
                raise failure from error
    raise failure or nobody_answered(url=address.url, endpoint=f"{address.hosts[0][0]}:{address.hosts[0][1]}")


def _encrypted(context: ssl.SSLContext) -> Any:
    """redis-py's connection over TLS as it is configured for every transport."""
    from redis.connection import Connection

    class Encrypted(Connection):
        def _connect(self) -> Any:
            plain = super()._connect()  # type: ignore[no-untyped-call]  # it ships no types for this
            try:
                return context.wrap_socket(plain, server_hostname=self.host)
            except BaseException:
                plain.close()
                raise

    return Encrypted


def _connect(address: Address, host: str, port: int, timeout: float) -> Wire:
    from redis.backoff import NoBackoff
    from redis.connection import Connection
    from redis.exceptions import RedisError
    from redis.retry import Retry

    endpoint = f"{host}:{port}"
    user, password = address.login.get() or (None, None)
    make: Any = Connection  # it ships no types for this
    if address.tls is not None:
        make = _encrypted(client_context(address.tls))
    connection = make(
        host=host,
        port=port,
        db=address.database,
        username=user,
        password=password,
        client_name=address.client_name or None,
        socket_connect_timeout=timeout,
        socket_timeout=timeout,
        # The layer above reconnects and sends again; a client that does so too makes 110 entries of 100.
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    try:
        connection.connect()
        wire = Wire(connection, endpoint)
        # Says so if a password is wanted and none was given.
        wire.call("PING", timeout=timeout)
    except (RedisError, Refusal, Lost) as error:
        connection.disconnect()
        raise connect_failure(error, url=address.url, endpoint=endpoint) from error
    except BaseException:
        connection.disconnect()
        raise
    return wire
