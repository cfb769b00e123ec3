"""Stretches of rows, made into text or tables by one of several processes; see `simlink.generators.output.crew`."""

from __future__ import annotations

import io
import mmap
import os
import stat
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from simlink.generators.source import Chunk, Source

__all__ = ["Encode", "Maker", "Stretch", "place_in", "write_at"]

HELD: Final = 64 << 20
"""Bytes of text that a process holds, at most, while it does not know where they go; and one block more."""

Encode = Callable[["Chunk"], Any]


class Stretch:
    """Rows that one process makes.

    Attributes:
        first, stop: which ones.
        rows, size: how many there were, and the bytes of their text; as far as it was made.
        turn: whether everything before it has its place, and so it too.
        at: the place of what is written next, of text in a file.
        held: what was made before its turn came.
        made, written: whether all of it is.
        notes: what ``encode`` has noted meanwhile, where it takes notes.
    """

    __slots__ = ("at", "first", "held", "made", "notes", "rows", "size", "stop", "turn", "written")

    def __init__(self, first: int, stop: int) -> None:
        self.first, self.stop = first, stop
        self.rows = self.size = self.at = 0
        self.turn = self.made = self.written = False
        self.held: deque[Any] = deque()
        self.notes: Any = None


class Store:
    """Text that waits for its turn, in memory that is used again and again: the copy costs less than new memory does,
    which comes page by page from the kernel."""

    def __init__(self) -> None:
        self.memory: mmap.mmap | None = None
        self.end = self.kept = 0

    def keep(self, made: Any) -> Any:
        """The same in the store, as far as it is text and there is room."""
        if not isinstance(made, bytes) or self.end + len(made) > HELD:
            return made
        if self.memory is None:
            self.memory = _memory()
        first, self.end = self.end, self.end + len(made)
        self.memory[first : self.end] = made
        self.kept += 1
        return memoryview(self.memory)[first : self.end]

    def give_back(self, made: Any) -> None:
        """It is not needed any more."""
        if isinstance(made, memoryview):
            made.release()
            self.kept -= 1
            if not self.kept:
                self.end = 0


def _memory() -> mmap.mmap:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return mmap.mmap(-1, HELD)
    # Shared memory, which is what one gets unasked, comes in small pages: to touch them all for the first time took a
    # tenth of the time of two workers.
    memory = mmap.mmap(-1, HELD, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class Maker:
    """Makes stretches; `put` is given what has its turn, in order, and where it goes."""

    def __init__(self, source: Source, encode: Encode, put: Callable[[Stretch, Any], None]) -> None:
        self.source, self.encode, self.put = source, encode, put
        self.store = Store()
        self.held = 0

    def make(self, stretch: Stretch, between: Callable[[], object], pause: Callable[[], object]) -> None:
        """All rows of a stretch. ``between`` is called after every block, ``pause`` while too much is held: it waits
        until somebody's turn may have come."""
        for chunk in self.source.chunks(stretch.first, stretch.stop):
            while self.held >= HELD:
                pause()
            made = self.encode(chunk)
            if not len(chunk):
                continue  # what was done where nothing is sent: it has been noted
            size = size_of(made)
            stretch.rows += len(chunk)
            stretch.size += size
            self.held += size
            stretch.held.append(made if stretch.turn else self.store.keep(made))
            if stretch.turn:
                self.release(stretch)
            between()
        notes = getattr(self.encode, "notes", None)
        stretch.notes = None if notes is None else notes()

    def turn(self, stretch: Stretch, at: int) -> None:
        """Its place is known."""
        stretch.turn, stretch.at = True, at
        self.release(stretch)

    def release(self, stretch: Stretch) -> None:
        """Put down what is held of it."""
        while stretch.held:
            made = stretch.held.popleft()
            self.put(stretch, made)
            size = size_of(made)
            self.store.give_back(made)
            self.held -= size
            stretch.at += size


def size_of(made: Any) -> int:
    return len(made) if isinstance(made, bytes) else int(made.nbytes)


def write_at(file: int, text: bytes | memoryview, at: int) -> None:
    """All of it into a file, from this place on."""
    done = 0
    with memoryview(text) as view:
        while done < len(view):
            with view[done:] as rest:
                done += os.pwrite(file, rest, at + done)


def place_in(file: IO[bytes]) -> int | None:
    """Where the next byte goes, in a file that any process may write to at any place; None where there is no such
    place."""
    try:
        number = file.fileno()
        if not hasattr(os, "pwrite") or not stat.S_ISREG(os.fstat(number).st_mode):
            return None
    except (AttributeError, io.UnsupportedOperation):
        return None
    file.flush()
    return file.tell()
