"""Standard input, output and error that are closed, full, or cannot hold what is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import simlink

ROOT = Path(simlink.__file__).parent.parent


@pytest.mark.parametrize(
    ("args", "how", "status", "out", "err"),
    [
        ("send SPEC:one --to memory://x --json", ">&-", 0, "", "values → memory://x: done"),
        ("send SPEC:one --to memory://x --json", "2>&-", 0, '"sent": 1', ""),
        ("send SPEC:one --to memory://x --json", ">/dev/full", 1, "", "simlink: [Errno 28]"),
        ("send SPEC:one --to memory://x --json", "2>/dev/full", 0, '"sent": 1', ""),
        ("send memory --to memory://x", "2>&-", 2, "", ""),
        ("send - --to memory://x", "<&-", 2, "", "simlink: SPEC -: standard input is closed"),
        ("preview SPEC:one", ">&-", 0, "", ""),
        ("preview SPEC:one", "", 0, "????", ""),
        ("send SPEC:one --to memory://x --key b --json", "", 2, r"\u043a\u043b\u044e\u0447", r"known: \u043a"),
    ],
)
def test_standard_streams_that_are_closed_or_cannot_hold_it(tmp_path, args, how, status, out, err):
    """As a service may be started; and in a locale that has no such letters."""
    (tmp_path / "shop.py").write_text("one = [{'ключ': 1}]\n", encoding="utf-8")
    command = f"{sys.executable} -m simlink.cli {args.replace('SPEC', 'shop')} {how}"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        capture_output=True,
        encoding="latin-1",
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    assert "Traceback" not in done.stderr
    assert (done.returncode, out in done.stdout, err.replace("→", r"\u2192") in done.stderr) == (status, True, True)
