"""The channel: what may be sent, in which forms, how it is cut up, and what is refused before anything is sent."""

import os
import threading

import pytest

import simlink
from simlink.block import Block, FieldType, Kind, Schema
from simlink.channels.channel import queue, topic
from simlink.channels.driver import Capabilities, Kept, Nack, Order, Outcome, OutcomeKind
from simlink.channels.memory import MemoryDriver, _MemorySender
from simlink.errors import (
    BatchError,
    ChannelClosed,
    ConfigError,
    ForkError,
    InvalidURL,
    NotSupported,
    SendError,
    SendTimeout,
)
from simlink.message import Batch, Message, Same
from simlink.serializers.raw import Bytes


@pytest.fixture
def url(request):
    return f"memory://{request.node.name[:60].replace('[', '.').replace(']', '')}"


def messages(receiver, count):
    return [receiver.get(timeout=10.0).message for _ in range(count)]


# --- what may be sent -----------------------------------------------------------------------------------------------


def test_values_get_one_producer_and_rising_sequences(url):
    with queue(url) as channel, channel.receiver() as rx:
        channel.send("a")
        channel.send_many(["b", "c"])
        channel.send("d")
        found = messages(rx, 4)

    assert [m.sequence for m in found] == [0, 1, 2, 3]
    assert len({m.producer for m in found}) == 1
    assert len(found[0].producer) == 16
    assert all(m.timestamp > 1_600_000_000_000_000 for m in found)


def test_two_channels_are_two_producers(url):
    with queue(url) as one, queue(url) as two, one.receiver() as rx:
        one.send(1)
        two.send(2)
        assert len({m.producer for m in messages(rx, 2)}) == 2


def test_a_message_is_sent_as_it_is_and_stamped_where_it_has_no_stamp(url):
    own = Message(
        body=b"1", key=b"k", headers={"a": "b"}, content_type="text/x", producer=bytes(16), sequence=9, timestamp=7
    )
    with queue(url) as channel, channel.receiver() as rx:
        channel.send(own)
        channel.send(Message(body=b"2"))
        first, second = messages(rx, 2)

    assert first == own
    assert (second.body, second.key, second.sequence) == (b"2", None, 0)
    assert second.timestamp is not None


@pytest.mark.parametrize("form", ["batch", "batch of messages", "messages"])
def test_ready_messages_are_sent_as_they_are_and_get_an_identity(url, form):
    rows = [Message(body=b"%d" % n, key=b"k") for n in range(3)]
    given = {"batch": Batch([m.body for m in rows], keys=[m.key for m in rows]), "messages": iter(rows)}.get(
        form, Batch.of(rows)
    )
    with queue(url) as channel, channel.receiver() as rx:
        channel.send_many(given)
        found = messages(rx, 3)

    assert [(m.body, m.key, m.sequence) for m in found] == [(b"0", b"k", 0), (b"1", b"k", 1), (b"2", b"k", 2)]


def test_a_batch_that_was_sent_can_be_sent_again_as_something_new(url):
    batch = Batch([b"1", b"2"])
    with queue(url) as channel, channel.receiver() as rx:
        channel.send_many(batch)
        channel.send_many(batch)
        found = messages(rx, 4)

    assert [m.sequence for m in found] == [0, 1, 2, 3]
    assert batch.producers == Same(None, 2), "the caller's batch stays as it is"


def test_a_batch_with_an_identity_keeps_it(url):
    batch = Batch([b"1"], producers=Same(b"p" * 16, 1), sequences=[41], timestamps=[5])
    with queue(url) as channel, channel.receiver() as rx:
        channel.send_many(batch)
        (found,) = messages(rx, 1)

    assert (found.producer, found.sequence, found.timestamp) == (b"p" * 16, 41, 5)


def test_a_block_is_sent_row_by_row_with_a_field_as_its_key(url):
    clicks = simlink.record("click", n=simlink.fields.sequence(), user=simlink.fields.choice(a=1, b=2), seed=1)
    with queue(url) as channel, channel.receiver() as rx:
        channel.send_many(clicks.block(0)[:50], key="user")
        assert list(clicks[:50]) == rx.take(50)


def test_a_key_is_a_field_or_a_function_of_the_value(url):
    with queue(url) as channel, channel.receiver() as rx:
        channel.send_many([{"a": 1}, {"a": 2}], key="a")
        channel.send_many([{"a": 1}, {"a": 2}], key=lambda value: None if value["a"] == 1 else "x")
        assert [m.key for m in messages(rx, 4)] == [b"1", b"2", None, b"x"]


