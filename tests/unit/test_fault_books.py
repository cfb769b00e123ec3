"""The books of the fault suite find what they are there to find: each defect, put into sound accounts, is told."""

from __future__ import annotations

import zlib
from types import SimpleNamespace

import pytest

from tests.faults import books
from tests.faults.child import body_of, key_of

NOTHING = {"threads": [], "native_threads": [], "sockets": [], "children": []}
SIZE = 64


def line(row, attempt=1, seed=1):
    body = body_of(seed, row, SIZE)
    return f"{body[:40].decode()} {len(body)} {zlib.crc32(body)} {key_of(row).decode()} {attempt}"


def process(lines, *, role, killed=False, report=None):
    seen = SimpleNamespace(look=lambda: lines)
    whole = {"left": dict(NOTHING), "base": 10, "peak": 20, **(report or {})}
    return SimpleNamespace(role=role, seen=seen, sent=seen, killed=killed, report=None if killed else whole)


def sender(count=10, confirmed=None, **told):
    confirmed = count if confirmed is None else confirmed
    said = {"unsettled": 0, "resent": 0, "failed": [], "unknown": [], "settled": [], **told}
    made = process([f"1 0 {confirmed}"], role="send", report={"sender": said})
    made.count = count
    return made


def receiver(lines, *, killed=False, **report):
    return process(lines, role="receive", killed=killed, report={"receiver": {}, **report})


def scene(*receivers, sent=None, held=0, loss="confirmed", order="life"):
    transport = SimpleNamespace(loss=loss, order=order, held_by_losses=lambda scene, report: 0)
    return SimpleNamespace(
        transport=transport,
        fault=SimpleNamespace(size=SIZE),
        place=None,
        count=10,
        held=held,
        senders=[sent or sender()],
        receivers=list(receivers),
        refused=[],
    )


def all_of(*rows, attempt=1):
    return [line(row, attempt) for row in rows]


def test_sound_books_come_to_an_account():
    account = books.check(scene(receiver(all_of(*range(10)))))
    assert (account.attempted, account.confirmed, account.handed_out) == (10, 10, 10)
    assert (account.repeats, account.bound, account.growth) == (0, 0, 10)


def test_repeats_within_the_bound_are_allowed():
    again = scene(receiver(all_of(*range(6)), killed=True), receiver(all_of(*range(4, 10))), held=2)
    account = books.check(again)
    assert (account.repeats, account.bound) == (2, 2)
    with pytest.raises(AssertionError, match="2 repeats"):
        books.check(
            scene(receiver(all_of(*range(6)), killed=True), receiver(all_of(*range(4, 10))), sent=sender(resent=1))
        )


def test_what_a_broker_may_have_forgotten_is_what_it_was_told_since_it_last_wrote(tmp_path):
    from tests.faults.scene import Scene

    with Scene(None, SimpleNamespace(count=100), None, tmp_path) as scene:
        scene._looks = [(1.0, 10, 5), (2.0, 20, 8), (2.5, 30, 9), (3.0, 40, 9), (9.0, 90, 9)]
        scene.receivers = [process([""] * 95, role="receive")]
        # It last confirmed at 2.5: what was handed out until half a second before stays settled.
        assert [scene.forgotten(seconds) for seconds in (0.0, 0.5, 1.0, 5.0)] == [65, 75, 85, 95]


def wrong_body():
    return line(3).replace(str(zlib.crc32(body_of(1, 3, SIZE))), "1")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: scene(receiver(all_of(*range(9)))), "lost: .*1 in all"),
        (lambda: scene(receiver(all_of(*range(11)))), "never sent"),
        (lambda: scene(receiver([*all_of(0, 1, 2), wrong_body(), *all_of(*range(4, 10))])), "another body"),
        (lambda: scene(receiver([*all_of(*range(9)), line(9).replace("k1", "k7")])), "has the key"),
        (lambda: scene(receiver(all_of(*range(10), 9)), held=1), "twice at attempt 1"),
        (lambda: scene(receiver(all_of(0, 2, 1, *range(3, 10)))), "out of order"),
        (lambda: scene(receiver(all_of(8, *range(8), 9)), order="key"), "out of order"),
        (lambda: scene(receiver(all_of(8, *range(8), 9)), order="fresh"), "out of order"),
        (lambda: scene(receiver(all_of(*range(10))), sent=sender(failed=[3]), loss="none"), "reported failed"),
        (lambda: scene(receiver(all_of(*range(10))), sent=sender(unsettled=2)), "2 messages stayed unsettled"),
        (lambda: scene(receiver(all_of(*range(9))), sent=sender(settled=[(0, 10)]), loss="none"), "settled, and never"),
        (lambda: scene(receiver(all_of(*range(10)), peak=books.GROWTH + 11)), "grew by"),
        (lambda: scene(receiver(all_of(*range(10)), left={**NOTHING, "threads": ["simlink-x"]})), "left behind"),
        (lambda: scene(receiver(all_of(*range(10)), left={**NOTHING, "sockets": ["s"]})), "left behind"),
        (lambda: scene(receiver(all_of(*range(10)), strayed=1)), "1 senders reached"),
        (lambda: scene(receiver(all_of(*range(10))), sent=sender(confirmed=9)), "1 were never confirmed"),
    ],
)
def test_each_defect_is_told(broken, message):
    with pytest.raises(AssertionError, match=message):
        books.check(broken())


def test_a_killed_senders_confirmed_messages_count_where_there_is_a_broker():
    dead = process(["1 0 5"], role="send", killed=True)
    dead.count = 10
    assert books.check(scene(receiver(all_of(0, 1)), sent=dead, loss="settled")).handed_out == 2
    with pytest.raises(AssertionError, match="lost"):
        books.check(scene(receiver(all_of(0, 1)), sent=dead, loss="confirmed"))


def test_a_refusal_is_one_sentence_and_its_absence_is_told(tmp_path):
    import simlink
    from tests.faults.places import Place, Wrong
    from tests.faults.scene import Scene

    def look(url, says, show="hunter2"):
        place = Place("", "", wrong=(Wrong("wrong secret", url, says),))
        transport = SimpleNamespace(name="tcp", prefetch=None, garbage=False, stays=0)
        with Scene(transport, SimpleNamespace(count=0, size=SIZE), place, tmp_path) as scene:
            scene.must_be_refused()
            scene.show_nothing(show)
            return scene.notes

    with simlink.queue("tcp://127.0.0.1:0/orders?secret=one-that-is-right") as orders, orders.receiver() as rx:
        wrong = rx.url.replace("**", "one-that-is-wrong")
        assert look(wrong, "shared secret$") == [
            f"wrong secret: 127.0.0.1:{rx.url.split(':')[2].partition('/')[0]} does not know the shared secret"
        ]
        with pytest.raises(AssertionError, match="does not say 'certificate'"):
            look(wrong, "certificate")
        with pytest.raises(AssertionError, match="shows a secret"):
            look(wrong, "shared secret$", show="shared secret")
    with pytest.raises(AssertionError, match="wrong secret, send: ''"):
        look("memory://open-to-all", "anything")
