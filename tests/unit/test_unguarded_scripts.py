"""Scripts that start processes and have no ``if __name__ == '__main__':``: every new process is the script again, and
ends before it reads what it is to do."""

import subprocess
import sys

import pytest

import simlink

WRITES = """
import sys
from simlink.generators import catalog
from simlink.generators.output import crew
crew.start_method = lambda: "spawn"
catalog.access_log(seed=7).write(sys.argv[1], 400_000, workers=2)
"""
SENDS = """
import simlink, sys
from simlink.generators import catalog
simlink.run(catalog.access_log(seed=7), sys.argv[1], count=100, workers=2)
"""


@pytest.mark.parametrize(("script", "error"), [(WRITES, "StateError"), (SENDS, "SendError")], ids=["write", "run"])
def test_they_end_and_say_what_is_missing(script, error, tmp_path):
    path = tmp_path / "script.py"
    path.write_text(script)
    with simlink.queue("tcp://127.0.0.1:0/orders") as orders, orders.receiver() as rx:
        target = str(tmp_path / "out.ndjson") if script is WRITES else rx.url
        done = subprocess.run([sys.executable, path, target], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    last = done.stderr.rstrip().splitlines()[-1]
    assert last.startswith(f"simlink.errors.{error}: ")
    assert last.endswith("a script that starts processes needs if __name__ == '__main__':")
