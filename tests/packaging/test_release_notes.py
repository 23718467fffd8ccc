from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dev.release_notes import release_notes
from planasonix_provider import __version__

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


def test_the_command_reads_the_version_and_the_changelog_of_the_sources() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "dev.release_notes", "v0"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert repr(__version__) in run.stderr
