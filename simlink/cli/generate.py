"""``simlink generate SPEC``: records into a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import click

from simlink.cli.output import say
from simlink.cli.spec import load_spec, with_faults


@click.command(help="Write records of SPEC to a file.")
@click.argument("spec")
@click.option("--count", type=click.IntRange(min=0), required=True, help="How many.")
@click.option("--out", required=True, metavar="FILE|-", help="Where to; - is standard output.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["ndjson", "csv", "parquet", "arrow"]),
    help="By default what the file's suffix says, else ndjson.",
)
@click.option("--seed", type=click.IntRange(min=0), help="What to draw them from; a random one by default, printed.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that make them.")
@click.option("--faults", metavar="EXPR", help="Faults on purpose, as 'drop(0.001), late(0.01, by=30)'.")
@click.option("--labels", metavar="FILE", help="Where to say what these did to which record, as lines of JSON.")
def command(
    spec: str,
    count: int,
    out: str,
    kind: str | None,
    seed: int | None,
    workers: int,
    faults: str | None,
    labels: str | None,
) -> None:
    """Write them, block by block."""
    from simlink.generators.output.files import write_records
    from simlink.generators.source import as_source

    source = as_source(with_faults(load_spec(spec, seed), faults))
    with _progress() as progress:
        rows = write_records(source, out, count, kind, workers, progress, labels)
    say(f"{rows:,} records of {source.name}{'' if source.seed is None else f', seed {source.seed}'} → {out}")


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], object] | None]:
    """A bar on standard error, where people look at it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("records"), TimeRemainingColumn())
    # Without a thread of its own, so that workers can be forked.
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=None)
        shown = 0.0

        def told(rows: int, total: int | None) -> None:
            nonlocal shown
            bar.update(task, completed=rows, total=total)
            if time.monotonic() - shown >= 0.1:
                with suppress(OSError):  # the terminal may have gone
                    bar.refresh()
                shown = time.monotonic()

        yield told
