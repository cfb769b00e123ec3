"""The same seed gives the same bytes: in any slice, block order, shard, process, interpreter, and next year.

The golden digests are the contract with users who keep a seed instead of a file. If one changes, every stored seed
means other data: that is a breaking change, and belongs in the changelog.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

import simlink
from simlink import fields
from simlink.generators import catalog
from simlink.generators.record import record
from tests.support.digests import CATALOG, ROWS, everything

GOLDEN = {
    "everything": "bb5e8f15c12553be478ed62f685144a6",
    "clickstream": "26d3a5f2394ed802ad69a485f66b0282",
    "clickstream at 1 billion": "d643ff88065eac2d8f0b25ffaa559a31",
    "access_log": "cbbed52759f93ea98bd8705043651c46",
    "access_log at 1 billion": "b6a8ea1b57a2b7278aa5dda4232764d6",
    "access_log as lines": "3edf60d2b2f3dd1bf4fc6023f8e0ab8b",
    "access_log as lines at 1 billion": "a6ccc21eba7f7c7f0545cd7f52381f9e",
    "sensors": "2f50ead514fbd4d1458844c8b6673531",
    "sensors at 1 billion": "1ba0b07e958ae331c9742029c14dbbfd",
    "ijinus": "39a4993e05bff4d9a9ccb1b5f7dceba2",
    "ijinus at 1 billion": "b7a1f7aace2c0b92c28c05d780b64e03",
    "numbers": "ff8daaec01e9e3784179393cddcc1bad",
    "numbers at 1 billion": "e50e2d98b9278c68710f9f9b215c596d",
    "orders": "714171848c9f6741de0b7310b3453377",
    "orders at 1 billion": "b0445bf590b60e7a55bf86e7095326eb",
    "states": "bea72502278f1727dbb03d446ef995e7",
    "states at 2**40": "7099507799b4f06a60ebc23d6aa9742d",
    "mix": "f766fc2404edaf2b2de5eafefcb72cc6",
    "evolve": "a77f3208e1c0a77ecb3af4929c26fbb5",
    "markov": "9736e1641fbd70a483be6a1b4e188fd7",
}


def test_the_golden_digest_of_every_field():
    assert GOLDEN["everything"] == everything().digest(ROWS)


@pytest.mark.parametrize("name", CATALOG)
def test_the_golden_digest_of_the_catalog(name):
    assert GOLDEN[name] == CATALOG[name]().digest(ROWS)


@pytest.mark.parametrize("name", CATALOG)
def test_the_golden_digest_far_into_the_catalog(name):
    rows = CATALOG[name]()[10**9 : 10**9 + 5000]
    assert GOLDEN[f"{name} at 1 billion"] == hashlib.blake2b(repr(rows).encode(), digest_size=16).hexdigest()


def test_the_golden_digest_of_markov_chains():
    weather = {
        "sun": {"sun": 7, "cloud": 3},
        "cloud": {"sun": 3, "cloud": 4, "rain": 3},
        "rain": {"cloud": 6, "rain": 4},
    }
    each, whole = fields.markov(weather, by="host"), fields.markov(weather)
    assert GOLDEN["markov"] == record("markov", seed=42, host=fields.zipf(100), own=each, all=whole).digest(ROWS)


def test_the_golden_digest_of_states():
    made = record(
        "states",
        seed=42,
        host=fields.zipf(100),
        at=fields.event_time(step=600),
        noise=fields.ar1(20, 2, 0.95),
        own=fields.ar1(by="host"),
        walk=fields.walk(100, 0.5),
        kept=fields.walk(5, 2, low=0, high=10, decimals=None),
        away=fields.walk(5, 2, low=0, high=10, by="host"),
        wave=fields.season("at", "day", 4, around=fields.season("at", "year", 8), peak=0.6, decimals=None),
    )
    assert GOLDEN["states"] == made.digest(ROWS)
    rows = made.select("noise", "own", "walk", "kept", "away")[2**40 : 2**40 + 5000]
    assert GOLDEN["states at 2**40"] == hashlib.blake2b(repr(rows).encode(), digest_size=16).hexdigest()


def test_the_golden_digest_of_what_is_put_together():
    clicks, orders, numbers = catalog.clickstream(seed=7), catalog.orders(seed=7), catalog.numbers(seed=7)
    whole = simlink.concat(simlink.mix((3, clicks), (1, orders)).take(5000), simlink.cycle(numbers.take(777)))
    assert GOLDEN["mix"] == whole.digest(ROWS)
    evolved = simlink.evolve(orders, 1, add={"tax": fields.uniform(0, 9, decimals=2)}, widen={"attempt": str})
    assert GOLDEN["evolve"] == evolved.digest(ROWS)


@pytest.mark.parametrize("name", CATALOG)
def test_the_catalogs_blocks_are_made_alone(name):
    # Sixteen blocks are an epoch of sessions: across its bounds, by shards and by threads the same rows come.
    order = [17, 0, 33, 15, 16]
    generator = CATALOG[name]()
    expected = {k: generator.block(k).rows() for k in sorted(order)}
    assert expected == {k: CATALOG[name]().block(k).rows() for k in order}
    shard = CATALOG[name]().shard(1, 16)
    assert [expected[17], expected[33]] == [shard.block(1).rows(), shard.block(2).rows()]
    shared = CATALOG[name]()
    with ThreadPoolExecutor(3) as pool:
        assert expected == dict(zip(order, pool.map(lambda k: shared.block(k).rows(), order), strict=True))


def block_digest(k):
    return hashlib.blake2b(repr(everything().block(k).rows()).encode(), digest_size=16).hexdigest()


@pytest.fixture(scope="module")
def in_order():
    return [block_digest(k) for k in range(6)]


def test_blocks_may_be_made_in_any_order(in_order):
    generator = everything()
    order = list(range(6)) * 2
    random.Random(1).shuffle(order)
    made = {k: hashlib.blake2b(repr(generator.block(k).rows()).encode(), digest_size=16).hexdigest() for k in order}
    assert in_order == [made[k] for k in range(6)]


def test_threads_may_share_a_generator():
    generator = everything()
    expected = [row for k in range(6) for row in everything().block(k).rows()]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda k: generator.block(k).rows(), list(range(6)) * 4))
    assert expected * 4 == [row for part in parts for row in part]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_make_the_same_blocks(method, in_order):
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        made = pool.map(block_digest, [5, 0, 3, 1, 4, 2], chunksize=1)
        pool.close()
        pool.join()
    assert in_order == [made[i] for i in (1, 3, 5, 2, 4, 0)]
