"""The listeners of tcp, HTTP and gRPC as they are, with their own rules about when they look, in virtual time and
without a network: what is between two ends is a list of frames that the test carries.

Each carrier has ``connect``, which gives a `Wire`; ``run`` lets it do what it would do now, and never anything else.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import threading
from types import SimpleNamespace

from simlink.channels.grpc import listener as grpc_listener
from simlink.channels.http import gate as http_gate
from simlink.channels.http.app import _STATUS
from simlink.channels.http.gate import Gate
from simlink.channels.http.settings import Settings as HttpSettings
from simlink.channels.link.reception import Manners, Peer, Reception
from simlink.channels.tcp import listener as tcp_listener
from simlink.channels.tcp.settings import Settings as TcpSettings
from simlink.channels.wire.codec import encode
from simlink.channels.wire.frames import FrameError
from simlink.channels.wire.framing import FrameReader, read_frames

__all__ = ["CARRIERS", "Clock", "GrpcCarrier", "HttpCarrier", "TcpCarrier"]


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class _Handle:
    def __init__(self, at, call):
        self.at, self.call = at, call

    def cancel(self):
        self.call = None

    def when(self):
        return self.at


class _Loop:
    """What the listeners ask of an event loop."""

    def __init__(self, clock):
        self.time = clock
        self._count = itertools.count()
        self._timers = []

    def call_later(self, seconds, call, *arguments):
        handle = _Handle(self.time() + seconds, lambda: call(*arguments))
        heapq.heappush(self._timers, (handle.at, next(self._count), handle))
        return handle

    def call_soon(self, call, *arguments):
        return self.call_later(0.0, call, *arguments)

    call_soon_threadsafe = call_soon

    def is_running(self):
        return False

    def is_closed(self):
        return False

    def run(self):
        while self._timers and self._timers[0][0] <= self.time():
            handle = heapq.heappop(self._timers)[2]
            if handle.call is not None:
                handle.call()


class Wire:
    """A connection, as the sender has it.

    Attributes:
        posts: what is on its way to the receiver: bytes, each what was written at once.
        heard: what is on its way to the sender: frames as bytes, each with its head.
        ended: the receiver has ended it, after what is in ``heard``.
    """

    ordered = True
    """What is written arrives in that order."""
    divisible = False
    """A part of it may arrive."""

    def __init__(self):
        self.posts = []
        self.heard = []
        self.ended = False


# --- tcp ----------------------------------------------------------------------------------------------------------


class _Socket:
    """The listener's end of a connection."""

    def __init__(self):
        self.incoming, self.outgoing = bytearray(), bytearray()
        self.hung_up = self.shut = self.closed = False

    def recv(self, size):
        if not self.incoming and not self.hung_up:
            raise BlockingIOError
        data = bytes(self.incoming[:size])
        del self.incoming[:size]
        return data

    def recv_into(self, room):
        data = self.recv(len(room))
        room[: len(data)] = data
        return len(data)

    def send(self, data):
        if self.hung_up:
            raise BrokenPipeError
        self.outgoing += data
        return len(data)

    def shutdown(self, how):
        self.shut = True

    def close(self):
        self.closed = True

    def setblocking(self, flag):
        pass

    def setsockopt(self, *_):
        pass

    @property
    def readable(self):
        return bool(self.incoming) or self.hung_up


class _Door(_Socket):
    def __init__(self):
        super().__init__()
        self.knocking = []

    def accept(self):
        if not self.knocking:
            raise BlockingIOError
        return self.knocking.pop(0), ("127.0.0.1", 1)

    def getsockname(self):
        return ("127.0.0.1", 4000)

    @property
    def readable(self):
        return bool(self.knocking)


class _Selector:
    """Selects among `_Socket`; where a real one would sleep, it lets the test go on."""

    def __init__(self, clock):
        self._clock = clock
        self._keys = {}
        self.until = 0.0
        self.turn, self.slept = threading.Semaphore(0), threading.Semaphore(0)

    def register(self, sock, events, data):
        self._keys[sock] = SimpleNamespace(data=data, events=events)

    def modify(self, sock, events, data):
        self._keys[sock] = SimpleNamespace(data=data, events=events)

    def unregister(self, sock):
        del self._keys[sock]

    def get_map(self):
        return self._keys

    def close(self):
        pass

    def ready(self):
        out = []
        for sock, key in list(self._keys.items()):
            mask = (selectors.EVENT_READ if sock.readable else 0) | selectors.EVENT_WRITE
            if mask & key.events:
                out.append((key, mask & key.events))
        return out

    def select(self, wait):
        self.until = self._clock() + wait
        while not (ready := self.ready()) and self._clock() < self.until:
            self.slept.release()
            self.turn.acquire()
        return ready


