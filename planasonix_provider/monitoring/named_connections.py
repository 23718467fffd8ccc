"""Finds Airflow connections by the tasks that use them, because Airflow cannot list those of a secrets backend."""

from __future__ import annotations

from planasonix_provider.monitoring.attempt_records import read_records
from planasonix_provider.monitoring.waiting_tasks import read_waiting_tasks


def read_named_conn_ids() -> frozenset[str]:
    """Return the Airflow connections of the tasks that wait, and of the jobs of tasks that are not over. It blocks."""
    waiting = {task.conn_id for task in read_waiting_tasks().items if task.conn_id}
    running = {stored.record.planasonix_conn_id for stored in read_records().records if not stored.is_task_over}
    return frozenset(waiting | running)
