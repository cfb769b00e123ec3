"""An endpoint dies and comes back, while messages go on: nothing is lost.

    python examples/failover.py [--seconds 12] [--rate 300]

Three processes receive; one is killed after a third of the time, and started again after two thirds. In a terminal a
table of the endpoints is kept up to date meanwhile.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import tempfile
import time
from pathlib import Path

import simlink
from simlink.running.progress import watching


def receive(url: str, at: str, path: str) -> None:
    """What a receiving process does: write down what it was handed, then acknowledge it."""
    with Path(path).open("a", buffering=1) as out, simlink.queue(url).receiver(at=at) as inbox:
        out.write("ready\n")
        out.writelines(f"{delivery.value['n']}\n" for delivery in inbox)


class Crowd:
    """Receiving processes, one at each of so many free ports."""

    def __init__(self, count: int) -> None:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        self.names = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
        for each in sockets:
            each.close()
        self.url = f"tcp://{','.join(self.names)}/orders"
        self.folder = tempfile.TemporaryDirectory()
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[str, multiprocessing.process.BaseProcess] = {}

    def start(self, name: str) -> None:
        """Start the receiver of an endpoint."""
        path = str(self._path(name))
        process = self._context.Process(target=receive, args=(self.url, name, path), daemon=True)
        process.start()
        self._processes[name] = process

    def kill(self, name: str) -> None:
        """As ``kill -9``."""
        self._processes[name].kill()
        self._processes[name].join()

    def wait(self) -> None:
        """Until all receive."""
        while not all(self._path(name).exists() for name in self.names):
            time.sleep(0.05)

    def handed(self) -> list[int]:
        """What was handed out by all of them, so far."""
        lines = [line for name in self.names for line in self._path(name).read_text().splitlines()]
        return [int(line) for line in lines if line.isdigit()]

    def close(self) -> None:
        """End all of them."""
        for process in self._processes.values():
            process.kill()
            process.join()
        self.folder.cleanup()

    def _path(self, name: str) -> Path:
        return Path(self.folder.name) / name.replace(":", "-")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--rate", type=float, default=300.0)
    given = parser.parse_args()
    crowd = Crowd(3)
    victim = crowd.names[1]
    try:
        for name in crowd.names:
            crowd.start(name)
        crowd.wait()
        with simlink.queue(crowd.url, detector=simlink.EmpiricalAccrual(0.25), slow_start=2.0) as channel:
            channel.on_transition(lambda change: print(change, flush=True))
            rows = ({"n": n} for n in range(10**9))
            job = simlink.start(rows, channel, rate=given.rate, progress=watching())
            time.sleep(given.seconds / 3)
            crowd.kill(victim)
            time.sleep(given.seconds / 3)
            crowd.start(victim)
            time.sleep(given.seconds / 3)
            report = job.stop()
        print(report)
        handed = crowd.handed()
        print(f"{report.sent} sent, {len(set(range(report.sent)) - set(handed))} lost,", end=" ")
        print(f"{len(handed) - len(set(handed))} handed out twice")
    finally:
        crowd.close()


if __name__ == "__main__":
    main()
