"""The map of the rooms in docs/contributing.md is that of the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import planasonix_provider

ROOT = Path(__file__).parent.parent
PACKAGE = Path(planasonix_provider.__file__).parent
MAP = (ROOT / "docs" / "contributing.md").read_text().split("\n## The rooms\n")[1].split("\n## ")[0]
#: Each line of the map: the rooms that share it, and those that they import.
LINES = [
    (re.findall(r"`([\w./]+)`", rooms), re.findall(r"`([\w./]+)`", imports))
    for rooms, imports in re.findall(r"^\| (`.*?) \| .* \| (.*?) \|$", MAP, re.MULTILINE)
]
ROOMS = [room for rooms, _ in LINES for room in rooms]


def room_of(path: Path) -> str:
    """The room of a file, as the map writes it."""
    first, *inside = path.relative_to(PACKAGE).parts
    return f"{first}/" if inside else first


def imports_of(tree: ast.AST) -> Iterator[str]:
    """What is imported of the package when the code runs: not for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            _, *inside = (node.module or "").split(".")
            yield from inside[:1] or (alias.name for alias in node.names)
        yield from imports_of(node)


def imported_by(room: str) -> set[str]:
    files = [PACKAGE / room] if room.endswith(".py") else (PACKAGE / room).rglob("*.py")
    names = {name for file in files for name in imports_of(ast.parse(file.read_text()))} - {"__version__"}
    return {f"{name}/" if (PACKAGE / name).is_dir() else f"{name}.py" for name in names} - {room}


def test_every_file_is_in_a_room() -> None:
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__.py"}
    assert sorted(ROOMS) == sorted(rooms)


@pytest.mark.parametrize(("rooms", "imports"), LINES, ids=[" ".join(rooms) for rooms, _ in LINES])
def test_a_room_imports_what_the_map_says(rooms: list[str], imports: list[str]) -> None:
    imported = set().union(*map(imported_by, rooms))
    assert imported - set(rooms) == set(imports)


@pytest.mark.parametrize(("rooms", "imports"), LINES, ids=[" ".join(rooms) for rooms, _ in LINES])
def test_an_import_goes_up_the_map(rooms: list[str], imports: list[str]) -> None:
    assert {room for room in imports if ROOMS.index(room) >= ROOMS.index(rooms[0])} == set()
