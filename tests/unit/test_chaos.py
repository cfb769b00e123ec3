"""The fault proxy, over real sockets."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from pathlib import Path

import pytest

from simlink.errors import ConfigError, ConnectError, StateError
from simlink.testing.chaos import FaultProxy

PATIENCE = 20.0


class Server:
    """What stands behind the proxy: the test plays it."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE)
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"

    def accept(self):
        peer, _ = self.listener.accept()
        peer.settimeout(PATIENCE)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return peer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def proxy(server):
    with FaultProxy(server.address, seed=3) as proxy:
        yield proxy


def dial(proxy):
    client = socket.create_connection(("127.0.0.1", proxy.port), PATIENCE)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


@contextlib.contextmanager
def pair(proxy, server):
    with dial(proxy) as client, server.accept() as peer:
        yield client, peer


def exactly(sock, size):
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        assert part, f"closed after {len(data)} of {size} bytes"
        data += part
    return data


def rest(sock):
    """All up to the end of the stream; and whether that was a reset."""
    data = b""
    while True:
        try:
            part = sock.recv(65536)
        except ConnectionResetError:
            return data, True
        if not part:
            return data, False
        data += part


def quiet(*socks, seconds=0.1):
    return select.select(socks, [], [], seconds)[0] == []


def test_everything_passes_both_ways_and_ends_are_told(proxy, server):
    big = os.urandom(3_000_000)
    with pair(proxy, server) as (client, peer):
        sending = threading.Thread(target=lambda: (client.sendall(big), client.shutdown(socket.SHUT_WR)))
        sending.start()
        assert rest(peer) == (big, False)
        sending.join()
        # Half closed: the other half still works.
        peer.sendall(b"and back")
        peer.shutdown(socket.SHUT_WR)
        assert rest(client) == (b"and back", False)
    assert proxy.counts["bytes_up"] == len(big)
    assert proxy.counts["bytes_down"] == len(b"and back")


def test_what_waits_is_bounded(proxy, server):
    with pair(proxy, server) as (client, _):
        client.settimeout(0.2)
        # Kernel buffers of four sockets, and ours: nowhere near this much.
        with pytest.raises(TimeoutError):
            client.sendall(bytes(64 * 1024 * 1024))


def test_a_cut_lets_a_part_of_the_next_data_pass(proxy, server):
    with pair(proxy, server) as (client, peer):
        client.sendall(b"whole")
        assert exactly(peer, 5) == b"whole"
        proxy.cut()
        client.sendall(b"0123456789" * 100)
        data, _ = rest(peer)
        assert 0 < len(data) < 1000
        assert (b"0123456789" * 100).startswith(data)
        assert rest(client)[0] == b""
    with pair(proxy, server) as (client, peer):  # only once
        client.sendall(b"whole")
        assert exactly(peer, 5) == b"whole"
    assert proxy.counts["cut"] == 1


def test_a_cut_on_the_way_back(proxy, server):
    with pair(proxy, server) as (client, peer):
        proxy.cut("down", times=1)
        client.sendall(b"question")
        assert exactly(peer, 8) == b"question"
        peer.sendall(b"a long answer")
        data, _ = rest(client)
        assert b"a long answer".startswith(data)
        assert 0 < len(data) < 13


def test_the_seed_decides_where_a_cut_falls(server):
    def cut(seed):
        with FaultProxy(server.address, seed=seed) as proxy, pair(proxy, server) as (client, peer):
            proxy.cut()
            client.sendall(b"x" * 1000)
            return len(rest(peer)[0])

    assert cut(1) == cut(1)
    assert len({cut(seed) for seed in range(5)}) > 1


def test_pieces_are_as_long_as_asked_for(proxy, server):
    proxy.slice(1, 7)
    with pair(proxy, server) as (client, peer):
        body = bytes(range(256)) * 4
        client.sendall(body)
        assert exactly(peer, len(body)) == body
        # No piece is longer than 7, and not all are that long.
        assert len(body) / 7 < proxy.counts["pieces"] < len(body)
        proxy.slice(1, 1)
        before = proxy.counts["pieces"]
        client.sendall(b"abc")
        assert exactly(peer, 3) == b"abc"
        # A piece is counted once it is written, which may be just after it was read.
        assert proxy.wait_for("pieces", before + 3) == before + 3


