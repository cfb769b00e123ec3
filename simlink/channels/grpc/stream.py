"""One call of Link as a sender has it: frames out through a queue that gRPC's thread empties, frames in through ours.

Why the synchronous client, and the asynchronous server: measured side by side (ready batches of 1,000, and one small
message there and back), the four combinations differed by less than the machine's own noise, the synchronous client
being ahead by about 50 µs of 600 for one message. What decided was the shape: a sender's caller waits in a queue and
needs no loop, while a server in a loop serves a thousand idle senders with one thread and calls the shared state of
`simlink.channels.link` from that thread only, as it wants to be called.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

import grpc

from simlink.channels.grpc.settings import LINK

__all__ = ["ENDED", "HUNGRY", "WOKEN", "Ended", "Stream"]

_MAX_UNREAD = 1_000
"""Frames of a receiver that nobody has looked at; more stay in HTTP/2's window. They are absolute, and small."""


class Ended:
    """Put into `Stream.inbox`, last: the call is over. ``error`` is None when the receiver ended it in good order."""

    __slots__ = ("error",)

    def __init__(self, error: grpc.RpcError | None) -> None:
        self.error = error


HUNGRY = object()
"""Put into `Stream.inbox`: the writer has nothing more, as `Stream.tell_when_hungry` asked to be told."""
WOKEN = object()
"""Put into `Stream.inbox` by others, to make a wait end."""
ENDED = Ended(None)


class _Told(SimpleQueue[Any]):
    """An inbox of whose content somebody is told."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item)
        self._notify()


class Stream:
    """A running call.

    Args:
        channel: made for this call; closed with it.
        metadata: what goes with the call.
        name: of the thread that reads.
        notify: called when something was put into the inbox.

    Attributes:
        inbox: what came: frames as bytes, HUNGRY, WOKEN, and last an `Ended`.
        heard: when something came, on the monotonic clock.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        metadata: Sequence[tuple[str, str]],
        name: str,
        notify: Callable[[], None] | None = None,
    ) -> None:
        self.channel = channel
        self.inbox: SimpleQueue[Any] = SimpleQueue() if notify is None else _Told(notify)
        self.heard = time.monotonic()
        self._out: SimpleQueue[bytes | None] = SimpleQueue()
        self._tell_when_hungry = False
        self._room = threading.Event()
        self._closed = False
        call = channel.stream_stream(LINK)  # no serializers: bytes pass as they are
        self._call: Any = call(self._outgoing(), metadata=metadata)
        self._thread = threading.Thread(target=self._read, name=name, daemon=True)
        self._thread.start()

    @property
    def unsent(self) -> int:
        """How many frames gRPC has not taken yet."""
        return self._out.qsize()

    def write(self, frame: bytes) -> None:
        """Queue a frame. Whoever calls keeps `unsent` small: this is no buffer."""
        self._out.put(frame)

    def finish(self) -> None:
        """Nothing more will be written."""
        self._out.put(None)

    def tell_when_hungry(self) -> None:
        """Put HUNGRY into the inbox, once, when gRPC has taken everything (or at once)."""
        self._tell_when_hungry = True
        if not self._out.qsize():
            self._hungry()

    def _hungry(self) -> None:
        if self._tell_when_hungry:
            self._tell_when_hungry = False
            self.inbox.put(HUNGRY)

    def _outgoing(self) -> Any:
        """In a thread of gRPC's: it asks for the next frame when the one before was taken by HTTP/2."""
        get, out = self._out.get, self._out
        while (frame := get()) is not None:
            if self._tell_when_hungry and not out.qsize():
                self._hungry()
            yield frame

    def _read(self) -> None:
        end = ENDED
        inbox = self.inbox
        try:
            for data in self._call:
                self.heard = time.monotonic()
                inbox.put(data)
                if inbox.qsize() > _MAX_UNREAD:
                    self._wait_for_room()
        except grpc.RpcError as error:
            end = Ended(error)
        except Exception as error:
            # The library's own defects must reach the caller, too.
            end = Ended(_Broken(error))
        inbox.put(end)

    def _wait_for_room(self) -> None:
        while self.inbox.qsize() > _MAX_UNREAD and not self._closed:
            self._room.clear()
            if self.inbox.qsize() > _MAX_UNREAD and not self._closed:
                self._room.wait(1.0)

    def get(self, timeout: float) -> Any:
        """The next of the inbox; None when there is none within ``timeout`` seconds."""
        try:
            found = self.inbox.get(timeout > 0, timeout if timeout > 0 else None)
        except Empty:
            return None
        if not self._room.is_set():
            self._room.set()
        return found

    def close(self) -> None:
        """End the call at once, and both threads. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._room.set()
        self._out.put(None)
        self._call.cancel()
        self.channel.close()
        self._thread.join(5.0)


class _Broken(grpc.RpcError):  # type: ignore[misc]  # the library has no types
    """An exception out of the library that has no status."""

    def __init__(self, error: Exception) -> None:
        super().__init__(repr(error))
        self.__cause__ = error

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.INTERNAL

    def details(self) -> str:
        return str(self)
