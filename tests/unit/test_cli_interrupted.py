"""Ctrl-C before a command has anything to drain: one line, status 130, and its JSON where that was asked for."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import uuid

import pytest

from tests.support.command import Command


def run_python(program, **options):
    """A program of its own, in a process group of its own."""
    text = textwrap.dedent(program)
    return subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=False, start_new_session=True, **options
    )


def test_while_the_command_line_library_loads(tmp_path):
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = run_python(
        "import sys; from simlink.cli import main; sys.exit(main(['doctor', '--json']))",
        env={**os.environ, "PYTHONPATH": path},
    )
    assert (abs(done.returncode) % 128, done.stderr) == (2, "")
    assert json.loads(done.stdout) == {"error": "interrupted"}


def test_before_the_run_begins(capfd, monkeypatch):
    from simlink.cli import main

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("simlink.cli.send.load_spec", interrupted)
    status = main(["send", "clickstream", "--to", f"memory://{uuid.uuid4().hex[:8]}", "--count", "5", "--json"])
    out, err = capfd.readouterr()
    assert (status, json.loads(out), err.strip()) == (130, {"error": "interrupted"}, "simlink: interrupted")


def test_while_a_receiver_looks_for_its_broker():
    """One Ctrl-C is enough, and it does not take all of ``--timeout``."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/x"
        with Command("receive", url, "--timeout", 600, "--json") as receiver:
            # It has called, and waits for an answer that does not come.
            silent.settimeout(60)
            call, _ = silent.accept()
            with call:
                receiver.signal(signal.SIGINT)
                done = receiver.done(130)
    assert (done.report, done.stderr.strip()) == ({"error": "interrupted"}, "simlink: interrupted")


def test_the_demo_reports_what_it_has_sent():
    with Command("demo", "--rate", 50, "--count", 100_000, "--json") as demo:
        demo.until(lambda: " sent," in demo.stderr, "progress")
        demo.signal(signal.SIGINT)
        report = demo.done(130).report
    assert (report["ok"], report["received"], report["sent"]["interrupted"]) == (False, None, True)
    assert report["sent"]["sent"] == report["sent"]["confirmed"] > 0


@pytest.mark.parametrize("started", [1, 2])
def test_while_workers_start(started):
    """Ctrl-C goes to the whole process group, where a worker still loads its libraries: it says nothing, hears of the
    end once it can, and all is reported."""
    done = run_python(
        f"""
        import os, signal, simlink
        from simlink.running import workers

        start, begun = workers._Team.start, []

        def starting(*args):
            start(*args)
            begun.append(1)
            if len(begun) == {started}:
                os.killpg(0, signal.SIGINT)

        workers._Team.start = starting
        if __name__ == "__main__":
            try:
                simlink.run(
                    simlink.generators.catalog.numbers(seed=1), "tcp://127.0.0.1:1/x", count=10_000, workers=2,
                    progress=False,
                )
            except simlink.Interrupted as error:
                print(error.report.interrupted, error.report.sent, error.report.workers)
        """
    )
    assert (done.stdout, done.stderr) == ("True 0 2\n", "")
