"""What a run did."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from simlink.running.sheet import Sheet

__all__ = ["Report"]

_ROWS = (
    ("sent", "sent"),
    ("confirmed", "confirmed"),
    ("settled", "settled"),
    ("unsettled", "unsettled"),
    ("failed", "failed"),
    ("unknown", "unknown"),
    ("rejected", "rejected"),
    ("resent", "sent again"),
    ("dropped", "dropped"),
    ("behind", "due, not sent"),
    ("backfilled", "of the past"),
    ("bad_lines", "bad lines"),
    ("negative_gaps", "negative gaps"),
    ("lost", "lost"),
    ("duplicated", "duplicated"),
    ("reordered", "reordered"),
    ("corrupt", "corrupt"),
)
_ALWAYS = frozenset({"sent", "confirmed", "failed", "unknown"})


@dataclass(frozen=True, kw_only=True)
class Report(Sheet):
    """What a run did; of a job that goes on, what it did so far.

    Attributes:
        source: the name of what was sent.
        url: where it went, passwords masked.
        producer: the run's identity, 32 hexadecimal digits; a list of them, one a worker, where there were several.
        seed: what the records were drawn from; None for records that were not drawn.
        sent: messages that the channel's window took. ``sent = confirmed + failed + unknown``.
        confirmed: stored by the broker; without a broker, accepted by the receiving process.
        failed: surely not there.
        unknown: may be there, or not: a reply was lost, or did not come in time.
        settled, rejected, unsettled: without a broker, what the receiving application said of the confirmed ones so
            far, and how many it has said nothing of.
        resent: messages that were submitted again after an outcome that left it open whether they were there.
        dropped: rows that ``on_overload="drop"`` skipped.
        behind: rows that were due within ``duration`` and were not sent, because the run was too far behind; counted
            up to 2**32.
        backfilled: with ``since`` in the past: messages that went out before the run had caught up.
        seconds: from the first hand-over to the last receipt.
        rate: messages a second: unpaced, ``sent / seconds``; paced, over the gaps from when the first was due to
            when the last went out.
        asked_rate: the rate that was asked for, None where there was none or it is not constant.
        bytes: of bodies and keys.
        valid: False when the run could not hold its own schedule: the 99th percentile of the lag that was its own
            fault (not the channel's, see ``stall_seconds``) is above 50 ms. Then the load was not what was asked for.
        send_lag_ms: paced: from when a message was due until the window had taken it: p50, p90, p99, max.
        latency_ms: from when a message was due (unpaced: was handed over) until it was confirmed, in the same form. A
            small batch that went out at once counts as its slowest message; while the source makes the run wait,
            confirmations are looked for every 5 ms.
        stall_seconds: how long the channel made the run wait for room.
        bad_lines: of a replayed file: lines that did not parse.
        negative_gaps: of a file replayed at its own pace (``speed=``): rows that stepped back in time, and went out at
            once.
        lost, duplicated, reordered, corrupt: None where nothing was verified.
        interrupted: stopped by a signal or by `Job.stop` before its end.
        running: it goes on.
        error: the message of the error that ended it, None where none did.
        workers: how many processes sent. Of one that was killed its last word counts, at most 0.1 s before; what was
            open then is unknown.
        endpoints: of a channel over several, what each was given by it: the name → ``sent``, ``in_flight`` (not
            settled), ``moved`` (taken back, to go elsewhere), ``state`` and ``why``. None for one endpoint.
    """

    source: str
    url: str
    producer: str | tuple[str, ...]
    seed: int | None
    sent: int
    confirmed: int
    failed: int
    unknown: int
    settled: int
    rejected: int
    unsettled: int
    resent: int
    dropped: int
    behind: int
    backfilled: int
    seconds: float
    rate: float
    asked_rate: float | None
    bytes: int
    valid: bool
    send_lag_ms: dict[str, float] | None
    latency_ms: dict[str, float] | None
    stall_seconds: float
    bad_lines: int
    negative_gaps: int
    lost: int | None = None
    duplicated: int | None = None
    reordered: int | None = None
    corrupt: int | None = None
    interrupted: bool = False
    running: bool = False
    error: str | None = None
    workers: int = 1
    endpoints: dict[str, dict[str, Any]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as ``--json`` prints them."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        if isinstance(self.producer, tuple):
            out["producer"] = list(self.producer)
        return out

    @property
    def ok(self) -> bool:
        """Everything that was sent is confirmed, nothing was rejected, and what was verified is whole."""
        counts = (self.failed, self.unknown, self.rejected, self.lost or 0, self.corrupt or 0)
        return not any(counts) and self.error is None

    def _rows(self) -> list[tuple[str, str]]:
        """What there is to tell, as (what, how much)."""
        rows = [
            (label, f"{value:,}")
            for name, label in _ROWS
            if (value := getattr(self, name)) or (value is not None and name in _ALWAYS)
        ]
        asked = "" if self.asked_rate is None else f" of {self.asked_rate:,.6g} asked"
        rows.append(("rate", f"{self.rate:,.1f}/s{asked}, {self.bytes:,} bytes in {self.seconds:.3f} s"))
        for label, times in (("latency", self.latency_ms), ("send lag", self.send_lag_ms)):
            if times is not None:
                rows.append((label, ", ".join(f"{name} {value:,.2f} ms" for name, value in times.items())))
        if self.stall_seconds >= 0.001:
            rows.append(("waited", f"{self.stall_seconds:.3f} s for room in the channel"))
        for name, counts in (self.endpoints or {}).items():
            moved = f", {counts['moved']:,} moved elsewhere" if counts["moved"] else ""
            rows.append((name, f"{counts['sent']:,} sent, {counts['in_flight']:,} in flight{moved}, {counts['state']}"))
        if not self.valid:
            rows.append(("not valid", "this process could not hold the rate"))
        rows.append(("seed", "none" if self.seed is None else str(self.seed)))
        if self.error is not None:
            rows.append(("error", self.error))
        return rows

    def _title(self) -> str:
        state = "running" if self.running else "failed" if self.error else "interrupted" if self.interrupted else "done"
        return f"{self.source} → {self.url}: {state}"
