"""Real brokers: they speak, keep their data and their port, and nothing of them stays behind."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from simlink.errors import ConfigError, NotSupported, StateError
from simlink.testing import brokers
from simlink.testing.brokers import (
    BROKERS,
    BrokerFailed,
    BrokerUnavailable,
    RedisBroker,
    available,
    base,
    detached,
    ports,
)
from simlink.testing.brokers.ports import free_ports
from simlink.testing.brokers.process import reachable
from simlink.testing.brokers.tools import cache_folder, copy_dependencies, find_java, java_version, locked

REQUIRED = os.environ.get("SIMLINK_REQUIRE_BROKERS", "0") not in {"", "0"}


class Redis:
    def write(self, broker, text):
        import redis

        with redis.Redis(host=broker.host, port=broker.port) as client:
            client.xadd("s", {"text": text})

    def read(self, broker):
        import redis

        with redis.Redis(host=broker.host, port=broker.port) as client:
            return [fields[b"text"].decode() for _, fields in client.xrange("s")]


class RabbitMQ:
    def write(self, broker, text):
        import pika

        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("q", durable=True)
            channel.basic_publish("", "q", text.encode(), pika.BasicProperties(delivery_mode=2), mandatory=True)

    def read(self, broker):
        import pika

        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            channel = connection.channel()
            count = channel.queue_declare("q", durable=True, passive=True).method.message_count
            # Closing without acknowledging gives them back.
            return [channel.basic_get("q")[2].decode() for _ in range(count)]


class Kafka:
    def write(self, broker, text):
        from kafka import KafkaAdminClient, KafkaProducer
        from kafka.admin import NewTopic
        from kafka.errors import TopicAlreadyExistsError

        address = f"{broker.host}:{broker.port}"
        admin = KafkaAdminClient(bootstrap_servers=address)
        with suppress(TopicAlreadyExistsError):
            admin.create_topics([NewTopic("t", 1, 1)])
        admin.close()
        producer = KafkaProducer(bootstrap_servers=address, acks="all")
        producer.send("t", text.encode()).get(30)
        producer.close()

    def read(self, broker):
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=f"{broker.host}:{broker.port}")
        partition = TopicPartition("t", 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end = consumer.end_offsets([partition])[partition]
        found = []
        deadline = time.monotonic() + 30
        while len(found) < end and time.monotonic() < deadline:
            found += [m.value.decode() for batch in consumer.poll(500).values() for m in batch]
        consumer.close()
        return found


CLIENTS = {"redis": Redis(), "rabbitmq": RabbitMQ(), "kafka": Kafka()}


@pytest.fixture(autouse=True)
def _no_servers_from_outside(monkeypatch):
    for broker in BROKERS.values():
        monkeypatch.delenv(broker.variable, raising=False)


@pytest.fixture(params=sorted(BROKERS))
def kind(request):
    here, how = available()[request.param]
    if not here:
        (pytest.fail if REQUIRED else pytest.skip)(how)
    return request.param


@pytest.fixture
def redis_server():
    here, how = available()["redis"]
    if not here:
        (pytest.fail if REQUIRED else pytest.skip)(how)


def family(broker):
    """Every process that exists for this broker's sake: the watchdog, the server, and its helpers."""
    watchdog = psutil.Process(broker._process._watchdog.pid)
    return [watchdog, *watchdog.children(recursive=True)]


def wait_gone(pids, timeout=20.0):
    deadline = time.monotonic() + timeout
    alive = list(pids)
    while alive and time.monotonic() < deadline:
        alive = [p for p in alive if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE]
        time.sleep(0.02)
    return alive


