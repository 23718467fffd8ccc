"""Tasks that have started jobs and backfills in the simulator, and their records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from planasonix_provider.api.models import BackfillBody, SyncBody
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting.attempt import AttemptRecord, TaskKey
from tests.support.airflow_tasks import AirflowTasks, key_of, record_of
from tests.support.scenarios import CONNECTION


def start(simulator: Simulator, **metadata: Any) -> str:
    return simulator.workspace.start_sync(CONNECTION, SyncBody(metadata=metadata or None)).id


def start_backfill(simulator: Simulator) -> str:
    body = BackfillBody(start_at=datetime(2025, 1, 1, tzinfo=UTC), end_at=datetime(2025, 2, 1, tzinfo=UTC))
    return simulator.workspace.start_backfill(CONNECTION, body).id


class PlantedTasks:
    """Tasks with jobs that run."""

    def __init__(self, tasks: AirflowTasks, simulator: Simulator) -> None:
        self.tasks = tasks
        self.simulator = simulator

    def add(self, state: str | None = "failed", *, key: TaskKey | None = None, **fields: Any) -> AttemptRecord:
        """Add a task, a job that it started an hour ago, and the record."""
        one = self.tasks.add(key or key_of(), state, datetime.now(UTC) - timedelta(minutes=30))
        if "id" not in fields:
            fields["id"] = start_backfill(self.simulator) if fields.get("kind") == "backfill" else start(self.simulator)
        record = record_of(one, **fields)
        self.tasks.store(record)
        return record

    def add_many(self, count: int, state: str = "failed", **fields: Any) -> list[AttemptRecord]:
        return [self.add(state, key=key_of(map_index=index), **fields) for index in range(count)]
