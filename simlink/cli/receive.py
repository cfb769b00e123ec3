"""``simlink receive URL``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from simlink.cli.output import emit, say
from simlink.cli.spec import load_spec, record_of, with_faults
from simlink.errors import ConfigError, DecodeError
from simlink.message import Batch

if TYPE_CHECKING:
    from simlink.channels.receiver import Receiver
    from simlink.generators.invariant import Invariant
    from simlink.ledger import Ledger
    from simlink.verification import Verifier

_BATCH = 4096


@click.command(help="Receive from a queue (or a topic) until --count, --idle or Ctrl-C, and report what came.")
@click.argument("url")
@click.option("--topic", is_flag=True, help="The URL is a topic's.")
@click.option("--subscription", metavar="NAME", help="Share and remember this subscription of the topic.")
@click.option("--start", metavar="earliest|new", help="Where reading starts, where the transport can replay.")
@click.option("--serializer", default="json", show_default=True, metavar="json|protobuf|text", help="How to read them.")
@click.option("--count", type=click.IntRange(min=0), help="End after so many; with --verify: so many were sent.")
@click.option("--idle", type=float, metavar="S", help="End after so many quiet seconds.")
@click.option("--verify", "spec", metavar="SPEC", help="Compare with these records, made again.")
@click.option("--seed", type=click.IntRange(min=0), help="What those were drawn from.")
@click.option("--on", metavar="FIELD", help="Tell by this field which record one is: for senders that are not simlink.")
@click.option("--invariants", is_flag=True, help="Check what holds over all those records together, too.")
@click.option("--faults", metavar="EXPR", help="The faults they were sent with.")
@click.option("--out", metavar="FILE|-", help="Append each record as a line of NDJSON, before it is acknowledged.")
@click.option("--dead-letter", metavar="URL", help="Where messages go that cannot be read.")
@click.option("--max-attempts", type=click.IntRange(min=1), help="And those that were handed out so often already.")
@click.option("--timeout", type=float, default=30.0, show_default=True, metavar="S", help="Wait for the broker.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object on stdout.")
def command(
    url: str,
    topic: bool,
    subscription: str | None,
    start: str | None,
    serializer: str,
    count: int | None,
    idle: float | None,
    spec: str | None,
    seed: int | None,
    on: str | None,
    invariants: bool,
    faults: str | None,
    out: str | None,
    dead_letter: str | None,
    max_attempts: int | None,
    timeout: float,
    as_json: bool,
) -> int:
    """Receive, report, and say by the exit status how it went."""
    from simlink.channels import channel as channels
    from simlink.generators.source import as_source
    from simlink.running.signals import Interrupted, interruptible
    from simlink.serializers.lookup import serializer_for
    from simlink.verification import Verifier

    if start not in (None, "earliest", "new"):
        raise ConfigError(f"--start is earliest or new, not {start!r}")
    if not timeout >= 0:
        raise ConfigError(f"--timeout is a number of seconds, not {timeout:g}")
    if idle is not None and not idle > 0:
        raise ConfigError(f"--idle is a number of seconds above 0, not {idle:g}")
    if spec is None:
        given = {"seed": seed, "on": on, "faults": faults, "invariants": invariants or None}
        for option in (name for name, value in given.items() if value is not None):
            raise ConfigError(f"--{option} goes with --verify SPEC")
    source = None if spec is None else with_faults(load_spec(spec, seed, again=True), faults)
    if count is None and source is not None and as_source(source).endless:
        raise ConfigError(f"--verify: {spec} has no end: say with --count how many of its records were sent")
    reader = serializer_for(serializer, record_of(source))
    opened = (channels.topic if topic else channels.queue)(url, serializer=reader)
    stopped = joined = False
    with ExitStack() as stack:
        sink = None if out is None else stack.enter_context(_sink(out, reader))
        stack.enter_context(opened)
        receiver = opened.receiver(
            subscription, start=start, idle=idle, dead_letter=dead_letter, max_attempts=max_attempts
        )
        held = _invariants(source) if invariants else ()
        verifier = None if source is None else Verifier(receiver, source, count=count, on=on, invariants=held)

        def stop(number: int) -> None:
            nonlocal stopped
            if not joined:
                # That may take all of --timeout, and there is nothing yet to drain or to report.
                raise Interrupted(number)
            stopped = True
            receiver.stop()

        with interruptible(stop):
            receiver.open(timeout)
            joined = True
            stack.enter_context(receiver)
            say(f"ready {receiver.url}")
            books = _Books(receiver, verifier)
            for batch in _batches(receiver, verifier, count):
                books.add(batch)
                if dead_letter is not None:
                    _ = batch.outcomes  # what cannot be read is known only once it was tried
                if sink is not None:
                    sink.write(batch)
            books.look()
    report = books.report(seed)
    say(_text(report))
    if as_json:
        emit(report)
    if stopped:
        return 130
    return 0 if report["ok"] else 1


def _invariants(source: Any) -> Sequence[Invariant]:
    """Those of a generator that has some."""
    from simlink.generators.faults.faulty import FaultySource
    from simlink.generators.generator import Generator

    if isinstance(source, FaultySource):
        raise ConfigError("--invariants do not hold where --faults break them on purpose: leave one of them out")
    found = source.invariants() if isinstance(source, Generator) else ()
    if not found:
        raise ConfigError(f"--invariants: {getattr(source, 'name', 'SPEC')} has none; of the catalog, orders has")
    return found


def _batches(receiver: Receiver, verifier: Verifier | None, count: int | None) -> Iterator[Batch]:
    """What comes, until enough has come. A batch is acknowledged when the next one is asked for."""
    if verifier is not None:
        if not verifier.complete:
            for batch in receiver.batches():
                yield batch
                if verifier.complete:
                    return
        return
    left = count
    if left is None or left >= 2 * _BATCH:
        for batch in receiver.batches():
            yield batch
            if left is not None:
                left -= len(batch)
                # The last ones are read one by one: nobody may take more than was asked for.
                if left < _BATCH:
                    break
        else:
            return
    if left:
        for delivery in receiver:
            yield delivery._hand.batch[delivery._row : delivery._row + 1]
            left -= 1
            if not left:
                return


class _Books:
    """The accounts, with or without something to compare with."""

    def __init__(self, receiver: Receiver, verifier: Verifier | None) -> None:
        from simlink.ledger import Ledger

        self._receiver = receiver
        # With the port that was really bound, which nobody knows any more once it is closed.
        self._url = receiver.url
        self._verifier = verifier
        # Order is only told where something is verified.
        self._ledger: Ledger = Ledger(order=False) if verifier is None else verifier.ledger
        self._first = self._last = 0.0
        self._bytes = 0
        self._cut_off: int | None = None

    def look(self) -> None:
        """Note what only an open receiver can tell: how many peers a listener had to send away."""
        driver = self._receiver.stats()["driver"]
        if "refused" in driver:
            self._cut_off = driver["refused"] + driver.get("slow", 0)  # a server may have no such peers

    def add(self, batch: Batch) -> None:
        self._last = time.monotonic()
        self._first = self._first or self._last
        self._bytes += batch.nbytes
        if self._verifier is not None:
            self._verifier.book(batch)
        else:
            self._ledger.book(batch)

    def report(self, seed: int | None) -> dict[str, Any]:
        ledger = self._ledger
        stats = self._receiver.stats()
        seconds = self._last - self._first
        report: dict[str, Any] = {
            "url": self._url,
            "received": ledger.received,
            # Messages without an identity cannot be told apart.
            "unique": None if ledger.anonymous else ledger.unique,
            "lost": None,
            "duplicated": ledger.duplicated,
            "reordered": None,
            "corrupt": None,
            "redelivered": stats["redelivered"],
            "undecodable": stats["undecodable"],
            # Brokerless: peers that spoke no or bad frames, were silent, or did not belong here.
            "cut_off": self._cut_off,
            "seconds": round(seconds, 6),
            "rate": round(ledger.received / seconds, 3) if seconds > 0 else 0.0,
            "bytes": self._bytes,
            "latency_ms": ledger.latency.as_ms() or {"p50": None, "p90": None, "p99": None, "max": None},
            "seed": seed,
        }
        report["ok"] = not report["undecodable"]
        if "dead_letters" in stats:
            # What cannot be read is put aside, as asked.
            report["dead_letters"] = stats["dead_letters"]["sent"]
            report["ok"] = not stats["dead_letters"]["waiting"]
        if self._verifier is not None:
            found = self._verifier.result().as_dict()
            found["latency_ms"] = report["latency_ms"]
            report |= found
        return report


def _text(report: dict[str, Any]) -> str:
    """The same for people."""
    shown = [f"{name} {value:,}" for name, value in report.items() if isinstance(value, int) and name not in _HIDDEN]
    latency = report["latency_ms"]
    if latency["p50"] is not None:
        shown.append(f"latency p50 {latency['p50']:,.2f} ms, p99 {latency['p99']:,.2f} ms")
    lines = [", ".join([*shown, f"{report['rate']:,.0f}/s in {report['seconds']:.3f} s"])]
    if report.get("missing"):
        lines.append(f"lost rows {', '.join(map(str, report['missing']))}{' …' if report['lost'] > 10 else ''}")
    lines += report.get("differences", [])
    lines += report.get("violations", [])
    return "\n".join(lines)


_HIDDEN = {"ok", "seed", "order_kept", "bytes"}


class _Sink:
    """Records as lines, on their way to a file before they are acknowledged."""

    def __init__(self, file: IO[bytes], *, raw: bool) -> None:
        self._file = file
        self._raw = raw

    def write(self, batch: Batch) -> None:
        """Write a batch and flush it. A body that cannot be read has no line; it is said on stderr."""
        import msgspec

        values = batch.outcomes
        bad = [value for value in values if type(value) is DecodeError]
        for error in bad:
            say(f"a message cannot be read: {error}: {error.body[:200]!r}")
        # JSON goes out as it came, unless somebody has laid it out over several lines.
        if self._raw and not bad and not any(b"\n" in body for body in batch.bodies):
            lines = list(batch.bodies)
        else:
            lines = [
                body if self._raw and b"\n" not in body else msgspec.json.encode(value)
                for body, value in zip(batch.bodies, values, strict=True)
                if type(value) is not DecodeError
            ]
        if lines:
            self._file.write(b"\n".join(lines) + b"\n")
        self._file.flush()


@contextmanager
def _sink(out: str, reader: Any) -> Iterator[_Sink]:
    from simlink.serializers.json import Json

    raw = isinstance(reader, Json)
    if out == "-":
        yield _Sink(sys.stdout.buffer, raw=raw)
        return
    try:
        file = Path(out).open("ab")  # noqa: SIM115 – closed below, and by the error that it may be
        _drop_half_a_line(Path(out), file)
    except OSError as error:
        raise ConfigError(f"--out: cannot write {out}: {error.strerror}") from error
    with file:
        yield _Sink(file, raw=raw)


def _drop_half_a_line(path: Path, file: Any) -> None:
    """A receiver that was killed while it wrote had not acknowledged that record: it comes again, and is written whole.
    What stands before it was acknowledged, and exists nowhere else any more: it is kept."""
    if not path.is_file():
        return  # a device or a pipe
    size = path.stat().st_size
    with path.open("rb") as written:
        while size:
            start = max(0, size - 65_536)
            written.seek(start)
            newline = written.read(size - start).rfind(b"\n")
            size = start + newline + 1
            if newline >= 0:
                break
    file.truncate(size)