def test_a_stall_holds_everything_back_and_then_lets_it_pass(proxy, server):
    with pair(proxy, server) as (client, peer):
        proxy.stall(60)
        client.sendall(b"later")
        peer.sendall(b"later, too")
        assert quiet(client, peer)
        assert proxy.counts["bytes_up"] == 0
        began = time.monotonic()
        proxy.stall(0.3)  # the last word counts
        assert exactly(peer, 5) == b"later"
        assert exactly(client, 10) == b"later, too"
        assert time.monotonic() - began >= 0.25


def test_a_throttled_way_is_as_fast_as_asked(proxy, server):
    proxy.throttle(20_000)
    with pair(proxy, server) as (client, peer):
        began = time.monotonic()
        client.sendall(b"x" * 10_000)
        exactly(peer, 10_000)
        took = time.monotonic() - began
        assert 0.4 < took < 20.0
        proxy.heal()
        client.sendall(b"x" * 10_000)
        exactly(peer, 10_000)


def test_a_reset_ends_every_connection_at_once(proxy, server):
    with pair(proxy, server) as (one, first), pair(proxy, server) as (two, second):
        assert proxy.reset() == 2
        assert [rest(sock) for sock in (one, first, two, second)] == [(b"", True)] * 4
    assert proxy.connections == 0
    assert proxy.counts["reset"] == 2


def test_every_nth_reply_is_lost_after_its_request_has_passed(proxy, server):
    proxy.lose_replies(3)
    answered = []
    done = []

    def serve():
        for _ in range(3):
            with server.accept() as peer:
                while request := peer.recv(4):
                    done.append(request)
                    with contextlib.suppress(OSError):
                        peer.sendall(b"two " + b"parts")

    serving = threading.Thread(target=serve)
    serving.start()
    asked = 0
    for _ in range(3):
        with dial(proxy) as client, contextlib.suppress(OSError, AssertionError):
            while asked < 7:
                asked += 1
                client.sendall(b"%04d" % asked)
                exactly(client, 9)
                answered.append(asked)
    serving.join(PATIENCE)
    assert not serving.is_alive()
    assert done == [b"%04d" % n for n in range(1, 8)]
    assert answered == [1, 2, 4, 5, 7]
    assert proxy.counts["replies"] == 7
    assert proxy.counts["lost_replies"] == 2


def test_silence_swallows_and_keeps_connections_up_until_it_is_over(proxy, server):
    with pair(proxy, server) as (client, peer), contextlib.ExitStack() as stack:
        proxy.silence()
        client.sendall(b"hello?")
        assert proxy.wait_for("swallowed", 6) == 6
        late = stack.enter_context(dial(proxy))
        late.sendall(b"anybody?")
        assert proxy.wait_for("swallowed", 14) == 14
        peer.close()  # nobody is told
        assert quiet(client, late)
        proxy.heal()
        assert rest(client) == (b"", True)
        assert rest(late) == (b"", True)
    with pair(proxy, server) as (client, peer):
        client.sendall(b"again")
        assert exactly(peer, 5) == b"again"


def test_only_what_is_up_is_silenced_if_so_asked(proxy, server):
    with pair(proxy, server) as (client, peer):
        proxy.silence(new=False)
        client.sendall(b"hello?")
        assert proxy.wait_for("swallowed", 6) == 6
        peer.close()  # nobody is told
        with pair(proxy, server) as (late, other):
            late.sendall(b"anybody?")
            assert exactly(other, 8) == b"anybody?"
            assert quiet(client)
            proxy.heal()
            assert rest(client) == (b"", True)
            late.sendall(b"still")
            assert exactly(other, 5) == b"still"


