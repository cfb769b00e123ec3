"""The rooms of the house: each imports only rooms to its left, so there is no cycle to get lost in.

Imports for type checkers count as well: a word that a room needs is a word that it knows.
"""

import ast
from pathlib import Path

import pytest

import simlink

PACKAGE = Path(simlink.__file__).parent
ORDER = [
    {"errors"},
    {"message", "block"},
    {"serializers", "generators", "balancing", "health", "fields", "arrivals", "faults"},
    {"channels"},
    {"ledger"},
    {"running"},
    {"verify", "verification"},
    {"testing"},
    {"cli", "aio", "__main__"},
]
PLACE = {room: place for place, rooms in enumerate(ORDER) for room in rooms}
FILES = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_imported(path):
    """``(line, room)`` of every import of simlink's own in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "simlink" and len(parts) > 1:
                yield node.lineno, parts[1]


def test_every_room_has_its_place():
    assert {room_of(path) for path in FILES} <= set(PLACE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_its_own_room_and_those_to_its_left(path):
    room = room_of(path)
    wrong = [
        f"line {line}: {room} imports {other}"
        for line, other in rooms_imported(path)
        if other in PLACE and other != room and PLACE[other] > PLACE[room]
    ]
    assert wrong == []


def test_the_rule_can_be_broken(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def late():\n    from simlink.cli import main\n    import simlink.channels.url\n")
    assert list(rooms_imported(wrong)) == [(2, "cli"), (3, "channels")]
