"""Stores what a try starts, so that the next try finds it even if the worker was killed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from planasonix_provider.api.errors import PlanasonixLostTrackError
from planasonix_provider.state_store import TaskStateStore, VariableStateStore
from planasonix_provider.waiting.attempt import RECORD_KEY, AttemptRecord

_DESCRIPTION = "The work that a task of the Planasonix provider has started; deleted when it is over."


class AttemptStore:
    """The record of one task of one DAG run and map index, for all its tries, also after a clear.

    Since Airflow 3.3 it is in the task's state store; before, in an Airflow variable that is deleted with the work.
    """

    def __init__(self, context: Mapping[str, Any]) -> None:
        variables = VariableStateStore.for_task(context, _DESCRIPTION)
        state_store = context.get("task_state_store")
        self._is_variable = state_store is None
        self._store: TaskStateStore = variables if state_store is None else state_store
        self._place = (
            f"Airflow variable {variables.name(RECORD_KEY)!r}"
            if state_store is None
            else f"the entry {RECORD_KEY!r} of the task's state store (REST API: DELETE …/state-store/{RECORD_KEY})"
        )

    def read(self) -> AttemptRecord | None:
        """Return the record of an earlier try, or ``None``; raise if it is damaged."""
        stored = self._store.get(RECORD_KEY)
        if stored is None:
            return None
        try:
            return AttemptRecord.model_validate(stored)
        except ValidationError as invalid:
            problem = invalid.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(step) for step in problem["loc"]) or "record"
            raise PlanasonixLostTrackError(
                f"What an earlier try has written down of its start cannot be read ({field}: {problem['msg']}): it is "
                "damaged, or of another version of airflow-provider-planasonix. Nothing was started. Look in "
                f"Planasonix whether work of this task still runs, and end it there if so; then delete {self._place}, "
                "and clear the task."
            ) from None

    def write(self, record: AttemptRecord) -> None:
        """Store a record before this returns: the process may end right after it."""
        self._store.set(RECORD_KEY, record.model_dump(mode="json"))

    def store_id(self, record: AttemptRecord, warn: Callable[[str], object]) -> bool:
        """Return whether the id was stored. If not, the next try searches for the work, as after a lost response."""
        try:
            self.write(record)
        except Exception as error:
            warn(
                f"The id of {record.kind} {record.id} could not be written down, going on without it; a retry would "
                f"look for the {record.kind}. {error!r}"
            )
            return False
        return True

    def give_up(self) -> None:
        """Mark the work of this task, so that the next try cancels what is left of it."""
        if (record := self.read()) and record.is_own:
            self.write(record.model_copy(update={"is_given_up": True}))

    def delete(self) -> None:
        """Delete the record of a request that has certainly started nothing."""
        self._store.delete(RECORD_KEY)

    def release(self) -> None:
        """Store that the task needs the work no longer.

        A variable is deleted, since Airflow would keep it forever. In the state store, the record stays for a retry:
        the process may end before Airflow knows the task's result.
        """
        if self._is_variable:
            self._store.delete(RECORD_KEY)
        elif record := self.read():
            self.write(record.model_copy(update={"is_released": True}))
