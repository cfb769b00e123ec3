"""What a case needs to know of a transport, and the cases' register."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

from simlink.channels.channel import Channel
from simlink.channels.driver import Capabilities, Mode

__all__ = ["Broker", "Case", "Harness", "all_cases", "case"]

_count = itertools.count()


class Broker(Protocol):
    """A broker that a case may take away and bring back, on the same address and with the same data."""

    def stop(self) -> None: ...
    def start(self) -> None: ...


class Harness:
    """One transport, as the cases see it. Override `url`; the rest has defaults.

    Attributes:
        options: channel options that every channel of the harness gets.
        patience: seconds that something which must happen may take.
        quiet: seconds of silence that show that nothing (more) comes.
        broker: what can be stopped and started, or None.
        modes: the modes to test.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    patience: ClassVar[float] = 20.0
    quiet: ClassVar[float] = 0.3
    broker: Broker | None = None
    modes: ClassVar[frozenset[Mode]] = frozenset(Mode)

    def url(self) -> str:
        """A URL of a destination that nobody used before."""
        raise NotImplementedError

    def unreachable(self) -> str | None:
        """A URL at which nobody answers, or None where there is no such thing."""
        return None

    def close(self) -> None:
        """Called when a case is over."""

    # --- used by the cases ---------------------------------------------------------------------------------------

    @staticmethod
    def fresh_name() -> str:
        """A name that no other test has."""
        return f"conf-{secrets.token_hex(4)}-{next(_count)}"

    def open(self, mode: Mode, url: str | None = None, **options: Any) -> Channel:
        """A channel on a fresh destination, or on the given one."""
        return Channel(
            url or self.url(), mode, serializer=options.pop("serializer", None), options={**self.options, **options}
        )

    def queue(self, url: str | None = None, **options: Any) -> Channel:
        return self.open(Mode.QUEUE, url, **options)

    def topic(self, url: str | None = None, **options: Any) -> Channel:
        return self.open(Mode.TOPIC, url, **options)

    @cached_property
    def capabilities(self) -> Mapping[Mode, Capabilities]:
        found: dict[Mode, Capabilities] = {}
        for mode in self.modes:
            with self.open(mode) as channel:
                found[mode] = channel.capabilities
        return found

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Wait until ``done()``; an AssertionError that names ``what`` after `patience` seconds."""
        deadline = time.monotonic() + self.patience
        event = threading.Event()
        while not done():
            assert time.monotonic() < deadline, f"not within {self.patience:g} s: {what}"
            event.wait(0.005)


@dataclass(frozen=True)
class Case:
    """One promise.

    Attributes:
        name: what is promised.
        mode: the mode it is about.
        check: the function that shows it.
        needs: which capabilities call for it.
    """

    name: str
    mode: Mode
    check: Callable[[Harness], None]
    needs: Callable[[Capabilities], bool]
    needs_broker: bool = False

    def applies(self, harness: Harness, *, broker: bool = False) -> bool:
        """Whether the harness's transport promises this."""
        if self.mode not in harness.modes or (self.needs_broker and not broker and harness.broker is None):
            return False
        return self.needs(harness.capabilities[self.mode])

    def run(self, harness: Harness) -> None:
        """Check the promise, and that nothing is left behind: no thread of simlink's survives its channel."""
        with no_threads_left(harness):
            try:
                self.check(harness)
            finally:
                harness.close()

    def __str__(self) -> str:
        return f"{self.mode.value}-{self.name}"


_cases: list[Case] = []


def all_cases() -> list[Case]:
    """Every case that there is."""
    return list(_cases)


def case(
    mode: Mode, needs: Callable[[Capabilities], bool] = lambda _: True, *, needs_broker: bool = False
) -> Callable[[Callable[[Harness], None]], Callable[[Harness], None]]:
    """Register a function as a case of ``mode`` for transports whose capabilities satisfy ``needs``."""

    def register(check: Callable[[Harness], None]) -> Callable[[Harness], None]:
        _cases.append(Case(check.__name__, mode, check, needs, needs_broker))
        return check

    return register


@contextmanager
def no_threads_left(harness: Harness) -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    harness.until(
        lambda: not [t for t in threading.enumerate() if t not in before and t.name.startswith("simlink")],
        f"threads end with their channel: {[t.name for t in threading.enumerate() if t not in before]}",
    )


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[BaseException]]:
    """Run ``work`` in a thread of the case; the list receives what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="case")
    thread.start()
    return thread, raised
