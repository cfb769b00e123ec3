"""A sender that was silent: what it left is handed out as soon as it is heard or goes, whichever thread looks first."""

import pytest

from simlink.channels.driver import Mode
from simlink.channels.link.destination import Destination
from simlink.channels.wire.frames import BatchFrame, Hello
from simlink.message import Batch


@pytest.mark.parametrize("word", ["bye", "heard"])
def test_a_reader_does_not_wait_for_a_sender_that_is_back_at_that_very_moment(word, monkeypatch):
    now = 100.0
    destination = Destination("orders", Mode.QUEUE, dead=5.0, clock=lambda: now)
    reader = destination.hub.subscribe(None, capacity=100)
    link = destination.hello(Hello(b"s" * 16, "orders", Mode.QUEUE))
    destination.pump()
    destination.batch(link, BatchFrame(0, Batch([b"one"])))
    now += 6.0
    looked_at = destination._open

    def silent(link):
        # The thread that hears it is faster than the one that has just seen that it is silent.
        seen = looked_at(link)
        monkeypatch.undo()
        getattr(destination, word)(link)
        return seen

    monkeypatch.setattr(destination, "_open", silent)
    assert [incoming.batch.bodies for incoming in reader.receive(1, 0.0)] == [[b"one"]]
