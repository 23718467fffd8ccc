"""A simple trigger that polls only its own job. Tests compare the cost of this package's trigger with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import Context, TaskDeferred
from airflow.triggers.base import TriggerEvent

from planasonix_provider.api.models import JobEnvelope
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from planasonix_provider.triggers.base import PlanasonixWaitTrigger
from planasonix_provider.waiting.wait_event import WaitEvent


class NaiveTrigger(PlanasonixWaitTrigger):
    async def run(self) -> AsyncIterator[TriggerEvent]:
        connection = await get_async_connection(self.planasonix_conn_id)
        key = {"Authorization": f"Bearer {connection.password}"}
        async with httpx.AsyncClient(base_url=connection.host, headers=key) as client:
            while True:
                answer = await client.get(f"/api/v1/jobs/{self.target.id}")
                job = JobEnvelope.model_validate(answer.raise_for_status().json()).data
                if job.is_over:
                    break
                await asyncio.sleep(self.poll_interval)
        yield TriggerEvent(WaitEvent.over(self.target, job).to_payload())


class NaiveSyncOperator(PlanasonixSyncOperator):
    """The sync operator with the naive trigger."""

    def execute(self, context: Context) -> dict[str, Any]:
        try:
            return super().execute(context)
        except TaskDeferred as deferral:
            deferral.trigger = NaiveTrigger(**deferral.trigger.serialize()[1])
            raise
