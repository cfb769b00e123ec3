"""How fast are records made, next to a Faker loop and to NumPy columns written by hand?

    python bench/bench_generate.py [--rows 1000000] [--repeat 5]

All contenders make the same four fields (user_id, action, timestamp, page_url) and keep nothing but the current block,
except where it says "kept". Each round runs every contender once, so that a busy machine slows all of them; the median
of the rounds is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from simlink.generators import catalog
from simlink.generators.generator import BLOCK_ROWS, Generator

FOUR = ("user_id", "action", "timestamp", "page_url")
FAKER_ROWS = 4_000


def faker_loop(rows: int) -> int:
    import faker

    fake = faker.Faker()
    fake.seed_instance(7)
    out = [
        {
            "user_id": fake.random_int(0, 49_999),
            "action": fake.random_element(("view", "click", "purchase")),
            "timestamp": fake.unix_time(),
            "page_url": fake.uri(),
        }
        for _ in range(rows)
    ]
    return len(out)


USERS = np.cumsum(np.arange(1, 50_001) ** -1.1)
USERS /= USERS[-1]
PAGES = np.array([f"https://shop.example/garden/{i}" for i in range(2_000)], dtype=object)
PRODUCTS = np.cumsum(np.arange(1, 2_001) ** -1.1)
PRODUCTS /= PRODUCTS[-1]
ACTIONS = np.array(["view", "click", "purchase"], dtype=object)
SHARES = np.array([0.8, 0.97, 1.0])


def by_hand_columns(k: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    user = np.searchsorted(USERS, rng.random(BLOCK_ROWS), side="right")
    action = ACTIONS[np.searchsorted(SHARES, rng.random(BLOCK_ROWS), side="right")]
    stamp = np.arange(k * BLOCK_ROWS, (k + 1) * BLOCK_ROWS) * 10 + 1_735_689_600_000
    page = PAGES[np.searchsorted(PRODUCTS, rng.random(BLOCK_ROWS), side="right")]
    return user, action, stamp, page


def by_hand(rows: int) -> int:
    rng = np.random.default_rng(7)
    for k in range(rows // BLOCK_ROWS):
        columns = (c.tolist() for c in by_hand_columns(k, rng))
        [{"user_id": u, "action": a, "timestamp": t, "page_url": p} for u, a, t, p in zip(*columns, strict=True)]
    return rows // BLOCK_ROWS * BLOCK_ROWS


def by_hand_json(rows: int) -> int:
    import msgspec

    rng, encode = np.random.default_rng(7), msgspec.json.Encoder().encode
    kept: list[bytes] = []
    for k in range(rows // BLOCK_ROWS):
        columns = (c.tolist() for c in by_hand_columns(k, rng))
        kept += [
            encode({"user_id": u, "action": a, "timestamp": t, "page_url": p})
            for u, a, t, p in zip(*columns, strict=True)
        ]
    return len(kept)


def columns_of(generator: Generator) -> Callable[[int], int]:
    def run(rows: int) -> int:
        for k in range(rows // BLOCK_ROWS):
            generator.make_block(k)
        return rows // BLOCK_ROWS * BLOCK_ROWS

    return run


def dicts_of(generator: Generator) -> Callable[[int], int]:
    def run(rows: int) -> int:
        for k in range(rows // BLOCK_ROWS):
            generator.make_block(k).rows()
        return rows // BLOCK_ROWS * BLOCK_ROWS

    return run


def json_of(generator: Generator) -> Callable[[int], int]:
    from simlink.serializers.json import Json

    serializer = Json()

    def run(rows: int) -> int:
        kept: list[bytes] = []
        for k in range(rows // BLOCK_ROWS):
            kept += serializer.dumps_many(generator.make_block(k))
        return len(kept)

    return run


def contenders() -> dict[str, Callable[[int], int]]:
    whole = catalog.clickstream(seed=7)
    four = whole.select(*FOUR)
    out = {
        "Faker loop, dicts": lambda _: faker_loop(FAKER_ROWS),
        "NumPy by hand, dicts": by_hand,
        "simlink, columns": columns_of(four),
        "simlink, dicts": dicts_of(four),
        "simlink, all 15 fields, columns": columns_of(whole),
        "simlink, all 15 fields, dicts": dicts_of(whole),
        "NumPy + msgspec by hand, JSON kept": by_hand_json,
    }
    try:
        out["simlink, JSON kept"] = json_of(four)
        out["simlink, all 15 fields, JSON kept"] = json_of(whole)
    except ImportError as error:
        print(f"without JSON: {error}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    runs = contenders()
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(BLOCK_ROWS)  # imports, pools, tables
    for _ in range(options.repeat):
        for name, run in runs.items():
            begun = time.perf_counter()
            made = run(options.rows)
            rates[name].append(made / (time.perf_counter() - begun))
    median = {name: statistics.median(values) for name, values in rates.items()}
    if options.json:
        print(json.dumps(median))
        return
    for name, rate in median.items():
        print(f"{name:36} {rate / 1e6:8.3f} M/s")
    print(f"dicts: {median['simlink, dicts'] / median['Faker loop, dicts']:.0f} x Faker (target 100)")
    print(f"dicts: {median['simlink, dicts'] / median['NumPy by hand, dicts']:.2f} x by hand (target 0.4)")
    if "simlink, JSON kept" in median:
        share = median["simlink, JSON kept"] / median["NumPy + msgspec by hand, JSON kept"]
        print(f"JSON: {share:.2f} x by hand (target 0.6)")


if __name__ == "__main__":
    main()
