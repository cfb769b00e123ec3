"""How fast are the catalog's records made and encoded, next to the same columns written by hand?

    python bench/bench_catalog.py [--rows 250000] [--repeat 5]

By hand is what one would write for a test: NumPy draws each column independently of the others (no sessions, no
funnel, no error bursts, no memory), and the rows go through msgspec or a template of bytes. All results are kept.
Each round runs every contender once, so that a busy machine slows all of them; the median of the rounds is printed. A
rate is rows a second of processor time: everything here runs in one thread, and what it waits for others on a busy
machine is not its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from simlink import fields
from simlink.generators import catalog
from simlink.generators.catalog import _agents, _site
from simlink.generators.generator import BLOCK_ROWS, Generator
from simlink.generators.output import crew
from simlink.generators.record import record
from simlink.serializers.json import Json
from simlink.serializers.serializer import Serializer
from simlink.serializers.text import Text

ROOT = Path(__file__).parents[1]
SIX = ("user_id", "session_id", "action", "timestamp", "product_id", "page_url")
REACH = {
    "clickstream, JSON": 0.7e6,
    "clickstream, six fields, JSON": 0.7e6,
    "access_log, lines": 0.9e6,
    "sensors, JSON": 1.2e6,
    "ijinus, JSON": 1.2e6,
    "Zipf keys of 10,000, columns": 15e6,
}


def zipf(n: int, s: float) -> np.ndarray:
    limits = np.cumsum(np.arange(1, n + 1) ** -s)
    return limits / limits[-1]


def objects(values: list) -> np.ndarray:
    return np.fromiter(values, dtype=object, count=len(values))


USERS, PRODUCTS = zipf(50_000, 1.1), zipf(2_000, 1.1)
ACTIONS, SHARES = objects(["view", "click", "cart", "purchase"]), np.array([0.68, 0.98, 0.99, 1.0])
PAGES = objects([f"https://shop.example/garden/{i}" for i in range(2_000)])
COUNTRIES = objects(["US", "DE", "FR", "GB", "JP", "ES", "IT", "NL"])
CURRENCIES = objects(["USD", "EUR", "EUR", "GBP", "JPY", "EUR", "EUR", "EUR"])
REFERRERS = objects([None, "https://search.example/", "https://social.example/", "https://mail.example/"])
AGENTS = objects(_agents.AGENTS[:6])
ADDRESSES = objects(_agents.addresses(20_000))


def click_columns(k: int, rng: np.random.Generator) -> dict[str, list]:
    n = BLOCK_ROWS
    user = np.searchsorted(USERS, rng.random(n))
    product = np.searchsorted(PRODUCTS, rng.random(n))
    action = np.searchsorted(SHARES, rng.random(n))
    bought = action == 3
    country = user % 8
    return {
        "event_id": np.arange(k * n, (k + 1) * n).tolist(),
        "user_id": user.tolist(),
        "session_id": [f"{v:016x}" for v in rng.integers(0, 2**63, n).tolist()],
        "action": ACTIONS[action].tolist(),
        "timestamp": (np.arange(k * n, (k + 1) * n) * 10 + 1_735_689_600_000).tolist(),
        "product_id": product.tolist(),
        "page_url": PAGES[product].tolist(),
        "price_cents": (product * 7 % 3000 + 300).tolist(),
        "country": COUNTRIES[country].tolist(),
        "currency": CURRENCIES[country].tolist(),
        "quantity": [1 if b else None for b in bought.tolist()],
        "order_id": [f"ORD-{i:08d}" if b else None for i, b in enumerate(bought.tolist())],
        "referrer": REFERRERS[rng.integers(0, 4, n)].tolist(),
        "user_agent": AGENTS[user % 6].tolist(),
        "ip": ADDRESSES[user % 20_000].tolist(),
    }


def clicks_by_hand(names: tuple[str, ...]) -> Callable[[int], int]:
    encode = msgspec.json.Encoder().encode

    def run(rows: int) -> int:
        rng = np.random.default_rng(7)
        kept: list[bytes] = []
        for k in range(rows // BLOCK_ROWS):
            columns = click_columns(k, rng)
            cells = zip(*(columns[name] for name in names), strict=True)
            kept += [encode(dict(zip(names, row, strict=True))) for row in cells]
        return len(kept)

    return run


PATHS = objects([path.encode() for path in _site.files()["page"].paths])
BY_PATH = zipf(len(PATHS), 0.9)
REFERERS = objects([b"-", b"https://search.example/", *(_site.SITE.encode() + path for path in PATHS)])
BYTE_AGENTS = objects([agent.encode() for agent in _agents.AGENTS])
BYTE_ADDRESSES = objects([address.encode() for address in _agents.addresses(20_000)])
STATUSES, BY_STATUS = np.array([200, 304, 404, 301, 206]), np.array([0.912, 0.957, 0.978, 0.995, 1.0])
LINE = b'%b - - [%b] "GET %b HTTP/1.1" %d %d "%b" "%b"'


def lines_by_hand(rows: int, out: Path | None = None) -> int:
    rng = np.random.default_rng(7)
    kept: list[bytes] = []
    n = BLOCK_ROWS
    file = None if out is None else out.open("wb")
    for k in range(rows // n):
        seconds = (np.arange(k * n, (k + 1) * n) // 10).tolist()
        stamps = {s: time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(s)).encode() for s in set(seconds)}
        columns = (
            BYTE_ADDRESSES[rng.integers(0, 20_000, n)].tolist(),
            [stamps[s] for s in seconds],
            PATHS[np.searchsorted(BY_PATH, rng.random(n))].tolist(),
            STATUSES[np.searchsorted(BY_STATUS, rng.random(n))].tolist(),
            np.exp(rng.normal(9.5, 1.5, n)).astype(np.int64).tolist(),
            REFERERS[rng.integers(0, len(REFERERS), n)].tolist(),
            BYTE_AGENTS[rng.integers(0, len(BYTE_AGENTS), n)].tolist(),
        )
        made = [LINE % row for row in zip(*columns, strict=True)]
        if file is None:
            kept += made
        else:
            file.write(b"\n".join([*made, b""]))
    if file is not None:
        file.close()
    return len(kept)


DEVICES = 1_000
NAMES = objects([f"sensor-{i:05d}" for i in range(DEVICES)])
LOGGERS = objects([b"IJA0101-%08d" % i for i in range(DEVICES)])
ENVELOPE = (
    b'{"datas":[{"channel":"","metric":"temperature","producer":"ijinus",'
    b'"sn":"%b","time":"%d","value":"%d"}],"ver":"1.0"}'
)


def sensors_by_hand(rows: int) -> int:
    """A season and independent noise for each row: no memory, no offsets, no sun."""
    rng = np.random.default_rng(7)
    encode = msgspec.json.Encoder().encode
    kept: list[bytes] = []
    names = ("device_id", "reading", "timestamp", "temperature", "humidity", "light")
    for k in range(rows // BLOCK_ROWS):
        row = np.arange(k * BLOCK_ROWS, (k + 1) * BLOCK_ROWS)
        at = row * 60 + 1_735_689_600_000
        warm = 21 + 2 * np.cos(2 * np.pi * at / 86_400_000) + rng.normal(0, 0.6, BLOCK_ROWS)
        columns = (
            NAMES[row % DEVICES].tolist(),
            (row // DEVICES).tolist(),
            at.tolist(),
            warm.round(2).tolist(),
            (97 - 2 * warm + rng.normal(0, 3, BLOCK_ROWS)).round(1).tolist(),
            rng.integers(0, 30_000, BLOCK_ROWS).tolist(),
        )
        kept += [encode(dict(zip(names, cells, strict=True))) for cells in zip(*columns, strict=True)]
    return len(kept)


def envelopes_by_hand(rows: int) -> int:
    """The same for envelopes, by a template."""
    rng = np.random.default_rng(7)
    kept: list[bytes] = []
    for k in range(rows // BLOCK_ROWS):
        row = np.arange(k * BLOCK_ROWS, (k + 1) * BLOCK_ROWS)
        at = row * 900 + 1_735_689_600_000
        warm = 120 + 6 * np.cos(2 * np.pi * at / 86_400_000) + rng.normal(0, 3, BLOCK_ROWS)
        columns = (LOGGERS[row % DEVICES].tolist(), at.tolist(), warm.astype(np.int64).tolist())
        kept += [ENVELOPE % cells for cells in zip(*columns, strict=True)]
    return len(kept)


KEYS = zipf(10_000, 1.1)


def keys_by_hand(rows: int) -> int:
    rng = np.random.default_rng(7)
    for _ in range(rows // BLOCK_ROWS):
        np.searchsorted(KEYS, rng.random(BLOCK_ROWS), side="right")
    return rows // BLOCK_ROWS * BLOCK_ROWS


def encoded(generator: Generator, serializer: Serializer) -> Callable[[int], int]:
    def run(rows: int) -> int:
        kept: list[bytes] = []
        for k in range(rows // BLOCK_ROWS):
            kept += serializer.dumps_many(generator.make_block(k))
        return len(kept)

    return run


def columns_of(generator: Generator) -> Callable[[int], int]:
    def run(rows: int) -> int:
        for k in range(rows // BLOCK_ROWS):
            generator.make_block(k)
        return rows // BLOCK_ROWS * BLOCK_ROWS

    return run


def contenders() -> dict[str, Callable[[int], int]]:
    clicks, log = catalog.clickstream(seed=7), catalog.access_log(seed=7)
    return {
        "clickstream, columns": columns_of(clicks),
        "clickstream, JSON": encoded(clicks, Json()),
        "clickstream by hand, no sessions, JSON": clicks_by_hand(tuple(clicks.schema)),
        "clickstream, six fields, JSON": encoded(clicks.select(*SIX), Json()),
        "six fields by hand, no sessions, JSON": clicks_by_hand(SIX),
        "access_log, columns": columns_of(log),
        "access_log, JSON": encoded(log, Json()),
        "access_log, lines": encoded(catalog.access_log(seed=7, format="combined"), Text()),
        "lines by hand, no visits": lines_by_hand,
        "sensors, columns": columns_of(catalog.sensors(seed=7)),
        "sensors, JSON": encoded(catalog.sensors(seed=7), Json()),
        "sensors by hand, no memory, JSON": sensors_by_hand,
        "ijinus, columns": columns_of(catalog.ijinus(seed=7)),
        "ijinus, JSON": encoded(catalog.ijinus(seed=7), Json()),
        "envelopes by hand, no memory": envelopes_by_hand,
        "orders, JSON": encoded(catalog.orders(seed=7), Json()),
        "numbers, JSON": encoded(catalog.numbers(seed=7), Json()),
        "Zipf keys of 10,000, columns": columns_of(record("keys", seed=7, key=fields.zipf(10_000))),
        "Zipf keys by hand, inverse CDF": keys_by_hand,
    }


def peers() -> dict[str, float]:
    """Records a second of those that are installed: see bench/peers.py."""
    own = ROOT / ".venv-peers" / "bin" / "python"
    command = [str(own) if own.exists() else sys.executable, str(ROOT / "bench" / "peers.py")]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def by_workers(rows: int, repeat: int) -> dict[str, float]:
    """``write(…, workers=2)`` beside one by the clock, and what two processes by hand, with a file each, come to beside
    one with all rows: no more than that is there to have. In every second round the order is turned round."""
    log = catalog.access_log(seed=7)
    seconds: dict[str, list[float]] = {}
    digests: set[bytes] = set()
    begin = crew.start_method
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        contenders: dict[str, Callable[[], object]] = {
            "one": lambda: log.write(out / "one", rows),
            "two": lambda: log.write(out / "two", rows, workers=2),
            "two, spawned": lambda: spawned(lambda: log.write(out / "spawned", rows, workers=2)),
            "by hand, one": lambda: hands(rows // 2, 1, out),
            "by hand, two": lambda: hands(rows // 2, 2, out),
        }
        for turn in range(repeat):
            print(f"workers, round {turn + 1} of {repeat} …", file=sys.stderr, flush=True)
            for name in list(contenders)[:: -1 if turn % 2 else 1]:
                os.sync()
                begun = time.perf_counter()
                contenders[name]()
                seconds.setdefault(name, []).append(time.perf_counter() - begun)
                # Each writes a new file, and the last one's is gone before much of it is on the disk: what a disk of a
                # virtual machine does takes the same two cores.
                for file in out.iterdir():
                    if not turn and not file.name.isdigit():
                        with file.open("rb") as written:
                            digests.add(hashlib.file_digest(written, "blake2b").digest())
                    file.unlink()
        assert crew.start_method is begin
        assert len(digests) == 1
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        **{name: rows / median[name] for name in ("one", "two", "two, spawned")},
        "times": median["one"] / median["two"],
        "startup": median["two, spawned"] - median["two"],
        "by hand": median["by hand, one"] / median["by hand, two"],
    }


def spawned(write: Callable[[], object]) -> None:
    begin = crew.start_method
    crew.start_method = lambda: "spawn"
    try:
        write()
    finally:
        crew.start_method = begin


def hands(rows: int, processes: int, out: Path) -> None:
    """The lines by hand, in so many processes, each into a file of its own."""
    context = multiprocessing.get_context("fork")
    team = [context.Process(target=lines_by_hand, args=(rows // processes, out / f"{i}")) for i in range(processes)]
    for process in team:
        process.start()
    for process in team:
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--workers-rows", type=int, default=4_800_000, help="of the file by two workers; 0 for none")
    options = parser.parse_args()
    # First, as in a process of its own: what the other rows leave in memory a fork has to share.
    shared = by_workers(options.workers_rows, options.repeat) if options.workers_rows else {}
    runs = contenders()
    rates: dict[str, list[float]] = {name: [] for name in runs}
    others: dict[str, list[float]] = {}
    for run in runs.values():
        run(BLOCK_ROWS)  # imports, pools, tables
    for turn in range(options.repeat):
        print(f"round {turn + 1} of {options.repeat} …", file=sys.stderr, flush=True)
        for name, run in runs.items():
            begun = time.process_time()
            made = run(options.rows)
            rates[name].append(made / (time.process_time() - begun))
        for name, rate in peers().items():
            others.setdefault(name, []).append(rate)
    median = {name: statistics.median(values) for name, values in rates.items()}
    beside = {name: statistics.median(values) for name, values in others.items()}
    if options.json:
        print(json.dumps({"rates": median, "reach": REACH, "peers": beside, "workers": shared}))
        return
    for name, rate in median.items():
        reach = f"   reach {REACH[name] / 1e6:.1f}" if name in REACH else ""
        print(f"{name:40} {rate / 1e6:8.3f} M/s{reach}")
    for name, rate in beside.items():
        print(f"{name:40} {rate / 1e6:8.3f} M/s")
    if shared:
        one = shared["one"]
        print(f"access_log to NDJSON, one worker         {one / 1e6:8.3f} M/s by the clock")
        for name, reach in (("two", ", reach 1.7x"), ("two, spawned", "")):
            rate = shared[name]
            print(f"access_log to NDJSON, {name:18} {rate / 1e6:8.3f} M/s: {rate / one:.2f}x one{reach}")
        print(
            f"a spawned worker starts in               {shared['startup']:8.3f} s of the clock more than a forked one"
        )
        print(f"lines by hand into files, two processes  {shared['by hand']:8.2f} x one")


if __name__ == "__main__":
    main()