def test_an_iterable_is_read_to_its_end(url):
    with queue(url) as channel, channel.receiver() as rx:
        assert len(channel.send_many(n for n in range(5))) == 5
        assert rx.take(5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "nothing", [[], (), iter([]), Batch([]), Block(Schema("x", {"a": FieldType(Kind.INT)}), {}, 0, 0)]
)
def test_nothing_is_sent_at_once_and_without_anybody_there(nothing):
    with queue("tcp://127.0.0.1:1/nobody") as channel:
        receipt = channel.send_many(nothing, timeout=0.0)
        assert (receipt.state, len(receipt), receipt.wait(0.0) is receipt) == ("confirmed", 0, True)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers", [{"a": 1}, {1: "a"}, {"a": None}, {"a": b"x"}, {"simlink-id": "forged"}], ids=lambda h: str(*h)
)
def test_headers_are_text_and_never_simlinks_own(url, headers):
    with queue(url) as channel:
        for send in (
            lambda: channel.send(1, headers=headers),
            lambda: channel.send_many([1], headers=headers),
            lambda: channel.send(Message(body=b"", headers=headers)),
            lambda: channel.send_many([Message(body=b"", headers=headers)]),
        ):
            with pytest.raises(ConfigError, match=r"headers are text|simlink's own"):
                send()
        assert channel.stats()["sent"] == 0


def test_the_callers_headers_may_change_after_they_were_sent(url):
    headers = {"a": "1"}
    with queue(url) as channel, channel.receiver() as rx:
        channel.send(1, headers=headers)
        headers["a"] = "2"
        assert messages(rx, 1)[0].headers == {"a": "1"}


def test_what_is_ready_has_its_own_key_and_headers(url):
    with queue(url) as channel:
        for send, ready in ((channel.send, Message(body=b"")), (channel.send_many, Batch([b""]))):
            for extra in ({"key": "k"}, {"headers": {"a": "b"}}):
                with pytest.raises(ConfigError, match="give them there"):
                    send(ready, **extra)


def test_messages_and_values_do_not_mix(url):
    with queue(url) as channel:
        with pytest.raises(ConfigError, match="all of them must be: value 1 is 7"):
            channel.send_many([Message(body=b""), 7])


def test_a_message_above_the_limit_is_refused_before_anything_of_its_batch_is_sent(url):
    with queue(url, max_message_bytes=10, window=4, serializer=Bytes()) as channel:
        with pytest.raises(SendError, match=r"message 7 of the batch has 11 bytes, the limit is 10"):
            channel.send_many([b"x" * 10] * 7 + [b"x" * 11])
        assert channel.stats()["sent"] == 0
        channel.send(b"x" * 10)


def test_an_option_twice_is_refused(url):
    with pytest.raises(InvalidURL, match="'window' is given in the URL and in code; give it once"):
        queue(f"{url}?window=3", window=4)
    with pytest.raises(ConfigError, match="unknown option 'windwo'; did you mean 'window'"):
        queue(url, windwo=4)
    with pytest.raises(ConfigError, match="serializer is a Serializer"):
        queue(url, serializer="json")


@pytest.mark.parametrize(
    ("kind", "options", "error", "why"),
    [
        (queue, {"settle": "manul"}, ConfigError, "did you mean 'manual'"),
        (queue, {"overflow": "burst"}, ConfigError, "'block' or 'drop'"),
        (queue, {"overflow": "drop"}, NotSupported, "for topics"),
        (queue, {"subscription": "a"}, ConfigError, "is a queue"),
        (queue, {"prefetch": 0}, ConfigError, "at least 1"),
        (queue, {"start": "earliest"}, NotSupported, "can replay"),
        (queue, {"reset": True}, NotSupported, "can replay"),
        (topic, {"at": "host:1"}, NotSupported, "host to listen on"),
    ],
)
def test_what_a_receiver_cannot_be_is_refused(url, kind, options, error, why):
    with kind(url) as channel:
        with pytest.raises(error, match=why):
            channel.receiver(**options)


def test_a_queue_has_no_subscription_to_delete(url):
    with queue(url) as channel:
        with pytest.raises(ConfigError, match="is a queue"):
            channel.delete_subscription("a")


# --- many at once ---------------------------------------------------------------------------------------------------


def test_more_than_the_window_is_sent_in_parts_under_one_receipt(url):
    with queue(url, window=10, window_bytes=60) as channel, channel.receiver() as rx:
        receipt = channel.send_many([{"i": i} for i in range(95)], key="i")
        assert rx.take(95) == [{"i": i} for i in range(95)]

    assert (len(receipt), receipt.confirmed, receipt.state) == (95, 95, "confirmed")
    assert (receipt.failed_rows(), receipt.missed, receipt.error) == ([], (), None)


def test_a_receipt_of_parts_that_did_not_fit_says_which_rows_were_never_handed_over(url):
    with queue(url, window=4, max_messages=3) as channel:
        with pytest.raises(SendTimeout, match="window is full") as caught:
            channel.send_many(range(20), timeout=0.2)
        receipt = caught.value.receipt
        assert (receipt.confirmed, receipt.pending, receipt.failed) == (3, 3, 14)
        assert receipt.failed_rows() == list(range(6, 20))
        assert receipt.state == "failed"
        with channel.receiver() as rx:
            assert rx.take(3) == [0, 1, 2]
            assert rx.take(3) == [3, 4, 5]
            assert receipt.wait(10.0).confirmed == 6


