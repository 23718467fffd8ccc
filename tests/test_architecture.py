"""Imports follow the order in docs/contributing.md ("Layout"), and a name has only one meaning."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import planasonix_provider

ROOT = Path(__file__).parent.parent
PACKAGE = Path(planasonix_provider.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}

LAYOUT = (ROOT / "docs" / "contributing.md").read_text().split("\n## Layout\n")[1].split("\n## ")[0]
#: Each row of the table: the packages that share it, and the packages that they import.
ROWS = [
    (re.findall(r"`([\w./]+)`", packages), re.findall(r"`([\w./]+)`", imports))
    for packages, imports in re.findall(r"^\| (`.*?) \| .* \| (.*?) \|$", LAYOUT, re.MULTILINE)
]
ORDER = {package: number for number, (packages, _) in enumerate(ROWS) for package in packages}

#: The folders of tests that make test-fast runs.
WITHOUT_AIRFLOW = re.findall(r"^WITHOUT_AIRFLOW := (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()

#: Names that several modules may have, because the folder is the qualifier.
COMMON_STEMS = {"__init__", "__main__", "base", "planasonix"}
MAX_TEST_NAME = 80


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Yield the files of the package that code imports, also lazily and for annotations."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, *parts = name.split(".")
            if package == PACKAGE.name:
                yield next(filter(FILES.__contains__, _candidates(parts)), "__init__.py")


def _candidates(parts: list[str]) -> Iterator[str]:
    for end in range(len(parts), 0, -1):
        path = "/".join(parts[:end])
        yield from (f"{path}.py", f"{path}/__init__.py")


IMPORTS = {name: set(imports_of(tree)) - {name} for name, tree in TREES.items()}


def package_of(file: str) -> str:
    """Return the package of a file as the table writes it."""
    first, *rest = file.split("/")
    return f"{first}/" if rest else first


def test_every_package_is_in_the_table() -> None:
    existing = {package_of(file) for file in FILES} - {"__init__.py"}
    assert not (missing := existing - set(ORDER)), (
        f'Add to the table "Layout" of docs/contributing.md: {sorted(missing)}'
    )
    assert not (gone := set(ORDER) - existing), f"The table has packages that do not exist: {sorted(gone)}"


@pytest.mark.parametrize(("packages", "imports"), ROWS, ids=[" ".join(packages) for packages, _ in ROWS])
def test_a_package_imports_the_packages_in_the_table(packages: list[str], imports: list[str]) -> None:
    files = [file for file in FILES if package_of(file) in packages]
    imported = {package_of(other) for file in files for other in IMPORTS[file]} - {"__init__.py", *packages}
    row = f'the row of {", ".join(packages)} in the table "Layout" of docs/contributing.md'
    assert not (missing := imported - set(imports)), (
        f"The code imports packages that are not in {row}: {sorted(missing)}"
    )
    assert not (unused := set(imports) - imported), f"The code does not import some packages in {row}: {sorted(unused)}"
    below = sorted(package for package in imports if ORDER[package] >= ORDER[packages[0]])
    assert not below, f"A package may import only from rows above its own, but {row} has {below}"


def test_packages_in_test_fast_do_not_import_airflow() -> None:
    packages = {f"{folder.removeprefix('tests/')}/" for folder in WITHOUT_AIRFLOW}
    files = [file for file in FILES if package_of(file) in packages]
    assert files
    importing = [
        file
        for file in files
        for node in ast.walk(TREES[file])
        if any(name.split(".")[0] == "airflow" for name in _modules_of(node))
    ]
    assert not importing


@pytest.mark.slow("starts pytest")
def test_tests_in_test_fast_do_not_import_airflow() -> None:
    source = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]) or 'airflow' in sys.modules)"
    arguments = ["-q", "--collect-only", "-p", "no:schemathesis", *WITHOUT_AIRFLOW]
    run = subprocess.run(
        [sys.executable, "-c", source, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-2_000:]


def _modules_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_no_files_import_each_other() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail("A cycle of imports: " + " is imported by ".join(error.args[1]))


def test_no_modules_of_one_level_share_a_name() -> None:
    modules = defaultdict(list)
    for file, path in FILES.items():
        if path.stem not in COMMON_STEMS:
            modules[file.count("/"), path.stem].append(file)
    assert [files for files in modules.values() if len(files) > 1] == []


def test_no_classes_share_a_name() -> None:
    classes = defaultdict(list)
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(file)
    assert {name: files for name, files in classes.items() if len(files) > 1} == {}


def test_names_of_tests_are_short() -> None:
    sources = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    names = [name for source in sources for name in re.findall(r"^ *(?:async )?def (test_\w+)", source, re.MULTILINE)]
    assert [name for name in names if len(name) > MAX_TEST_NAME] == []
