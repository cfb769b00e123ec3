"""Does memory stay flat while a saturated sender meets a slow reader? Resident memory of both ends, second by second.

    python bench/bench_soak.py [--seconds 60] [--transport tcp|memory] [--json]

The sender runs as fast as the window lets it; the reader takes one batch, then does nothing for 5 ms. The size swings
with the window, so flat means that there is no trend: of what comes after the first 10 seconds, the median of the later
half is at most 5 % above that of the earlier half.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import statistics
import threading
import time
from typing import Any

import psutil

import simlink
from simlink.generators.catalog import clickstream


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def slow_reader(url: str, ready: Any, stop: Any) -> None:
    with simlink.queue(url) as channel, channel.receiver(idle=0.5) as rx:
        ready.set()
        while not stop.is_set():
            for _ in rx.batches():
                time.sleep(0.005)
                if stop.is_set():
                    break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="at least 12")
    parser.add_argument("--transport", choices=("tcp", "memory"), default="tcp")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    clicks = clickstream(seed=7)
    sizes: list[float] = []
    if options.transport == "tcp":
        context = multiprocessing.get_context("spawn")
        url = f"tcp://127.0.0.1:{free_port()}/soak"
        ready, stop = context.Event(), context.Event()
        reader: Any = context.Process(target=slow_reader, args=(url, ready, stop))
    else:
        url = "memory://soak?max_messages=200000"
        ready, stop = threading.Event(), threading.Event()
        reader = threading.Thread(target=slow_reader, args=(url, ready, stop))
    reader.start()
    ready.wait(30)
    watched = [psutil.Process()] + ([psutil.Process(reader.pid)] if options.transport == "tcp" else [])
    job = simlink.start(clicks, url, duration=options.seconds, progress=False)
    for _ in range(options.seconds):
        time.sleep(1)
        sizes.append(sum(p.memory_info().rss for p in watched) / 2**20)
    report = job.stop()
    stop.set()
    reader.join(30)
    after = sizes[10:]
    growth = statistics.median(after[len(after) // 2 :]) / statistics.median(after[: len(after) // 2]) - 1
    result = {"transport": options.transport, "mib": sizes, "growth": growth, "sent": report.sent}
    if options.json:
        print(json.dumps(result))
        return
    for second in range(0, len(sizes), 5):
        print(f"{second + 1:3} s {sizes[second]:7.0f} MiB")
    print(f"sent {report.sent}; median of the later half against the earlier: {growth:+.1%} (flat: at most +5 %)")


if __name__ == "__main__":
    main()
