"""Many waits at once."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from pytest_mock import MockerFixture

from planasonix_provider import clock
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers.planasonix import PlanasonixJobTrigger
from planasonix_provider.waiting.shared_client import MAX_IN_FLIGHT
from tests.support.faults import order_fourteen_faults
from tests.support.task_runs import first_event

pytestmark = pytest.mark.slow("simulates many waits")

WAITS = 130


def wait_for_all(simulator: Simulator, **plan: Any) -> list[Any]:
    """Wait for many jobs at once, and return the events."""
    jobs = []
    for connection_id in [f"conn_{number}" for number in range(WAITS)]:
        simulator.workspace.add_connection(connection_id)
        simulator.plan(connection_id, queued_seconds=0, running_seconds=0.6, **plan)
        jobs.append(simulator.workspace.start_sync(connection_id).id)

    async def main() -> list[Any]:
        return await asyncio.gather(*(first_event(PlanasonixJobTrigger(job, poll_interval=0.3)) for job in jobs))

    events = clock.run(main())
    assert [event["job"]["id"] for event in events] == jobs
    return events


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_cost_less_than_one_request_per_wait(simulator: Simulator, mocker: MockerFixture, outcome: str) -> None:
    reads, connects = mocker.spy(PlanasonixHook, "async_settings"), mocker.spy(anyio, "connect_tcp")
    events = wait_for_all(simulator, outcome=outcome)
    assert {event["job"]["status"] for event in events} == {outcome}
    assert len(simulator.requests) < WAITS
    assert reads.call_count == 1
    assert connects.call_count <= MAX_IN_FLIGHT


def test_survive_fourteen_faults(simulator: Simulator) -> None:
    order_fourteen_faults(simulator, routes=("list_jobs", "get_job"))
    events = wait_for_all(simulator)
    assert {event["job"]["status"] for event in events} == {"succeeded"}
