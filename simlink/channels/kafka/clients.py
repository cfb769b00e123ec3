"""What the driver needs of a Kafka client, and which of the two clients gives it.

The adapters are thin: they speak their library's dialect and nothing else. Order, recovery, commits, redelivery and
everything else that has a meaning is written once, in `sender` and `receiver`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from simlink.errors import ConfigError
from simlink.message import Batch

if TYPE_CHECKING:
    from simlink.channels.kafka.lanes import Lane, Ruling
    from simlink.channels.kafka.settings import Settings

__all__ = ["AdminClient", "Client", "ConsumerClient", "Hooks", "Polled", "ProducerClient", "Records", "Rows"]


class Rows(NamedTuple):
    """Columns of what is to be produced, all of the same length."""

    bodies: Sequence[bytes]
    keys: Sequence[bytes | None]
    headers: Sequence[list[tuple[str, bytes]]]
    partitions: Sequence[int]
    timestamps: Sequence[int | None]
    """Milliseconds since 1970 UTC, or None for the client's own clock."""

    def behind(self, row: int) -> Rows:
        """The rows from this one on."""
        return Rows(
            self.bodies[row:], self.keys[row:], self.headers[row:], self.partitions[row:], self.timestamps[row:]
        )


class Records(NamedTuple):
    """Consecutive records of one partition."""

    partition: int
    offsets: Sequence[int]
    batch: Batch


@dataclass(slots=True)
class Polled:
    """What one poll brought.

    Attributes:
        records: in order within each partition.
        adrift: partitions that have no valid position: nothing was ever committed, or the log no longer has it.
    """

    records: list[Records] = field(default_factory=list)
    adrift: list[int] = field(default_factory=list)


class ProducerClient(ABC):
    """An idempotent producer with acks=all for one topic. Used by one thread at a time.

    Attributes:
        broken: the client can no longer be used (a fatal error): recover.
    """

    broken: bool = False

    @abstractmethod
    def produce(self, rows: Rows, lanes: Sequence[Lane]) -> tuple[int, dict[int, Exception]]:
        """Hand rows over in order. How many were taken before the client's queue was full; of those, the ones that
        the client refused at once. ``lanes[p]`` gets the reports of the others of partition p, in order."""

    @abstractmethod
    def judge(self, error: Any) -> Ruling:
        """What an error in a report means."""

    @abstractmethod
    def poll(self, timeout: float, *, hurry: bool = False) -> None:
        """Let reports come in: returns after the first, or after ``timeout`` seconds. With ``hurry`` whatever is queued
        is sent at once instead of lingering for more, and the wait may last until all of it has its report."""

    @abstractmethod
    def abandon(self, grace: float) -> None:
        """Give up: what is queued is not sent any more, what is on the wire may wait ``grace`` seconds for its answer.
        Afterwards every row has its report, and the client is of no more use."""

    @abstractmethod
    def close(self, timeout: float) -> None:
        """Send what is queued, for at most ``timeout`` seconds, and end every thread. Idempotent."""

    @property
    @abstractmethod
    def native(self) -> Any:
        """The library's own producer."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a consumer tells about its assignment, from inside `ConsumerClient.poll` and ``close``.

    Attributes:
        assigned: these partitions are ours from now on.
        revoking: these will go to somebody else: stop handing out. Whether nothing of them is in hand any more; asked
            again until it is so or the grace is over.
        revoked: they are about to go: the offsets to commit first, by partition.
        lost: they are gone already.
    """

    assigned: Callable[[Sequence[int]], None]
    revoking: Callable[[Sequence[int]], bool]
    revoked: Callable[[Sequence[int]], Mapping[int, int]]
    lost: Callable[[Sequence[int]], None]


