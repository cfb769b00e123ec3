"""One cell while it happens: its processes, what they have written so far, and the end that all of them come to."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

import simlink
from tests.faults.child import REFUSED_WITHIN
from tests.support.command import Command, wait_until

ROOT = Path(simlink.__file__).parents[1]
CHILD = Path(__file__).with_name("child.py")
QUIET = 0.6
"""Seconds without a message after which nothing more is expected."""
DRAIN = 120.0
STRANGER = 99
"""The seed of what nobody may receive."""


class Seen:
    """The lines that one process has written so far."""

    def __init__(self, path):
        self.path = path
        self.lines = []
        self._at = 0

    def look(self):
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._at)
                whole, newline, _ = file.read().rpartition(b"\n")
            if newline:
                self._at += len(whole) + 1
                self.lines += whole.decode().split("\n")
        return self.lines


class Process:
    """One end."""

    def __init__(self, scene, role, url, name, *options):
        self.role = role
        self.seen = Seen(scene.folder / f"{name}.txt")
        self.killed = False
        self.report = None
        self.rss = 0
        prefetch = scene.transport.prefetch
        extra = () if prefetch is None else ("--prefetch", prefetch)
        environment = dict(scene.environment)
        self.command = Command(
            role, url, "--out", self.seen.path, *extra, *options, program=(sys.executable, CHILD), env=environment
        )

    def until_said(self, word, timeout=60.0):
        def said():
            return next((line for line in self.command.stderr.splitlines() if line.startswith(word)), None)

        return self.command.until(said, f"{self.role} says {word}", timeout)

    def kill(self):
        """SIGKILL. Its memory is looked at before."""
        self.rss = psutil.Process(self.command.process.pid).memory_info().rss
        self.killed = True
        self.command.kill()

    def end(self, timeout):
        """Wait for its end and its report."""
        done = self.command.done(0, timeout)
        self.report = json.loads(done.stdout.splitlines()[-1])
        return self.report


class Scene:
    """Where a fault acts.

    Attributes:
        place: URLs, proxy, broker.
        count: how many messages the sender sends.
        held: H so far: hand-outs of receivers that were killed, unsettled; and those whose acknowledgements a broker
            forgot.
        breaks: how many times the fault broke the connections of a receiver that lived.
    """

    def __init__(self, transport, fault, place, folder):
        self.transport = transport
        self.fault = fault
        self.place = place
        self.folder = folder
        self.count = fault.count
        self.senders, self.receivers, self.refused = [], [], []
        self.held = 0
        self.breaks = 0
        self._looks = []
        self.notes = []
        # NumPy's library for matrices starts threads of its own when it is loaded, and keeps them.
        # The ends run the code that this process runs, wherever else it may be installed.
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.environment = {"PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path}
        self.options = ()
        self._stack = ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()

    @property
    def proxy(self):
        return self.place.proxy

    # --- starting

    def start(self, *, wait=True, pause_at=None):
        """A receiver, ready, and the sender."""
        if self.transport.one_process:
            sent = ("--sent", self.folder / "sent-1.txt", *self._load(1, self.count))
            process = self._run("both", self.place.receiver_url, "received-1", *sent)
            process.until_said("ready")
            self.receivers.append(process)
            self.senders.append(process)
            process.sent = Seen(self.folder / "sent-1.txt")
            return
        self.receive(wait=wait, pause_at=pause_at)
        self.send()

    def receive(self, *, wait=True, pause_at=None):
        """One more receiver. With ``pause_at`` it stops at the hand-out of that number, for `kill_receiver`."""
        more = ("--more", *self.place.others) if self.place.others else ()
        if pause_at is not None:
            more += ("--pause-at", pause_at)
        process = self._run("receive", self.place.receiver_url, f"received-{len(self.receivers) + 1}", *more)
        self.receivers.append(process)
        if wait:
            process.until_said("ready")
        return process

    def send(self, count=None):
        seed = len(self.senders) + 1
        process = self._run("send", self.place.sender_url, f"sent-{seed}", *self._load(seed, count or self.count))
        process.sent = process.seen
        process.count = count or self.count
        self.senders.append(process)
        return process

    def _load(self, seed, count):
        fault = self.fault
        return ("--seed", seed, "--count", count, "--size", fault.size, "--rate", fault.rate)

    def _run(self, role, url, name, *options):
        collect = ("--collect",) if self.transport.garbage else ()
        stays = ("--stays", self.transport.stays)
        process = Process(self, role, url, name, *self.options, *collect, *stays, *options)
        self._stack.enter_context(process.command)
        return process

    # --- looking

    @property
    def received(self):
        """How many hand-outs there were."""
        return sum(len(process.seen.look()) for process in self.receivers)

    @property
    def rows(self):
        """The (seed, row) of everything handed out."""
        return {tuple(line.split(":", 2)[:2]) for process in self.receivers for line in process.seen.look()}

    def until(self, fraction):
        """Wait until this part of the messages has been handed out."""

        def done():
            sure = sum(len(process.sent.look()) for process in self.senders)
            self._looks.append((time.monotonic(), received := self.received, sure))
            return received >= fraction * self.count

        self._wait(done, f"{fraction:.0%} of the messages")

    def forgotten(self, seconds):
        """The most hand-outs whose acknowledgements a broker may lose now, that writes them at the latest with what it
        confirms, and may take so many seconds for it."""
        sure = self._looks[-1][2]
        written = next(moment for moment, _, then in self._looks if then == sure) - seconds
        return self.received - max((received for moment, received, _ in self._looks if moment <= written), default=0)

    def until_true(self, done, what):
        """Wait for something else, as long as all are well."""
        self._wait(done, what)

    def pass_time(self, seconds):
        """A fault that lasts."""
        threading.Event().wait(seconds)

    def _wait(self, done, what, timeout=DRAIN):
        def alive():
            for process in [*self.senders, *self.receivers]:
                status = process.command.process.poll()
                # A sender may be through already; nobody may have failed.
                if status and not process.killed:
                    process.command.check()

        return wait_until(done, what, timeout, while_=alive)

    # --- being refused

    def must_be_refused(self):
        """Each URL that must be refused is, soon, in one sentence that names what is wrong; to a sender, and to a
        receiver where that is who calls. Nothing is left of them."""
        assert self.place.wrong, f"{self.transport.name} names no URL that must be refused"
        urls = [wrong.url for wrong in self.place.wrong]
        joins = ("--joins",) if self.place.joins else ()
        process = self._run("refused", urls[0], "refused", "--more", *urls[1:], "--seed", STRANGER, *joins)
        report = process.end(REFUSED_WITHIN * len(urls) * 2 + 20.0)
        self.refused.append(process)
        for wrong, tries in zip(self.place.wrong, report["tries"], strict=True):
            for told in tries:
                what = f"{self.transport.name}, {wrong.what}, {told['role']}: {told['said']!r}"
                assert told["kind"] == "ConnectError", what
                assert (told["retryable"], len(told["said"].splitlines())) == (False, 1), what
                assert re.search(wrong.says, told["said"]), f"{what} does not say {wrong.says!r}"
            self.notes.append(f"{wrong.what}: {tries[0]['said']}")
        door = self.place.door
        assert door is None or (door.knocks > 0, door.entered) == (True, 0), "somebody trusted a bad certificate"

    def show_nothing(self, word):
        """No process has written this."""
        for process in [*self.senders, *self.receivers, *self.refused]:
            said = process.command.stdout + process.command.stderr
            assert word not in said, f"{process.role} shows a secret: {said[-3000:]}"

    # --- killing

    def kill_receiver(self):
        """With messages in hand: it has stopped by itself while it has some, then it is killed."""
        process = self.receivers[-1]
        in_hand = int(process.until_said("paused", DRAIN).split()[1])
        assert in_hand > 0
        process.kill()
        held = self.transport.held_at_death(self.place, len(self.rows))
        self.held += held
        self.notes.append(f"{in_hand} in hand at the kill")

    # --- the end

    def finish(self):
        """Let the sender come to its end, everything arrive, and the receivers go."""
        if not self.senders:
            return
        alive = [process for process in self.senders if not process.killed]
        if not self.transport.one_process:
            for process in alive:
                process.end(DRAIN)
        try:
            self._wait(lambda: self._arrived(alive), "what was confirmed", DRAIN)
        except AssertionError as error:
            missing = sorted(self._wanted(alive) - self.rows, key=lambda pair: (int(pair[0]), int(pair[1])))
            raise AssertionError(f"{error}: {len(missing)} are missing, as {missing[:5]}") from None
        self._until_quiet()
        for process in self.receivers:
            if not process.killed:
                process.command.signal(signal.SIGTERM)
        for process in self.receivers:
            if not process.killed:
                process.end(60.0)

    def _arrived(self, senders):
        if self.transport.one_process:
            return len(self.rows) >= self.count
        return self._wanted(senders) <= self.rows

    def _wanted(self, senders):
        """(seed, row) of what must arrive: what a living sender, or any where there is a broker, saw confirmed."""
        if self.transport.loss == "none":
            return set()
        return {
            (str(seed), str(row))
            for seed, process in enumerate(self.senders, 1)
            if self.transport.loss == "confirmed" or process in senders
            for row in confirmed(process)
        }

    def told(self):
        """What the processes said, those that live also where they are, for the message of a cell that failed."""
        for process in [*self.senders, *self.receivers]:
            if process.command.process.poll() is None:
                process.command.signal(signal.SIGQUIT)
                with contextlib.suppress(AssertionError):
                    process.until_said("that is where", 5.0)
        return "\n".join(
            f"--- {process.role} {number}: {process.command.stdout[-1000:]}{process.command.stderr[-6000:]}"
            for number, process in enumerate([*self.senders, *self.receivers], 1)
        )

    def _until_quiet(self):
        last, since = self.received, time.monotonic()

        def quiet():
            nonlocal last, since
            if (now := self.received) != last:
                last, since = now, time.monotonic()
            return time.monotonic() - since > QUIET

        self._wait(quiet, "quiet")


def confirmed(process):
    """The rows that a sender, dead or alive, has seen confirmed."""
    out = set()
    for line in process.sent.look():
        _, first, stop = line.split()
        out.update(range(int(first), int(stop)))
    return out


def clock_file(scene):
    """Let the processes of a scene follow a clock that can be set; the file that says by how much it is off."""
    file = scene.folder / "clock"
    file.write_text("0", encoding="ascii")
    scene.options = ("--clock", file)
    return file


def set_clock(file, seconds):
    """Set the clock of a scene; the file is replaced in one step."""
    part = file.with_suffix(".part")
    part.write_text(f"{seconds:+d}", encoding="ascii")
    part.replace(file)
