"""Child processes that cannot outlive their parent, and ports for them to listen on."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Process", "free_ports", "reachable"]

WATCHDOG: Final = Path(__file__).with_name("watchdog.py")
LOWEST_PORT: Final = 10_000
HELD_PORTS: Final = 128
_held: deque[int] = deque()
_holding = threading.Lock()

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


def free_ports(count: int) -> list[int]:
    """Different TCP ports that nobody listens on at 127.0.0.1.

    They lie below the range that the system gives to outgoing connections: a broker that is down for a while must
    find its port free again, and a client that retries on loopback would otherwise sooner or later be given the very
    port that it is calling, and connect to itself.

    On Linux this process keeps a bound socket on each, on the last `HELD_PORTS` that it gave: whoever else asks here,
    in this process or another, is not given the same port before its server is up, or while that is down.

    Raises:
        OSError: there are not so many.
    """
    lowest_outgoing = 32_768
    with suppress(OSError, ValueError, IndexError):
        lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    candidates = range(LOWEST_PORT, max(lowest_outgoing, LOWEST_PORT + 1_000))
    found: list[int] = []
    for port in random.SystemRandom().sample(candidates, k=min(len(candidates), 1_000)):
        with socket.socket() as probe:
            try:
                # Without SO_REUSEADDR, so that a socket which is only bound is in the way.
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            if sys.platform == "linux":  # elsewhere a bound socket would be in the server's way too
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                _hold(probe.detach())
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports on 127.0.0.1 between {candidates.start} and {candidates.stop}")


def _hold(descriptor: int) -> None:
    # Descriptors: a socket would complain that it is still open when the interpreter ends.
    with _holding:
        _held.append(descriptor)
        if len(_held) > HELD_PORTS:
            os.close(_held.popleft())


def reachable(host: str, port: int, timeout: float = 2.0) -> bool:
    """Whether somebody accepts connections at the address within ``timeout`` seconds."""
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError:
        return False
    return True
