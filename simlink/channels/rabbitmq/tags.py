"""The receiving channel's books: which delivery tags the application holds, and what the broker is to be told of them.

A tag's life: handed out, given a verdict, told to the broker. A nack with a back-off is told when that is over; until
then the broker must not hear "everything up to" a higher tag.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from simlink.message import Verdict

__all__ = ["Tags", "Word", "shortened"]

_WAITING, _TOLD, _LATER = 0, 1, 2


class Word(NamedTuple):
    """What the broker is to be told: a verdict over one tag, or over all up to and including it."""

    verdict: Verdict
    tag: int
    multiple: bool = False


class Tags:
    """The tags of one channel, from 1, without gaps. For one thread at a time.

    Attributes:
        in_hand: how many are handed out and have no verdict.
    """

    def __init__(self) -> None:
        self.in_hand = 0
        self._base = 1  # the lowest tag of which the broker was told nothing, or the next one to be handed out
        self._marks = bytearray()  # from there on

    @property
    def base(self) -> int:
        """Below this the broker was told everything."""
        return self._base

    def hand_out(self, count: int) -> range:
        """The next ``count`` tags."""
        first = self._base + len(self._marks)
        self._marks += bytes(count)
        self.in_hand += count
        return range(first, first + count)

    def settle(self, verdict: Verdict, first: int, last: int, *, later: bool = False) -> list[Word]:
        """A verdict over those of the tags ``first … last`` that have none; what to tell the broker of it.

        With ``later`` it is a nack that waits: what is returned is to be given to `due` one day.
        """
        marks = self._marks
        begin, stop = max(first - self._base, 0), min(last + 1 - self._base, len(marks))
        if begin >= stop or not (waiting := marks.count(_WAITING, begin, stop)):
            return []
        self.in_hand -= waiting
        words: list[Word] = []
        if verdict is Verdict.ACK and begin == 0:
            # Nothing below is open, so one word reaches up to the first tag whose nack still waits.
            blocked = marks.find(_LATER, 0, stop)
            end = stop if blocked < 0 else blocked
            highest = marks.rfind(_WAITING, 0, end)
            if highest >= 0:
                words.append(Word(verdict, self._base + highest, multiple=highest > 0))
                marks[: highest + 1] = bytes([_TOLD]) * (highest + 1)
                begin = highest + 1
        while (at := marks.find(_WAITING, begin, stop)) >= 0:
            marks[at] = _LATER if later else _TOLD
            words.append(Word(verdict, self._base + at))
            begin = at + 1
        self._trim()
        return words

    def due(self, words: Iterable[Word]) -> list[Word]:
        """The back-off of these is over: those that are still to be told."""
        out: list[Word] = []
        for word in words:
            at = word.tag - self._base
            if 0 <= at < len(self._marks) and self._marks[at] == _LATER:
                self._marks[at] = _TOLD
                out.append(word)
        self._trim()
        return out

    def _trim(self) -> None:
        if self._marks and self._marks[0] == _TOLD:
            kept = self._marks.lstrip(bytes([_TOLD]))
            self._base += len(self._marks) - len(kept)
            self._marks = kept


def shortened(words: Iterable[Word]) -> list[Word]:
    """The same with every "up to" left out that a later one, with nothing else between them, says as well."""
    out: list[Word] = []
    for word in words:
        if word.multiple and out and out[-1].multiple and out[-1].verdict is word.verdict:
            out[-1] = word
        else:
            out.append(word)
    return out
