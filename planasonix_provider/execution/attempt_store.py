"""Where a try writes down what it starts, so that the try after it finds it even if the worker was killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from airflow.providers.common.compat.sdk import AirflowException
from pydantic import ValidationError

from planasonix_provider.airflow_compat import variable_class
from planasonix_provider.api.errors import PlanasonixLostTrackError
from planasonix_provider.waiting.attempt import AttemptRecord

#: What the record is called in the store; of a variable, the beginning of its name.
RECORD = "planasonix_attempt"
_DESCRIPTION = "What a task of the Planasonix provider has started; it is deleted when that is over."


class TaskStateStore(Protocol):
    """What outlives the process of a task."""

    def get(self, key: str) -> Any:
        """Give what is stored, or ``None``."""

    def set(self, key: str, value: Any) -> None:
        """Store it; it is there when this returns."""

    def delete(self, key: str) -> None:
        """Forget it."""


class VariableStateStore:
    """Airflow's variables, in place of the store that tasks have from Airflow 3.3 on.

    :param context: what Airflow gives to ``execute``.
    """

    def __init__(self, context: Mapping[str, Any]) -> None:
        ti = context["ti"]
        self._names = [ti.dag_id, ti.run_id, ti.task_id, ti.map_index]

    def _name(self, key: str) -> str:
        # Names may be longer together than a variable's name may be.
        return f"{key}_{hashlib.sha256(json.dumps(self._names).encode()).hexdigest()[:32]}"

    def get(self, key: str) -> Any:
        """Read the variable.

        :param key: what it is called.
        :return: what it holds, or ``None``.
        """
        text = variable_class().get(self._name(key), None)
        try:
            found = None if text is None else json.loads(text)
        except ValueError:
            return text
        # A damaged one is not to be taken for none: "null" is JSON, too.
        return found if isinstance(found, dict) else text

    def set(self, key: str, value: Any) -> None:
        """Write the variable.

        :param key: what it is called.
        :param value: what it is to hold.
        :raises AirflowException: if it is not there afterwards.
        """
        text = json.dumps({"task": self._names, **value})
        variable_class().set(self._name(key), text, description=_DESCRIPTION)
        # Airflow 3 only logs that it could not be written.
        if variable_class().get(self._name(key), None) != text:
            raise AirflowException(
                f"Airflow variable {self._name(key)!r} could not be written. If it stays, look at the health of "
                "Airflow's API server and database."
            )

    def place(self, key: str) -> str:
        """Name the variable.

        :param key: what it is called.
        :return: its name, for a message.
        """
        return f"Airflow variable {self._name(key)!r}"

    def delete(self, key: str) -> None:
        """Delete the variable.

        :param key: what it is called.
        """
        variable_class().delete(self._name(key))


class AttemptStore:
    """The record of one task of one DAG run and map index; tries and clears find the same one.

    From Airflow 3.3 on it is in the task's state store; before, in an Airflow variable that goes when the work is over.

    :param context: what Airflow gives to ``execute``.
    """

    def __init__(self, context: Mapping[str, Any]) -> None:
        store = context.get("task_state_store")
        self._is_variable = store is None
        self._store: TaskStateStore = VariableStateStore(context) if store is None else store
        self._place = (
            f"the entry {RECORD!r} of the task's state store (REST API: DELETE …/state-store/{RECORD})"
            if store is not None
            else VariableStateStore(context).place(RECORD)
        )

    def read(self) -> AttemptRecord | None:
        """Read what an earlier try has written down.

        :return: the record, or ``None`` where there is none.
        :raises PlanasonixLostTrackError: if there is one that cannot be read.
        """
        stored = self._store.get(RECORD)
        if stored is None:
            return None
        if isinstance(stored, dict):
            stored = {name: value for name, value in stored.items() if name != "task"}
        try:
            return AttemptRecord.model_validate(stored)
        except ValidationError as invalid:
            problem = invalid.errors(include_url=False, include_input=False)[0]
            what = ".".join(str(step) for step in problem["loc"]) or "record"
            raise PlanasonixLostTrackError(
                f"What an earlier try has written down of its start cannot be read ({what}: {problem['msg']}): it is "
                "damaged, or of another version of airflow-provider-planasonix. Nothing was started. Look in "
                f"Planasonix whether work of this task still runs, and end it there if so; then delete {self._place}, "
                "and clear the task."
            ) from None

    def write(self, record: AttemptRecord) -> None:
        """Write down, and be sure that it is: what comes next may be the end of this process.

        :param record: what to write.
        """
        self._store.set(RECORD, record.model_dump(mode="json"))

    def remember(self, record: AttemptRecord, warn: Callable[[str], object]) -> None:
        """Write down what was started; where that fails, the next try finds it as one finds a lost answer.

        :param record: what to write, with an id.
        :param warn: writes a line that deserves attention to the task's log.
        """
        try:
            self.write(record)
        except Exception as fault:
            warn(
                f"The id of {record.kind} {record.id} could not be written down, going on without it; a retry would "
                f"look for the {record.kind}. {fault!r}"
            )

    def give_up(self) -> None:
        """Write down that the time of what was started is up, so that the next try ends what is left of it."""
        if (record := self.read()) and record.is_own:
            self.write(record.model_copy(update={"is_given_up": True}))

    def delete(self) -> None:
        """Delete what was written down of a start that has surely started nothing."""
        self._store.delete(RECORD)

    def delete_variable(self) -> None:
        """Leave nothing behind in Airflow's variables of work that is accounted for."""
        if self._is_variable:
            self._store.delete(RECORD)
