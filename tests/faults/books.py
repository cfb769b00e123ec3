"""What the books must say after a fault: the table at the end of the semantics, row by row."""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise

from tests.faults.child import body_of, key_of
from tests.faults.scene import confirmed

GROWTH = 96 * 1024 * 1024
"""Bytes that a process may grow by: 16 MiB in the window or the buffer, and what moves it."""


@dataclass(frozen=True)
class Handed:
    """A line of a receiver."""

    seed: int
    row: int
    attempt: int
    life: int

    @property
    def identity(self):
        return self.seed, self.row


def handed_out(scene):
    """Every hand-out in order, life by life; each body and key is the one that was sent."""
    out = []
    for life, process in enumerate(scene.receivers):
        for line in process.seen.look():
            # What a writer was killed in the middle of is no line; the head of a body has no spaces.
            head, size, crc, key, attempt = line.split(" ")
            seed, row = map(int, head.split(":")[:2])
            body = body_of(seed, row, scene.fault.size)
            assert (len(body), zlib.crc32(body)) == (int(size), int(crc)), f"row {row} of {seed} has another body"
            assert key == key_of(row).decode(), f"row {row} of {seed} has the key {key}"
            out.append(Handed(seed, row, int(attempt), life))
    return out


@dataclass(frozen=True)
class Account:
    """What a cell comes to. ``bound`` is X + H; ``growth`` the largest of a process, in
    bytes."""

    attempted: int
    confirmed: int
    handed_out: int
    repeats: int
    resent: int
    held: int
    growth: int

    @property
    def bound(self):
        return self.resent + self.held


def check(scene):
    """Assert all that is promised; the account. Raises AssertionError."""
    lines = handed_out(scene)
    # Both ends of a transport that does not leave its process are one.
    ends = list({id(process): process for process in [*scene.senders, *scene.receivers]}.values())
    seen = {line.identity for line in lines}
    attempted, sure, resent, failed = set(), set(), 0, set()
    for seed, process in enumerate(scene.senders, 1):
        mine = {(seed, row) for row in range(getattr(process, "count", scene.count))}
        attempted |= mine
        done = {(seed, row) for row in confirmed(process)}
        if process.killed:
            # What a dead sender had seen confirmed is in a broker; without one it lived in the sender.
            sure |= done if scene.transport.loss == "confirmed" else set()
            continue
        report = process.report["sender"]
        resent += report["resent"]
        failed |= {(seed, row) for row in report["failed"]}
        assert report["unsettled"] == 0, f"{report['unsettled']} messages stayed unsettled"
        if scene.transport.loss != "none":
            sure |= done
            # The sender lived, and the fault is over: nothing is left open.
            assert (report["failed"], report["unknown"]) == ([], []), "failed or unknown at the end"
            assert done == mine, f"{len(mine - done)} were never confirmed"
        settled = {(seed, row) for first, stop in report["settled"] for row in range(first, stop)}
        assert settled - seen == set(), "settled, and never handed out"
    assert seen - attempted == set(), "something arrived that was never sent"
    strayed = sum(process.report.get("strayed", 0) for process in scene.receivers if process.report)
    assert strayed == 0, f"{strayed} senders reached a receiver that they must not trust"
    assert seen & failed == set(), "something arrived that was reported failed"
    assert sure - seen == set(), f"lost: {sorted(sure - seen)[:10]}, {len(sure - seen)} in all"
    held = scene.held
    for process in scene.receivers:
        if process.report is not None:
            held += scene.transport.held_by_losses(scene, process.report["receiver"])
    account = Account(
        attempted=len(attempted),
        confirmed=len(sure),
        handed_out=len(lines),
        repeats=len(lines) - len(seen),
        resent=resent,
        held=held,
        growth=max(map(growth, ends), default=0),
    )
    assert account.repeats <= account.bound, f"{account.repeats} repeats, and X + H is {resent} + {held}"
    fresh = Counter((line.life, line.identity) for line in lines if line.attempt == 1)
    assert [found for found, times in fresh.items() if times > 1] == [], "twice at attempt 1 in one life"
    check_order(scene.transport.order, lines)
    for process in [*ends, *scene.refused]:
        if process.report is not None:
            left = process.report["left"]
            nothing = {"threads": [], "native_threads": [], "sockets": [], "children": []}
            assert left == nothing, f"left behind by {process.role}: {left}"
    assert account.growth <= GROWTH, f"a process grew by {account.growth >> 20} MiB"
    return account


def growth(process):
    if process.report is None:
        return 0
    return process.report["peak"] - process.report["base"]


def check_order(kind, lines):
    """Order is over first hand-outs."""
    if kind == "none":
        return
    groups, known = defaultdict(list), set()
    for line in lines:
        if kind == "fresh" and line.attempt > 1:
            continue
        # Of a key, over all lives; or of a producer, in each life.
        scope = (line.seed, key_of(line.row)) if kind == "key" else (line.life, line.seed)
        mark = line.identity if kind == "key" else (line.life, line.identity)
        if mark not in known:
            known.add(mark)
            groups[scope].append(line.row)
    for scope, rows in groups.items():
        late = [(a, b) for a, b in pairwise(rows) if b < a]
        assert late == [], f"out of order in {scope}: {late[:5]}, {len(late)} in all"
