"""Telling the user's functions what happens to endpoints, in a thread of their own: a slow one holds nothing up."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simlink.health.states import Transition

__all__ = ["Announcer"]

log = logging.getLogger("simlink")

_MOST = 10_000
"""Transitions that wait for a function; the oldest are dropped when there are more."""


class Announcer:
    """``simlink-transitions-URL``: a thread that exists while somebody listens."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._listeners: list[Callable[[Transition], object]] = []
        self._waiting: deque[Transition] = deque(maxlen=_MOST)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def __call__(self, transition: Transition) -> None:
        if self._listeners:
            with self._changed:
                self._waiting.append(transition)
                self._changed.notify()

    def listen(self, function: Callable[[Transition], object]) -> Callable[[], None]:
        """Call the function with every transition from now on; returns what ends that."""
        with self._changed:
            self._listeners = [*self._listeners, function]
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name=f"simlink-transitions-{self._url}", daemon=True)
                self._thread.start()

        def stop() -> None:
            with self._changed:
                self._listeners = [each for each in self._listeners if each is not function]

        return stop

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                transition = self._waiting.popleft()
            for function in self._listeners:
                try:
                    function(transition)
                except Exception:
                    log.exception("%s: a function that was told of a transition failed", self._url)

    def close(self) -> None:
        """Tell what waits, and end. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)
