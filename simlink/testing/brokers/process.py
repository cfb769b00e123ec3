"""Child processes that cannot outlive their parent, and whether they are reached."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Process", "reachable"]

WATCHDOG: Final = Path(__file__).with_name("watchdog.py")

Signal = Literal["T", "K", "S", "C"]
"""What a watchdog understands: terminate, kill, stop (freeze), continue."""


class Process:
    """A server process under a watchdog; it is running once this is constructed.

    It runs in a session of its own (Ctrl-C in the terminal does not reach it) and dies with the process that made it,
    however that one ends, together with everything it started itself.

    Args:
        command: the program and its arguments.
        env: its whole environment.
        folder: its working folder.
        log: the file that its output is appended to.
        remove: a folder that is removed if this process dies without having called ``close``.

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], folder: Path, log: Path, remove: Path | None = None
    ) -> None:
        self.command = list(command)
        self._lock = threading.Lock()
        with log.open("ab") as errors:
            self._watchdog = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(WATCHDOG)),
                    *(str(os.getpid()), str(log), str(remove) if remove else "-"),
                    *self.command,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,  # a letter to a dead watchdog must fail at once, not when the pipe is closed
                env=dict(env),
                cwd=folder,
                start_new_session=True,
            )
        try:
            assert self._watchdog.stdout is not None
            word, _, rest = self._watchdog.stdout.readline().decode(errors="replace").strip().partition(" ")
            if word != "pid":
                raise OSError(f"cannot start {self.command[0]}: {rest or 'the watchdog ended at once'}")
            self.pid = int(rest)
        except BaseException:
            self.close()
            raise

    @property
    def status(self) -> int | None:
        """The exit status once it has ended (128 + N if signal N ended it), None while it runs."""
        return self._watchdog.poll()

    def signal(self, letter: Signal) -> None:
        """Send a signal to the server and its group; nothing happens if it has ended. Returns from a freeze when the
        server stands still."""
        with self._lock:
            pipe = self._watchdog.stdin
            if pipe is None or pipe.closed:
                return
            try:
                pipe.write(letter.encode())
            except BrokenPipeError:
                return
            if letter == "S" and self._watchdog.stdout is not None:
                self._watchdog.stdout.readline()  # "frozen", or the end of the watchdog

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for its end; returns whether it, and all that it started, has ended."""
        try:
            self._watchdog.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """Kill it if it still runs, and close the pipes. Idempotent."""
        self.signal("K")
        if not self.wait(15):  # the kernel could not end it, so at least do not hang with it
            self._watchdog.kill()
            self._watchdog.wait()
        with self._lock:
            for pipe in (self._watchdog.stdin, self._watchdog.stdout):
                if pipe is not None:
                    pipe.close()


def reachable(host: str, port: int, timeout: float = 2.0) -> bool:
    """Whether somebody accepts connections at the address within ``timeout`` seconds."""
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError:
        return False
    return True
