"""One try of one task, as it shows itself to Planasonix: in the job's metadata, and in the key of its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from uuid import uuid4

#: How many characters of the key may name the task; servers commonly take 255 in all.
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Attempt:
    """One try of one task.

    :param dag_id: the DAG.
    :param task_id: the task.
    :param run_id: the DAG run.
    :param try_number: which try it is, from 1.
    :param map_index: which of the mapped tasks it is, from 0; -1 where it is not mapped.
    :param nonce: what tells it from an earlier try of the same names: a DAG run that was deleted and made again has
        the old run's names, and must not be given the old run's job.
    """

    dag_id: str
    task_id: str
    run_id: str
    try_number: int
    map_index: int
    nonce: str = field(default_factory=lambda: uuid4().hex)

    @classmethod
    def of(cls, context: Mapping[str, Any]) -> Attempt:
        """Take the try that is running.

        :param context: what Airflow gives to ``execute``.
        :return: the attempt.
        """
        ti = context["ti"]
        map_index = ti.map_index if ti.map_index is not None else -1
        return cls(ti.dag_id, ti.task_id, ti.run_id, ti.try_number, map_index)

    @property
    def metadata(self) -> dict[str, Any]:
        """What leads from a run in Planasonix back to the task."""
        return {
            "dag_id": self.dag_id,
            "task_id": self.task_id,
            "run_id": self.run_id,
            "try_number": self.try_number,
            "map_index": self.map_index,
        }

    @property
    def idempotency_key(self) -> str:
        """What names this try's start: readable in a server's log, and never that of another try."""
        names = (self.dag_id, self.run_id, self.task_id, self.map_index, self.try_number)
        readable = "/".join(quote(str(name), safe=":+") for name in names)
        return f"{readable[:_LONGEST_NAME]}/{self.nonce}"
