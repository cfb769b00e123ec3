"""What differs between the transports that are one link over three carriers, so that one test serves all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest

from simlink.channels.wire.codec import HEAD, encode
from tests.support import brokerless, tcp
from tests.support.brokerless import LOCAL, QUICK, answering


@dataclass(frozen=True)
class Link:
    """A transport.

    Attributes:
        peer: a sender that says what it likes, to a port: `say`, `hear`, `hello`.
        welcoming: the port of a receiver that says this Welcome, and then neither says nor reads anything.
        bad: the port of a server that answers a Hello with these bytes and closes; for gRPC, of a `Fake` like this.
        garbage: what is no frame, for the peer to say.
        events: a topic's name.
        longest: the option that bounds a frame.
        credential: the option of who may send.
        quick: options with which silence is noticed at once.
        ahead: a sender's stat, and what it may be when its peer does not read.
        unsent: the stats of a sender that was stopped by nothing but credit, as far as they say so.
        given_up: the receiver's stat that counts senders given up for their silence.
        start, cuts: which connections to cut, as in `brokerless.Proxy`, and behind how many bytes.
    """

    scheme: str
    peer: Callable[[int], Any]
    welcoming: Callable[[Any], AbstractContextManager[int]]
    bad: Callable[[Any], AbstractContextManager[int]]
    ahead: tuple[str, range]
    garbage: bytes = HEAD.pack(16, 1) + b"\xff" * 15
    events: str = "events"
    longest: str = "max_frame_bytes"
    credential: str = "token"
    quick: dict[str, float] = field(default_factory=lambda: QUICK)
    unsent: dict[str, int] = field(default_factory=dict)
    given_up: str = "half_open"
    start: bytes = b""
    cuts: tuple[int, ...] = (777, 3_000, 5_555, 8_001)

    def driver(self, port=0, **options):
        return brokerless.driver(self.scheme, port, **options)

    def url(self, port=0, name="orders"):
        return f"{self.scheme}://{LOCAL}:{port}/{name}"


def _tcp() -> Link:
    return Link(
        "tcp",
        tcp.Raw,
        lambda welcome: answering(encode(welcome)),
        lambda answer: answering(answer, stays=False),
        ahead=("unwritten_bytes", range(1, (1 << 20) + 1)),
        credential="secret",
        unsent={"unwritten_bytes": 0},
    )


def _http() -> Link:
    from tests.support import http

    def welcoming(welcome):
        data = encode(welcome)
        return answering(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.simlink.frames\r\nsimlink-session: abc\r\n"
            b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(data), data)
        )

    return Link(
        "http",
        http.Raw,
        welcoming,
        lambda answer: answering(answer, stays=False),
        ahead=("posts", range(1, 3)),
        events="in/events",
        longest="max_body_bytes",
        given_up="timed_out",
        # Only posts are cut: the stream's request is shorter than any limit.
        start=b"POST",
    )


def _grpc() -> Link:
    pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'simlink[grpc]'")
    from tests.support import grpc

    @contextlib.contextmanager
    def fake(answers=(), **how):
        with grpc.Fake(*answers, **how) as server:
            yield server.port

    return Link(
        "grpc",
        grpc.Raw,
        lambda welcome: fake([welcome]),
        lambda answer: fake(**answer),
        ahead=("unsent_frames", range(3)),
        garbage=b"\xff" * 15,
        quick={**QUICK, "frame_timeout": 0.4},
        unsent={"unsent_frames": 0},
        # A shorter one cuts before there is a link.
        cuts=(5_000, 9_000, 12_345),
    )


_MAKERS = {"tcp": _tcp, "http": _http, "grpc": _grpc}


def link(scheme: str) -> Link:
    """The transport of a scheme; skips the test where its library is missing."""
    return _MAKERS[scheme]()