class Picky(MemoryDriver):
    """Refuses every third message, and never says what became of every seventh."""

    schemes = ("picky",)

    def capabilities(self):
        return Capabilities(kept=Kept.IN_PROCESS, order=Order.EXCLUSIVE, nack=Nack.NATIVE, max_key_bytes=4)

    def sender(self):
        return PickySender(self.hub())


class PickySender(_MemorySender):
    def submit(self, batch, position):
        for at in range(len(batch)):
            kind, error = OutcomeKind.CONFIRMED, None
            if (position + at) % 3 == 2:
                kind, error = OutcomeKind.FAILED, ValueError("every third")
            elif (position + at) % 7 == 6:
                kind, error = OutcomeKind.UNKNOWN, TimeoutError("every seventh")
            self._done.append(Outcome(kind, position + at, position + at + 1, error=error))


@pytest.fixture
def picky(monkeypatch):
    from simlink.channels import making

    monkeypatch.setattr(making, "driver_class", lambda scheme: Picky)
    with queue("memory://picky") as made:
        yield made


def test_a_batch_of_which_some_are_refused_says_which(picky):
    with pytest.raises(BatchError, match="2 of 6 messages were refused: every third") as caught:
        picky.send_many(range(6))
    assert list(caught.value.failed) == [2, 5]
    assert isinstance(caught.value.__cause__, ValueError)


def test_one_that_is_refused_is_a_send_error(picky):
    picky.send_many([0, 1])
    with pytest.raises(SendError, match="refused: every third"):
        picky.send(2)


def test_one_that_may_be_there_is_a_send_timeout_with_its_receipt(picky):
    picky.send_many(range(6), wait=False).wait()
    with pytest.raises(SendTimeout, match="1 of 1 messages may or may not be there: every seventh") as caught:
        picky.send(6)
    assert caught.value.receipt.state == "unknown"
    assert caught.value.retryable


def test_a_key_that_the_transport_cannot_carry_is_refused(picky):
    with pytest.raises(SendError, match="a key has more than 4 bytes"):
        picky.send(1, key="12345")


def test_many_threads_send_through_one_channel(url):
    with queue(url, window=16) as channel, channel.receiver() as rx:

        def send(thread):
            for n in range(50):
                channel.send({"thread": thread, "n": n}, key=thread)

        threads = [threading.Thread(target=send, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        values = []
        sequences = []
        for _ in range(300):
            delivery = rx.get(timeout=10.0)
            values.append(delivery.value)
            sequences.append(delivery.message.sequence)
        for thread in threads:
            thread.join()

    assert sorted(sequences) == list(range(300))
    for n in range(6):
        assert [v["n"] for v in values if v["thread"] == n] == list(range(50))


# --- beginning and end ----------------------------------------------------------------------------------------------


def test_making_and_entering_a_channel_does_no_io():
    with queue("tcp://127.0.0.1:1/nobody") as channel:
        assert channel.stats()["connected"] is False
        assert repr(channel) == "<queue tcp://127.0.0.1:1/nobody unused>"
        assert threading.active_count() == len(threading.enumerate())
        assert not [t for t in threading.enumerate() if t.name.startswith("simlink-send-tcp://127.0.0.1:1/nobody")]
    assert repr(channel) == "<queue tcp://127.0.0.1:1/nobody closed>"


def test_a_closed_channel_says_so(url):
    channel = queue(url)
    assert channel.close() == 0
    assert channel.close() == 0
    for call in (
        lambda: channel.send(1),
        lambda: channel.send_many([]),
        channel.receiver,
        channel.purge,
        channel.delete,
    ):
        with pytest.raises(ChannelClosed, match="is closed"):
            call()


def test_after_a_fork_a_channel_is_dead_in_the_child_and_alive_in_the_parent(url):
    with queue(url) as channel, channel.receiver() as rx:
        channel.send(1)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            said = b""
            for call in (lambda: channel.send(2), lambda: rx.get(timeout=0.1), channel.receiver, channel.purge):
                try:
                    call()
                except ForkError:
                    said += b"F"
                except BaseException:
                    said += b"?"
            said += b"0" if channel.close() == 0 else b"?"
            os.write(write, said)
            os._exit(0)
        os.close(write)
        try:
            assert os.read(read, 10) == b"FFFF0"
        finally:
            os.close(read)
            os.waitpid(pid, 0)
        assert rx.take(1) == [1]


@pytest.mark.parametrize("end", ["stop", "close"])
def test_who_waits_for_ever_for_many_hears_of_the_end(url, end):
    with queue(url) as channel:
        channel.send(1)
        rx = channel.receiver()
        rx.open()
        waiting = threading.Timer(0.1, getattr(rx, end))
        waiting.start()
        with pytest.raises(ChannelClosed, match="1 of 3 messages had come and were handed back"):
            rx.take(3, timeout=None)
        waiting.join()
        rx.close(timeout=None)
        with channel.receiver() as other:
            assert other.take(1) == [1]


def test_closing_a_receiver_may_take_for_ever(url):
    with queue(url) as channel:
        rx = channel.receiver(dead_letter=f"{url}.dead")
        rx.open()
        rx.close(timeout=None)
        assert rx.closed