def test_keeps_port_and_data_over_stop_and_kill_and_leaves_nothing(kind):
    client = CLIENTS[kind]
    with BROKERS[kind]() as broker:
        port, folder = broker.port, broker.folder
        assert broker.url.endswith(f"@127.0.0.1:{port}" if "@" in broker.url else f"//127.0.0.1:{port}")
        client.write(broker, "one")
        seen = {p.pid for p in family(broker)}

        broker.stop()
        assert not broker.running
        assert not reachable("127.0.0.1", port)
        assert wait_gone(seen) == []
        broker.start()
        broker.start()  # does nothing
        assert broker.port == port
        assert client.read(broker) == ["one"]

        client.write(broker, "two")
        seen |= {p.pid for p in family(broker)}
        broker.kill()
        assert not reachable("127.0.0.1", port)
        broker.start()
        assert client.read(broker) == ["one", "two"]
        seen |= {p.pid for p in family(broker)}
    assert wait_gone(seen) == []
    assert not folder.exists()
    assert not reachable("127.0.0.1", port)
    broker.close()
    with pytest.raises(StateError, match="closed"):
        broker.start()


def test_two_at_once_do_not_see_each_other(kind):
    client = CLIENTS[kind]
    with BROKERS[kind]() as one, BROKERS[kind]() as two:
        assert not set(one.ports) & set(two.ports)
        client.write(one, "to one")
        client.write(two, "to two")
        assert client.read(one) == ["to one"]
        assert client.read(two) == ["to two"]
        two.kill()
        assert client.read(one) == ["to one"]


PARENT = """
import json, os, sys, threading, time
import psutil
from simlink.testing.brokers import BROKERS
broker = BROKERS[sys.argv[1]]()
# A parent-death signal would fire when this thread ends, and a pipe would be held open by the forked child.
starter = threading.Thread(target=broker.start)
starter.start()
starter.join()
forked = os.fork() if "fork" in sys.argv else None
if forked == 0:
    os.close(1)  # the test reads that one to its end
    time.sleep(120)
    os._exit(0)
watchdog = psutil.Process(broker._process._watchdog.pid)
pids = [watchdog.pid, *(p.pid for p in watchdog.children(recursive=True))]
print(json.dumps({"pids": pids, "folder": str(broker.folder), "port": broker.port, "forked": forked}), flush=True)
if "leave" not in sys.argv:
    sys.stdin.read()
"""


def start_parent(*args):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    line = parent.stdout.readline()
    assert line, "the parent did not get its broker up"
    return parent, json.loads(line)


def check_all_gone(told):
    assert wait_gone(told["pids"]) == []
    deadline = time.monotonic() + 10
    while Path(told["folder"]).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(told["folder"]).exists()
    assert not reachable("127.0.0.1", told["port"])


def test_dies_with_a_killed_parent_and_takes_its_helpers_and_data(kind):
    parent, told = start_parent(kind)
    with parent:
        # It outlived the thread that started it.
        assert reachable("127.0.0.1", told["port"])
        assert len(told["pids"]) >= (4 if kind == "rabbitmq" else 2)
        parent.kill()
        parent.wait()
        check_all_gone(told)


def test_dies_with_a_killed_parent_even_if_a_forked_child_lives_on(redis_server):
    parent, told = start_parent("redis", "fork")
    with parent:
        parent.kill()
        parent.wait()
        try:
            assert psutil.pid_exists(told["forked"])
            check_all_gone(told)
        finally:
            os.kill(told["forked"], signal.SIGKILL)


def test_dies_with_a_parent_that_exits_without_closing_it(redis_server):
    parent, told = start_parent("redis", "leave")
    with parent:
        parent.wait(30)
        check_all_gone(told)


def test_dies_with_its_watchdog(redis_server):
    with RedisBroker() as broker:
        pid = broker.pid
        broker._process._watchdog.kill()
        assert wait_gone([pid]) == []
        assert not broker.running
        broker.start()
        assert broker.running


