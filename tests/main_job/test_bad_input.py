"""Whatever is wrong with what a user gives is one clear line and an exit status, and costs nobody else anything."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from contextlib import closing, contextmanager

import pytest

import simlink
from simlink.channels.driver import Mode
from simlink.channels.wire.codec import HEAD, VERSION, encode
from simlink.channels.wire.frames import Code, ErrorFrame, Hello
from simlink.channels.wire.framing import FrameReader
from tests.support.command import Command, Tail, lines_of, run_simlink
from tests.support.kafka import records_in, topic_of

NOBODY = "127.0.0.1:1"


def complaint(done, status):
    """All that a command said on stderr, which is one line; nothing has gone to stdout."""
    assert done.status == status, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0].removeprefix("simlink: ")


# --- bad usage, seen from a shell


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("send clickstream --to tpc://127.0.0.1:7001/x --count 1", "no transport for tpc://; did you mean 'tcp'?"),
        ("send clickstream --to kafak://127.0.0.1/x --count 1", "did you mean 'kafka'?"),
        ("send clickstream --to kafka://127.0.0.1/x?partitons=6 --count 1", "did you mean 'partitions'?"),
        ("send clickstream --to tcp://127.0.0.1:7001/x?dead=soon --count 1", "dead"),
        ("send clickstream --to tcp://127.0.0.1:port/x --count 1", "port"),
        ("send clickstream --to tcp://127.0.0.1:7001 --count 1", "tcp://127.0.0.1:7001"),
        ("send clickstream --to 127.0.0.1:7001/x --count 1", "is not a URL: expected scheme://host:port/name"),
        ("send clikstream --to tcp://127.0.0.1:7001/x --count 1", "no SPEC 'clikstream'; did you mean 'clickstream'?"),
        ("send clickstream --to tcp://127.0.0.1:7001/x --cuont 1", "(did you mean one of: '--count'"),
        ("sned clickstream --to tcp://127.0.0.1:7001/x", "no command 'sned': did you mean 'send'?"),
        ("receive kafka://user:hidden@127.0.0.1/x?sasl=gssapi", "scram-sha-512"),
        ("receive kafka://127.0.0.1/x?sasl=plain", "a user and a password"),
        ("receive kafka://127.0.0.1/x?ca=ca.pem", "TLS"),
        ("receive tcp://127.0.0.1:0/x --start earliest", "start="),
    ],
)
def test_bad_usage_is_one_line_and_status_2(args, says):
    with Command(*args.split()) as command:
        said = complaint(command.wait(), 2).lower()
    assert says.lower() in said
    assert "hidden" not in said


@contextmanager
def without(*packages):
    """What runs a simlink to which these packages are not installed."""
    yield (
        sys.executable,
        "-c",
        f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {packages!r} else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
from simlink.cli import main
sys.exit(main())
""",
    )


@pytest.mark.parametrize(
    ("missing", "args", "extra"),
    [
        (("kafka", "confluent_kafka"), "send clickstream --to kafka://127.0.0.1/x --count 1", "kafka"),
        (("confluent_kafka",), "receive kafka+confluent://127.0.0.1/x", "confluent"),
        (("kafka",), "receive kafka+python://127.0.0.1/x", "kafka"),
        (("pyarrow",), "generate clickstream --count 1 --out {}/x.parquet", "dataframe"),
        (("faker",), "preview needs_faker:people", "faker"),
        (("click",), "doctor", "cli"),
    ],
)
def test_a_missing_extra_is_named_with_the_command_that_brings_it(missing, args, extra, tmp_path):
    (tmp_path / "needs_faker.py").write_text(
        "import simlink\npeople = simlink.record('p', n=simlink.fields.faker('name'))"
    )
    with (
        without(*missing) as program,
        Command(*args.format(tmp_path).split(), program=program, cwd=tmp_path) as command,
    ):
        assert f"pip install 'simlink[{extra}]'" in complaint(command.wait(), 2)


# --- nobody there, somebody else there


@pytest.mark.parametrize("scheme", ["tcp", "kafka+confluent", "kafka+python"])
def test_a_send_to_nobody_ends_in_time(scheme):
    began = time.monotonic()
    args = ("send", "clickstream", "--to", f"{scheme}://{NOBODY}/x", "--count", 1, "--timeout", 2)
    with Command(*args) as command:
        said = complaint(command.wait(), 1)
    assert NOBODY in said
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("scheme", ["kafka+confluent", "kafka+python"])
def test_a_receive_without_a_broker_ends_in_time(scheme):
    with Command("receive", f"{scheme}://{NOBODY}/x", "--timeout", 2) as command:
        assert NOBODY in complaint(command.wait(), 1)


