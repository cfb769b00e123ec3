"""How fast is tcp://, from generated records to decoded ones in another process? Beside a loop written by hand.

    python bench/bench_tcp.py [--rows 400000] [--repeats 5] [--json]

Every contender makes records of the same four fields (the loop by hand: NumPy columns to dicts; the channel: the blocks
of a generator), encodes each as JSON, and sends them to another process that decodes and keeps them all; the clock runs
from the first record to the receiver's word that it has the last. The loop by hand writes newline-delimited JSON in
batches of 1,000 and is told nothing but that word. Ours adds what it promises: identities, de-duplication, acceptance
and settlement of every message. The contenders take turns, round by round, so that a busy machine slows all of them;
medians of the rounds are printed.

The second table is one waiting send: a raw echo of as many bytes, and a message accepted by the receiver. These take
turns as well, and each end has a processor of its own: left alone, the scheduler puts both ends of an echo on one
processor or on two, as it likes, and makes 20 or 150 µs of it.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import msgspec
import numpy as np

from simlink.channels.channel import queue
from simlink.channels.driver import Mode, OutcomeKind, ReceiverOptions, Settlement
from simlink.channels.tcp import TcpDriver
from simlink.channels.url import parse_url
from simlink.generators.catalog import clickstream
from simlink.generators.generator import Generator
from simlink.message import Batch, Same, Verdict

CHUNK = 1_000
BLOCK = 4_096
WINDOW = 65_536
PRODUCER = b"bench-producer-1"
PAGES = [f"https://shop.example/garden/{i}" for i in range(2_000)]
FOUR = ("user_id", "action", "timestamp", "page_url")
ACTIONS = ["view", "click", "purchase"]
LOCAL = "127.0.0.1"
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


# --- senders: each returns when the other process has everything -----------------------------------------------------


def send_by_hand(port: int, rows: int) -> None:
    with socket.create_connection((LOCAL, port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for block in records(rows):
            for at in range(0, len(block), CHUNK):
                sock.sendall(b"\n".join([encode(r) for r in block[at : at + CHUNK]]) + b"\n")
        assert sock.recv(1) == b"!"


def send_by_driver(port: int, rows: int) -> None:
    driver = TcpDriver(parse_url(f"tcp://{LOCAL}:{port}/bench"), mode=Mode.QUEUE)
    sender = driver.sender()
    sender.open(10.0)
    position = settled = 0

    def book(timeout: float) -> None:
        nonlocal settled
        for outcome in sender.outcomes(timeout):
            if outcome.kind is OutcomeKind.SETTLED:
                settled += outcome.stop - outcome.first

    for block in records(rows):
        for at in range(0, len(block), CHUNK):
            bodies = [encode(r) for r in block[at : at + CHUNK]]
            n = len(bodies)
            while position + n - settled > WINDOW:
                book(0.1)
            sender.submit(Batch(bodies, producers=Same(PRODUCER, n), sequences=range(position, position + n)), position)
            position += n
            if position - settled > WINDOW // 2:
                book(0.0)
    while settled < rows:
        book(0.1)
    sender.close(1.0)


def send_by_channel(port: int, rows: int) -> None:
    with queue(f"tcp://{LOCAL}:{port}/bench") as channel:
        # Not waiting for each block: the window bounds what is out, and closing waits until all of it is settled.
        for block in clicks().blocks(0, rows):
            channel.send_many(block, wait=False)


# --- receivers, in the other process: each keeps every value ---------------------------------------------------------


def receive_by_hand(rows: int) -> int:
    kept: list[Any] = []
    with socket.create_server((LOCAL, 0)) as server:
        print(server.getsockname()[1], flush=True)
        sock, _ = server.accept()
        with sock:
            rest = b""
            while len(kept) < rows:
                lines = (rest + sock.recv(262_144)).split(b"\n")
                rest = lines.pop()
                kept.extend([decode(line) for line in lines])
            sock.sendall(b"!")
    return len(kept)


def receive_by_driver(rows: int) -> int:
    kept: list[Any] = []
    driver = TcpDriver(parse_url(f"tcp://{LOCAL}:0/bench"), mode=Mode.QUEUE)
    receiver = driver.receiver(None, ReceiverOptions(prefetch=WINDOW))
    receiver.open(1.0)
    print(driver.bound_port, flush=True)
    while len(kept) < rows:
        for incoming in receiver.receive(CHUNK, 1.0):
            kept.extend([decode(body) for body in incoming.batch.bodies])
            first, last = incoming.tokens[0], incoming.tokens[-1]
            receiver.settle([Settlement(incoming.lease, Verdict.ACK, first, last)])
    receiver.close(5.0)
    return len(kept)


def receive_batches(rows: int) -> int:
    kept: list[Any] = []
    with queue(f"tcp://{LOCAL}:0/bench") as channel, channel.receiver() as rx:
        assert rx.url is not None
        print(parse_url(rx.url).hosts[0].port, flush=True)
        for batch in rx.batches():
            kept.extend(batch.values)
            if len(kept) == rows:
                break
    return len(kept)


def receive_one_by_one(rows: int) -> int:
    kept: list[Any] = []
    with queue(f"tcp://{LOCAL}:0/bench") as channel, channel.receiver() as rx:
        assert rx.url is not None
        print(parse_url(rx.url).hosts[0].port, flush=True)
        for delivery in rx:
            kept.append(delivery.value)
            if len(kept) == rows:
                break
    return len(kept)


def receive_echo(rows: int) -> int:
    with socket.create_server((LOCAL, 0)) as server:
        print(server.getsockname()[1], flush=True)
        sock, _ = server.accept()
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := sock.recv(4096):
                sock.sendall(data)
    return rows


RECEIVERS: dict[str, Callable[[int], int]] = {
    "hand": receive_by_hand,
    "driver": receive_by_driver,
    "batches": receive_batches,
    "one by one": receive_one_by_one,
    "echo": receive_echo,
}
CONTENDERS: dict[str, tuple[Callable[[int, int], None], str]] = {
    "by hand, newline JSON (floor)": (send_by_hand, "hand"),
    "driver, batches of 1,000": (send_by_driver, "driver"),
    "channel, send_many to batches()": (send_by_channel, "batches"),
    "channel, send_many to one by one": (send_by_channel, "one by one"),
}


# --- one waiting send ------------------------------------------------------------------------------------------------


def echo_latency(port: int, rounds: int) -> list[float]:
    body = b"x" * 140
    out = []
    with socket.create_connection((LOCAL, port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(rounds):
            started = time.perf_counter()
            sock.sendall(body)
            sock.recv(4096)
            out.append(time.perf_counter() - started)
    return out


def driver_latency(port: int, rounds: int) -> list[float]:
    driver = TcpDriver(parse_url(f"tcp://{LOCAL}:{port}/bench"), mode=Mode.QUEUE)
    sender = driver.sender()
    sender.open(10.0)
    out = []
    for position in range(rounds):
        batch = Batch([b"1" * 140], producers=Same(PRODUCER, 1), sequences=range(position, position + 1))
        started = time.perf_counter()
        sender.submit(batch, position)
        while not any(o.kind is OutcomeKind.CONFIRMED for o in sender.outcomes(1.0)):
            pass
        out.append(time.perf_counter() - started)
    sender.close(1.0)
    return out


def channel_latency(port: int, rounds: int) -> list[float]:
    out = []
    with queue(f"tcp://{LOCAL}:{port}/bench") as channel:
        for _ in range(rounds):
            started = time.perf_counter()
            channel.send("x" * 138)
            out.append(time.perf_counter() - started)
    return out


LATENCIES: dict[str, tuple[Callable[[int, int], list[float]], str]] = {
    "raw echo (floor)": (echo_latency, "echo"),
    "driver, until accepted": (driver_latency, "driver"),
    "channel, send": (channel_latency, "batches"),
}


@contextmanager
def apart(child: int) -> Iterator[None]:
    """This process on one processor, and a child on another, where there are two to choose from."""
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if len(ours) < 2:
        yield
        return
    here, there, *_ = sorted(ours)
    os.sched_setaffinity(child, {there})
    os.sched_setaffinity(0, {here})
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def with_receiver(kind: str, rows: int, work: Callable[[int], Any], *, on_its_own: bool = False) -> tuple[Any, float]:
    """Run ``work(port)`` against a receiver in another process: its result, and that process' CPU seconds."""
    with (
        subprocess.Popen(
            [sys.executable, __file__, "--receive", kind, "--rows", str(rows)], stdout=subprocess.PIPE, text=True
        ) as child,
        apart(child.pid) if on_its_own else nullcontext(),
    ):
        try:
            assert child.stdout is not None
            result = work(int(child.stdout.readline()))
            return result, float(child.stdout.readline() or "nan")
        finally:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1_000, help="waiting sends per round")
    parser.add_argument("--only", default="", help="contenders whose name has this")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--receive", choices=RECEIVERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.receive:
        before = time.process_time()
        assert RECEIVERS[args.receive](args.rows) >= args.rows
        print(time.process_time() - before, flush=True)
        os._exit(0)  # the kept values need no tidying away
    clicks()
    rates: dict[str, list[float]] = {}
    cpu: dict[str, list[tuple[float, float]]] = {}
    for _ in range(args.repeats):
        for name, (send, kind) in CONTENDERS.items():
            if args.only not in name and "floor" not in name:
                continue

            def run(port: int, send: Callable[[int, int], None] = send) -> tuple[float, float]:
                started, before = time.perf_counter(), time.process_time()
                send(port, args.rows)
                return args.rows / (time.perf_counter() - started), time.process_time() - before

            (rate, here), there = with_receiver(kind, args.rows, run)
            rates.setdefault(name, []).append(rate)
            cpu.setdefault(name, []).append((here / args.rows * 1e6, there / args.rows * 1e6))
    turns: dict[str, list[float]] = {}
    for _ in range(args.repeats):
        for name, (measure, kind) in LATENCIES.items():
            times, _ = with_receiver(
                kind, args.rounds, lambda port, measure=measure: measure(port, args.rounds), on_its_own=True
            )
            turns.setdefault(name, []).append(statistics.median(times) * 1e6)
    waits = {name: statistics.median(values) for name, values in turns.items()}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    costs = {name: [statistics.median(side) for side in zip(*values, strict=True)] for name, values in cpu.items()}
    if args.json:
        print(json.dumps({"rows": args.rows, "messages_per_second": medians, "cpu_us": costs, "p50_us": waits}))
        return
    floor = next(iter(medians.values()))
    head = f"{'messages/s':>12} {'× floor':>8} {'CPU µs, sender':>15} {'receiver':>9}"
    print(f"{'tcp, ' + format(args.rows, ',') + ' records':40} {head}")
    for name, rate in medians.items():
        print(f"{name:40} {rate:12,.0f} {rate / floor:8.2f} {costs[name][0]:15.2f} {costs[name][1]:9.2f}")
    echo = next(iter(waits.values()))
    print(f"\n{'one waiting send':40} {'p50 µs':>12} {'× echo':>8}")
    for name, wait in waits.items():
        print(f"{name:40} {wait:12.1f} {wait / echo:8.2f}")


if __name__ == "__main__":
    main()