def test_a_server_that_ended_by_itself_can_be_started_again(redis_server):
    with RedisBroker() as broker:
        port = broker.port
        CLIENTS["redis"].write(broker, "kept")
        os.kill(broker.pid, signal.SIGKILL)
        assert broker._process.wait(10)
        assert broker.pid is None
        assert "down" in repr(broker)
        broker.stop()  # nothing to stop
        broker.start()
        assert (broker.port, CLIENTS["redis"].read(broker)) == (port, ["kept"])


def test_a_forked_child_cannot_close_its_parents_broker(redis_server):
    with RedisBroker() as broker:
        pid = os.fork()
        if pid == 0:
            broker.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert broker.running
        assert reachable(broker.host, broker.port)


def test_pause_answers_nothing_until_resume(redis_server):
    with RedisBroker() as broker:
        broker.pause()
        assert "paused" in repr(broker)
        with socket.create_connection((broker.host, broker.port), 5) as connection:
            connection.settimeout(0.3)
            connection.sendall(b"PING\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(10)
            broker.resume()
            connection.settimeout(10)
            assert connection.recv(10).startswith(b"+PONG")
        broker.pause()
        broker.stop()  # a frozen one is thawed first, so it ends in time
        with pytest.raises(StateError, match="not running"):
            broker.pause()
        broker.start()
        broker.pause()
    assert not broker.running


def test_the_environment_variable_wins(redis_server, monkeypatch):
    with RedisBroker() as real:
        monkeypatch.setenv("SIMLINK_REDIS_URL", f"redis://:secret@127.0.0.1:{real.port}/")
        with RedisBroker() as named:
            assert named.url == f"redis://:secret@127.0.0.1:{real.port}"
            assert (named.host, named.port, named.pid) == ("127.0.0.1", real.port, None)
            assert "secret" not in repr(named)
            for verb in (named.stop, named.kill, named.pause, named.resume):
                with pytest.raises(NotSupported, match=r"SIMLINK_REDIS_URL.*own=True"):
                    verb()
        assert real.running
        assert available()["redis"] == (True, f"redis://127.0.0.1:{real.port}, from SIMLINK_REDIS_URL")
        with RedisBroker(own=True) as own:
            assert own.port != real.port


@pytest.mark.parametrize("password", ["se/cret", "se?cret", "se#cret", "se@cret"])
def test_no_part_of_a_password_is_told_even_where_it_is_not_escaped(password, monkeypatch):
    monkeypatch.setenv("SIMLINK_REDIS_URL", f"redis://ann:{password}@127.0.0.1:6379/0?x=1")
    assert available()["redis"] == (True, "redis://127.0.0.1:6379, from SIMLINK_REDIS_URL")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://127.0.0.1:{port}", "nobody answers at 127.0.0.1:{port}, which SIMLINK_REDIS_URL names"),
        ("kafka://127.0.0.1:{port}", "must be a redis:// URL, not kafka"),
        ("redis://127.0.0.1", "needs host:port, not '127.0.0.1'"),
        ("somewhere", "must be a redis:// URL, not a bare name"),
    ],
)
def test_an_environment_variable_that_names_no_server(url, message, monkeypatch):
    port = free_ports(1)[0]
    monkeypatch.setenv("SIMLINK_REDIS_URL", url.format(port=port))
    with pytest.raises(BrokerUnavailable, match=message.format(port=port)), RedisBroker():
        pass


def test_a_missing_server_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(brokers.rabbitmq, "DEBIAN", tmp_path / "none")
    found = available()
    assert {name: here for name, (here, _) in found.items()} == {"kafka": False, "rabbitmq": False, "redis": False}
    for name, package in {"kafka": "openjdk-17", "rabbitmq": "rabbitmq-server", "redis": "redis-server"}.items():
        line = found[name][1]
        assert f"apt-get install {package}" in line
        assert BROKERS[name].variable in line
        assert "\n" not in line
        with pytest.raises(BrokerUnavailable) as raised, BROKERS[name]():
            pass
        assert str(raised.value) == line


