"""A page as its reader has it."""

from __future__ import annotations

from html.parser import HTMLParser

import httpx


class Page(HTMLParser):
    """What is on a page: its text, its elements with their attributes, and the cells of its tables."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        self.status = answer.status_code
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        #: The rows of each table, by its caption.
        self.tables: dict[str, list[list[str]]] = {}
        self._pieces: list[str] = []
        self._caption = ""
        self._piece_of_cell: list[str] | None = None
        self.feed(answer.text)
        self.text = " ".join("".join(self._pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.tables.setdefault(self._caption, []).append([])
        if tag in ("caption", "th", "td"):
            self._piece_of_cell = []

    def handle_endtag(self, tag: str) -> None:
        if tag in ("caption", "th", "td"):
            cell = " ".join("".join(self._piece_of_cell or []).split())
            self._piece_of_cell = None
            if tag == "caption":
                self._caption = cell
            else:
                self.tables[self._caption][-1].append(cell)

    def handle_data(self, data: str) -> None:
        self._pieces.append(data)
        if self._piece_of_cell is not None:
            self._piece_of_cell.append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        """The attributes of the elements of a name that have some of them."""
        return [found for name, found in self.elements if name == tag and found.items() >= attributes.items()]

    @property
    def links(self) -> list[str]:
        """Where the page leads, besides the pages that all lead to."""
        everywhere = {"#content", "/", "/jobs", "/backfills", "/webhooks", "/start", "/steer"}
        return [href for link in self.all("a") if (href := link["href"] or "") not in everywhere]

    def facts(self, caption: str) -> dict[str, str]:
        """A table of names and values."""
        return dict(self.tables[caption])

    def ids(self, caption: str) -> list[str]:
        """What the rows of a list begin with."""
        return [row[0] for row in self.tables[caption][1:]]