def test_a_port_in_use_is_told_and_its_owner_goes_on(tmp_path):
    out = tmp_path / "out.ndjson"
    with Command("receive", "tcp://127.0.0.1:0/x", "--count", 10, "--out", out) as owner:
        url = owner.ready()
        with Command("receive", url) as second:
            said = complaint(second.wait(), 1)
        assert said == f"cannot listen at {url.split('/')[2]}: Address already in use"
        run_simlink("send", "clickstream", "--to", url, "--count", 10, "--seed", 1)
        owner.done()
    assert [json.loads(line) for line in lines_of(out)] == simlink.generators.catalog.clickstream(seed=1)[:10]


def test_a_server_that_speaks_something_else_is_told(tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def answer():
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    peer.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                    peer.settimeout(10)
                    while peer.recv(65_536):
                        pass

        threading.Thread(target=answer, daemon=True).start()
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}/x"
        with Command("send", "clickstream", "--to", url, "--count", 10, "--timeout", 3) as command:
            said = complaint(command.wait(), 1)
        server.shutdown(socket.SHUT_RDWR)
    assert url.split("/")[2] in said


# --- records and lines that are wrong


def test_a_record_that_cannot_be_written_is_named_behind_those_before_it(tmp_path):
    (tmp_path / "measured.py").write_text(
        "values = [*range(7), float('nan'), 8]\nrows = [{'n': i, 'value': value} for i, value in enumerate(values)]\n"
    )
    out = tmp_path / "out.ndjson"
    with Command("receive", "tcp://127.0.0.1:0/x", "--count", 7, "--out", out, "--json") as receiver:
        to = receiver.ready()
        with Command("send", "measured:rows", "--to", to, "--json", cwd=tmp_path) as sender:
            done = sender.done(1)
        assert "record 7 " in done.complaint
        assert "value" in done.complaint
        assert "nan" in done.complaint
        assert (done.report["sent"], done.report["confirmed"]) == (7, 7)
        assert done.complaint == done.report["error"]
        receiver.done()
    assert [json.loads(line)["n"] for line in lines_of(out)] == list(range(7))


FILES = {
    "visits.csv": (
        "id,name\n1,ann\n2,bob,extra\n3,cy\n",
        3,
        "2,bob,extra",
        [{"id": "1", "name": "ann"}, {"id": "3", "name": "cy"}],
    ),
    "visits.ndjson": ('{"id": 1}\n{"id": 2\n{"id": 3}\n', 2, '{"id": 2', [{"id": 1}, {"id": 3}]),
}


@pytest.mark.parametrize("policy", ["skip", "stop"])
@pytest.mark.parametrize("name", FILES)
def test_a_line_that_does_not_parse_is_told_by_number_and_text(name, policy, tmp_path):
    content, number, text, records = FILES[name]
    file = tmp_path / name
    file.write_text(content)
    expected = records if policy == "skip" else records[:1]
    out = tmp_path / "out.ndjson"
    with Command("receive", "tcp://127.0.0.1:0/x", "--count", len(expected), "--out", out) as receiver:
        args = ("send", f"replay:{file}", "--to", receiver.ready(), "--on-error", policy, "--json")
        done = run_simlink(*args, status=0 if policy == "skip" else 1)
        receiver.done()
    said = done.stderr if policy == "skip" else done.complaint
    assert f"line {number} does not parse" in said
    assert text in said
    assert (done.report["sent"], done.report["bad_lines"]) == (len(expected), 1)
    assert [json.loads(line) for line in lines_of(out)] == expected


def test_the_access_log_stops_at_its_bad_line(access_log, tmp_path):
    bad = access_log.read_text().splitlines()[8_898]
    out = tmp_path / "out.ndjson"
    with Command("receive", "tcp://127.0.0.1:0/x", "--count", 8_898, "--out", out) as receiver:
        done = run_simlink("send", f"replay:{access_log}", "--to", receiver.ready(), "--json", status=1)
        receiver.done()
    assert "line 8899 does not parse" in done.complaint
    assert " ".join(bad[:200].split()) in done.complaint
    assert (done.report["sent"], done.report["confirmed"], done.report["unsettled"]) == (8_898, 8_898, 0)
    assert len(lines_of(out)) == 8_898


