"""Finds Airflow connections by the tasks that use them, because Airflow cannot list those of a secrets backend."""

from __future__ import annotations

import logging

from planasonix_provider.hooks.connection_lookup import list_conn_ids
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.monitoring.attempt_records import read_records
from planasonix_provider.monitoring.waiting_tasks import read_waiting_tasks

log = logging.getLogger(__name__)


def read_named_conn_ids() -> frozenset[str]:
    """Return the Airflow connections that cannot be listed: of waiting tasks, and of jobs that may run. It blocks."""
    waiting = {task.conn_id for task in read_waiting_tasks().items if task.conn_id}
    # The record of a task that is over belongs to an orphan.
    started = {
        stored.record.planasonix_conn_id
        for stored in read_records().records
        if not stored.is_task_over or stored.record.may_be_orphaned
    }
    unlisted = (waiting | started) - list_conn_ids(PlanasonixHook.conn_type)
    return frozenset(filter(_is_planasonix, unlisted))


def _is_planasonix(conn_id: str) -> bool:
    """Return whether a connection has the type Planasonix. The password of another must not be sent as an API key."""
    try:
        return bool(PlanasonixHook.get_connection(conn_id).conn_type == PlanasonixHook.conn_type)
    except Exception as fault:
        # It is missing, or the backend is away. The text of the exception may contain secrets.
        log.debug("Airflow connection %r, which a task names, cannot be read (%s).", conn_id, type(fault).__name__)
        return False
