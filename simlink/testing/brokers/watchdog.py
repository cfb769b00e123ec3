"""The little parent that a test broker runs under; started as a script by :mod:`simlink.testing.brokers.process`.

A parent-death signal follows the *thread* that started the child, and a pipe's end may live on in a forked sibling. So
the broker is started by this program, which does nothing else: it watches the process that asked for the broker (by
pidfd, and by the end of its own standard input), and takes the broker and all that the broker left running with it.
If this program itself is killed, the kernel kills the broker: here that signal is safe, because there is one thread.

It imports the standard library only, and is run with ``python -I -S``, so that it starts in a few milliseconds.

Arguments: the process id to follow, the log file, a folder to remove if that process dies (or ``-``), the command.
Standard input: one letter a signal (see ``SIGNALS``). Standard output: ``pid N`` once started, or ``failed REASON``;
then ``frozen`` whenever a stop signal has taken effect.
Exit status: that of the command, 128 + N if signal N ended it.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

SIGNALS = {b"T": signal.SIGTERM, b"K": signal.SIGKILL, b"S": signal.SIGSTOP, b"C": signal.SIGCONT}
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
WITHOUT_PIDFD = 0.1
"""Seconds between looks at the two processes where the system has no pidfd (not Linux, or before 5.3)."""


class Gone(Exception):
    """The process that asked for the broker is dead, or this program was told to end."""


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _children() -> list[int]:
    """The direct children, among them every orphan of the broker that this subreaper has adopted."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in parentheses may hold anything, so count the fields behind it: state, then the parent.
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found.append(int(entry.parent.name))
    return found


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _await_stop(pid: int) -> None:
    """A signal is only sent when kill returns: wait until every thread of the child stands still, or it has ended."""
    if hasattr(os, "waitid"):  # not on macOS before Python 3.13
        # The status is left where it is: the child's end is Popen's to collect.
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def _sweep() -> None:
    """Kill and reap every remaining child: a broker's helpers outlive it (Erlang's epmd is a daemon)."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        for pid in _children():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.005)


def _end(number: int, _frame: object) -> None:
    raise Gone(f"signal {number}")


def _follow(parent: int, child: subprocess.Popen[bytes]) -> int:
    """Pass on signals until the child ends; returns its status. Raises Gone when the parent is no more."""
    parent_fd, child_fd = _pidfd(parent), _pidfd(child.pid)
    poll = select.poll()
    for fd in (0, parent_fd, child_fd):
        if fd is not None:
            poll.register(fd, select.POLLIN)
    # Milliseconds; for ever where both processes announce their own end.
    patience = None if parent_fd is not None and child_fd is not None else WITHOUT_PIDFD * 1000
    while True:
        # Only after the pidfd is open does the parent's id surely name the parent.
        if os.getppid() != parent:
            raise Gone("the parent is dead")
        if (status := child.poll()) is not None:
            return status
        ready = {fd for fd, _ in poll.poll(patience)}
        if parent_fd in ready:
            raise Gone("the parent is dead")
        if 0 in ready:
            letter = os.read(0, 1)
            if not letter:
                raise Gone("the parent hung up")
            if letter in SIGNALS:
                _signal_group(child.pid, SIGNALS[letter])
            if letter == b"S":
                _await_stop(child.pid)
                sys.stdout.write("frozen\n")
                sys.stdout.flush()


def main(parent: int, log: str, remove: str, command: list[str]) -> int:
    """Run ``command`` until it ends or ``parent`` does; returns the exit status."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    with Path(log).open("ab") as output:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # One thread here, so running Python between fork and exec is safe.
                preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509
            )
        except OSError as error:
            sys.stdout.write(f"failed {error}\n")
            return 127
    gone = False
    # Set after the start: an ignored signal would stay ignored in the broker.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sys.stdout.write(f"pid {child.pid}\n")
        sys.stdout.flush()
        status = _follow(parent, child)
    except (Gone, BrokenPipeError):
        gone = True
        _signal_group(child.pid, signal.SIGKILL)
        status = child.wait()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _signal_group(child.pid, signal.SIGKILL)
    _sweep()
    if gone and remove != "-":
        shutil.rmtree(remove, ignore_errors=True)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))
