"""Ctrl-C and SIGTERM: a run in the main thread stops making records, and resolves what is out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simlink.running.report import Report

__all__ = ["Interrupted", "interruptible"]


class Interrupted(KeyboardInterrupt):
    """A run was stopped by SIGINT or SIGTERM and has drained.

    Attributes:
        report: what the run did.
        number: the signal.
    """

    def __init__(self, number: int, report: Report | None = None) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number
        self.report = report


@contextmanager
def interruptible(told: Callable[[int], None]) -> Iterator[None]:
    """While the block runs in the main thread, call ``told(number)`` at the first SIGINT or SIGTERM; at the second one
    Interrupted is raised where the program stands. A handler that somebody else has installed stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count = 0

    def handler(number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            raise Interrupted(number)
        told(number)

    ours: tuple[Any, ...] = (signal.SIG_DFL, signal.default_int_handler)
    free = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) in ours]
    replaced = [(number, signal.signal(number, handler)) for number in free]
    try:
        yield
    finally:
        for number, before in replaced:
            signal.signal(number, before)
