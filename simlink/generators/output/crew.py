"""The records of one file, made by several processes, of which this one is the first.

Stretches of rows are handed out in order, one at a time, to whoever is free. How long the text of a stretch is, its
maker tells; then the place of the next one is known, and whoever made that one writes it there. So text goes into the
file past this process, and is written once. What has no place (a pipe, a table) comes here in its turn, chunk by chunk.

A stretch is some epochs of the sessions (`simlink.generators.fields.sessions`), for which a process makes the epoch
before as well: of one that is 8 % of the work, of four 2 %. In longer ones more text waits for its turn than a process
may hold. Towards the end they become shorter, so that all are done at about the same time (guided self-scheduling:
Polychronopoulos and Kuck, 1987).
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from simlink.errors import ConfigError, StateError
from simlink.generators.field import BLOCK_ROWS
from simlink.generators.output.processes import UNGUARDED, begin
from simlink.generators.output.stretches import Encode, Maker, Stretch, write_at

if TYPE_CHECKING:
    from simlink.generators.source import Source

__all__ = ["STRETCH", "Crew"]

STRETCH: Final = 16 * BLOCK_ROWS
"""Rows in the shortest stretch: an epoch of the sessions."""
LONGEST: Final = 4
"""Epochs in the longest one."""
_START: Final = 10.0


class _Helper:
    """Another process, as this one sees it."""

    def __init__(self, process: Any, pipe: Connection) -> None:
        self.process, self.pipe = process, pipe
        self.ready = False


class Crew:
    """The processes that write one file.

    Args:
        source: of a generator.
        stop: how many records.
        encode: a chunk → text, or a table.
        workers: how many processes, with this one.
        file: the open file, or None where ``write`` takes everything.
        at: where the first byte goes in it.
        write: takes what has no place in a file, in order.
        noted: takes what ``encode`` noted in each stretch (its ``notes()``), in order, with the rows before it.
    """

    def __init__(
        self,
        source: Source,
        stop: int,
        encode: Encode,
        workers: int,
        *,
        file: IO[bytes] | None,
        at: int,
        write: Callable[[Any], object],
        noted: Callable[[Any, int], object] | None = None,
    ) -> None:
        self._source, self._encode, self._stop = source, encode, stop
        self._workers = min(workers, -(-stop // STRETCH))
        self._file = file
        self._at = self._safe = at
        self._write = write
        self._noted = noted
        self._rows = 0
        self._given = 0
        self._waiting: deque[tuple[Stretch, _Helper | None]] = deque()
        """What was handed out and what comes behind which has no place yet: in order."""
        self._open: dict[int, Stretch] = {}
        """What was handed out and is not known to be written: in order."""
        self._helpers: list[_Helper] = []
        self._method = start_method()

    def run(self, told: Callable[[int], object]) -> None:
        """Make and write everything; ``told`` how many rows more have their place, again and again.

        Raises:
            ConfigError: the source cannot be handed to another process.
            StateError: a process ended early. What was written is cut after the last record before which none is
                missing, as after any other error.
        """
        maker = Maker(self._source, self._encode, self._put)
        self._maker, self._told = maker, told
        try:
            for number in range(1, self._workers):
                self._helpers.append(self._start(number))
            while (stretch := self._next(None)) is not None:
                self._settle()
                maker.make(stretch, lambda: self._hear(0), lambda: self._hear(None))
                stretch.made = True
                self._settle()
            while self._open:
                self._hear(None)
            for helper in self._helpers:
                helper.pipe.send(None)
                helper.process.join(_START)
        except BaseException:
            self._end()
            if self._file is not None:
                os.ftruncate(self._file.fileno(), self._safe)
            raise
        finally:
            self._end()

    # --- who makes what

    def _next(self, helper: _Helper | None) -> Stretch | None:
        if self._given >= self._stop:
            return None
        left = self._stop - self._given
        epochs = min(max(left // (2 * self._workers * STRETCH), 1), LONGEST)
        stretch = Stretch(self._given, self._given + min(epochs * STRETCH, left))
        self._given = stretch.stop
        self._waiting.append((stretch, helper))
        self._open[stretch.first] = stretch
        return stretch

    def _settle(self) -> None:
        """Give their turns to those whose place is known."""
        while self._waiting:
            stretch, helper = self._waiting[0]
            if not stretch.turn:
                if helper is None:
                    self._maker.turn(stretch, self._at)
                else:
                    stretch.turn = True
                    _tell(helper, ("turn", stretch.first, self._at))
            # In a file the next one need not wait for this one to be written; elsewhere it must.
            if not stretch.made or (self._file is None and helper is not None and not stretch.written):
                return
            self._waiting.popleft()
            self._at += stretch.size
            if self._noted is not None:
                self._noted(stretch.notes, self._rows)
                stretch.notes = None
            self._rows += stretch.rows
            if helper is None:
                self._written(stretch)
            self._told(stretch.rows)

    def _put(self, stretch: Stretch, made: Any) -> None:
        if self._file is None:
            self._write(made)
        else:
            write_at(self._file.fileno(), made, stretch.at)

    def _written(self, written: Stretch) -> None:
        written.written = True
        for first, stretch in list(self._open.items()):
            if not stretch.written:
                return
            del self._open[first]
            self._safe += stretch.size

    # --- what the others say

    def _hear(self, timeout: float | None) -> None:
        pipes = {helper.pipe: helper for helper in self._helpers}
        while ready := wait(list(pipes), timeout):
            for pipe in ready:
                assert isinstance(pipe, Connection)
                self._answer(pipes[pipe])
            timeout = 0

    def _answer(self, helper: _Helper) -> None:
        try:
            what, first, value = helper.pipe.recv()
        except (EOFError, OSError):
            raise _ended(helper) from None
        helper.ready = True
        if what == "more":
            stretch = self._next(helper)
            if stretch is not None:
                _tell(helper, ("make", stretch.first, stretch.stop))
                self._settle()
        elif what == "made":
            stretch = self._open[first]
            stretch.rows, stretch.size, stretch.notes = value
            stretch.made = True
            self._settle()
        elif what == "chunk":
            self._write(value)
        elif what == "written":
            self._written(self._open[first])
            self._settle()
        else:
            raise value

    # --- beginning and end

    def _start(self, number: int) -> _Helper:
        """Start a process.

        Raises:
            ConfigError: the source cannot be handed to it.
        """
        while True:
            method = self._method
            context = multiprocessing.get_context(method)
            ours, theirs = context.Pipe()
            # What a fork inherits and must not keep open, or nobody would see the end of the others.
            inherited = [ours, *(helper.pipe for helper in self._helpers)] if method == "fork" else []
            out = None if self._file is None else str(Path(self._file.name).resolve())
            more = (self._source, self._encode, out)
            try:
                with _undisturbed():
                    name = f"simlink-generate-{number}"
                    process = begin(context, _help, (theirs, inherited), more, name=name, daemon=True)
            except TypeError as error:
                ours.close()
                raise ConfigError(f"{self._source.name} cannot be handed to a worker process: {error}") from error
            finally:
                theirs.close()
            helper = _Helper(process, ours)
            if method == "fork" and not _alone():
                # Some library has threads of its own, whose locks may be held for ever in the copy.
                _stop(helper)
                self._method = "spawn"
                continue
            return helper

    def _end(self) -> None:
        """No process stays, whatever happened."""
        for helper in self._helpers:
            _stop(helper)
        self._helpers.clear()


def start_method() -> str:
    """A fork needs no imports and no tables made anew, but may only be had where nothing else runs."""
    return "fork" if sys.platform == "linux" and threading.active_count() == 1 else "spawn"


def _alone() -> bool:
    """Just after a fork: whether this process has one thread, those of libraries included. NumPy's linear algebra stops
    its own threads before a fork, and starts them when they are needed again."""
    for _ in range(20):
        if sum(1 for _ in Path("/proc/self/task").iterdir()) == 1:
            return True
        time.sleep(0.0005)  # what was stopped is listed for a moment longer
    return False


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C is for the process that was asked, not for those that it starts."""
    with warnings.catch_warnings():
        # That a fork in a process with threads is dangerous is seen to by `_alone`.
        warnings.simplefilter("ignore", DeprecationWarning)
        if not hasattr(signal, "pthread_sigmask"):
            yield
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop(helper: _Helper) -> None:
    helper.pipe.close()
    # It has nothing to clean up; and what was forked from a process with threads may not hear anything milder.
    helper.process.kill()
    helper.process.join()
    helper.process.close()


