"""One bound on half-read frames over all connections: it holds, and nobody waits for ever."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from simlink.channels.tcp.unread import Unread
from simlink.channels.wire.codec import encode
from simlink.channels.wire.frames import BatchFrame
from simlink.channels.wire.framing import FrameReader
from simlink.message import Batch

BASE = FrameReader.BASE
KIB = 1024


class Peer:
    """A connection, as far as it is read."""

    def __init__(self, unread, *sizes):
        self.reader = FrameReader(managed=True)
        self.unread = unread
        self.stream = memoryview(b"".join(framed(size) for size in sizes))
        self.sent = 0
        self.frames = 0

    def offers(self, count):
        """So many bytes have come."""
        left = min(count, len(self.stream) - self.sent)
        while left and self.unread.grow(self):
            with self.reader.buffer() as room:
                n = min(len(room), left)
                room[:n] = self.stream[self.sent : self.sent + n]
            self.reader.received(n)
            self.unread.read_ahead(self)
            self.sent += n
            left -= n
            taken = 0
            while self.reader.next_frame() is not None:
                taken += 1
            self.frames += taken
            if taken:
                self.unread.progressed(self)

    @property
    def done(self):
        return self.sent == len(self.stream)


def framed(size):
    """A frame of about so many bytes, quickly decoded."""
    return encode(BatchFrame(0, Batch([bytes(size)])))


def kept(unread, peers):
    """What is really held; the books know of it."""
    held = sum(peer.reader.capacity - BASE for peer in peers)
    assert held <= unread.taken
    return held


sizes = st.lists(st.one_of(st.integers(1, 200), st.integers(40 * KIB, 70 * KIB), st.just(300 * KIB)), max_size=4)


@settings(deadline=None, max_examples=50)
@given(st.lists(sizes, min_size=1, max_size=6), st.one_of(st.integers(0, 1600 * KIB), st.just(20_000 * KIB)), st.data())
def test_the_bound_holds_and_whoever_goes_on_sending_is_read_to_the_end(of, limit, data):
    unread = Unread(limit, 30.0)
    peers = [Peer(unread, *each) for each in of]
    for _ in range(data.draw(st.integers(0, 30))):
        peer = data.draw(st.sampled_from(peers))
        if not unread.waits(peer):
            peer.offers(data.draw(st.sampled_from([1, 5, 1000, 20_000, 100_000, 500_000])))
        unread.admitted()
        # One frame of each of the two lengths may be longer than all there is.
        assert kept(unread, peers) <= unread.taken <= limit + 2 * 301 * KIB
    for _ in range(200):
        for peer in peers:
            if not unread.waits(peer):
                peer.offers(50_000)
        unread.admitted()
        if all(peer.done for peer in peers):
            break
    assert [peer.frames for peer in peers] == [len(each) for each in of]
    assert not unread


def test_who_waits_with_the_begin_of_its_next_frame_does_not_keep_the_others_waiting():
    """The third has read far beyond its first frame when it has to wait, and no one else has any room."""
    unread = Unread(0, 30.0)
    peers = [Peer(unread, 300 * KIB), Peer(unread, 300 * KIB), Peer(unread, 65_524, 300 * KIB)]
    peers[2].offers(50_000)
    peers[2].offers(81_072)
    assert (peers[2].frames, peers[2].reader.pending > BASE * 3 // 4) == (1, True)
    for _ in range(30):
        for peer in peers:
            if not unread.waits(peer):
                peer.offers(50_000)
        unread.admitted()
    assert [peer.frames for peer in peers] == [1, 1, 2]


def test_those_who_have_room_and_wait_go_on_one_by_one():
    """Of many, who together have all there is, and each of whom needs more than is left."""
    unread = Unread(8_000 * KIB, 30.0)
    peers = [Peer(unread, *[70 * KIB, 600 * KIB] * 3) for _ in range(200)]
    for _ in range(3_000):
        for peer in peers:
            if not unread.waits(peer):
                peer.offers(66_000)
        unread.admitted()
        assert unread.taken <= (8_000 + 601 + 71) * KIB
    assert {peer.frames for peer in peers} == {6}
    assert (unread.taken, bool(unread)) == (0, False)


def test_a_length_that_is_only_announced_costs_nothing():
    unread = Unread(256 * KIB, 30.0)
    head = framed(8_000_000)[:100]
    for _ in range(100):
        peer = Peer(unread)
        peer.stream = memoryview(head)
        peer.offers(100)
    assert (unread.taken, bool(unread)) == (0, False)


def test_what_does_not_fit_waits_and_small_frames_pass():
    unread = Unread(1000 * KIB, 30.0)
    first, second, third = Peer(unread, 400 * KIB), Peer(unread, 400 * KIB), Peer(unread, *[30 * KIB] * 50)
    for _ in range(2):
        for peer in (first, second):
            if not unread.waits(peer):
                peer.offers(60 * KIB)
    third.offers(10_000_000)
    assert (unread.waits(first), unread.waits(second), third.done) == (False, True, True)
    assert unread.waited == 1
    assert unread.admitted() == []
    first.offers(10_000_000)
    assert unread.admitted() == [second]
    second.offers(10_000_000)
    assert (first.frames, second.frames, third.frames) == (1, 1, 50)


def test_alone_any_frame_finds_room():
    unread = Unread(1, 30.0)
    peer = Peer(unread, 4_000_000)
    peer.offers(10_000_000)
    assert (peer.frames, unread.taken) == (1, 0)


def test_a_connection_that_ends_makes_room():
    unread = Unread(1000 * KIB, 30.0)
    first, second = Peer(unread, 400 * KIB), Peer(unread, 400 * KIB)
    for peer in (first, first, second, second):
        peer.offers(60 * KIB)
    assert unread.waits(second)
    unread.leave(first)
    assert unread.admitted() == [second]
    unread.leave(second)
    assert unread.taken == 0


def test_huge_frames_do_not_keep_an_ordinary_one_waiting():
    unread = Unread(16_000 * KIB, 30.0)
    huge = [Peer(unread, 7_000 * KIB) for _ in range(3)]
    for peer in (*huge, *huge):
        if not unread.waits(peer):
            peer.offers(60 * KIB)
    assert [unread.waits(peer) for peer in huge] == [False, True, True]
    ordinary = Peer(unread, *[200 * KIB] * 10)
    ordinary.offers(10_000_000)
    assert ordinary.frames == 10


def test_buffers_that_are_larger_than_what_is_in_them_are_given_back_first():
    unread = Unread(10_000 * KIB, 30.0)
    busy = Peer(unread, *[50 * KIB] * 40)
    busy.offers(10_000_000)
    assert busy.reader.capacity > BASE
    # 2,500 KiB are for frames of up to 156 KiB.
    others = [Peer(unread, 150 * KIB) for _ in range(16)]
    for peer in (*others, *others):
        peer.offers(60 * KIB)
    assert busy.reader.capacity == BASE
    assert [unread.waits(peer) for peer in others] == [False] * 16


def test_while_somebody_waits_a_stalled_frame_is_a_laggard_and_one_that_comes_is_not():
    unread = Unread(1200 * KIB, 10.0)
    stalled, coming, waiting, other = (Peer(unread, 400_000) for _ in range(4))
    for peer in (stalled, coming):
        peer.offers(140_000)
    assert unread.laggards(0.0) == []
    waiting.offers(140_000)
    assert unread.waits(waiting)
    assert unread.laggards(100.0) == []
    # A tenth of it a second is what is asked.
    coming.offers(41_000)
    assert unread.laggards(101.0) == [stalled]
    unread.leave(stalled)
    assert unread.admitted() == [waiting]
    # Nobody waits, nobody is hurried; and the next time the second begins anew.
    assert unread.laggards(150.0) == []
    other.offers(140_000)
    assert unread.waits(other)
    assert unread.laggards(200.0) == []
    assert unread.laggards(201.0) == [coming, waiting]


def test_the_shortest_frame_and_the_one_that_came_first_have_their_turn_alternately():
    unread = Unread(1000 * KIB, 1.0)
    first = Peer(unread, 1_000_000)
    huge, *others = (Peer(unread, size) for size in (900_000, 800_000, 450_000, 440_000))
    for peer in (first, huge, *others):
        peer.offers(60_000)
        peer.offers(1)
    order = []
    unread.leave(first)
    for _ in range(4):
        (admitted,) = unread.admitted()
        order.append(admitted)
        unread.leave(admitted)
    assert order == [huge, others[2], others[0], others[1]]
