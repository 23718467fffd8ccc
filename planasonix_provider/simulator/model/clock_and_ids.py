"""Where the time and the ids come from, unless a test brings its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

#: Tells the time, in UTC.
Clock: TypeAlias = Callable[[], datetime]
#: Makes an id of a prefix, as ``job``.
Ids: TypeAlias = Callable[[str], str]


def utc_now() -> datetime:
    """Tell the time.

    :return: the time of this machine, in UTC.
    """
    return datetime.now(UTC)


def random_id(prefix: str) -> str:
    """Make an id.

    :param prefix: what kind of thing it names, as ``job``.
    :return: an id that no other thing has.
    """
    return f"{prefix}_{uuid.uuid4().hex}"
