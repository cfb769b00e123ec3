"""Where the recorded files are, and names on the broker that no other test has."""

from __future__ import annotations

import uuid
from contextlib import suppress

import pytest

from tests.support.recorded import recorded


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