def test_a_server_that_cannot_start_shows_its_log_and_leaves_nothing(redis_server, monkeypatch):
    made = []

    class Wrong(RedisBroker):
        def _command(self, folder):
            made.append(folder)
            command, env = super()._command(folder)
            return [*command, "--no-such-setting", "1"], env

    with pytest.raises(BrokerFailed, match=r"(?s)redis ended with status 1 while starting.*no-such-setting"), Wrong():
        pass
    assert len(made) == 1
    assert not made[0].exists()


def test_a_server_that_is_never_ready_is_given_up_and_ended(redis_server):
    pids = []

    class Never(RedisBroker):
        def _ready(self):
            pids.append(self.pid)
            return False

    broker = Never(timeout=0.3)
    with pytest.raises(BrokerFailed, match=r"not ready at 127.0.0.1:\d+ after 0.3 s"), broker:
        pass
    assert wait_gone(pids[:1]) == []
    assert broker.folder is None


def test_a_port_that_was_taken_meanwhile_is_replaced(redis_server, monkeypatch):
    with socket.socket() as rival:
        rival.bind(("127.0.0.1", 0))
        rival.listen()
        taken = rival.getsockname()[1]
        given = []

        def ports(count):
            given.append(free_ports(count) if given else [taken])
            return given[-1]

        monkeypatch.setattr(base, "free_ports", ports)

        class Slow(RedisBroker):
            def _ready(self):
                # The rival accepts and says nothing; what counts is that the server ends.
                return self.port != taken and super()._ready()

        with Slow() as broker:
            assert broker.port != taken
        assert len(given) == 2


def test_free_ports_lie_below_the_systems_outgoing_ones():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(10_000 <= port < first_outgoing for port in ports)


