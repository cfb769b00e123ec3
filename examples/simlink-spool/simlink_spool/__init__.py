"""``spool:///PATH/name``: a folder that the processes of one machine share, as a transport for simlink."""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import msgspec

from simlink.channels import driver as seam
from simlink.channels.url import Target
from simlink.errors import InvalidURL, NotSupported
from simlink.message import Batch, Message, Verdict

LOOK, CHUNK = 0.01, 4096  # seconds between two looks for new files; how many are listed ahead
FILE = re.compile(r"(\d{20}-){1,2}[0-9a-f]{12}\.\d+")  # [DUE-]STAMP-SENDER.HANDOUTS


class SpoolDriver(seam.Driver):
    schemes = ("spool",)

    def __init__(self, target: Target, *, mode: seam.Mode) -> None:
        super().__init__(target, mode=mode)
        if target.hosts or target.user is not None:
            raise InvalidURL(f"{target}: a spool is a folder of this machine, as in spool:///var/spool/{target.name}")
        self.root = Path("/", *target.path, f"{target.name}.{mode.value}")

    def capabilities(self) -> seam.Capabilities:
        return seam.Capabilities(kept=seam.Kept.DURABLE, order=seam.Order.DISPATCH, nack=seam.Nack.NATIVE)

    def sender(self) -> seam.SenderDriver:
        return SpoolSender(self)

    def receiver(self, subscription: str | None, options: seam.ReceiverOptions) -> seam.ReceiverDriver:
        if options.exclusive:
            raise NotSupported(f"{self.target}: exclusive=True: any number of receivers share a spool")
        return SpoolReceiver(self, subscription, options)

    def shelf(self, subscription: str | None) -> Path:
        return self.root if subscription is None else self.root / f"@{quote(subscription, safe='')}"

    def shelves(self) -> list[Path]:
        return [self.root] if self.mode is seam.Mode.QUEUE else list(self.root.glob("[@~]*"))

    def purge(self, timeout: float) -> int:
        return len([file.unlink(missing_ok=True) for shelf in self.shelves() for file in shelf.glob("new/*")])

    def delete(self, timeout: float) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def delete_subscription(self, name: str, timeout: float) -> None:
        shutil.rmtree(self.shelf(name), ignore_errors=True)


locks: dict[Path, int] = {}
# A forked child shares its parent's locks, and would keep them when the parent dies.
os.register_at_fork(after_in_child=lambda: list(map(os.close, map(locks.pop, list(locks)))))


def own(parent: Path, prefix: str = "") -> Path:
    """A new folder that is locked while this process lives. It has its name only once it is locked."""
    folder = parent / f"{prefix}{secrets.token_hex(6)}"
    hidden = parent / f".{folder.name}"
    hidden.mkdir(parents=True)
    locks[folder] = os.open(hidden, os.O_RDONLY)
    fcntl.flock(locks[folder], fcntl.LOCK_EX)
    return hidden.rename(folder)


def sweep(root: Path) -> None:
    """Give back what dead receivers held; remove what dead senders drafted and dead private subscribers awaited."""
    for folder in itertools.chain(*map(root.glob, ("held/[!.]*", "@*/held/[!.]*", "sending/[!.]*", "~*"))):
        with suppress(OSError):  # its owner lives, or somebody else saw to it
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for file in folder.glob("*.*") if folder.parent.name == "held" else ():
                    file.rename(folder.parent.parent / "new" / file.name)
                shutil.rmtree(folder)
            finally:
                os.close(lock)


