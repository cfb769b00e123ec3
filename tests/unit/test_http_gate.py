"""The gate without a network: posts in any order, and plain clients beside links."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink.channels.driver import Mode, Settlement
from simlink.channels.http.gate import Gate
from simlink.channels.http.plain import read_post
from simlink.channels.http.problem import Problem
from simlink.channels.http.settings import Settings
from simlink.channels.link.reception import Bounds
from simlink.channels.wire.frames import Accept, BatchFrame, Bye, Code, ErrorFrame, FrameError, Hello, Settle, Void
from simlink.channels.wire.framing import read_frames
from simlink.errors import ConfigError
from simlink.message import Batch, Same, Verdict

SENDER = b"s" * 16
JSON = {b"content-type": b"application/json"}


def gate(capacity=1000, **bounds):
    made = Gate("here")
    made.adopt(Settings())
    reader = made.join(
        "orders",
        Mode.QUEUE,
        Bounds(**{"messages": 1000, "nbytes": 1_000_000, **bounds}),
        None,
        capacity=capacity,
        overflow="block",
    )
    return made, reader


def numbered(first, count):
    return Batch(
        [b"%d" % i for i in range(first, first + count)],
        producers=Same(b"p" * 16, count),
        sequences=range(first, first + count),
    )


def told(session):
    frames = read_frames(bytes(session.out))
    session.out.clear()
    return frames


def read(reader, count=10_000):
    return [body for incoming in reader.receive(count, 0.0) for body in incoming.batch.bodies]


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=12), data=st.data())
def test_posts_that_overtake_one_another_are_taken_in_order(sizes, data):
    made, reader = gate()
    session = made.hello("orders", Hello(SENDER, "orders", Mode.QUEUE))
    frames, kept, at = [], [], 0
    for size in sizes:
        if data.draw(st.booleans()):
            frames.append(BatchFrame(at, numbered(at, size)))
            kept += [b"%d" % i for i in range(at, at + size)]
        else:
            frames.append(Void(at, at + size))
        at += size
    # Some come twice: a copy of what was taken changes nothing.
    posts = data.draw(st.permutations([*frames, *data.draw(st.lists(st.sampled_from(frames), max_size=3))]))
    accepted = 0
    for frame in posts:
        for reply in made.take(session, [frame]):
            assert isinstance(reply, Accept)
            assert reply.below > accepted
            accepted = reply.below
    assert accepted == at
    assert read(reader) == kept


def test_readers_are_woken_for_what_came_before_a_frame_that_is_wrong(monkeypatch):
    made, reader = gate()
    session = made.hello("orders", Hello(SENDER, "orders", Mode.QUEUE))
    hub, woken = session.destination.hub, []
    monkeypatch.setattr(hub, "announce", lambda: woken.append(session.link.accepted))
    with pytest.raises(FrameError, match="cannot be posted"):
        made.take(session, [BatchFrame(0, numbered(0, 3)), Accept(1, 0, 0)])
    assert woken == [3]
    assert read(reader) == [b"0", b"1", b"2"]


def test_acceptance_is_replied_and_settlement_is_streamed():
    made, reader = gate()
    session = made.hello("orders", Hello(SENDER, "orders", Mode.QUEUE))
    told(session)
    replies = made.take(session, [BatchFrame(0, numbered(0, 3))])
    assert [(type(r), r.below) for r in replies] == [(Accept, 3)]
    (incoming,) = reader.receive(10, 0.0)
    reader.settle([Settlement(incoming.lease, Verdict.ACK, 0, 2)])
    made.tell(session.destination)
    assert [(type(f), f.below) for f in told(session)] == [(Settle, 3)]


def test_what_comes_early_is_bounded_by_the_credit():
    made, _ = gate()
    session = made.hello("orders", Hello(SENDER, "orders", Mode.QUEUE))
    told(session)
    with pytest.raises(FrameError, match="exceeds the credit"):
        made.take(session, [BatchFrame(session.link.credit, numbered(0, 1))])
    assert [f.code for f in told(session)] == [Code.PROTOCOL]
    assert (session.ended, made.sessions) == (True, {})


def test_what_comes_early_is_bounded_in_bytes():
    made, _ = gate(nbytes=1_000)
    made.settings = Settings(max_body_bytes=1_024)
    session = made.hello("orders", Hello(SENDER, "orders", Mode.QUEUE))
    for position in (10, 20):
        made.take(session, [BatchFrame(position, Batch([b"x" * 1_000]))])
    assert (len(session.early), session.early.nbytes) == (2, 2_000)
    with pytest.raises(FrameError, match="exceeds the credit in bytes"):
        made.take(session, [BatchFrame(30, Batch([b"x"]))])


def test_a_new_stream_of_the_same_sender_ends_the_old_one():
    made, _ = gate()
    old = made.hello("orders", Hello(SENDER, "orders", Mode.QUEUE))
    new = made.hello("orders", Hello(SENDER, "orders", Mode.QUEUE))
    assert [f.code for f in told(old) if isinstance(f, ErrorFrame)] == [Code.REPLACED]
    assert (old.ended, list(made.sessions)) == (True, [new.token])


def test_a_new_stream_keeps_nothing_that_was_settled_from_the_others():
    made, reader = gate()
    session = made.hello("orders", Hello(SENDER, "orders", Mode.QUEUE))
    made.take(session, [BatchFrame(0, numbered(0, 3))])
    told(session)
    (incoming,) = reader.receive(10, 0.0)
    reader.settle([Settlement(incoming.lease, Verdict.ACK, 0, 2)])
    made.hello("orders", Hello(b"2" * 16, "orders", Mode.QUEUE))
    assert [(type(f), f.below) for f in told(session)] == [(Settle, 3)]


def test_a_goodbye_ends_the_session_when_its_news_was_told():
    made, _ = gate()
    session = made.hello("orders", Hello(SENDER, "orders", Mode.QUEUE))
    replies = made.take(session, [BatchFrame(0, numbered(0, 2)), Bye()])
    assert [r.below for r in replies] == [2]
    assert (session.ended, made.sessions) == (True, {})


def test_plain_messages_find_room_or_are_told_when_to_come_back():
    made, reader = gate(messages=3)
    assert made.offer("orders", read_post(JSON, b"[1,2]")) == (2, 0)
    with pytest.raises(Problem) as caught:
        made.offer("orders", read_post(JSON, b"[3,4]"))
    assert (caught.value.status, dict(caught.value.headers)) == (429, {"retry-after": "1"})
    with pytest.raises(Problem) as caught:
        made.offer("orders", read_post(JSON, b"[1,2,3,4]"))
    assert caught.value.status == 413
    assert read(reader) == [b"1", b"2"]  # all of a post, or none of it


def test_an_idempotency_key_is_taken_once():
    made, reader = gate()
    headers = {**JSON, b"idempotency-key": b"k"}
    assert made.offer("orders", read_post(headers, b"[1,2]")) == (2, 0)
    assert made.offer("orders", read_post(headers, b"[1,2]")) == (2, 2)
    with pytest.raises(Problem) as caught:
        made.offer("orders", read_post(headers, b"[9]"))
    assert caught.value.status == 422
    assert read(reader) == [b"1", b"2"]


def test_an_identity_of_ours_is_taken_once():
    made, reader = gate()
    headers = {**JSON, b"idempotency-key": b"%b/7/0" % (b"ab" * 16)}
    assert made.offer("orders", read_post(headers, b"1")) == (1, 0)
    assert made.offer("orders", read_post(headers, b"1")) == (1, 1)
    assert read(reader) == [b"1"]


def test_a_closing_receiver_gives_back_to_links_and_counts_what_plain_clients_lose():
    made, reader = gate()
    session = made.hello("orders", Hello(SENDER, "orders", Mode.QUEUE))
    made.take(session, [BatchFrame(0, numbered(0, 2))])
    made.offer("orders", read_post(JSON, b"[7,8,9]"))
    made.leave("orders", reader, 1.0)
    assert made.counts["given_up"] == 3
    assert session.destination.links[SENDER].resolved.mark == 2


def test_receivers_of_one_app_agree():
    made, _ = gate()
    made.adopt(Settings())
    with pytest.raises(ConfigError, match="is served with"):
        made.adopt(Settings(dead=9.0))
    with pytest.raises(ConfigError, match="received as a queue"):
        made.join("orders", Mode.TOPIC, Bounds(1000, 1_000_000), None, capacity=1, overflow="block")


def test_settings_show_no_credentials():
    assert "secret" not in repr(Settings(authorization="Bearer secret"))
