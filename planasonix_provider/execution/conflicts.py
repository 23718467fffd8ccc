"""Decides by ``on_conflict`` what a task does if other work on the same connection prevents its start."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowSkipException

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixConflictError, PlanasonixNotFoundError
from planasonix_provider.api.models import Job
from planasonix_provider.api.request import Request
from planasonix_provider.api.states import ACTIVE_STATES
from planasonix_provider.execution.api_session import ApiSession
from planasonix_provider.execution.options import StartOptions
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.targets import Work, target_of


@dataclass
class ConflictHandler:
    """Finds the work that conflicts with a start, and handles it."""

    options: StartOptions
    session: ApiSession
    #: Waits in the triggerer until the work is over.
    defer_until_free: Callable[[Work], NoReturn]

    def resolve(self, conflict: PlanasonixConflictError) -> Work | None:
        """Return the work to attach to, or ``None`` if it is time to start again; raise if the task must end."""
        on_conflict, session = self.options.on_conflict, self.session
        if on_conflict == "skip":
            raise AirflowSkipException(f"Skipped, as on_conflict='skip' says. {conflict.message}")
        if on_conflict == "fail":
            conflict.set_message(f"{conflict.message} Or let the task do so: on_conflict='wait', 'attach' or 'skip'.")
            raise conflict
        if session.is_out_of_time:
            raise session.timeout_error(conflict)
        other = self.named_by(conflict) or self.find()
        if other is None or other.is_over:
            session.sleep(session.interval)
            return None
        name, owner = capitalize(target_of(other).name), _owner_suffix(other)
        if on_conflict == "attach" and other.status != "cancelling":
            if isinstance(other, Job) != (self.options.kind == "job"):
                raise conflict
            session.log.info(
                f"{name} is in the way{owner}; attaching to it. It is not cancelled if this task is killed."
            )
            return other
        session.log.info(f"{name} is in the way{owner}; waiting until it is over.")
        if self.options.deferrable:
            self.defer_until_free(other)
        session.wait_until_over(other)
        return None

    def named_by(self, conflict: PlanasonixConflictError) -> Work | None:
        """Return the job that the response names; ``None`` if it names none, or the job no longer exists."""
        if conflict.existing_job_id:
            with suppress(PlanasonixNotFoundError):
                return self.session.get_work("job", conflict.existing_job_id)
        return None

    def find(self) -> Work | None:
        """Search the lists for the conflicting work, because the API may not name it."""
        kind = self.options.kind
        list_work: Callable[..., Request[Any]] = routes.list_backfills if kind == "backfill" else routes.list_jobs
        # Running work is more likely to be in the way than queued work.
        for status in reversed(ACTIVE_STATES):
            page = self.session.read(list_work(connection_id=self.options.connection_id, status=status, limit=20))
            for work in page.data:
                if kind == "backfill" or work.type != "backfill":
                    with suppress(PlanasonixNotFoundError):
                        return self.session.get_work(kind, work.id)
        return None


def _owner_suffix(work: Work) -> str:
    """Return the task that has started the work, for a message, if the work's metadata names it."""
    metadata = work.metadata or {}
    if not metadata.get("dag_id"):
        return ""
    mapped = f", map index {metadata['map_index']}" if metadata.get("map_index", -1) not in (None, -1) else ""
    return f" (of task {metadata.get('task_id')} of DAG {metadata['dag_id']}, run {metadata.get('run_id')}{mapped})"
