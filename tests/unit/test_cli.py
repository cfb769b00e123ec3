"""The command line, in this process and as processes of its own."""

from __future__ import annotations

import csv
import datetime as dt
import json
import signal
import subprocess
import sys
import urllib.request
import uuid

import pytest

import simlink
from simlink.cli import main
from simlink.generators import catalog
from tests.support.command import Command, run_simlink


@pytest.fixture
def url():
    return f"memory://cli-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def cli(capfd):
    """Run a command here: (status, stdout, stderr)."""

    def run(*args):
        status = main([str(arg) for arg in args])
        return status, *capfd.readouterr()

    return run


def complaint(stderr):
    """The one line that says what was wrong."""
    lines = [line for line in stderr.splitlines() if line.startswith("simlink: ")]
    assert len(lines) == 1, stderr
    assert "Traceback" not in stderr
    return lines[0]


# --- help and bad usage


def test_help_lists_every_command_and_loads_no_library():
    program = "import sys; from simlink.cli import main; main(['--help']); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    names = ("preview", "send", "receive", "demo", "brokers", "doctor", "catalog", "generate", "plot", "schema")
    for name in names:
        assert f"  {name} " in out
    assert {"click", "numpy", "rich"}.isdisjoint(out.splitlines()[-1].split())


@pytest.mark.parametrize(
    "command",
    ["preview", "catalog", "generate", "plot", "schema", "send", "receive", "demo", "brokers", "brokers up", "doctor"],
)
def test_every_command_has_its_help(cli, command):
    status, out, _ = cli(*command.split(), "--help")
    assert status == 0
    assert out.startswith(f"Usage: simlink {command}")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["prewiew"], "did you mean 'preview'"),
        (["send", "clickstream"], "--to"),
        (["send", "clickstream", "--to", "memory://x", "--cuont", "5"], "--count"),
        (["send", "clickstrem", "--to", "memory://x", "--count", "5"], "did you mean 'clickstream'"),
        (["send", "clickstream", "--to", "memory://x"], "give --count or --duration"),
        (["send", "clickstream", "--to", "memory:x", "--count", "1"], "is not a URL"),
        (["send", "clickstream", "--to", "memry://h/x", "--count", "1"], "did you mean 'memory'"),
        (["send", "clickstream", "--to", "memory://x?windo=5", "--count", "1"], "did you mean 'window'"),
        (["send", "clickstream", "--to", "memory://x", "--count", "x"], "--count"),
        (["send", "clickstream", "--to", "memory://x", "--count", "1", "--rate", "-5"], "rate is"),
        (["send", "clickstream", "--to", "memory://x", "--count", "1", "--key", "user_idd"], "did you mean 'user_id'"),
        (["send", "clickstream", "--to", "memory://x", "--count", "1", "--serializer", "jsn"], "did you mean 'json'"),
        (["send", "clickstream", "--to", "memory://x", "--count", "1", "--arrivals", "poison(5)"], "'poisson'"),
        (["send", "clickstream", "--to", "memory://x", "--count", "1", "--arrivals", "open('x')"], "no schedule"),
        (["send", "clickstream", "--to", "memory://x", "--count", "1", "--arrivals", "5"], "expected something like"),
        (["send", "clickstream", "--to", "memory://x", "--count", "1", "--arrivals", "poisson(5"], "expected"),
        (["send", "clickstream", "--to", "memory://x", "--count", "1", "--speed", "2"], "recording"),
        (["send", "replay:/nowhere.csv", "--to", "memory://x"], "cannot read /nowhere.csv"),
        (["send", "replay:", "--to", "memory://x"], "names no file"),
        (["send", "replay:/nowhere.csv", "--to", "memory://x", "--seed", "1"], "not drawn from a seed"),
        (["send", "nowhere_at_all:thing", "--to", "memory://x"], "no module 'nowhere_at_all'"),
        (["send", "simlink.errors:Thing", "--to", "memory://x"], "no 'Thing'"),
        (["send", "clickstream", "--to", "memory://x", "--count", "9", "--workers", "2"], "cannot have workers"),
        (["receive", "memory://x", "--seed", "1"], "goes with --verify"),
        (["receive", "memory://x", "--faults", "drop(1)"], "goes with --verify"),
        (["receive", "memory://x", "--on", "id"], "--on goes with --verify"),
        (["send", "clickstream", "--to", "memory://x", "--count", "1", "--faults", "dorp(1)"], "no fault 'dorp'"),
        (["send", "clickstream", "--to", "memory://x", "--count", "1", "--since", "2025-01-01"], "give rate="),
        (["send", "clickstream", "--to", "memory://x", "--count", "1", "--timeout", "-1"], "timeout is a number"),
        (["receive", "memory://x", "--timeout", "nan"], "--timeout is a number"),
        (["receive", "memory://x", "--idle", "0"], "--idle"),
        (["receive", "memory://x", "--start", "middle"], "earliest or new"),
        (["receive", "memory://x", "--out", "/nowhere/at/all"], "cannot write"),
        (["receive", "memory://x", "--verify", "clickstream", "--seed", "1"], "no end: say with --count"),
        (["receive", "memory://x", "--verify", "clickstream", "--count", "1"], "give --seed"),
        (["brokers", "up", "kafak"], "did you mean kafka"),
        (["brokers"], "Missing command. (see simlink brokers --help)"),
        (["generate", "clickstream", "--count", "1", "--out", "-", "--format", "parquet"], "needs a file"),
    ],
)
def test_bad_usage_is_one_clear_line_and_status_2(cli, args, message):
    status, out, err = cli(*args)
    assert message in complaint(err)
    assert (status, out) == (2, "")


