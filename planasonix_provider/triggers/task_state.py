"""Asks Airflow for a task's state: whether the task was killed, or runs in another process."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from _thread import allocate_lock, start_new_thread
from contextlib import suppress
from http.client import HTTPException
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import BaseTrigger
from asgiref.sync import sync_to_async

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance

#: Whether Airflow calls ``BaseTrigger.on_kill`` (3.3 and later). Older versions only cancel the trigger, as they do for
#: other reasons, too.
HAS_ON_KILL = hasattr(BaseTrigger, "on_kill")
# In Airflow 3, tasks reach Airflow through its API server.
_HAS_API_SERVER = find_spec("airflow.sdk") is not None
#: States of a task that still waits, or whose next try takes care of the work.
ATTENDED_STATES = ("deferred", "running", "up_for_retry", "up_for_reschedule")
#: States of a task that another process runs, or will run without anybody's help.
CONTINUING_STATES = (*ATTENDED_STATES, "scheduled", "queued")
#: States of a task that was cleared and does not run again yet.
CLEARED_STATES = (None, "scheduled", "queued", "restarting")
_REASONS = {
    "success": "The task was marked success by hand",
    "failed": "The task was marked failed, by hand or with its DAG run",
    "skipped": "The task was marked skipped, by hand or because its DAG run ran out of time",
    "removed": "The task was removed from its DAG",
}
#: How many seconds a killed task waits for the health of Airflow's API server; its supervisor leaves the task five.
MAX_HEALTH_SECONDS = 1.0


async def kill_reason(ti: TaskInstance | None) -> str | None:
    """Return how a task was ended, as the beginning of a sentence, or ``None`` if it was not.

    A trigger that only moves to another triggerer may be cancelled like that of a killed task. ``None`` also for a task
    that was cleared and runs again: it looks like one that still waits, and cancels its old work itself.
    """
    if ti is None:
        return None
    state = await sync_to_async(_state_of)(ti)
    if state in ATTENDED_STATES:
        return None
    if state in CLEARED_STATES:
        return "The task was cleared"
    return _REASONS.get(state, f"The task was ended (its state is {state})")


def is_interrupted() -> bool:
    """Return whether Ctrl-C has ended the current task of the event loop.

    ``airflow dags test`` and ``dag.test()`` run a trigger as the main task of ``asyncio.run``, which Ctrl-C cancels. In
    a triggerer, no trigger is the main task.
    """
    handler = signal.getsignal(signal.SIGINT)
    return getattr(handler, "keywords", {}).get("main_task") is asyncio.current_task()


def runs_elsewhere(ti: Any) -> bool | None:
    """Return whether another process runs the task, or will; ``None`` if Airflow does not answer.

    Called by a process that Airflow ends.
    """
    try:
        return _state_of(ti) in CONTINUING_STATES
    except Exception:
        return None


class ApiServerHealth:
    """Detects that Airflow's API server, or its database, has stopped answering since the task began.

    Airflow kills a task after three failed heartbeats, about 37 s after the API server went away. A signal handler
    cannot ask the supervisor for the reason, so this sends its own request. It counts only a server that has answered
    before: the configured URL need not be the one that the supervisor uses, and ``airflow dags test`` has no server.
    """

    def __init__(self) -> None:
        # Not in the signal handler: a setting may come from a command or a secrets backend.
        self._url = _health_url() or ""
        self._has_answered = False

    def remember(self) -> None:
        """Check in the background whether the server answers, and store the result."""
        if self._url:
            start_new_thread(self._store_answer, ())

    def is_lost(self) -> bool:
        """Return whether a server that has answered before does not answer within a second, or lost its database.

        A signal handler may call this: it logs nothing, and another thread sends the request.
        """
        if not self._has_answered:
            return False
        done, answers = allocate_lock(), list[bool]()
        done.acquire()

        def ask() -> None:
            try:
                answers.append(self._is_healthy())
            finally:
                done.release()

        start_new_thread(ask, ())
        return not (done.acquire(timeout=MAX_HEALTH_SECONDS) and answers == [True])

    def _store_answer(self) -> None:
        self._has_answered = self._is_healthy()

    def _is_healthy(self) -> bool:
        # Nothing secret is sent, and a server whose certificate is unknown here counts as healthy.
        unverified = ssl._create_unverified_context()  # noqa: S323
        try:
            with urlopen(self._url, timeout=5, context=unverified) as response:  # noqa: S310 - from Airflow's settings
                health = json.load(response)
        except HTTPError as error:
            # A server that serves only tasks has no such page, but it answers.
            return error.code < 500
        except (OSError, ValueError, HTTPException):
            return False
        with suppress(TypeError, KeyError):
            return bool(health["metadatabase"]["status"] == "healthy")
        return True


def _health_url() -> str | None:
    """Return the URL of the API server's health, as a worker knows the server; Airflow 2 has none."""
    default = conf.get("api", "base_url", fallback=None) or "/"
    if default.startswith("/"):
        default = f"http://localhost:8080{default}"
    url = conf.get("core", "execution_api_server_url", fallback=None) or f"{default.rstrip('/')}/execution/"
    server, _, rest = url.rstrip("/").rpartition("/execution")
    is_known = url.startswith(("http://", "https://")) and server and not rest
    return f"{server}/api/v2/monitor/health" if is_known and _HAS_API_SERVER else None


def is_shutdown() -> bool:
    """Return whether a trigger was cancelled with everything else in its event loop."""
    return all(task.cancelling() for task in asyncio.all_tasks())


def _state_of(ti: TaskInstance) -> str | None:
    try:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    except ImportError:
        return _state_in_the_database(ti)
    states: dict[str, dict[str, Any]] = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    found = states.get(ti.run_id, {})
    state = found.get(f"{ti.task_id}_{ti.map_index}", found.get(ti.task_id))
    return None if state is None else str(getattr(state, "value", state))


def _state_in_the_database(ti: TaskInstance) -> str | None:
    """Read the state from the database, which the triggerer of Airflow 2 can access."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    names = {name: getattr(ti, name) for name in ("dag_id", "task_id", "run_id", "map_index")}
    with create_session() as session:
        state: str | None = session.scalar(select(TaskInstance.state).filter_by(**names))
    return state
