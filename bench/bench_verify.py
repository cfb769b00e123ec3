"""How fast does verify() compare, beside decoding the same bodies and doing nothing with them?

    python bench/bench_verify.py [--rows 1000000] [--repeat 3]

Bodies are made and kept beforehand, as JSON of four fields, and handed to the verification in batches of 2,048 as a
receiver would. "decode alone" reads them with the serializer; "verify" books and compares with what is made again from
the seed; "verify, shuffled" has the batches of each 65,536 rows in another order; "verify, with faults" compares a
stream with ten faults at 0.1 % each. The last row is the acceptance at full size: every fault at 0.1 %, sent through a
queue in memory and verified; what is reported must equal the labels.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import simlink
from simlink import faults, fields
from simlink.message import Batch, Same
from simlink.verification import Verifier

BATCH = 2_048
CHUNK = 65_536


def source(rows: int) -> Any:
    return simlink.record(
        "reading",
        id=fields.sequence(),
        device=fields.choice(a=1, b=1, c=1),
        value=fields.normal(20, 2, decimals=2),
        timestamp=fields.event_time(format="iso"),
        seed=7,
    ).take(rows)


def with_faults(rows: int) -> Any:
    p = 0.001
    return faults.apply(
        source(rows),
        *(faults.drop(p), faults.duplicate(p), faults.late(p, by=30), faults.out_of_order(p, 64), faults.corrupt(p)),
        *(faults.truncate(p), faults.wrong_type(p, "value"), faults.clock_skew(p, 60), faults.hot_key(p, "device")),
        faults.spike(p, "value"),
    )


def with_episodes(rows: int) -> Any:
    p = 0.001
    return faults.apply(
        with_faults(rows),
        *(faults.stuck(p, "value", per="device", length=3), faults.gap(p, per="device", length=3)),
        *(faults.drift(p, "value", 5, per="device", length=3), faults.flap(p, "value", 3, length=3)),
    )


def batches(bodies: list[bytes], producer: bytes) -> list[Batch]:
    return [
        Batch(part, producers=Same(producer, len(part)), sequences=range(at, at + len(part)))
        for at in range(0, len(bodies), BATCH)
        for part in [bodies[at : at + BATCH]]
    ]


def bodies_of(origin: Any) -> list[bytes]:
    from simlink.generators.source import as_source

    serializer, out = simlink.Json(), []
    for chunk in as_source(origin).chunks():
        out += chunk.encode(serializer) if hasattr(chunk, "encode") else serializer.dumps_many(chunk)
    return out


def contenders(rows: int) -> dict[str, Callable[[], int]]:
    channel = simlink.queue("memory://bench-verify")
    receiver = channel.receiver()
    receiver.open()
    plain, faulty = source(rows), with_faults(rows)
    ordered = batches(bodies_of(plain), b"a" * 16)
    shuffled = list(ordered)
    step, dice = CHUNK // BATCH, random.Random(7)
    for at in range(0, len(shuffled), step):
        part = shuffled[at : at + step]
        dice.shuffle(part)
        shuffled[at : at + step] = part
    damaged = batches(bodies_of(faulty), b"b" * 16)
    serializer = simlink.Json()

    def decode() -> int:
        return sum(len(serializer.loads_many(batch.bodies)) for batch in ordered)

    def verify(given: list[Batch], origin: Any) -> int:
        verifier = Verifier(receiver, origin)
        for batch in given:
            verifier.book(batch)
        found = verifier.result()
        assert found.lost == found.corrupt == found.unexpected == 0, found
        return found.received

    return {
        "decode alone": decode,
        "verify": lambda: verify(ordered, plain),
        "verify, shuffled": lambda: verify(shuffled, plain),
        "verify, with faults": lambda: verify(damaged, with_faults(rows)),
    }


def acceptance(rows: int) -> tuple[float, bool]:
    origin = with_episodes(rows)
    found = []
    begun = time.perf_counter()
    with simlink.queue("memory://bench-faults") as channel, channel.receiver() as receiver:
        reader = threading.Thread(target=lambda: found.append(simlink.verify(receiver, origin)), name="verify")
        reader.start()
        simlink.run(origin, channel, key="device", progress=False)
        reader.join()
    seconds = time.perf_counter() - begun
    labels = Counter(label.fault for label in origin.labels())
    return seconds, found[0].ok and labels == found[0].injected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    runs = contenders(options.rows)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeat):
        for name, run in runs.items():
            begun = time.perf_counter()
            rows = run()
            rates[name].append(rows / (time.perf_counter() - begun))
    median = {name: statistics.median(values) for name, values in rates.items()}
    seconds, equal = acceptance(options.rows)
    if options.json:
        print(json.dumps({**median, "acceptance_seconds": seconds, "acceptance_equal": equal}))
        return
    for name, rate in median.items():
        print(f"{name:24} {rate / 1e6:8.3f} M/s")
    same = "equal" if equal else "DIFFER"
    print(
        f"{options.rows:,} records, every fault at 0.1 %, sent and verified: {seconds:.1f} s, reports and labels {same}"
    )


if __name__ == "__main__":
    main()
