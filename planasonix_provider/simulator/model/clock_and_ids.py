"""The clock and the ids of a simulator, unless a test replaces them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

#: Returns the current time in UTC.
Clock: TypeAlias = Callable[[], datetime]
#: Returns a new id with a prefix such as ``job``.
Ids: TypeAlias = Callable[[str], str]


def utc_now() -> datetime:
    return datetime.now(UTC)


def random_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
