from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from planasonix_provider import metrics
from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.operations import Paginator
from planasonix_provider.api.retry import RetryPolicy
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting.shared_client import SharedClient
from tests.support.statsd import StatsdServer

AT_ONCE = RetryPolicy(uniform=lambda low, high: 0.0)


def count_by_route(statsd: StatsdServer) -> Counter[tuple[str, str]]:
    assert {tags["conn_id"] for tags in statsd.tags(metrics.REQUEST)} == {"planasonix_default"}
    return Counter((tags["route"], tags["status"]) for tags in statsd.tags(metrics.REQUEST))


def send(simulator: Simulator, is_async: bool, request: routes.Request[object]) -> None:
    """Send a request, and ignore its error."""

    async def send_async() -> None:
        async with await PlanasonixHook().async_client(AT_ONCE) as client:
            await client.send(request)

    try:
        if is_async:
            asyncio.run(send_async())
        else:
            with PlanasonixHook(policy=AT_ONCE) as hook:
                hook.send(request)
    except PlanasonixError:
        pass


@pytest.fixture(params=[False, True], ids=["blocking", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_each_try_is_counted_by_route_and_status(simulator: Simulator, statsd: StatsdServer, is_async: bool) -> None:
    simulator.fail("status", status=503, times=2)
    send(simulator, is_async, routes.list_jobs())
    send(simulator, is_async, routes.get_job("job_01"))
    assert count_by_route(statsd) == {("list_jobs", "503"): 2, ("list_jobs", "200"): 1, ("get_job", "404"): 1}
    assert statsd.tags(metrics.REQUEST_RETRIED) == [{"conn_id": "planasonix_default", "route": "list_jobs"}] * 2
    assert len(statsd.named(metrics.REQUEST_DURATION)) == 4
    assert statsd.named(metrics.REQUEST_RATE_LIMITED) == []


def test_a_request_without_a_response_has_no_status(simulator: Simulator, statsd: StatsdServer, is_async: bool) -> None:
    simulator.fail("reset", times=1)
    send(simulator, is_async, routes.list_jobs())
    assert count_by_route(statsd) == {("list_jobs", "none"): 1, ("list_jobs", "200"): 1}


def test_a_429_is_counted_separately(simulator: Simulator, statsd: StatsdServer, is_async: bool) -> None:
    simulator.fail("status", status=429, headers={"Retry-After": "0"}, times=1)
    send(simulator, is_async, routes.list_jobs())
    assert count_by_route(statsd) == {("list_jobs", "429"): 1, ("list_jobs", "200"): 1}
    assert statsd.totals("planasonix.request.") == {"rate_limited": 1, "retried": 1}


def test_the_rate_limit_of_the_newest_response_is_sent(
    simulator: Simulator, statsd: StatsdServer, is_async: bool
) -> None:
    for _ in range(2):
        send(simulator, is_async, routes.list_jobs())
    first, second = statsd.named(metrics.RATE_LIMIT_REMAINING)
    assert first.tags == {"conn_id": "planasonix_default"}
    assert second.value == first.value - 1


def test_each_page_is_a_request_of_its_route(simulator: Simulator, statsd: StatsdServer) -> None:
    for number in range(3):
        simulator.workspace.add_connection(f"conn_0{number}")
        simulator.workspace.start_sync(f"conn_0{number}")
    with PlanasonixHook() as hook:
        paginator = Paginator(routes.list_jobs(limit=2).without("metadata"))
        assert paginator.advance(hook.send(paginator.request))
        hook.send(paginator.request)
    assert count_by_route(statsd) == {("list_jobs", "200"): 2}


async def test_a_shared_client_counts_its_retries(
    simulator: Simulator, statsd: StatsdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.fail("status", status=503, times=1)
    async with SharedClient(PlanasonixHook().async_client, sleep=lambda _: asyncio.sleep(0)) as client:
        await client.send(routes.list_jobs())
    assert count_by_route(statsd) == {("list_jobs", "503"): 1, ("list_jobs", "200"): 1}
    assert statsd.tags(metrics.REQUEST_RETRIED) == [{"conn_id": "planasonix_default", "route": "list_jobs"}]


async def test_a_request_that_times_out_is_counted(simulator: Simulator, statsd: StatsdServer) -> None:
    simulator.fail("hang", seconds=60, times=1)
    async with SharedClient(PlanasonixHook().async_client) as client:
        with pytest.raises(PlanasonixError, match="no answer within"):
            await client.send(routes.list_jobs(), retry=False, within=0.2)
    assert count_by_route(statsd) == {("list_jobs", "none"): 1}


def test_the_client_of_a_signal_handler_counts_nothing(simulator: Simulator, statsd: StatsdServer) -> None:
    config = PlanasonixHook().settings.client_config
    with PlanasonixHook().client().__class__(config.with_short_timeouts()) as client:
        client.send(routes.list_jobs())
    assert statsd.samples() == []


def test_each_route_has_the_name_of_its_function() -> None:
    assert routes.get_job("job_01").route == "get_job"
    assert routes.trigger_sync("conn_01").route == "trigger_sync"
    assert routes.list_jobs().next_page("c").without("metadata").route == "list_jobs"
