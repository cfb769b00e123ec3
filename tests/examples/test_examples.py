"""The examples run as their first lines say."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("url", ["memory://quickstart", "tcp://127.0.0.1:0/quickstart"])
def test_quickstart(url):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "quickstart.py", url], capture_output=True, text=True, timeout=120, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "10,000" in done.stdout


def test_the_pytest_example():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLES / "test_billing.py"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_failover_loses_nothing():
    """Three processes, one killed and started again: most of the time is theirs to start."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "failover.py", "--seconds", "6", "--rate", "100"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert " sent, 0 lost," in done.stdout
    assert "→ dead" in done.stdout
    assert "done" in done.stdout or "interrupted" in done.stdout


def test_failover_in_a_notebook():
    """A kernel and three processes of its own: the cells wait for what they show, and for nothing else."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(EXAMPLES / "failover.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(EXAMPLES)}})
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    tables = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert ["dead" in table for table in tables[:3]] == [False, True, False]
    assert any("0 lost" in output.get("text", "") for output in outputs)


def test_a_notebook_from_a_sample_to_proof():
    """A kernel of its own, which draws and sends; its cells assert what they show."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("matplotlib")
    notebook = nbformat.read(EXAMPLES / "fit-send-verify.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
