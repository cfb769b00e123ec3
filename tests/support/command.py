"""The ``simlink`` command as a user runs it: a process of its own, watched, killed, and asked for its report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

__all__ = ["READY_TIMEOUT", "Command", "Done", "Tail", "lines_of", "run_simlink", "wait_until"]

READY_TIMEOUT = 40.0
END_TIMEOUT = 120.0


def wait_until(
    done: Callable[[], Any], what: str, timeout: float = END_TIMEOUT, *, while_: Callable[[], Any] = bool
) -> Any:
    """Look until there is something to be seen; what it was. Fails after ``timeout`` seconds.

    ``while_`` is called between the looks, and may raise if waiting has become pointless.
    """
    deadline = time.monotonic() + timeout
    while not (found := done()):
        while_()
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.01)
    return found


def lines_of(*files: Path) -> list[bytes]:
    """The complete lines of files, in order. A line that its writer was killed in the middle of is none."""
    found: list[bytes] = []
    for file in files:
        if file.exists():
            found += file.read_bytes().split(b"\n")[:-1]
    return found


class Tail:
    """The complete lines of files that others write to. Reads only what is new, so that looking often costs little."""

    def __init__(self, *files: Path) -> None:
        self._read = dict.fromkeys(files, 0)
        self._seen: set[bytes] = set()
        self._count = 0

    @property
    def count(self) -> int:
        """How many lines there are now."""
        self._look()
        return self._count

    @property
    def unique(self) -> int:
        """How many different ones."""
        self._look()
        return len(self._seen)

    def _look(self) -> None:
        for file, offset in self._read.items():
            if not file.exists():
                continue
            with file.open("rb") as stream:
                stream.seek(offset)
                whole, newline, _ = stream.read().rpartition(b"\n")
            if newline:
                lines = whole.split(b"\n")
                self._read[file] = offset + len(whole) + 1
                self._count += len(lines)
                self._seen.update(lines)


@dataclass
class Done:
    """What a command that has ended left: its exit status and all that it said."""

    status: int
    stdout: str
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        """The JSON object that ``--json`` prints as the last line."""
        report: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return report

    @property
    def complaint(self) -> str:
        """The one line on stderr that says what was wrong; fails if there are more, or a traceback."""
        lines = self.stderr.splitlines()
        assert [line for line in lines if line.startswith("simlink: ")] == lines[-1:], self.stderr
        assert "Traceback" not in self.stderr
        return lines[-1].removeprefix("simlink: ")


class Command:
    """``simlink ARGS`` in a process, as a context manager: left, it has ended, if need be by SIGKILL.

    Args:
        args: what stands behind ``simlink``; turned into text.
        program: what runs it, ``python -m simlink.cli`` by default.
        cwd, env: of the process; ``env`` is added to this one's.
    """

    def __init__(
        self,
        *args: object,
        program: Sequence[str] = (sys.executable, "-m", "simlink.cli"),
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        self.args = [str(arg) for arg in args]
        self._program = [*program, *self.args]
        self._cwd = cwd
        self._env = {**os.environ, **(env or {})}
        self._said: dict[str, list[str]] = {"stdout": [], "stderr": []}

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._program,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self._cwd,
            env=self._env,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(name, pipe), daemon=True)
            for name, pipe in (("stdout", self.process.stdout), ("stderr", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _read(self, name: str, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                self._said[name].append(line)

    @property
    def stdout(self) -> str:
        return "".join(self._said["stdout"])

    @property
    def stderr(self) -> str:
        return "".join(self._said["stderr"])

    def check(self) -> None:
        """Fail, with what it said, if it has ended."""
        status = self.process.poll()
        assert status is None, f"simlink {' '.join(self.args)} has ended with {status}:\n{self.stdout}{self.stderr}"

    def until(self, done: Callable[[], Any], what: str, timeout: float = END_TIMEOUT) -> Any:
        """`wait_until`, as long as it runs."""
        return wait_until(done, what, timeout, while_=self.check)

    def ready(self) -> str:
        """Wait for the line ``ready URL`` of a receiver; the URL."""

        def url() -> str | None:
            told = [line for line in list(self._said["stderr"]) if line.startswith("ready ")]
            return told[0].removeprefix("ready ").strip() if told else None

        found: str = self.until(url, "ready", READY_TIMEOUT)
        return found

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """``kill -9``, and wait for its end. Nothing happens if it has ended."""
        if self.process.poll() is None:
            self.process.kill()
        self._end(END_TIMEOUT)

    def wait(self, timeout: float = END_TIMEOUT) -> Done:
        """Wait until it ends by itself."""
        try:
            status = self._end(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"simlink {' '.join(self.args)} has not ended within {timeout:g} s:\n{self.stdout}{self.stderr}"
            ) from None
        return Done(status, self.stdout, self.stderr)

    def done(self, status: int = 0, timeout: float = END_TIMEOUT) -> Done:
        """Wait until it ends, with this exit status."""
        done = self.wait(timeout)
        assert done.status == status, f"simlink {' '.join(self.args)}: {done.status}\n{done.stdout}{done.stderr}"
        return done

    def _end(self, timeout: float) -> int:
        status = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
        return status


def run_simlink(*args: object, status: int = 0, timeout: float = END_TIMEOUT, **how: Any) -> Done:
    """Run a command to its end, which is this exit status."""
    with Command(*args, **how) as command:
        return command.done(status, timeout)
