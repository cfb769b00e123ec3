"""The connection without a server: bytes in pieces, a slow peer, waking; and what the words of a refusal come to."""

from __future__ import annotations

import os
import socket
import threading
import time

import hiredis
import hypothesis
import pytest
import redis
from hypothesis import strategies as st

from simlink.channels.driver import Mode
from simlink.channels.redis.failures import (
    Lost,
    Refusal,
    connect_failure,
    is_transient,
    operation_failure,
    receive_failure,
    send_failure,
)
from simlink.channels.redis.scripts import Script
from simlink.channels.redis.settings import Settings
from simlink.channels.redis.wire import NOTHING, Waker, Wire
from simlink.channels.url import parse_url
from simlink.errors import ConfigError, ConnectTimeout, TransportError

TIMEOUT = 10.0


class Connection:
    """What redis-py hands over."""

    def __init__(self, sock):
        self._sock = sock

    def disconnect(self):
        self._sock.close()


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    wire = Wire(Connection(ours), "there:1")
    yield wire, theirs
    wire.close()
    theirs.close()


def answers(wire, count):
    found = []
    while len(found) < count:
        reply = wire.next()
        if reply is NOTHING:
            assert wire.wait(TIMEOUT)
        else:
            found.append(reply)
    return found


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(st.lists(st.integers(0, 12).map(b"1700000000000-%d".__mod__), max_size=6))
def test_ids_are_packed_as_the_client_does(pair, ids):
    wire, _ = pair
    command = ("XACK", "größe".encode(), b"group", *ids)

    assert wire.pack_ids(command) == hiredis.pack_command(command)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_answers_in_pieces(pair, size):
    wire, theirs = pair
    text = b"+OK\r\n*2\r\n$3\r\nabc\r\n:7\r\n-ERR no\r\n$-1\r\n"

    def slices():
        for at in range(0, len(text), size):
            theirs.sendall(text[at : at + size])

    thread = threading.Thread(target=slices)
    thread.start()
    first, second, refused, nothing = answers(wire, 4)
    thread.join()
    assert (first, second, nothing) == (b"OK", [b"abc", 7], None)
    assert (type(refused), str(refused), refused.code) == (Refusal, "ERR no", "ERR")
    assert wire.next() is NOTHING


def test_what_the_system_does_not_take_is_kept(pair):
    wire, theirs = pair
    data = os.urandom(4_000_000)
    wire.send(data)
    assert wire.unsent
    received = bytearray()

    def read():
        while len(received) < len(data):
            received.extend(theirs.recv(1_000_000))

    thread = threading.Thread(target=read)
    thread.start()
    while wire.unsent:
        wire.wait(TIMEOUT)
    thread.join(TIMEOUT)
    assert bytes(received) == data


def test_a_peer_that_leaves_is_told(pair):
    wire, theirs = pair
    theirs.close()
    with pytest.raises(Lost, match="closed the connection"):
        wire.wait(TIMEOUT)
    with pytest.raises(Lost):
        wire.send(b"x")


def test_what_is_no_answer_is_told(pair):
    wire, theirs = pair
    theirs.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    wire.wait(TIMEOUT)
    with pytest.raises(Lost):
        wire.next()


def test_silence_ends_a_call(pair):
    wire, _ = pair
    with pytest.raises(Lost, match=r"did not answer within 0\.05 s"):
        wire.call("PING", timeout=0.05)


def test_a_script_that_the_server_forgot_is_sent_whole(pair):
    wire, theirs = pair
    theirs.sendall(b"-NOSCRIPT No matching script\r\n:5\r\n")
    script = Script("return 5")
    assert wire.run(script, ["k"], 1, timeout=TIMEOUT) == 5
    sent = theirs.recv(10_000)
    assert b"EVALSHA" in sent
    assert script.sha.encode() in sent
    assert b"return 5" in sent


def test_the_waker_ends_a_wait_once(pair):
    wire, _ = pair
    waker = Waker()
    try:
        thread = threading.Timer(0.05, lambda: [waker.set() for _ in range(100_000)])
        thread.start()
        assert wire.wait(TIMEOUT, waker) is False
        thread.join()
        assert waker.clear() is True
        assert waker.clear() is False
        began = time.monotonic()
        waker.wait(0.05)
        assert time.monotonic() - began >= 0.05
        waker.set()
        waker.wait(TIMEOUT)
    finally:
        waker.close()
    waker.set()
    waker.close()


# --- failures -----------------------------------------------------------------------------------------------------

WHERE = {"url": "redis://h/orders", "endpoint": "h:6379"}


@pytest.mark.parametrize(
    ("cause", "words", "retryable"),
    [
        (redis.AuthenticationError("invalid username-password pair"), "refused the user or the password", False),
        (Refusal("NOAUTH Authentication required."), "refused the user or the password", False),
        (Refusal("LOADING Redis is loading the dataset"), "is not ready", True),
        (Refusal("OOM command not allowed"), "is not ready", True),
        (redis.ConnectionError("Error 111 connecting"), "does not answer", True),
        (redis.TimeoutError("Timeout connecting"), "no Redis answered", True),
        (Lost("gone"), "does not answer", True),
        (Refusal("NOPERM no such right"), "refused", False),
        (redis.ResponseError("DB index is out of range"), "refused", False),
    ],
)
def test_what_connecting_comes_to(cause, words, retryable):
    error = connect_failure(cause, **WHERE)
    assert words in str(error)
    assert (error.retryable, error.endpoint, error.__cause__) == (retryable, "h:6379", cause)
    assert isinstance(error, ConnectTimeout) is isinstance(cause, redis.TimeoutError)


def test_what_passes_and_what_does_not():
    assert [is_transient(e) for e in (Lost("x"), OSError(), Refusal("NOSCRIPT x"), Refusal("WRONGTYPE x"))] == [
        True,
        True,
        True,
        False,
    ]


def test_one_line_whatever_the_server_says():
    for error in (
        send_failure(Refusal("ERR two\nlines"), url="u"),
        receive_failure(Lost("two\nlines"), url="u", retryable=True),
        operation_failure(Refusal("ERR two\nlines"), "purging", url="u"),
    ):
        assert "two lines" in str(error)
    assert isinstance(operation_failure(Refusal("ERR x"), "purging", url="u"), TransportError)
    assert isinstance(operation_failure(Refusal("WRONGTYPE x"), "purging", url="u"), ConfigError)


# --- settings -----------------------------------------------------------------------------------------------------


def settings(url, mode=Mode.QUEUE, **options):
    from simlink.channels.redis.settings import OPTIONS

    return Settings.of(parse_url(url), mode, {**{name: o.default for name, o in OPTIONS.items()}, **options})


def test_names_that_a_foreigner_can_rely_on():
    queue, topic = settings("redis://h/orders"), settings("redis://h/events", Mode.TOPIC)
    assert (queue.keys, queue.group_of(None)) == (("orders",), "orders")
    assert (topic.group_of("audit"), topic.group_of(None)) == ("events.audit", None)
    assert settings("redis://h/orders", group="mine").group_of(None) == "mine"
    several = settings("redis://h/orders", streams=2)
    assert several.keys == ("{orders}:0", "{orders}:1")
    assert several.companion("lease", "g", "0") == "{orders}:simlink:lease:g:0"


def test_only_a_queue_without_retention_is_trimmed():
    assert settings("redis://h/orders").trims
    assert not settings("redis://h/orders", retention=5).trims
    assert not settings("redis://h/orders", Mode.TOPIC).trims


def test_secrets_do_not_show():
    shown = repr(settings("redis://ann:geheim@h/orders"))
    assert "geheim" not in shown
