"""The awaited face keeps every promise: the same suite, through an event loop in a thread."""

import asyncio
import inspect
import threading

import pytest

import simlink
from simlink import aio
from simlink.testing import conformance


class Loop:
    """An event loop in a thread, and objects whose coroutines are waited for."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="loop")
        self.thread.start()

    def run(self, awaitable):
        return asyncio.run_coroutine_threadsafe(awaitable, self.loop).result()

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Waited:
    """Every coroutine of ``inner`` as a blocking call; the rest as it is, of the synchronous object where need be."""

    def __init__(self, loop, inner):
        self.__dict__.update(_loop=loop, _inner=inner)

    def __getattr__(self, name):
        found = getattr(self._inner, name, None)
        if found is None:
            found = getattr(self._inner.sync, name)
        if inspect.iscoroutinefunction(found):
            return lambda *a, **k: self._loop.run(found(*a, **k))
        if name == "batches":
            return lambda: self._each(found())
        if name == "receiver":
            return lambda *a, **k: Waited(self._loop, found(*a, **k))
        return found

    def __setattr__(self, name, value):
        setattr(self._inner.sync, name, value)

    def _each(self, generator):
        while True:
            try:
                yield self._loop.run(anext(generator))
            except StopAsyncIteration:
                return

    def __iter__(self):
        return self._each(aiter(self._inner))

    def __enter__(self):
        self._loop.run(self._inner.__aenter__())
        return self

    def __exit__(self, *error):
        self._loop.run(self._inner.__aexit__(*error))

    def __repr__(self):
        return repr(self._inner)


class AioHarness(conformance.Harness):
    def __init__(self):
        self.loop = None

    def url(self):
        return f"memory://{self.fresh_name()}"

    def open(self, mode, url=None, **options):
        self.loop = self.loop or Loop()
        return Waited(self.loop, aio.wrap(super().open(mode, url, **options)))

    def close(self):
        if self.loop is not None:
            self.loop.close()


# An awaited receiver has a thread of its own and is nobody's in particular; a loop does not survive a fork.
NOT_MEANT = {
    "a_receiver_belongs_to_one_thread",
    "a_channel_is_dead_after_a_fork",
    "a_full_hub_blocks_and_then_times_out",
}


CASES = [case for case in conformance.cases(AioHarness) if case.name not in NOT_MEANT]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conformance(case):
    case.run(AioHarness())


def test_a_cancelled_wait_loses_nothing():
    async def scene():
        async with aio.queue("memory://cancelled") as channel, channel.receiver() as rx:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(rx.get(timeout=30), 0.05)
            await channel.send("kept")
            return (await rx.get(timeout=30)).value

    assert asyncio.run(scene()) == "kept"


def test_what_a_cancelled_wait_got_is_handed_back_at_close():
    async def scene():
        async with aio.queue("memory://handed-back") as channel:
            async with channel.receiver() as rx:
                waiting = asyncio.ensure_future(rx.get(timeout=30))
                await asyncio.sleep(0)
                waiting.cancel()
                await channel.send("unseen")
            async with channel.receiver() as rx:
                return (await rx.get(timeout=30)).value

    assert asyncio.run(scene()) == "unseen"


def test_two_tasks_are_not_given_the_same_message():
    async def scene():
        async with aio.queue("memory://two-tasks") as channel, channel.receiver() as rx:
            await channel.send_many([1, 2])
            first, second = await asyncio.gather(rx.get(timeout=30), rx.get(timeout=30), return_exceptions=True)
            return first.value, type(second), (await rx.get(timeout=30)).value

    assert asyncio.run(scene()) == (1, simlink.StateError, 2)
