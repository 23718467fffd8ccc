"""The examples of the API's reference, parsed from its text."""

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
    """A body in the reference: of a request, or of a response with a status. The path is below ``/api/v1``."""

    method: str
    path: str
    status: int | None
    body: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.status or 'body'}"


def routes() -> list[tuple[str, str]]:
    """Return the method and path of all routes."""
    return [(found[1], found[2]) for line in TEXT.read_text().splitlines() if (found := _ROUTE.fullmatch(line))]


def examples() -> list[Example]:
    """Return all bodies."""
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
