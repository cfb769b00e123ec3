"""The sending channel's books: which published positions the broker has answered for.

A channel in confirm mode counts what is published on it from 1 on; the broker answers by that number, one at a time or
"everything up to", in any order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

__all__ = ["Confirms"]

Ranges = list[tuple[int, int]]


class _Run(NamedTuple):
    """The tags from ``tag`` on stand for the positions from ``position`` on, one for each of the rows."""

    tag: int
    position: int
    rows: Sequence[Any]

    @property
    def stop(self) -> int:
        return self.tag + len(self.rows)


class Confirms:
    """The tags of one channel, from 1. For one thread."""

    def __init__(self) -> None:
        self._next = 1
        self._low = 1  # the lowest tag without an answer, or the next one
        self._done: set[int] = set()  # tags above it that have theirs
        self._runs: deque[_Run] = deque()

    @property
    def in_flight(self) -> int:
        """How many tags have no answer."""
        return self._next - self._low - len(self._done)

    def published(self, position: int, rows: Sequence[Any]) -> None:
        """These rows, at the positions from ``position`` on, have the next tags."""
        if rows:
            self._runs.append(_Run(self._next, position, rows))
            self._next += len(rows)

    def resolve(self, tag: int, *, multiple: bool) -> Ranges:
        """The broker's answer to one tag, or to all up to and including it (0 stands for all).

        Returns:
            ``(first, stop)`` of the positions that had none before.
        """
        if multiple and tag == 0:
            tag = self._next - 1
        first = self._low if multiple else tag
        if not self._low <= tag < self._next:
            return []
        out: Ranges = []
        for a, b in self._open(first, tag + 1):
            out += self._positions(a, b)
        if first == self._low:
            self._low = tag + 1
            if self._done:
                self._done = {t for t in self._done if t > tag} if multiple else self._done
                while self._low in self._done:
                    self._done.discard(self._low)
                    self._low += 1
            while self._runs and self._runs[0].stop <= self._low:
                self._runs.popleft()
        else:
            self._done.add(tag)
        return out

    def rest(self) -> Ranges:
        """``(first, stop)`` of the positions that have no answer; afterwards none is waited for."""
        return self.resolve(0, multiple=True) if self._next > self._low else []

    def find(self, match: Callable[[Any], bool]) -> int | None:
        """The lowest tag without an answer whose row matches."""
        for run in self._runs:
            for tag, row in enumerate(run.rows, run.tag):
                if tag >= self._low and tag not in self._done and match(row):
                    return tag
        return None

    def _open(self, first: int, stop: int) -> Ranges:
        """The tags ``first … stop - 1`` that have no answer, as ranges."""
        if not self._done:
            return [(first, stop)] if first < stop else []
        out: Ranges = []
        for tag in range(first, stop):
            if tag in self._done:
                continue
            if out and out[-1][1] == tag:
                out[-1] = (out[-1][0], tag + 1)
            else:
                out.append((tag, tag + 1))
        return out

    def _positions(self, first: int, stop: int) -> Ranges:
        out: Ranges = []
        for run in self._runs:
            if run.tag >= stop:
                break
            a, b = max(first, run.tag), min(stop, run.stop)
            if a < b:
                begin, end = run.position + a - run.tag, run.position + b - run.tag
                if out and out[-1][1] == begin:
                    out[-1] = (out[-1][0], end)
                else:
                    out.append((begin, end))
        return out