class ConsumerClient(ABC):
    """A consumer of one topic, never committing by itself. Used by one thread at a time."""

    @abstractmethod
    def subscribe(self, hooks: Hooks) -> None:
        """Join the group; the assignment comes with later polls."""

    @abstractmethod
    def assign(self, positions: Mapping[int, int]) -> None:
        """Read these partitions from these offsets without a group, besides those assigned before."""

    @abstractmethod
    def poll(self, limit: int, timeout: float) -> Polled:
        """At most about ``limit`` records, as soon as there is one."""

    @abstractmethod
    def joined(self) -> bool:
        """Whether the group has answered with an assignment, perhaps an empty one."""

    @abstractmethod
    def pause(self, partitions: Sequence[int]) -> None:
        """Fetch nothing of these any more. What was polled before stays polled."""

    @abstractmethod
    def resume(self, partitions: Sequence[int]) -> None:
        """Go on behind what was polled last."""

    @abstractmethod
    def seek(self, partition: int, offset: int) -> None:
        """Read this assigned partition from here."""

    @abstractmethod
    def committed(self, partitions: Sequence[int], timeout: float) -> dict[int, int]:
        """The group's committed offsets, for the partitions that have one."""

    @abstractmethod
    def bounds(self, partitions: Sequence[int], timeout: float) -> dict[int, tuple[int, int]]:
        """The first offset in the log and the next to be written, of each."""

    @abstractmethod
    def count(self, timeout: float) -> int:
        """How many partitions the topic has now; 0 if that cannot be learnt."""

    @abstractmethod
    def at_time(self, partitions: Sequence[int], milliseconds: int, timeout: float) -> dict[int, int]:
        """The offset of the first record of each that is not older; missing where there is none."""

    @abstractmethod
    def commit(self, offsets: Mapping[int, int], done: Callable[[Exception | None], None]) -> None:
        """Commit soon; ``done`` is called from a later `poll`."""

    @abstractmethod
    def commit_now(self, offsets: Mapping[int, int], timeout: float) -> None:
        """Commit and wait. Before `subscribe` this is a commit from outside, which the broker takes only while the
        group has no members.

        Raises:
            GroupBusy: from outside, and the group has members.
            TransportError: it did not work out in time.
        """

    @abstractmethod
    def close(self, timeout: float) -> None:
        """Leave the group and end every thread. Idempotent."""

    @property
    @abstractmethod
    def native(self) -> Any:
        """The library's own consumer."""


class GroupBusy(ConfigError):
    """The group's offsets cannot be set from outside: it has live members."""


class AdminClient(ABC):
    """Topics and groups; made for a few calls and closed."""

    @abstractmethod
    def partitions(self, topic: str, timeout: float) -> int | None:
        """How many partitions the topic has, all with a leader; 0 while that is settling, None if it does not exist."""

    @abstractmethod
    def create(self, topic: str, partitions: int, replication: int, timeout: float) -> bool:
        """Create the topic; False if it is there already."""

    @abstractmethod
    def delete_topic(self, topic: str, timeout: float) -> bool:
        """Delete the topic; False if it is not there."""

    @abstractmethod
    def groups(self, timeout: float) -> list[str]:
        """The names of all groups."""

    @abstractmethod
    def group_topics(self, group: str, timeout: float) -> set[str]:
        """The topics that the group has committed offsets of."""

    @abstractmethod
    def delete_group(self, group: str, timeout: float) -> bool:
        """Delete the group and its offsets; False if it is not there."""

    @abstractmethod
    def delete_records(self, topic: str, before: Mapping[int, int], timeout: float) -> None:
        """Drop what lies before these offsets."""

    @abstractmethod
    def bounds(self, topic: str, partitions: Sequence[int], timeout: float) -> dict[int, tuple[int, int]]:
        """As `ConsumerClient.bounds`."""

    @abstractmethod
    def close(self) -> None:
        """End every thread. Idempotent."""


class Client(ABC):
    """One of the two client libraries: makes the three kinds of client, and knows its errors."""

    name: str

    @abstractmethod
    def check(self, settings: Settings) -> None:
        """Refuse what this library cannot do, without I/O. Raises ConfigError."""

    @abstractmethod
    def producer(self, settings: Settings, timeout: float) -> ProducerClient: ...

    @abstractmethod
    def consumer(self, settings: Settings, group: str | None, timeout: float) -> ConsumerClient: ...

    @abstractmethod
    def admin(self, settings: Settings, timeout: float) -> AdminClient: ...
