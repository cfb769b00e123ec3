"""How fast is http://, from generated records to decoded ones in another process? Beside loops of client libraries.

    python bench/bench_http.py [--rows 200000] [--requests 3000] [--repeats 3] [--json]

First table: batches. Every contender makes records of the same four fields, encodes each as JSON and posts them to
another process that decodes and keeps them all. The loops by hand are what a user would write with http.client or
urllib3: 1,000 records as lines of JSON in a request, one request after the other, to a bare ASGI application on uvicorn
with httptools. Ours adds what it promises: identities, de-duplication, acceptance and settlement of every message.

Second table: one record a request, to the same bare application: the libraries' own loops, and ``rest=True``, which by
default has two requests under way, and with ``connections=1`` one, like the loops.

Third: one waiting send of a small message, p50. The contenders take turns; medians of the rounds are printed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import msgspec
import numpy as np
import urllib3

from simlink.channels.channel import queue
from simlink.channels.url import parse_url
from simlink.generators.catalog import clickstream
from simlink.generators.generator import Generator

CHUNK = 1_000
BLOCK = 4_096
PAGES = [f"https://shop.example/garden/{i}" for i in range(2_000)]
FOUR = ("user_id", "action", "timestamp", "page_url")
ACTIONS = ["view", "click", "purchase"]
LOCAL = "127.0.0.1"
HEADERS = {"content-type": "application/x-ndjson"}
ONE = {"content-type": "application/json"}
encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


def records(rows: int) -> Iterator[list[dict[str, Any]]]:
    """Blocks of four fields, from uniform columns."""
    rng = np.random.default_rng(7)
    for start in range(0, rows, BLOCK):
        n = min(BLOCK, rows - start)
        users = rng.integers(0, 50_000, n).tolist()
        actions = rng.integers(0, 3, n).tolist()
        pages = rng.integers(0, 2_000, n).tolist()
        stamps = range(1_735_689_600_000 + start * 10, 1_735_689_600_000 + (start + n) * 10, 10)
        yield [
            {"user_id": u, "action": ACTIONS[a], "timestamp": t, "page_url": PAGES[p]}
            for u, a, t, p in zip(users, actions, stamps, pages, strict=True)
        ]


@cache
def clicks() -> Generator:
    """The generator, made and tried once: its pools of texts are not what is timed."""
    generator = clickstream(seed=7).select(*FOUR)
    generator.block(0)
    return generator


@cache
def small() -> list[bytes]:
    """Bodies for one record a request, made beforehand: the request is what is timed."""
    return [encode(record) for record in next(records(BLOCK))]


# --- senders ---------------------------------------------------------------------------------------------------------


def batches_by_http_client(port: int, rows: int) -> None:
    connection = http.client.HTTPConnection(LOCAL, port)
    for block in records(rows):
        for at in range(0, len(block), CHUNK):
            body = b"\n".join([encode(r) for r in block[at : at + CHUNK]])
            connection.request("POST", "/bench", body, HEADERS)
            assert connection.getresponse().read() == b"ok"
    connection.close()


def batches_by_urllib3(port: int, rows: int) -> None:
    with urllib3.HTTPConnectionPool(LOCAL, port) as pool:
        for block in records(rows):
            for at in range(0, len(block), CHUNK):
                body = b"\n".join([encode(r) for r in block[at : at + CHUNK]])
                assert pool.urlopen("POST", "/bench", body, HEADERS).data == b"ok"


def batches_by_channel(port: int, rows: int) -> None:
    with queue(f"http://{LOCAL}:{port}/bench") as channel:
        # Not waiting for each block: the window bounds what is out, and closing waits until all of it is settled.
        for block in clicks().blocks(0, rows):
            channel.send_many(block, wait=False)


def dicts_by_channel(port: int, rows: int) -> None:
    with queue(f"http://{LOCAL}:{port}/bench") as channel:
        for block in records(rows):
            channel.send_many(block, wait=False)


def one_by_http_client(port: int, rows: int) -> None:
    connection = http.client.HTTPConnection(LOCAL, port)
    bodies = small()
    for row in range(rows):
        connection.request("POST", "/bench", bodies[row % BLOCK], ONE)
        assert connection.getresponse().read() == b"ok"
    connection.close()


def one_by_urllib3(port: int, rows: int) -> None:
    bodies = small()
    with urllib3.HTTPConnectionPool(LOCAL, port) as pool:
        for row in range(rows):
            assert pool.urlopen("POST", "/bench", bodies[row % BLOCK], ONE).data == b"ok"


def one_by_rest(port: int, rows: int, connections: int = 2) -> None:
    block = next(records(BLOCK))
    values = [block[row % BLOCK] for row in range(rows)]
    with queue(f"http://{LOCAL}:{port}/bench", rest=True, connections=connections) as channel:
        channel.send_many(values, timeout=120)


def one_by_rest_alone(port: int, rows: int) -> None:
    one_by_rest(port, rows, 1)


# --- receivers, in the other process: each keeps every value ---------------------------------------------------------


def receive_by_hand(rows: int) -> int:
    """A bare ASGI application on uvicorn; it keeps what it decodes."""
    import socket

    import uvicorn

    kept: list[Any] = []
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-length", b"2"), (b"content-type", b"text/plain")],
    }

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        chunks = []
        while True:
            message = await receive()
            chunks.append(message["body"])
            if not message["more_body"]:
                break
        kept.extend([decode(line) for line in b"".join(chunks).split(b"\n")])
        await send(start)
        await send({"type": "http.response.body", "body": b"ok"})
        if len(kept) >= rows:
            server.should_exit = True

    # The protocol is named, or asyncio would leave Nagle's delay on.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind((LOCAL, 0))
    sock.listen(100)
    print(sock.getsockname()[1], flush=True)
    config = uvicorn.Config(
        app, loop="asyncio", http="httptools", lifespan="off", ws="none", access_log=False, log_config=None
    )
    server = uvicorn.Server(config)
    server.run([sock])
    return len(kept)


def receive_batches(rows: int) -> int:
    kept: list[Any] = []
    with queue(f"http://{LOCAL}:0/bench") as channel, channel.receiver() as rx:
        assert rx.url is not None
        print(parse_url(rx.url).hosts[0].port, flush=True)
        for batch in rx.batches():
            kept.extend(batch.values)
            if len(kept) == rows:
                break
    return len(kept)


RECEIVERS: dict[str, Callable[[int], int]] = {"hand": receive_by_hand, "batches": receive_batches}
Contenders = dict[str, tuple[Callable[[int, int], None], str]]
BATCHES: Contenders = {
    "http.client by hand": (batches_by_http_client, "hand"),
    "urllib3 by hand": (batches_by_urllib3, "hand"),
    "channel, blocks to batches()": (batches_by_channel, "batches"),
    "channel, dicts to batches()": (dicts_by_channel, "batches"),
}
SINGLE: Contenders = {
    "http.client by hand": (one_by_http_client, "hand"),
    "urllib3 by hand": (one_by_urllib3, "hand"),
    "channel, rest=True": (one_by_rest, "hand"),
    "channel, rest=True, one connection": (one_by_rest_alone, "hand"),
}


# --- one waiting send ------------------------------------------------------------------------------------------------


def wait_http_client(port: int, rounds: int) -> list[float]:
    connection = http.client.HTTPConnection(LOCAL, port)
    body = encode("x" * 138)
    out = []
    for _ in range(rounds):
        started = time.perf_counter()
        connection.request("POST", "/bench", body, ONE)
        connection.getresponse().read()
        out.append(time.perf_counter() - started)
    connection.close()
    return out


def wait_urllib3(port: int, rounds: int) -> list[float]:
    body = encode("x" * 138)
    out = []
    with urllib3.HTTPConnectionPool(LOCAL, port) as pool:
        for _ in range(rounds):
            started = time.perf_counter()
            assert pool.urlopen("POST", "/bench", body, ONE).data == b"ok"
            out.append(time.perf_counter() - started)
    return out


def wait_channel(port: int, rounds: int, **options: Any) -> list[float]:
    out = []
    with queue(f"http://{LOCAL}:{port}/bench", **options) as channel:
        for _ in range(rounds):
            started = time.perf_counter()
            channel.send("x" * 138)
            out.append(time.perf_counter() - started)
    return out


LATENCIES: dict[str, tuple[Callable[[int, int], list[float]], str]] = {
    "http.client by hand": (wait_http_client, "hand"),
    "urllib3 by hand": (wait_urllib3, "hand"),
    "channel, send": (wait_channel, "batches"),
    "channel, send, rest=True": (lambda port, rounds: wait_channel(port, rounds, rest=True), "hand"),
}


def with_receiver(kind: str, rows: int, work: Callable[[int], Any]) -> tuple[Any, float]:
    """Run ``work(port)`` against a receiver in another process: its result, and that process' CPU seconds."""
    with subprocess.Popen(
        [sys.executable, __file__, "--receive", kind, "--rows", str(rows)], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            port = int(child.stdout.readline())
            result = work(port)
            return result, float(child.stdout.readline() or "nan")
        finally:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()


def take_turns(contenders: Contenders, rows: int, repeats: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    rates: dict[str, list[float]] = {}
    cpu: dict[str, list[tuple[float, float]]] = {}
    for _ in range(repeats):
        for name, (send, kind) in contenders.items():

            def run(port: int, send: Callable[[int, int], None] = send) -> tuple[float, float]:
                started, before = time.perf_counter(), time.process_time()
                send(port, rows)
                return rows / (time.perf_counter() - started), time.process_time() - before

            (rate, here), there = with_receiver(kind, rows, run)
            rates.setdefault(name, []).append(rate)
            cpu.setdefault(name, []).append((here / rows * 1e6, there / rows * 1e6))
    costs = {name: [statistics.median(side) for side in zip(*values, strict=True)] for name, values in cpu.items()}
    return {name: statistics.median(values) for name, values in rates.items()}, costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--requests", type=int, default=3_000, help="of one record each")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1_000, help="waiting sends per contender")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--receive", choices=RECEIVERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.receive:
        import simlink.channels.http.server
        import simlink.channels.receiver  # noqa: F401 – both sides load uvicorn before their clocks start

        before = time.process_time()
        assert RECEIVERS[args.receive](args.rows) >= args.rows
        print(time.process_time() - before, flush=True)
        os._exit(0)  # the kept values need no tidying away
    clicks()
    small()
    batches, batch_costs = take_turns(BATCHES, args.rows, args.repeats)
    single, single_costs = take_turns(SINGLE, args.requests, args.repeats)
    waits: dict[str, list[float]] = {}
    for _ in range(args.repeats):
        for name, (measure, kind) in LATENCIES.items():
            times, _ = with_receiver(kind, args.rounds, lambda port, measure=measure: measure(port, args.rounds))
            waits.setdefault(name, []).append(statistics.median(times) * 1e6)
    p50 = {name: statistics.median(values) for name, values in waits.items()}
    if args.json:
        print(json.dumps({"rows": args.rows, "batches": batches, "single": single, "p50_us": p50}))
        return
    for title, rates, costs in (
        (f"{args.rows:,} records in batches", batches, batch_costs),
        (f"{args.requests:,} requests of one record", single, single_costs),
    ):
        floor = next(iter(rates.values()))
        print(f"{title:40} {'messages/s':>12} {'× first':>8} {'CPU µs, sender':>15} {'receiver':>9}")
        for name, rate in rates.items():
            print(f"{name:40} {rate:12,.0f} {rate / floor:8.2f} {costs[name][0]:15.2f} {costs[name][1]:9.2f}")
        print()
    raw = next(iter(p50.values()))
    print(f"{'one waiting send':40} {'p50 µs':>12} {'× first':>8}")
    for name, wait in p50.items():
        print(f"{name:40} {wait:12.1f} {wait / raw:8.2f}")


if __name__ == "__main__":
    main()
