"""State that outlives a process: the interface of Airflow 3.3's ``task_state_store``, and Airflow variables before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from airflow.providers.common.compat.sdk import AirflowException

from planasonix_provider.airflow_compat import variable_class


class TaskStateStore(Protocol):
    """The methods of ``context["task_state_store"]`` that this package uses."""

    def get(self, key: str) -> Any:
        """Return the stored value, or ``None``."""

    def set(self, key: str, value: Any) -> None:
        """Store a value before this returns."""

    def delete(self, key: str) -> None:
        """Delete the value, if there is one."""


class VariableStateStore:
    """Stores each key in an Airflow variable.

    ``scope`` says whose state it is, in JSON types; it is part of the variables' names.
    """

    def __init__(self, scope: Sequence[Any], description: str) -> None:
        self._scope = scope
        # The names of variables are hashes, so the description tells to which task one belongs.
        self._description = f"{description} ({', '.join(map(str, scope))})"

    @classmethod
    def for_task(cls, context: Mapping[str, Any], description: str) -> VariableStateStore:
        """Return the store of a task of one DAG run and map index, for all its tries."""
        ti = context["ti"]
        return cls([ti.dag_id, ti.run_id, ti.task_id, ti.map_index], description)

    def name(self, key: str) -> str:
        """Return the name of a key's variable."""
        return scoped_key(key, self._scope)

    def get(self, key: str) -> Any:
        """Return the stored object, the variable's text if it is no JSON object, or ``None`` if there is none.

        A damaged variable must not look like a missing one: ``null`` is JSON, too.
        """
        text = variable_class().get(self.name(key), None)
        try:
            value = None if text is None else json.loads(text)
        except ValueError:
            return text
        return value if isinstance(value, dict) else text

    def set(self, key: str, value: Mapping[str, Any]) -> None:
        """Store an object, and read it back, because Airflow 3 only logs that a variable could not be written."""
        text = json.dumps(value)
        variable_class().set(self.name(key), text, description=self._description)
        if variable_class().get(self.name(key), None) != text:
            raise AirflowException(
                f"Airflow variable {self.name(key)!r} could not be written. If it stays, look at the health of "
                "Airflow's API server and database."
            )

    def delete(self, key: str) -> None:
        """Delete the key's variable, if there is one."""
        variable_class().delete(self.name(key))


def scoped_key(key: str, scope: Sequence[Any]) -> str:
    """Return a key that differs between scopes; a hash, because variables and keys have a maximum length."""
    return f"{key}_{hashlib.sha256(json.dumps(scope).encode()).hexdigest()[:32]}"
