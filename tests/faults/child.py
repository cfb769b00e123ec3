"""The two ends of a cell, as processes of their own: they use the public face only, and say what they saw.

    child.py send URL --seed N --count N --size B --rate R --out FILE
    child.py receive URL --out FILE [--more URL…]   and listens at others, where nobody must come
    child.py both URL …            in one process, for a transport that does not leave it
    child.py refused URL --more URL… [--joins]   tries to send to each, and to receive from each, and is refused

What a sender was told, and what a receiver was handed, stands in FILE before anything else is done, one line each, so
that it is there after a SIGKILL. What it comes to is one JSON object, the last line on stdout. Signals to a receiver:
SIGTERM ends it, SIGUSR1 stops it with messages in hand (it then says ``paused N``, as it does by itself at the message
of ``--pause-at``), SIGUSR2 lets it go on.
SIGQUIT makes either end say where it is.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import json
import os
import signal
import sys
import threading
import time
import zlib
from collections import deque
from hashlib import blake2b
from pathlib import Path

KEYS = 8
CHUNK = 20
HAND = 50
"""So many messages are in hand before they are acknowledged."""
PATIENCE = 90.0
REFUSED_WITHIN = 30.0
PAIR = "SOCK_STREAM   NONE"
"""What `told` says of an end of `socket.socketpair`."""
"""Seconds that one try may take; who is refused for good is told at once."""


def body_of(seed, row, size):
    """The body that this row of this sender must have: its numbers, and bytes that follow from them."""
    head = b"%d:%d:" % (seed, row)
    digest = blake2b(head, digest_size=32).hexdigest().encode()
    return (head + digest * (size // len(digest) + 1))[: max(size, len(head) + 16)]


def key_of(row):
    return b"k%d" % (row % KEYS)


# --- a clock that can be set -----------------------------------------------------------------------------------------


def shift_clock(file):
    """Let the wall clock of this process' Python code follow the offset in a file, as ``-3600``.

    Not libfaketime, which shifts C code as well: librdkafka waits by ``cnd_timedwait``, whose clock it leaves as it is
    (0.9.10), and such a wait then takes as long as the shift.
    """
    real, real_ns = time.time, time.time_ns
    known = [0.0, 0.0]  # when it was looked at, and what it was

    def offset():
        if time.monotonic() - known[0] > 0.05:
            known[0] = time.monotonic()
            known[1] = float(Path(file).read_text(encoding="ascii") or 0)
        return known[1]

    time.time = lambda: real() + offset()
    time.time_ns = lambda: real_ns() + int(offset() * 1e9)


# --- what is left behind ---------------------------------------------------------------------------------------------


def memory(name):
    """``VmRSS`` or ``VmHWM`` of this process, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def sockets():
    """Every open socket, by what the kernel calls it, and its number."""
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        try:
            link = str(fd.readlink())
        except OSError:
            continue
        if link.startswith("socket:"):
            found[link] = int(fd.name)
    return found


def told(numbers):
    """What sockets are connected to."""
    if not numbers:
        return []
    import psutil  # takes longer to load than all the rest of this module, and is hardly ever needed

    ends = {one.fd: one for one in psutil.Process().net_connections("all")}
    return sorted(
        "?" if (one := ends.get(number)) is None else f"{one.type.name} {one.laddr} {one.raddr} {one.status}"
        for number in numbers
    )


def children():
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            found += (task / "children").read_text(encoding="ascii").split()
        except OSError:
            continue
    return found


