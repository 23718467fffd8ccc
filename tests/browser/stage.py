"""A simulator whose pages are the same in every run: its clock is fixed, and its ids come from a counter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count

import httpx

from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.model.request_bodies import BackfillRequestBody, SyncRequestBody

TASK = {
    "dag_id": "nightly",
    "task_id": "load_orders",
    "run_id": "scheduled__2025-03-27T00:00:00+00:00",
    "try_number": 2,
    "map_index": -1,
    "ticket": "OPS-1",
}
RECEIVER = "http://127.0.0.1:9/events"


class Stage:
    """The simulator and its clock."""

    def __init__(self) -> None:
        self.now = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)
        numbers = count()
        self.planasonix = Simulator(
            clock=lambda: self.now,
            ids=lambda prefix: f"{prefix}_{sha256(str(next(numbers)).encode()).hexdigest()[:32]}",
            airflow_url="http://localhost:8080",
        )

    def move(self, seconds: float) -> None:
        """Advance the clock."""
        self.now += timedelta(seconds=seconds)

    def sync(self, connection_id: str = "conn_demo_01", **body: object) -> str:
        """Start a sync."""
        return self.planasonix.workspace.start_sync(connection_id, SyncRequestBody.model_validate(body)).id

    def backfill(self, connection_id: str = "conn_demo_01", **more: object) -> str:
        """Start a backfill."""
        body = {"start_at": "2024-01-01", "end_at": "2025-01-01", **more}
        return self.planasonix.workspace.start_backfill(connection_id, BackfillRequestBody.model_validate(body)).id

    def send_requests(self) -> None:
        """Send one request with the valid key and one with an unknown key."""
        for path, key in (("/jobs/job_nope", self.planasonix.api_key), ("/jobs?limit=5", "unknown")):
            url, headers = f"{self.planasonix.url}/api/v1{path}", {"Authorization": f"Bearer {key}"}
            httpx.get(url, headers=headers, timeout=60)

    def fill(self) -> dict[str, str]:
        """Create work in every state. Return the paths of all pages by their names."""
        planasonix = self.planasonix
        planasonix.reset()
        planasonix.workspace.configure(webhook_attempts=1)
        webhook = planasonix.subscribe(RECEIVER, ["job.failed", "backfill.completed"]).id
        planasonix.plan("conn_demo_02", outcome="failed", code="source_unreachable", message="No route to host.")
        failed = self.sync("conn_demo_02", pipeline_id="pl_1", metadata=TASK)
        warning = {"code": "column_type_widened", "message": "Column discount_pct was widened to numeric(9,4)."}
        planasonix.plan("conn_demo_03", tables={"orders": 44_802, "order_items": 120_331}, warnings=[warning])
        succeeded = self.sync("conn_demo_03", metadata={**TASK, "map_index": 3})
        cancelled = self.sync("conn_demo_04")
        planasonix.workspace.cancel(cancelled)
        self.move(30)
        planasonix.plan_backfill("conn_demo_05", jobs=60, job_seconds=20)
        backfill = self.backfill("conn_demo_05", metadata=TASK, tables=["orders", "order_items"])
        self.move(50)
        planasonix.plan("conn_demo_01", running_seconds=40)
        running = self.sync(metadata=TASK)
        self.move(15)
        self.sync("conn_demo_06")
        planasonix.fail("status", route="get_job", status=503, times=3)
        return {
            "overview": "/",
            "jobs": "/jobs",
            "jobs-narrowed": "/jobs?text=ops-1&status=failed",
            "jobs-none": "/jobs?text=nothing",
            "backfills": "/backfills",
            "webhooks": "/webhooks",
            "start": "/start",
            "requests": "/requests",
            "control": "/control?done=planned",
            "job-running": f"/jobs/{running}",
            "job-succeeded": f"/jobs/{succeeded}",
            "job-failed": f"/jobs/{failed}",
            "job-cancelled": f"/jobs/{cancelled}",
            "backfill": f"/backfills/{backfill}",
            "webhook": f"/webhooks/{webhook}",
            "unknown": "/jobs/job_nope",
        }
