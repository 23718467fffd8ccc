"""The Markdown of the guides for language models, made by ``docs/llms.py``."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
URL = "https://docs.example.com/"

spec = spec_from_file_location("llms", DOCS / "llms.py")
assert spec is not None
assert spec.loader is not None
llms = module_from_spec(spec)
spec.loader.exec_module(llms)

#: Files beside the pages, which Sphinx publishes under names of its own.
DOWNLOADS = {
    path: "_downloads/file"
    for page in DOCS.glob("*.md")
    for path in re.findall(r"\]\(([\w./-]+\.(?:py|csv|yaml))\)", page.read_text())
}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_a_guide_is_complete_without_the_other_files(page: Path) -> None:
    text = llms.markdown(page.read_text(), DOCS, URL, DOWNLOADS)
    assert re.findall(r"\]\((?!https?:|mailto:|#)[^)]*\)", text) == []
    assert not re.search(r"\{(?:include|literalinclude|toctree|button-ref|grid)", text)
    assert text.count("```") % 2 == 0
    if page.stem != "changelog":
        assert text.startswith(f"{page.read_text().splitlines()[0]}\n")


def test_included_files_and_links_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "CHANGES.md").write_text("# Changes\n\n- A fix ([syncs](docs/syncs.md#retries)).\n")
    (tmp_path / "dag.py").write_text("print('hello')\n")
    source = (
        "```{include} CHANGES.md\n:relative-docs: docs/\n```\n\n"
        "```{literalinclude} dag.py\n:language: python\n```\n\n"
        "See [reference](reference/hook.md), [data](data.csv), [here](#below), ![picture](images/a.png).\n\n"
        "```{toctree}\n:hidden:\n\nsyncs\n```\n\n"
        "::::{grid} 1 2\n:::{grid-item-card} Syncs\n:::\n::::\n"
    )
    assert llms.markdown(source, tmp_path, URL, {"data.csv": "_downloads/1/data.csv"}) == (
        "# Changes\n\n- A fix ([syncs](https://docs.example.com/syncs.html#retries)).\n\n"
        "```py\nprint('hello')\n```\n\n"
        "See [reference](https://docs.example.com/reference/hook.html), "
        "[data](https://docs.example.com/_downloads/1/data.csv), [here](#below), "
        "![picture](https://docs.example.com/_images/a.png).\n"
    )