class SpoolSender(seam.SenderDriver):
    def __init__(self, driver: SpoolDriver) -> None:
        self.driver, self.mine, self.stamp, self.known = driver, Path(), 0, list[seam.Outcome]()
        self.passing = (FileNotFoundError,) if driver.mode is seam.Mode.TOPIC else ()  # a subscription may be deleted

    def open(self, timeout: float) -> None:
        self.mine = own(self.driver.root / "sending")
        for shelf in self.driver.shelves():
            (shelf / "new").mkdir(exist_ok=True)

    def submit(self, batch: Batch, position: int) -> None:
        sweep(self.driver.root)
        at, shelves = position, self.driver.shelves()
        try:
            for message in batch:
                self.stamp = max(self.stamp + 1, time.time_ns())
                draft = self.mine / f"{self.stamp:020d}-{self.mine.name}.0"
                draft.write_bytes(msgspec.msgpack.encode(message, enc_hook=dict))  # headers may be read-only
                for shelf in shelves:
                    with suppress(*self.passing):
                        os.link(draft, shelf / "new" / draft.name)
                draft.unlink()
                at += 1
        except OSError as error:
            kind = seam.OutcomeKind.UNKNOWN if self.passing else seam.OutcomeKind.FAILED
            self.known.append(seam.Outcome(kind, at, position + len(batch), error=error))
        self.known.append(seam.Outcome(seam.OutcomeKind.CONFIRMED, position, at))

    def outcomes(self, timeout: float) -> Sequence[seam.Outcome]:
        known, self.known = self.known, []
        return known

    def close(self, timeout: float) -> None:
        if self.mine in locks:
            os.close(locks.pop(self.mine))
            sweep(self.driver.root)


def read(file: Path) -> Message:
    body = file.read_bytes()
    with suppress(msgspec.MsgspecError):
        return msgspec.msgpack.decode(body, type=Message)
    return Message(body=body)  # somebody else wrote it


class SpoolReceiver(seam.ReceiverDriver):
    def __init__(self, driver: SpoolDriver, subscription: str | None, options: seam.ReceiverOptions) -> None:
        self.driver, self.subscription, self.prefetch = driver, subscription, options.prefetch
        self.guard, self.lease, self.mine = threading.Lock(), seam.Lease(), Path()
        self.found: list[Path] = []  # listed, not claimed yet; the next one stands last
        self.held: dict[int, Path] = {}  # by token
        self.tokens = itertools.count()

    def open(self, timeout: float) -> None:
        private = self.driver.mode is seam.Mode.TOPIC and self.subscription is None
        shelf = self.driver.shelf(self.subscription)
        self.mine = own(shelf, "~") if private else own(shelf / "held")
        self.new = (self.mine if private else shelf) / "new"
        self.new.mkdir(exist_ok=True)

    def receive(self, limit: int, timeout: float) -> Sequence[seam.Incoming]:
        mine: dict[int, Path] = {}
        with self.guard:
            room = min(limit, max(self.prefetch - len(self.held), not self.held))
            while len(mine) < room and (self.found or self.look()):
                file = self.found.pop()
                with suppress(FileNotFoundError):  # of several receivers who move a file, one succeeds
                    mine[next(self.tokens)] = file.rename(self.mine / f"{file.stem}.{int(file.suffix[1:]) + 1}")
            self.held |= mine
        if not mine:
            time.sleep(min(timeout, LOOK))
            return []
        handouts = [int(file.suffix[1:]) for file in mine.values()]
        return [seam.Incoming(Batch.of(map(read, mine.values())), list(mine), handouts, self.lease)]

    def look(self) -> bool:
        sweep(self.driver.root)
        # A folder that changes while it is listed may show a file and not the one written before it. The second list
        # surely has all that was written before anything in the first. What was nacked is due at a time.
        first, second = ([f.name for f in self.new.iterdir() if FILE.fullmatch(f.name)] for _ in range(2))
        last = {name[20:]: name for name in sorted(first) if len(name) < 50 or name < f"{time.time_ns():020d}"}
        names = sorted(name for name in second if name <= last.get(name[20:], ""))
        self.found = [self.new / name for name in reversed(names[:CHUNK])]
        return bool(names)

    def settle(self, settlements: Sequence[seam.Settlement]) -> None:
        with self.guard, suppress(FileNotFoundError):
            for s in settlements:
                for token in range(s.first, s.last + 1):
                    file = self.held.pop(token, None) if s.lease.valid else None
                    if file is not None and s.verdict is Verdict.NACK:
                        due = f"{time.time_ns() + int(s.delay * 1e9):020d}-" if s.delay else ""
                        file.rename(self.new / f"{due}{file.stem[-33:]}{file.suffix}")
                        self.found.clear()
                    elif file is not None:
                        file.unlink(missing_ok=True)

    def reserve(self, count: int) -> None:
        self.prefetch = count

    def close(self, timeout: float) -> None:
        with self.guard:
            self.lease.valid = False
            if self.mine in locks:
                os.close(locks.pop(self.mine))
                sweep(self.driver.root)
