"""How fast is grpc://, beside what one writes by hand with grpcio?

    python bench/bench_grpc.py [--rows 200000] [--repeats 3] [--json]

Three tables. *Ready*: bodies of 140 bytes that exist already, in batches of 1,000 and of 100, through a stream by hand
(the same Protobuf columns; every batch answered by one small message, 16 batches unanswered) and through ours at the
driver; and one message a call, by a unary method. *Made*: records of four fields made, encoded as JSON, sent, decoded
and kept in another process; by hand (NumPy columns to dicts, batches of 1,000 on such a stream), and by a channel
(`send_many` of a generator's blocks, or of 100 records at a time). Ours adds what it promises: identities,
de-duplication, acceptance and settlement of every message. *One*: a message that somebody waits for.

Contenders take turns, round by round; medians of the rounds are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import grpc
import grpc.aio
import msgspec
from bench_tcp import BLOCK, CHUNK, LOCAL, clicks, records

from simlink.channels.channel import queue
from simlink.channels.driver import Mode, OutcomeKind, ReceiverOptions, Settlement
from simlink.channels.grpc import GrpcDriver
from simlink.channels.grpc import service_pb2 as service
from simlink.channels.url import parse_url
from simlink.channels.wire import wire_pb2 as wire
from simlink.message import Batch, Same, Verdict

WINDOW = 65_536
AHEAD = 16
PRODUCER = b"bench-producer-1"
BODY = b"x" * 140
LONGEST = [("grpc.max_receive_message_length", 16 << 20), ("grpc.max_send_message_length", 16 << 20)]
encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


# --- by hand ---------------------------------------------------------------------------------------------------------


class Stream:
    """A stream as one writes it with grpcio: a queue feeds it, a thread counts the answers."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"{LOCAL}:{port}", options=LONGEST)
        self.out: SimpleQueue[Any] = SimpleQueue()
        self.answered = 0
        self.changed = threading.Condition()
        call = self.channel.stream_stream(
            "/hand/Stream",
            request_serializer=wire.Batch.SerializeToString,
            response_deserializer=wire.Accept.FromString,
        )
        self.answers = call(iter(self.out.get, None))
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()
        self.sent = 0

    def listen(self) -> None:
        for _ in self.answers:
            with self.changed:
                self.answered += 1
                self.changed.notify()

    def send(self, bodies: list[bytes]) -> None:
        self.out.put(wire.Batch(bodies=bodies))
        self.sent += 1

    def wait(self, unanswered: int) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.sent - self.answered <= unanswered)

    def close(self) -> None:
        self.out.put(None)
        self.thread.join()
        self.channel.close()