def test_an_expression_that_is_wrong_shows_where(cli):
    text = "poisson(200)*diurnal(7)"
    _, _, err = cli("send", "clickstream", "--to", "memory://x", "--count", "1", "--arrivals", text)
    assert "depth is from 0 to 1" in complaint(err)
    assert err.splitlines()[-2:] == [f"  {text}", "               ^"]


@pytest.mark.parametrize(
    "args", [["send", "clickstream"], ["receive", "memory://x", "--cuont", "1"], ["demo", "--count", "0"]]
)
def test_bad_usage_is_json_too_where_json_was_asked_for(cli, args):
    status, out, err = cli(*args, "--json")
    assert (status, list(json.loads(out))) == (2, ["error"])
    assert json.loads(out)["error"] in complaint(err)


def test_an_error_is_json_too_where_json_was_asked_for(cli):
    status, out, err = cli("send", "clickstream", "--to", "memry://h/x", "--count", "1", "--json")
    assert status == 2
    assert complaint(err) == f"simlink: {json.loads(out)['error']}"


def test_without_click_it_says_what_to_install():
    program = "import sys; sys.modules['click'] = None; from simlink.cli import main; sys.exit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'simlink[cli]'" in complaint(done.stderr)


# --- what needs no transport


def test_preview_shows_a_table(cli):
    status, out, _ = cli("preview", "clickstream", "-n", 2, "--seed", 7)
    assert status == 0
    assert "seed 7" in out
    assert catalog.clickstream(seed=7)[1]["page_url"] in out


