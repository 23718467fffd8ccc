"""What a task does where other work of the same connection is in the way of its start: ``on_conflict``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixConflictError, PlanasonixNotFoundError
from planasonix_provider.api.models import Job
from planasonix_provider.api.request import Request
from planasonix_provider.execution.api_session import out_of_time
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.targets import Work, subject_of

if TYPE_CHECKING:
    from planasonix_provider.execution.api_session import ApiSession
    from planasonix_provider.execution.start_task import StartTask

#: The states by which work in the way is found where the API does not name it.
ACTIVE_STATES = ("running", "queued")


class ConflictHandler:
    """Finds out what is in the way of a start, and gives way to it.

    :param road: the try that starts.
    :param inquiry: asks the API.
    """

    def __init__(self, road: StartTask, inquiry: ApiSession) -> None:
        self._road = road
        self._operator = road.operator
        self._inquiry = inquiry

    def resolve(self, conflict: PlanasonixConflictError) -> Work | None:
        """Do what ``on_conflict`` says.

        :param conflict: the refusal of the start.
        :return: what is attached to, or ``None`` where it is time to start again.
        :raises PlanasonixConflictError: if that is what ``on_conflict`` says, or nothing else can be done.
        :raises PlanasonixTimeoutError: if the task's time is up.
        :raises AirflowSkipException: if that is what ``on_conflict`` says.
        :raises TaskDeferred: to wait in the triggerer.
        """
        how = self._operator.on_conflict
        if how == "skip":
            raise AirflowSkipException(f"Skipped, as on_conflict='skip' says. {conflict.message}")
        if how == "fail":
            conflict.with_message(f"{conflict.message} Or let the task do so: on_conflict='wait', 'attach' or 'skip'.")
            raise conflict
        if self._inquiry.is_out_of_time:
            raise out_of_time(conflict, self._inquiry.limit)
        other = self.named_by(conflict) or self.find()
        if other is None or other.is_over:
            self._inquiry.delay(self._road.interval)
            return None
        name, whose = capitalize(subject_of(other).name), _owner_suffix(other)
        if how == "attach" and other.status != "cancelling":
            if isinstance(other, Job) != (self._operator.starts == "job"):
                raise conflict
            self._inquiry.say(
                f"{name} is in the way{whose}; attaching to it. It is not cancelled if this task is killed."
            )
            return other
        self._inquiry.say(f"{name} is in the way{whose}; waiting until it is over.")
        if self._operator.deferrable:
            self._road.defer_until_free(other, self._inquiry.deadline)
        self._inquiry.wait_until_over(other)
        return None

    def named_by(self, conflict: PlanasonixConflictError) -> Work | None:
        """Look at what a refusal names.

        :param conflict: the refusal.
        :return: the job; ``None`` where it names none, or that is not there any more.
        """
        if conflict.existing_job_id:
            with suppress(PlanasonixNotFoundError):
                return self._inquiry.look_at("job", conflict.existing_job_id)
        return None

    def find(self) -> Work | None:
        """Find what the API does not name.

        :return: the work, or ``None``.
        """
        kind = self._operator.starts
        list_them: Callable[..., Request[Any]] = routes.list_backfills if kind == "backfill" else routes.list_jobs
        for status in ACTIVE_STATES:
            listed = self._inquiry.ask(list_them(connection_id=self._operator.connection_id, status=status, limit=20))
            for work in listed.data:
                if kind == "backfill" or work.type != "backfill":
                    with suppress(PlanasonixNotFoundError):
                        return self._inquiry.look_at(kind, work.id)
        return None


def _owner_suffix(work: Work) -> str:
    """Say whose work it is, where its metadata tells."""
    known = work.metadata or {}
    if not known.get("dag_id"):
        return ""
    mapped = f", map index {known['map_index']}" if known.get("map_index", -1) not in (None, -1) else ""
    return f" (of task {known.get('task_id')} of DAG {known['dag_id']}, run {known.get('run_id')}{mapped})"
