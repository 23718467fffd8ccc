"""One try of one task, and the record that it stores before it starts work in Planasonix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import quote
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

#: The key of the record in the task's state store, and the beginning of its variable's name.
RECORD_KEY = "planasonix_attempt"
#: How many characters of an idempotency key may name the task. Servers commonly accept 255 in total.
_MAX_NAME = 200
#: The metadata key that identifies the work of a try.
ATTEMPT_KEY = "airflow_attempt"


class TaskKey(NamedTuple):
    """The task of one DAG run and map index, for all its tries."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int


@dataclass(frozen=True)
class Attempt:
    """One try of one task.

    :param max_tries: the number of the last retry that Airflow would make; a clear raises it, a retry does not.
    :param retries: the retries that the DAG gives the task now; ``None`` if the context has no task.
    :param clear_number: how often Airflow has counted a clear of the DAG run; ``None`` if the context has no DAG run.
    :param dag_version: the metadata that names the version of the DAG; empty before Airflow 3.
    :param nonce: makes the idempotency key unique. A DAG run that was deleted and created again has the names of the
        old run, but must not get its job.
    """

    dag_id: str
    task_id: str
    run_id: str
    try_number: int
    map_index: int
    max_tries: int = 0
    retries: int | None = None
    clear_number: int | None = None
    dag_version: Mapping[str, str] = field(default_factory=dict)
    nonce: str = field(default_factory=lambda: uuid4().hex)

    @classmethod
    def of(cls, context: Mapping[str, Any]) -> Attempt:
        """Return the try that the context of ``execute`` belongs to."""
        ti = context["ti"]
        map_index = ti.map_index if ti.map_index is not None else -1
        return cls(
            ti.dag_id,
            ti.task_id,
            ti.run_id,
            ti.try_number,
            map_index,
            max_tries=ti.max_tries or 0,
            retries=_number(context.get("task"), "retries"),
            clear_number=_number(context.get("dag_run"), "clear_number"),
            dag_version=_dag_version(ti),
        )

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata that leads from a job in Planasonix back to the task."""
        return {
            "dag_id": self.dag_id,
            "task_id": self.task_id,
            "run_id": self.run_id,
            "try_number": self.try_number,
            "map_index": self.map_index,
            **self.dag_version,
        }

    @property
    def key_metadata(self) -> dict[str, Any]:
        """The metadata that identifies this try's work, if the API returns metadata. It overrides keys of the user."""
        return {ATTEMPT_KEY: self.nonce}

    @property
    def idempotency_key(self) -> str:
        """The idempotency key of this try's start: readable in a server's log, and unique."""
        names = (self.dag_id, self.run_id, self.task_id, self.map_index, self.try_number)
        readable = "/".join(quote(str(name), safe=":+") for name in names)
        return f"{readable[:_MAX_NAME]}/{self.nonce}"

    def is_later_than_a_clear_of(self, record: AttemptRecord, *, counts_every_clear: bool) -> bool:
        """Return whether the task was cleared, or its DAG run made again, since a record was written.

        Airflow raises ``clear_number`` at each clear, but before 3.2 only if the DAG run had ended. A clear of a task
        that runs on a worker looks like a retry, because Airflow changes nothing but the state. So
        does a try that Airflow repeats because its scheduler died, even if there is no retry left.
        """
        # A DAG run that was deleted and made again counts its tries from 1, and its clears from 0.
        if self.max_tries != record.max_tries or self.try_number <= record.try_number:
            return True
        if self.clear_number is not None and record.clear_number is not None:
            if self.clear_number < record.clear_number:
                return True
            if self.clear_number == record.clear_number and counts_every_clear:
                return False
        # A clear sets max_tries to the number of the try before plus the task's retries. That leaves max_tries as it
        # was, if the DAG's retries were lowered by the number of tries since.
        if self.retries is None or self.retries == record.retries:
            return False
        return record.try_number <= self.max_tries - self.retries < self.try_number


class AttemptRecord(BaseModel):
    """The record of a start that later tries read.

    :param version: a record of another version is rejected.
    :param first_sent_at: when the start was about to be sent, by the server's clock.
    :param sent_at: when it was about to be sent again, if it was.
    :param existing_ids: the work of the connection that existed before.
    :param digest: identifies the parameters that decide what is loaded.
    :param retries: as in :class:`Attempt`, as is ``clear_number``.
    :param dag_version: as there, because a repeated request must have the body of the first.
    :param is_own: whether the task has started it, and not attached to it.
    :param is_given_up: whether the deadline has passed, so that the work must be cancelled.
    :param cancel_on_kill: whether the work may be cancelled when the task has ended without it.
    :param is_released: whether the task needs the work no longer: it is over, or runs on without the task.
    """

    # Fields that a later release adds are kept: the next try may run on a worker that is not upgraded yet.
    model_config = ConfigDict(extra="allow", frozen=True)

    version: Literal[1] = 1
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    planasonix_conn_id: str
    kind: Literal["job", "backfill"]
    connection_id: str
    key: str
    first_sent_at: AwareDatetime
    sent_at: AwareDatetime | None = None
    existing_ids: frozenset[str] = frozenset()
    window: tuple[AwareDatetime, AwareDatetime] | None = None
    digest: str
    try_number: int
    max_tries: int
    retries: int | None = None
    clear_number: int | None = None
    dag_version: dict[str, str] = Field(default_factory=dict)
    id: str | None = Field(default=None, min_length=1)
    is_own: bool = True
    is_given_up: bool = False
    cancel_on_kill: bool = True
    is_released: bool = False

    @property
    def task_key(self) -> TaskKey:
        """The task that has stored this record."""
        return TaskKey(self.dag_id, self.run_id, self.task_id, self.map_index)

    @property
    def work_key(self) -> tuple[str, str, str | None]:
        """The work of this record, which other records may also have."""
        return self.planasonix_conn_id, self.kind, self.id

    @property
    def last_sent_at(self) -> datetime:
        """When the start was last sent."""
        return self.sent_at or self.first_sent_at

    @property
    def may_be_orphaned(self) -> bool:
        """Whether the work is an orphan if the task ends without it."""
        return self.is_own and self.cancel_on_kill and not self.is_released

    @property
    def nonce(self) -> str:
        """The nonce of that try."""
        return self.key.rpartition("/")[2]

    def attempt(self, now: Attempt) -> Attempt:
        """Return the try that has stored this record; its idempotency key is the same again."""
        return replace(
            now,
            try_number=self.try_number,
            max_tries=self.max_tries,
            dag_version=self.dag_version,
            nonce=self.nonce,
        )


def _number(owner: object, name: str) -> int | None:
    value = getattr(owner, name, None)
    return value if isinstance(value, int) else None


def _dag_version(ti: object) -> dict[str, str]:
    bundle = getattr(ti, "bundle_instance", None)
    found = {
        "dag_version_id": getattr(ti, "dag_version_id", None),
        "dag_bundle_name": getattr(bundle, "name", None),
        # A Git commit, for example. Local folders have no version.
        "dag_bundle_version": getattr(bundle, "version", None),
    }
    return {name: str(value) for name, value in found.items() if isinstance(value, (str, UUID))}


def digest_of(parameters: Mapping[str, Any]) -> str:
    """Return a digest of the parameters that decide what is loaded."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode()).hexdigest()[:16]
