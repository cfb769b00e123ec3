"""A real Apache Kafka: one KRaft node, from jars that Maven downloads once."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from simlink.errors import ConfigError, NotSupported
from simlink.testing.brokers.base import Broker, BrokerFailed, BrokerUnavailable
from simlink.testing.brokers.process import reachable
from simlink.testing.brokers.security import Certificates, private_key_as_pkcs8
from simlink.testing.brokers.tools import cache_folder, copy_dependencies, find_java, find_maven, locked

__all__ = ["KafkaBroker"]

VERSION: Final = "4.1.1"
POM: Final = Path(__file__).with_name("kafka-pom.xml")
QUICK: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Measured on two cores: half the processor time and 2/3 of the memory of the defaults, and no less throughput."""

SCRAM: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512")
SETTINGS: Final = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # Tests create what they need, so that a misspelt name fails.
    "auto.create.topics.enable": "false",
    # One node holds everything; few internal partitions are created and recovered faster.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "2",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "2",
    # A group starts with its first member, and a test may ask for a session as short as it dares.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "100",
    "group.consumer.min.session.timeout.ms": "100",
    "group.consumer.min.heartbeat.interval.ms": "50",
    # A commit waits for 5 ms by default for others to share its write.
    "group.coordinator.append.linger.ms": "0",
    # A killed broker may come back only when its old session has expired (9 s by default).
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "200",
    # The default takes 128 MiB of heap.
    "log.cleaner.dedupe.buffer.size": "4194304",
    # Deleted topics free the disk soon.
    "log.segment.delete.delay.ms": "1000",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


