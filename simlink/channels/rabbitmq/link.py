"""One AMQP connection with a thread of its own, so that heartbeats never wait for user code.

pika's connection may be touched by its own thread only. Everybody else posts callbacks to it: one for a batch, not one
for a message.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pika
from pika import exceptions
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel

from simlink.channels.rabbitmq.failures import connect_failure, connect_timeout
from simlink.channels.rabbitmq.frames import take_deliveries
from simlink.channels.rabbitmq.settings import Settings
from simlink.channels.tls import client_context

__all__ = ["Link", "left"]

READ = 65_536
"""How many bytes are read at a time."""
GRACE = 0.2
"""The least that closing grants the broker for its goodbye."""
STILL = 1.25
"""How many heartbeats the thread may stand still: its last sign of life may be half of one older, and the broker gives
up after two at the earliest."""
CUT = 5.0
"""How long the thread may take to end once its connection was cut."""


class _Answer:
    """What one question to the broker came to."""

    __slots__ = ("channel", "done", "error", "value")

    def __init__(self, channel: Channel | None) -> None:
        self.channel = channel
        self.done = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None

    def give(self, value: Any = None) -> None:
        if not self.done.is_set():
            self.value = value
            self.done.set()

    def fail(self, error: BaseException) -> None:
        if not self.done.is_set():
            self.error = error
            self.done.set()


class _Loop(IOLoop):  # type: ignore[misc] # pika has no types
    """pika's loop, which knows every connection that was begun on it: pika tells of none before it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[pika.SelectConnection] = []


class _Connection(pika.SelectConnection):  # type: ignore[misc] # as above
    """pika's, but deliveries are taken out of its buffer before it looks at it (see `frames`).

    Attributes:
        consumers: the tags of those whose deliveries are taken.
        consumer_channel: the number of the channel that they are on.
        on_deliveries: who gets them.
    """

    _frame_buffer: bytes

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.consumers: set[bytes] = set()
        self.consumer_channel = 0
        self.on_deliveries: Callable[[Sequence[Any]], None] | None = None
        self.ioloop.begun.append(self)

    def _on_data_available(self, data_in: bytes) -> None:
        more = False
        if self.on_deliveries is not None:
            buffer = self._frame_buffer + data_in
            rows, end, more = take_deliveries(buffer, self.consumer_channel, self.consumers)
            self._frame_buffer, data_in = buffer[end:], b""
            # What pika's heartbeats go by.
            self.bytes_received += end
            self.frames_received += sum(3 if row[2] else 2 for row in rows)
            if rows:
                self.on_deliveries(rows)
        if not more:
            super()._on_data_available(data_in)


