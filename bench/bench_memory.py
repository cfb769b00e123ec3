"""How fast is the memory queue? Ready bodies, JSON by batches, and JSON one by one, beside `queue.Queue`.

    python bench/bench_memory.py [--rows 400000] [--repeats 5] [--json]

One thread sends, another receives and keeps what it got until the clock has stopped; both share the interpreter lock.
The generator's work is inside the clock for the JSON rows of ours, and ready values stand in for it elsewhere.
"""

from __future__ import annotations

import argparse
import gc
import json
import queue
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import simlink
from simlink.generators.catalog import clickstream
from simlink.message import Batch

FOUR = ("user_id", "action", "timestamp", "page_url")
CHUNK = 4_096


def timed(send: Callable[[], None], receive: Callable[[], int], rows: int) -> float:
    """Messages a second from the first send to the last receive."""
    gc.collect()
    sender = threading.Thread(target=send)
    started = time.perf_counter()
    sender.start()
    got = receive()
    seconds = time.perf_counter() - started
    sender.join()
    assert got == rows, f"{got} of {rows} came"
    return rows / seconds


def standard_queue(rows: int) -> float:
    pipe: queue.Queue[dict[str, Any]] = queue.Queue(10_000)
    value = clickstream(seed=7).select(*FOUR)[0]

    def send() -> None:
        for _ in range(rows):
            pipe.put(value)

    def receive() -> int:
        return len([pipe.get() for _ in range(rows)])

    return timed(send, receive, rows)


def through(rows: int, batches: Callable[[], Iterator[Any]], receive: Callable[[Any, int], int]) -> float:
    with simlink.queue("memory://bench") as channel, channel.receiver() as rx:

        def send() -> None:
            for batch in batches():
                channel.send_many(batch)

        return timed(send, lambda: receive(rx, rows), rows)


def kept_bodies(rx: Any, rows: int) -> int:
    kept: list[bytes] = []
    for batch in rx.batches():
        kept += batch.bodies
        if len(kept) >= rows:
            break
    return len(kept)


def kept_values(rx: Any, rows: int) -> int:
    kept: list[Any] = []
    for batch in rx.batches():
        kept += batch.values
        if len(kept) >= rows:
            break
    return len(kept)


def kept_one_by_one(rx: Any, rows: int) -> int:
    kept: list[Any] = []
    for delivery in rx:
        kept.append(delivery.value)
        if len(kept) == rows:
            break
    return len(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    rows = options.rows // CHUNK * CHUNK
    clicks = clickstream(seed=7).select(*FOUR)
    bodies = simlink.Json().dumps_many(next(iter(clicks.blocks(0, CHUNK))))

    def ready() -> Iterator[Batch]:
        return (Batch(bodies) for _ in range(rows // CHUNK))

    def generated() -> Iterator[Any]:
        return clicks.blocks(0, rows)

    runs: dict[str, Callable[[], float]] = {
        "queue.Queue between threads": lambda: standard_queue(rows // 4),
        "ready bodies, batches()": lambda: through(rows, ready, kept_bodies),
        "generated, JSON both ends, batches()": lambda: through(rows, generated, kept_values),
        "generated, JSON both ends, one by one": lambda: through(rows, generated, kept_one_by_one),
    }
    reach = {
        "ready bodies, batches()": 2.0e6,
        "generated, JSON both ends, batches()": 0.6e6,
        "generated, JSON both ends, one by one": 0.4e6,
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            rates[name].append(run())
    median = {name: statistics.median(found) for name, found in rates.items()}
    if options.json:
        print(json.dumps({"rates": median, "reach": reach}))
        return
    for name, rate in median.items():
        target = f"   reach {reach[name] / 1e6:.1f}" if name in reach else ""
        print(f"{name:40} {rate / 1e6:6.2f} M/s{target}")


if __name__ == "__main__":
    main()
