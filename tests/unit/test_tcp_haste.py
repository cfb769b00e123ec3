"""Looking for an answer without sleeping: only for one message, only in haste, and only while it is worth it."""

from __future__ import annotations

import pytest

from simlink.channels import peeking as module
from simlink.channels.driver import Mode
from simlink.channels.tcp import TcpDriver
from simlink.channels.url import parse_url
from simlink.message import Batch


class Poll:
    """Counts the looks, and finds something at the ``after``-th of them."""

    def __init__(self, after=None):
        self.after = after
        self.looks = 0

    def poll(self, timeout):
        assert timeout == 0
        self.looks += 1
        return [] if self.after is None or self.looks < self.after else [(7, 1)]


@pytest.fixture
def sender(monkeypatch):
    monkeypatch.setattr(module, "SPARE", True)
    monkeypatch.setattr(module, "PEEK", 0.0)
    end = TcpDriver(parse_url("tcp://127.0.0.1:1/orders"), mode=Mode.QUEUE).sender()
    end._link.submit(Batch([b"a"]), 0)
    yield end
    end.close(0.0)


def looks(sender, rounds):
    """How often it looked in each of so many waits."""
    out = []
    for _ in range(rounds):
        before = sender._poll.looks
        assert sender._peek(1.0) == []
        out.append(sender._poll.looks - before)
    return out


def test_what_is_there_is_found(sender, monkeypatch):
    monkeypatch.setattr(module, "PEEK", 60.0)
    sender._poll = Poll(after=3)
    assert sender._peek(60.0) == [(7, 1)]
    assert (sender._poll.looks, sender._peeker.naps) == (3, 0)


def test_looking_in_vain_makes_it_sleep_ever_more_often(sender):
    sender._poll = Poll()
    assert looks(sender, 16) == [1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    for _ in range(5_000):
        sender._peek(1.0)
    assert sender._peeker.naps <= 2**module.MAX_MISSED


def test_an_answer_in_time_makes_it_trust_again(sender):
    sender._poll = Poll()
    looks(sender, 9)
    assert sender._peeker.missed == 3
    sender._peeker.naps = 0
    sender._poll = Poll(after=1)
    assert sender._peek(1.0) == [(7, 1)]
    assert sender._peeker.missed == 2


@pytest.mark.parametrize("why", ["more than one", "nothing", "one processor", "something unwritten"])
def test_otherwise_it_sleeps(sender, monkeypatch, why):
    if why == "more than one":
        sender._link.submit(Batch([b"b"]), 1)
    elif why == "nothing":
        sender._link.accepted = 1
    elif why == "one processor":
        monkeypatch.setattr(module, "SPARE", False)
    else:
        sender._out = b"rest"
    sender._poll = Poll(after=1)
    assert looks(sender, 1) == [0]
