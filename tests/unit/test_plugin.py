"""The pytest plugin, seen from a user's test suite."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from simlink.testing.brokers import available
from simlink.testing.brokers.process import reachable

pytest_plugins = ["pytester"]

# What else pytest would load here, for nothing.
OTHERS = ["cacheprovider", "hypothesispytest", "faker", "timeout", "anyio"]

FAKE_CHANNEL = """
import pytest
from types import SimpleNamespace
from simlink.errors import NotSupported
import simlink.channels.channel

calls = []

class Fake:
    brokerless = False
    refuses = False
    def __init__(self, url):
        self.url = url
        self.capabilities = SimpleNamespace(brokerless=self.brokerless)
        calls.append(f"open {url}")
    def close(self, *, timeout=None):
        calls.append("close")
    def delete(self):
        calls.append("delete")
        if self.refuses:
            raise NotSupported("delete()")

@pytest.fixture(autouse=True)
def fake(monkeypatch):
    for mode in ("queue", "topic"):
        monkeypatch.setattr(simlink.channels.channel, mode, Fake)
    return Fake

def pytest_unconfigure():
    print()
    for call in calls:
        print("CALL", call)
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """Run a test file in a process of its own, as a user would."""
    monkeypatch.delenv("SIMLINK_SEED", raising=False)
    monkeypatch.delenv("SIMLINK_REQUIRE_BROKERS", raising=False)
    monkeypatch.delenv("SIMLINK_REDIS_URL", raising=False)

    def run(source, *args, fake=False):
        pytester.makepyfile(source)
        if fake:
            pytester.makeconftest(FAKE_CHANNEL)
        return pytester.runpytest_subprocess(*(f"-pno:{name}" for name in OTHERS), *args)

    return run


def calls(result):
    return [line.removeprefix("CALL ") for line in result.outlines if line.startswith("CALL ")]


