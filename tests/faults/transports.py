"""The rows of the table: how to reach each transport through a fault, and what it promises.

To add one takes a few lines at the end of this file: a scheme, what the last table of the semantics says of it, and,
where it has a broker, how to ask that broker what a dead receiver had not settled.
"""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass

from simlink.channels.registry import known_schemes
from simlink.testing.brokers import KafkaBroker, RabbitMQBroker, RedisBroker
from simlink.testing.brokers.ports import free_ports
from simlink.testing.chaos import FaultProxy
from tests.faults import secured
from tests.faults.child import HAND
from tests.faults.places import BEATS, BROKER, CREDENTIALS, NETWORK, PROCESSES, TLS, Place, Shared

PREFETCH = 200
WINDOW = 2_000
SECURED = frozenset({CREDENTIALS, TLS})


@dataclass(frozen=True, kw_only=True)
class Transport:
    """A row.

    Attributes:
        name: of the row.
        scheme: of its URLs.
        params: what its URLs have behind ``?``.
        beats: the same, where it is to notice soon that nobody is there any more.
        has: what a fault may need of it.
        loss: "confirmed": what was confirmed arrives. "settled": what was settled was handed out, and what was
            confirmed arrives if the sender lived and nothing was unsettled at its close. "none": loss is allowed.
        order: "key": first hand-outs of a key are in order over all receivers' lives. "life": those of a producer, in
            each life. "fresh": the same, but for what another receiver may have handed out before. "none".
        prefetch: of its receivers; None where the buffer is bounded by `params`.
        forgets: a broker that crashes forgets acknowledgements that it had not written yet. It writes them at the
            latest with what it confirms, and may take so many seconds for it.
        one_process: both ends live in one.
        stays: so many sockets without an address stay as long as the process: the pair of an event loop that is never
            closed, however many channels there were.
        garbage: sockets may be left to the garbage collector, which is run before what is left is counted.
        secret: the option by which both sides know each other.
        bare: the secret may be shown without encryption, and is, where it is what is tried.
        denied: what a refusal for wrong credentials must say, a regular expression.
    """

    name: str
    scheme: str
    params: str = ""
    beats: str = ""
    has: frozenset = frozenset({PROCESSES, NETWORK, BEATS}) | SECURED
    loss: str = "settled"
    order: str = "life"
    prefetch: int | None = None
    forgets: float | None = None
    one_process: bool = False
    garbage: bool = False
    stays: int = 0
    secret: str = "token"
    bare: bool = False
    denied: str = ""

    def query(self, needs):
        """What its URLs have behind their path in a cell."""
        if BEATS not in needs or not self.beats:
            return self.params
        return f"{self.params}{'&' if self.params else '?'}{self.beats}"

    @contextlib.contextmanager
    def place(self, needs):
        """Somewhere to run one cell."""
        if needs & SECURED:
            with secured.listening(self, needs) as place:
                yield place
            return
        name = f"fault-{uuid.uuid4().hex[:12]}"
        if self.one_process:
            url = f"{self.scheme}://{name}{self.query(needs)}"
            yield Place(url, url)
            return
        target = f"127.0.0.1:{free_ports(1)[0]}"
        params = self.query(needs)
        direct = f"{self.scheme}://{target}/{name}{params}"
        with contextlib.ExitStack() as stack:
            proxy = stack.enter_context(FaultProxy(target)) if NETWORK in needs else None
            through = f"{self.scheme}://{proxy.address}/{name}{params}" if proxy else direct
            yield Place(through, direct, proxy, direct_url=direct)

    def held_at_death(self, place, received):
        """H: how many of the messages in hand of a receiver that was just killed were not settled. Brokerless it is
        the sender who counts them: they are in X."""
        return 0

    def held_by_losses(self, scene, report):
        """H: how many hand-outs a receiver that lived may have lost its hold of, from what it reports."""
        return 0


@dataclass(frozen=True, kw_only=True)
class Brokered(Transport):
    """A row with a broker.

    Attributes:
        shared: the broker of most cells.
        guarded: one with TLS and a password.
        own: makes a broker that a cell may kill.
    """

    has: frozenset = frozenset({PROCESSES, NETWORK, BEATS, BROKER}) | SECURED
    loss: str = "confirmed"
    prefetch: int | None = PREFETCH
    shared: Shared
    guarded: Shared
    own: type

    @contextlib.contextmanager
    def place(self, needs):
        if needs & SECURED:
            with secured.brokered(self, needs) as place:
                yield place
            return
        name = f"fault-{uuid.uuid4().hex[:12]}"
        with contextlib.ExitStack() as stack:
            broker = stack.enter_context(self.own()) if BROKER in needs else self.shared.start()
            proxy = stack.enter_context(self.shared.proxy()) if NETWORK in needs else None
            _, _, address = broker.url.partition("://")
            credentials, at, host = address.rpartition("@")
            params = self.query(needs)
            direct = f"{self.scheme}://{address}/{name}{params}"
            through = f"{self.scheme}://{credentials}{at}{proxy.address if proxy else host}/{name}{params}"
            yield Place(through, through, proxy, broker, direct)


