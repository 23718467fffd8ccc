"""The pages as text for language models: ``llms.txt`` (https://llmstxt.org), and each page as Markdown.

A guide's Markdown is its source, with included files and absolute links. The reference has no such source, because
Sphinx reads it from the code; its text is what Sphinx renders. ``llms-full.txt`` contains all pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SUMMARY = (
    "airflow-provider-planasonix starts Planasonix syncs and backfills from Apache Airflow DAGs, waits for them "
    "without a worker slot, and returns what they loaded. It supports Airflow 2.11 and every 3.x. Its classes are "
    "imported from planasonix_provider, for example planasonix_provider.operators.planasonix.PlanasonixSyncOperator."
)
#: By the convention of llms.txt, a reader with little room may leave this section out.
OPTIONAL = "Optional"


def markdown(source: str, folder: Path, url: str, downloads: Mapping[str, str]) -> str:
    """Return a guide with the files that it includes, and with links that work from anywhere.

    :param source: the page.
    :param folder: the folder of the page.
    :param url: the URL that the folder is published as, with a slash at its end.
    :param downloads: the published paths of the files beside the pages, by their paths in links.
    """

    def include(found: re.Match[str]) -> str:
        return (folder / found[1]).read_text().replace("](docs/", "](")

    def include_code(found: re.Match[str]) -> str:
        code, language = (folder / found[1]).read_text(), Path(found[1]).suffix.lstrip(".")
        return f"```{language}\n{code.rstrip()}\n```"

    text = re.sub(r"```\{include\} (\S+)\n(?::.*\n)*```", include, source)
    text = re.sub(r"```\{literalinclude\} (\S+)\n(?::.*\n)*```", include_code, text)
    # Cards and buttons repeat the list of pages.
    text = re.sub(r"(?ms)^(:{3,})\{grid.*?^\1$\n?|^```\{(?:toctree|button-ref)\}.*?^```$\n?", "", text)
    text = re.sub(r"(?<=\]\()(?!https?:|mailto:|#)([\w./-]+?)\.md(?=[#)])", rf"{url}\1.html", text)
    text = re.sub(r"(?<=\]\()images/", f"{url}_images/", text)
    for path, published in downloads.items():
        text = text.replace(f"]({path})", f"]({url}{published})")
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def write(app: Any, exception: Exception | None) -> None:
    """Write the files into the finished HTML."""
    if exception or app.builder.name != "html":
        return
    source, out, url = Path(app.srcdir), Path(app.outdir), app.config.html_baseurl
    lines = [f"# {app.config.html_title}", f"> {SUMMARY}"]
    full = []
    downloads = {path: f"_downloads/{published}" for path, (_, published) in app.env.dlfiles.items()}
    for caption, pages in _sections(app):
        lines.append(f"## {OPTIONAL if caption == 'Project' else caption}")
        entries = []
        for page in pages:
            text = (
                _rendered(app, page)
                if page.startswith("reference/")
                else markdown((source / f"{page}.md").read_text(), source, url, downloads)
            )
            (out / f"{page}.html.md").write_text(text)
            full.append(text)
            entries.append(f"- [{app.env.titles[page].astext()}]({url}{page}.html.md): {_summary(app, page)}")
        lines.append("\n".join(entries))
    (out / "llms.txt").write_text("\n\n".join(lines) + "\n")
    (out / "llms-full.txt").write_text("\n\n".join([*lines[:2], *full]))


def _sections(app: Any) -> list[tuple[str, list[str]]]:
    """Return the captions of the navigation, with their pages."""
    from sphinx.addnodes import toctree

    trees = app.env.get_doctree("index").findall(toctree)
    return [(tree["caption"], list(tree["includefiles"])) for tree in trees]


def _summary(app: Any, page: str) -> str:
    """Return the first paragraph of a page in one line."""
    from docutils.nodes import paragraph

    first = next(iter(app.env.get_doctree(page).findall(paragraph)))
    return re.sub(r"\s+", " ", first.astext())


def _rendered(app: Any, page: str) -> str:
    """Return a page as plain text."""
    from sphinx.writers.text import TextTranslator

    document = app.env.get_and_resolve_doctree(page, app.builder)
    translator = TextTranslator(document, app.builder)
    document.walkabout(translator)
    return str(translator.body)
