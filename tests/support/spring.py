"""The Java receiver of examples/spring-receiver: built once, started, killed and started again."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from simlink.testing.brokers import BrokerFailed, BrokerUnavailable
from simlink.testing.brokers.process import Process
from simlink.testing.brokers.tools import cache_folder, find_java, find_maven, locked

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCES = Path(__file__).resolve().parents[2] / "examples" / "spring-receiver"
BUILD_TIMEOUT = 600.0
READY_TIMEOUT = 90.0


def build_receiver() -> Path:
    """The receiver's jar, built by Maven and kept in the user's cache under a digest of its sources.

    Raises:
        BrokerUnavailable: Java or Maven is missing.
        BrokerFailed: it does not build.
    """
    java = find_java()
    files = [SOURCES / "pom.xml", *sorted(path for path in (SOURCES / "src").rglob("*") if path.is_file())]
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        digest.update(f"{file.relative_to(SOURCES)}\0".encode() + file.read_bytes() + b"\0")
    jar = cache_folder() / f"spring-receiver-{digest.hexdigest()}.jar"
    if jar.exists():
        return jar
    maven = find_maven()
    if not (Path(java).with_name("javac").exists() or shutil.which("javac")):
        raise BrokerUnavailable("a Java compiler is needed: apt-get install default-jdk-headless")
    with locked(jar.with_suffix(".lock")), tempfile.TemporaryDirectory(prefix="simlink-spring-") as folder:
        if jar.exists():
            return jar
        # Built on a copy: the checkout stays clean, and may be read-only.
        shutil.copytree(SOURCES, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("target"))
        command = [maven, "-B", "-q", "-ntp", "package"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False)
        if done.returncode:
            raise BrokerFailed(f"the Java receiver does not build:\n{done.stdout}{done.stderr}")
        part = jar.with_suffix(".part")
        shutil.copyfile(Path(folder) / "target" / "spring-receiver.jar", part)
        part.rename(jar)
    return jar


def receiver_jar_or_skip() -> Path:
    """The jar; skips the test where it cannot be built, or fails it with SIMLINK_REQUIRE_BROKERS=1."""
    try:
        return build_receiver()
    except BrokerUnavailable as error:
        if os.environ.get("SIMLINK_REQUIRE_BROKERS", "0") not in {"", "0"}:
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


class SpringReceiver:
    """One Java receiver, as a context manager: entered, its partitions are assigned; left, it is gone.

    Args:
        bootstrap: Kafka's ``host:port``.
        topic: what it reads; it must exist.
        folder: where its ids and its log go.
        group: the consumer group. Default: the topic's name.
        instance: the name under which it gets its partitions back at once after a kill (static membership). None
            makes it an ordinary member, whose partitions are free again when its session has expired.
        properties: Spring properties, such as ``{"receiver.id-field": "id"}``.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        folder: Path,
        *,
        group: str | None = None,
        instance: str | None = "receiver-1",
        properties: dict[str, str] | None = None,
    ) -> None:
        self.jar = receiver_jar_or_skip()
        self.out = folder / f"{instance or 'receiver'}-ids.txt"
        self.log = folder / f"{instance or 'receiver'}.log"
        self.folder = folder
        settings = {
            "spring.kafka.bootstrap-servers": bootstrap,
            "receiver.topic": topic,
            "receiver.group": group or topic,
            "receiver.out": str(self.out),
            **({"spring.kafka.consumer.properties.group.instance.id": instance} if instance else {}),
            **(properties or {}),
        }
        # For a virtual machine that is soon killed again.
        options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        self.command = [find_java(), *options, "-jar", str(self.jar), *(f"--{k}={v}" for k, v in settings.items())]
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.status is None

    @property
    def pid(self) -> int | None:
        """The process id of the Java machine, None while it is down."""
        return self._process.pid if self._process is not None and self.running else None

    def start(self, *, wait: bool = True, timeout: float = READY_TIMEOUT) -> None:
        """Start it; with ``wait``, return once partitions are assigned to it."""
        assert not self.running, "it runs already"
        self.kill()
        before = self._assignments()
        self._process = Process(self.command, env=dict(os.environ), folder=self.folder, log=self.log)
        if wait:
            self._wait(lambda: self._assignments() > before, timeout, "got no partitions")

    def stop(self, timeout: float = 30.0) -> int:
        """SIGTERM, as an operator would; returns the exit status (143 is Java's for a clean end)."""
        assert self._process is not None, "it does not run"
        self._process.signal("T")
        ended, status = self._process.wait(timeout), self._process.status
        tail = self._tail()
        self.kill()
        assert ended, f"the Java receiver did not stop within {timeout:g} s{tail}"
        assert status is not None
        return status

    def kill(self) -> None:
        """SIGKILL, and wait for its end. Nothing happens if it does not run."""
        if self._process is not None:
            self._process.close()
        self._process = None

    def restart(self, *, wait: bool = True) -> None:
        """Kill it and start it again, with the same group, name and file."""
        self.kill()
        self.start(wait=wait)

    def ids(self) -> list[str]:
        """Every id that it wrote down before acknowledging it, repeats included, in order."""
        return self.out.read_text(encoding="utf-8").splitlines() if self.out.exists() else []

    def wait_for(self, count: int, timeout: float = 60.0) -> list[str]:
        """Wait until it has written ``count`` different ids; returns all it wrote."""
        self._wait(lambda: len(set(self.ids())) >= count, timeout, f"did not write {count} ids")
        return self.ids()

    def _wait(self, done: Callable[[], bool], timeout: float, problem: str) -> None:
        deadline = time.monotonic() + timeout
        while not done():
            if not self.running:
                raise BrokerFailed(f"the Java receiver {problem}: it ended{self._tail()}")
            if time.monotonic() > deadline:
                raise BrokerFailed(
                    f"the Java receiver {problem} within {timeout:g} s ({len(self.ids())} ids){self._tail()}"
                )
            time.sleep(0.05)

    def _assignments(self) -> int:
        if not self.log.exists():
            return 0
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            return sum(line.startswith("assigned ") and bool(line[9:].strip()) for line in lines)

    def _tail(self) -> str:
        if not self.log.exists():
            return ""
        lines = [x for x in self.log.read_text(errors="replace").splitlines() if not x.startswith("event ")]
        return "".join(f"\n    {line}" for line in lines[-30:])
