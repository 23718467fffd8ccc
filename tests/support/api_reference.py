"""The examples of the API's reference, taken out of its text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEXT = Path(__file__).parent.parent / "data" / "orchestration-api.txt"

_ROUTE = re.compile(r"(GET|POST|PUT|DELETE) /api/v1(/\S+)")
_RESPONSE = re.compile(r"Response (\d{3})")


@dataclass(frozen=True)
class Example:
    """A body that the reference shows.

    :param method: the HTTP method of its route.
    :param path: the path of its route, below ``/api/v1``.
    :param status: the status of the answer that it is, or ``None`` for the body of a request.
    :param body: the body.
    """

    method: str
    path: str
    status: int | None
    body: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.status or 'body'}"


def routes() -> list[tuple[str, str]]:
    """All routes that the reference names, in its order."""
    return [(found[1], found[2]) for line in TEXT.read_text().splitlines() if (found := _ROUTE.fullmatch(line))]


def examples() -> list[Example]:
    """All bodies that the reference shows, in its order."""
    found: list[Example] = []
    route: tuple[str, str] | None = None
    status: int | None = None
    block: list[str] = []
    for line in TEXT.read_text().splitlines():
        if named := _ROUTE.fullmatch(line):
            route, status = (named[1], named[2]), None
        elif block or line == "{":
            block.append(line)
            if line == "}":
                assert route is not None
                found.append(Example(*route, status, json.loads("\n".join(block))))
                block = []
        elif "Request body" in line:
            status = None
        if not block and (answers := _RESPONSE.search(line)):
            status = int(answers[1])
    return found
