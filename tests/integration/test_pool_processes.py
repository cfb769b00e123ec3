"""Ten receivers in processes of their own behind one channel; some are killed, stopped and started again meanwhile.

Ten processes a transport are the point of it, and most of its time; they are forked from one that has the libraries.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter

import pytest

import simlink
from simlink.testing.brokers.ports import free_ports
from tests.support.pool_receiver import receive

RECEIVERS = 10
CONTEXT = multiprocessing.get_context("forkserver")


class Crowd:
    def __init__(self, scheme, folder):
        self.ports = free_ports(RECEIVERS)
        self.names = [f"127.0.0.1:{port}" for port in self.ports]
        self.url = f"{scheme}://{','.join(self.names)}/orders"
        self.folder = folder
        self.processes = {}

    def start(self, which):
        name = self.names[which]
        path = self.folder / f"{which}"
        before = self.ready(which)
        process = CONTEXT.Process(target=receive, args=(self.url, name, str(path)), daemon=True)
        process.start()
        self.processes[which] = process
        return before + 1

    def ready(self, which):
        path = self.folder / f"{which}"
        return path.read_bytes().count(b"ready\n") if path.exists() else 0

    def wait_until_ready(self, expected):
        until(lambda: all(self.ready(which) >= count for which, count in expected.items()), "receivers")

    def signal(self, which, number):
        os.kill(self.processes[which].pid, number)

    def kill(self, which):
        self.processes[which].kill()
        self.processes[which].join(10)

    def handed(self):
        out = []
        for which in range(RECEIVERS):
            # The last line may be cut short by a kill.
            lines = (self.folder / f"{which}").read_bytes().split(b"\n")[:-1]
            out += [int(line.split()[0]) for line in lines if line != b"ready"]
        return out

    def close(self):
        for process in self.processes.values():
            if process.is_alive():
                process.kill()
            process.join(10)


def until(condition, what, limit=60.0):
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"waited {limit:g} s for {what}"
        time.sleep(0.01)


@pytest.fixture(scope="module", autouse=True)
def forked_from_one_that_has_it_all():
    CONTEXT.set_forkserver_preload(
        ["tests.support.pool_receiver", "simlink.channels.receiver", "simlink.channels.tcp", "simlink.channels.http"]
    )


@pytest.mark.parametrize("scheme", ["tcp", "http", "grpc"])
def test_what_was_sent_is_what_was_received_whoever_dies(scheme, tmp_path):
    crowd = Crowd(scheme, tmp_path)
    try:
        crowd.wait_until_ready({which: crowd.start(which) for which in range(RECEIVERS)})
        with simlink.queue(crowd.url, detector=simlink.EmpiricalAccrual(0.25), slow_start=0.5) as channel:
            told = []
            channel.on_transition(told.append)
            numbers = iter(range(10**9))
            job = simlink.start((str(number) for number in numbers), channel, rate=400)
            sent = lambda: job.report.sent  # noqa: E731 – read more than once
            until(lambda: sent() > 200, "the first messages")
            crowd.kill(0)
            crowd.kill(1)
            until(lambda: channel.endpoints[crowd.names[0]].state == "dead", "the dead to be known")
            crowd.signal(2, signal.SIGSTOP)
            go_on = threading.Timer(2.0, crowd.signal, (2, signal.SIGCONT))
            go_on.start()
            again = {0: crowd.start(0)}
            crowd.wait_until_ready(again)
            crowd.kill(3)
            go_on.join()
            until(lambda: channel.endpoints[crowd.names[0]].state in {"up", "warming"}, "the return of the first")
            until(lambda: channel.endpoints[crowd.names[2]].state in {"up", "warming"}, "the return of the stopped")
            before = sent()
            until(lambda: sent() > before + 200, "more messages")
            report = job.stop(timeout=60)
            until(lambda: channel.stats()["in_flight"] == 0, "everything to be settled")
        handed = crowd.handed()
        assert set(handed) == set(range(report.sent))
        repeats = sum(count - 1 for count in Counter(handed).values())
        assert repeats <= channel.stats()["resent"]
        dead = {transition.endpoint for transition in told if transition.new.value == "dead"}
        assert {crowd.names[0], crowd.names[1], crowd.names[3]} <= dead
    finally:
        crowd.close()
