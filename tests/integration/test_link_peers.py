"""tcp, http and grpc against peers that say what they like: lost, silent, out of place, and no peers at all."""

from __future__ import annotations

import time

import pytest

from simlink.channels.driver import OutcomeKind
from simlink.channels.wire.codec import HEAD, encode
from simlink.channels.wire.frames import (
    Accept,
    BatchFrame,
    Bye,
    Code,
    ErrorFrame,
    Heartbeat,
    Moved,
    Settle,
    Welcome,
)
from simlink.errors import ConnectError
from simlink.message import Batch
from tests.support import links
from tests.support.brokerless import (
    bodies,
    listen_for,
    numbered,
    receiving,
    refused,
    sending,
    take,
    until,
)


def accepted(peer, below):
    until(lambda: (frame := peer.hear(Accept)) and frame.below == below, "acceptance")


# --- senders that are lost, leave, or come again ---------------------------------------------------------------------


def test_what_a_lost_sender_left_is_handed_out_again_after_a_while(link):
    d = link.driver(**link.quick)
    with receiving(d) as rx:
        with link.peer(d.bound_port) as lost:
            lost.hello()
            lost.say(BatchFrame(0, numbered(0, 2)))
            accepted(lost, 2)
        assert take(rx, 1) == [(b"0", 1)]  # heard just now: a fresh hand-out
        until(lambda: rx.stats()["senders"] == 1 and rx.stats()["connected"] == 0, "the loss")
        time_of_loss = time.monotonic()
        until(lambda: time.monotonic() - time_of_loss > link.quick["dead"], "silence")
        assert take(rx, 1) == [(b"1", 2)]
        assert time.monotonic() - time_of_loss > link.quick["orphan_after"] - 0.2
        assert rx.stats()["orphans"] == 1


def test_what_a_sender_left_with_a_goodbye_is_handed_out_at_any_time(link):
    d = link.driver(**link.quick)
    with receiving(d) as rx:
        with link.peer(d.bound_port) as leaving:
            leaving.hello()
            leaving.say(BatchFrame(0, numbered(0, 2)), Bye())
            assert leaving.hear(ErrorFrame) is None  # heard to the end
        since = time.monotonic()
        until(lambda: time.monotonic() - since > link.quick["dead"], "silence")
        assert take(rx, 2) == [(b"0", 1), (b"1", 1)]
        until(lambda: rx.stats()["senders"] == 0, "the end of the link")


def test_a_sender_that_connects_anew_replaces_its_old_connection(link):
    d = link.driver()
    with receiving(d) as rx, link.peer(d.bound_port) as old, link.peer(d.bound_port) as new:
        first = old.hello()
        old.say(BatchFrame(0, numbered(0, 2)))
        accepted(old, 2)
        second = new.hello(incarnation=first.incarnation, next=5)
        assert (second.incarnation, second.accepted) == (first.incarnation, 2)
        assert old.hear(ErrorFrame).code is Code.REPLACED
        assert take(rx, 2) == [(b"0", 1), (b"1", 1)]
        assert new.hear(Settle).below == 2


def test_a_second_copy_of_what_is_held_is_dropped_and_settled_with_the_first(link):
    d = link.driver()
    with receiving(d) as rx, link.peer(d.bound_port) as one, link.peer(d.bound_port) as two:
        one.hello()
        two.hello(sender=b"2" * 16)
        one.say(BatchFrame(0, numbered(0, 3)))
        accepted(one, 3)
        two.say(BatchFrame(0, numbered(1, 3)))
        accepted(two, 3)
        assert rx.stats()["duplicates"] == 2
        with sending(d):  # somebody else's link changes nothing
            assert take(rx, 4) == [(b"%d" % i, 1) for i in range(4)]
        for peer in (one, two):
            until(lambda peer=peer: peer.hear(Settle).below == 3, "settling")