def test_preview_shows_a_file(cli, tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("a,b\n1,two\n3,four\n")
    status, out, _ = cli("preview", f"replay:{file}")
    assert status == 0
    assert out.splitlines()[1].split() == ["a", "b"]
    assert out.splitlines()[3].split() == ["3", "four"]


def test_preview_shows_what_faults_do(cli):
    spikes = "spike(0.1, field='light')"
    status, out, _ = cli("preview", "sensors", "--faults", spikes, "--faulty", "-n", 3, "--seed", 7)
    assert status == 0
    assert out.count("spike field=light was=") == 3
    status, out, err = cli("preview", "sensors", "--faulty")
    assert (status, out) == (2, "")
    assert "give some with --faults" in complaint(err)


def test_catalog_lists_names_and_fields(cli):
    status, out, _ = cli("catalog")
    assert status == 0
    for name in catalog.names():
        assert f"{name}: " in out
    assert "page_url" in out
    assert "datas[].sn" in out


def test_doctor_tells_of_extras_and_brokers(cli):
    status, out, _ = cli("doctor")
    assert status == 0
    for word in ("transports", "memory", "faker", "kafka", "rabbitmq", "redis"):
        assert word in out


def test_generate_writes_what_the_generator_makes(cli, tmp_path):
    rows = catalog.clickstream(seed=7)[:5_000]
    file = tmp_path / "x.ndjson"
    assert cli("generate", "clickstream", "--count", 5_000, "--seed", 7, "--out", file)[0] == 0
    assert rows == [json.loads(line) for line in file.read_text().splitlines()]
    assert cli("generate", "clickstream", "--count", 5_000, "--seed", 7, "--out", tmp_path / "x.csv")[0] == 0
    with (tmp_path / "x.csv").open(newline="") as table:
        read = list(csv.DictReader(table))
    assert list(rows[0]) == list(read[0])
    assert [row["page_url"] for row in rows] == [row["page_url"] for row in read]
    assert ["" if row["order_id"] is None else row["order_id"] for row in rows] == [row["order_id"] for row in read]


def test_generate_writes_parquet(cli, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "x.parquet"
    assert cli("generate", "clickstream", "--count", 5_000, "--seed", 7, "--out", file)[0] == 0
    assert catalog.clickstream(seed=7)[:5_000] == parquet.read_table(file).to_pylist()


@pytest.mark.parametrize("suffix", ["ndjson", "csv", "parquet"])
def test_generate_by_workers_writes_the_same(cli, tmp_path, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    alone, shared = tmp_path / f"1.{suffix}", tmp_path / f"2.{suffix}"
    for out, workers in ((alone, 1), (shared, 2)):
        options = ("--count", 140_000, "--seed", 7, "--out", out, "--workers", workers)
        assert cli("generate", "clickstream", *options)[0] == 0
    if suffix == "parquet":
        from pyarrow import parquet

        assert parquet.read_table(alone).equals(parquet.read_table(shared))
    else:
        assert alone.read_bytes() == shared.read_bytes()


def test_generate_refuses_to_divide_a_file(cli, tmp_path):
    file = tmp_path / "x.ndjson"
    file.write_text("1\n")
    status, _, err = cli("generate", f"replay:{file}", "--count", 1, "--out", "-", "--workers", 2)
    assert (status, "only a generator" in complaint(err)) == (2, True)


def test_generate_writes_a_header_for_no_records(cli, tmp_path):
    assert cli("generate", "clickstream", "--count", 0, "--out", tmp_path / "x.csv")[0] == 0
    assert list(catalog.clickstream().schema) == (tmp_path / "x.csv").read_text().strip().split(",")


# --- sending


def test_send_reports_on_stderr_and_as_the_last_line_of_stdout(cli, url):
    status, out, err = cli("send", "clickstream", "--to", url, "--count", 1_000, "--seed", 7, "--json")
    assert status == 0
    [line] = out.splitlines()
    report = json.loads(line)
    assert tuple(report[name] for name in ("sent", "confirmed", "failed", "unknown", "seed", "valid")) == (
        1_000,
        1_000,
        0,
        0,
        7,
        True,
    )
    assert {"unsettled", "resent", "seconds", "rate", "bytes"} <= set(report)
    assert None is report["lost"]
    assert "clickstream → " in err


def test_send_prints_nothing_on_stdout_without_json(cli, url):
    assert cli("send", "clickstream", "--to", url, "--count", 10)[:2] == (0, "")


def test_send_paced_by_an_expression(cli, url):
    status, out, _ = cli(
        *("send", "clickstream", "--to", url, "--count", 50, "--arrivals", "poisson(1000, seed=3)", "--json")
    )
    assert (status, json.loads(out)["sent"]) == (0, 50)


def test_send_watch_shows_latency_every_second(cli, url):
    status, _, err = cli("send", "clickstream", "--to", url, "--duration", 1.3, "--rate", 100, "--watch")
    assert status == 0
    assert any("latency p50" in line and "send lag" in line for line in err.splitlines() if line.startswith("clicks"))


def test_send_stops_at_a_bad_line_and_names_it(cli, url, tmp_path):
    file = tmp_path / "x.ndjson"
    file.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    status, out, err = cli("send", f"replay:{file}", "--to", url, "--json")
    assert "line 2" in complaint(err)
    report = json.loads(out.splitlines()[-1])
    assert (status, report["sent"], "line 2" in report["error"]) == (1, 1, True)


def test_send_skips_a_bad_line_and_names_it(cli, url, tmp_path):
    file = tmp_path / "x.ndjson"
    file.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    status, out, err = cli("send", f"replay:{file}", "--to", url, "--json", "--on-error", "skip")
    report = json.loads(out.splitlines()[-1])
    assert (status, report["sent"], report["bad_lines"]) == (0, 2, 1)
    assert "line 2 does not parse" in err


def test_send_takes_an_object_of_a_module(cli, url, tmp_path, monkeypatch):
    name = f"shop_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{name}.py").write_text(
        "import simlink\n"
        "from simlink import fields\n"
        "orders = simlink.record('orders', n=fields.integer(0, 10**6))\n"
        "def made(seed=None): return orders.with_seed(seed)\n"
        "def sown(seed=4): return orders.with_seed(seed)\n"
        "def listed(): return [{'i': i} for i in range(7)]\n"
        "values = [1, 2, 3]\n"
    )
    monkeypatch.chdir(tmp_path)
    for what, count in (("orders", 5), ("made", 5)):
        status, out, _ = cli("send", f"{name}:{what}", "--to", url, "--count", count, "--seed", 9, "--json")
        assert (status, json.loads(out)["sent"], json.loads(out)["seed"]) == (0, count, 9)
    _, out, _ = cli("send", f"{name}:sown", "--to", url, "--count", 5, "--json")
    assert json.loads(out)["seed"] == 4
    for what, count, source in (("listed", 7, "listed"), ("values", 3, "values")):
        status, out, _ = cli("send", f"{name}:{what}", "--to", url, "--json")
        assert (status, json.loads(out)["sent"], json.loads(out)["source"]) == (0, count, source)
        assert "seed" in complaint(cli("send", f"{name}:{what}", "--to", url, "--seed", 1)[2])


def test_send_to_nobody_is_one_line_and_status_1(cli):
    status, out, err = cli(
        *("send", "clickstream", "--to", "tcp://127.0.0.1:1/x", "--count", 5, "--timeout", 0.2, "--json")
    )
    assert "127.0.0.1:1" in complaint(err)
    report = json.loads(out)
    assert (status, report["sent"]) == (1, 0)
    assert "127.0.0.1:1" in report["error"]


# --- both ends, in processes of their own


def test_receive_verifies_what_workers_send(tmp_path):
    with Command(
        *("receive", "tcp://127.0.0.1:0/clicks", "--verify", "clickstream", "--seed", 3, "--count", 9_000, "--json")
    ) as receiver:
        url = receiver.ready()
        assert not url.endswith(":0/clicks")
        sent = run_simlink(
            *("send", "clickstream", "--to", url, "--seed", 3, "--count", 9_000, "--key", "user_id"),
            *("--workers", 2, "--json"),
        ).report
        found = receiver.done().report
    assert (sent["sent"], sent["confirmed"], sent["unsettled"], sent["failed"]) == (9_000, 9_000, 0, 0)
    assert (sent["workers"], len(set(sent["producer"]))) == (2, 2)
    assert tuple(found[name] for name in ("received", "unique", "lost", "duplicated", "corrupt")) == (
        9_000,
        9_000,
        0,
        0,
        0,
    )
    assert url == found["url"]
    assert found["latency_ms"]["p50"] <= found["latency_ms"]["p99"]


def test_what_a_foreign_sender_posts_is_verified_by_a_field():
    """49 of 50 records, one of them changed: by --on each is compared with the one that it should be."""
    posted = [dict(record) for record in catalog.clickstream(seed=3)[:50]]
    del posted[20]
    posted[7]["action"] = "sneeze"
    checked = ("--verify", "clickstream", "--seed", 3, "--count", 50, "--on", "event_id", "--idle", 2, "--json")
    with Command("receive", "http://127.0.0.1:0/clicks", *checked) as receiver:
        body = json.dumps(posted).encode()
        request = urllib.request.Request(receiver.ready(), body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 202
        report = receiver.done(status=1).report
    found = {name: report[name] for name in ("received", "unique", "lost", "duplicated", "corrupt")}
    assert found == {"received": 49, "unique": 49, "lost": 1, "duplicated": 0, "corrupt": 1}


def test_the_package_is_the_command():
    said = subprocess.check_output([sys.executable, "-m", "simlink", "--version"], text=True, timeout=60)
    assert said == f"simlink {simlink.__version__}\n"


def test_workers_send_faults_and_what_is_past_as_one_would(tmp_path):
    """Six blocks of a schedule that began two minutes ago, in two processes, each with its part of the faults."""
    count, wrong = 24_000, "drop(0.01),duplicate(0.01),truncate(0.001)"
    since = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=120)).isoformat()
    checked = ("--verify", "numbers", "--seed", 3, "--faults", wrong, "--count", count, "--json")
    with Command("receive", "tcp://127.0.0.1:0/numbers", *checked) as receiver:
        sent = run_simlink(
            *("send", "numbers", "--to", receiver.ready(), "--seed", 3, "--faults", wrong, "--count", count),
            *("--rate", 400, "--since", since, "--workers", 2, "--json"),
        ).report
        found = receiver.done().report
    assert (sent["sent"], sent["confirmed"], sent["unsettled"], sent["workers"]) == (count, count, 0, 2)
    # 400 a second for a minute: everything was past when the workers began.
    assert sent["backfilled"] == count
    assert sent["valid"]
    names = ("received", "unique", "lost", "duplicated", "corrupt")
    assert tuple(found[name] for name in names) == (count, count, 0, 0, 0)
    assert all(found["injected"][name] > 0 for name in ("drop", "duplicate", "truncate"))


def test_receive_writes_records_as_they_came(tmp_path):
    lines = ['{"z":1,"a":{"b":[1,null,"ü"]}}', '{"n":9007199254740993}', '"text"', "17"]
    file, out = tmp_path / "in.ndjson", tmp_path / "out.ndjson"
    file.write_text("".join(f"{line}\n" for line in lines))
    with Command("receive", "tcp://127.0.0.1:0/x", "--count", 4, "--out", out, "--json") as receiver:
        run_simlink("send", f"replay:{file}", "--to", receiver.ready())
        found = receiver.done().report
    assert lines == out.read_text().splitlines()
    assert tuple(found[name] for name in ("received", "unique", "lost", "reordered", "corrupt")) == (
        4,
        4,
        None,
        None,
        None,
    )


def test_receive_goes_on_in_the_file_of_a_receiver_that_was_killed(tmp_path):
    file, out = tmp_path / "in.ndjson", tmp_path / "out.ndjson"
    file.write_text('{"n":3}\n')
    out.write_text('{"n":1}\n{"n":2}\n{"n":')
    with Command("receive", "tcp://127.0.0.1:0/x", "--count", 1, "--out", out, "--json") as receiver:
        run_simlink("send", f"replay:{file}", "--to", receiver.ready())
        receiver.done()

    assert out.read_text() == '{"n":1}\n{"n":2}\n{"n":3}\n'


def test_receive_takes_no_more_than_it_was_asked_for(tmp_path):
    with simlink.queue("tcp://127.0.0.1:0/x") as channel, channel.receiver() as rx:
        url = rx.url
    first, second = tmp_path / "1", tmp_path / "2"
    with Command("receive", url, "--count", 3, "--out", first) as receiver:
        receiver.ready()
        with simlink.queue(url) as channel:
            channel.send_many(list(range(10)))
            receiver.done()
            with Command("receive", url, "--count", 7, "--out", second) as other:
                other.done()
    assert first.read_text() == "0\n1\n2\n"
    assert list(range(3, 10)) == sorted(map(int, second.read_text().split()))


def test_receive_ends_after_quiet_seconds():
    with Command("receive", "tcp://127.0.0.1:0/x", "--idle", 0.3, "--json") as receiver:
        receiver.ready()
        report = receiver.done().report
    assert (0, {"p50", "p99"} <= set(report["latency_ms"])) == (report["received"], True)


def test_receive_says_what_was_lost():
    options = ("--verify", "clickstream", "--seed", 3, "--count", 12, "--idle", 1, "--json")
    with Command("receive", "tcp://127.0.0.1:0/x", *options) as receiver:
        # From here, and not from a third process, which may take longer to start than the receiver is patient.
        simlink.run(catalog.clickstream(seed=3), receiver.ready(), count=10, progress=False)
        report = receiver.done(1).report
    assert (report["unique"], report["lost"], report["missing"]) == (10, 2, [10, 11])


def test_a_body_that_cannot_be_read_is_told():
    with Command("receive", "tcp://127.0.0.1:0/x", "--count", 2, "--out", "-", "--json") as receiver:
        with simlink.queue(receiver.ready(), serializer=simlink.Bytes()) as channel:
            channel.send_many([b'{"a":1}', b"{nonsense"])
        done = receiver.done(1)
    assert [json.loads(done.stdout.splitlines()[0]), done.report["undecodable"]] == [{"a": 1}, 1]
    assert "cannot be read" in done.stderr


def test_what_cannot_be_read_goes_to_the_dead_letters():
    with simlink.queue("tcp://127.0.0.1:0/dead", serializer=simlink.Bytes()) as dead, dead.receiver() as graves:
        with Command(
            "receive", "tcp://127.0.0.1:0/x", "--count", 2, "--json", "--dead-letter", graves.url, "--max-attempts", 3
        ) as receiver:
            with simlink.queue(receiver.ready(), serializer=simlink.Bytes()) as channel:
                channel.send_many([b'{"a":1}', b"{nonsense"])
            letter = graves.get(timeout=30).message
            graves.acknowledge()
            report = receiver.done(0).report
    assert (report["undecodable"], report["dead_letters"], report["ok"]) == (1, 1, True)
    assert (letter.body, letter.headers["simlink-reason"].partition(":")[0]) == (b"{nonsense", "undecodable")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_ends_drain_and_report_when_they_are_told_to_end(number, tmp_path):
    out = tmp_path / "out"
    with (
        Command("receive", "tcp://127.0.0.1:0/x", "--out", out, "--json") as receiver,
        Command(
            *("send", "clickstream", "--to", receiver.ready(), "--rate", 200, "--duration", 300, "--json")
        ) as sender,
    ):
        sender.until(lambda: out.exists() and out.read_bytes().count(b"\n") > 20, "some records")
        sender.signal(number)
        sent = sender.done(130).report
        receiver.until(lambda: out.read_bytes().count(b"\n") == sent["sent"], "all records")
        receiver.signal(number)
        found = receiver.done(130).report
    assert (True, 0, sent["sent"]) == (sent["interrupted"], sent["unsettled"], sent["confirmed"])
    assert sent["sent"] == found["received"]


def test_send_reads_standard_input(tmp_path):
    program = [sys.executable, "-m", "simlink.cli", "send", "-", "--to", f"memory://{uuid.uuid4().hex[:8]}", "--json"]
    done = subprocess.run(program, input='{"a": 1}\n{"a": 2}', capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["sent"]) == (0, 2)


def test_the_demo_proves_that_all_arrived():
    done = run_simlink("demo", "--count", 5_000, "--json")
    assert "every record arrived, once and unchanged" in done.stderr
    assert (
        done.report["ok"],
        done.report["sent"]["confirmed"],
        done.report["received"]["unique"],
        done.report["received"]["lost"],
    ) == (True, 5_000, 5_000, 0)


@pytest.mark.parametrize("faults", [(), ("--faults", "drop(0.01), truncate(0.01)")])
def test_protobuf_is_sent_and_verified_by_the_name_of_the_record(cli, url, faults):
    """Both ends derive the message from SPEC, also under faults."""
    given = ("--count", 500, "--seed", 3, "--serializer", "protobuf", "--json", *faults)
    with simlink.queue(url):
        status, out, err = cli("send", "clickstream", "--to", url, *given)
        assert (status, err.splitlines()[0], json.loads(out)["sent"]) == (0, f"clickstream → {url}: done", 500)
        status, out, _ = cli("receive", url, "--verify", "clickstream", *given)
    found = json.loads(out)
    assert (found["received"], found["lost"], found["corrupt"]) == (500, 0, 0)
    with simlink.queue(url, serializer=simlink.Protobuf(catalog.clickstream(seed=3))) as channel:
        assert cli("send", "clickstream", "--to", url, *given[:6])[0] == 0
        with channel.receiver() as rx:
            assert rx.take(1) == catalog.clickstream(seed=3)[0:1]


def test_faults_are_sent_and_verified(cli):
    """The same expression and the same seed on both sides."""
    url = "memory://cli-faults"
    texts = "drop(0.01), duplicate(0.01), corrupt(0.01), late(0.01, by=30)"
    with simlink.queue(url):
        status, out, _ = cli(
            *("send", "clickstream", "--to", url, "--count", 5_000, "--seed", 3, "--faults", texts, "--json")
        )
        assert (status, json.loads(out.splitlines()[-1])["sent"]) == (0, 5_000)
        status, out, _ = cli(
            *("receive", url, "--verify", "clickstream", "--seed", 3, "--faults", texts, "--count", 5_000, "--json")
        )
    found = json.loads(out.splitlines()[-1])
    assert (status, found["ok"], found["received"], found["corrupt"]) == (0, True, 5_000, 0)
    assert set(found["injected"]) == {"drop", "duplicate", "corrupt", "late"}
    assert min(found["injected"].values()) > 10


def test_the_past_is_sent_first(cli):
    url = "memory://cli-since"
    with simlink.queue(url):
        status, out, _ = cli(
            *("send", "clickstream", "--to", url, "--count", 50, "--rate", 1, "--since", "2025-01-01T00:00Z", "--json")
        )
    report = json.loads(out.splitlines()[-1])
    assert (status, report["sent"], report["backfilled"], report["valid"]) == (0, 50, 50, True)


# --- SPEC with options, pictures, schemas


def test_a_catalog_name_takes_options(cli):
    status, out, _ = cli("preview", "clickstream(users=1, seed=7)", "-n", 3)
    assert (status, "seed 7" in out) == (0, True)
    assert cli("preview", "clickstream( conversion=0 )", "--seed", 7)[0] == 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("clickstream(usrs=3)", "did you mean 'users'"),
        ("clickstraem(users=3)", "did you mean 'clickstream'"),
        ("clickstream(users=)", "at character 1"),
        ("clickstream(3)", "options have names"),
        ("clickstream(**{'users': 3})", "options have names"),
        ("clickstream(users=open('x'))", "values are numbers"),
        ("clickstream(users=3).take(5)", "options have names"),
        ("clickstream(users=-3)", "clickstream: users is an integer"),
        ("clickstream(users=3", "at character"),
    ],
)
def test_what_is_wrong_with_a_specs_options_is_said(cli, spec, message):
    status, _, err = cli("preview", spec)
    assert (status, message in complaint(err)) == (2, True), err


