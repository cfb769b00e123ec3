"""A run in several processes: worker i of n sends the blocks k ≡ i (mod n), as a producer of its own."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from simlink.channels.channel import queue, topic
from simlink.errors import ConfigError, MissingExtra, SendError, SimlinkError
from simlink.generators.output.processes import UNGUARDED, begin
from simlink.generators.source import as_source
from simlink.ledger.latency import Latencies
from simlink.running.pacing import MOST_BEHIND, Striped, held
from simlink.running.progress import Meter, Progress, Show, Table, Watch, chosen
from simlink.running.report import Report
from simlink.running.run import Instant, check_options, is_endless, prepare, schedule_of, since_of
from simlink.running.signals import Interrupted, interruptible

if TYPE_CHECKING:
    from simlink.generators.arrivals.schedule import Arrivals
    from simlink.generators.source import Source
    from simlink.message import Key
    from simlink.serializers.serializer import Serializer

__all__ = ["run_workers"]

_READY = 60.0
_REPORT = 0.9
"""Seconds between two reports of a worker, where they are shown while it runs."""
_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})
_SUMS = (
    *(
        "sent",
        "confirmed",
        "failed",
        "unknown",
        "settled",
        "rejected",
        "unsettled",
        "resent",
        "dropped",
        "behind",
        "backfilled",
    ),
    *("bytes", "stall_seconds", "bad_lines"),
)


def run_workers(
    source: Any,
    url: str,
    *,
    workers: int,
    count: int | None = None,
    duration: float | None = None,
    rate: float | None = None,
    arrivals: Arrivals | None = None,
    speed: float | None = None,
    since: Instant | None = None,
    key: str | Callable[[Any], Key | None] | None = None,
    headers: Mapping[str, str] | None = None,
    on_overload: str = "lag",
    progress: bool | Callable[[Progress], object] = True,
    timeout: float | None = 30.0,
    topic: bool = False,
    serializer: Serializer | None = None,
) -> Report:
    """As `run` to a URL, in ``workers`` processes. They begin together; a schedule is dealt out to them arrival by
    arrival, among those that have records left. Only a generator can be divided. The report is that of all: its counts
    are sums, its percentiles are over the messages of all.

    Raises:
        ConfigError: also where the source cannot be divided or handed to another process, or the transport does not
            leave the process. SendError: a worker failed; the others went on. Otherwise as `run`.
    """
    check_options(count, duration, rate, on_overload)
    show = chosen(progress)
    whole = as_source(source)
    if count is None and duration is None and is_endless(whole):
        raise ConfigError(f"{whole.name} has no end: give count= or duration=")
    schedule = schedule_of(whole, rate, arrivals, speed)
    total = whole.length if count is None else count if whole.length is None else min(count, whole.length)
    part = whole if count is None else whole.take(count)
    masked = _check_transport(url, topic=topic)
    begun = since_of(since, schedule)
    options = {
        "duration": duration,
        "key": key,
        "headers": headers,
        "on_overload": on_overload,
        "timeout": timeout,
        "topic": topic,
        "serializer": serializer,
        "asked_rate": None,
        "since": begun,
    }
    shares = None
    if schedule is not None:
        ahead = 0.0 if begun is None else max(0.0, time.time() - begun)
        shares = part.shares(workers, None if duration is None else _due_within(schedule, ahead + duration))
    blank = Report(**_NOTHING, source=whole.name, url=masked, seed=whole.seed, asked_rate=rate, workers=workers)
    team = _Team(workers, blank, paced=schedule is not None)
    # What is shown while it runs has its percentiles, where somebody looks at them.
    options["reports"] = isinstance(show, Watch | Table)
    with ExitStack() as stack:
        stack.callback(team.close)
        stack.enter_context(interruptible(team.interrupt))
        for i in range(workers):
            due = None if schedule is None else Striped(schedule, i, workers, shares)
            team.start(i, part.shard(i, workers), url, due, options)
        team.follow(show, total, duration)
    error: SimlinkError | None = None
    if team.errors:
        config, message = team.errors[0]
        error = ConfigError(message) if config else SendError(message, url=masked)
        if not team.reported:
            raise error
    report = team.report()
    if error is not None:
        error.report = report  # type: ignore[attr-defined]  # every exception has room for it
        raise error
    if team.signal is not None:
        raise Interrupted(team.signal, report)
    return report


_COUNTS = ("sent", "confirmed", "failed", "unknown", "dropped")
_Told = tuple[Report, int, tuple[float, float] | None, Latencies, Latencies]
_NOTHING: dict[str, Any] = {
    **dict.fromkeys(_SUMS, 0),
    "producer": (),
    "seconds": 0.0,
    "rate": 0.0,
    "stall_seconds": 0.0,
    "valid": True,
    "send_lag_ms": None,
    "latency_ms": None,
    "negative_gaps": 0,
}
"""The report of a run that has not begun."""


def _due_within(schedule: Arrivals, seconds: float) -> int:
    """At least as many as are due within them."""
    count = 1
    while count < MOST_BEHIND and len(due := schedule.due(count, count + 1)) and float(due[0]) <= seconds:
        count *= 2
    return count


def _endpoints(reports: Sequence[Report]) -> dict[str, dict[str, Any]] | None:
    """The counts of all workers' channels; the states are as the first sees them."""
    out: dict[str, dict[str, Any]] = {}
    for report in reports:
        for name, counts in (report.endpoints or {}).items():
            known = out.setdefault(name, {**counts, "sent": 0, "in_flight": 0, "moved": 0})
            for which in ("sent", "in_flight", "moved"):
                known[which] += counts[which]
    return out or None


