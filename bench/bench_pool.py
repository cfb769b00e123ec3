"""What does a pool cost? Four tcp receivers behind a queue beside one tcp channel; the heartbeats of 100 endpoints.

    python bench/bench_pool.py [--rows 100000] [--repeats 5] [--seconds 10] [--json]

Throughput: the same rows (four fields, encoded as JSON) in blocks of 4,096, from the first hand-over until the last is
settled by receivers in processes of their own, which decode all of them. The contenders take turns, round by round,
with the processes of both there all the time; medians of the rounds are printed, and of the ratio within each round.

Heartbeats: a pool of 100 endpoints that is connected and idle, with the default beats of one a second each way: the CPU
time of the sending process over ``--seconds``, and of the process that has the 100 receivers, as parts of one core.
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
from contextlib import ExitStack
from typing import Any

import psutil

import simlink

LOCAL = "127.0.0.1"
BLOCK = 4_096


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((LOCAL, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def url_of(ports: list[int]) -> str:
    return f"tcp://{','.join(f'{LOCAL}:{port}' for port in ports)}/orders"


def receiving(ports: list[int], *, together: bool = False) -> list[subprocess.Popen[str]]:
    """Processes that receive, one a port or one for all, ready."""
    groups = [ports] if together else [[port] for port in ports]
    command = [sys.executable, __file__, "--receive"]
    processes = [subprocess.Popen([*command, json.dumps(group)], stdout=subprocess.PIPE, text=True) for group in groups]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    return processes


def receive(ports: list[int]) -> None:
    with ExitStack() as stack:
        receivers = [stack.enter_context(simlink.queue(f"tcp://{LOCAL}:{port}/orders").receiver()) for port in ports]
        print("ready", flush=True)
        if len(receivers) > 1:
            time.sleep(3600)
        for batch in receivers[0].batches():
            _ = batch.values


def one_round(channel: simlink.Channel, rows: list[dict[str, Any]]) -> float:
    begun = time.perf_counter()
    for first in range(0, len(rows), BLOCK):
        channel.send_many(rows[first : first + BLOCK], wait=False, timeout=120)
    channel.sender.wait_resolved(120)
    return len(rows) / (time.perf_counter() - begun)


def throughput(count: int, repeats: int) -> dict[str, Any]:
    rows = [
        {"user_id": i % 50_000, "action": "view", "timestamp": i, "page_url": f"https://shop.example/garden/{i % 2000}"}
        for i in range(count)
    ]
    ports = free_ports(5)
    processes = receiving(ports)
    try:
        with simlink.queue(url_of(ports[:1])) as one, simlink.queue(url_of(ports[1:])) as four:
            for channel in (one, four):
                one_round(channel, rows[:BLOCK])
            rates: dict[str, list[float]] = {"one": [], "four": []}
            cpu = {"one": 0.0, "four": 0.0}
            for _ in range(repeats):
                for name, channel in (("one", one), ("four", four)):
                    before = time.process_time()
                    rates[name].append(one_round(channel, rows))
                    cpu[name] += time.process_time() - before
            shares = {endpoint.name: endpoint.sent for endpoint in four.endpoints}
    finally:
        for process in processes:
            process.kill()
            process.wait()
    ratios = [b / a for a, b in zip(rates["one"], rates["four"], strict=True)]
    return {
        "one": statistics.median(rates["one"]),
        "four": statistics.median(rates["four"]),
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "sender_us": {name: round(spent / repeats / count * 1e6, 2) for name, spent in cpu.items()},
        "shares": shares,
    }


def heartbeats(endpoints: int, seconds: float) -> dict[str, Any]:
    ports = free_ports(endpoints)
    (process,) = receiving(ports, together=True)
    try:
        with simlink.queue(url_of(ports)) as channel:
            channel.sender.connect(60)
            end = time.monotonic() + 60
            while time.monotonic() < end and any(each.state != "up" for each in channel.endpoints):
                time.sleep(0.05)
            up = sum(each.state == "up" for each in channel.endpoints)
            there = psutil.Process(process.pid)
            before, before_there = time.process_time(), sum(there.cpu_times()[:2])
            begun = time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - begun
            here_cpu = (time.process_time() - before) / took
            there_cpu = (sum(there.cpu_times()[:2]) - before_there) / took
            still = sum(each.state == "up" for each in channel.endpoints)
            beats = channel.sender.driver.stats()["beats"]
    finally:
        process.kill()
        process.wait()
    return {"endpoints": up, "still_up": still, "sender": here_cpu, "receivers": there_cpu, "beats": beats}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--receive", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.receive:
        receive(json.loads(given.receive))
        return
    found = {
        "throughput": throughput(given.rows, given.repeats),
        "heartbeats": heartbeats(given.endpoints, given.seconds),
    }
    if given.json:
        print(json.dumps(found))
        return
    rates, beats = found["throughput"], found["heartbeats"]
    print(f"cores {os.cpu_count()}, {given.rows:,} rows, {given.repeats} rounds")
    print(f"one tcp channel   {rates['one']:>10,.0f}/s")
    print(
        f"four tcp, pooled  {rates['four']:>10,.0f}/s   {rates['ratio']:.2f}× (rounds: {rates['ratios']}); to reach"
        " 0.8×"
    )
    print(f"  CPU of the sender, µs a message: {rates['sender_us']}")
    print(f"  handed to each: {rates['shares']}")
    print(
        f"heartbeats of {beats['endpoints']} endpoints: sender {beats['sender']:.2%} of a core, receivers"
        f" {beats['receivers']:.2%}; to reach 1 %; {beats['still_up']} up all the time; {beats['beats']} beats heard"
    )


if __name__ == "__main__":
    main()
