"""verify() over the memory transport, with what goes wrong made by hand."""

from __future__ import annotations

import threading
import uuid

import pytest

import simlink
from simlink import fields
from simlink.message import Batch, Same

A, B = b"a" * 16, b"b" * 16


@pytest.fixture
def orders():
    return simlink.record("order", id=fields.sequence(start=1000), who=fields.choice(a=1, b=1), seed=3)


@pytest.fixture
def channel():
    with simlink.queue(f"memory://verify-{uuid.uuid4().hex[:8]}") as opened:
        yield opened


def send(channel, source, rows, *, producer=A, bodies=None, keyed=True):
    values = [source[row] for row in rows]
    batch = Batch(
        bodies or [simlink.Json().dumps(value) for value in values],
        keys=[value["who"].encode() for value in values] if keyed else None,
        producers=Same(producer, len(rows)),
        sequences=list(rows),
    )
    channel.send_many(batch)


def verified(channel, source, *, count=10, timeout=0.1, **options):
    with channel.receiver() as rx:
        return simlink.verify(rx, source, count=count, timeout=timeout, **options)


def counts(found):
    return found.received, found.unique, found.lost, found.duplicated, found.reordered, found.corrupt


def test_a_run_is_complete_and_unchanged(channel, orders):
    with channel.receiver() as rx:
        simlink.run(orders, channel, count=10_000, key="who", progress=False)
        found = simlink.verify(rx, orders, count=10_000)
        # Booked and acknowledged: nothing comes again.
        with pytest.raises(simlink.ReceiveTimeout):
            rx.get(timeout=0.05)
    assert counts(found) == (10_000, 10_000, 0, 0, 0, 0)
    assert found.ok
    assert found
    assert (found.seed, found.source, found.expected, found.missing) == (3, "order", 10_000, ())
    assert found.latency_ms is not None
    assert "complete and unchanged" in str(found)


def test_lost_rows_are_named(channel, orders):
    send(channel, orders, [0, 1, 3, 4, 5, 7, 8, 9])
    found = verified(channel, orders)
    assert counts(found) == (8, 8, 2, 0, 0, 0)
    assert found.missing == (2, 6)
    assert not found.ok
    assert "NOT as sent" in str(found)


def test_repeats_beyond_what_the_transport_owns_up_to_are_not_ok(channel, orders):
    send(channel, orders, range(10))
    send(channel, orders, [4])
    # All rows have come with the first batch; the repeat is in the same hub.
    with channel.receiver() as rx:
        found = simlink.verify(rx, orders, count=11, timeout=0.1)
    assert counts(found) == (11, 10, 1, 1, 0, 0)
    assert found.redelivered == 0
    send(channel, orders, [*range(5), 4, *range(5, 10)])
    found = verified(channel, orders)
    assert counts(found)[:4] == (11, 10, 0, 1)
    assert not found.ok


def test_redelivered_messages_are_allowed_repeats(channel, orders):
    send(channel, orders, range(3))
    with channel.receiver() as rx:
        verifier = simlink.verification.Verifier(rx, orders, count=3)
        batch = next(rx.batches())
        verifier.book(batch)
        batch.nack()
        again = simlink.verify(rx, orders, count=3, timeout=2.0)
        for late in [batch]:
            verifier.book(late)
        found = verifier.result()
    assert again.ok
    assert counts(found)[:4] == (6, 3, 0, 3)
    assert found.redelivered == 3
    assert found.ok


def test_records_of_a_key_out_of_order_are_reordered(channel, orders):
    same = [row for row in range(100) if orders[row]["who"] == "a"][:3]
    send(channel, orders, [same[0], same[2], same[1]])
    found = verified(channel, orders, count=100)
    assert found.reordered == 1
    assert not found.order_kept


def test_without_keys_order_is_told_but_not_held_against_the_transport(channel, orders):
    send(channel, orders, [*range(1, 10), 0], keyed=False)
    found = verified(channel, orders)
    assert found.reordered == 1
    assert found.ok


def test_a_changed_body_is_shown(channel, orders):
    bodies = [simlink.Json().dumps(orders[row]) for row in range(10)]
    bodies[7] = b'{"id":1007,"who":"mallory"}'
    bodies[8] = b"not even JSON"
    send(channel, orders, range(10), bodies=bodies)
    found = verified(channel, orders)
    assert counts(found) == (10, 10, 0, 0, 0, 2)
    assert [(7, bodies[7]), (8, bodies[8])] == [(d.row, d.got) for d in found.differences]
    assert simlink.Json().dumps(orders[7]) == found.differences[0].expected
    assert "row 7" in str(found)


