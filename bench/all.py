"""Every bench, one after the other, as one table of what was reached against what was asked; the page is kept in docs.

    python bench/all.py [--quick] [--out docs/benchmarks.md] [QUESTION …]

Each question is a program of its own (bench_*.py), where ours, the floor written by hand and the peer take turns within
one run. Figures are medians; ratios are what travels between machines. ``--quick`` shortens everything: for a look, not
for a record. With ``--out`` the rows are kept beside the page in bench/recorded.json, question by question, so that one
question can be asked again without the others. Notes that explain a shortfall are read from bench/notes.toml and stand
under the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORDED = HERE / "recorded.json"


@dataclass
class Row:
    """One line of the table: what was measured, what it is held against, and what was to be reached."""

    what: str
    ours: str
    against: str
    ratio: str
    reach: str
    met: bool


def ask(question: str, *options: str) -> dict[str, Any]:
    print(f"bench_{question} …", file=sys.stderr, flush=True)
    command = [sys.executable, str(HERE / f"bench_{question}.py"), "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def million(rate: float) -> str:
    return f"{rate / 1e6:.2f} M/s" if rate >= 2e5 else f"{rate / 1e3:.1f} k/s"


def share(what: str, ours: float, floor_name: str, floor: float, least: float) -> Row:
    ratio = ours / floor
    return Row(what, million(ours), f"{floor_name}: {million(floor)}", f"{ratio:.2f}×", f"≥ {least:g}×", ratio >= least)


def at_least(what: str, ours: float, least: float, against: str = "") -> Row:
    return Row(what, million(ours), against, "", f"≥ {million(least)}", ours >= least)


def both(what: str, ours: float, least: float, floor_name: str, floor: float, set_beside: float) -> Iterator[Row]:
    """A reach that is a rate, and the same reach as a ratio: to what it was set beside, measured where it was set."""
    yield at_least(what, ours, least, f"{floor_name}: {million(floor)}")
    yield share(what, ours, floor_name, floor, float(f"{least / set_beside:.2g}"))


def generated(quick: bool) -> Iterator[Row]:
    found = ask("generate", *(["--rows", "200000", "--repeat", "3"] if quick else []))
    yield share("clickstream fields → dicts", found["simlink, dicts"], "Faker loop", found["Faker loop, dicts"], 100)
    yield share("clickstream fields → dicts", found["simlink, dicts"], "by hand", found["NumPy by hand, dicts"], 0.4)
    by_hand = found["NumPy + msgspec by hand, JSON kept"]
    yield share("generated and encoded to JSON, kept", found["simlink, JSON kept"], "by hand", by_hand, 0.6)
    found = ask("serialize", *(["--rows", "32768", "--repeats", "3"] if quick else []))
    for row in found["results"]:
        if row["what"] == "Protobuf, block → bodies":
            yield share(f"Protobuf, {row['records']}, kept", row["rate"], "by hand", row["floor_rate"], 0.8)


def cataloged(quick: bool) -> Iterator[Row]:
    found = ask("catalog", *(["--rows", "65536", "--repeat", "2", "--workers-rows", "0"] if quick else []))
    rates = found["rates"]
    floors = {
        "clickstream, JSON": "clickstream by hand, no sessions, JSON",
        "clickstream, six fields, JSON": "six fields by hand, no sessions, JSON",
        "access_log, lines": "lines by hand, no visits",
        "sensors, JSON": "sensors by hand, no memory, JSON",
        "ijinus, JSON": "envelopes by hand, no memory",
        "Zipf keys of 10,000, columns": "Zipf keys by hand, inverse CDF",
    }
    # What the fastest loops by hand made where the reaches were set, if there were any, and what the peers did.
    set_beside = {"access_log, lines": 1.2e6, "sensors, JSON": 1.9e6, "ijinus, JSON": 1.9e6}
    for what, least in found["reach"].items():
        ours, by_hand = rates[what], rates[floors[what]]
        if what in set_beside:
            yield from both(f"{what}, kept", ours, least, "by hand", by_hand, set_beside[what])
        else:
            yield at_least(f"{what}, kept", ours, least, f"by hand: {million(by_hand)}")
    for what, peer, made in (
        ("clickstream, six fields, JSON", "Faker", 4.5e3),
        ("clickstream, six fields, JSON", "Mimesis", 61e3),
        ("clickstream, six fields, JSON", "khaos", 112e3),
        ("Zipf keys of 10,000, columns", "khaos, Zipf keys of 10,000", 5e3),
    ):
        if (rate := found["peers"].get(peer)) is not None:
            least = float(f"{found['reach'][what] / made:.2g}")
            yield share(f"{what}, kept", rates[what], peer.partition(",")[0], rate, least)
    if shared := found["workers"]:
        ratio = shared["times"]
        against = f"one: {million(shared['one'])}; two processes by hand: {shared['by hand']:.2f}×"
        what = "access_log to a file, two workers"
        yield Row(what, million(shared["two"]), against, f"{ratio:.2f}×", "≥ 1.7×", ratio >= 1.7)


def memory(quick: bool) -> Iterator[Row]:
    found = ask("memory", *(["--rows", "100000", "--repeats", "3"] if quick else []))
    peer = found["rates"]["queue.Queue between threads"]
    for what, least in found["reach"].items():
        yield from both(f"memory, {what}", found["rates"][what], least, "queue.Queue", peer, 0.28e6)


def tcp(quick: bool) -> Iterator[Row]:
    found = ask("tcp", *(["--rows", "100000", "--repeats", "3", "--rounds", "1000"] if quick else []))
    rates, waits = found["messages_per_second"], found["p50_us"]
    floor = rates["by hand, newline JSON (floor)"]
    yield share("tcp, send_many → batches()", rates["channel, send_many to batches()"], "by hand", floor, 0.75)
    yield share("tcp, send_many → one by one", rates["channel, send_many to one by one"], "by hand", floor, 0.6)
    ours, echo = waits["channel, send"], waits["raw echo (floor)"]
    yield Row(
        "tcp, one waiting send, p50",
        f"{ours:.0f} µs",
        f"raw echo: {echo:.0f} µs",
        f"{ours / echo:.2f}×",
        "≤ 2×",
        ours <= 2 * echo,
    )


def http(quick: bool) -> Iterator[Row]:
    short = ["--rows", "50000", "--requests", "1000", "--repeats", "2", "--rounds", "300"]
    found = ask("http", *(short if quick else []))
    batches, single, waits = found["batches"], found["single"], found["p50_us"]
    by_hand = "urllib3 by hand"
    ours = batches["channel, blocks to batches()"]
    yield from both("http, send_many → batches()", ours, 0.5e6, by_hand, batches[by_hand], 0.6e6)
    yield share("http, one record a request", single["channel, rest=True"], by_hand, single[by_hand], 0.8)
    ours, raw = waits["channel, send"], waits["http.client by hand"]
    yield Row(
        "http, one waiting send, p50",
        f"{ours:.0f} µs",
        f"http.client by hand: {raw:.0f} µs",
        f"{ours / raw:.2f}×",
        "≤ 2×",
        ours <= 2 * raw,
    )


def grpc(quick: bool) -> Iterator[Row]:
    found = ask("grpc", *(["--rows", "50000", "--repeats", "1", "--rounds", "500"] if quick else []))
    rates, waits = found["messages_per_second"], found["p50_us"]
    unary = f"unary by hand: {million(rates['ready, unary by hand'])}"
    yield at_least("grpc, blocks → batches(), end to end", rates["made, channel, blocks to batches()"], 0.5e6, unary)
    by_hand = rates["made, stream by hand, 1,000"]
    yield share(
        "grpc, send_many → batches()", rates["made, channel, blocks to batches()"], "stream by hand", by_hand, 0.6
    )
    yield at_least("grpc, ready batches of 100", rates["ready, driver, 100"], 0.3e6, unary)
    ours, stream = waits["channel, send"], waits["stream by hand"]
    against = f"stream by hand: {stream:.0f} µs; unary: {waits['unary by hand']:.0f} µs"
    yield Row(
        "grpc, one waiting send, p50", f"{ours:.0f} µs", against, f"{ours / stream:.2f}×", "≤ 2×", ours <= 2 * stream
    )


def encrypted(quick: bool) -> Iterator[Row]:
    rates = ask("tls", *(["--rows", "100000", "--repeats", "3", "--rounds", "500"] if quick else []))
    rates = rates["messages_per_second"]
    yield share("tcps, send_many → batches()", rates["tcps"], "tcp", rates["tcp"], 0.6)


def kafka(quick: bool) -> Iterator[Row]:
    found = ask("kafka", *(["--count", "30000", "--repeat", "3"] if quick else []))
    for client, ways in found.items():
        for way, (by_hand, ours) in ways.items():
            yield share(f"Kafka {way}, {client}", ours, "client by hand, tuned", by_hand, 0.85)


def redis(quick: bool) -> Iterator[Row]:
    found = ask("redis", *(["--count", "50000", "--repeat", "3", "--rounds", "300"] if quick else []))
    floor = "redis-py by hand"
    yield share("Redis streams, sent", found["sent"][1], floor, found["sent"][0], 2)
    for what in ("read and acknowledged", "read one by one"):
        hand, ours = found[what]
        yield from both(f"Redis streams, {what}", ours, 2.2e5, floor, hand, 2.4e5)
    yield share("Redis Pub/Sub, published", found["published"][1], floor, found["published"][0], 0.7)
    hand, ours = found["p50"]
    where = f"{floor}: {hand:.0f} µs"
    yield Row("Redis, one message, p50", f"{ours:.0f} µs", where, f"{ours / hand:.2f}×", "≤ 2×", ours <= 2 * hand)


def rabbitmq(quick: bool) -> Iterator[Row]:
    found = ask("rabbitmq", *(["--count", "10000", "--repeat", "3", "--rounds", "200"] if quick else []))
    rows = (
        ("RabbitMQ, sent and confirmed", "out", "windowed", "pika windowed by hand", 0.9),
        ("RabbitMQ, sent and confirmed", "out", "each", "pika, confirm per message", 10),
        ("RabbitMQ, consumed, decoded, acknowledged", "in", "in by hand", "pika by hand", 0.85),
    )
    for what, ours, hand, name, least in rows:
        ratio = found[f"{ours} / {hand}"]
        against = f"{name}: {million(found[hand])}"
        yield Row(what, million(found[ours]), against, f"{ratio:.2f}×", f"≥ {least:g}×", ratio >= least)
    ours, raw, ratio = found["p50"], found["p50 by hand"], found["p50 / p50 by hand"]
    what = "RabbitMQ, one message sent, confirmed and received, p50"
    yield Row(what, f"{ours:.0f} µs", f"pika by hand: {raw:.0f} µs", f"{ratio:.2f}×", "≤ 2×", ratio <= 2)


def hostile(quick: bool) -> Iterator[Row]:
    found = ask("hostile", *(["--each", "100"] if quick else []))
    each = found["each"]
    for scheme, row in found["transports"].items():
        beside, alone = row["beside"]["p99"], row["alone"]["p99"]
        closed = sum(row["closed"].values())
        yield Row(
            f"{scheme}, one waiting send beside {3 * each:,} slow peers, p99",
            f"{beside:.1f} ms; {closed:,} closed, the slowest after {row['slowest']:.1f} s",
            f"alone: {alone:.1f} ms",
            f"{beside / alone:.2f}×",
            "≤ 100 ms, all closed",
            beside <= 100 and closed == 3 * each,
        )


def pace(quick: bool) -> Iterator[Row]:
    for row in ask("pace", *(["--seconds", "2", "--repeat", "1"] if quick else [])):
        off, lag = abs(row["reached"] / row["asked"] - 1), row["lag_p99_ms"]
        yield Row(
            f"pace {row['asked']:,}/s",
            f"{row['reached']:,.0f}/s",
            "asked rate",
            f"off by {off:.2%}",
            "≤ 0.5 %",
            off <= 0.005,
        )
        if row["asked"] == 1_000:
            bare = f"sleep loop by hand: {row['floor_lag_p99_ms']:.2f} ms"
            yield Row("send lag p99 at 1,000/s", f"{lag:.2f} ms", bare, "", "≤ 1 ms", lag <= 1)


def clumps(quick: bool) -> Iterator[Row]:
    found = ask("pace", "--clumps", *(["--seconds", "2", "--repeat", "1"] if quick else []))
    first, called = found["first_lag_ms"], found["first_after_call_ms"]
    after = f"after the call of run(): {called:.0f} ms"
    yield Row("first record at 1/s, late by", f"{first:.1f} ms", after, "", "≤ 50 ms", first <= 50)
    gap, busy = found["gap_p99_ms"], found["busy_gap_p99_ms"]
    slept = f"a loop that sleeps: {found['floor_gap_p99_ms']:.2f} ms; and is busy 0.2 ms a row: {busy:.2f} ms"
    yield Row("gap between sends at 1,000/s, p99", f"{gap:.2f} ms", slept, "", "≤ 2 ms", gap <= 2)


def verified(quick: bool) -> Iterator[Row]:
    found = ask("verify", *(["--rows", "200000", "--repeat", "1"] if quick else []))
    decoded = f"decode alone: {million(found['decode alone'])}"
    yield at_least("verify by regeneration, JSON", found["verify"], 0.4e6, decoded)
    what = "every fault at 0.1 %, sent and verified"
    took, equal = f"{found['acceptance_seconds']:.1f} s", bool(found["acceptance_equal"])
    yield Row(what, took, "reports against labels", "equal" if equal else "differ", "equal", equal)


def starting(quick: bool) -> Iterator[Row]:
    found = ask("import", *(["--repeats", "5"] if quick else []))
    numpy = f"import numpy: {found['ms']['import numpy']:.0f} ms"
    for what, most in found["reach"].items():
        took = max(found["ms"][what], 0.0)
        yield Row(what, f"{took:.0f} ms", numpy, "", f"≤ {most:.0f} ms", took <= most)


def soak(quick: bool) -> Iterator[Row]:
    found = ask("soak", "--seconds", "20" if quick else "60")
    grown, after = found["growth"], found["mib"][10:]
    yield Row(
        "memory, saturated tcp sender, slow reader, 60 s",
        f"{min(after):.0f}–{max(after):.0f} MiB after 10 s",
        "median of the later half: of the earlier",
        f"{grown:+.1%}",
        "flat",
        grown <= 0.05,
    )


def pool(quick: bool) -> Iterator[Row]:
    found = ask("pool", *(["--rows", "30000", "--repeats", "2", "--seconds", "5"] if quick else []))
    rates, beats = found["throughput"], found["heartbeats"]
    one, ratio = f"one tcp channel: {million(rates['one'])}", rates["ratio"]
    yield Row("pool of 4 tcp receivers, sent", million(rates["four"]), one, f"{ratio:.2f}×", "≥ 0.8×", ratio >= 0.8)
    there, spent = f"the process of the receivers: {beats['receivers']:.2%}", beats["sender"]
    alive = beats["still_up"] == beats["endpoints"]
    what = f"heartbeats of {beats['endpoints']} endpoints, part of a core"
    yield Row(what, f"{spent:.2%}", there, "", "≤ 1 %, all up", spent <= 0.01 and alive)


QUESTIONS = {
    question.__name__: question
    for question in (
        generated,
        cataloged,
        memory,
        tcp,
        encrypted,
        http,
        grpc,
        kafka,
        rabbitmq,
        redis,
        pool,
        hostile,
        pace,
        clumps,
        verified,
        starting,
        soak,
    )
}


@dataclass
class Record:
    """What a question came to, when, and how busy the machine was at its start."""

    date: str
    load: float
    where: str
    rows: list[Row]


def machine() -> str:
    name = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{name}, {os.cpu_count()} cores, {memory_gib:.0f} GiB; {platform.system()} {platform.release()}; "
        f"CPython {platform.python_version()}"
    )


def record(name: str, quick: bool) -> Record:
    """Ask a question."""
    load = os.getloadavg()[0]
    try:
        rows = list(QUESTIONS[name](quick))
    except subprocess.CalledProcessError as error:
        # The others are still worth having, and the page says that this one is missing.
        rows = [Row(f"bench of {name}", "did not finish", f"exit {error.returncode}", "", "", False)]
    return Record(datetime.now(UTC).date().isoformat(), round(load, 1), machine(), rows)


def recorded() -> dict[str, Record]:
    """What was kept of earlier runs."""
    if not RECORDED.exists():
        return {}
    kept = json.loads(RECORDED.read_text())
    return {name: Record(**{**one, "rows": [Row(**row) for row in one["rows"]]}) for name, one in kept.items()}


def page(records: dict[str, Record], notes: dict[str, str]) -> str:
    rows = [row for one in records.values() for row in one.rows]
    lines = [
        "# Benchmarks",
        "",
        "Ours beside a floor written by hand and beside the peer, in the same run; medians of several. Machines are",
        "noisy: the ratios are what counts. `python bench/all.py` prints this table; `--out` keeps it as this page.",
        "[Balancing](balancing.md) has a page of its own.",
        "",
        *(f"Measured on: {where}." for where in dict.fromkeys(one.where for one in records.values())),
        "",
        "| work | ours | against | ratio | reach | |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {r.what} | {r.ours} | {r.against} | {r.ratio} | {r.reach} | {'✓' if r.met else '✗'} |" for r in rows]
    asked = "; ".join(f"{name} {one.date}, {one.load}" for name, one in records.items())
    lines += ["", f"When, and the load average of the machine as each question began: {asked}."]
    short = [r.what for r in rows if not r.met]
    lines += ["", "## Shortfalls", ""]
    if not short:
        lines.append("None in this run.")
    for what in dict.fromkeys(short):
        reason = next((note for start, note in notes.items() if what.startswith(start)), "Not explained yet.")
        lines.append(f"- **{what}**: {reason}")
    lines += ["", "## How to read it", "", notes.get("reading", "")]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"of {', '.join(QUESTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="short runs: for a look, not for a record")
    parser.add_argument("--out", type=Path, help="keep the rows, and write the page of all that is kept here as well")
    options = parser.parse_args()
    if unknown := set(options.questions) - set(QUESTIONS):
        parser.error(f"no such question: {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}")
    records = {name: record(name, options.quick) for name in options.questions or QUESTIONS}
    if options.out:
        known = recorded() | records
        records = {name: known[name] for name in QUESTIONS if name in known}
        RECORDED.write_text(json.dumps({name: asdict(one) for name, one in records.items()}, indent=1) + "\n")
    text = page(records, tomllib.loads((HERE / "notes.toml").read_text()))
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
