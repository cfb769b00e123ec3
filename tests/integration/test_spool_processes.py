"""The spool example across processes: competing, dying without warning, forking, and files from strangers."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from simlink.channels.channel import queue, topic
from simlink.errors import ConnectError, InvalidURL, ReceiveError
from tests.support import spool

spool.installed()

READ = """
import sys, threading
from simlink.channels.channel import queue
with queue(sys.argv[1]) as channel, channel.receiver(prefetch=10) as rx:
    print("ready", flush=True)
    for at, delivery in enumerate(rx):
        print(delivery.value, flush=True)
        if at == 0:
            sys.stdin.readline()  # busy until everybody has one
            threading.Thread(target=lambda: (sys.stdin.read(), rx.stop())).start()
"""
HOLD = """
import sys
from simlink.channels.channel import queue, topic
make = queue if sys.argv[2] == "queue" else topic
with make(sys.argv[1]) as channel, channel.receiver(settle="manual", prefetch=10) as rx:
    print("ready", flush=True)
    held = [rx.get(timeout=20.0) for _ in range(int(sys.argv[3]))]
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def url(tmp_path):
    return f"spool://{tmp_path}/orders"


@pytest.fixture
def start():
    """Start a child; every one of them is gone after the test."""
    children = []

    def run(program, *args):
        child = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, args)],
            env=spool.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        assert child.stdout.readline() == "ready\n"
        return child

    yield run
    for child in children:
        child.kill()
        child.communicate()


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def until(done, what):
    deadline = time.monotonic() + 60.0
    while not done():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.01)


def test_competing_processes_get_each_message_once(url, start, tmp_path):
    with queue(url) as channel:
        children = [start(READ, url) for _ in range(3)]
        channel.send_many(list(range(200)))
        shares = [[child.stdout.readline()] for child in children]
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        # Looked at twice: one that is moved while the folders are walked may be missed once.
        until(lambda: not files(tmp_path) and not files(tmp_path), "every message is settled")
        for share, child in zip(shares, children, strict=True):
            share.extend(child.communicate(timeout=60)[0].splitlines())

    assert sorted(int(value) for share in shares for value in share) == list(range(200))


def test_a_killed_receivers_messages_move_on_one_attempt_later(url, start):
    with queue(url) as channel, channel.receiver(settle="manual") as rx:
        child = start(HOLD, url, "queue", 3)
        channel.send_many([0, 1, 2])
        assert child.stdout.readline() == "held\n"
        channel.send(3)
        child.send_signal(signal.SIGKILL)
        child.wait()
        seen = [rx.get(timeout=20.0) for _ in range(4)]

        assert sorted((d.value, d.attempt) for d in seen) == [(0, 2), (1, 2), (2, 2), (3, 1)]


def test_a_killed_private_subscriber_leaves_nothing_behind(url, start, tmp_path):
    with topic(url) as channel:
        child = start(HOLD, url, "topic", 1)
        channel.send("for the child")
        assert child.stdout.readline() == "held\n"
        assert len(list(tmp_path.glob("orders.topic/~*"))) == 1
        child.send_signal(signal.SIGKILL)
        child.wait()
        channel.send("for nobody")

    assert files(tmp_path) == []
    assert list(tmp_path.glob("orders.topic/~*")) == []


def test_a_forked_child_does_not_keep_the_locks_of_its_parent(url):
    with queue(url) as channel:
        keep, go = os.pipe()
        with channel.receiver(settle="manual") as rx:
            channel.send(1)
            rx.get(timeout=20.0)
            pid = os.fork()
            if pid == 0:
                os.close(go)
                os.read(keep, 1)  # lives on until the parent says
                os._exit(0)
            os.close(keep)
        try:
            with channel.receiver() as other:
                assert other.get(timeout=30.0).attempt == 2
        finally:
            os.close(go)
            os.waitpid(pid, 0)


def test_a_strangers_file_is_a_message_with_its_content_as_the_body(url, tmp_path):
    with queue(url) as channel, channel.receiver() as rx:
        new = tmp_path / "orders.queue" / "new"
        (new / "README").write_text("no message: it is not named like one")
        (tmp_path / "draft").write_bytes(b'{"from": "a shell"}')
        (tmp_path / "draft").rename(new / "00000000000000000001-0123456789ab.0")

        delivery = rx.get(timeout=30.0)
        assert delivery.value == {"from": "a shell"}
        assert (delivery.message.producer, delivery.message.sequence) == (None, None)


def test_closing_leaves_the_messages_and_nothing_else(url, tmp_path):
    with queue(url) as channel:
        with channel.receiver(settle="manual") as rx:
            channel.send_many([1, 2, 3])
            rx.get(timeout=30.0).ack()
    owned = [*tmp_path.glob("orders.queue/held/*"), *tmp_path.glob("orders.queue/sending/*")]

    assert [path.parent.name for path in files(tmp_path)] == ["new", "new"]
    assert owned == []
    with queue(url) as channel:
        channel.delete()
    assert list(tmp_path.iterdir()) == []


def test_what_the_operating_system_refuses_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    nowhere = f"spool://{tmp_path}/file/orders"
    with queue(nowhere) as channel:
        with pytest.raises(ConnectError, match="Not a directory") as sending:
            channel.send(1, timeout=30.0)
        with pytest.raises(ConnectError, match="Not a directory"):
            channel.receiver().open()
    assert isinstance(sending.value.__cause__, OSError)
    assert not sending.value.retryable


def test_a_queue_deleted_under_its_receiver_ends_it_with_a_clear_error(url, tmp_path):
    with queue(url) as channel, channel.receiver() as rx:
        channel.delete()
        with pytest.raises(ReceiveError, match="No such file"):
            rx.get(timeout=30.0)


@pytest.mark.parametrize("wrong", ["spool://host/path/name", "spool://user@/path/name", "spool:///path/name?sync=1"])
def test_what_a_spool_has_not_is_refused(wrong):
    with pytest.raises(InvalidURL):
        queue(wrong)
