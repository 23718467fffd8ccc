from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from pydantic import SecretStr

from planasonix_provider.api import routes
from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixNotFoundError,
    PlanasonixServerError,
    PlanasonixTransportError,
)
from planasonix_provider.api.models import Job
from planasonix_provider.monitoring import api_reader
from planasonix_provider.monitoring.api_reader import ApiReader
from planasonix_provider.simulator import Simulator
from tests.support.hanging_responses import Hanging

JOBS = routes.list_jobs(limit=1)


async def test_requests_are_sent_at_the_same_time_once_the_api_has_answered(
    reader: ApiReader, simulator: Simulator
) -> None:
    await asyncio.gather(*(reader.send(JOBS) for _ in range(5)))
    assert len(simulator.requests) == 5


async def test_a_broken_api_gets_one_request_per_interval(
    reader: ApiReader, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(api_reader, "monotonic", lambda: now[0])
    simulator.fail("status", status=500, times=100)
    for sent in (1, 1, 2):
        results = await asyncio.gather(*(reader.send(JOBS) for _ in range(20)), return_exceptions=True)
        assert {type(result) for result in results} == {PlanasonixServerError}
        assert len(simulator.requests) == sent
        now[0] += api_reader.PAUSE_SECONDS / 2 + 0.1


async def test_an_api_that_answers_again_is_used_at_once(
    reader: ApiReader, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(api_reader, "monotonic", lambda: now[0])
    simulator.fail("status", status=503, times=1)
    with pytest.raises(PlanasonixServerError):
        await reader.send(JOBS)
    now[0] += api_reader.PAUSE_SECONDS
    await asyncio.gather(*(reader.send(JOBS) for _ in range(5)))


async def test_a_404_is_not_treated_as_an_outage(reader: ApiReader, simulator: Simulator) -> None:
    for _ in range(2):
        with pytest.raises(PlanasonixNotFoundError):
            await reader.send(routes.get_job("job_x"))
    assert len(simulator.requests) == 2


async def test_a_request_for_a_waiting_user_is_sent_at_once(reader: ApiReader, simulator: Simulator) -> None:
    simulator.fail("status", status=503, times=1)
    with pytest.raises(PlanasonixServerError):
        await reader.send(JOBS)
    await reader.send_first(JOBS)
    await reader.send(JOBS)


async def test_another_key_is_used_at_once(reader: ApiReader, simulator: Simulator) -> None:
    settings = reader.settings
    wrong = replace(settings, client_config=replace(settings.client_config, api_key=SecretStr("plnx_old")))
    reader.update(wrong)
    with pytest.raises(PlanasonixAuthenticationError):
        await reader.send(JOBS)
    reader.update(settings)
    await reader.send(JOBS)


async def test_ended_jobs_belong_to_one_connection_and_its_settings(reader: ApiReader) -> None:
    """The same id is another job in another workspace, whose users may not read it."""
    settings = reader.settings
    reader.ended_jobs["job_1"] = Job(id="job_1", status="succeeded")
    assert ApiReader(settings).ended_jobs == {}
    reader.update(settings)
    assert list(reader.ended_jobs) == ["job_1"]
    reader.update(replace(settings, client_config=replace(settings.client_config, base_url="https://other.example")))
    assert reader.ended_jobs == {}


async def test_its_connections_are_closed_later(
    reader: ApiReader, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_reader, "CLOSE_AFTER_SECONDS", 0.0)
    await reader.send(JOBS)
    assert reader.rate_limit
    reader.close_later()
    await asyncio.sleep(0.05)
    assert reader.rate_limit is None


async def test_requests_to_a_hanging_api_time_out_soon(
    reader: ApiReader, simulator: Simulator, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_reader, "READ_TIMEOUT", 0.2)
    simulator.fail("hang", times=1)
    with pytest.raises(PlanasonixTransportError):
        await reader.send(JOBS)
