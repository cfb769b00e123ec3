"""A run in the background."""

from __future__ import annotations

import atexit
import html
import threading
import weakref
from importlib import import_module
from typing import TYPE_CHECKING, Any

from simlink.errors import SendTimeout, StateError

if TYPE_CHECKING:
    from simlink.running.engine import Engine
    from simlink.running.report import Report

__all__ = ["Job"]

_AT_EXIT = 5.0


class Job:
    """A run in a thread of its own, named ``simlink-run-SOURCE``; made by `start`.

    In a notebook its last line shows what it sent so far, with a small plot of the rate, and keeps itself up to date.
    A job that still runs when the interpreter ends is stopped, and has 5 seconds to drain.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._drain = True
        self._display: Any = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"simlink-run-{engine.source.name}", daemon=True)
        _jobs.add(self)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._engine.execute(drain=lambda: self._drain)
        finally:
            self._ended.set()

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return not self._ended.is_set()

    @property
    def report(self) -> Report:
        """What it did so far."""
        return self._engine.report()

    @property
    def error(self) -> BaseException | None:
        """What ended it, or None."""
        return self._engine.error

    def stop(self, *, drain: bool = True, timeout: float | None = 30.0) -> Report:
        """Make no more records, wait for what is out, and report. Idempotent.

        From within the job (its source, or the function that is told of progress) it does not wait, and gives the
        report so far.

        Args:
            drain: False does not wait for receipts: what has none is reported as unknown.
            timeout: seconds to wait for the end; None waits for ever.

        Raises:
            SendTimeout: it has not ended in time; it still will.
            SimlinkError, or whatever the source raised: what had ended it; it has the ``report``.
        """
        if self.running:
            self._drain = drain
            self._engine.stop()
        if self._thread is threading.current_thread():
            return self.report
        return self.wait(timeout)

    def wait(self, timeout: float | None = 30.0) -> Report:
        """Wait for its own end.

        Raises:
            SendTimeout: it goes on after ``timeout`` seconds (None waits for ever). StateError: it is the job itself
                that would wait. Otherwise as `stop`.
        """
        if self._thread is threading.current_thread():
            raise StateError("a job cannot wait for its own end")
        if not self._ended.wait(timeout):
            raise SendTimeout(f"{self} goes on after {timeout:g} s", url=self._engine.channel.url, retryable=True)
        self._thread.join()
        report = self._engine.report()
        error = self._engine.error
        if error is not None:
            error.report = report  # type: ignore[attr-defined]  # every exception has room for it
            raise error
        return report

    def __repr__(self) -> str:
        engine = self._engine
        state = "running" if self.running else "failed" if engine.error else "done"
        return f"<Job {state}, {engine.progress(peek=True)} → {engine.channel.url}>"

    # --- in a notebook

    def _repr_html_(self) -> str:
        state = "running" if self.running else "ended"
        points = self._engine.meter.history
        plot = _sparkline(points) if len(points) > 1 else ""
        figures = html.escape(str(self._engine.progress(peek=True)))
        where = html.escape(self._engine.channel.url)
        error = self._engine.error
        wrong = "" if error is None else f"<br><b>{html.escape(str(error))}</b>"
        return f"<div><b>{state}</b> → {where}<br>{figures}{wrong}<br>{plot}</div>"

    def _ipython_display_(self) -> None:
        show = import_module("IPython.display")
        first = self._display is None
        self._display = show.display(show.HTML(self._repr_html_()), display_id=True)
        if first and self.running:
            threading.Thread(target=self._refresh, name="simlink-display", daemon=True).start()

    def _refresh(self) -> None:
        show = import_module("IPython.display")
        over = False
        while not over:
            over = self._ended.wait(1.0)
            self._display.update(show.HTML(self._repr_html_()))


def _sparkline(points: list[float], width: int = 240, height: int = 40) -> str:
    """The rate over the run, as SVG."""
    top = max(points) or 1.0
    step = width / (len(points) - 1)
    path = " ".join(f"{i * step:.1f},{height - p / top * (height - 2) - 1:.1f}" for i, p in enumerate(points))
    return (
        f"<svg width='{width}' height='{height}' role='img' aria-label='rate'>"
        f"<polyline points='{path}' fill='none' stroke='currentColor'/></svg> {top:,.0f}/s at most"
    )


_jobs: weakref.WeakSet[Job] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    running = [job for job in _jobs if job.running]
    for job in running:
        job._engine.stop()
    for job in running:
        job._ended.wait(_AT_EXIT)
