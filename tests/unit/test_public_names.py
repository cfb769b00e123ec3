"""The package's face: every public name is there, and loads only when it is used."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import simlink


def python(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_every_name_is_there():
    for name in simlink.__all__:
        assert getattr(simlink, name) is getattr(simlink, name)
    assert set(simlink.__all__) <= set(dir(simlink))


def test_the_names_of_the_design():
    calls = {"queue", "topic", "run", "start", "verify", "replay", "record"}
    types = {"Json", "Protobuf", "Text", "Bytes", "Generator", "Serializer", "Channel", "Message"}
    assert calls | types | {"fields", "arrivals"} <= set(simlink.__all__)


def test_every_error_is_a_public_name():
    from simlink import errors

    assert set(errors.__all__) <= set(simlink.__all__)
    assert all(getattr(simlink, name) is getattr(errors, name) for name in errors.__all__)


def test_type_checkers_see_what_is_loaded():
    text = Path(simlink.__file__).read_text(encoding="utf-8")
    seen = {name: module for module, name in re.findall(r"from simlink\.?([\w.]*) import \w+ as (\w+)", text)}
    homes = {**dict.fromkeys(simlink._MODULES, ""), **simlink._HOMES}
    assert homes == seen


def test_importing_loads_neither_numpy_nor_any_client():
    loaded = python("import sys, simlink; print(*sys.modules)").split()
    heavy = {"numpy", "msgspec", "google", "kafka", "confluent_kafka", "click", "rich", "faker", "pandas", "pyarrow"}
    assert set() == heavy & {name.partition(".")[0] for name in loaded}
    assert [name for name in loaded if name.partition(".")[0] == "simlink"] == ["simlink"]


def test_importing_is_quick():
    # CPU time, which a busy machine does not stretch as it does the clock; the best of three.
    program = "import time; t = time.process_time(); import simlink; print(time.process_time() - t)"
    assert min(float(python(program)) for _ in range(3)) <= 0.060


def test_verify_is_the_function_whatever_was_imported_first():
    program = "import simlink.verification, simlink.running.run, simlink; print(callable(simlink.verify))"
    assert python(program).strip() == "True"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        simlink.nonsense  # noqa: B018 – looking is the point
