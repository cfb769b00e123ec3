"""Several processes write one file: the same bytes however they are begun, and nothing left where one fails."""

from __future__ import annotations

import filecmp
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from itertools import pairwise

import pytest

import simlink
from simlink import fields
from simlink.errors import ConfigError, EncodeError, StateError
from simlink.generators import catalog
from simlink.generators.generator import BLOCK_ROWS
from simlink.generators.output import crew, stretches
from simlink.generators.output.crew import LONGEST, STRETCH

ROWS = 2 * STRETCH + 5_000


def counted(**more):
    return simlink.record("r", seed=3, n=fields.sequence(), x=fields.integer(0, 9), **more)


@pytest.fixture
def begun(monkeypatch):
    """Chooses how processes are begun, and tells how many were."""
    methods = []

    def choose(method):
        monkeypatch.setattr(crew, "start_method", lambda: method)
        # Other tests may have imported libraries with threads; what is made here needs none of them.
        monkeypatch.setattr(crew, "_alone", lambda: True)

    start = crew.Crew._start

    def starting(self, number):
        helper = start(self, number)
        assert helper.pipe.poll(60)  # it has asked for something to do before this process makes anything
        methods.append(self._method)
        return helper

    monkeypatch.setattr(crew.Crew, "_start", starting)
    choose.methods = methods
    return choose


@pytest.fixture(autouse=True)
def nothing_stays():
    yield
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("suffix", ["ndjson", "csv"])
def test_the_same_bytes_by_fork_and_by_spawn(tmp_path, begun, method, suffix):
    begun(method)
    alone, shared = tmp_path / f"alone.{suffix}", tmp_path / f"shared.{suffix}"
    told = []
    assert counted().write(alone, ROWS) == ROWS
    assert counted().write(shared, ROWS, workers=3, progress=lambda *at: told.append(at)) == ROWS
    assert alone.read_bytes() == shared.read_bytes()
    assert begun.methods == [method, method]
    assert told == [(STRETCH, ROWS), (2 * STRETCH, ROWS), (ROWS, ROWS)]
    assert sorted(tmp_path.iterdir()) == [alone, shared]


def test_tables_come_in_their_order(tmp_path, begun):
    parquet = pytest.importorskip("pyarrow.parquet")
    begun("spawn")  # pyarrow has threads
    for name, workers in (("alone", 1), ("shared", 2)):
        assert counted().write(tmp_path / f"{name}.parquet", ROWS, workers=workers) == ROWS
    alone, shared = (parquet.read_table(tmp_path / f"{name}.parquet") for name in ("alone", "shared"))
    assert alone.equals(shared)
    assert begun.methods == ["spawn"]


def test_what_is_no_file_gets_everything_in_order(tmp_path, begun):
    """A pipe has no places to write at."""
    begun("fork")
    counted().write(tmp_path / "file.ndjson", ROWS)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", str(fifo)], stdout=subprocess.PIPE) as reader:
        read = []
        thread = threading.Thread(target=lambda: read.append(reader.stdout.read()), name="reader")
        thread.start()
        assert counted().write(fifo, ROWS, format="ndjson", workers=2) == ROWS
        thread.join()
    assert read == [(tmp_path / "file.ndjson").read_bytes()]
    assert begun.methods == ["fork"]


def test_little_is_held_where_one_is_slower_than_the_others(tmp_path, begun, monkeypatch):
    monkeypatch.setattr(stretches, "HELD", 1 << 16)
    begun("fork")
    for name, workers in (("alone", 1), ("shared", 3)):
        counted().write(tmp_path / f"{name}.ndjson", 9 * STRETCH, workers=workers)
    assert (tmp_path / "alone.ndjson").read_bytes() == (tmp_path / "shared.ndjson").read_bytes()


def test_stretches_become_shorter_towards_the_end(tmp_path):
    told = []
    rows = 20 * STRETCH + 5
    counted().write(tmp_path / "x.ndjson", rows, workers=2, progress=lambda at, _: told.append(at))
    sizes = [b - a for a, b in pairwise([0, *told])]
    assert sum(sizes) == rows
    assert sizes[0] == LONGEST * STRETCH
    assert sizes == sorted(sizes, reverse=True)
    assert all(size % STRETCH == 0 for size in sizes[:-1])
    assert sizes[-2:] == [STRETCH, 5]


def test_longer_stretches_write_the_same_bytes(tmp_path):
    """Of sessions, which go on from one epoch into the next."""
    told = []
    visits = catalog.access_log(seed=7)
    visits.write(tmp_path / "alone", 9 * STRETCH)
    visits.write(tmp_path / "shared", 9 * STRETCH, workers=2, progress=lambda at, _: told.append(at))
    assert told[0] == 2 * STRETCH
    assert filecmp.cmp(tmp_path / "alone", tmp_path / "shared", shallow=False)


def test_short_files_need_nobody(tmp_path, begun):
    assert counted().write(tmp_path / "x.ndjson", STRETCH, workers=4) == STRETCH
    assert counted().take(0).write(tmp_path / "x.csv", workers=4) == 0
    assert (tmp_path / "x.csv").read_text() == "n,x\n"
    assert begun.methods == []