class _TcpWire(Wire):
    divisible = True

    def __init__(self, sock):
        super().__init__()
        self.sock = sock
        self._reader = FrameReader()

    def hear(self):
        if not self.ended:
            self._reader.feed(bytes(self.sock.outgoing))
            self.sock.outgoing.clear()
            self.heard += map(encode, self._reader.frames())
            self.ended = self.sock.shut or self.sock.closed


class TcpCarrier:
    """The listener of tcp://, its thread in lockstep with the test's."""

    def __init__(self, clock, *, heartbeat, dead, max_frame_bytes, patch):
        self.clock = clock
        self._door = _Door()
        self._selector = _Selector(clock)
        wake_out, wake_in = _Socket(), _Socket()
        wake_in.send = wake_out.incoming.extend
        patch(tcp_listener, "time", SimpleNamespace(monotonic=clock, sleep=None))
        patch(tcp_listener, "bind", lambda *_: self._door)
        constants = {name: getattr(socket, name) for name in ("IPPROTO_TCP", "TCP_NODELAY", "SHUT_WR")}
        patch(tcp_listener, "socket", SimpleNamespace(socketpair=lambda: (wake_out, wake_in), **constants))
        kinds = {name: getattr(selectors, name) for name in ("EVENT_READ", "EVENT_WRITE")}
        patch(tcp_listener, "selectors", SimpleNamespace(DefaultSelector=lambda: self._selector, **kinds))
        settings = TcpSettings(
            heartbeat=heartbeat,
            dead=dead,
            orphan_after=2 * dead,
            frame_timeout=10_000.0,
            hello_timeout=10_000.0,
            max_frame_bytes=max_frame_bytes,
        )
        self._listener = tcp_listener.Listener("here", 4000, settings)
        self._listener._places._clock = clock
        self._listener._run_there = self._run_there
        self._wires = []
        self._selector.slept.acquire()

    def _run_there(self, command, timeout):
        self._listener._command(command)
        self.run()

    def join(self, name, mode, bounds, subscription, capacity, overflow):
        return self._listener.join(name, mode, bounds, subscription, capacity=capacity, overflow=overflow)

    def leave(self, name, reader):
        self._listener.leave(name, reader, 0.0)

    def destination(self, name):
        found = self._listener._places.get(name)
        return None if found is None else found.destination

    def run(self):
        selector = self._selector
        while selector.ready() or self.clock() >= selector.until:
            selector.turn.release()
            selector.slept.acquire()
        for wire in list(self._wires):
            wire.hear()
        assert self._listener.error is None, self._listener.error

    def connect(self, hello):
        wire = _TcpWire(_Socket())
        self._door.knocking.append(wire.sock)
        self._wires.append(wire)
        wire.sock.incoming += encode(hello)
        self.run()
        return wire

    def carry(self, wire, data):
        if not wire.ended:
            wire.sock.incoming += data

    def hang_up(self, wire):
        wire.sock.hung_up = True
        wire.ended = True
        if wire in self._wires:
            self._wires.remove(wire)

    def close(self):
        self._listener._stopping_at = -1.0
        self._selector.until = -1.0
        self._selector.turn.release()
        self._listener._thread.join(10.0)
        assert not self._listener._thread.is_alive()


# --- HTTP ---------------------------------------------------------------------------------------------------------


class _HttpWire(Wire):
    ordered = False

    def __init__(self, session):
        super().__init__()
        self.session = session
        self.replies = []
        """Of posts: status and body, which may come in any order too."""


