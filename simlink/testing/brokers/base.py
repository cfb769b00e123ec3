"""What the three brokers have in common: finding, starting, stopping and restarting a real server."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Self
from urllib.parse import urlsplit

from simlink.errors import ConfigError, NotSupported, StateError, TransportError
from simlink.testing.brokers.ports import free_ports
from simlink.testing.brokers.process import Process, reachable
from simlink.testing.brokers.security import Certificates, Security

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Broker", "BrokerFailed", "BrokerUnavailable"]

LOG_LINES: Final = 30
PORT_ATTEMPTS: Final = 3
PORT_IN_USE: Final = ("address already in use", "eaddrinuse", "address in use")


class BrokerUnavailable(ConfigError):
    """No such broker can be had on this machine; the message says in one line how to get it."""


class BrokerFailed(TransportError):
    """The server could not be started, or did not do what it was told; the message ends with its log's last lines."""


class Broker(ABC):
    """A real server for tests, as a context manager: entered, it is ready; left, nothing of it remains.

    The server listens on free ports of 127.0.0.1, keeps its data in a temporary folder, and dies with this process.
    It can be stopped, killed, frozen and started again, on the same port and with the same data. Where the class's
    environment variable names a server that is already running, that one is used instead, and only ``url`` works.

    Args:
        own: start a server even where the environment variable names one; for tests that stop or kill it.
        timeout: seconds that the server may take to become ready. Default 60.
        tls: certificate files: the server then listens with TLS only, and ``url`` has the scheme with TLS.
        user, password: who is let in; nobody else is. With any of these three the server is always one of our own.

    Raises (on entering):
        BrokerUnavailable: the server is not installed, or nobody answers at the address in the environment variable.
        BrokerFailed: it did not become ready.
    """

    kind: ClassVar[str]
    scheme: ClassVar[str]
    variable: ClassVar[str]
    port_count: int = 1
    grace: ClassVar[float] = 30.0
    """Seconds that a server has for a graceful stop before it is killed."""

    def __init__(
        self,
        *,
        own: bool = False,
        timeout: float = 60.0,
        tls: Certificates | None = None,
        user: str | None = None,
        password: str | None = None,
    ) -> None:
        self.timeout = timeout
        self.security = Security(tls, user, password)
        self.folder: Path | None = None
        self.ports: list[int] = []
        self.external = None if own or self.security else os.environ.get(self.variable) or None
        self._process: Process | None = None
        self._paused = False
        self._closed = False
        self._pid = os.getpid()
        self._lock = threading.RLock()

    # --- what each kind of server says about itself

    @classmethod
    @abstractmethod
    def locate(cls) -> str:
        """Where the server would come from, in a few words, without starting it. Raises BrokerUnavailable."""

    @classmethod
    def source(cls) -> str:
        """Where it comes from, the environment variable included. Raises BrokerUnavailable."""
        named = os.environ.get(cls.variable)
        return f"{_without_password(named)}, from {cls.variable}" if named else cls.locate()

    @classmethod
    def fetch(cls) -> None:
        """Download now what the first start would, where that is anything. Raises BrokerUnavailable."""

    @abstractmethod
    def _prepare(self, folder: Path) -> None:
        """Write the configuration for ``self.ports`` into the folder; called once for every choice of ports."""

    @abstractmethod
    def _command(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        """The command that starts the server, and what is added to the environment."""

    @abstractmethod
    def _ready(self) -> bool:
        """Whether the server serves. Returns soon, raises OSError for "not yet"."""

    def _credentials(self) -> str:
        """What stands before the host in the URL: "" or ``user:password@``."""
        return self.security.userinfo

    # --- what a test uses

    @property
    def url(self) -> str:
        """``scheme://[user:password@]host:port`` without a destination: append ``/name``."""
        if self.external:
            return self.external.rstrip("/")
        if not self.ports:
            raise StateError(f"this {self.kind} broker has no address yet: use it as a context manager, or start() it")
        return f"{self._scheme}://{self._credentials()}{self.host}:{self.port}"

    @property
    def _scheme(self) -> str:
        return self.scheme + "s" if self.security.tls else self.scheme

    @property
    def host(self) -> str:
        """The (first) host, an IP address for a server of our own."""
        return _addresses(self.external)[0][0] if self.external else "127.0.0.1"

    @property
    def port(self) -> int:
        """The (first) port; stays the same over stop and start."""
        if self.external:
            return _addresses(self.external)[0][1]
        if not self.ports:
            raise StateError(f"this {self.kind} broker has no port yet: use it as a context manager, or start() it")
        return self.ports[0]

    @property
    def running(self) -> bool:
        """Whether the server process is alive (also while paused)."""
        return bool(self.external) or (self._process is not None and self._process.status is None)

    @property
    def pid(self) -> int | None:
        """The server's process id, None while it is down or somebody else's."""
        return self._process.pid if self._process is not None and self._process.status is None else None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the server and wait until it is ready. Nothing happens if it is running.

        Raises:
            BrokerUnavailable: it is not installed; or the server that the environment names does not answer.
            BrokerFailed: it ended, or was not ready within ``timeout`` seconds.
        """
        with self._lock:
            if self._closed:
                raise StateError(f"this {self.kind} broker is closed: make a new one")
            if self.external:
                self._check_external()
            elif not self.running:
                self._start()

    def stop(self) -> None:
        """Stop the server as an operator would, and wait for its end; its data stay. A frozen one is thawed first.

        Raises:
            NotSupported: the server is not ours.
            BrokerFailed: it did not end in time and had to be killed.
        """
        with self._lock:
            process = self._ours("stop")
            if process is None:
                return
            self.resume()
            process.signal("T")
            ended = process.wait(self.grace)
            tail = "" if ended else self.log_tail()
            self._drop()
            if not ended:
                message = f"{self.kind} did not stop within {self.grace:g} s and was killed{tail}"
                raise BrokerFailed(message, endpoint=f"{self.host}:{self.port}")

    def kill(self) -> None:
        """SIGKILL the server and wait for its end; what it had written stays."""
        with self._lock:
            if self._ours("kill") is not None:
                self._drop()

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): its port still accepts, but it answers nothing."""
        with self._lock:
            process = self._ours("pause")
            if process is None:
                raise StateError(f"this {self.kind} broker is not running")
            process.signal("S")
            self._paused = True

    def resume(self) -> None:
        """Thaw a frozen server (SIGCONT). Nothing happens if it is not frozen."""
        with self._lock:
            process = self._ours("resume")
            if process is not None and self._paused:
                process.signal("C")
                self._paused = False

    def close(self) -> None:
        """End the server and remove its data. Idempotent; a server that is not ours stays as it is."""
        if os.getpid() != self._pid:  # a forked child holds a copy of this object, not of the server
            return
        with self._lock:
            self._closed = True
            self._drop()
            if self.folder is not None:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder = None

    def log_tail(self, lines: int = LOG_LINES) -> str:
        """The last ``lines`` of the server's log, indented and led by a line break, or "" if there are none."""
        if self.folder is None:
            return ""
        try:
            text = (self.folder / "server.log").read_text(errors="replace")
        except OSError:
            return ""
        last = [line for line in text.splitlines() if line.strip()][-lines:]
        return "".join(f"\n    {line}" for line in (["the log ends with:", *last] if last else []))

    def __repr__(self) -> str:
        name = type(self).__name__
        if self.external:
            return f"<{name} {_without_password(self.external)} from {self.variable}>"
        state = "paused" if self._paused else "running" if self.running else "closed" if self._closed else "down"
        where = f" {self._scheme}://{self.host}:{self.port}" if self.ports else ""
        return f"<{name}{where} {state}{f' pid={self.pid}' if self.pid else ''}>"

    # --- how

    def _ours(self, verb: str) -> Process | None:
        if self.external:
            raise NotSupported(
                f"cannot {verb} the {self.kind} server that {self.variable} names; {type(self).__name__}(own=True) "
                "starts one that can be"
            )
        return self._process if self.running else None

    def _check_external(self) -> None:
        assert self.external is not None
        scheme = urlsplit(self.external).scheme
        if scheme not in {self.scheme, self.scheme + "s"}:
            raise BrokerUnavailable(f"{self.variable} must be a {self.scheme}:// URL, not {scheme or 'a bare name'}")
        addresses = _addresses(self.external)
        if not any(reachable(host, port) for host, port in addresses):
            named = ",".join(f"{host}:{port}" for host, port in addresses)
            raise BrokerUnavailable(f"nobody answers at {named}, which {self.variable} names: start it, or unset that")

    def _start(self) -> None:
        self.locate()
        if self._process is not None:  # it ended by itself
            self._drop()
        if self.ports:
            self._launch()
            return
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self.folder = Path(tempfile.mkdtemp(prefix=f"simlink-{self.kind}-"))
            self.ports = free_ports(self.port_count)
            try:
                self._prepare(self.folder)
                self._launch()
            except BaseException as error:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder, self.ports = None, []
                # Somebody else was faster to take a port that was free a moment ago.
                taken = isinstance(error, BrokerFailed) and any(word in str(error).lower() for word in PORT_IN_USE)
                if not taken or attempt == PORT_ATTEMPTS:
                    raise
            else:
                return

    def _launch(self) -> None:
        assert self.folder is not None
        command, extra = self._command(self.folder)
        env = {**_clean_environment(), **extra}
        try:
            self._process = Process(
                command, env=env, folder=self.folder, log=self.folder / "server.log", remove=self.folder
            )
        except OSError as error:
            raise BrokerFailed(f"{self.kind} cannot be started: {error}") from error
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self._drop()
            raise

    def _wait_until_ready(self, process: Process) -> None:
        deadline = time.monotonic() + self.timeout
        where = f"{self.host}:{self.port}"
        while True:
            try:
                if self._ready():
                    return
            except OSError:
                pass
            if process.status is not None:
                raise BrokerFailed(
                    f"{self.kind} ended with status {process.status} while starting{self.log_tail()}", endpoint=where
                )
            if time.monotonic() > deadline:
                raise BrokerFailed(
                    f"{self.kind} was not ready at {where} after {self.timeout:g} s{self.log_tail()}", endpoint=where
                )
            time.sleep(0.02)

    def _drop(self) -> None:
        if self._process is not None:
            self._process.close()
        self._process = None
        self._paused = False


def _clean_environment() -> dict[str, str]:
    """The environment without what would reconfigure a server behind our back."""
    foreign = ("RABBITMQ_", "ERL_", "KAFKA_", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH")
    return {key: value for key, value in os.environ.items() if not key.startswith(foreign)}


def _without_password(url: str) -> str:
    # By hand: of a password with a '/' in it urlsplit takes one half for a host.
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest.rpartition('@')[2])[0]}"


def _addresses(url: str) -> list[tuple[str, int]]:
    """Every host and port of a URL with a comma list of hosts. Raises BrokerUnavailable if a port is missing."""
    found = []
    for part in _without_password(url).partition("://")[2].split(","):
        host, _, port = part.rpartition(":")
        if not host or not port.isdigit():
            raise BrokerUnavailable(f"a broker's URL needs host:port, not {part!r}")
        found.append((host.strip("[]"), int(port)))
    return found
