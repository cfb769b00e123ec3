"""Nothing is unpickled or evaluated from the wire: the few places that compile code are named, with their reason."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "simlink"
MODULES = frozenset({"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "code"})
CALLS = frozenset({"eval", "exec", "compile", "__import__", "execfile"})
ATTRIBUTES = frozenset({("multiprocessing", "connection"), ("numpy", "load"), ("np", "load"), ("yaml", "load")})
ALLOWED = {
    (
        "generators/output/crew.py",
        "pickle",
    ): "whether an error can be handed over is tried by the helper process that has it, with nothing from elsewhere",
    (
        "generators/output/processes.py",
        "pickle",
    ): "what a process that we start is to do, from the process that starts it, as multiprocessing does it itself",
    ("block.py", "eval"): "a dict display over a schema's field names, which stand in it as literals quoted by repr()",
    (
        "serializers/protobuf_codec.py",
        "exec",
    ): "a writer over field names of a descriptor of the user's, identifiers all",
    ("serializers/protobuf_codec.py", "eval"): "the same for reading; the message class is the user's, bytes never are",
}


def uses(tree):
    """Names of what unpickles or evaluates, as far as it is called or imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield node.module
        elif isinstance(node, ast.Name) and node.id in CALLS:
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in ATTRIBUTES or (node.value.id == "builtins" and node.attr in CALLS):
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            yield "allow_pickle"


def found():
    for path in sorted(ROOT.rglob("*.py")):
        for use in uses(ast.parse(path.read_text(encoding="utf-8"))):
            yield path.relative_to(ROOT).as_posix(), use


def test_only_what_is_named_here_compiles_code():
    assert set(found()) == set(ALLOWED)


def test_no_transport_is_among_them():
    assert [where for where, _ in found() if where.startswith("channels/")] == []


def test_the_search_sees_what_it_looks_for():
    source = "import pickle\nfrom marshal import loads\neval('1')\nnp.load(f, allow_pickle=True)\nbuiltins.exec('')\n"
    assert sorted(uses(ast.parse(source))) == ["allow_pickle", "builtins.exec", "eval", "marshal", "np.load", "pickle"]