class Link:
    """Args:
    settings: where to, and as whom.
    role: what it is for, in its thread's name and in the broker's list of connections.
    on_lost: called once, in the link's thread, when the connection or its main channel is gone.
    """

    def __init__(self, settings: Settings, role: str, on_lost: Callable[[], None]) -> None:
        self._settings = settings
        self._role = role
        self._on_lost = on_lost
        self._loop = _Loop()
        self._parameters: Sequence[pika.ConnectionParameters] = ()
        self._connection: _Connection | None = None
        self._workflow: Any = None
        self._tried = False
        self._aborted = False
        self._connected = threading.Event()
        self._asked: set[_Answer] = set()
        self._main: Channel | None = None
        self._closing = False
        self._beaten = time.monotonic()
        self._stillness = settings.heartbeat * STILL
        self._thread = threading.Thread(target=self._run, name=f"simlink-amqp-{role}-{settings.name}", daemon=True)
        self.error: BaseException | None = None
        """Why the link is gone; None while it lives."""

    # --- from outside -------------------------------------------------------------------------------------------

    def open(self, timeout: float) -> None:
        """Connect to the first host that answers.

        Raises:
            ConnectError, ConnectTimeout: as `SenderDriver.open` says. The link is closed then.
            ConfigError: a certificate's file is not what it should be.
        """
        try:
            # Asked for here, in the caller's thread: files that were renewed, a password that changes.
            user, password = self._settings.who()
            self._parameters = self._addresses(user, password, timeout)
        except BaseException:
            self._loop.close()
            raise
        self._thread.start()
        if not self._connected.wait(timeout):
            self.close(0.0)
            raise connect_timeout(self._settings, timeout)
        if self.error is not None:
            self.close(0.0)
            raise connect_failure(self.error, self._settings, user)

    @property
    def connection(self) -> _Connection:
        """The connection itself. For its own thread, except for what never changes."""
        assert self._connection is not None
        return self._connection

    @property
    def version(self) -> tuple[int, ...]:
        """The server's version; empty where it does not say."""
        said = str((self.connection.server_properties or {}).get("version", ""))
        parts = said.partition("-")[0].split(".")
        return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()

    @property
    def alive(self) -> bool:
        """Whether the broker still counts with this link, as far as can be told here: it is not lost, and its thread
        did not stand still for so long that the broker may have given what was delivered on it to somebody else."""
        return self.error is None and time.monotonic() - self._beaten <= self._stillness

    def post(self, callback: Callable[[], None]) -> None:
        """Have something done by the link's thread, soon; in the order of the calls. Lost when the link is gone."""
        self._loop.add_callback_threadsafe(callback)

    def later(self, delay: float, callback: Callable[[], None]) -> None:
        """For the link's thread: have something done after ``delay`` seconds."""
        self._loop.call_later(delay, callback)

    def ask(self, channel: Channel | None, start: Callable[[Callable[..., None]], Any], deadline: float) -> Any:
        """Start something in the link's thread, and wait for the broker's answer.

        Args:
            channel: whose end is an answer too.
            start: begins it, and passes on what it is given as the callback.
            deadline: when to give up, by the monotonic clock.

        Raises:
            AMQPError, OSError: what pika says of the channel's or the connection's end. ConnectTimeout: no answer.
        """
        answer = _Answer(channel)

        def begin() -> None:
            gone = self.error or (channel is not None and not channel.is_open and exceptions.ChannelWrongStateError())
            if gone:
                answer.fail(gone)
                return
            self._asked.add(answer)
            try:
                start(answer.give)
            except Exception as error:
                answer.fail(error)

        started = time.monotonic()
        self.post(begin)
        while not answer.done.wait(min(0.5, left(deadline))):
            if self.error is not None:
                # The thread may have ended before it came to the question.
                answer.fail(self.error)
            elif time.monotonic() >= deadline:
                answer.fail(connect_timeout(self._settings, deadline - started))
        self._asked.discard(answer)
        if answer.error is not None:
            raise answer.error
        return answer.value

    def channel(self, deadline: float, *, main: bool = False) -> Channel:
        """A new channel; the end of the main one is the end of the link."""

        def begin(give: Callable[..., None]) -> None:
            channel = self.connection.channel(on_open_callback=give)
            channel.add_on_close_callback(self._on_channel_closed)
            if main:
                self._main = channel

        found = self.ask(None, begin, deadline)
        assert isinstance(found, Channel)
        return found

    def take(self, channel: Channel, tag: str, on_deliveries: Callable[[Sequence[Any]], None]) -> None:
        """For the link's thread: have the deliveries to a consumer, all of one channel, handed over many at a time.
        Its own callback still gets what is not of the usual form."""
        connection = self.connection
        connection.consumers.add(tag.encode())
        connection.consumer_channel = channel.channel_number
        connection.on_deliveries = on_deliveries

    def drop_channel(self, channel: Channel) -> None:
        """Close a channel that is not needed any more; nothing if it is closed."""
        self.post(lambda: channel.close() if channel.is_open else None)

    def fail(self, error: BaseException) -> None:
        """For the link's thread: the link is of no more use."""
        if self.error is None:
            self.error = error
            for answer in list(self._asked):
                answer.fail(error)
            self._connected.set()
            if not self._closing:
                self._on_lost()
        self._end()

    def close(self, timeout: float) -> None:
        """Say goodbye, for at most ``timeout`` seconds, then cut the connection. Idempotent; from any thread but the
        link's own."""
        self._closing = True
        if not self._thread.is_alive():
            return
        self.post(self._end)
        self._thread.join(max(timeout, GRACE))
        self.drop()

    def drop(self) -> None:
        """End the connection without a goodbye. Idempotent; from any thread but the link's own."""
        self._closing = True
        if self._thread.is_alive():
            self.post(self._cut)
            self._thread.join(CUT)

    # --- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._workflow = _Connection.create_connection(self._parameters, self._on_done, custom_ioloop=self._loop)
            self._loop.start()
        except Exception as error:
            # A defect in a callback, ours or pika's: the connection must not stay open behind it.
            self.fail(error)
            self._finish()
        finally:
            if self.error is None:
                self.error = exceptions.ConnectionClosedByClient(200, "closed")
            for answer in list(self._asked):
                answer.fail(self.error)
            self._connected.set()
            self._loop.close()

    def _finish(self) -> None:
        connection = self._connection
        ended = self._workflow is None or self._tried if connection is None else connection.is_closed
        if not ended:
            try:
                self._cut()
                self._loop.start()
            except Exception as error:
                self.error = self.error or error

    def _addresses(self, user: str, password: str, timeout: float) -> Sequence[pika.ConnectionParameters]:
        settings = self._settings
        share = max(timeout / len(settings.hosts), 0.1)
        context = None if settings.tls is None else client_context(settings.tls)
        return [
            pika.ConnectionParameters(
                host=name,
                port=port,
                virtual_host=settings.vhost,
                credentials=pika.PlainCredentials(user, password),
                ssl_options=None if context is None else pika.SSLOptions(context, name),
                heartbeat=settings.heartbeat,
                connection_attempts=1,
                retry_delay=0,
                socket_timeout=share,
                stack_timeout=share,
                # A blocked broker is back-pressure: no time limit of the client's.
                blocked_connection_timeout=None,
                client_properties={"connection_name": f"{settings.client_id} {self._role} {settings.name}"},
            )
            for name, port in settings.hosts
        ]

    def _on_done(self, result: Any) -> None:
        self._tried = True
        if isinstance(result, BaseException):
            self.fail(result)
            self._loop.stop()
            return
        self._connection = result
        # pika reads 4 KiB at a time, a dozen messages. It has no public way to have it read more.
        if result._transport is not None:
            result._transport._MAX_RECV_BYTES = READ
        result.add_on_close_callback(self._on_closed)
        if self._closing:
            self._end()
        self._beaten = time.monotonic()
        self._beat()
        self._connected.set()

    def _beat(self) -> None:
        if not self.alive:
            still = time.monotonic() - self._beaten
            self.fail(exceptions.AMQPHeartbeatTimeout(f"this process stood still for {still:.1f} s"))
            return
        self._beaten = time.monotonic()
        self._loop.call_later(self._settings.heartbeat / 4, self._beat)

    def _on_closed(self, _connection: Any, reason: BaseException) -> None:
        self.fail(reason)
        self._loop.stop()

    def _on_channel_closed(self, channel: Channel, reason: BaseException) -> None:
        for answer in list(self._asked):
            if answer.channel is channel:
                answer.fail(reason)
        if channel is self._main:
            self.fail(reason)

    def _end(self) -> None:
        connection = self._connection
        if connection is None:
            self._abort()
        elif connection.is_open:
            connection.close()

    def _abort(self) -> None:
        """Give up connecting: sockets are closed, and `_on_done` is told, within a few turns of the loop."""
        if self._workflow is None or self._tried or self._aborted:
            return
        self._aborted = True
        # pika 1.4 fails an assertion of its own where the login is under way: after it has noted that this is to end,
        # and before it closes the connection, which would stay open.
        with contextlib.suppress(AssertionError):
            self._workflow.abort()
        for connection in self._loop.begun:
            if not (connection.is_closing or connection.is_closed):
                connection.close(320, "given up")

    def _cut(self) -> None:
        """Drop the connection of a broker that does not answer; pika has no public way to do so."""
        connection = self._connection
        if connection is None:
            self._abort()
        elif not connection.is_closed:
            connection._terminate_stream(exceptions.StreamLostError("cut"))


def left(deadline: float) -> float:
    """Seconds until a deadline, at least none."""
    return max(0.0, deadline - time.monotonic())
