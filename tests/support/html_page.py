"""A parsed HTML page."""

from __future__ import annotations

from html.parser import HTMLParser

import httpx


class Page(HTMLParser):
    """The text, the elements with their attributes, and the table cells of a page."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__()
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        self.status = response.status_code
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        #: The rows of each table, by its caption.
        self.tables: dict[str, list[list[str]]] = {}
        self._text: list[str] = []
        self._caption = ""
        self._cell: list[str] | None = None
        self.feed(response.text)
        self.text = " ".join("".join(self._text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.tables.setdefault(self._caption, []).append([])
        if tag in ("caption", "th", "td"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        if tag in ("caption", "th", "td"):
            cell = " ".join("".join(self._cell or []).split())
            self._cell = None
            if tag == "caption":
                self._caption = cell
            else:
                self.tables[self._caption][-1].append(cell)

    def handle_data(self, data: str) -> None:
        self._text.append(data)
        if self._cell is not None:
            self._cell.append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        """Return the attributes of the elements with this tag and these attributes."""
        return [found for name, found in self.elements if name == tag and found.items() >= attributes.items()]

    @property
    def links(self) -> list[str]:
        """The links that are not in the navigation."""
        navigation = {"#content", "/", "/jobs", "/backfills", "/webhooks", "/requests", "/start", "/control"}
        return [href for link in self.all("a") if (href := link["href"] or "") not in navigation]

    def facts(self, caption: str) -> dict[str, str]:
        """Return a table with two columns."""
        return dict(self.tables[caption])

    def ids(self, caption: str) -> list[str]:
        """Return the first column of a list."""
        return [row[0] for row in self.tables[caption][1:]]