class Kafka(Brokered):
    """Holds are partitions: what a group has not committed comes again."""

    def held_at_death(self, place, received):
        from tests.support.kafka import committed, topic_of

        return max(0, received - committed(place.broker, topic_of(place.direct_url)))

    def held_by_losses(self, scene, report):
        # Joining is the first assignment; each further one may have cost the partitions, with what was not committed,
        # which is at most the prefetch in each (rule 20).
        again = max(0, report["driver"]["rebalances"] - 1)
        return again * PREFETCH * PARTITIONS


class Redis(Brokered):
    """Holds are entries of the group's pending list."""

    def held_at_death(self, place, received):
        from redis import Redis as Client

        name = place.direct_url.rpartition("/")[2].partition("?")[0]
        with Client(host=place.broker.host, port=place.broker.port) as client:
            return client.xpending(name, name)["pending"]


class Synced(RedisBroker):
    """Its log is on the disk before it answers."""

    def _command(self, folder):
        command, env = super()._command(folder)
        command[command.index("--appendfsync") + 1] = "always"
        return command, env


class RabbitMQ(Brokered):
    """A hold is a channel: with it goes what was prefetched, and acknowledgements that were not sent yet."""

    def held_at_death(self, place, received):
        return PREFETCH + UNSENT

    def held_by_losses(self, scene, report):
        # Every connection that the fault broke may have been the receiver's.
        return scene.breaks * (PREFETCH + UNSENT)


UNSENT = 2 * HAND
"""Acknowledgements that a receiver of ours may not have sent yet: it makes them by `HAND`."""
PARTITIONS = 3
KAFKA = Shared(lambda addresses: KafkaBroker(own=True, advertised=addresses), slots=10)
KAFKA_PARAMS = f"?partitions={PARTITIONS}&session_timeout=6&heartbeat=2"

REDIS = Shared(lambda _: Synced(own=True), slots=10)
RABBITMQ = Shared(lambda _: RabbitMQBroker(own=True), slots=10)

GUARDED_KAFKA = Shared(lambda _: KafkaBroker(own=True, **secured.guarded()), slots=0)
GUARDED_REDIS = Shared(lambda _: RedisBroker(own=True, **secured.guarded()), slots=0)
GUARDED_RABBITMQ = Shared(lambda _: RabbitMQBroker(own=True, **secured.guarded()), slots=0)

_ALL = (
    Transport(name="memory", scheme="memory", has=frozenset(), loss="confirmed", order="key", one_process=True),
    Transport(
        name="tcp",
        scheme="tcp",
        params=f"?buffer_messages={WINDOW}",
        secret="secret",
        bare=True,
        denied=r"does not know the shared secret$",
    ),
    *(
        Kafka(
            name=f"kafka, {client}",
            scheme=f"kafka+{client}",
            params=KAFKA_PARAMS,
            beats="request_timeout=8",
            order="key",
            shared=KAFKA,
            guarded=GUARDED_KAFKA,
            denied=r"uthentication failed .*invalid credentials",
            own=lambda: KafkaBroker(own=True),
            # kafka-python 3.0 does not close the socket of an attempt to connect that was refused.
            garbage=client == "python",
        )
        for client in ("confluent", "python")
    ),
    Transport(
        name="http",
        scheme="http",
        params=f"?buffer_messages={WINDOW}",
        denied=r"401: the credentials are wrong$",
    ),
    Transport(name="grpc", scheme="grpc", params=f"?buffer_messages={WINDOW}", stays=2, denied=r"token|credentials"),
    RabbitMQ(
        name="amqp",
        scheme="amqp",
        beats="heartbeat=2",
        shared=RABBITMQ,
        guarded=GUARDED_RABBITMQ,
        own=lambda: RabbitMQBroker(own=True),
        # rabbit_queue_index: its journal is synced when there are outstanding confirms, or the queue is idle.
        forgets=1.0,
        denied=r"refused the user 'ann': wrong name or password",
    ),
    Redis(
        name="redis",
        scheme="redis",
        params="?min_idle=3",
        beats="request_timeout=3",
        # What a dead receiver held is claimed when it has been idle for long enough, whatever was read meanwhile.
        order="fresh",
        shared=REDIS,
        guarded=GUARDED_REDIS,
        own=lambda: Synced(own=True),
        denied=r"refused the user or the password",
    ),
)
TRANSPORTS = tuple(row for row in _ALL if row.scheme in known_schemes())
"""Every row."""


def close_brokers():
    """End what the rows share."""
    rows = [row for row in TRANSPORTS if isinstance(row, Brokered)]
    for shared in {row.shared for row in rows} | {row.guarded for row in rows}:
        shared.close()