def _tell(helper: _Helper, what: Any) -> None:
    try:
        helper.pipe.send(what)
    except OSError:
        raise _ended(helper) from None


def _ended(helper: _Helper) -> StateError:
    helper.process.join(_START)
    status = helper.process.exitcode
    how = "closed its pipe" if status is None else f"ended with status {status}"
    if status is not None and status < 0:
        how = f"was killed ({signal.Signals(-status).name})"
    hint = "" if helper.ready else UNGUARDED
    return StateError(f"the worker process {helper.process.name} {how} before its work was done{hint}")


# --- in another process


def _help(pipe: Connection, inherited: list[Connection], source: Source, encode: Encode, out: str | None) -> None:
    """What a helper does, until it is told to end or nobody is there to tell it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in inherited:
        other.close()
    with pipe, suppress(EOFError, OSError):
        try:
            file = None if out is None else os.open(out, os.O_WRONLY)
            _Helping(pipe, source, encode, file).run()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            pipe.send(("failed", 0, _portable(error)))
            pipe.recv()  # the other side ends it


class _Helping:
    """A helper at work."""

    def __init__(self, pipe: Connection, source: Source, encode: Encode, file: int | None) -> None:
        self.pipe, self.file = pipe, file
        self.maker = Maker(source, encode, self.put)
        self.next: deque[Stretch] = deque()
        self.known: dict[int, Stretch] = {}
        """What was given out and is not put down completely."""
        self.done: set[int] = set()
        self.asked = False
        self.over = False

    def run(self) -> None:
        self.ask()
        while not self.over:
            while not self.next and not self.over:
                self.hear()
            if self.over:
                return
            stretch = self.next.popleft()
            self.asked = False
            self.maker.make(stretch, lambda: self.between(stretch), self.hear)  # noqa: B023 – used within the call
            self.done.add(stretch.first)
            self.pipe.send(("made", stretch.first, (stretch.rows, stretch.size, stretch.notes)))
            stretch.notes = None
            self.finish(stretch)
            if not self.asked:
                self.ask()

    def between(self, stretch: Stretch) -> None:
        # The answer comes while the last block is made.
        if not self.asked and stretch.first + stretch.rows >= stretch.stop - BLOCK_ROWS:
            self.ask()
        while self.pipe.poll():
            self.hear()

    def ask(self) -> None:
        self.asked = True
        self.pipe.send(("more", 0, None))

    def hear(self) -> None:
        """Wait for a word and do what it says."""
        said = self.pipe.recv()
        if said is None:
            self.over = True
            return
        what, first, value = said
        if what == "make":
            stretch = self.known[first] = Stretch(first, value)
            self.next.append(stretch)
        else:
            stretch = self.known[first]
            self.maker.turn(stretch, value)
            self.finish(stretch)

    def finish(self, stretch: Stretch) -> None:
        if stretch.turn and stretch.first in self.done:
            self.done.remove(stretch.first)
            del self.known[stretch.first]
            self.pipe.send(("written", stretch.first, None))

    def put(self, stretch: Stretch, made: Any) -> None:
        if self.file is None:
            self.pipe.send(("chunk", stretch.first, bytes(made) if isinstance(made, memoryview) else made))
        else:
            write_at(self.file, made, stretch.at)


def _portable(error: Exception) -> Exception:
    """The error, if it can be handed to another process; one that says the same otherwise."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 – our own
    except Exception:
        return StateError(f"{type(error).__name__}: {error}")
    return error
