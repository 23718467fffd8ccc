"""Many waits at once, against a server that was written from the API's reference alone."""

from __future__ import annotations

import asyncio
import json
import random
from functools import partial
from typing import Any

import pytest
from pytest_mock import MockerFixture

from planasonix_provider import clock
from planasonix_provider.api.client import Client
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.triggers.planasonix import PlanasonixJobTrigger
from planasonix_provider.waiting.bulk_poll import RECHECK_AFTER
from planasonix_provider.waiting.shared_client import MOST_IN_FLIGHT
from tests.support.api_clients import KEY, account
from tests.support.reference_server import ReferenceServer, RequestRecord, fourteen_faults
from tests.support.task_runs import first_event
from tests.support.time_travel import travelling

WAITS = 130


def wait_for_all(server: ReferenceServer, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[RequestRecord]]:
    """Give the events, and the requests that the waits have cost."""
    connection = {"conn_type": "planasonix", "host": server.url, "password": KEY}
    monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_DEFAULT", json.dumps(connection))
    with Client(account(server.url)) as client:
        jobs = [client.trigger_sync(f"conn_{number}").id for number in range(WAITS)]
    before = len(server.requests)

    async def main() -> list[Any]:
        return await asyncio.gather(*(first_event(PlanasonixJobTrigger(job, poll_interval=0.3)) for job in jobs))

    events = clock.run(main())
    assert [event["job"]["id"] for event in events] == jobs
    return events, server.requests[before:]


@pytest.mark.parametrize(("outcome", "newest_first"), [("succeeded", True), ("failed", False), ("cancelled", True)])
def test_cost_less_than_a_look_each(monkeypatch: pytest.MonkeyPatch, outcome: str, newest_first: bool) -> None:
    with ReferenceServer(
        api_key=KEY, queued_seconds=0, running_seconds=0.6, outcome=outcome, newest_first=newest_first
    ) as server:
        events, requests = wait_for_all(server, monkeypatch)
    assert {event["job"]["status"] for event in events} == {outcome}
    assert len(requests) < WAITS
    assert len({request.socket for request in requests}) <= MOST_IN_FLIGHT


def test_read_the_airflow_connection_once(monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture) -> None:
    reads = mocker.spy(PlanasonixHook, "async_settings")
    with ReferenceServer(api_key=KEY, queued_seconds=0, running_seconds=0.6) as server:
        wait_for_all(server, monkeypatch)
    assert reads.call_count == 1


def test_end_as_they_should_through_fourteen_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    with ReferenceServer(api_key=KEY, queued_seconds=0, running_seconds=0.6, read_faults=fourteen_faults()) as server:
        events, _ = wait_for_all(server, monkeypatch)
    assert {event["job"]["status"] for event in events} == {"succeeded"}


class Lists:
    """What lists may tell in place of the truth."""

    def __init__(self) -> None:
        self.told: dict[str, list[Any]] = {}
        self.chance = random.Random(0)

    def hide(self, query: dict[str, str], page: list[Any]) -> list[Any]:
        return [entry for entry in page if not entry["connection_id"].endswith("7")]

    def say_nothing(self, query: dict[str, str], page: list[Any]) -> list[Any]:
        return []

    def stand_still(self, query: dict[str, str], page: list[Any]) -> list[Any]:
        return self.told.setdefault(str(sorted(query.items())), page)

    def name_a_state_that_nobody_knows(self, query: dict[str, str], page: list[Any]) -> list[Any]:
        return [{**entry, "status": "paused"} if entry["connection_id"].endswith("3") else entry for entry in page]

    def move_under_the_cursor(self, query: dict[str, str], page: list[Any]) -> list[Any]:
        before, self.told["page"] = self.told.get("page", []), page
        kept = [entry for entry in page if self.chance.random() < 0.8]
        return before[-10:] + self.chance.sample(kept, len(kept))


LIES = (
    Lists.hide,
    Lists.say_nothing,
    Lists.stand_still,
    Lists.name_a_state_that_nobody_knows,
    Lists.move_under_the_cursor,
)


@pytest.mark.parametrize("lie", LIES)
def test_end_as_they_should_whatever_the_lists_say(monkeypatch: pytest.MonkeyPatch, lie: Any) -> None:
    with (
        travelling(monkeypatch) as travel,
        ReferenceServer(api_key=KEY, looks=3, retell=partial(lie, Lists())) as server,
    ):
        events, _ = wait_for_all(server, monkeypatch)
        assert {event["job"]["status"] for event in events} == {"succeeded"}
        assert travel.passed <= RECHECK_AFTER + 10
