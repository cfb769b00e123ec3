"""The pytest plugin, loaded by itself where simlink is installed. It imports nothing until a fixture is used.

Fixtures:
    simlink_queue, simlink_topic: an open channel with a fresh name, removed from its transport after the test.
    simlink_seed: a seed, printed when the test fails.
    kafka_broker, rabbitmq_broker, redis_broker: a real server for the session; skips where there is none to be had.

Options:
    --simlink-url: where the channels are, ``memory://`` by default. A fresh name is appended; ``kafka://``, ``amqp://``
        and ``redis://`` without a host use the broker fixtures.
    --simlink-seed: the seed; also SIMLINK_SEED. Random by default.

With SIMLINK_REQUIRE_BROKERS=1 a broker that is missing fails the tests that need it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from simlink.channels.channel import Channel
    from simlink.testing.brokers import Broker, KafkaBroker, RabbitMQBroker, RedisBroker

__all__: list[str] = []

BROKER_OF_SCHEME: Final = {"kafka": "kafka_broker", "amqp": "rabbitmq_broker", "redis": "redis_broker"}
CLOSE_TIMEOUT: Final = 2.0
"""Seconds at the end of a test: what it left unread is nobody's, so there is little to wait for."""

_seed = pytest.StashKey[int]()
_lines = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("simlink", "simulated traffic")
    group.addoption(
        "--simlink-url",
        metavar="URL",
        default="memory://",
        help="the transport of simlink_queue and simlink_topic; a fresh name is appended to it, and kafka://, amqp:// "
        "or redis:// without a host start a broker (default: %(default)s)",
    )
    group.addoption(
        "--simlink-seed",
        metavar="N",
        type=int,
        default=None,
        help="the seed of simlink_seed (default: $SIMLINK_SEED, or a random one)",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the seed and the addresses of a test that failed."""
    report = yield
    lines = item.stash.get(_lines, None)
    if report.failed and lines:
        report.sections.append(("simlink", "\n".join(lines)))
    return report


def _note(request: pytest.FixtureRequest, line: str) -> None:
    request.node.stash.setdefault(_lines, []).append(line)


@pytest.fixture
def simlink_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this session: ``--simlink-seed``, SIMLINK_SEED, or a random one. Printed when the test fails."""
    stash = request.config.stash
    if _seed not in stash:
        given = request.config.getoption("--simlink-seed")
        named = os.environ.get("SIMLINK_SEED")
        if given is not None:
            stash[_seed] = given
        elif named:
            try:
                stash[_seed] = int(named)
            except ValueError:
                pytest.fail(f"SIMLINK_SEED must be a whole number, not {named!r}", pytrace=False)
        else:
            import secrets

            stash[_seed] = secrets.randbelow(2**32)
    _note(request, f"seed {stash[_seed]}, the same again: --simlink-seed={stash[_seed]}")
    return stash[_seed]


def _fresh_url(request: pytest.FixtureRequest) -> str:
    """The option's URL with a name that no other test has, and with a broker's address if it has none."""
    import re
    import secrets

    # All that a topic, a queue, a stream or a file may be called, everywhere.
    test = re.sub(r"[^a-zA-Z0-9]+", "-", request.node.name).strip("-")[:40].rstrip("-")
    name = f"{test}-{secrets.token_hex(5)}"
    base, question, query = str(request.config.getoption("--simlink-url")).partition("?")
    scheme, separator, rest = base.partition("://")
    if not separator:
        pytest.fail(f"--simlink-url={base} is not a URL: expected scheme:// or scheme://host:port", pytrace=False)
    rest = rest.rstrip("/") if rest.strip("/") else ""
    broker = BROKER_OF_SCHEME.get(scheme.partition("+")[0])
    if not rest and broker:
        rest = request.getfixturevalue(broker).url.partition("://")[2]
    return f"{scheme}://{rest}{'/' if rest else ''}{name}{question}{query}"


def _channel(request: pytest.FixtureRequest, make: Callable[[str], Channel]) -> Iterator[Channel]:
    from simlink.errors import NotSupported

    url = _fresh_url(request)
    channel = make(url)
    _note(request, f"{request.fixturename} {channel.url}")
    try:
        yield channel
    finally:
        channel.close(timeout=CLOSE_TIMEOUT)
        if not channel.capabilities.brokerless:  # those leave nothing anywhere
            # Deleted by a channel of its own, once nobody reads: a group or a queue in use would refuse.
            cleaner = make(url)
            try:
                cleaner.delete()
            except NotSupported:
                pass
            finally:
                cleaner.close(timeout=CLOSE_TIMEOUT)


@pytest.fixture
def simlink_queue(request: pytest.FixtureRequest) -> Iterator[Channel]:
    """An open queue with a fresh name on the transport of ``--simlink-url``; removed after the test."""
    from simlink.channels.channel import queue

    yield from _channel(request, queue)


@pytest.fixture
def simlink_topic(request: pytest.FixtureRequest) -> Iterator[Channel]:
    """An open topic with a fresh name on the transport of ``--simlink-url``; removed after the test."""
    from simlink.channels.channel import topic

    yield from _channel(request, topic)


def _broker(kind: str) -> Iterator[Any]:
    from simlink.testing.brokers import BROKERS, BrokerUnavailable

    broker: Broker = BROKERS[kind]()
    try:
        broker.start()
    except BrokerUnavailable as error:
        if os.environ.get("SIMLINK_REQUIRE_BROKERS", "0") not in {"", "0"}:
            pytest.fail(f"{error} (SIMLINK_REQUIRE_BROKERS is set)", pytrace=False)
        pytest.skip(str(error))
    else:
        yield broker
    finally:
        broker.close()


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[KafkaBroker]:
    """A real Kafka for the session, or the one that SIMLINK_KAFKA_URL names."""
    yield from _broker("kafka")


@pytest.fixture(scope="session")
def rabbitmq_broker() -> Iterator[RabbitMQBroker]:
    """A real RabbitMQ for the session, or the one that SIMLINK_AMQP_URL names."""
    yield from _broker("rabbitmq")


@pytest.fixture(scope="session")
def redis_broker() -> Iterator[RedisBroker]:
    """A real Redis for the session, or the one that SIMLINK_REDIS_URL names."""
    yield from _broker("redis")