def hand_ready(port: int, rows: int, size: int) -> None:
    stream, bodies = Stream(port), [BODY] * size
    for _ in range(rows // size):
        stream.send(bodies)
        stream.wait(AHEAD)
    stream.wait(0)
    stream.close()


def hand_made(port: int, rows: int, _: int) -> None:
    stream = Stream(port)
    for block in records(rows):
        for at in range(0, len(block), CHUNK):
            stream.send([encode(r) for r in block[at : at + CHUNK]])
            stream.wait(AHEAD)
    stream.wait(0)
    stream.close()


def hand_unary(port: int, rows: int, _: int) -> None:
    with grpc.insecure_channel(f"{LOCAL}:{port}", options=LONGEST) as channel:
        call = channel.unary_unary(
            "/hand/Unary",
            request_serializer=service.Message.SerializeToString,
            response_deserializer=service.PublishReply.FromString,
        )
        message = service.Message(body=BODY)
        for _ in range(rows):
            call(message)


def serve_by_hand(rows: int, *, values: bool) -> int:
    kept: list[Any] = []
    done = asyncio.Event()

    async def stream(_: Any, context: Any) -> None:
        answer = wire.Accept(below=1, credit=1)
        while (batch := await context.read()) is not grpc.aio.EOF:
            kept.extend([decode(body) for body in batch.bodies] if values else batch.bodies)
            await context.write(answer)
            if len(kept) >= rows:
                done.set()

    async def unary(message: service.Message, _: Any) -> service.PublishReply:
        kept.append(message.body)
        if len(kept) >= rows:
            done.set()
        return service.PublishReply(accepted=1)

    async def serve() -> None:
        server = grpc.aio.server(options=LONGEST)
        methods = {
            "Stream": grpc.stream_stream_rpc_method_handler(
                stream, wire.Batch.FromString, wire.Accept.SerializeToString
            ),
            "Unary": grpc.unary_unary_rpc_method_handler(
                unary, service.Message.FromString, service.PublishReply.SerializeToString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("hand", methods),))
        print(server.add_insecure_port(f"{LOCAL}:0"), flush=True)
        await server.start()
        await done.wait()
        await server.stop(1.0)

    asyncio.run(serve())
    return len(kept)


# --- ours ------------------------------------------------------------------------------------------------------------


def driver(port: int) -> GrpcDriver:
    return GrpcDriver(parse_url(f"grpc://{LOCAL}:{port}/bench"), mode=Mode.QUEUE)


def driver_ready(port: int, rows: int, size: int) -> None:
    sender = driver(port).sender()
    sender.open(10.0)
    position = settled = 0

    def book(timeout: float) -> None:
        nonlocal settled
        for outcome in sender.outcomes(timeout):
            if outcome.kind is OutcomeKind.SETTLED:
                settled += outcome.stop - outcome.first

    bodies = [BODY] * size
    while position < rows:
        while position + size - settled > WINDOW:
            book(0.1)
        batch = Batch(bodies, producers=Same(PRODUCER, size), sequences=range(position, position + size))
        sender.submit(batch, position)
        position += size
        if position - settled > WINDOW // 2:
            book(0.0)
    while settled < rows:
        book(0.1)
    sender.close(1.0)


def channel_made(port: int, rows: int, size: int) -> None:
    with queue(f"grpc://{LOCAL}:{port}/bench") as channel:
        # Not waiting for each block: the window bounds what is out, and closing waits until all of it is settled.
        for block in clicks().blocks(0, rows):
            for at in range(0, len(block), size):
                channel.send_many(block if size >= len(block) else block[at : at + size], wait=False)


def receive_driver(rows: int) -> int:
    kept: list[Any] = []
    mine = driver(0)
    receiver = mine.receiver(None, ReceiverOptions(prefetch=WINDOW))
    receiver.open(1.0)
    print(mine.bound_port, flush=True)
    while len(kept) < rows:
        for incoming in receiver.receive(CHUNK, 1.0):
            kept.extend(incoming.batch.bodies)
            receiver.settle([Settlement(incoming.lease, Verdict.ACK, incoming.tokens[0], incoming.tokens[-1])])
    receiver.close(5.0)
    return len(kept)


def receive_channel(rows: int, *, one_by_one: bool) -> int:
    kept: list[Any] = []
    with queue(f"grpc://{LOCAL}:0/bench") as channel, channel.receiver() as rx:
        assert rx.url is not None
        print(parse_url(rx.url).hosts[0].port, flush=True)
        if one_by_one:
            for delivery in rx:
                kept.append(delivery.value)
                if len(kept) == rows:
                    break
        else:
            for batch in rx.batches():
                kept.extend(batch.values)
                if len(kept) == rows:
                    break
    return len(kept)


RECEIVERS: dict[str, Callable[[int], int]] = {
    "hand bodies": lambda rows: serve_by_hand(rows, values=False),
    "hand values": lambda rows: serve_by_hand(rows, values=True),
    "driver": receive_driver,
    "batches": lambda rows: receive_channel(rows, one_by_one=False),
    "one by one": lambda rows: receive_channel(rows, one_by_one=True),
}
Send = Callable[[int, int, int], None]
CONTENDERS: dict[str, tuple[Send, str, int, int]] = {
    # name: sends, receives, batch, rows are divided by
    "ready, stream by hand, 1,000": (hand_ready, "hand bodies", 1_000, 1),
    "ready, driver, 1,000": (driver_ready, "driver", 1_000, 1),
    "ready, stream by hand, 100": (hand_ready, "hand bodies", 100, 4),
    "ready, driver, 100": (driver_ready, "driver", 100, 1),
    "ready, unary by hand": (hand_unary, "hand bodies", 1, 100),
    "made, stream by hand, 1,000": (hand_made, "hand values", 1_000, 1),
    "made, channel, blocks to batches()": (channel_made, "batches", BLOCK, 1),
    "made, channel, blocks to one by one": (channel_made, "one by one", BLOCK, 1),
    "made, channel, 100 to batches()": (channel_made, "batches", 100, 1),
}


# --- one message that somebody waits for -----------------------------------------------------------------------------


def timed(rounds: int, once: Callable[[int], None]) -> list[float]:
    for i in range(rounds // 10):
        once(i)
    out = []
    for i in range(rounds // 10, rounds):
        started = time.perf_counter()
        once(i)
        out.append(time.perf_counter() - started)
    return out


def unary_latency(port: int, rounds: int) -> list[float]:
    with grpc.insecure_channel(f"{LOCAL}:{port}") as channel:
        call = channel.unary_unary(
            "/hand/Unary",
            request_serializer=service.Message.SerializeToString,
            response_deserializer=service.PublishReply.FromString,
        )
        message = service.Message(body=BODY)
        return timed(rounds, lambda _: call(message))


def stream_latency(port: int, rounds: int) -> list[float]:
    stream = Stream(port)

    def once(_: int) -> None:
        stream.send([BODY])
        stream.wait(0)

    out = timed(rounds, once)
    stream.close()
    return out


def driver_latency(port: int, rounds: int) -> list[float]:
    sender = driver(port).sender()
    sender.open(10.0)

    def once(position: int) -> None:
        batch = Batch([b"1" * 140], producers=Same(PRODUCER, 1), sequences=range(position, position + 1))
        sender.submit(batch, position)
        while not any(o.kind is OutcomeKind.CONFIRMED for o in sender.outcomes(1.0)):
            pass

    out = timed(rounds, once)
    sender.close(1.0)
    return out


def channel_latency(port: int, rounds: int) -> list[float]:
    with queue(f"grpc://{LOCAL}:{port}/bench") as channel:
        return timed(rounds, lambda _: channel.send("x" * 138))


LATENCIES: dict[str, tuple[Callable[[int, int], list[float]], str]] = {
    "unary by hand": (unary_latency, "hand bodies"),
    "stream by hand": (stream_latency, "hand bodies"),
    "driver, until accepted": (driver_latency, "driver"),
    "channel, send": (channel_latency, "batches"),
}


def with_receiver(kind: str, rows: int, work: Callable[[int], Any]) -> tuple[Any, float]:
    """Run ``work(port)`` against a receiver in another process: its result, and that process' CPU seconds."""
    with subprocess.Popen(
        [sys.executable, __file__, "--receive", kind, "--rows", str(rows)], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            result = work(int(child.stdout.readline()))
            return result, float(child.stdout.readline() or "nan")
        finally:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()


def rounds_of(contenders: dict[str, Any], repeats: int, rows: int) -> Iterator[tuple[str, float, float, float]]:
    """``(contender, messages/s, CPU µs a message of the sender, of the receiver)``."""
    for _ in range(repeats):
        for name, (send, kind, size, less) in contenders.items():
            count = max(rows // less // CHUNK, 1) * CHUNK

            def run(port: int, send: Send = send, count: int = count, size: int = size) -> tuple[float, float]:
                started, before = time.perf_counter(), time.process_time()
                send(port, count, size)
                return count / (time.perf_counter() - started), time.process_time() - before

            (rate, here), there = with_receiver(kind, count, run)
            yield name, rate, here / count * 1e6, there / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2_000, help="messages that are waited for, per contender")
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
    chosen = {name: c for name, c in CONTENDERS.items() if args.only in name}
    for name, rate, here, there in rounds_of(chosen, args.repeats, args.rows):
        rates.setdefault(name, []).append(rate)
        cpu.setdefault(name, []).append((here, there))
    waits: dict[str, list[float]] = {}
    for _ in range(args.repeats if args.rounds else 0):
        for name, (measure, kind) in LATENCIES.items():
            times, _ = with_receiver(kind, args.rounds, lambda port, measure=measure: measure(port, args.rounds))
            waits.setdefault(name, []).append(statistics.median(times) * 1e6)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    costs = {name: [statistics.median(side) for side in zip(*values, strict=True)] for name, values in cpu.items()}
    p50 = {name: statistics.median(values) for name, values in waits.items()}
    if args.json:
        print(json.dumps({"rows": args.rows, "messages_per_second": medians, "cpu_us": costs, "p50_us": p50}))
        return
    head = f"{'messages/s':>12} {'× by hand':>10} {'CPU µs, sender':>15} {'receiver':>9}"
    print(f"{'grpc, ' + format(args.rows, ',') + ' records':40} {head}")
    for name, rate in medians.items():
        by_hand = next((v for n, v in medians.items() if "by hand" in n and n[:5] == name[:5] and same(n, name)), rate)
        here, there = costs[name]
        print(f"{name:40} {rate:12,.0f} {rate / by_hand:10.2f} {here:15.2f} {there:9.2f}")
    print(f"\n{'one message':40} {'p50 µs':>12} {'× stream':>10}")
    for name, wait in p50.items():
        print(f"{name:40} {wait:12.1f} {wait / p50['stream by hand']:10.2f}")


def same(floor: str, name: str) -> bool:
    """Whether a floor is the one for this row: of as large batches, where there is one."""
    return floor.startswith("made") or floor.rpartition(" ")[2] == name.rpartition(" ")[2]


if __name__ == "__main__":
    main()
