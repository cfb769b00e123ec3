"""A receiver in a process of its own whose memory is watched, and a good client that goes on working beside it.

As a program: ``python -m tests.support.bystander URL OPTIONS`` receives from URL (OPTIONS are JSON), acknowledges
everything, prints the address that it has bound, and ends when its input is closed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

from simlink.channels.channel import queue
from simlink.errors import SimlinkError

LOCAL = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


class Victim:
    """The receiving process.

    Attributes:
        port: what it has bound.
    """

    def __init__(self, scheme: str, name: str = "orders", **options: object) -> None:
        command = [sys.executable, "-m", "tests.support.bystander", f"{scheme}://{LOCAL}:0/{name}", json.dumps(options)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.url = f"{scheme}://{LOCAL}:{self.port}/{name}"
        self.at_rest = self.rss()

    def rss(self) -> float:
        """The most memory that it ever had, in MiB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmHWM: not Linux?")

    def grown(self) -> float:
        """MiB above what it had when it was ready."""
        return self.rss() - self.at_rest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(20.0)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


class GoodClient:
    """Sends one message after the other, each waiting for its confirmation, until it is stopped.

    Attributes:
        waits: seconds that each send took.
        failure: the first error, or None.
    """

    def __init__(self, url: str, pause: float = 0.002) -> None:
        self.waits: list[float] = []
        self.failure: Exception | None = None
        self._url = url
        self._pause = pause
        self._stop = threading.Event()
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._run, name="good-client")

    def _run(self) -> None:
        try:
            with queue(self._url) as channel:
                number = 0
                while not self._stop.wait(self._pause):
                    began = time.perf_counter()
                    channel.send({"number": number}, timeout=20.0)
                    self.waits.append(time.perf_counter() - began)
                    number += 1
                    self._first.set()
        except SimlinkError as error:
            self.failure = error
        finally:
            self._first.set()

    def until(self, sends: int) -> None:
        """Wait until so many messages were sent, or one has failed."""
        while len(self.waits) < sends and self.failure is None:
            self._thread.join(0.01)

    def p(self, share: float) -> float:
        """A quantile of the waits, in milliseconds."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000

    def __enter__(self) -> Self:
        self._thread.start()
        self._first.wait(30.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30.0)


@contextlib.contextmanager
def crowd(transport: str, port: int, count: int, seconds: float):
    """Slow peers in a process of their own, all connected; yields a function that waits for what became of them."""
    program = ROOT / "tests" / "support" / "crowd.py"
    command = [sys.executable, "-P", str(program), transport, str(port), str(count), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield lambda: json.loads(process.communicate(timeout=seconds + 30.0)[0])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main(url: str, options: str) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    with queue(url, **json.loads(options)) as channel, channel.receiver() as rx:

        def serve() -> None:
            with contextlib.suppress(SimlinkError):
                for batch in rx.batches():
                    batch.ack()

        thread = threading.Thread(target=serve, name="victim")
        thread.start()
        print(rx.url.partition("://")[2].partition("/")[0].rpartition(":")[2], flush=True)
        sys.stdin.read()
        rx.close()
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