def test_a_spec_has_one_seed(cli):
    status, _, err = cli("preview", "clickstream(seed=3)", "--seed", 3)
    assert (status, "give it once" in complaint(err)) == (2, True)


def test_the_catalog_lists_options_and_fields(cli):
    _, out, _ = cli("catalog")
    for name in catalog.names():
        assert f"{name}: " in out
    assert "  options: users=50000, products=2000," in out
    assert any(line.split() == ["quantity", "int", "or", "null"] for line in out.splitlines())


def test_a_schema_is_printed_for_other_languages(cli):
    _, out, _ = cli("schema", "clickstream")
    assert json.loads(out) == catalog.clickstream().json_schema()
    _, out, _ = cli("schema", "clickstream", "--format", "proto")
    assert out.rstrip() == simlink.Protobuf(catalog.clickstream()).proto_text().rstrip()


def test_a_picture_is_written(cli, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "x.html"
    options = ("--count", 500, "--seed", 7, "--arrivals", "poisson(200)", "--out", file)
    assert cli("plot", "clickstream(users=50)", *options)[0] == 0
    assert file.read_bytes().startswith(b"<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["plot", "clickstream", "--out", "x.gif"], "a picture is .png"),
        (["plot", "clickstream", "--out", "x.png", "--arrivals", "poison(1)"], "poisson"),
        (["schema", "-"], "needs a generator"),
        (["generate", "clickstream", "--count", "1", "--out", "/nowhere/x.csv"], "cannot write /nowhere/x.csv"),
    ],
)
def test_bad_usage_of_plot_schema_and_generate(cli, args, message):
    status, _, err = cli(*args)
    assert (status, message in complaint(err)) == (2, True), err


def test_generate_writes_arrow(cli, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    file = tmp_path / "x.arrow"
    assert cli("generate", "clickstream", "--count", 5_000, "--seed", 7, "--out", file)[0] == 0
    with arrow.OSFile(str(file)) as opened:
        assert arrow.ipc.open_file(opened).read_all().to_pylist() == catalog.clickstream(seed=7)[:5_000]
    options = ("--count", "3", "--seed", "7", "--format", "arrow", "--out", "-")
    command = [sys.executable, "-m", "simlink.cli", "generate", "clickstream", *options]
    piped = subprocess.run(command, capture_output=True, check=True, timeout=120).stdout
    assert arrow.ipc.open_stream(piped).read_all().to_pylist() == catalog.clickstream(seed=7)[:3]
