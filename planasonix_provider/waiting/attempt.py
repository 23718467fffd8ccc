"""One try of one task: how it shows itself to Planasonix, and what it writes down before it starts anything there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import quote
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

#: How many characters of the key may name the task; servers commonly take 255 in all.
_LONGEST_NAME = 200
#: The metadata that tells the work of a try from all other.
ATTEMPT_KEY = "airflow_attempt"


@dataclass(frozen=True)
class Attempt:
    """One try of one task.

    :param dag_id: the DAG.
    :param task_id: the task.
    :param run_id: the DAG run.
    :param try_number: which try it is, from 1.
    :param map_index: which of the mapped tasks it is, from 0; -1 where it is not mapped.
    :param max_tries: the number of the last retry that Airflow would make; a clear raises it, a retry does not.
    :param retries: the retries that the DAG gives the task now; ``None`` if the context has no task.
    :param clear_number: how often Airflow has counted a clear of the DAG run; ``None`` if the context has no DAG run.
    :param nonce: what tells it from an earlier try of the same names: a DAG run that was deleted and made again has
        the old run's names, and must not be given the old run's job.
    """

    dag_id: str
    task_id: str
    run_id: str
    try_number: int
    map_index: int
    max_tries: int = 0
    retries: int | None = None
    clear_number: int | None = None
    nonce: str = field(default_factory=lambda: uuid4().hex)

    @classmethod
    def of(cls, context: Mapping[str, Any]) -> Attempt:
        """Take the try that is running.

        :param context: what Airflow gives to ``execute``.
        :return: the attempt.
        """
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
        )

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
    def mark(self) -> dict[str, Any]:
        """What tells this try's work from all other, where the API gives metadata back; no key of the user's wins."""
        return {ATTEMPT_KEY: self.nonce}

    @property
    def idempotency_key(self) -> str:
        """What names this try's start: readable in a server's log, and never that of another try."""
        names = (self.dag_id, self.run_id, self.task_id, self.map_index, self.try_number)
        readable = "/".join(quote(str(name), safe=":+") for name in names)
        return f"{readable[:_LONGEST_NAME]}/{self.nonce}"

    def is_later_than_a_clear_of(self, record: AttemptRecord, *, counts_every_clear: bool) -> bool:
        """Return whether the task was cleared, or its DAG run made again, since a record was written.

        A clear of a task that runs on a worker looks like a retry, because Airflow changes nothing but the state. So
        does a try that Airflow repeats because its scheduler died, even if there is no retry left.

        :param record: the record of an earlier try.
        :param counts_every_clear: whether Airflow raises ``clear_number`` at each clear; before 3.2, it does so only if
            the DAG run had ended.
        :return: whether this try must not continue the work of that try.
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
    """What a try has written down of its start, for the tries after it.

    :param version: which shape of record this is, so that one of another version is refused and not misread.
    :param kind: what it starts.
    :param connection_id: Planasonix's connection.
    :param key: the idempotency key of the start.
    :param first_sent_at: when the start was about to be sent, by the server's clock.
    :param sent_at: when it was about to be sent last, where that was not the first time.
    :param others: what had been started on the connection before.
    :param window: of a backfill, where its window begins and ends.
    :param digest: tells whether another try would load the same.
    :param try_number: which try it was.
    :param max_tries: the number of the last retry at that time.
    :param retries: the retries that the DAG gave the task at that time; records of earlier versions have none.
    :param clear_number: how often the DAG run had been cleared; records of earlier versions have none.
    :param id: the job or backfill, once that is known.
    :param is_own: whether it was started by this task, and not attached to.
    :param is_given_up: whether its time was up, so that it is to be cancelled.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
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
    id: str | None = Field(default=None, min_length=1)
    is_own: bool = True
    is_given_up: bool = False

    @property
    def nonce(self) -> str:
        """What tells the work of that try from all other."""
        return self.key.rpartition("/")[2]

    def attempt(self, now: Attempt) -> Attempt:
        """Give the try that has written this.

        :param now: the try of the same task that is running.
        :return: that try; its start has the same key again.
        """
        return replace(now, try_number=self.try_number, max_tries=self.max_tries, nonce=self.nonce)


def _number(owner: object, name: str) -> int | None:
    value = getattr(owner, name, None)
    return value if isinstance(value, int) else None


def digest_of(parameters: Mapping[str, Any]) -> str:
    """Make of what decides what is loaded a text that tells whether it is the same.

    :param parameters: the parameters, in their final form.
    :return: the digest.
    """
    return hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode()).hexdigest()[:16]
