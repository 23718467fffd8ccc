from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import planasonix_provider
from dev.release_notes import release_notes

ROOT = Path(__file__).parents[2]
CHANGELOG = """# Changelog

## 1.3.0 (unreleased)

- Not yet.

## 1.2.3 (2026-01-31)

### Fixed

Of operators
and sensors:

- A fix ([failure handling](docs/failure-handling.md#retries),
  [syncs](docs/syncs.md)).
- Another.

## 1.2.2 (2026-01-01)

- Older.
"""


def test_notes_are_the_section_of_the_version_with_links_and_whole_lines() -> None:
    assert release_notes("v1.2.3", "1.2.3", CHANGELOG) == (
        "### Fixed\n\nOf operators and sensors:\n\n- A fix "
        "([failure handling](https://docs.planasonix.com/airflow/failure-handling.html#retries), "
        "[syncs](https://docs.planasonix.com/airflow/syncs.html)).\n- Another."
    )


def test_the_last_section_ends_with_the_file() -> None:
    assert release_notes("v1.2.2", "1.2.2", CHANGELOG) == "- Older."


@pytest.mark.parametrize(
    ("tag", "version", "message"),
    [
        ("v1.2.4", "1.2.3", "The tag is 'v1.2.4', but __version__"),
        ("1.2.3", "1.2.3", "The tag is '1.2.3'"),
        ("v1.3.0", "1.3.0", "is 'unreleased': write its date"),
        ("v1.2", "1.2", "no section '## 1.2 "),
    ],
)
def test_a_tag_that_does_not_fit_has_no_notes(tag: str, version: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        release_notes(tag, version, CHANGELOG)


def run_command(tag: str, sources: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dev.release_notes", tag]
    return subprocess.run(command, cwd=sources, capture_output=True, text=True, check=False)


def test_the_command_reads_the_version_and_the_changelog_of_the_sources(tmp_path: Path) -> None:
    package = Path(planasonix_provider.__file__).parent
    for source, name in (
        (ROOT / "dev" / "__init__.py", "dev/__init__.py"),
        (ROOT / "dev" / "release_notes.py", "dev/release_notes.py"),
        (package / "__init__.py", "planasonix_provider/__init__.py"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source.read_text())
    version = planasonix_provider.__version__
    (tmp_path / "CHANGELOG.md").write_text(f"## {version} (2026-01-31)\n\n- A fix.\n")

    run = run_command(f"v{version}", tmp_path)
    assert (run.returncode, run.stdout) == (0, "- A fix.\n")
    run = run_command("v0", tmp_path)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"The tag is 'v0', but __version__ in planasonix_provider/__init__.py is {version!r}")
