"""Notices in Airflow's API server that a person ends tasks by hand.

All components of Airflow import this, and call it for the tasks of all DAGs, so it is cheap and does nothing elsewhere.
"""

from __future__ import annotations

import logging
from queue import Full, Queue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import hookimpl

from planasonix_provider.plugins.notices import EndedTasks

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance

log = logging.getLogger(__name__)

#: How many ended tasks may wait to be looked at.
MAX_PENDING = 10_000


class EndedTaskListener:
    """Hands the tasks that a person ends to a thread, which cancels the jobs that they leave behind.

    It comes before other listeners, because Airflow calls none after the first one that raises an error.
    """

    def __init__(self) -> None:
        self._is_api_server = False
        self._lock = Lock()
        self._thread: Thread | None = None
        self.pending: Queue[EndedTasks] = Queue(MAX_PENDING)

    def enable(self) -> None:
        """Begin to act: this process is an API server. The others call the hooks for tasks that end by themselves."""
        self._is_api_server = True

    @hookimpl(tryfirst=True)
    def on_task_instance_success(self, task_instance: TaskInstance) -> None:
        """Airflow calls this when a task is marked as successful."""
        self._notice_task(task_instance)

    @hookimpl(tryfirst=True)
    def on_task_instance_failed(self, task_instance: TaskInstance) -> None:
        """Airflow calls this when a task is marked as failed."""
        self._notice_task(task_instance)

    @hookimpl(tryfirst=True)
    def on_task_instance_skipped(self, task_instance: TaskInstance) -> None:
        """Airflow calls this when a task is marked as skipped."""
        self._notice_task(task_instance)

    @hookimpl(tryfirst=True)
    def on_dag_run_success(self, dag_run: DagRun) -> None:
        """Airflow calls this when a DAG run is marked as successful, before 3.3 without a call for its tasks."""
        self._notice(dag_run, "dag_id", "run_id")

    @hookimpl(tryfirst=True)
    def on_dag_run_failed(self, dag_run: DagRun) -> None:
        """Airflow calls this when a DAG run is marked as failed, before 3.3 without a call for its tasks."""
        self._notice(dag_run, "dag_id", "run_id")

    def _notice_task(self, task_instance: TaskInstance) -> None:
        self._notice(task_instance, "dag_id", "run_id", "task_id", "map_index")

    def _notice(self, row: Any, *names: str) -> None:
        """Store what has ended. The transaction is not committed yet, and the request must not wait."""
        if not self._is_api_server:
            return
        try:
            self.pending.put_nowait(EndedTasks(*(getattr(row, name) for name in names)))
            self._ensure_thread()
        except Full:
            log.warning(
                "More than %s tasks were ended by hand within seconds. To cancel the Planasonix jobs that the others "
                "leave behind: `python -m planasonix_provider orphans --cancel`",
                f"{MAX_PENDING:,}",
            )
        except Exception as error:
            log.warning("A task was ended by hand, and its Planasonix job is not looked at: %r", error)

    def _ensure_thread(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._watch, name="planasonix-ended-tasks", daemon=True)
                self._thread.start()

    def _watch(self) -> None:
        # Imported here, because it takes longer than a request may wait.
        from planasonix_provider.plugins.ended_tasks import watch

        watch(self.pending)


LISTENER = EndedTaskListener()