def test_loading_it_imports_nothing_else():
    program = (
        "import sys, pytest; before = set(sys.modules); import simlink.testing.plugin\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["simlink", "simlink.testing", "simlink.testing.plugin"]


def test_a_suite_that_uses_no_fixture_pays_nothing(suite):
    result = suite(
        """
        import sys
        def test_it():
            heavy = {"numpy", "msgspec", "kafka", "pika", "redis", "simlink.errors", "simlink.testing.brokers"}
            assert "simlink.testing.plugin" in sys.modules
            assert not heavy & set(sys.modules)
        """
    )
    result.assert_outcomes(passed=1)


# --- the seed

SEEDS = """
def test_good(simlink_seed):
    print("good has", simlink_seed)

def test_bad(simlink_seed):
    assert simlink_seed is None
"""


def test_the_seed_is_random_and_printed_for_the_test_that_failed(suite):
    seeds = []
    for _ in range(2):
        result = suite(SEEDS)
        result.assert_outcomes(passed=1, failed=1)
        lines = [line for line in result.outlines if "--simlink-seed=" in line]
        assert len(lines) == 1
        seeds.append(re.fullmatch(r"seed (\d+), the same again: --simlink-seed=(\d+)", lines[0]).groups())
    assert seeds[0] != seeds[1]
    assert all(shown == again for shown, again in seeds)


def test_the_seed_can_be_given(suite, monkeypatch):
    monkeypatch.setenv("SIMLINK_SEED", "11")
    suite(SEEDS, "-s").stdout.fnmatch_lines(["*good has 11*"])
    suite(SEEDS, "-s", "--simlink-seed=7").stdout.fnmatch_lines(["*good has 7*"])
    monkeypatch.setenv("SIMLINK_SEED", "seven")
    result = suite(SEEDS)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*SIMLINK_SEED must be a whole number, not 'seven'*"])


# --- brokers

USES_REDIS = """
def test_one(redis_broker):
    print("URL", redis_broker.url)

def test_two(redis_broker):
    print("URL", redis_broker.url)
"""


def test_a_missing_broker_skips_with_a_line_or_fails(suite, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = suite(USES_REDIS, "-rs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*redis-server is not installed: apt-get install redis-server*"])
    monkeypatch.setenv("SIMLINK_REQUIRE_BROKERS", "0")
    suite(USES_REDIS).assert_outcomes(skipped=2)
    monkeypatch.setenv("SIMLINK_REQUIRE_BROKERS", "1")
    result = suite(USES_REDIS)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*apt-get install redis-server*SIMLINK_REQUIRE_BROKERS is set*"])


@pytest.fixture
def redis_installed():
    here, how = available()["redis"]
    if not here:
        pytest.skip(how)


def test_one_broker_serves_the_session_and_ends_with_it(suite, redis_installed):
    result = suite(USES_REDIS, "-s")
    result.assert_outcomes(passed=2)
    one, two = re.findall(r"URL redis://127\.0\.0\.1:(\d+)", result.stdout.str())
    assert one == two
    assert not reachable("127.0.0.1", int(one))


# --- channels

USES_CHANNELS = """
import pytest

def test_queue(simlink_queue):
    pass

@pytest.mark.parametrize("odd", ["a b/ü?"])
def test_topic(simlink_topic, odd):
    pass
"""


@pytest.mark.parametrize(
    ("option", "before", "after"),
    [
        ((), "memory://", ""),
        (("--simlink-url=tcp://127.0.0.1:0",), "tcp://127.0.0.1:0/", ""),
        (("--simlink-url=kafka://k:9092/",), "kafka://k:9092/", ""),
        (("--simlink-url=redis://h:1/0?x=1",), "redis://h:1/0/", "?x=1"),
        (("--simlink-url=spool:///tmp/spool/",), "spool:///tmp/spool/", ""),
    ],
)
def test_every_test_gets_a_fresh_name_which_is_deleted_after_it(suite, option, before, after):
    result = suite(USES_CHANNELS, *option, fake=True)
    result.assert_outcomes(passed=2)
    made = calls(result)
    assert [call.split()[0] for call in made] == ["open", "close", "open", "delete", "close"] * 2
    queue, queue_again, topic, topic_again = [call.split()[1] for call in made if call.startswith("open")]
    assert (queue, topic) == (queue_again, topic_again)
    for url, name in ((queue, "test-queue"), (topic, "test-topic-a-b")):
        assert re.fullmatch(re.escape(before) + name + r"[a-z0-9-]*-[0-9a-f]{10}" + re.escape(after), url)


def test_a_transport_that_keeps_nothing_is_not_asked_to_delete(suite):
    result = suite(
        """
        def test_brokerless(fake, simlink_queue):
            simlink_queue.capabilities.brokerless = True
        def test_refuses(fake, simlink_queue, monkeypatch):
            fake.refuses = True
        """,
        fake=True,
    )
    result.assert_outcomes(passed=2)
    kinds = [call.split()[0] for call in calls(result)]
    assert kinds == ["open", "close", "open", "close", "open", "delete", "close"]


def test_a_url_without_a_host_starts_the_broker(suite, redis_installed):
    result = suite(
        """
        from simlink.testing.brokers.process import reachable
        def test_it(simlink_queue):
            address = simlink_queue.url.removeprefix("redis+pubsub://").partition("/")[0]
            host, port = address.split(":")
            assert reachable(host, int(port))
        """,
        "--simlink-url=redis+pubsub://?delivery=at-most-once",
        fake=True,
    )
    result.assert_outcomes(passed=1)
    assert re.match(
        r"open redis\+pubsub://127\.0\.0\.1:\d+/test-it-[0-9a-f]+\?delivery=at-most-once$", calls(result)[0]
    )


def test_a_url_that_is_none_fails_clearly(suite):
    result = suite(USES_CHANNELS, "--simlink-url=kafka")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*--simlink-url=kafka is not a URL: expected scheme://*"])


def test_the_address_is_shown_when_a_test_fails(suite):
    result = suite("def test_it(simlink_queue):\n    assert False\n", fake=True)
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([r"simlink_queue memory://test-it-[0-9a-f]{10}"])


def test_the_channel_carries_messages(suite):
    result = suite(
        """
        def test_queue(simlink_queue):
            with simlink_queue.receiver() as receiver:
                simlink_queue.send({"n": 1})
                assert receiver.get(timeout=10).value == {"n": 1}

        def test_topic(simlink_topic):
            with simlink_topic.receiver() as one, simlink_topic.receiver("named") as two:
                simlink_topic.send({"n": 2})
                assert [r.get(timeout=10).value for r in (one, two)] == [{"n": 2}] * 2
        """
    )
    result.assert_outcomes(passed=2)
