"""Print the release notes of a tag: ``make release-notes TAG=v1.2.3``.

Fails if the tag, the version of the package and the changelog do not agree.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = "https://docs.planasonix.com/airflow"


def release_notes(tag: str, version: str, changelog: str) -> str:
    """Return the section of the version in the changelog, with links to the documentation."""
    if tag != f"v{version}":
        raise ValueError(f"The tag is {tag!r}, but __version__ in planasonix_provider/__init__.py is {version!r}.")
    section = re.search(
        rf"^## {re.escape(version)} \(([^)\n]*)\)\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    if not section:
        raise ValueError(f"CHANGELOG.md has no section '## {version} (date)'.")
    date, text = section.groups()
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
        raise ValueError(f"In CHANGELOG.md, version {version} is {date!r}: write its date, such as 2026-01-31.")
    # Join the lines of a paragraph, because GitHub shows each line break.
    text = re.sub(r"(?<=[^\n])\n *(?=[^\s#-])", " ", text.strip())
    return re.sub(r"\]\(docs/([\w-]+)\.md(#[\w-]+)?\)", rf"]({DOCS}/\1.html\2)", text)


def main() -> None:
    """Print the notes of the tag in the first argument."""
    source = (ROOT / "planasonix_provider" / "__init__.py").read_text()
    (version,) = re.findall(r'^__version__ = "(.+)"', source, re.MULTILINE)
    try:
        print(release_notes(sys.argv[1], version, (ROOT / "CHANGELOG.md").read_text()))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
