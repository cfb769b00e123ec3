"""Runs cells, those that only wait beside each other, and keeps what each came to."""

from __future__ import annotations

import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from simlink.testing.brokers import BrokerUnavailable
from tests.faults.books import Account, check
from tests.faults.faults import FAULTS
from tests.faults.scene import Scene
from tests.faults.transports import TRANSPORTS, close_brokers

BUSY = 2
"""Cells at a time that load the processor."""
WAITING = 5
"""Cells at a time that mostly wait."""


@dataclass(frozen=True)
class Result:
    """What became of a cell: an account, or why there is none."""

    transport: str
    fault: str
    seconds: float
    account: Account | None = None
    notes: tuple = ()
    error: str = ""
    unavailable: str = ""


def cells(transports=TRANSPORTS, faults=FAULTS):
    """The pairs that can happen: a transport must have what a fault needs."""
    return [(transport, fault) for fault in faults for transport in transports if fault.needs <= transport.has]


def run(transport, fault):
    """One cell, from its start to its books."""
    began = time.monotonic()
    account, notes, error, unavailable = None, [], "", ""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="simlink-fault-") as folder,
            transport.place(fault.needs) as place,
            Scene(transport, fault, place, Path(folder)) as scene,
        ):
            notes = scene.notes
            try:
                fault.act(scene)
                scene.finish()
                account = check(scene)
            except Exception:
                error = f"{traceback.format_exc()}{scene.told()}"
    except BrokerUnavailable as problem:
        unavailable = str(problem)
    except Exception:
        error = traceback.format_exc()
    return Result(transport.name, fault.name, time.monotonic() - began, account, tuple(notes), error, unavailable)


class Runner:
    """Starts chosen cells and hands out their results as they come.

    The busy ones go through a narrow pool and the waiting ones through a wide one, both in the order given.
    """

    def __init__(self, chosen):
        self._pools = {False: ThreadPoolExecutor(BUSY, "fault-busy"), True: ThreadPoolExecutor(WAITING, "fault-wait")}
        self._lock = threading.Lock()
        self._futures = {
            (transport.name, fault.name): self._pools[fault.waits].submit(run, transport, fault)
            for transport, fault in chosen
        }

    def result(self, transport, fault):
        return self._futures[transport.name, fault.name].result()

    def results(self):
        """Of all that were not cancelled and are done."""
        return [future.result() for future in self._futures.values() if future.done() and not future.cancelled()]

    def close(self):
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
        close_brokers()
