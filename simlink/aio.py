"""The same channels, awaited: a thin cover over the synchronous objects, for programs that live in an event loop.

::

    async with simlink.aio.queue("tcp://127.0.0.1:7001/orders") as orders:
        await orders.send({"id": 1})
        async with orders.receiver() as rx:
            async for delivery in rx:
                ...

Every call runs the synchronous one in a thread of the channel's (sends share a few, a receiver has one of its own,
because it belongs to one thread), so the meaning is the same by construction. A cancelled wait loses nothing: what it
was about to return is returned by the next call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from simlink.channels.channel import Channel
from simlink.channels.channel import queue as _queue
from simlink.channels.channel import topic as _topic
from simlink.errors import StateError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from simlink.channels.receipt import Receipt
    from simlink.channels.receiver import Receiver
    from simlink.message import Batch, Delivery

__all__ = ["AsyncChannel", "AsyncReceiver", "queue", "topic", "wrap"]

T = TypeVar("T")
_SENDERS = 4
_END = object()


class AsyncChannel:
    """A `Channel` whose blocking calls are awaited; ``sync`` is the channel itself."""

    def __init__(self, channel: Channel) -> None:
        self.sync = channel
        self._pool = ThreadPoolExecutor(_SENDERS, thread_name_prefix=f"simlink-aio-{channel.name}")
        self._receivers: list[AsyncReceiver] = []

    async def send(self, value: Any, **options: Any) -> Receipt:
        """As `Channel.send`. Cancelling stops the waiting, not the sending."""
        return await self._run(lambda: self.sync.send(value, **options))

    async def send_many(self, values: Any, **options: Any) -> Receipt:
        """As `Channel.send_many`."""
        return await self._run(lambda: self.sync.send_many(values, **options))

    def receiver(self, *args: Any, **options: Any) -> AsyncReceiver:
        """As `Channel.receiver`."""
        receiver = AsyncReceiver(self.sync.receiver(*args, **options))
        self._receivers = [*(known for known in self._receivers if not known.sync.closed), receiver]
        return receiver

    async def purge(self, **options: Any) -> int:
        """As `Channel.purge`."""
        return await self._run(lambda: self.sync.purge(**options))

    async def delete_subscription(self, name: str, **options: Any) -> None:
        """As `Channel.delete_subscription`."""
        await self._run(lambda: self.sync.delete_subscription(name, **options))

    async def close(self, **options: Any) -> int:
        """As `Channel.close`; the threads end with it."""
        for receiver in self._receivers:
            await receiver.close()
        left = await asyncio.to_thread(self.sync.close, **options)
        self._pool.shutdown(wait=False)
        return left

    async def __aenter__(self) -> Self:
        self.sync.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(_submit(self._pool, work, self.sync._check_open))

    def __repr__(self) -> str:
        return f"<async {self.sync!r}>"


class AsyncReceiver:
    """A `Receiver` whose blocking calls are awaited; ``sync`` is the receiver itself."""

    def __init__(self, receiver: Receiver) -> None:
        self.sync = receiver
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="simlink-aio-receiver")
        self._pending: tuple[str, Future[Any]] | None = None
        self._awaited = False

    async def get(self, timeout: float | None = 5.0) -> Delivery:
        """As `Receiver.get`."""
        return await self._once("get", lambda: self.sync.get(timeout))

    async def take(self, n: int, timeout: float | None = 30.0) -> list[Any]:
        """As `Receiver.take`."""
        return await self._once(f"take({n})", lambda: self.sync.take(n, timeout))

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        async for delivery in self._each("iteration", iter(self.sync)):
            yield delivery

    async def batches(self) -> AsyncIterator[Batch]:
        """As `Receiver.batches`."""
        async for batch in self._each("batches()", self.sync.batches()):
            yield batch

    async def _each(self, what: str, iterator: Iterator[T]) -> AsyncIterator[T]:
        while (item := await self._once(what, lambda: next(iterator, _END))) is not _END:
            yield item  # type: ignore[misc]  # the sentinel is sorted out above

    async def _once(self, what: str, work: Callable[[], T]) -> T:
        """Run in the receiver's thread. A cancelled wait leaves its result for the next call of the same kind."""
        if self._awaited:
            # Two that wait for one result would both be given it.
            raise StateError("this receiver is waited for by another task: a receiver belongs to one task at a time")
        if self._pending is None:
            self._pending = (what, _submit(self._thread, work, self.sync._check))
        elif self._pending[0] != what:
            raise StateError(f"a cancelled {self._pending[0]} is still waiting for its message; call that again first")
        future: Future[T] = self._pending[1]
        self._awaited = True
        try:
            result = await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._pending = None
            raise
        finally:
            self._awaited = False
        self._pending = None
        return result

    async def open(self, timeout: float | None = 30.0) -> None:
        """As `Receiver.open`."""
        await asyncio.wrap_future(self._thread.submit(self.sync.open, timeout))

    async def close(self) -> None:
        """As `Receiver.close`; the thread ends with it."""
        await self._finish(None)

    async def _finish(self, error: BaseException | None) -> None:
        if self._pending is not None and error is None:
            # Nobody saw what a cancelled wait may have got: hand it back instead of acknowledging it.
            error = asyncio.CancelledError()
        # Not in the receiver's own thread: that one may be waiting for a message, which closing ends.
        await asyncio.to_thread(self.sync._finish, error, 30.0)
        self._thread.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._finish(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sync, name)

    def __repr__(self) -> str:
        return f"<async {self.sync!r}>"


def _submit(pool: ThreadPoolExecutor, work: Callable[[], T], check: Callable[[], None]) -> Future[T]:
    try:
        return pool.submit(work)
    except RuntimeError:
        check()  # raises the error that says what was closed
        raise


def queue(url: str, **options: Any) -> AsyncChannel:
    """As `simlink.queue`, awaited."""
    return AsyncChannel(_queue(url, **options))


def topic(url: str, **options: Any) -> AsyncChannel:
    """As `simlink.topic`, awaited."""
    return AsyncChannel(_topic(url, **options))


def wrap(channel: Channel) -> AsyncChannel:
    """An open channel, awaited."""
    return AsyncChannel(channel)
