"""What could only go wrong further down, in a driver or for ever, is refused by the channel before anything is sent."""

from __future__ import annotations

import uuid

import pytest

import simlink
from simlink import fields
from simlink.errors import ConfigError, EncodeError, InvalidURL
from simlink.message import Message

HALF = "\ud800"


@pytest.fixture
def channel():
    with simlink.queue(f"memory://early-{uuid.uuid4().hex[:8]}") as channel:
        yield channel


@pytest.mark.parametrize(
    ("send", "message"),
    [
        (lambda c: c.send(1, key=HALF), "a key is text that UTF-8 can hold"),
        (lambda c: c.send(1, headers={"a": HALF}), "headers are text that UTF-8 can hold"),
        (lambda c: c.send(1, headers={HALF: "a"}), "headers are text that UTF-8 can hold"),
        (lambda c: c.send(1, headers=[("a", "b")]), "headers are a mapping"),
        (lambda c: c.send(Message(body="{}")), "a Message's body is bytes, not str; a serializer's dumps"),
        (lambda c: c.send(Message(body=None)), "a Message's body is bytes, not NoneType"),
        (lambda c: c.send(Message(body=b"1", key="k")), "a Message's key is bytes, not str"),
        (lambda c: c.send(Message(body=b"1", timestamp="now")), "a Message's timestamp is int, not str"),
        (lambda c: c.send(Message(body=b"1", content_type=5)), "a Message's content_type is str, not int"),
        (lambda c: c.send(Message(body=b"1", producer=b"x", sequence=1)), "producer has 16 bytes, not 1"),
        (lambda c: c.send(Message(body=b"1", producer=bytes(16), sequence=-1)), "sequence counts from 0"),
        (lambda c: c.send(Message(body=b"1", headers={"a": HALF})), "headers are text"),
        (lambda c: c.send_many([Message(body=b"1"), Message(body="2")]), "a Message's body is bytes, not str"),
        (lambda c: c.send_many("abc"), "send one str with send"),
        (lambda c: c.send_many({"a": 1}), "send one dict with send"),
        (lambda c: c.send_many(5), "takes many values, not 5"),
        (lambda c: c.send_many(simlink.record("x", n=fields.sequence(), seed=1)), "x has no end: give it take"),
    ],
)
def test_what_no_driver_can_send(channel, send, message):
    """A driver that fails at it would leave it in the window, and the channel would wait for it when it closes."""
    with pytest.raises(ConfigError, match=message):
        send(channel)
    assert (channel.stats()["sent"], channel.stats()["in_flight"]) == (0, 0)


def test_a_generator_with_an_end_is_many_values(channel):
    numbers = simlink.record("x", n=fields.sequence(), seed=1)
    assert len(channel.send_many(numbers.take(3))) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefetch": 1.5}, "prefetch must be at least 1, not 1.5"),
        ({"prefetch": "many"}, "prefetch must be at least 1, not 'many'"),
        ({"idle": -1}, "idle is a number of seconds, not -1"),
        ({"idle": float("nan")}, "idle is a number of seconds, not nan"),
        ({"idle": "soon"}, "idle is a number of seconds, not 'soon'"),
        ({"settle_timeout": -1}, "settle_timeout is a number of seconds, not -1"),
        ({"serializer": "json"}, r"serializer is a Serializer such as simlink.Json\(\), not 'json'"),
    ],
)
def test_options_of_a_receiver(channel, options, message):
    with pytest.raises(ConfigError, match=message):
        channel.receiver(**options)


@pytest.mark.parametrize("n", [-1, 1.5, "all", True])
def test_how_many_to_take(channel, n):
    with channel.receiver() as rx, pytest.raises(ConfigError, match="a number of messages from 0 up"):
        rx.take(n, timeout=0.1)


@pytest.mark.parametrize("url", [None, 5, b"memory://x"])
def test_a_url_is_text(url):
    with pytest.raises(InvalidURL, match="a URL is text, not"):
        simlink.queue(url)


def test_a_data_frame_would_be_its_column_names(channel):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ConfigError, match=r"to_dict\('records'\)"):
        simlink.run(pandas.DataFrame({"a": [1, 2]}), channel, progress=False)


def test_a_record_that_cannot_be_written_has_one_number(channel):
    """That of the record in the source, and not also that within what was encoded together."""
    with pytest.raises(EncodeError) as caught:
        simlink.run((x for x in ["a", "b\nc"]), channel.url, serializer=simlink.Text(), progress=False)
    assert str(caught.value).startswith("record 1 cannot be sent: Text writes one line")


def test_nothing_was_sent_and_nothing_is_waited_for(channel):
    with channel.receiver() as rx:
        found = simlink.verify(rx, [1, 2, 3], count=0, timeout=None)
    assert (found.ok, found.expected, found.received) == (True, 0, 0)


@pytest.mark.parametrize("what", ["memory://x", 5, None, ["memory://x"]])
def test_only_receivers_are_verified(channel, what):
    for receiver in (what, channel):
        with pytest.raises(ConfigError, match=r"verify reads receivers, as channel.receiver\(\) makes them"):
            simlink.verify(receiver, [1])


@pytest.mark.parametrize(
    ("look", "error", "message"),
    [
        (lambda g: g["n"], TypeError, r"x: \[row\] or \[start:stop\] gives records, not 'n'"),
        (lambda g: g[1.5], TypeError, "gives records, not 1.5"),
        (lambda g: g[2**63], IndexError, "rows are counted in 63 bits"),
        (lambda g: g.preview(-1), ConfigError, "preview: expected a number of records from 0 up, not -1"),
    ],
)
def test_rows_that_there_cannot_be(look, error, message):
    with pytest.raises(error, match=message):
        look(simlink.record("x", n=fields.sequence(), seed=1))


def test_a_function_of_one_value_behind_a_pipe():
    wrong = simlink.record("x", n=fields.sequence() | (lambda value: 5), seed=1)
    with pytest.raises(ConfigError, match=r"x.n: .* one value a row, not 5; map\(\) takes a function of one value"):
        wrong[0]
