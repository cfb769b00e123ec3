"""``simlink send SPEC --to URL``."""

from __future__ import annotations

from typing import Any

import click

from simlink.cli.output import emit, say
from simlink.cli.spec import load_spec, record_of, with_faults


@click.command(help="Send the records of SPEC to a queue (or a topic), and report what became of each.")
@click.argument("spec")
@click.option("--to", "url", required=True, metavar="URL", help="Where to, as tcp://host:7001/orders.")
@click.option("--topic", is_flag=True, help="The URL is a topic's.")
@click.option("--count", type=click.IntRange(min=0), help="Send so many records.")
@click.option("--duration", type=float, metavar="S", help="Send for so many seconds.")
@click.option("--rate", type=float, metavar="R", help="Records a second, evenly. Without a pace: as fast as possible.")
@click.option("--arrivals", metavar="EXPR", help="Another pace, as 'poisson(5000)'.")
@click.option("--speed", type=float, metavar="X", help="A file's recorded pace, or --arrivals, so many times as fast.")
@click.option("--since", metavar="TIME", help="The pace began then (ISO 8601): what is past goes out at full speed.")
@click.option("--faults", metavar="EXPR", help="Faults on purpose, as 'drop(0.001), late(0.01, by=30)'.")
@click.option("--key", metavar="FIELD", help="The field that is the key.")
@click.option("--seed", type=click.IntRange(min=0), help="What to draw from; a random one by default, reported.")
@click.option(
    "--serializer", default="json", show_default=True, metavar="json|protobuf|text", help="How to write them."
)
@click.option(
    "--on-error",
    type=click.Choice(["skip", "stop"]),
    default="stop",
    show_default=True,
    help="At a line of a file that does not parse.",
)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that send.")
@click.option(
    "--timeout", type=float, default=30.0, show_default=True, metavar="S", help="Wait for a peer or for room."
)
@click.option("--watch", is_flag=True, help="Show latency, lag and each endpoint, all the time.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object on stdout.")
def command(
    spec: str,
    url: str,
    topic: bool,
    count: int | None,
    duration: float | None,
    rate: float | None,
    arrivals: str | None,
    speed: float | None,
    since: str | None,
    faults: str | None,
    key: str | None,
    seed: int | None,
    serializer: str,
    on_error: str,
    workers: int,
    timeout: float,
    watch: bool,
    as_json: bool,
) -> int:
    """Send, report, and say by the exit status how it went."""
    from simlink.generators.source import as_source
    from simlink.running.run import is_endless
    from simlink.running.signals import Interrupted

    source = as_source(with_faults(load_spec(spec, seed, on_error=on_error), faults))
    if count is None and duration is None and is_endless(source):
        raise click.UsageError(f"{spec} has no end: give --count or --duration")
    options: dict[str, Any] = {
        "count": count,
        "duration": duration,
        "rate": rate,
        "speed": speed,
        "since": since,
        "key": key,
        "timeout": timeout,
        "topic": topic,
    }
    interrupted = False
    try:
        report = _run(source, url, serializer, arrivals, workers, options, watch=watch)
    except Interrupted as error:
        if error.report is None:
            raise
        report, interrupted = error.report, True
    except Exception as error:
        # What was done before it went wrong is reported all the same; the error itself is one line on stderr.
        partial = getattr(error, "report", None)
        if partial is not None:
            if partial.sent:
                say(partial)
            if as_json:
                emit(partial.as_dict())
                error.reported = True  # type: ignore[attr-defined]
        raise
    say(report)
    if as_json:
        emit(report.as_dict())
    if interrupted:
        return 130
    return 0 if report.ok and not report.unsettled else 1


def _run(
    source: Any, url: str, serializer: str, arrivals: str | None, workers: int, options: dict[str, Any], *, watch: bool
) -> Any:
    from simlink.cli.expression import parse_arrivals
    from simlink.running.progress import chosen, watching
    from simlink.running.run import run
    from simlink.serializers.lookup import serializer_for

    schedule = None if arrivals is None else parse_arrivals(arrivals)
    writer = serializer_for(serializer, record_of(source))
    show: Any = watching() if watch else chosen(True)
    if workers > 1:
        from simlink.running.workers import run_workers

        return run_workers(source, url, workers=workers, arrivals=schedule, serializer=writer, progress=show, **options)
    return run(source, url, arrivals=schedule, serializer=writer, progress=show, **options)
