"""The figures of each night reach the branch ``benchmark-history`` and are compared there."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow("starts git")

ROOT = Path(__file__).parents[2]


def git(folder: Path, *arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return run.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with one commit of an origin, and the scripts."""
    git(tmp_path, "init", "--quiet", "--bare", "origin.git")
    git(tmp_path, "clone", "--quiet", "origin.git", "clone")
    clone = tmp_path / "clone"
    for name in ("dev/store-benchmarks", "benchmarks/history.py", "benchmarks/figures.py"):
        path = clone / name
        path.parent.mkdir(exist_ok=True)
        path.write_text((ROOT / name).read_text())
    git(clone, "add", ".")
    git(clone, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "--message", "Begin")
    git(clone, "push", "--quiet", "origin", "HEAD:main")
    return clone


def store(clone: Path, **figures: float) -> subprocess.CompletedProcess[str]:
    """Record figures as the benchmarks do, and store them."""
    script = "import figures\n" + "\n".join(f"figures.record({name!r}, {value})" for name, value in figures.items())
    environment = {**os.environ, "PYTHONPATH": "benchmarks", "BENCH_FIGURES": ".bench/figures.jsonl"}
    file = clone / ".bench" / "figures.jsonl"
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    subprocess.run(["python3", "-c", script], cwd=clone, env=environment, check=True)
    return subprocess.run(
        ["sh", "dev/store-benchmarks", str(file)], cwd=clone, capture_output=True, text=True, check=False
    )


def stored(clone: Path) -> list[dict[str, float]]:
    text = git(clone.parent / "origin.git", "show", "benchmark-history:history.jsonl")
    return [json.loads(line)["figures"] for line in text.splitlines()]


def test_the_first_night_creates_a_branch_that_holds_only_the_history(clone: Path) -> None:
    run = store(clone, memory=10.5)
    assert run.returncode == 0, run.stderr
    assert "| memory | 10.5 | - | - |" in run.stdout
    assert stored(clone) == [{"memory": 10.5}]
    origin = clone.parent / "origin.git"
    assert git(origin, "ls-tree", "--name-only", "benchmark-history") == "history.jsonl"
    (night,) = git(origin, "show", "benchmark-history:history.jsonl").splitlines()
    assert json.loads(night)["commit"] == git(clone, "rev-parse", "HEAD")
    assert git(clone, "status", "--porcelain", "--untracked-files=no") == ""


def test_each_night_is_appended_and_compared_with_the_median(clone: Path) -> None:
    for memory in (10, 20, 30):
        assert store(clone, memory=memory).returncode == 0
    run = store(clone, memory=29, cpu=1)
    assert run.returncode == 0
    assert "| memory | 29 | 20 | 1.45 |" in run.stdout
    assert "| cpu | 1 | - | - |" in run.stdout
    assert stored(clone) == [{"memory": 10}, {"memory": 20}, {"memory": 30}, {"memory": 29, "cpu": 1}]


def test_a_figure_that_is_much_worse_fails_the_night_and_is_stored(clone: Path) -> None:
    for _ in range(3):
        store(clone, memory=10, cpu=2)
    run = store(clone, memory=15.5, cpu=2)
    assert run.returncode == 1
    assert run.stderr.strip() == "More than 1.5 times the median: memory."
    assert stored(clone)[-1] == {"memory": 15.5, "cpu": 2}


def test_a_night_without_figures_fails_and_stores_nothing(clone: Path) -> None:
    store(clone, memory=10)
    run = store(clone)
    assert run.returncode != 0
    assert "There are no figures in" in run.stderr
    assert stored(clone) == [{"memory": 10}]


def test_an_unreachable_origin_is_an_error_and_not_an_empty_history(clone: Path) -> None:
    git(clone, "remote", "set-url", "origin", str(clone.parent / "missing.git"))
    run = store(clone, memory=10)
    assert run.returncode != 0
    assert "missing.git" in run.stderr
