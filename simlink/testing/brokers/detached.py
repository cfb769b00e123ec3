"""Brokers that outlive the command that started them: what ``simlink brokers up | down | status`` does.

Each broker is held by a keeper, a process of its own that runs it in a ``with`` block until it is told to end. The
keeper holds a lock on a file for as long as it lives, so a state left behind by a dead one is never believed.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from simlink.errors import ConfigError, SimlinkError
from simlink.testing.brokers import BROKERS
from simlink.testing.brokers.base import BrokerFailed
from simlink.testing.brokers.tools import cache_folder, locked

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Status", "down", "status", "up"]

DOWNLOAD: Final = 600.0
"""Seconds that a first start may need besides the broker's own timeout."""
STOP: Final = 60.0
_keepers: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Status:
    """A detached broker.

    Attributes:
        name: kafka, rabbitmq or redis.
        url: its address, None unless it is ready.
        pid: the keeper's process id, None if it is down.
        variable: the environment variable that makes tests use it.
        log: the keeper's log.
    """

    name: str
    url: str | None
    pid: int | None
    variable: str
    log: Path

    @property
    def state(self) -> str:
        """``up``, ``starting`` or ``down``."""
        return "up" if self.url else "starting" if self.pid else "down"


def up(names: Iterable[str] = ()) -> list[Status]:
    """Start brokers that stay until :func:`down`; those that are up stay as they are.

    Args:
        names: which; all of them if none is given.

    Raises:
        ConfigError: no broker has that name.
        BrokerUnavailable: one of them is not installed; then none is started.
        BrokerFailed: one did not start; the others stay up.
    """
    chosen = _check(names)
    for name in chosen:
        BROKERS[name].locate()
    with locked(_folder() / "up.lock"):
        keepers = {name: _spawn(name) for name in chosen if not _alive(name)}
        failed = []
        for name, keeper in keepers.items():
            deadline = time.monotonic() + DOWNLOAD
            while _status(name).url is None:
                if (keeper.poll() is not None and not _alive(name)) or time.monotonic() > deadline:
                    keeper.kill()
                    keeper.wait()
                    failed.append(_last_words(name))
                    break
                time.sleep(0.02)
            else:
                _keepers.append(keeper)
    if failed:
        raise BrokerFailed("\n".join(failed))
    return [_status(name) for name in chosen]


def down(names: Iterable[str] = ()) -> list[str]:
    """Stop detached brokers and remove their data.

    Args:
        names: which; all of them if none is given.

    Returns:
        The names of those that were up.

    Raises:
        ConfigError: no broker has that name.
    """
    stopped = [name for name in _check(names) if _status(name).pid is not None]
    for name in stopped:
        _tell(name, signal.SIGTERM)
    deadline = time.monotonic() + STOP
    for name in stopped:
        while _alive(name):
            if time.monotonic() > deadline:
                # The broker goes with its keeper.
                _tell(name, signal.SIGKILL)
                deadline = time.monotonic() + STOP
            time.sleep(0.02)
        _state(name).unlink(missing_ok=True)
    # Those of them that this very process had started.
    _keepers[:] = [keeper for keeper in _keepers if keeper.poll() is None]
    return stopped


def status(names: Iterable[str] = ()) -> list[Status]:
    """What is up; all brokers if no name is given. Raises ConfigError if no broker has that name."""
    return [_status(name) for name in _check(names)]


def _check(names: Iterable[str]) -> list[str]:
    chosen = list(dict.fromkeys(names)) or list(BROKERS)
    for name in chosen:
        if name not in BROKERS:
            close = difflib.get_close_matches(name, BROKERS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(BROKERS)}"
            raise ConfigError(f"no broker is called {name!r}: {hint}")
    return chosen


def _folder() -> Path:
    folder = cache_folder() / "run"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _state(name: str) -> Path:
    return _folder() / f"{name}.json"


def _alive(name: str) -> bool:
    """Whether a keeper holds the lock."""
    with (_folder() / f"{name}.lock").open("ab") as file:
        try:
            # Shared, so that looking does not look like another keeper to somebody who looks at the same moment.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _status(name: str) -> Status:
    told: dict[str, str | int | None] = {}
    if _alive(name):
        with contextlib.suppress(OSError, json.JSONDecodeError):
            told = json.loads(_state(name).read_text(encoding="utf-8"))
    url, pid = told.get("url"), told.get("pid")
    return Status(
        name=name,
        url=str(url) if url else None,
        pid=int(pid) if pid else None,
        variable=BROKERS[name].variable,
        log=_folder() / f"{name}.log",
    )


def _tell(name: str, number: signal.Signals) -> None:
    pid = _status(name).pid
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _spawn(name: str) -> subprocess.Popen[bytes]:
    _state(name).unlink(missing_ok=True)
    with (_folder() / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "simlink.testing.brokers.detached", name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _last_words(name: str) -> str:
    text = (_folder() / f"{name}.log").read_text(errors="replace").strip()
    return text or f"{name} did not start, and its keeper said nothing"


def _write(name: str, url: str | None) -> None:
    part = _state(name).with_suffix(".part")
    # For the user's eyes only: the URL may hold a password.
    part.touch(mode=0o600)
    part.write_text(json.dumps({"pid": os.getpid(), "url": url}), encoding="utf-8")
    part.replace(_state(name))


def _lock(file: BinaryIO) -> bool:
    """Take the keeper's lock; a second of patience outlasts those who only look."""
    deadline = time.monotonic() + 1.0
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        else:
            return True


def _keep(name: str) -> int:
    """Run one broker until SIGTERM, or until it ends by itself; returns the exit status."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    with (_folder() / f"{name}.lock").open("ab") as lock:
        if not _lock(lock):
            return 0  # somebody else was faster; theirs is up
        try:
            _write(name, None)
            with BROKERS[name](own=True) as broker:
                _write(name, broker.url)
                while not told.wait(1.0):
                    if not broker.running:
                        sys.stderr.write(f"{name} ended by itself{broker.log_tail()}\n")
                        return 1
        except SimlinkError as error:
            sys.stderr.write(f"{error}\n")
            return 1
        finally:
            _state(name).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(_keep(sys.argv[1]))
