"""Showing how far a run is: a bar in a terminal or a notebook, plain lines elsewhere, or the user's own function."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from simlink.errors import ConfigError

if TYPE_CHECKING:
    from simlink.running.report import Report

__all__ = ["Bar", "Lines", "Progress", "Show", "Table", "Watch", "chosen", "watching"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is.

    Attributes:
        sent, confirmed, failed, unknown, dropped: messages so far.
        total: how many it will be, or None where nobody knows.
        seconds: since the start.
        limit: seconds that the run may last, or None.
        rate: messages a second over about the last second.
        report: the whole report so far, made when it is called.
        done: this is the last word.
    """

    source: str
    url: str
    sent: int
    confirmed: int
    failed: int
    unknown: int
    dropped: int
    total: int | None
    seconds: float
    limit: float | None
    rate: float
    report: Callable[[], Report]
    done: bool = False

    @property
    def eta(self) -> float | None:
        """Seconds to go at this rate, or None where nobody knows."""
        if self.total is not None and self.rate > 0:
            by_count = max(0, self.total - self.sent - self.dropped) / self.rate
        else:
            by_count = math.inf
        by_time = math.inf if self.limit is None else max(0.0, self.limit - self.seconds)
        left = min(by_count, by_time)
        return None if left == math.inf else left

    @property
    def fraction(self) -> float | None:
        """The part that is done, 0 … 1, or None where nobody knows."""
        parts = []
        if self.total:
            parts.append((self.sent + self.dropped) / self.total)
        if self.limit:
            parts.append(self.seconds / self.limit)
        return min(1.0, max(parts)) if parts else None

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total:,}"
        eta = "" if self.eta is None or self.done else f", {self.eta:.0f} s to go"
        bad = "".join(
            f", {count:,} {name}"
            for name, count in (("failed", self.failed), ("unknown", self.unknown), ("dropped", self.dropped))
            if count
        )
        return f"{self.source}: {self.sent:,}{of} sent, {self.confirmed:,} confirmed, {self.rate:,.0f}/s{bad}{eta}"


class Show(Protocol):
    """What is told of progress, every tenth of a second or so and once at the end (``done``)."""

    def __call__(self, progress: Progress, /) -> object: ...


class Lines:
    """One line on stderr every ``every`` seconds, and one at the end of a run that lasted longer than that."""

    def __init__(self, every: float = 2.0) -> None:
        self.every = every
        self._last: float | None = None

    def __call__(self, progress: Progress) -> None:
        due = progress.seconds - (self._last or 0.0) >= self.every
        if due or (progress.done and self._last is not None):
            self._last = progress.seconds
            if sys.stderr is None:
                return
            # Where nobody can be told any more, the run goes on all the same.
            with suppress(OSError):
                sys.stderr.write(f"{self.text(progress)}\n")
                sys.stderr.flush()

    def text(self, progress: Progress) -> str:
        """The line."""
        return str(progress)


class Watch(Lines):
    """As `Lines`, every second, with latency and send lag."""

    def __init__(self) -> None:
        super().__init__(every=1.0)

    def text(self, progress: Progress) -> str:
        report = progress.report()
        more = [
            f"{name} p50 {times['p50']:,.2f} p99 {times['p99']:,.2f} ms"
            for name, times in (("latency", report.latency_ms), ("send lag", report.send_lag_ms))
            if times is not None
        ]
        return ", ".join([str(progress), *more])


class Table:
    """As `Watch`, with a live table of the endpoints where a channel has several; by rich, in a terminal.

    Raises:
        ImportError: rich is not installed.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._watch = Watch()
        self._live = Live(console=Console(stderr=True), auto_refresh=False)
        self._shown = 0.0

    def __call__(self, progress: Progress) -> None:
        with suppress(OSError):  # as in `Lines`
            self._draw(progress)

    def _draw(self, progress: Progress) -> None:
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        if not self._live.is_started:
            self._live.start()
        if progress.done or progress.seconds - self._shown >= _REDRAW:
            self._shown = progress.seconds
            table = RichTable("endpoint", "state", "in flight", "sent", "moved", "why")
            for name, each in (progress.report().endpoints or {}).items():
                counts = (f"{each[which]:,}" for which in ("in_flight", "sent", "moved"))
                cells = (name, each["state"], *counts, each["why"])
                table.add_row(*map(Text, cells), style=_COLOURS.get(each["state"]))
            figures = Text(self._watch.text(progress))
            self._live.update(Group(figures, table) if table.row_count else figures, refresh=True)
        if progress.done:
            self._live.stop()


_REDRAW = 0.25
"""Seconds between two drawings of a live table."""
_COLOURS = {"dead": "red", "suspect": "yellow", "ejected": "yellow", "half open": "cyan", "warming": "cyan"}


class Bar:
    """A bar with rate and time to go, by rich, on stderr or in a notebook.

    Raises:
        ImportError: rich is not installed.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: Any = None

    def __call__(self, progress: Progress) -> None:
        with suppress(OSError):  # as in `Lines`
            self._draw(progress)

    def _draw(self, progress: Progress) -> None:
        if self._task is None:
            self._task = self._rich.add_task(progress.source, total=None, figures="")
            self._rich.start()
        fraction = progress.fraction
        # Everything behind the name: the counts, the rate, the time to go.
        figures = str(progress).partition(": ")[2]
        self._rich.update(
            self._task,
            total=None if fraction is None else 1.0,
            completed=fraction or 0.0,
            figures=figures,
        )
        if progress.done:
            self._rich.stop()


def watching() -> Show:
    """What ``--watch`` shows: a live table in a terminal that has rich, else a line every second."""
    if sys.stderr is not None and sys.stderr.isatty():
        with suppress(ImportError):
            return Table()
    return Watch()


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this process."""
    shell = sys.modules.get("IPython")
    if shell is None:
        return False
    current = shell.get_ipython()
    return current is not None and type(current).__name__ == "ZMQInteractiveShell"


def chosen(progress: bool | Callable[[Progress], object]) -> Show | None:
    """What ``progress=`` asks for: True shows a bar in a terminal or a notebook and prints `Lines` elsewhere, False
    shows nothing, and a function is called with a `Progress`.

    Raises:
        ConfigError: it is neither.
    """
    if callable(progress):
        return progress
    if not isinstance(progress, bool):
        raise ConfigError(f"progress is True, False or a function of a Progress, not {progress!r}")
    if not progress:
        return None
    if in_notebook() or (sys.stderr is not None and sys.stderr.isatty()):
        with suppress(ImportError):
            return Bar()
    return Lines()


class Meter:
    """The rate over about the last second, and a history of it for a small plot."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: list[tuple[float, int]] = []
        self.history: list[float] = []
        self.rate = 0.0

    def add(self, now: float, count: int) -> float:
        """Book that ``count`` have been sent by now; the rate."""
        self._marks.append((now, count))
        while len(self._marks) > 2 and self._marks[1][0] <= now - 1.0:
            self._marks.pop(0)
        then, before = self._marks[0]
        elapsed = now - then
        self.rate = rate = (count - before) / elapsed if elapsed > 0 else 0.0
        self.history.append(rate)
        if len(self.history) > 240:
            # Half as many points for twice the time: the plot covers the whole run.
            self.history = self.history[::2]
        return rate
