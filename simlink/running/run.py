"""`run` and `start`: send a source to a channel."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from simlink.channels.channel import Channel, queue, topic
from simlink.channels.sending import _checked_headers
from simlink.errors import ConfigError, did_you_mean
from simlink.generators.arrivals.clock import constant
from simlink.generators.arrivals.schedule import Arrivals, check_speed
from simlink.generators.fields.times import to_microseconds
from simlink.generators.seeding import random_seed
from simlink.generators.source import Source, as_source
from simlink.message import Key
from simlink.running.engine import Engine
from simlink.running.job import Job
from simlink.running.pacing import Due
from simlink.running.progress import Progress, chosen
from simlink.running.report import Report
from simlink.running.signals import Interrupted, interruptible

if TYPE_CHECKING:
    from simlink.serializers.serializer import Serializer

__all__ = ["check_options", "is_endless", "prepare", "run", "schedule_of", "since_of", "start"]

Instant: TypeAlias = "dt.datetime | str | float"
_POLICIES = ("lag", "block", "drop")


def run(
    source: Any,
    channel: Channel | str,
    *,
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
    workers: int = 1,
) -> Report:
    """Send the records of a source, and return when what became of each is known.

    As fast as the channel takes them, unless ``rate``, ``arrivals`` or ``speed`` sets a pace: then every record goes
    out at its own time on a schedule that is never moved to hide a delay, and latencies count from that time. The run
    is a producer of its own; the sequence of a message is its row in the source, by which `verify` finds it.

    Ctrl-C or SIGTERM, in the main thread: no more records are made, what is out is waited for, and `KeyboardInterrupt`
    is raised with the ``report``. A second one does not wait. Any other error has the ``report`` too.

    Args:
        source: a generator, a replay, a list, an iterator, or a function that returns one.
        channel: a channel, or the URL of a queue, which is then opened and closed (brokerless: once everything is
            settled, or after the channel's ``close_timeout``).
        count: this many records at most; needed, or ``duration``, where the source has no end.
        duration: seconds. Paced: the records that are due within them. A source that ends, or ``count``, ends the run
            before.
        rate: records a second, evenly; fractions are fine.
        arrivals: another schedule, as `simlink.arrivals.poisson`; one without a seed gets the source's.
        speed: a replay with its recorded gaps, this many times as fast; with ``arrivals``, the whole schedule plays so
            many times as fast, its days and weeks too.
        since: with a pace: the instant at which the schedule began (or will begin): a datetime, ISO 8601 text, or
            seconds since 1970. What was due before now goes out at full speed, and counts as due when it does; then
            the run is live. ``duration`` counts from now.
        key: the field that is the key, or a function of the value.
        headers: text → text without CR, LF or NUL, of every message.
        on_overload: when the run is behind its schedule: "lag" keeps the schedule, and reports the lag; "block" moves
            it by the time that the channel had no room; "drop" skips what is more than 0.1 s late, and counts it (a
            dropped record counts towards ``count``).
        progress: True shows a bar in a terminal or a notebook, and elsewhere a line on stderr every two seconds; a
            function gets a `Progress` about ten times a second.
        timeout: seconds to wait for a peer, then for room in the channel, and at the end for the receipts; None waits
            for ever. What has no receipt then is reported as unknown.
        topic: ``channel`` is the URL of a topic.
        serializer: of the channel that the URL opens; `Json` by default.
        workers: processes that send a part each, for a generator and the URL of a channel that leaves the process. They
            are spawned: a script needs ``if __name__ == "__main__":``. The bytes are the same for any number.

    Raises:
        ConfigError: options that contradict each other or that the source cannot honour; nothing says where an endless
            source ends; workers for what cannot be divided, or for a channel instead of a URL.
        ConnectTimeout: nobody was there in time. SendTimeout: the channel had no room in time.
        EncodeError: a record that cannot be written; those before it were sent. SendError, ChannelClosed, ForkError.
        Interrupted: a KeyboardInterrupt, see above.
    """
    check_options(count, duration, rate, on_overload)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ConfigError(f"workers is a number from 1 up, not {workers!r}")
    if workers > 1:
        if not isinstance(channel, str):
            raise ConfigError("workers open the channel themselves: give its URL")
        from simlink.running.workers import run_workers

        return run_workers(
            source,
            channel,
            workers=workers,
            count=count,
            duration=duration,
            rate=rate,
            arrivals=arrivals,
            speed=speed,
            since=since,
            key=key,
            headers=headers,
            on_overload=on_overload,
            progress=progress,
            timeout=timeout,
            topic=topic,
            serializer=serializer,
        )
    origin = as_source(source)
    schedule = schedule_of(origin, rate, arrivals, speed)
    engine = prepare(
        origin,
        channel,
        count=count,
        duration=duration,
        due=schedule,
        asked_rate=rate,
        since=since_of(since, schedule),
        key=key,
        headers=headers,
        on_overload=on_overload,
        progress=progress,
        timeout=timeout,
        topic=topic,
        serializer=serializer,
    )
    if is_endless(origin) and count is None and duration is None:
        engine.discard()
        raise ConfigError(
            f"{engine.source.name} has no end: give count= or duration=, or use start(), which can be stopped"
        )
    number: int | None = None

    def told(which: int) -> None:
        nonlocal number
        number = which
        engine.on_signal()

    try:
        with interruptible(told):
            engine.execute()
    except Interrupted as error:
        # The second signal, wherever it struck.
        error.report = engine.report()
        raise
    report = engine.report()
    if engine.error is not None:
        engine.error.report = report  # type: ignore[attr-defined]  # every exception has room for it
        raise engine.error
    if number is not None:
        raise Interrupted(number, report)
    return report


def start(
    source: Any,
    channel: Channel | str,
    *,
    count: int | None = None,
    duration: float | None = None,
    rate: float | None = None,
    arrivals: Arrivals | None = None,
    speed: float | None = None,
    since: Instant | None = None,
    key: str | Callable[[Any], Key | None] | None = None,
    headers: Mapping[str, str] | None = None,
    on_overload: str = "lag",
    progress: bool | Callable[[Progress], object] = False,
    timeout: float | None = 30.0,
    topic: bool = False,
    serializer: Serializer | None = None,
) -> Job:
    """As `run`, in a thread of its own: returns at once. An endless source needs no end here; `Job.stop` ends it.
    Several processes are started by ``run(workers=…)`` only, whose report is there when all have ended.

    Raises:
        ConfigError and its kind, at once. What goes wrong later is raised by `Job.stop` and `Job.wait`.
    """
    check_options(count, duration, rate, on_overload)
    origin = as_source(source)
    schedule = schedule_of(origin, rate, arrivals, speed)
    engine = prepare(
        origin,
        channel,
        count=count,
        duration=duration,
        due=schedule,
        asked_rate=rate,
        since=since_of(since, schedule),
        key=key,
        headers=headers,
        on_overload=on_overload,
        progress=progress,
        timeout=timeout,
        topic=topic,
        serializer=serializer,
    )
    return Job(engine)


def prepare(
    source: Any,
    channel: Channel | str,
    *,
    count: int | None,
    duration: float | None,
    due: Due | None,
    asked_rate: float | None,
    since: float | None = None,
    key: str | Callable[[Any], Key | None] | None,
    headers: Mapping[str, str] | None,
    on_overload: str,
    progress: bool | Callable[[Progress], object],
    timeout: float | None,
    topic: bool,
    serializer: Serializer | None,
) -> Engine:
    """Open the channel, and give the engine, not started; the options are checked before.

    Raises:
        ConfigError and its kind.
    """
    show = chosen(progress)
    origin = as_source(source)
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0):
        raise ConfigError(f"timeout is a number of seconds, or None to wait for ever, not {timeout!r}")
    if due is None and on_overload != "lag":
        raise ConfigError(f"on_overload={on_overload!r} is about a pace: give rate=, arrivals= or speed=")
    checked = _checked_headers(headers)
    if isinstance(channel, Channel):
        if topic or serializer is not None:
            raise ConfigError("topic= and serializer= go with a URL; a channel has its own")
        opened, own = channel, False
    elif isinstance(channel, str):
        opened, own = (_topic if topic else queue)(channel, serializer=serializer), True
    else:
        raise ConfigError(f"send to a channel or a URL, not {channel!r}")
    return Engine(
        origin,
        opened,
        count=count,
        duration=None if duration is None else float(duration),
        arrivals=due,
        asked_rate=asked_rate,
        since=since,
        key=key,
        headers=checked,
        on_overload=on_overload,
        timeout=timeout,
        close=own,
        show=show,
    )


def is_endless(source: Source) -> bool:
    """Whether it surely has no end. How long a file or an iterator is may be unknown, but it has one."""
    return source.endless


def check_options(count: int | None, duration: float | None, rate: float | None, on_overload: str) -> None:
    """Raises ConfigError for a value that makes no sense."""
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
        raise ConfigError(f"count is a number of records from 0 up, not {count!r}")
    for name, value in (("duration", duration), ("rate", rate)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf
        ):
            raise ConfigError(f"{name} is a finite number above 0, not {value!r}")
    if on_overload not in _POLICIES:
        raise ConfigError(f"on_overload is one of {', '.join(_POLICIES)}, not {on_overload!r}{_hint(on_overload)}")


_topic = topic


def _hint(word: object) -> str:
    return did_you_mean(str(word), _POLICIES)


def schedule_of(source: Source, rate: float | None, arrivals: Arrivals | None, speed: float | None) -> Arrivals | None:
    """The one schedule that is asked for, or None.

    Raises:
        ConfigError: more than one, or one that the source has not.
    """
    given = [name for name, value in (("rate", rate), ("arrivals", arrivals), ("speed", speed)) if value is not None]
    if arrivals is not None and speed is not None and rate is None:
        whole = schedule_of(source, None, arrivals, None)
        assert whole is not None
        return whole.faster(check_speed(speed))
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are two paces: give one of them")
    if rate is not None:
        return constant(rate)
    if speed is not None:
        recorded = source.arrivals_of(speed)
        if recorded is None:
            raise ConfigError(
                f"speed= plays a recording with its own gaps; {source.name} has none: give rate= or arrivals="
            )
        return recorded
    if arrivals is not None:
        if not isinstance(arrivals, Arrivals):
            raise ConfigError(f"arrivals is a schedule such as simlink.arrivals.poisson(5_000), not {arrivals!r}")
        return arrivals.seeded(random_seed() if source.seed is None else source.seed)
    return None


def since_of(since: Instant | None, schedule: Arrivals | None) -> float | None:
    """The instant in seconds since 1970.

    Raises:
        ConfigError: it is none, or there is no schedule that could begin then.
    """
    if since is None:
        return None
    if schedule is None:
        raise ConfigError("since= is where a schedule begins: give rate=, arrivals= or speed=")
    return to_microseconds(since) / 1e6
