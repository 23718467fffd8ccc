"""Starts by other clients of Planasonix that a test plans for later, in travelled time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import pytest

from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.workspace import Workspace


class PlannedStarts:
    """Starts work in the simulator when the time for it has come.

    Nothing runs in the background: each access to the simulator first runs the starts that are due.
    """

    def __init__(self, workspace: Workspace, patch: pytest.MonkeyPatch) -> None:
        self._workspace = workspace
        self._advance = workspace.advance
        self._changes_at = workspace.next_change_at
        self._planned: list[tuple[datetime, Callable[[], object]]] = []
        patch.setattr(workspace, "advance", self._start_what_is_due)
        patch.setattr(workspace, "next_change_at", self._next_change)

    def add(self, at: datetime, start: Callable[[], object]) -> None:
        """Plan a start."""
        with self._workspace.lock:
            self._planned.append((at, start))
            self._planned.sort(key=lambda planned: planned[0])

    def _start_what_is_due(self) -> datetime:
        clock = self._workspace.clock
        while self._planned and self._planned[0][0] <= clock():
            at, start = self._planned.pop(0)
            self._workspace.clock = lambda at=at: at  # type: ignore[misc]
            try:
                # Another sync of the connection may run.
                with suppress(ApiError):
                    start()
            finally:
                self._workspace.clock = clock
        return self._advance()

    def _next_change(self) -> datetime | None:
        changes = [self._changes_at(), *(at for at, _ in self._planned[:1])]
        return min((change for change in changes if change), default=None)