def test_a_fork_is_for_a_process_that_does_nothing_else(monkeypatch):
    alone = "fork" if sys.platform == "linux" else "spawn"
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert crew.start_method() == alone
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert crew.start_method() == "spawn"


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_what_was_forked_beside_threads_of_a_library_is_not_used(tmp_path, begun, monkeypatch):
    begun("fork")
    monkeypatch.setattr(crew, "_alone", lambda: False)
    assert counted().write(tmp_path / "x.ndjson", ROWS, workers=2) == ROWS
    assert begun.methods == ["spawn"]


def kills(number):
    """Ends the process that makes this row, unless it is the one of the test."""
    if number == STRETCH + 9 and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def waits(number):
    """Keeps this process from making the second stretch itself. (The first block is made before there is another.)"""
    if number == BLOCK_ROWS and multiprocessing.parent_process() is None:
        HELPER_AT_WORK.wait(60)
    return number


HELPER_AT_WORK = multiprocessing.get_context("fork").Event() if sys.platform == "linux" else None


def signals(number):
    if number == STRETCH and multiprocessing.parent_process() is not None:
        HELPER_AT_WORK.set()
    return kills(waits(number))


@pytest.fixture
def together():
    """The other process begins the second stretch before this one is through with the first."""
    if HELPER_AT_WORK is None:
        pytest.skip("forks on Linux only")
    HELPER_AT_WORK.clear()


def test_a_killed_process_is_an_error_and_the_file_ends_with_what_is_complete(tmp_path, begun, together):
    begun("fork")
    out = tmp_path / "x.csv"
    with pytest.raises(StateError, match=r"simlink-generate-1 was killed \(SIGKILL\)"):
        simlink.record("r", seed=3, n=fields.sequence().map(signals, returns=int)).write(out, ROWS, workers=2)
    lines = out.read_text().split("\n")
    assert lines == ["n", *map(str, range(len(lines) - 2)), ""]
    assert len(lines) - 2 in (0, STRETCH)
    assert sorted(tmp_path.iterdir()) == [out]


def infinite(number):
    if number == STRETCH and multiprocessing.parent_process() is not None:
        HELPER_AT_WORK.set()
    return float("inf") if number == STRETCH + 7 else float(waits(number))


def test_an_error_in_another_process_is_raised_here(tmp_path, begun, together):
    begun("fork")
    source = simlink.record("r", seed=3, n=fields.sequence().map(infinite, returns=float))
    with pytest.raises(EncodeError, match="not a JSON number"):
        source.write(tmp_path / "x.ndjson", ROWS, workers=2)


def test_an_error_that_cannot_travel_says_what_it_was():
    class Local(Exception):
        pass

    assert isinstance(crew._portable(EncodeError("x")), EncodeError)
    carried = crew._portable(Local("with no name outside"))
    assert (type(carried), str(carried)) == (StateError, "Local: with no name outside")


def test_ctrl_c_ends_everybody(tmp_path, begun):
    begun("fork")

    def press(rows, total):
        raise KeyboardInterrupt

    out = tmp_path / "x.csv"
    with pytest.raises(KeyboardInterrupt):
        counted().write(out, 20 * STRETCH, workers=2, progress=press)
    lines = out.read_text().split("\n")
    assert [line.split(",")[0] for line in lines] == ["n", *map(str, range(len(lines) - 2)), ""]


def test_a_helper_ends_with_the_process_that_began_it(tmp_path):
    """Nobody is there to end it: it sees that its pipe has no other end."""
    script = (
        "import os, signal\n"
        "from simlink.generators import catalog\n"
        "pids = []\n"
        "def told(rows, total):\n"
        "    import multiprocessing\n"
        "    print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"catalog.numbers(seed=1).write({str(tmp_path / 'x.ndjson')!r}, 1_000_000, workers=2, progress=told)\n"
    )
    # Its output is inherited by the helper: it ends when both are gone.
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip().isdigit(), done.stderr) == (-signal.SIGKILL, True, "")


def test_a_source_that_cannot_travel_is_refused_where_processes_are_spawned(tmp_path, begun):
    begun("spawn")
    local = simlink.record("r", seed=3, n=fields.sequence().map(lambda n: n + 1, returns=int))
    with pytest.raises(ConfigError, match="r cannot be handed to a worker process"):
        local.write(tmp_path / "x.ndjson", ROWS, workers=2)


def test_the_catalog_by_four(tmp_path, begun):
    """Sessions, which need the epoch before."""
    begun("fork")
    source = catalog.clickstream(seed=7).select("event_id", "session_id", "action")
    for name, workers in (("alone", 1), ("shared", 4)):
        source.write(tmp_path / f"{name}.csv", 5 * STRETCH + 77, workers=workers)
    assert (tmp_path / "alone.csv").read_bytes() == (tmp_path / "shared.csv").read_bytes()
    assert begun.methods == ["fork"] * 3