# --- peers that send garbage


HELLO = encode(Hello(bytes(16), "orders", Mode.QUEUE))
UNFINISHED = HEAD.pack(100, VERSION) + b"\x0a"
CUT_OFF = {
    "an HTTP request": (b"GET /orders HTTP/1.1\r\nHost: shop.example\r\n\r\n", Code.VERSION),
    "a TLS handshake": (bytes.fromhex("16030100") + bytes(200), Code.VERSION),
    "an oversized frame": (HEAD.pack(2**30, VERSION) + bytes(1000), Code.TOO_LARGE),
    "an oversized frame behind a good one": (HELLO + HEAD.pack(2**30, VERSION), Code.TOO_LARGE),
    "a newer version": (HEAD.pack(6, VERSION + 1) + b"hello", Code.VERSION),
    "no Protobuf": (HEAD.pack(6, VERSION) + b"\xff" * 5, Code.PROTOCOL),
    "garbage behind a good frame": (HELLO + HEAD.pack(6, VERSION) + b"\xff" * 5, Code.PROTOCOL),
    "a frame that is never completed": (HELLO + UNFINISHED, Code.TIMEOUT),
    "a first frame that is never completed": (UNFINISHED, Code.TIMEOUT),
    "nothing at all": (b"", Code.TIMEOUT),
}


def told_until_cut_off(address, data):
    """Say it, and listen until the other side hangs up; the frames that it said."""
    host, _, port = address.rpartition(":")
    reader, frames = FrameReader(2**23), []
    with socket.create_connection((host, int(port)), 20) as peer:
        peer.sendall(data)
        while True:
            with reader.buffer() as room:
                count = peer.recv_into(room)
            if not count:
                return frames
            reader.received(count)
            while (frame := reader.next_frame()) is not None:
                frames.append(frame)


def test_peers_that_send_garbage_are_cut_off_and_the_others_notice_nothing():
    count = 20_000
    check = ("--verify", "clickstream", "--seed", 3, "--count", count, "--idle", 30, "--json")
    url = "tcp://127.0.0.1:0/orders?hello_timeout=0.5&frame_timeout=0.5"
    with Command("receive", url, *check) as receiver:
        to = receiver.ready()
        address = to.split("/")[2]
        pace = ("--rate", 4_000, "--count", count, "--seed", 3, "--key", "user_id")
        with Command("send", "clickstream", "--to", f"tcp://{address}/orders", *pace, "--json") as sender:
            for what, (data, code) in CUT_OFF.items():
                last = told_until_cut_off(address, data)[-1]
                assert isinstance(last, ErrorFrame), what
                assert last.code == code, what
            # A frame that is cut off by its own sender.
            with socket.create_connection(address.rsplit(":", 1), 20) as peer:
                peer.sendall(HELLO[:-3])
            sent = sender.done().report
        found = receiver.done().report
    assert (sent["sent"], sent["confirmed"], sent["unsettled"], sent["resent"]) == (count, count, 0, 0)
    names = ("received", "lost", "duplicated", "reordered", "corrupt", "unexpected", "cut_off")
    assert [found[name] for name in names] == [count, 0, 0, 0, 0, 0, len(CUT_OFF)]


# --- told to stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_both_ends_drain_and_report(number, fresh, kafka_broker, tmp_path):
    url, out = fresh(), tmp_path / "out.ndjson"
    with Command("receive", url, "--out", out, "--json") as receiver:
        receiver.ready()
        with Command(
            "send", "clickstream", "--to", url, "--rate", 2_000, "--duration", 600, "--seed", 5, "--json"
        ) as sender:
            written = Tail(out)
            sender.until(lambda: written.count >= 500, "the first records")
            sender.signal(number)
            report = sender.done(130).report
        sent = report["sent"]
        assert (report["interrupted"], report["confirmed"], report["unknown"]) == (True, sent, 0)
        receiver.until(lambda: written.count >= sent, "the last record")
        receiver.signal(number)
        found = receiver.done(130).report
    assert (found["received"], found["duplicated"]) == (sent, 0)
    records = sorted((json.loads(line) for line in lines_of(out)), key=lambda record: record["event_id"])
    assert records == simlink.generators.catalog.clickstream(seed=5)[:sent]
    assert len(records_in(kafka_broker, topic_of(url))) == sent