def test_a_port_that_was_given_to_another_process_is_not_given_again_soon(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asks = "from simlink.testing.brokers.ports import free_ports; print(*free_ports(2))"
    env = os.environ | {"TMPDIR": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True, env=env).stdout
    given = {int(port) for port in told.split()}
    # Whatever may be given, those first.
    monkeypatch.setattr(
        random.SystemRandom, "sample", lambda self, these, k: sorted(these, key=lambda p: p not in given)[:k]
    )
    assert not given & set(free_ports(2))
    monkeypatch.setattr(ports, "KEPT", 0.0)
    assert given == set(free_ports(2))


@pytest.mark.parametrize("obstacle", ["a folder", "a link", "nonsense"])
def test_ports_are_found_where_nothing_can_be_noted(monkeypatch, tmp_path, obstacle):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    note = tmp_path / f"simlink-ports-{os.getuid()}"
    if obstacle == "a folder":
        note.mkdir()
    elif obstacle == "a link":
        (tmp_path / "elsewhere").write_text("dear")
        note.symlink_to(tmp_path / "elsewhere")
    else:
        note.write_bytes(b"[\xff")
    assert len(set(free_ports(5))) == 5
    if obstacle == "a link":
        assert note.read_text() == "dear"


def test_no_address_before_the_start():
    with pytest.raises(StateError, match="no address yet"):
        _ = RedisBroker().url


# --- detached


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path
    detached.down()


def test_detached_outlives_its_starter_until_down(redis_server, cache):
    program = "from simlink.testing.brokers import detached; print(detached.up(['redis'])[0].url)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    url = done.stdout.strip()
    (told,) = detached.status(["redis"])
    assert (told.state, told.url, told.variable) == ("up", url, "SIMLINK_REDIS_URL")
    assert [status.state for status in detached.status()] == ["down", "down", "up"]
    port = int(url.rpartition(":")[2])
    assert reachable("127.0.0.1", port)
    assert detached.up(["redis"]) == [told]
    pids = [told.pid, *(p.pid for p in psutil.Process(told.pid).children(recursive=True))]
    assert len(pids) == 3
    assert detached.down() == ["redis"]
    assert wait_gone(pids) == []
    assert detached.down() == []
    assert detached.status(["redis"])[0].state == "down"


def test_detached_state_of_a_killed_keeper_is_not_believed(redis_server, cache):
    (told,) = detached.up(["redis"])
    pids = [p.pid for p in psutil.Process(told.pid).children(recursive=True)]
    os.kill(told.pid, signal.SIGKILL)
    assert wait_gone([told.pid, *pids]) == []
    assert detached.status(["redis"])[0].state == "down"
    (again,) = detached.up(["redis"])
    assert again.state == "up"


def test_detached_refuses_unknown_names_and_missing_servers(cache, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="'kafak': did you mean kafka"):
        detached.up(["kafak"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerUnavailable, match="apt-get install redis-server"):
        detached.up(["redis"])


# --- downloads


FAKE_MAVEN = """#!/bin/sh
echo called >> "$CALLS"
for word in "$@"; do case "$word" in -DoutputDirectory=*) folder="${word#*=}";; esac; done
sleep 0.2
if [ -n "$FAIL" ]; then echo "[ERROR] no such artifact"; exit 1; fi
echo jar > "$folder/a.jar"
"""


@pytest.fixture
def maven(monkeypatch, tmp_path):
    program = tmp_path / "bin" / "mvn"
    program.parent.mkdir()
    program.write_text(FAKE_MAVEN)
    program.chmod(0o755)
    calls = tmp_path / "calls"
    calls.touch()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(calls))
    (tmp_path / "pom.xml").write_text("<project/>")
    return calls


def test_parallel_starts_download_once(maven, tmp_path):
    target = tmp_path / "cache" / "jars"
    starters = [threading.Thread(target=copy_dependencies, args=(tmp_path / "pom.xml", target)) for _ in range(4)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert maven.read_text() == "called\n"
    assert (target / "a.jar").read_text() == "jar\n"


def test_a_failed_download_says_why_and_leaves_no_half_folder(maven, tmp_path, monkeypatch):
    target = tmp_path / "cache" / "jars"
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(BrokerUnavailable, match=r"could not download jars: \[ERROR\] no such artifact"):
        copy_dependencies(tmp_path / "pom.xml", target)
    assert [path.name for path in target.parent.iterdir()] == ["jars.lock"]
    monkeypatch.delenv("FAIL")
    copy_dependencies(tmp_path / "pom.xml", target)
    assert target.is_dir()


def test_an_old_java_is_named(monkeypatch, tmp_path):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_402\"' >&2\n")
    java.chmod(0o755)
    assert java_version(str(java)) == 8
    (tmp_path / "release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="21.0.2"\n')
    assert java_version(str(java)) == 21
    (tmp_path / "release").write_text('JAVA_VERSION="11.0.9"\n')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(BrokerUnavailable, match=r"Java 17 or newer is needed \(.*/bin/java is version 11\)"):
        find_java()


def test_a_lock_is_free_once_its_holder_is_dead(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lock = cache_folder() / "x.lock"
    program = (
        "import sys; from pathlib import Path; from simlink.testing.brokers.tools import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
        with locked(lock):
            pass


def test_kafka_sends_the_clients_of_a_further_listener_to_the_address_in_front_of_it():
    from kafka import KafkaAdminClient

    from simlink.testing.brokers import KafkaBroker
    from simlink.testing.chaos import FaultProxy

    try:
        KafkaBroker.locate()
    except BrokerUnavailable as error:
        if REQUIRED:
            raise
        pytest.skip(str(error))
    with FaultProxy() as proxy, KafkaBroker(own=True, advertised=[proxy.address]) as broker:
        (proxy.target,) = broker.behind

        def told(address):
            admin = KafkaAdminClient(bootstrap_servers=address)
            try:
                (node,) = admin.describe_cluster()["brokers"]
                return f"{node['host']}:{node['port']}"
            finally:
                admin.close()

        assert told(proxy.address) == proxy.address
        assert told(f"{broker.host}:{broker.port}") == f"{broker.host}:{broker.port}"
