"""The client's end of HTTP: replies in any pieces, requests that cannot be split, how long to wait."""

import contextlib
import socket
import time
from email.utils import formatdate
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink.channels.http.client import BadReply, Connection
from simlink.channels.http.requests import basic, bearer, checked_header, head, request_path, retry_after
from simlink.errors import ConfigError


@contextlib.contextmanager
def connected():
    here, there = socket.socketpair()
    here.setblocking(False)
    connection = Connection(here)
    with there:
        try:
            yield connection, there
        finally:
            connection.close()


def hear(connection, there, pieces):
    for piece in pieces:
        if piece:
            there.sendall(piece)
            connection.receive()


def cut(data, places):
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def reply(status, body, chunks):
    start = b"HTTP/1.1 %d Fine\r\nContent-Type: text/x\r\n" % status
    if chunks is None:
        return start + b"content-length: %d\r\n\r\n" % len(body) + body
    parts = [part for part in cut(body, chunks) if part]
    return (
        start
        + b"transfer-encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        + b"0\r\n\r\n"
    )


places = st.lists(st.integers(0, 10_000), max_size=6)


@settings(deadline=None)
@given(status=st.sampled_from([200, 202, 404, 500]), body=st.binary(max_size=300), chunks=st.none() | places, at=places)
def test_a_reply_is_the_same_in_any_pieces(status, body, chunks, at):
    with connected() as (connection, there):
        for _ in range(2):  # the second one on the same connection
            connection.request(b"x")
            hear(connection, there, cut(b"HTTP/1.1 100 Continue\r\n\r\n" + reply(status, body, chunks), at))
            (found,) = connection.replies
            connection.replies.clear()
            assert (found.status, bytes(found.body), found.content_type, found.keep) == (status, body, "text/x", True)
            assert connection.idle


@settings(deadline=None)
@given(body=st.binary(max_size=300), at=places)
def test_a_body_may_last_until_the_connection_ends(body, at):
    with connected() as (connection, there):
        connection.request(b"x")
        hear(connection, there, cut(b"HTTP/1.0 200 Fine\r\n\r\n" + body, at))
        assert not connection.replies
        there.shutdown(socket.SHUT_WR)
        assert not connection.receive()
        assert [(bytes(r.body), r.keep) for r in connection.replies] == [(body, False)]


@settings(deadline=None)
@given(data=st.binary(min_size=1, max_size=200), at=places)
def test_whatever_a_server_says_is_a_reply_or_a_bad_one(data, at):
    with connected() as (connection, there):
        connection.request(b"x")
        with contextlib.suppress(BadReply):
            hear(connection, there, cut(data, at))


def test_a_cut_reply_is_none():
    with connected() as (connection, there):
        connection.request(b"x")
        hear(connection, there, [reply(200, b"12345", None)[:-1]])
        there.shutdown(socket.SHUT_WR)
        assert not connection.receive()
        assert (len(connection.replies), connection.waiting) == (0, 1)


def test_a_reply_that_nobody_asked_for_is_bad():
    with connected() as (connection, there):
        with pytest.raises(BadReply, match="nobody asked for"):
            hear(connection, there, [reply(408, b"", None)])


def test_a_huge_head_is_bad_and_a_huge_body_is_cut():
    with connected() as (connection, there):
        connection.request(b"x")
        with pytest.raises(BadReply, match="head of more than"):
            hear(connection, there, [b"HTTP/1.1 200 Fine\r\n", *[b"x-a: %b\r\n" % (b"y" * 8_000)] * 10])
    with connected() as (connection, there):
        connection.request(b"x")
        data = reply(200, b"z" * 300_000, None)
        hear(connection, there, [data[at : at + 8_192] for at in range(0, len(data), 8_192)])
        assert len(connection.replies[0].body) == 65_536


def test_a_request_that_does_not_fit_goes_out_in_parts():
    with connected() as (connection, there):
        data = bytes(range(256)) * 8_192
        connection.request(data)
        assert connection.out
        got = b""
        while len(got) < len(data):
            got += there.recv(1 << 20)
            connection.flush()
        assert got == data


@settings(deadline=None)
@given(name=st.text(max_size=8), value=st.text(max_size=20))
def test_no_header_splits_a_request(name, value):
    try:
        checked = checked_header(name, value)
    except ValueError:
        return
    lines = head("POST", "/x", [checked]).split(b"\r\n")
    assert lines == [b"POST /x HTTP/1.1", f"{name}: {value}".encode(), b""]
    assert not set(b"\r\n\0") & set(lines[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [("a\r\nb", "1"), ("a", "1\r\nb: 2"), ("a", "x\0"), ("", "1"), ("a b", "1"), ("Content-Length", "5"), ("a", " 1")],
)
def test_headers_that_would_are_refused(name, value):
    with pytest.raises(ValueError, match="header"):
        checked_header(name, value)


def test_paths_are_escaped():
    assert request_path(["a b", "ü", "orders@x"]) == "/a%20b/%C3%BC/orders@x"


def test_credentials():
    assert bearer("t0k") == "Bearer t0k"
    assert basic("ann", "pä:ss") == "Basic YW5uOnDDpDpzcw=="
    with pytest.raises(ConfigError) as caught:
        bearer("sec\r\nret")
    assert "sec" not in str(caught.value)
    with pytest.raises(ConfigError):
        basic("a:b", "")


@settings(deadline=None)
@given(text=st.none() | st.text(max_size=40))
def test_whatever_retry_after_says_it_is_seconds_or_nothing(text):
    seconds = retry_after(text)
    assert seconds is None or 0 <= seconds <= 3600


def test_retry_after_in_both_of_its_forms():
    assert (retry_after("2"), retry_after("99999999"), retry_after("soon")) == (2.0, 3600.0, None)
    assert 28 < retry_after(formatdate(time.time() + 30, usegmt=True)) <= 30
    assert retry_after(formatdate(time.time() - 30, usegmt=True)) == 0.0