def test_it_refuses_and_then_accepts_at_the_same_port(proxy, server):
    with pair(proxy, server) as (client, peer):
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            dial(proxy)
        client.sendall(b"still up")
        assert exactly(peer, 8) == b"still up"
    proxy.accept()
    with pair(proxy, server) as (client, peer):
        client.sendall(b"in")
        assert exactly(peer, 2) == b"in"


def test_it_can_refuse_from_the_start(server):
    proxy = FaultProxy(server.address)
    proxy.refuse()
    with proxy:
        with pytest.raises(ConnectionRefusedError):
            dial(proxy)
        proxy.heal()
        with pair(proxy, server):
            pass


def test_a_server_that_is_not_there_resets(proxy, server):
    server.listener.close()
    try:
        with dial(proxy) as client:
            assert rest(client) == (b"", True)
    except ConnectionResetError:
        pass  # so soon that connecting itself was reset
    assert proxy.wait_for("unreachable") == 1


def test_the_target_may_be_told_later(server):
    with FaultProxy() as proxy:
        with dial(proxy) as client:
            assert rest(client)[0] == b""
        assert proxy.target is None
        proxy.target = server.address
        with pair(proxy, server) as (client, peer):
            client.sendall(b"x")
            assert exactly(peer, 1) == b"x"


def test_left_it_leaves_nothing(server):
    def sockets():
        links = []
        for fd in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                links.append(str(fd.readlink()))
        return sorted(link for link in links if "socket" in link or "eventpoll" in link)

    before = sockets()
    with FaultProxy(server.address) as proxy, pair(proxy, server) as (client, peer):
        (thread,) = (t for t in threading.enumerate() if t.name == f"simlink-chaos-{proxy.port}")
        proxy.close()
        proxy.close()
        assert not thread.is_alive()
        assert rest(client)[0] == rest(peer)[0] == b""
    assert sockets() == before
    with pytest.raises(ConnectionRefusedError):
        dial(proxy)
    with pytest.raises(StateError, match="closed"):
        proxy.heal()
    with pytest.raises(StateError, match="once"), proxy:
        pass


def test_a_port_that_is_taken_is_told(server):
    with pytest.raises(ConnectError, match="cannot listen at"), FaultProxy(port=server.listener.getsockname()[1]):
        pass


@pytest.mark.parametrize("target", ["127.0.0.1", ":80", "h:", "h:0", "h:70000", "h:x"])
def test_a_target_that_is_none(target):
    with pytest.raises(ConfigError, match="host:port"):
        FaultProxy(target)


def test_faults_that_make_no_sense_are_refused(proxy):
    for call in (lambda: proxy.slice(0, 3), lambda: proxy.slice(5, 4), lambda: proxy.throttle(0)):
        with pytest.raises(ConfigError):
            call()
    with pytest.raises(ConfigError):
        proxy.lose_replies(-1)


def test_many_connections_at_once_under_changing_faults(proxy, server):
    """Whatever the faults do to one connection, bytes that pass are the bytes that were sent."""

    def echo():
        with contextlib.suppress(OSError):
            while True:
                peer = server.accept()
                threading.Thread(target=answer, args=(peer,), daemon=True).start()

    def answer(peer):
        with peer, contextlib.suppress(OSError):
            while data := peer.recv(65536):
                peer.sendall(data)

    serving = threading.Thread(target=echo)
    serving.start()
    wrong = []

    def talk(number):
        sent = bytes([number]) * 20_000
        for _ in range(5):
            with contextlib.suppress(OSError), dial(proxy) as client:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                data, _ = rest(client)
                if not sent.startswith(data):
                    wrong.append(number)

    talking = [threading.Thread(target=talk, args=(n,)) for n in range(8)]
    for thread in talking:
        thread.start()
    for _ in range(10):
        proxy.cut("down", times=2)
        proxy.slice(1, 100)
        proxy.reset()
        proxy.heal()
    for thread in talking:
        thread.join(PATIENCE)
    server.listener.shutdown(socket.SHUT_RDWR)
    serving.join(PATIENCE)
    assert wrong == []
    assert not any(t.is_alive() for t in [*talking, serving])
