"""Where the recorded files are, and names on the broker that no other test has."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def recorded(name: str) -> Path:
    """A recorded file. Where it is not there the test skips; in CI, which must have it, it fails."""
    named = os.environ.get("SIMLINK_DATA")
    file = (Path(named) if named else REPOSITORY.parent / "shared" / "data") / name
    if not file.is_file():
        message = f"{name} is not there: SIMLINK_DATA names the folder that has it"
        if os.environ.get("CI") and os.environ.get("SIMLINK_REQUIRE_BROKERS", "0") not in {"", "0"}:
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    return file


@pytest.fixture
def access_log():
    return recorded("apache_access.log")


@pytest.fixture
def fresh(kafka_broker):
    """Makes URLs of destinations that are deleted afterwards."""
    import simlink
    from simlink.errors import ConfigError

    made = []

    def url(scheme="kafka", **options):
        base = kafka_broker.url.replace("kafka://", f"{scheme}://")
        made.append(f"{base}/main-{uuid.uuid4().hex[:12]}")
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"{made[-1]}?{query}" if query else made[-1]

    yield url
    for one in made:
        # A foreign receiver that keeps its name stays in its group for a while after its end, and the group with it.
        with simlink.queue(one) as queue, suppress(ConfigError):
            queue.delete()