def _check_transport(url: str, *, topic: bool) -> str:
    with (_topic if topic else queue)(url) as channel:
        if not channel.capabilities.cross_process:
            raise ConfigError(f"{channel.url} stays in one process: it cannot have workers")
        return channel.url


_topic = topic


class _Team:
    """The processes, and what they say."""

    def __init__(self, workers: int, blank: Report, *, paced: bool) -> None:
        self._blank = blank
        self._paced = paced
        self._context = multiprocessing.get_context("spawn")
        self._barrier = self._context.Barrier(workers)
        self._processes: list[Any] = []
        self._pipes: dict[Connection, int] = {}
        self._heard: set[int] = set()
        self._counts: dict[int, tuple[int, int, int, int, int]] = {}
        self._told: dict[int, _Told] = {}
        self._ended: set[int] = set()
        self.errors: list[tuple[bool, str]] = []
        self.signal: int | None = None

    def start(self, i: int, source: Source, url: str, due: Striped | None, options: dict[str, Any]) -> None:
        """Start worker ``i``.

        Raises:
            ConfigError: the source cannot be handed to another process.
        """
        ours, theirs = self._context.Pipe(duplex=False)
        self._pipes[ours] = i
        # A worker inherits what is blocked, and hears of a signal once it can obey: see `_work`.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            handles, more = (theirs, self._barrier), (source, url, due, options)
            process = begin(self._context, _work, handles, more, name=f"simlink-worker-{i}")
            self._processes.append(process)
        except TypeError as error:
            raise ConfigError(f"{source.name} cannot be handed to a worker process: {error}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()
        if self.signal is not None:
            process.terminate()

    def interrupt(self, number: int) -> None:
        """Tell all to stop and drain."""
        self.signal = number
        for process in self._processes:
            process.terminate()

    def follow(self, show: Show | None, total: int | None, limit: float | None) -> None:
        """Read what they say until all have ended."""
        meter = Meter()
        started = time.monotonic()
        told = 0.0
        while self._pipes:
            for ready in wait(list(self._pipes), timeout=0.1):
                assert isinstance(ready, Connection)
                self._hear(ready)
            now = time.monotonic()
            over = not self._pipes
            if show is not None and (over or now - told >= 0.1):
                told = now
                sums = [sum(column) for column in zip(*self._counts.values(), strict=True)] or [0] * 5
                sent, confirmed, failed, unknown, dropped = sums
                show(
                    Progress(
                        source=self._blank.source,
                        url=self._blank.url,
                        sent=sent,
                        confirmed=confirmed,
                        failed=failed,
                        unknown=unknown,
                        dropped=dropped,
                        total=total,
                        seconds=now - started,
                        limit=limit,
                        rate=meter.add(now, sent),
                        report=self.report,
                        done=over,
                    )
                )

    def _hear(self, pipe: Connection) -> None:
        i = self._pipes[pipe]
        try:
            what, value = pipe.recv()
        except (EOFError, OSError):
            del self._pipes[pipe]
            pipe.close()
            self._processes[i].join()
            status = self._processes[i].exitcode
            if status:
                self._barrier.abort()
                hint = UNGUARDED if i not in self._heard else ""
                self.errors.append((False, f"worker {i} ended with status {status}{hint}"))
            return
        self._heard.add(i)
        if what == "counts":
            self._counts[i] = value
        elif what in ("so far", "final"):
            report = value[0]
            self._counts[i] = (report.sent, report.confirmed, report.failed, report.unknown, report.dropped)
            self._told[i] = value
            if what == "final":
                self._ended.add(i)
        else:
            config, message = value
            self.errors.append((config, f"worker {i}: {message}"))

    @property
    def reported(self) -> bool:
        """Whether any of them has come to its end."""
        return bool(self._ended)

    def report(self) -> Report:
        """Of all: of those that have not reported (yet, or never: one was killed) what they have told of last."""
        told = list(self._told.values())
        reports = [known[0] for known in told] or [self._blank]
        lag = Latencies.merged([known[3] for known in told])
        latency = Latencies.merged([known[4] for known in told])
        sums: dict[str, Any] = {name: sum(getattr(r, name) for r in reports) for name in _SUMS}
        for i, counts in self._counts.items():
            # Counts come more often than reports.
            then = self._told[i][0] if i in self._told else self._blank
            sums |= {name: sums[name] + n - getattr(then, name) for name, n in zip(_COUNTS, counts, strict=True)}
        running = bool(self._pipes)
        if not running:
            # At the end, what nobody said anything of may be there or not: a worker that was killed had sent it.
            sums["unknown"] = sums["sent"] - sums["confirmed"] - sums["failed"]
        # On one machine the monotonic clock is the same for all.
        spans = [known[2] for known in told if known[2] is not None]
        span = max(last for _, last in spans) - min(first for first, _ in spans) if spans else 0.0
        sent = sum(r.sent for r in reports)
        seconds = max(r.seconds for r in reports)
        rate = (sent - 1) / span if self._paced and sent > 1 and span > 0 else sent / seconds if seconds else 0.0
        own = next((r.error for r in reports if r.error is not None), None)
        return replace(
            reports[0],
            **sums,
            producer=tuple(str(r.producer) for r in reports) if told else (),
            seconds=seconds,
            rate=round(rate, 3),
            asked_rate=self._blank.asked_rate,
            valid=held(sum(known[1] for known in told), lag.count),
            send_lag_ms=lag.as_ms(),
            latency_ms=latency.as_ms(),
            negative_gaps=max(r.negative_gaps for r in reports),
            endpoints=_endpoints(reports),
            interrupted=any(r.interrupted for r in reports),
            running=running,
            error=self.errors[0][1] if self.errors else own,
            workers=len(self._processes),
        )

    def close(self) -> None:
        """End whoever is left."""
        for process in self._processes:
            if process.is_alive():
                process.terminate()
        for process in self._processes:
            process.join(5.0)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        for pipe in list(self._pipes):
            pipe.close()


def _work(
    pipe: Connection, barrier: Any, source: Source, url: str, due: Striped | None, options: dict[str, Any]
) -> None:
    """What a worker does."""
    # Ctrl-C reaches the whole process group; the parent alone decides, and tells with SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    reported = 0.0

    def tell(progress: Progress) -> None:
        nonlocal reported
        counts = (progress.sent, progress.confirmed, progress.failed, progress.unknown, progress.dropped)
        pipe.send(("counts", counts))
        if reports and progress.seconds - reported >= _REPORT:
            reported = progress.seconds
            pipe.send(("so far", so_far()))

    def so_far() -> _Told:
        return engine.report(), engine.own_late, engine.span(), *engine.latencies()

    with pipe, suppress(BrokenPipeError):
        try:
            reports = options.pop("reports")
            engine = prepare(source, url, count=None, due=due, progress=tell, **options)
        except SimlinkError as error:
            barrier.abort()
            pipe.send(("error", (isinstance(error, ConfigError | MissingExtra), str(error))))
            return
        engine.before_start = lambda: _together(barrier)
        with interruptible(lambda _: engine.on_signal()):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            engine.execute()
        if engine.error is not None:
            barrier.abort()
            config = isinstance(engine.error, ConfigError | MissingExtra)
            if not isinstance(engine.error, threading.BrokenBarrierError):
                pipe.send(("error", (config, str(engine.error) or type(engine.error).__name__)))
        pipe.send(("final", so_far()))


def _together(barrier: Any) -> None:
    barrier.wait(_READY)
