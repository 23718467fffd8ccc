"""What is planned for the starts to come, for each connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Annotated, Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, Field

#: How many starts one call may plan. Each takes a place in memory until it is used up.
MAX_TIMES = 10_000
Times: TypeAlias = Annotated[int, Field(ge=1, le=MAX_TIMES)] | None

P = TypeVar("P", bound=BaseModel)


class Plans(Generic[P]):
    """Plans of one kind. They are used up in the order in which they were made.

    :param default: what holds where nothing else is planned.
    """

    def __init__(self, default: P) -> None:
        self._default = default
        self._next: dict[str, deque[P]] = {}
        self._always: dict[str, P] = {}

    def add(self, connection_id: str, times: int | None, changes: Mapping[str, Any]) -> P:
        """Plan what the next starts of a connection become.

        :param connection_id: the connection.
        :param times: for how many starts, at most 10,000; ``None`` is for all that nothing else is planned for.
        :param changes: fields of the plan; those that are not named are as in the default.
        :return: the plan.
        :raises ValueError: if a name or a value is not allowed.
        """
        if times is not None and not 1 <= times <= MAX_TIMES:
            raise ValueError(f"times: got {times!r}, allowed is 1 to {MAX_TIMES:,}, or None for all that follow.")
        plan = self._default.model_validate({**dict(self._default), **changes})
        if times is None:
            self._always[connection_id] = plan
        else:
            self._next.setdefault(connection_id, deque()).extend([plan] * times)
        return plan

    def next_plan(self, connection_id: str) -> P:
        """Use up the next plan.

        :param connection_id: the connection of which something starts.
        :return: the plan.
        """
        planned = self._next.get(connection_id)
        return planned.popleft() if planned else self._always.get(connection_id, self._default)
