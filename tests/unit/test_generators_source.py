"""Sources: everything that can be sent, in chunks; and the keys of a chunk."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink import fields
from simlink.block import Block
from simlink.errors import ConfigError, StateError
from simlink.generators.record import record
from simlink.generators.source import as_source, gather, key_column

CLICKS = record(
    "click",
    seed=7,
    n=fields.sequence(),
    action=fields.choice(view=1, click=1),
    gap=fields.when("action", "view", fields.zipf(9)),
    inner=fields.record(id=fields.uuid(), deep=fields.record(n=fields.zipf(5))),
    price=fields.normal(),
    **{"a.b": fields.text("????????")},
)


NUMBERS = record("numbers", seed=1, n=fields.sequence()).take(12_000)


@pytest.fixture(scope="module")
def rows():
    return CLICKS[:12_000]


def values_of(chunks):
    out = []
    for chunk in chunks:
        assert 0 < len(chunk) <= 4096
        out.extend(chunk.rows() if isinstance(chunk, Block) else chunk)
    return out


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 9000), st.integers(0, 3000), st.integers(1, 5000))
@pytest.mark.parametrize("kind", ["generator", "list", "function"])
def test_chunks_are_the_rows_asked_for(kind, start, count, size):
    source = {"generator": NUMBERS, "list": NUMBERS[:], "function": lambda: iter(NUMBERS[:])}[kind]
    chunks = list(as_source(source).chunks(start, start + count, size))
    assert all(len(chunk) <= size for chunk in chunks)
    assert NUMBERS[start : start + count] == values_of(chunks)


def test_a_generators_chunks_are_blocks_that_know_their_rows():
    source = as_source(CLICKS.take(5000))
    assert (source.name, source.seed, source.length, source.seekable) == ("click", 7, 5000, True)
    chunks = list(source.chunks(100, None, 3000))
    assert [(c.start, len(c)) for c in chunks] == [(100, 3000), (3100, 996), (4096, 904)]
    assert source.arrivals_of(2.0) is None
    assert source is as_source(source)


def test_a_generators_source_is_divided_as_it_is():
    parts = [as_source(CLICKS).take(10_000).shard(i, 2) for i in range(2)]
    assert [part.length for part in parts] == [5904, 4096]
    assert [chunk.start for part in parts for chunk in part.chunks()] == [0, 8192, 4096]
    for wrong in (lambda: as_source([1]).shard(0, 2), lambda: as_source([1]).take(1)):
        with pytest.raises(ConfigError, match="only a generator"):
            wrong()


def test_an_iterator_has_one_pass():
    source = as_source(iter([1, 2, 3]))
    assert (source.length, source.seekable) == (None, False)
    assert values_of(source.chunks(1)) == [2, 3]
    with pytest.raises(StateError, match="read once"):
        source.chunks()


def test_a_generator_function_is_called_for_every_pass_and_closed_after_it():
    calls = []

    def numbers():
        calls.append("open")
        try:
            yield from range(1000)
        finally:
            calls.append("closed")

    source = as_source(numbers)
    assert source.name == "numbers"
    assert values_of(source.chunks(0, 2)) == [0, 1]
    chunks = source.chunks()
    next(chunks)
    chunks.close()
    assert calls == ["open", "closed"] * 2


def test_what_comes_before_an_error_of_the_source_is_handed_out():
    def failing():
        yield from range(1000)
        raise OSError("the sensor is gone")

    seen = []
    values = (value for chunk in as_source(failing).chunks() for value in chunk)
    with pytest.raises(OSError, match="the sensor is gone"):
        seen.extend(values)
    assert list(range(1000)) == seen


def test_an_iterator_that_was_given_stays_its_owners():
    numbers = (n for n in range(10))
    assert values_of(as_source(numbers).chunks(0, 3)) == [0, 1, 2]
    assert next(numbers) == 3


def test_a_set_is_an_iterable_with_many_passes():
    source = as_source({1})
    assert [1] == values_of(source.chunks()) == values_of(source.chunks())


@pytest.mark.parametrize("value", ["text", b"bytes", {"a": 1}, 5, None, int, lambda: 5, lambda: {"a": 1}])
def test_what_is_not_many_values_is_refused(value):
    with pytest.raises(ConfigError):
        list(as_source(value).chunks())


def test_an_async_source_is_refused():
    async def numbers():
        yield 1

    for source in (numbers, numbers()):
        with pytest.raises(ConfigError, match="event loop"):
            as_source(source)


@pytest.mark.parametrize("wrong", [(-1, None, 1), (0, -1, 1), (0, None, 0)])
def test_chunks_refuse_rows_that_are_not_there(wrong):
    for source in (CLICKS, [1], lambda: [1]):
        with pytest.raises(ConfigError):
            as_source(source).chunks(*wrong)


class Waiting:
    """An iterator over 0, 1, … on a clock of its own: each value takes as long as ``waits`` says."""

    def __init__(self, waits):
        self.now, self.taken = 0.0, 0
        self.waits = waits

    def __iter__(self):
        return self

    def __next__(self):
        if self.taken == len(self.waits):
            raise StopIteration
        self.now += self.waits[self.taken]
        self.taken += 1
        return self.taken - 1


def test_a_slow_iterator_is_not_held_back():
    slow = Waiting([0.5] * 200)
    for n, chunk in enumerate(gather(slow, 4096, lambda: slow.now)):
        assert [n] == chunk
        assert n + 1 == slow.taken  # it is here before the next one is asked for


def test_a_quick_iterator_comes_in_large_chunks():
    quick = Waiting([1e-7] * 100_000)
    sizes = [len(chunk) for chunk in gather(quick, 4096, lambda: quick.now)]
    assert sizes[:76] == [1] * 65 + [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]
    assert {4096} == set(sizes[76:-1])
    assert sum(sizes) == 100_000


def test_after_a_wait_values_come_one_by_one_again():
    bursts = Waiting(([0.5] + [1e-7] * 49) * 20)
    sizes = [len(chunk) for chunk in gather(bursts, 4096, lambda: bursts.now)]
    assert sizes == [1] * 1000


# --- keys


def test_keys_by_name_are_what_travels(rows):
    block = CLICKS.block(0)
    listed = rows[:4096]
    expected = {
        "n": [b"%d" % row["n"] for row in listed],
        "action": [row["action"].encode() for row in listed],
        "gap": [None if row["gap"] is None else b"%d" % row["gap"] for row in listed],
        "inner.id": [row["inner"]["id"].encode() for row in listed],
        "inner.deep.n": [b"%d" % row["inner"]["deep"]["n"] for row in listed],
        "a.b": [row["a.b"].encode() for row in listed],
    }
    for key, column in expected.items():
        assert column == key_column(block, key) == key_column(listed, key)
        assert column[50:60] == key_column(block[50:60], key)


def test_keys_by_function(rows):
    expected = [b"%d" % (row["n"] % 3) for row in rows[:4096]]
    assert expected == key_column(CLICKS.block(0), lambda row: row["n"] % 3)
    assert expected[:10] == key_column(rows[:10], lambda row: row["n"] % 3)


def test_keys_of_objects():
    @dataclasses.dataclass
    class Order:
        user: str
        shop: SimpleNamespace

    orders = [Order("é", SimpleNamespace(id=5)), Order("b", SimpleNamespace(id=None))]
    assert ["é".encode(), b"b"] == key_column(orders, "user")
    assert key_column(orders, "shop.id") == [b"5", None]


@pytest.mark.parametrize("key", ["actoin", "inner.idd", "inner.deep", "price", "n.x", 5])
def test_a_key_that_is_none_is_refused_alike_in_both_forms(key, rows):
    for chunk in (CLICKS.block(0)[:9], rows[:9]):
        with pytest.raises(ConfigError):
            key_column(chunk, key)


def test_an_unknown_key_comes_with_a_hint(rows):
    for chunk in (CLICKS.block(0)[:9], rows[:9], [{"action": 1}, {}][:1]):
        with pytest.raises(ConfigError, match="did you mean 'action'"):
            key_column(chunk, "actoin")
