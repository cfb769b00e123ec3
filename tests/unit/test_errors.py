"""The tree of errors: who is whose child, what each one tells, and that it passes between processes."""

import pickle
import re

import pytest

from simlink import errors
from simlink.errors import BatchError, ConnectTimeout, DecodeError, EncodeError, MissingExtra, SendTimeout, SimlinkError

KINDS = [getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type)]


def tree():
    """The tree as the module's docstring draws it: (name, parent, built-in besides)."""
    above = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ((?:│   |    )*)(?:[├└]── )?([A-Z]\w+)(?: \((\w+)\))?", line)
        if found is None:
            continue
        depth = len(found[1]) // 4 + (1 if "── " in line else 0)
        del above[depth:]
        yield found[2], above[-1] if above else "Exception", found[3]
        above.append(found[2])


def test_the_tree_is_as_it_is_drawn():
    drawn = list(tree())
    assert {kind.__name__ for kind in KINDS} == {name for name, _, _ in drawn}
    for name, parent, besides in drawn:
        bases = [base.__name__ for base in getattr(errors, name).__bases__]
        assert bases == [parent, *([besides] if besides else [])], name


EXAMPLES = [
    MissingExtra("kafka://", "kafka", package="kafka-python"),
    ConnectTimeout("nobody", url="tcp://h:1/x", endpoint="h:1", retryable=True),
    BatchError("two", failed={1: EncodeError("nan", row=1)}, url="u"),
    SendTimeout("late", receipt=object(), retryable=True),
    EncodeError("nan", row=3),
    DecodeError("bad", body=b"{"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_passes_between_processes(error):
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error)
    assert str(found) == str(error)
    for name, value in vars(error).items():
        expected = None if name == "receipt" else repr(value)
        assert (None if name == "receipt" else repr(getattr(found, name))) == expected


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in {MissingExtra, BatchError}], ids=lambda k: k.__name__)
def test_every_plain_error_passes_between_processes(kind):
    assert pickle.loads(pickle.dumps(kind("why"))).args == ("why",)


def test_a_missing_extra_names_its_pip_command():
    assert str(MissingExtra("kafka://", "kafka", package="kafka-python")) == (
        "kafka:// needs kafka-python: pip install 'simlink[kafka]'"
    )
    assert MissingExtra("x", "all").extra == "all"


def test_every_error_is_caught_by_the_root():
    assert all(issubclass(kind, SimlinkError) for kind in KINDS)