def test_what_was_moved_elsewhere_is_dropped_unless_it_was_handed_out(link):
    d = link.driver()
    with receiving(d) as rx, link.peer(d.bound_port) as raw:
        raw.hello()
        raw.say(BatchFrame(0, numbered(0, 6)))
        accepted(raw, 6)
        assert take(rx, 2, settle=False) == [(b"0", 1), (b"1", 1)]
        raw.say(Moved([(1, 3), (4, 5)]))
        until(lambda: rx.stats()["subscriptions"]["orders"]["messages"] == 4, "the drop")
        assert take(rx, 2) == [(b"3", 1), (b"5", 1)]
        # They may come back: their identities are forgotten here.
        raw.say(BatchFrame(6, numbered(2, 1)))
        assert take(rx, 1) == [(b"2", 1)]


# --- bad senders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "data", "code", "end"),
    [
        ("tcp", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Code.VERSION, None),
        ("tcp", HEAD.pack(20, 2) + b"x" * 19, Code.VERSION, None),
        ("tcp", HEAD.pack(100_000_000, 1), Code.TOO_LARGE, None),
        ("tcp", HEAD.pack(20, 1) + b"\xff" * 19, Code.PROTOCOL, None),
        ("grpc", b"\xff" * 19, Code.PROTOCOL, "INVALID_ARGUMENT"),
        *(
            (scheme, frame, Code.PROTOCOL, end)
            for scheme, end in (("tcp", None), ("grpc", "INVALID_ARGUMENT"))
            for frame in (Heartbeat(), BatchFrame(0, numbered(0, 1)), Accept(1, 1, 1))
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, bytes | Heartbeat | BatchFrame | Accept) else None,
)
def test_a_bad_peer_is_told_and_cut_off_and_the_others_notice_nothing(scheme, data, code, end):
    link = links.link(scheme)
    d = link.driver()
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(numbered(0, 5), 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 5)
        with link.peer(d.bound_port) as bad:
            bad.say(data)
            assert bad.hear(ErrorFrame).code is code
            assert bad.hear(ErrorFrame) is None
            assert bad.code == end
        assert (rx.stats()["garbage"], rx.stats()["refused"]) == (1, 1)
        tx.submit(numbered(5, 5), 5)
        assert bodies(rx, 10, tx) == [b"%d" % i for i in range(10)]


def test_garbage_after_good_frames_costs_nothing_that_was_accepted(link):
    d = link.driver()
    with receiving(d) as rx, link.peer(d.bound_port) as bad:
        welcome = bad.hello()
        bad.say(BatchFrame(0, numbered(0, 3)))
        bad.say(link.garbage)
        assert bad.hear(ErrorFrame).code is Code.PROTOCOL
        assert take(rx, 3) == [(b"0", 1), (b"1", 1), (b"2", 1)]
        with link.peer(d.bound_port) as again:
            resumed = again.hello(incarnation=welcome.incarnation, next=3)
            assert (resumed.accepted, resumed.settled) == (3, 3)


@pytest.mark.parametrize(
    ("scheme", "position", "count", "says"),
    [
        # Posts of http may overtake one another: what comes before its turn waits there.
        ("tcp", 5, 1, "position 5 came, and 0 is the next one"),
        ("grpc", 5, 1, "position 5 came, and 0 is the next one"),
        *((scheme, 0, 70_000, "exceeds the credit") for scheme in ("tcp", "http", "grpc")),
    ],
)
def test_a_sender_out_of_place_is_cut_off(scheme, position, count, says):
    link = links.link(scheme)
    d = link.driver()
    with receiving(d), link.peer(d.bound_port) as bad:
        bad.hello()
        bad.say(BatchFrame(position, numbered(0, count)))
        assert says in bad.hear(ErrorFrame).message


@pytest.mark.parametrize(("scheme", "end"), [("tcp", None), ("grpc", "DEADLINE_EXCEEDED")])
def test_a_peer_without_a_hello_is_timed_out(scheme, end):
    link = links.link(scheme)
    d = link.driver(hello_timeout=0.3)  # gRPC's own handshake has no longer than that either
    with receiving(d), link.peer(d.bound_port) as silent:
        assert silent.hear(ErrorFrame).message == "no Hello within 0.3 s"
        assert silent.hear(ErrorFrame) is None
        assert silent.code == end


