"""``simlink demo``: the main job, between two processes, with nothing installed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any, Self

import click

from simlink.cli.output import emit, say
from simlink.errors import ReceiveError

_PATIENCE = 30.0


@click.command(help="Send a shop's click stream to another process over TCP, and prove that all of it arrived.")
@click.option("--count", type=click.IntRange(min=1), default=200_000, show_default=True, help="How many events.")
@click.option("--rate", type=float, metavar="R", help="Events a second; by default as fast as possible.")
@click.option("--seed", type=click.IntRange(min=0), default=7, show_default=True, help="What to draw them from.")
@click.option("--json", "as_json", is_flag=True, help="Both reports as one JSON object on stdout.")
def command(count: int, rate: float | None, seed: int, as_json: bool) -> int:
    """Start the receiving process, send to it, and show what both found."""
    from simlink.generators import catalog
    from simlink.running.progress import chosen
    from simlink.running.run import run
    from simlink.running.signals import Interrupted

    clicks = catalog.get("clickstream")(seed=seed)
    say(f"the sender makes {count:,} clickstream records from seed {seed}; the receiver makes them again and compares")
    with _Receiver(count, seed) as receiver:
        url = receiver.ready()
        say(f"a second process listens at {url}")
        show = chosen(True) or False
        try:
            report = run(clicks, url, count=count, rate=rate, key="user_id", progress=show)
        except Interrupted as error:
            if error.report is None:
                raise
            say(error.report)
            if as_json:
                emit({"ok": False, "sent": error.report.as_dict(), "received": None})
            return 130
        found = receiver.result()
    ok = report.ok and not report.unsettled and bool(found["ok"])
    verified = {name: found[name] for name in ("lost", "duplicated", "reordered", "corrupt")}
    say("")
    say(report)
    say("")
    say(f"received by the other process: {found['received']:,}")
    for name, value in verified.items():
        say(f"  {name:<10}  {value:,}")
    say("")
    say("every record arrived, once and unchanged" if ok else "NOT everything arrived as it was sent")
    if as_json:
        emit({"ok": ok, "sent": report.as_dict(), "received": found})
    return 0 if ok else 1


class _Receiver:
    """``simlink receive`` in a process of its own; its stderr is read by a thread, so that it never fills up."""

    def __init__(self, count: int, seed: int) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "simlink.cli", "receive", "tcp://127.0.0.1:0/demo", "--json"),
                *("--verify", "clickstream", "--seed", str(seed), "--count", str(count), "--idle", "30"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._url: str | None = None
        self._said: list[str] = []
        self._told = threading.Event()
        self._reader = threading.Thread(target=self._read, name="simlink-demo", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if line.startswith("ready "):
                self._url = line.removeprefix("ready ").strip()
                self._told.set()
            elif len(self._said) < 100:
                self._said.append(line.rstrip())
        self._told.set()

    def ready(self) -> str:
        self._told.wait(_PATIENCE)
        if self._url is None:
            raise ReceiveError(f"the receiving process did not start: {' '.join(self._said) or 'it said nothing'}")
        return self._url

    def result(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        text = self._process.stdout.read()
        self._process.wait(_PATIENCE)
        lines = text.splitlines()
        if not lines:
            raise ReceiveError(f"the receiving process gave no report: {' '.join(self._said)}")
        report: dict[str, Any] = json.loads(lines[-1])
        return report

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(5.0)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