def tasks():
    """Every thread as the kernel has it, by its number, with its name."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            found[task.name] = (task / "comm").read_text(encoding="utf-8").strip()
        except OSError:
            continue
    return found


class Before:
    """What was there before the channel. Of pairs of sockets so many may stay."""

    def __init__(self, stays):
        self.stays = stays
        self.sockets = sockets()
        self.threads = set(threading.enumerate())
        self.tasks = tasks()

    def left(self):
        """What is there after it: nothing, if all is well. A thread that was joined may need a moment to be gone for
        the kernel as well, and gRPC's C library ends its own beside."""
        deadline = time.monotonic() + 15.0
        while any((found := self._look()).values()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return found

    def _look(self):
        open_ = told([number for link, number in sockets().items() if link not in self.sockets])
        if open_.count(PAIR) <= self.stays:
            open_ = [text for text in open_ if text != PAIR]
        return {
            "threads": sorted(t.name for t in set(threading.enumerate()) - self.threads),
            "native_threads": sorted(name for task, name in tasks().items() if task not in self.tasks),
            "sockets": open_,
            "children": children(),
        }


# --- sending ---------------------------------------------------------------------------------------------------------


class Sending:
    """Sends its rows at a pace, notes what becomes of them, and stops when told."""

    def __init__(self, channel, args, out):
        self.channel = channel
        self.args = args
        self.out = out
        self.pending = deque()
        self.receipts = []
        self.confirmed, self.failed, self.unknown = [], [], []

    def run(self):
        args = self.args
        pause = threading.Event()
        for first in range(0, args.count, CHUNK):
            began = time.monotonic()
            rows = range(first, min(first + CHUNK, args.count))
            bodies = [body_of(args.seed, row, args.size) for row in rows]
            receipt = self.channel.send_many(
                bodies, key=lambda body: key_of(int(body.split(b":", 2)[1])), wait=False, timeout=PATIENCE
            )
            self.pending.append((first, receipt))
            self.receipts.append((first, receipt))
            self.note()
            pause.wait(max(0.0, len(rows) / args.rate - (time.monotonic() - began)))
        deadline = time.monotonic() + PATIENCE
        for _, receipt in self.pending:
            receipt.wait(max(0.0, deadline - time.monotonic()))
        self.note(everything=True)
        # Where the receiver settles: a sender that closes while there is no receiver does not wait for the next one.
        while self.channel.stats()["in_flight"] and time.monotonic() < deadline:
            pause.wait(0.05)

    def note(self, *, everything=False):
        while self.pending and (everything or not self.pending[0][1].pending):
            first, receipt = self.pending.popleft()
            rows = (first, first + len(receipt))
            failed = [first + row for row in receipt.failed_rows()]
            doubtful = receipt.unknown + receipt.pending
            if doubtful:
                self.unknown.append((*rows, doubtful))
            elif failed:
                self.confirmed += [(row, row + 1) for row in range(*rows) if row not in set(failed)]
            else:
                self.confirmed.append(rows)
                self.out.line(f"{self.args.seed} {rows[0]} {rows[1]}")
            self.failed += failed

    def report(self, unsettled):
        stats = self.channel.stats()
        return {
            "attempted": self.args.count,
            "confirmed": self.confirmed,
            "failed": self.failed,
            "unknown": self.unknown,
            "settled": [(first, first + len(receipt)) for first, receipt in self.receipts if receipt.settled],
            "unsettled": unsettled,
            "resent": stats["resent"],
            "returned": stats["returned"],
            "reconnects": stats["reconnects"],
        }


# --- receiving -------------------------------------------------------------------------------------------------------


class Receiving:
    """Notes what it is handed, and acknowledges it some time later."""

    def __init__(self, receiver, out, pause_at=None):
        self.pause_at = pause_at
        self.handed_out = 0
        self.receiver = receiver
        self.out = out
        self.held = []
        self.stopping = False
        self.pausing = threading.Event()
        self.going = threading.Event()
        self.refused_acks = 0
        self.parent = os.getppid()

    def orphaned(self):
        """Whether the suite itself was killed: nobody would end this process then."""
        return os.getppid() != self.parent

    def watch_signals(self):
        signal.signal(signal.SIGQUIT, lambda *_: where([self.receiver, self.receiver.channel]))
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        signal.signal(signal.SIGUSR1, lambda *_: self.pausing.set())
        signal.signal(signal.SIGUSR2, lambda *_: self.going.set())

    def stop(self):
        self.stopping = True
        self.going.set()
        self.receiver.stop()

    def run(self):
        from simlink.errors import ChannelClosed, ConnectError, ReceiveTimeout

        last = time.monotonic()
        while not (self.stopping or self.orphaned()):
            try:
                delivery = self.receiver.get(timeout=0.2)
            except ReceiveTimeout:
                last = time.monotonic()
                self.acknowledge()
                continue
            except ConnectError as error:
                # Told after 30 s. On a busy machine a broker may take longer to start, so it is asked again.
                if not error.retryable or time.monotonic() - last > PATIENCE:
                    raise
                continue
            except ChannelClosed:
                break
            last = time.monotonic()
            body, message = delivery.value, delivery.message
            key = (message.key or b"-").decode()
            self.out.line(f"{body[:40].decode()} {len(body)} {zlib.crc32(body)} {key} {delivery.attempt}")
            self.held.append(delivery)
            self.handed_out += 1
            if self.pausing.is_set() or self.handed_out == self.pause_at:
                self.pausing.clear()
                say(f"paused {len(self.held)}")
                while not (self.going.wait(0.1) or self.orphaned()):
                    pass
                self.going.clear()
            if len(self.held) >= HAND:
                self.acknowledge()
        self.acknowledge()

    def acknowledge(self):
        self.refused_acks += sum(not delivery.ack() for delivery in self.held)
        self.held.clear()

    def report(self):
        return {**self.receiver.stats(), "refused_acks": self.refused_acks}


class Out:
    """Lines that survive this process."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def line(self, text):
        os.write(self.fd, text.encode() + b"\n")


def where(ends):
    """For a cell that hangs: what the ends count, and where every thread is."""
    for end in ends:
        say(f"{end!r} {end.stats()}")
    faulthandler.dump_traceback(all_threads=True)
    say("that is where")


def say(text):
    print(text, file=sys.stderr, flush=True)


# --- the programs ----------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("send", "receive", "both", "refused"))
    parser.add_argument("url")
    parser.add_argument("--out", required=True)
    parser.add_argument("--sent")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--window", type=int, default=2000)
    parser.add_argument("--prefetch", type=int)
    parser.add_argument("--pause-at", type=int)
    parser.add_argument("--clock")
    parser.add_argument("--collect", action="store_true")
    parser.add_argument("--stays", type=int, default=0)
    parser.add_argument("--more", nargs="*", default=[])
    parser.add_argument("--joins", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGQUIT, lambda *_: where([]))
    if args.clock:
        shift_clock(args.clock)
    import simlink

    before = Before(args.stays)
    report = {"role": args.role}
    if args.role == "refused":
        report["base"] = memory("VmRSS")
        report["tries"] = [list(refused(url, args)) for url in (args.url, *args.more)]
        end(args, report, before)
        return
    channel = simlink.queue(args.url, serializer=simlink.Bytes(), window=args.window)
    with channel:
        if args.role == "send":
            signal.signal(signal.SIGQUIT, lambda *_: where([channel]))
            sending(channel, args, report)
        elif args.role == "receive":
            receiving(channel, args, report)
        else:
            both(channel, args, report)
    end(args, report, before)


def end(args, report, before):
    report["peak"] = memory("VmHWM")
    if args.collect:
        gc.collect()
    report["left"] = before.left()
    print(json.dumps(report), flush=True)


def refused(url, args):
    """What a sender is told at this URL, and a receiver where it is one who calls."""
    import simlink

    def send(channel):
        channel.send(body_of(args.seed, 0, args.size), key=key_of(0), timeout=REFUSED_WITHIN)

    def receive(channel):
        with channel.receiver():
            pass

    for role, attempt in (("send", send), ("receive", receive))[: 2 if args.joins else 1]:
        told = {"role": role, "kind": None, "said": "", "retryable": None}
        try:
            with simlink.queue(url, serializer=simlink.Bytes()) as channel:
                attempt(channel)
        except simlink.SimlinkError as error:
            retryable = getattr(error, "retryable", None)
            told |= {"kind": type(error).__name__, "said": str(error), "retryable": retryable}
        yield told


def sending(channel, args, report, out=None):
    end = Sending(channel, args, out or Out(args.out))
    channel.sender.connect(PATIENCE)
    report.setdefault("base", memory("VmRSS"))
    say("connected")
    end.run()
    report["sender"] = end.report(channel.close(timeout=PATIENCE) if out is None else 0)
    return end


def receiving(channel, args, report):
    import simlink

    with contextlib.ExitStack() as stack:
        others = []
        for url in args.more:
            other = stack.enter_context(simlink.queue(url))
            others.append(stack.enter_context(other.receiver()))
        receiver = stack.enter_context(channel.receiver(settle="manual", prefetch=args.prefetch))
        end = Receiving(receiver, Out(args.out), args.pause_at)
        end.watch_signals()
        report.setdefault("base", memory("VmRSS"))
        say(f"ready {receiver.url}")
        end.run()
        report["receiver"] = end.report()
        report["strayed"] = sum(other.stats()["driver"]["senders"] for other in others)


def both(channel, args, report):
    ends = []
    thread = threading.Thread(target=lambda: ends.append(sending(channel, args, report, Out(args.sent))))
    thread.start()
    receiving(channel, args, report)
    thread.join(PATIENCE)
    if ends:
        report["sender"] = ends[0].report(channel.close(timeout=PATIENCE))


if __name__ == "__main__":
    main()