def test_a_frame_that_is_never_completed_is_timed_out():
    # gRPC passes whole frames on, and http whole bodies, in their own time.
    link = links.link("tcp")
    d = link.driver(frame_timeout=0.2)
    with receiving(d) as rx, link.peer(d.bound_port) as slow:
        slow.hello()
        slow.say(HEAD.pack(1000, 1) + b"x" * 10)
        error = slow.hear(ErrorFrame)
        assert (error.code, error.message) == (Code.TIMEOUT, "a frame was not completed within 0.2 s")
        assert rx.stats()["timed_out"] == 1


def test_a_silent_sender_is_given_up(link):
    d = link.driver(**link.quick)
    with receiving(d) as rx, link.peer(d.bound_port) as silent:
        silent.hello()
        assert silent.hear(ErrorFrame).code is Code.TIMEOUT
        assert silent.hear(ErrorFrame) is None
        assert rx.stats()[link.given_up] == 1


def test_a_sender_that_only_beats_is_kept(link):
    d = link.driver(**link.quick)
    with receiving(d) as rx, sending(d) as tx:
        since = time.monotonic()
        until(lambda: time.monotonic() - since > 3 * link.quick["dead"], "time", lambda: tx.outcomes(0.02))
        assert rx.stats()["connected"] == 1
        tx.submit(numbered(0, 1), 0)
        assert take(rx, 1, tx) == [(b"0", 1)]


# --- bad receivers ---------------------------------------------------------------------------------------------------


def test_a_receiver_that_reads_nothing_costs_the_sender_little(link):
    welcome = Welcome(b"i" * 16, credit=10**6, credit_bytes=10**12)
    with link.welcoming(welcome) as port:
        tx = link.driver(port).sender()
        tx.open(5.0)
        for position in range(0, 10_000, 100):
            tx.submit(Batch([b"x" * 10_000] * 100), position)
        stats, (stat, likely) = tx.stats(), link.ahead
        assert stats[stat] in likely
        assert stats["queued"] > 5_000
        tx.close(0.0)


def test_a_silent_receiver_is_given_up(link):
    with link.welcoming(Welcome(b"i" * 16, credit=10, credit_bytes=1000)) as port:
        tx = link.driver(port, **link.quick).sender()
        tx.open(5.0)
        with pytest.raises(ConnectError, match=r"was silent for 0\.4 s") as caught:
            until(lambda: tx.outcomes(0.05), "silence")
        assert caught.value.retryable
        tx.close(0.0)


@pytest.mark.parametrize(
    ("scheme", "answer", "says", "retryable"),
    [
        ("tcp", b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not a receiver", False),
        ("tcp", HEAD.pack(9, 2) + b"x" * 8, "version 2, and version 1 is what is read here", False),
        ("tcp", encode(ErrorFrame(Code.BUSY, "full", True)), "refuses: full", True),
        ("tcp", encode(Accept(0, 0, 0)), "answers a Hello with Accept", False),
        ("tcp", b"", "closed the connection", True),
        ("http", b"SSH-2.0-OpenSSH\r\n", "is not a receiver: not HTTP", False),
        (
            "http",
            b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi",
            "it streams 'text/html'",
            False,
        ),
        ("http", b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "refuses a stream with 404", True),
        ("http", b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "refuses a stream with 403", False),
        ("http", b"", "closed the connection", True),
        ("grpc", {"answers": [b"\xff" * 9]}, "is not a receiver", False),
        ("grpc", {"answers": [ErrorFrame(Code.BUSY, "full", True)]}, "refuses: full", True),
        ("grpc", {"answers": [Accept(0, 0, 0)]}, "answers a Hello with Accept", False),
        ("grpc", {"stays": False}, "closed the stream", True),
        ("grpc", {"service": "other.Service"}, "is a gRPC server, but no receiver of simlink", False),
        ("grpc", {"code": "INTERNAL"}, "ended the stream: INTERNAL: so it is", True),
        ("grpc", {"code": "PERMISSION_DENIED"}, "refuses: so it is", False),
        ("grpc", {"code": "UNAVAILABLE"}, "cannot be reached, or not any more: so it is", True),
    ],
)
def test_a_bad_receiver_is_named_in_one_line(scheme, answer, says, retryable):
    link = links.link(scheme)
    with link.bad(answer) as port:
        error = refused(link.driver(port))
    assert (says in str(error), error.retryable, "\n" in str(error)) == (True, retryable, False), error
