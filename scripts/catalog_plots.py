"""What the pictures of the catalog's pages show: a function an entry. ``make-catalog-plots`` calls them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import simlink
from simlink import faults
from simlink.generators import catalog
from simlink.generators.catalog import _saga
from simlink.generators.catalog.ijinus import MALFORMED

INK, WARM, GREEN, GREY, RED = "#2a6f97", "#e07a3f", "#5b8c5a", "#9aa5b1", "#b3362b"
COLOURS = (INK, WARM, GREEN, "#8d6cab", "#c2a83e")
SEED = 7
HOUR, DAY = 3600.0, 86400.0


def sheet(title: str, rows: int, columns: int) -> tuple[Figure, Any]:
    """A figure, and its panels as a list. Not pyplot: no state outlives this call."""
    figure = Figure(figsize=(4.8 * columns, 2.9 * rows + 0.3), layout="constrained", dpi=90)
    figure.suptitle(title, fontsize=11)
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, panels


def label(axes: Any, title: str, x: str = "", y: str = "", *, legend: bool = False) -> None:
    """Words around a panel."""
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    if legend:
        axes.legend(fontsize=7, frameon=False)


def ranks(axes: Any, values: Any, name: str, colour: str) -> Any:
    """Frequency by rank, both logarithmic."""
    counts = pd.Series(values).value_counts().to_numpy()
    axes.loglog(np.arange(1, len(counts) + 1), counts, ".", markersize=3, color=colour, label=name)
    return counts


def clickstream() -> Figure:
    """Funnel, think time, rank and frequency, a week."""
    figure, (funnel, think, rank, week) = sheet(f"clickstream · seed {SEED}", 2, 2)
    steps = ["view", "click", "cart", "purchase"]
    for i, conversion in enumerate((0.03, 0.2)):
        made = catalog.clickstream(seed=SEED, rate=5, conversion=conversion).select("session_id", "action")
        seen = made.to_pandas(60_000).drop_duplicates().groupby("action").session_id.nunique()
        shares = [100 * seen[step] / seen["view"] for step in steps]
        bars = funnel.bar(np.arange(4) + 0.4 * i, shares, 0.38, color=COLOURS[i], label=f"conversion={conversion}")
        funnel.bar_label(bars, [f"{share:.1f}" if share < 10 else f"{share:.0f}" for share in shares], fontsize=7)
    funnel.set_xticks(np.arange(4) + 0.2, steps)
    label(funnel, "Sessions with at least one such event", y="% of all sessions", legend=True)

    events = catalog.clickstream(seed=SEED, rate=5).select("session_id", "timestamp").to_pandas(60_000)
    pauses = events.groupby("session_id").timestamp.diff().dropna().to_numpy() / 1000
    logs = np.log10(np.maximum(pauses, 0.01))
    think.hist(logs, bins=60, range=(-1, 3), density=True, color=INK, alpha=0.8, label="made")
    x = np.linspace(-1, 3, 300)
    spread = float(np.std(logs[logs > -1]))
    middle = float(np.median(logs))
    think.plot(x, np.exp(-(((x - middle) / spread) ** 2) / 2) / (spread * math.sqrt(2 * math.pi)), color=WARM,
               label=f"log-normal, median {10**middle:.1f} s")  # fmt: skip
    think.set_xticks([-1, 0, 1, 2, 3], ["0.1", "1", "10", "100", "1000"])
    label(think, "Pauses within a session", "seconds", "density", legend=True)

    many = catalog.clickstream(seed=SEED).select("user_id", "session_id", "product_id", "action").to_pandas(200_000)
    visits = many.drop_duplicates("session_id")
    counts = ranks(rank, visits.user_id, "users, by sessions", INK)
    ranks(rank, many[many.action == "view"].product_id, "products, by views", WARM)
    at = np.array([2, 1000])
    rank.loglog(at, counts[1] * (at / 2.0) ** -1.1, "--", color=GREY, linewidth=1, label="exponent 1.1")
    label(rank, "Rank and frequency", "rank", "how often", legend=True)

    start = pd.Timestamp("2025-01-06", tz="UTC")
    slow = catalog.clickstream(seed=SEED, rate=0.5, start="2025-01-06").select("timestamp").to_pandas(310_000)
    hours = (pd.to_datetime(slow.timestamp, unit="ms", utc=True) - start).dt.total_seconds() / HOUR
    number, edges = np.histogram(hours, bins=168, range=(0, 168))
    week.step(edges[:-1] / 24, number / HOUR, where="post", color=INK, linewidth=1)
    week.axhline(0.5, color=GREY, linestyle="--", linewidth=1)
    week.set_ylim(bottom=0)
    week.set_xticks(np.arange(7) + 0.5, ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"])
    label(week, "A week at rate=0.5, by the hour", y="events a second")
    return figure


def sensors() -> Figure:
    """A day and a year of each quantity, faults, profiles."""
    figure, panels = sheet(f"sensors · seed {SEED}", 4, 2)
    fields = {"temperature": "°C", "humidity": "%", "light": "klx"}
    day = catalog.sensors(seed=SEED, devices=3, start="2025-06-20").to_pandas(3 * 1440)
    year = catalog.sensors(seed=SEED, devices=1, interval=HOUR).to_pandas(8760)
    for row, (name, unit) in enumerate(fields.items()):
        scale = 1000 if name == "light" else 1
        left, right = panels[2 * row], panels[2 * row + 1]
        for i, (device, part) in enumerate(day.groupby("device_id")):
            left.plot(np.arange(len(part)) / 60, part[name] / scale, color=COLOURS[i], linewidth=0.8, label=device)
        left.set_xticks(range(0, 25, 6))
        label(left, f"{name.capitalize()}: a day in June, three devices", "hour (UTC)", unit, legend=not row)
        values = year[name].to_numpy() / scale
        right.plot(np.arange(len(values)) / 24, values, color=INK, linewidth=0.3, alpha=0.6)
        by_day = values.reshape(-1, 24)
        best = by_day.max(axis=1) if name == "light" else by_day.mean(axis=1)
        right.plot(np.arange(365) + 0.5, best, color=WARM, linewidth=1.2,
                   label="highest of the day" if name == "light" else "mean of the day")  # fmt: skip
        label(right, f"{name.capitalize()}: a year of one device, by the hour", "day of 2025", unit, legend=True)
    _sensor_faults(panels[6])
    for i, profile in enumerate(("ok", "breach", "hot", "cold")):
        values = catalog.sensors(seed=SEED, devices=1, profile=profile).to_pandas(360).temperature
        panels[7].plot(np.arange(360) / 60, values, color=COLOURS[i], linewidth=0.9, label=profile)
    panels[7].axhspan(5, 35, color=GREY, alpha=0.15)
    label(panels[7], "Profiles, six hours of each; grey is within the limits", "hour (UTC)", "°C")
    panels[7].legend(fontsize=7, frameon=False, loc=(0.82, 0.2))
    return figure


def _sensor_faults(axes: Any) -> None:
    """One device on a day with faults, and what the labels say."""
    source = faults.apply(
        catalog.sensors(seed=SEED, devices=1, start="2025-06-20").take(1440),
        faults.spike(0.004, "temperature", factor=1.6),
        faults.stuck(0.002, "temperature", per="device_id", length=120),
        faults.gap(0.003, per="device_id", length=60),
        seed=1,
    )
    rows = [row for chunk in source.chunks() for row in chunk]
    begun = rows[0]["timestamp"]
    hours = np.array([(row["timestamp"] - begun) / 3.6e6 for row in rows])
    values = np.array([row["temperature"] for row in rows])
    # A line across a gap would show what was not sent.
    line = values.copy()
    line[1:][np.diff(hours) > 0.1] = np.nan
    axes.plot(hours, line, color=INK, linewidth=0.8)
    marks: dict[str, list[int]] = {}
    for made in source.labels():
        marks.setdefault(made.fault, []).append(min(made.place, len(rows) - 1))
    for name, colour in (("spike", RED), ("stuck", WARM)):
        axes.plot(hours[marks[name]], values[marks[name]], ".", color=colour, markersize=4,
                  label=f"{name}: {len(marks[name])} readings")  # fmt: skip
    axes.plot([], [], " ", label=f"gap: {len(marks['gap'])} missing")
    axes.set_xticks(range(0, 25, 6))
    axes.set_ylim(top=values.max() + 6)
    label(axes, "A day with faults, coloured by their labels", "hour (UTC)", "°C")
    axes.legend(fontsize=7, frameon=False, loc="upper center", ncols=3, columnspacing=1.0)


def ijinus() -> Figure:
    """A year, uploads, values, malformed envelopes."""
    figure, (year, uploads, values, bad) = sheet(f"ijinus · seed {SEED}", 2, 2)
    readings: dict[str, list[float]] = {}
    for row in catalog.ijinus(seed=SEED, devices=3, interval=6 * HOUR, typed=True)[: 3 * 1460]:
        for reading in row["datas"]:
            readings.setdefault(reading["sn"], []).append(reading["value"] / 10)
    for i, (sn, degrees) in enumerate(readings.items()):
        year.plot(np.arange(len(degrees)) / 4, degrees, color=COLOURS[i], linewidth=0.6, label=sn)
    label(year, "A year of three loggers, a reading every six hours", "day of 2025", "°C", legend=True)

    begun = None
    for row in catalog.ijinus(seed=SEED, devices=12, batch=4, typed=True)[: 12 * 3]:
        times = np.array([reading["time"] for reading in row["datas"]]) / 1000
        begun = times[0] if begun is None else begun
        logger = int(row["datas"][0]["sn"][-8:])
        uploads.plot((times - begun) / HOUR, [logger] * len(times), ".-", color=INK, markersize=5, linewidth=0.8)
    label(uploads, "Envelopes of batch=4: readings 15 minutes apart", "hours", "logger")

    degrees = [reading["value"] / 10 for row in catalog.ijinus(seed=SEED, typed=True, interval=DAY)[:60_000]
               for reading in row["datas"]]  # fmt: skip
    values.hist(degrees, bins=np.arange(0, 15, 0.5), color=INK)
    label(values, "Values of 1,000 loggers, January and February", "°C", "readings")

    kinds = list(MALFORMED)
    share = 0.01
    count = 40_000
    found = dict.fromkeys(kinds, 0)
    for row in catalog.ijinus(seed=SEED, malformed=dict.fromkeys(kinds, share))[:count]:
        found[_malformed(row)] = found.get(_malformed(row), 0) + 1
    bad.bar(kinds, [found[kind] for kind in kinds], color=INK, width=0.6)
    bad.axhline(share * count, color=WARM, linestyle="--", linewidth=1, label="asked for: 1 % of each")
    bad.set_ylim(0, 1.3 * share * count)
    label(bad, f"Malformed envelopes among {count:,}", y="envelopes", legend=True)
    return figure


def _malformed(row: Any) -> str:
    if row["ver"] != "1.0":
        return "version"
    if not row["datas"]:
        return "empty"
    reading = row["datas"][0]
    if "sn" not in reading:
        return "no sn"
    return "NaN" if reading["value"] == "NaN" else "seconds" if len(reading["time"]) < 12 else "fine"


def access_log() -> Figure:
    """Beside the recorded log: addresses, bytes, statuses; and statuses over time."""
    figure, (over, rank, size, status) = sheet(f"access_log · seed {SEED}", 2, 2)
    log = catalog.access_log(seed=SEED, rate=2, bursts=4).select("timestamp", "status").to_pandas(420_000)
    begun = pd.Timestamp("2025-01-01", tz="UTC")
    log["slot"] = ((pd.to_datetime(log.timestamp, utc=True) - begun).dt.total_seconds() // 300).astype(int)
    shares = pd.crosstab(log.slot, log.status // 100, normalize="index").loc[: 2 * 288 - 1] * 100
    for kind, colour, name in ((4, WARM, "4xx: not there"), (5, RED, "5xx: error bursts")):
        over.plot(shares.index / 12, shares[kind], color=colour, linewidth=0.9, label=name)
    over.set_xticks(range(0, 49, 12))
    label(over, "Failures over two days, by five minutes, bursts=4", "hours", "% of the requests", legend=True)

    recorded = pd.DataFrame(simlink.replay(data_file("apache_access.log"), on_error="skip"))
    # As many, and as fast, from the middle of a stream, as the tests compare them.
    made = pd.DataFrame(catalog.access_log(seed=SEED, rate=10_000 / (83 * HOUR))[20_000 : 20_000 + len(recorded)])
    for frame, name, colour in ((recorded, "recorded", GREY), (made, "made", INK)):
        ranks(rank, frame.address, f"{name}: {frame.address.nunique():,} addresses", colour)
        sizes = np.sort(pd.to_numeric(frame.bytes).dropna().to_numpy(float))
        size.plot(np.maximum(sizes, 1), 100 * np.arange(1, len(sizes) + 1) / len(sizes), color=colour, label=name)
    label(rank, f"Requests by address, of {len(recorded):,}", "rank of the address", "requests", legend=True)
    size.set_xscale("log")
    size.set_xlim(left=50)
    label(size, "Bytes of the answers", "bytes", "% that are as long or shorter", legend=True)
    kinds = [200, 304, 404, 301, 206, 500]
    for i, (frame, name, colour) in enumerate(((recorded, "recorded", GREY), (made, "made", INK))):
        shares_of = frame.status.value_counts(normalize=True) * 100
        status.bar(np.arange(6) + 0.4 * i, [shares_of.get(k, 0.0) for k in kinds], 0.38, color=colour, label=name)
    status.set_yscale("log")
    status.set_xticks(np.arange(6) + 0.2, [str(kind) for kind in kinds])
    label(status, "Status", y="% of the requests", legend=True)
    return figure


def data_file(name: str) -> Path:
    """A recorded file, which SIMLINK_DATA leads to."""
    folder = os.environ.get("SIMLINK_DATA")
    path = Path(folder or Path(__file__).resolve().parents[2] / "shared" / "data") / name
    if not path.is_file():
        raise SystemExit(f"{name} is not there: SIMLINK_DATA names the folder that has it")
    return path


def numbers() -> Figure:
    """Last digits beside what was asked for; the numbers."""
    figure, (digits, spread) = sheet(f"numbers · seed {SEED} · weights 1, 2, …, 10", 1, 2)
    count = 20_000
    weights = np.arange(1, 11)
    made = catalog.numbers(seed=SEED, weights=weights.tolist()).to_pandas(count).number
    counts = np.bincount(made % 10, minlength=10)
    expected = count * weights / weights.sum()
    digits.bar(range(10), counts, color=INK, width=0.7, label="counted")
    error = 3 * np.sqrt(expected * (1 - weights / weights.sum()))
    digits.errorbar(range(10), expected, error, fmt="_", color=WARM, capsize=4, label="expected, ± 3 standard errors")
    digits.set_xticks(range(10))
    label(digits, f"Last digits of {count:,} numbers", "last digit", "numbers", legend=True)
    spread.hist(made / 1e6, bins=40, range=(0, 1000), color=INK)
    spread.axhline(count / 40, color=WARM, linestyle="--", linewidth=1, label="expected")
    spread.set_ylim(0, 1.35 * count / 40)
    label(spread, "What stands before it is even", "millions", "numbers", legend=True)
    return figure


def orders() -> Figure:
    """From step to step, delays, money, how orders end."""
    figure, (flow, delay, money, ends) = sheet(f"orders · seed {SEED}", 2, 2)
    made = catalog.orders(seed=SEED, rate=20)
    names = ["order_id", "step", "type", "service", "attempt", "timestamp", "amount_cents", "status"]
    events = made.select(*names).to_pandas(60_000)
    events["after"] = events.groupby("order_id").type.shift(1)
    events["pause"] = events.groupby("order_id").timestamp.diff() / 1000
    kinds = list(dict.fromkeys(step.type for step in _saga.STEPS.values() if step.type != "order.rejected"))
    steps = events.dropna(subset=["after"])
    table = pd.crosstab(steps.after, steps.type, normalize="index").reindex(index=kinds, columns=kinds).fillna(0) * 100
    shares = table.to_numpy()
    flow.imshow(shares, cmap="Blues", vmin=0, vmax=170, aspect="auto")
    for i, j in zip(*np.nonzero(shares >= 0.05), strict=True):
        share = shares[i, j]
        flow.text(j, i, f"{share:.0f}" if share >= 9.5 else f"{share:.1f}", ha="center", va="center", fontsize=6)
    flow.set_xticks(range(len(kinds)), kinds, rotation=60, ha="right", fontsize=6)
    flow.set_yticks(range(len(kinds)), kinds, fontsize=6)
    label(flow, "From step (row) to step (column), %")

    first = steps[steps.attempt == 1]
    services = ["order", "inventory", "payment", "notification", "shipment"]
    for i, service in enumerate(services):
        logs = np.log10(np.maximum(first[first.service == service].pause.to_numpy(), 1e-3))
        median = 10 ** float(np.median(logs))
        delay.hist(logs, bins=80, range=(-2, 2.4), histtype="step", density=True, color=COLOURS[i], linewidth=1.2,
                   label=f"{service}: median {median:.2g} s")  # fmt: skip
    delay.set_xlim(-2.2, 5.4)
    delay.set_xticks([-2, -1, 0, 1, 2], ["0.01", "0.1", "1", "10", "100"])
    label(delay, "Delay before a service's event, first attempts", "seconds", "density")
    delay.legend(fontsize=7, frameon=False, loc="upper right")

    once = events[events.attempt == 1].copy()
    minutes = (once.timestamp - once.timestamp.iloc[0]) / 60_000
    due = events[events.type == "order.placed"].set_index("order_id").amount_cents
    sent = once.type == "shipment.dispatched"
    flows = {
        "paid": once.amount_cents.where(once.type == "payment.captured", 0),
        "refunded": once.amount_cents.where(once.type == "payment.refunded", 0),
        "dispatched": once.order_id.map(due).where(sent, 0),
    }
    # A payment that timed out is captured by the second attempt.
    late = events[(events.attempt == 2) & (events.type == "payment.captured")]
    first_try = set(events[(events.attempt == 1) & (events.type == "payment.captured")].order_id)
    extra = late[~late.order_id.isin(first_try)]
    total = {}
    for i, (name, cents) in enumerate(flows.items()):
        x, y = minutes, cents.fillna(0)
        if name == "paid":
            x = pd.concat([minutes, (extra.timestamp - once.timestamp.iloc[0]) / 60_000])
            y = pd.concat([y, extra.amount_cents])
        order = np.argsort(x.to_numpy(), kind="stable")
        total[name] = y.to_numpy()[order].cumsum() / 1e5
        money.plot(x.to_numpy()[order], total[name], color=COLOURS[i], linewidth=1.4, label=name)
    label(money, "Money: paid = refunded + dispatched + on its way", "minutes", "thousands", legend=True)

    closed = events[events.status != "open"].set_index("order_id").status
    failed = events[events.type.isin(["payment.declined", "inventory.failed", "shipment.failed"])]
    why = failed.drop_duplicates("order_id").set_index("order_id").service
    names_of = {"completed": "completed", "rejected": "rejected"}
    ended = closed.map(names_of).fillna(closed.index.to_series().map(lambda order: f"cancelled: {why.get(order)}"))
    ways = (ended.value_counts(normalize=True) * 100).sort_values()
    bars = ends.barh(range(len(ways)), ways.to_numpy(), color=[GREEN if n == "completed" else WARM for n in ways.index])
    ends.set_yticks(range(len(ways)), list(ways.index))
    ends.bar_label(bars, [f"{value:.1f}" for value in ways], fontsize=7, padding=2)
    label(ends, f"How {len(closed):,} orders ended", "%")
    return figure


DRAWN: dict[str, Callable[[], Figure]] = {
    "access_log": access_log,
    "clickstream": clickstream,
    "ijinus": ijinus,
    "numbers": numbers,
    "orders": orders,
    "sensors": sensors,
}