def test_another_spelling_of_the_same_value_is_the_same(channel, orders):
    bodies = [simlink.Json().dumps(orders[row]) for row in range(10)]
    bodies[2] = b'{ "who": "%s", "id": 1002 }' % orders[2]["who"].encode()
    send(channel, orders, range(10), bodies=bodies)
    assert verified(channel, orders).ok


def test_another_seed_is_corrupt(channel, orders):
    send(channel, orders, range(10))
    found = verified(channel, orders.with_seed(4))
    assert found.corrupt > 0
    assert not found.ok


def test_more_rows_than_asked_about_are_no_fault(channel, orders):
    send(channel, orders, [*range(5), 30, *range(5, 10)])
    found = verified(channel, orders)
    assert counts(found)[:4] == (11, 10, 0, 0)
    assert found.beyond == 1
    assert found.ok


def test_a_foreign_message_is_unexpected(channel, orders):
    channel.send_many(Batch([b"{}"], producers=None), wait=False)
    channel.send_many(Batch([b'{"id": 1}', b"x"]))
    send(channel, orders, range(10))
    found = verified(channel, orders, on="id")
    assert found.unexpected == 3
    assert (found.lost, found.ok) == (0, False)


def test_foreign_messages_are_found_by_a_field(channel, orders):
    rows = [*range(10)]
    rows.reverse()
    channel.send_many([{"who": orders[row]["who"], "id": orders[row]["id"]} for row in rows if row != 6])
    found = verified(channel, orders, on="id")
    assert counts(found)[:4] == (9, 9, 1, 0)
    assert (found.missing, found.corrupt, found.unexpected) == ((6,), 0, 0)


def test_a_field_that_does_not_tell_rows_apart_is_refused(channel, orders):
    with pytest.raises(simlink.ConfigError, match=r"on='who' does not tell the rows: rows \d and \d"):
        verified(channel, orders, on="who")


def test_an_unknown_field_is_refused(channel, orders):
    with pytest.raises(simlink.ConfigError, match="idd"):
        verified(channel, orders, on="idd")


def test_two_senders_each_owe_everything(channel, orders):
    send(channel, orders, range(10), producer=A)
    send(channel, orders, [*range(4), *range(5, 10)], producer=B)
    found = verified(channel, orders, senders=2)
    assert counts(found) == (19, 19, 1, 0, 0, 0)
    assert (found.missing, found.expected) == ((4,), 20)
    send(channel, orders, range(10), producer=A)
    send(channel, orders, range(10), producer=B)
    assert verified(channel, orders, senders=2).ok


@pytest.mark.parametrize("producers", [(A,), (A, B)])
def test_a_message_is_counted_once(channel, orders, producers):
    for producer in producers:
        send(channel, orders, [0, 1, 1, 2, 12, 12], producer=producer)
    found = verified(channel, orders, senders=len(producers))
    n = len(producers)
    assert (found.received, found.unique, found.duplicated, found.beyond) == (6 * n, 3 * n, n, 2 * n)


def test_workers_of_one_run_are_one_sender(channel, orders):
    send(channel, orders, range(5), producer=A)
    send(channel, orders, range(5, 10), producer=B)
    found = verified(channel, orders)
    assert counts(found)[:4] == (10, 10, 0, 0)
    assert found.ok


def test_many_blocks_out_of_order(channel, orders):
    """Rows far apart: the source is made again block by block, in any order."""
    count = 20_000
    rows = [*range(0, count, 2), *range(1, count, 2)]
    send(channel, orders, rows, keyed=False)
    found = verified(channel, orders, count=count)
    assert (count, count, 0, 0, 0) == (found.received, found.unique, found.lost, found.duplicated, found.corrupt)


@pytest.mark.parametrize("kind", ["list", "function"])
def test_other_sources_are_made_again_too(channel, kind):
    values = [{"i": i} for i in range(9_000)]
    source = values if kind == "list" else lambda: iter(values)
    with channel.receiver() as rx:
        simlink.run(source, channel, progress=False)
        found = simlink.verify(rx, source, count=9_000)
    assert (found.unique, found.lost, found.corrupt) == (9_000, 0, 0)


def test_a_source_that_is_not_seekable_is_read_again_for_rows_behind(channel, monkeypatch):
    monkeypatch.setattr("simlink.verification.oracle._CACHE_BYTES", 0)
    passes = []

    def source():
        passes.append(1)
        return ({"i": i} for i in range(12_300))

    rows = [*range(8_192, 12_300), *range(4_096)]
    batch = Batch([b'{"i":%d}' % row for row in rows], producers=Same(A, len(rows)), sequences=rows)
    channel.send_many(batch)
    found = verified(channel, source, count=12_300)
    assert (len(rows), 4_096, 0) == (found.unique, found.lost, found.corrupt)
    assert len(passes) == 2


