"""What was sent and settled is let go of at once, and not when the garbage collector comes by or a list is cut.

Counted by objects: to the collector a batch of thousands of bodies is a handful of them, so it comes too seldom. What
waited for it, or for a place in a list, was tens of mebibytes beyond every bound.
"""

from __future__ import annotations

import gc
import threading

import pytest

import simlink
from simlink.channels.driver import Outcome, OutcomeKind
from simlink.channels.window import Window
from simlink.message import Batch

ROUNDS = 40


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def batches_alive():
    return sum(type(thing) is Batch for thing in gc.get_objects())


def by_batches(receiver):
    seen = 0
    for batch in receiver.batches():
        seen += len(batch.values)
        if seen == ROUNDS * 10:
            return


def one_by_one(receiver):
    for _ in range(ROUNDS * 10):
        receiver.get(timeout=30.0)


def iterated(receiver):
    for n, _ in enumerate(receiver, 1):
        if n == ROUNDS * 10:
            return


def taken(receiver):
    for _ in range(ROUNDS):
        receiver.take(10)


@pytest.mark.parametrize("read", [by_batches, one_by_one, iterated, taken])
@pytest.mark.parametrize("scheme", ["memory", "tcp", "http"])
def test_no_batch_outlives_its_settlement(scheme, read, no_collector):
    before = batches_alive()
    channel = simlink.queue("memory://flat" if scheme == "memory" else f"{scheme}://127.0.0.1:0/flat")
    with channel, channel.receiver() as receiver:
        sender = threading.Thread(
            target=lambda: [channel.send_many([{"n": n} for n in range(10)]) for _ in range(ROUNDS)]
        )
        sender.start()
        read(receiver)
        sender.join()

    assert channel.stats()["confirmed"] == ROUNDS * 10
    assert batches_alive() <= before


@pytest.mark.parametrize("kept", [1, 0])
def test_a_window_keeps_no_batch_that_is_resolved(kept, no_collector):
    window = Window(max_messages=1_000, max_bytes=1_000_000, retains=True)
    before = batches_alive()
    for n in range(ROUNDS):
        window.add(Batch([b"x", b"y"], sequences=range(2 * n, 2 * n + 2)))
        window.next_flight()
    # One by one and by twos, with or without the first of all, which keeps the places of the others in the list.
    for kind in (OutcomeKind.CONFIRMED, OutcomeKind.SETTLED):
        window.apply([Outcome(kind, n, n + 1) for n in range(2 * kept, ROUNDS)])
        window.apply([Outcome(kind, ROUNDS, 2 * ROUNDS)])

    assert window.messages == 2 * kept
    assert batches_alive() - before == kept


def test_a_batch_and_its_view_decode_once():
    calls = []

    def decode(bodies):
        calls.append(len(bodies))
        return [int(body) for body in bodies]

    whole = Batch([b"1", b"2", b"3"], decode=decode)
    view = whole._view()

    assert view.values == [1, 2, 3]
    assert whole.values is view.values
    assert view[1:].values == [2, 3]
    assert (calls, view.nbytes) == ([3], 3)


def test_a_slice_of_a_view_decodes_its_own_rows():
    whole = Batch([b"1", b"2", b"3"], decode=lambda bodies: [int(body) for body in bodies])
    assert whole._view()[1:].values == [2, 3]
