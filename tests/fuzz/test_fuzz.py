"""Every decoder of ours is fuzzed for its share of a minute. SIMLINK_FUZZ_SECONDS asks for more."""

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fuzz.__main__ import CORPUS, fuzz
from tests.fuzz.targets import TARGETS

SECONDS = int(os.environ.get("SIMLINK_FUZZ_SECONDS", "60"))


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_known_is_withstood(name):
    target = TARGETS[name]
    for seed in target.seeds:
        target.run(seed)
    for path in sorted((CORPUS / name).glob("*")):
        target.run(path.read_bytes())


@pytest.fixture(scope="module")
def fuzzed(request):
    """Gives what became of a target. All that this session has chosen run two at a time: each in a process of its own,
    which takes as long to load the instrumented library as it then fuzzes."""
    items = [item for item in request.session.items if "fuzzed" in item.fixturenames]
    names = [item.callspec.params["name"] for item in items]
    with ThreadPoolExecutor(2, "fuzz") as pool:
        runs = {name: pool.submit(fuzz, name, max(1, SECONDS // len(TARGETS)), keep=False) for name in names}
        yield lambda name: runs[name].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("name", TARGETS)
def test_new_input_is_withstood(name, fuzzed):
    assert fuzzed(name)