def test_an_iterator_cannot_be_made_again(channel):
    values = iter([1, 2, 3])
    simlink.run(values, channel, progress=False)
    with pytest.raises(simlink.ConfigError, match="ended before"):
        verified(channel, values, count=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"count": None}, "no end"), ({"count": -1}, "count is"), ({"senders": 0}, "senders is")],
)
def test_options_that_make_no_sense_are_refused(channel, orders, options, message):
    with pytest.raises(simlink.ConfigError, match=message):
        verified(channel, orders, **options)


def test_a_source_with_a_length_needs_no_count(channel, orders):
    send(channel, orders, range(4))
    assert verified(channel, orders.take(4), count=None).ok


def test_a_verification_reads_as_text_html_and_plain_values(channel, orders):
    send(channel, orders, [0, 2])
    found = verified(channel, orders, count=3)
    values = found.as_dict()
    assert (values["lost"], values["missing"], values["ok"]) == (1, [1], False)
    assert "<td" in found._repr_html_()


def test_the_receivers_own_patience_is_back_afterwards(channel, orders):
    with channel.receiver(idle=7.5) as rx:
        simlink.verify(rx, orders, count=1, timeout=0.01)
        assert rx.idle == 7.5


def test_a_manual_receiver_is_acknowledged_too(channel, orders):
    send(channel, orders, range(10))
    with channel.receiver(settle="manual") as rx:
        assert simlink.verify(rx, orders, count=10, timeout=0.5).ok
    with channel.receiver() as rx, pytest.raises(simlink.ReceiveTimeout):
        rx.get(timeout=0.05)


def test_several_receivers_share_one_verification(channel, orders):
    """Competing receivers of one queue: what one has not got, another one has."""
    with channel.receiver(prefetch=64) as one, channel.receiver(prefetch=64) as two:
        verify = simlink.verify  # imported before there are two threads
        job = simlink.start(orders, channel, count=20_000, key="who")
        found = verify([one, two], orders, count=20_000, timeout=10.0)
        report = job.wait()
    assert found.ok, str(found)
    assert (report.sent, found.received, found.expected) == (20_000, 20_000, 20_000)
    assert not [t.name for t in threading.enumerate() if t.name.startswith("simlink-verify")]


def test_several_receivers_end_when_nothing_comes(channel, orders):
    send(channel, orders, [0, 1, 3])
    with channel.receiver() as one, channel.receiver(settle="manual") as two:
        found = simlink.verify([one, two], orders, count=4, timeout=0.2)
    assert (found.lost, found.missing) == (1, (2,))
    with pytest.raises(simlink.ConfigError, match="at least one"):
        simlink.verify([], orders, count=4)


def test_an_error_in_one_of_several_receivers_is_raised(channel, orders):
    with channel.receiver() as one, channel.receiver() as two:
        two.close()
        with pytest.raises(simlink.SimlinkError):
            simlink.verify([one, two], orders, count=4, timeout=5.0)


def test_the_fields_that_differ_are_named(channel):
    source = [{"id": i, "at": {"x": 1, "tags": ["a", "b"]}} for i in range(3)]
    bodies = [simlink.Json().dumps(value) for value in source]
    bodies[1] = b'{"id":1.0,"at":{"x":2,"tags":["a"]},"more":null}'
    bodies[2] = b"{"
    batch = Batch(bodies, producers=Same(A, 3), sequences=[0, 1, 2])
    channel.send_many(batch)
    with channel.receiver() as rx:
        found = simlink.verify(rx, source, timeout=0.1)
    missing = simlink.verification.Difference.MISSING
    first, second = found.differences
    assert first.fields == (("at.x", 1, 2), ("at.tags.1", "b", missing), ("more", missing, None))
    assert "row 1: at.x is 2 instead of 1, at.tags.1 is missing instead of 'b', more is None" in str(found)
    assert (second.fields, second.got) == ((), b"{")
    assert found.as_dict()["differences"][0].startswith("row 1: at.x is 2")


@pytest.mark.parametrize("rows", [range(15), [3, 12, 4]])
@pytest.mark.parametrize("options", [{}, {"on": "id"}])
def test_a_source_that_ends_before_its_count_is_said(channel, orders, rows, options):
    # How long what a function returns is, nobody knows before it has been read.
    send(channel, orders, rows)
    with pytest.raises(simlink.ConfigError, match="has no row 10: it ended before; give the count that was sent"):
        verified(channel, lambda: iter(orders[:10]), count=15, **options)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True])
def test_a_timeout_that_is_none_is_refused(channel, orders, timeout):
    with pytest.raises(simlink.ConfigError, match="timeout is a number of seconds"):
        verified(channel, orders, timeout=timeout)