class KafkaBroker(Broker):
    """A real Kafka 4.1 server of one node; ready in about 3 s. See :class:`~simlink.testing.brokers.base.Broker`.

    The jars come from ``$KAFKA_HOME/libs``, or else from Maven (once, 54 MB, into the user's cache). Topics are not
    created by themselves. Its environment variable is SIMLINK_KAFKA_URL.

    Args:
        own: as in Broker.
        timeout: as in Broker; the download has its own 10 minutes.
        tls, user, password: as in Broker. The user may log in by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
        heap: the largest heap of the server, as Java writes it. Default "512m".
        settings: server properties that are added or replace those of this module.
        advertised: addresses (``host:port``), each of something in front of this server, such as a
            `simlink.testing.chaos.FaultProxy`. For each there is a listener of its own, see ``behind``, whose clients
            are told to come to that address: Kafka's clients connect to where the server says it is, not to where they
            first asked. Not for a server with TLS or a login.
    """

    kind: ClassVar[str] = "kafka"
    scheme: ClassVar[str] = "kafka"
    variable: ClassVar[str] = "SIMLINK_KAFKA_URL"

    def __init__(
        self,
        *,
        own: bool = False,
        timeout: float = 60.0,
        tls: Certificates | None = None,
        user: str | None = None,
        password: str | None = None,
        heap: str = "512m",
        settings: dict[str, str] | None = None,
        advertised: Sequence[str] = (),
    ) -> None:
        super().__init__(own=own, timeout=timeout, tls=tls, user=user, password=password)
        if password is not None and user is None:
            raise ConfigError("Kafka knows no password without a user: give user= too")
        if advertised and self.security:
            raise NotSupported("advertised= is for a server without TLS and login")
        self.advertised = tuple(advertised)
        self.port_count = 3 + len(self.advertised)
        self.heap = heap
        self.settings = dict(settings or {})
        self._java: list[str] = []

    @property
    def behind(self) -> tuple[str, ...]:
        """For each of ``advertised``, in their order: the ``host:port`` that leads to the server from there.

        Raises:
            NotSupported: the server is not ours.
        """
        if self.external:
            raise NotSupported(f"the server that {self.variable} names advertises what it does; use own=True")
        return tuple(f"{self.host}:{port}" for port in self.ports[3:])

    @classmethod
    def locate(cls) -> str:
        try:
            java = find_java()
            local = _local_jars()
            if local.is_dir():
                return f"{local}, run by {java}"
            return f"{find_maven()} will download Kafka {VERSION} (54 MB, once), run by {java}"
        except BrokerUnavailable as error:
            problem = str(error).partition(": ")[0]
            raise BrokerUnavailable(
                f"Kafka cannot run, {problem}: apt-get install openjdk-17-jre-headless maven, "
                "or set SIMLINK_KAFKA_URL=kafka://HOST:PORT"
            ) from error

    @classmethod
    def fetch(cls) -> None:
        if not os.environ.get(cls.variable):
            cls.locate()
            cls(own=True)._find_java()

    def _prepare(self, folder: Path) -> None:
        client, controller, _, *behind = self.ports
        names = [f"BEHIND{number}" for number in range(len(behind))]
        listeners = [f"{name}://127.0.0.1:{port}" for name, port in zip(names, behind, strict=True)]
        told = [f"{name}://{address}" for name, address in zip(names, self.advertised, strict=True)]
        protocols = SETTINGS["listener.security.protocol.map"]
        settings = {
            **SETTINGS,
            "listener.security.protocol.map": ",".join([protocols, *(f"{name}:PLAINTEXT" for name in names)]),
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": ",".join(
                [f"PLAINTEXT://127.0.0.1:{client}", f"CONTROLLER://127.0.0.1:{controller}", *listeners]
            ),
            "advertised.listeners": ",".join([f"PLAINTEXT://127.0.0.1:{client}", *told]),
            "log.dirs": str(folder / "data"),
            **(self._secured(folder) if self.security else {}),
            **self.settings,
        }
        file = folder / "server.properties"
        file.touch(0o600)
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), encoding="utf-8")
        identity = _cluster_id()
        self._java = self._find_java()
        command = [*self._java, *QUICK, "kafka.tools.StorageTool", "format", "-t", identity, "-c", "server.properties"]
        command += self._scram()
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=self.timeout)
        except subprocess.CalledProcessError as error:
            raise BrokerFailed(f"Kafka's storage cannot be formatted: {error.stdout}{error.stderr}") from error
        except subprocess.TimeoutExpired as error:
            raise BrokerFailed(f"Kafka's storage was not formatted within {self.timeout:g} s") from error

    def _secured(self, folder: Path) -> dict[str, str]:
        client, controller, plain = self.ports[:3]
        tls, user, password = self.security.tls, self.security.user, self.security.password
        protocol = ("SASL_" if password is not None else "") + ("SSL" if tls else "PLAINTEXT")
        here = "listener.name.door."
        found = {
            "listeners": f"DOOR://127.0.0.1:{client},PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"DOOR://127.0.0.1:{client},PLAINTEXT://127.0.0.1:{plain}",
            "listener.security.protocol.map": f"DOOR:{protocol},PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
        }
        if password is not None:
            found[f"{here}sasl.enabled.mechanisms"] = ",".join((*SCRAM, "PLAIN"))
            login = f'required user_{user}="{_escaped(password)}";'
            found[f"{here}plain.sasl.jaas.config"] = f"org.apache.kafka.common.security.plain.PlainLoginModule {login}"
            for mechanism in SCRAM:
                key = f"{here}{mechanism.lower()}.sasl.jaas.config"
                found[key] = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        if tls is not None:
            keystore = folder / "keystore.pem"
            keystore.touch(0o600)
            certificate = Path(tls.cert).read_text(encoding="ascii")
            keystore.write_text(private_key_as_pkcs8(tls.key) + certificate, encoding="ascii")
            found |= {f"{here}ssl.keystore.type": "PEM", f"{here}ssl.keystore.location": str(keystore)}
            if tls.ca:
                found |= {
                    f"{here}ssl.truststore.type": "PEM",
                    f"{here}ssl.truststore.location": str(Path(tls.ca).absolute()),
                    f"{here}ssl.client.auth": "required",
                }
        return found

    def _scram(self) -> list[str]:
        """What the formatting of the storage is told, for the user to be there before the server is."""
        user, password = self.security.user, self.security.password
        if password is None:
            return []
        return [w for m in SCRAM for w in ("--add-scram", f'{m}=[name="{user}",password="{password}"]')]

    def _find_java(self) -> list[str]:
        """The start of every Java command: the program, the class path, the prepared classes."""
        jars = _local_jars()
        if not jars.is_dir():
            copy_dependencies(POM, jars)
        java = [find_java(), "-cp", f"{jars}/*", "-Xshare:auto"]
        archive = _prepared_classes(java)
        return [*java, f"-XX:SharedArchiveFile={archive}"] if archive else java

    def _command(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        options = (
            *QUICK,
            f"-Xmx{self.heap}",
            "-XX:+ExitOnOutOfMemoryError",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
        )
        return [*self._java, *options, "kafka.Kafka", str(folder / "server.properties")], {}

    def _ready(self) -> bool:
        if self.security and not reachable(self.host, self.port):
            return False
        # A secured one has a plain door besides, on a port that nobody is told: by it we see that it is ready.
        with socket.create_connection((self.host, self.ports[2] if self.security else self.port), 1) as connection:
            connection.settimeout(5)
            # Metadata 1 of no topics: a broker names itself once it is registered and unfenced, after its port opens.
            brokers = struct.unpack_from(">i", _ask(connection, 3, 1, struct.pack(">i", 0)))[0]
            if brokers < 1:
                return False
            # InitProducerId 0 and FindCoordinator 0: the first of each finds what it needs still being made, and
            # clients then wait for a second. Asked here, so that the first test does not pay.
            producer = struct.unpack_from(">ih", _ask(connection, 22, 0, struct.pack(">hi", -1, 0)))[1]
            group = struct.unpack_from(">h", _ask(connection, 10, 0, struct.pack(">h", 1) + b"-"))[0]
            return bool(producer == 0 and group == 0)


class _Training(KafkaBroker):
    """A server that lives once, to write the classes that it loaded into an archive when it stops."""

    def __init__(self, java: list[str], archive: Path) -> None:
        super().__init__(own=True)
        self._plain = java
        self._archive = archive

    def _find_java(self) -> list[str]:
        return self._plain

    def _command(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        command, env = super()._command(folder)
        # A virtual machine that has no such archives must start all the same.
        command[1:1] = ["-XX:+IgnoreUnrecognizedVMOptions", f"-XX:ArchiveClassesAtExit={self._archive}"]
        return command, env


def _prepared_classes(java: list[str]) -> Path | None:
    """An archive of Kafka's parsed classes, written once for each Java: a start takes 1.5 s with it, 3 s without.

    The virtual machine checks by itself that it fits the jars, and does without it if not.
    """
    name = hashlib.blake2b("\0".join([*java, str(Path(java[0]).resolve())]).encode(), digest_size=6).hexdigest()
    archive = cache_folder() / f"kafka-{VERSION}-classes-{name}.jsa"
    if not archive.exists():
        with locked(archive.with_suffix(".lock")):
            if not archive.exists():
                part = archive.with_suffix(".part")
                part.unlink(missing_ok=True)
                try:
                    with _Training(java, part) as server:
                        server.stop()
                except BrokerFailed:
                    return None  # only speed is lost; what is really wrong will show in the start that follows
                # Left empty, it tells that this Java writes none.
                part.touch()
                part.rename(archive)
    return archive if archive.stat().st_size else None


def _local_jars() -> Path:
    home = os.environ.get("KAFKA_HOME")
    if home and (Path(home) / "libs").is_dir():
        return Path(home) / "libs"
    return cache_folder() / f"kafka-{VERSION}"


def _escaped(text: str) -> str:
    """For a quoted value inside a properties file, where a backslash counts twice."""
    return text.replace("\\", "\\\\\\\\").replace('"', '\\\\"')


def _cluster_id() -> str:
    """A random UUID as Kafka writes it: URL-safe base64 without padding, and not starting with a dash."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not text.startswith("-"):
            return text


def _ask(connection: socket.socket, key: int, version: int, body: bytes) -> bytes:
    """One request in Kafka's protocol, without a client id; returns the answer behind its correlation id."""
    request = struct.pack(">hhih", key, version, 0, -1) + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    return _read(connection, struct.unpack(">i", _read(connection, 4))[0])[4:]


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("Kafka hung up")
        data += part
    return data
