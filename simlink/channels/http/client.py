"""One connection to an HTTP/1.1 server, kept alive. It never blocks once it is open; replies are parsed by llhttp.

http.client and urllib3 wait for each reply in a thread; here the caller's thread waits for all its connections at once,
as it does on tcp://. What is measured of that is in docs/design.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Callable

import httptools

from simlink.channels.tcp.settings import resolve
from simlink.errors import SimlinkError

__all__ = ["BadReply", "Connection", "Reply", "connect"]

_MAX_HEAD = 64 * 1024
_AGAIN = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class BadReply(SimlinkError):
    """The server's bytes are no reply."""


class Reply:
    """What a server said.

    Attributes:
        status: three digits.
        headers: names in lower case; the last of several.
        body: at most the connection's ``max_body`` bytes; what goes beyond is dropped.
        keep: whether the connection may be used again.
    """

    __slots__ = ("body", "headers", "keep", "status")

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.keep = True

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Connection:
    """Args:
        sock: connected; TLS is set up.
        max_body: bytes of a reply's body that are kept.

    Attributes:
        replies: those that are complete.
        stream: gets the bytes of bodies of replies with status 200 as they come, instead of their being kept.
        started: the reply whose head has come, while its body has not; for streams.
        waiting: how many requests have no complete reply yet.
        asked: when the oldest of them was written, by the monotonic clock.
        received: whether any byte of the current reply has come.
        closed: the server has closed, or broken, the connection.
        ready: there is something to read or write, as far as whoever waits for it knows.
    """

    def __init__(self, sock: socket.socket, *, max_body: int = 64 * 1024) -> None:
        self.sock = sock
        self.max_body = max_body
        self.replies: deque[Reply] = deque()
        self.stream: Callable[[bytes], None] | None = None
        self.started: Reply | None = None
        self.waiting = 0
        self.asked = 0.0
        self.received = False
        self.closed = False
        self.ready = False
        self.error: Exception | None = None
        self.out: bytes | memoryview = b""
        self.written = 0
        """Bytes of the current request that went out."""
        self._parser = httptools.HttpResponseParser(self)
        self._reply = Reply()
        self._head_bytes = 0
        self._bounded = False

    # --- writing ------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether a request can be written now."""
        return not self.waiting and not self.closed

    def request(self, data: bytes) -> None:
        """Begin to write a request. Call only when `idle`."""
        self.waiting = 1
        self.asked = time.monotonic()
        self.written = 0
        self.received = False
        self.out = data
        self.flush()

    def flush(self) -> bool:
        """Whether everything is written."""
        while self.out and not self.closed:
            try:
                count = self.sock.send(self.out)
            except _AGAIN:
                return False
            except OSError as error:
                self._end(error)
                return False
            self.written += count
            self.out = memoryview(self.out)[count:] if count < len(self.out) else b""
        return not self.out

    # --- reading ------------------------------------------------------------------------------------------------

    def receive(self) -> bool:
        """Take in what has come; False when the connection is over.

        Raises:
            BadReply: it is not HTTP.
        """
        while not self.closed:
            try:
                data = self.sock.recv(262_144)
            except _AGAIN:
                return True
            except OSError as error:
                self._end(error)
                break
            if not data:
                self._end(None)
                break
            self.received = True
            if self._head_bytes >= 0:
                self._head_bytes += len(data)
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as error:
                raise BadReply("the server wants to speak another protocol") from error
            except httptools.HttpParserError as error:
                cause = error.__context__ if isinstance(error.__context__, BadReply) else None
                raise cause or BadReply(f"not HTTP/1.1: {error}") from error
            if self._head_bytes > _MAX_HEAD:
                raise BadReply(f"a head of more than {_MAX_HEAD} bytes")
            if len(data) < 16_384 and not isinstance(self.sock, ssl.SSLSocket):
                return True
        return False

    def _end(self, error: Exception | None) -> None:
        self.closed = True
        self.error = error
        if error is None and self.started is not None and not self._bounded:
            # A body that lasts until the connection ends is complete now.
            self.on_message_complete()

    # --- called by the parser -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._reply = Reply()
        self._bounded = False

    def on_header(self, name: bytes, value: bytes) -> None:
        text = name.decode("latin-1").lower()
        if text == "content-length" or (text == "transfer-encoding" and b"chunked" in value.lower()):
            self._bounded = True
        self._reply.headers[text] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._head_bytes = -1
        self._reply.status = self._parser.get_status_code()
        if not self.waiting:
            raise BadReply("a reply that nobody asked for")
        self.started = self._reply

    def on_body(self, body: bytes) -> None:
        if self.stream is not None and self._reply.status == 200:
            self.stream(body)
        elif len(self._reply.body) < self.max_body:
            self._reply.body += body[: self.max_body - len(self._reply.body)]

    def on_message_complete(self) -> None:
        reply = self._reply
        self.started = None
        self._head_bytes = 0
        if reply.status < 200:
            return  # "go on", or something else to come before the reply
        reply.keep = not self.closed and self._parser.should_keep_alive()
        self.waiting = 0
        self.replies.append(reply)

    # --- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        self.closed = True
        self.sock.close()


def connect(host: str, port: int, deadline: float, context: ssl.SSLContext | None = None) -> socket.socket:
    """A connected socket, non-blocking, with TLS where there is a context.

    Raises:
        OSError: nobody there, no answer in time (TimeoutError), or no trust (ssl.SSLError).
        ConnectError: the name cannot be resolved.
    """
    last: OSError = ConnectionRefusedError("nobody listens there")
    for family, address in resolve(host, port, passive=False):
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(address)
            # With nobody listening on it, a free local port can be connected to itself.
            if sock.getsockname() == sock.getpeername():
                raise ConnectionRefusedError("nobody listens there")
            if context is not None:
                sock.settimeout(max(deadline - time.monotonic(), 0.001))
                sock = context.wrap_socket(sock, server_hostname=host)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            last = error
            if isinstance(error, ssl.SSLError):
                raise
            continue
        except BaseException:
            sock.close()
            raise
        return sock
    raise last
