"""Every decoder of ours is fuzzed for its share of a minute. SIMLINK_FUZZ_SECONDS asks for more."""

import importlib.util
import os

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


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("name", TARGETS)
def test_new_input_is_withstood(name):
    assert fuzz(name, max(1, SECONDS // len(TARGETS)), keep=False)
