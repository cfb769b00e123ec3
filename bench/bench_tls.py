"""What does TLS cost on tcp://? The same records through tcp:// and tcps:// in turns, to another process.

    python bench/bench_tls.py [--rows 300000] [--repeats 5] [--json]

As in bench_tcp.py: a generator's blocks of four fields, encoded as JSON, sent without waiting, decoded and kept by
batches in another process; the clock stops when all of it is settled. Both sides show a certificate (ECDSA, P-256).
The second pair is one waiting send. Medians; the two take turns, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trustme

from simlink.channels.channel import queue
from simlink.channels.url import parse_url
from simlink.generators.catalog import clickstream

LOCAL = "127.0.0.1"
SCHEMES = ("tcp", "tcps")


def certificates(folder: Path) -> dict[str, str]:
    authority = trustme.CA()
    leaf = authority.issue_cert(LOCAL)
    files = {name: str(folder / f"{name}.pem") for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    leaf.cert_chain_pems[0].write_to_path(files["cert"])
    leaf.private_key_pem.write_to_path(files["key"])
    return files


def receive(scheme: str, files: dict[str, str], rows: int) -> None:
    kept: list[Any] = []
    with queue(f"{scheme}://{LOCAL}:0/bench", **files) as channel, channel.receiver() as rx:
        assert rx.url is not None
        print(parse_url(rx.url).hosts[0].port, flush=True)
        for batch in rx.batches():
            kept.extend(batch.values)
            if len(kept) == rows:
                break


def with_receiver(scheme: str, files: dict[str, str], rows: int, work: Any) -> Any:
    command = [sys.executable, __file__, "--receive", scheme, "--files", json.dumps(files), "--rows", str(rows)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            port = int(child.stdout.readline())
            with queue(f"{scheme}://{LOCAL}:{port}/bench", **files) as channel:
                return work(channel)
        finally:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2_000, help="waiting sends per round")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--receive", choices=SCHEMES, help=argparse.SUPPRESS)
    parser.add_argument("--files", type=json.loads, default={}, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.receive:
        receive(args.receive, args.files, args.rows)
        os._exit(0)  # the kept values need no tidying away
    clicks = clickstream(seed=7).select("user_id", "action", "timestamp", "page_url")
    clicks.block(0)

    def many(channel: Any) -> float:
        channel.send("x")  # connected, and shaken hands
        started = time.perf_counter()
        for block in clicks.blocks(0, args.rows - 1):
            channel.send_many(block, wait=False)
        channel.close()
        return (args.rows - 1) / (time.perf_counter() - started)

    def one(channel: Any) -> float:
        times = []
        for _ in range(args.rounds):
            started = time.perf_counter()
            channel.send("x" * 138)
            times.append(time.perf_counter() - started)
        return statistics.median(times) * 1e6

    rates: dict[str, list[float]] = {scheme: [] for scheme in SCHEMES}
    waits: dict[str, list[float]] = {scheme: [] for scheme in SCHEMES}
    with tempfile.TemporaryDirectory() as folder:
        made = certificates(Path(folder))
        for _ in range(args.repeats):
            for scheme in SCHEMES:
                files = made if scheme == "tcps" else {}
                rates[scheme].append(with_receiver(scheme, files, args.rows, many))
                waits[scheme].append(with_receiver(scheme, files, args.rounds, one))
    found = {
        "messages_per_second": {scheme: statistics.median(values) for scheme, values in rates.items()},
        "p50_us": {scheme: statistics.median(values) for scheme, values in waits.items()},
    }
    if args.json:
        print(json.dumps({"rows": args.rows, **found}))
        return
    for what, values in found.items():
        print(
            f"{what:22} tcp {values['tcp']:12,.1f}   tcps {values['tcps']:12,.1f}   × "
            f"{values['tcps'] / values['tcp']:.2f}"
        )


if __name__ == "__main__":
    main()