class HttpCarrier:
    """The gate of http://; the posts of a wire are carried in any order."""

    def __init__(self, clock, *, heartbeat, dead, max_frame_bytes, patch):
        self.clock = clock
        patch(http_gate, "time", SimpleNamespace(monotonic=clock))
        self._gate = Gate("here")
        self._gate._places._clock = clock
        self._gate.adopt(
            HttpSettings(heartbeat=heartbeat, dead=dead, orphan_after=2 * dead, max_body_bytes=max_frame_bytes + 4)
        )
        self._loop = _Loop(clock)
        self._gate._loop = self._loop
        self._gate._tick()
        self._gate._pump()
        self._wires = []

    def join(self, name, mode, bounds, subscription, capacity, overflow):
        return self._gate.join(name, mode, bounds, subscription, capacity=capacity, overflow=overflow)

    def leave(self, name, reader):
        self._gate.leave(name, reader, 0.0)

    def destination(self, name):
        found = self._gate._places.get(name)
        return None if found is None else found.destination

    def run(self):
        self._loop.run()
        for wire in list(self._wires):
            self._hear(wire)

    def _hear(self, wire):
        session = wire.session
        if not wire.ended:
            wire.heard += map(encode, read_frames(bytes(session.out)))
            session.out.clear()
            wire.ended = session.ended
            if session.ended:
                self._gate.lost(session)

    def connect(self, hello):
        try:
            session = self._gate.hello(hello.destination, hello)
        except FrameError:
            wire = _HttpWire(None)
            wire.ended = True
            return wire
        wire = _HttpWire(session)
        self._wires.append(wire)
        self.run()
        return wire

    def carry(self, wire, data):
        session = wire.session
        if session.ended:
            wire.replies.append((409, []))
            return
        try:
            replies = self._gate.take(session, read_frames(data))
        except FrameError as error:
            wire.replies.append((_STATUS.get(error.code, 400), []))
            return
        wire.replies.append((202, [encode(frame) for frame in replies]))
        session.destination.announce()

    def hang_up(self, wire):
        wire.ended = True
        if wire.session is not None:
            self._gate.lost(wire.session)
            wire.session.ended = True
        if wire in self._wires:
            self._wires.remove(wire)

    def close(self):
        pass


# --- gRPC ---------------------------------------------------------------------------------------------------------


class _GrpcPeer(Peer):
    def __init__(self, wire, loop, gone):
        super().__init__("peer", loop.time())
        self._wire, self._loop, self._gone = wire, loop, gone
        self._woken = False

    def wake(self):
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self.write)

    def write(self):
        """As `Links._write` does."""
        if not self._wire.writable:
            self.writing = True
            return
        self._woken = False
        self.writing = True
        while frames := self.take():
            self._wire.heard += map(encode, frames)
        self.writing = False
        if self.ended:
            self._wire.ended = True
            self._gone(self)


class _GrpcWire(Wire):
    writable = True
    """The receiver can write; otherwise HTTP/2 holds it back."""


class GrpcCarrier:
    """The reception of grpc://, and its listener's timers."""

    def __init__(self, clock, *, heartbeat, dead, max_frame_bytes, patch):
        self.clock = clock
        self._loop = _Loop(clock)
        self._listener = listener = grpc_listener.Listener.__new__(grpc_listener.Listener)
        listener._loop = self._loop
        listener._armed = True
        listener._pump_due = False
        listener._pumped = 0.0
        listener._next_tick = None
        listener._stopping = SimpleNamespace(is_set=lambda: False, set=lambda: None)
        listener._failure = None
        manners = Manners(heartbeat, dead, 2 * dead, 10_000.0, 10_000.0, max_frame_bytes)
        self._reception = listener.reception = Reception(
            "here",
            manners,
            post=listener._post,
            soon=listener._soon,
            notify=listener._notify,
            hasten=listener._hasten,
            clock=clock,
        )
        listener._tick()

    def join(self, name, mode, bounds, subscription, capacity, overflow):
        return self._reception.join(name, mode, bounds, subscription, capacity=capacity, overflow=overflow)

    def leave(self, name, reader):
        self._reception.leave(name, reader, 0.0, alive=lambda: False)
        self.run()

    def destination(self, name):
        found = self._reception._places.get(name)
        return None if found is None else found.destination

    def run(self):
        self._loop.run()
        if self._listener._failure is not None:
            raise self._listener._failure

    def connect(self, hello):
        wire = _GrpcWire()
        wire.peer = _GrpcPeer(wire, self._loop, self._reception.gone)
        self._reception.opened(wire.peer)
        self._reception.received(wire.peer, hello)
        self.run()
        return wire

    def carry(self, wire, data):
        for frame in read_frames(data):
            if not wire.peer.ended:
                self._reception.received(wire.peer, frame)

    def hold(self, wire, writable):
        wire.writable = writable
        if writable and wire.peer.writing:
            wire.peer.write()

    def hang_up(self, wire):
        wire.ended = True
        self._reception.gone(wire.peer)

    def close(self):
        pass


CARRIERS = {"tcp": TcpCarrier, "http": HttpCarrier, "grpc": GrpcCarrier}
