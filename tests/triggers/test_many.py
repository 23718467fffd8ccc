"""Many waits at once, against a server that was written from the API's reference alone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from planasonix_provider.api.client import Client
from planasonix_provider.triggers.planasonix import PlanasonixJobTrigger
from tests.api.ways import KEY, account
from tests.driving import first_event
from tests.reference_server import ReferenceServer, fourteen_faults

WAITS = 60


def wait_for_all(server: ReferenceServer, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], int]:
    """Give the events, and how many requests the waits have cost."""
    connection = {"conn_type": "planasonix", "host": server.url, "password": KEY}
    monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_DEFAULT", json.dumps(connection))
    with Client(account(server.url)) as client:
        jobs = [client.trigger_sync(f"conn_{number}").id for number in range(WAITS)]
    before = len(server.requests)

    async def main() -> list[Any]:
        return await asyncio.gather(*(first_event(PlanasonixJobTrigger(job, poll_interval=0.3)) for job in jobs))

    events = asyncio.run(main())
    assert [event["job"]["id"] for event in events] == jobs
    return events, len(server.requests) - before


@pytest.mark.parametrize(("outcome", "newest_first"), [("succeeded", True), ("failed", False), ("cancelled", True)])
def test_cost_less_than_a_look_each(monkeypatch: pytest.MonkeyPatch, outcome: str, newest_first: bool) -> None:
    with ReferenceServer(
        api_key=KEY, queued_seconds=0, running_seconds=0.6, outcome=outcome, newest_first=newest_first
    ) as server:
        events, requests = wait_for_all(server, monkeypatch)
    assert {event["job"]["status"] for event in events} == {outcome}
    assert requests < 2 * WAITS


def test_end_as_they_should_through_fourteen_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    with ReferenceServer(api_key=KEY, queued_seconds=0, running_seconds=0.6, read_faults=fourteen_faults()) as server:
        events, _ = wait_for_all(server, monkeypatch)
    assert {event["job"]["status"] for event in events} == {"succeeded"}
