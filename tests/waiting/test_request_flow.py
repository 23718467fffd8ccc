from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixError, PlanasonixServerError
from planasonix_provider.api.request import Request
from planasonix_provider.waiting.request_flow import Steps, resume_flow, run_flow
from tests.support.api_errors import api_error

DOWN = api_error(503)


class Api:
    """An API that returns or raises the answer for each job, and records the requested ids."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def send(self, request: Request[Any]) -> Any:
        job_id = request.ids["job_id"]
        self.asked.append(job_id)
        answer = self.answers[job_id]
        if isinstance(answer, Exception):
            raise answer
        return answer


def run_blocking(steps: Steps[Any], api: Api) -> Any:
    return run_flow(steps, api.send)


def run_async(steps: Steps[Any], api: Api) -> Any:
    """Request the job ``first`` outside the flow, as the poller does for many flows."""

    async def send(request: Request[Any]) -> Any:
        return api.send(request)

    async def main() -> Any:
        try:
            first = await send(routes.get_job("first"))
        except PlanasonixError as error:
            first = error
        return await resume_flow(first, steps, send)

    return asyncio.run(main())


Way = Callable[[Steps[Any], Api], Any]
both_ways = pytest.mark.parametrize("way", [run_blocking, run_async])


def strict_flow() -> Steps[list[Any]]:
    got: list[Any] = []
    for job_id in ("first", "second", "third"):
        got.append((yield routes.get_job(job_id)))  # noqa: PERF401 - no comprehension may yield
    return got


def lenient_flow() -> Steps[list[Any]]:
    got: list[Any] = []
    for job_id in ("first", "second", "third"):
        try:
            got.append((yield routes.get_job(job_id)))
        except PlanasonixError as error:
            got.append(error)
    return got


@both_ways
def test_sends_each_request_once_and_in_order(way: Way) -> None:
    api = Api(first=1, second=2, third=3)
    assert way(strict_flow(), api) == [1, 2, 3]
    assert api.asked == ["first", "second", "third"]


@both_ways
@pytest.mark.parametrize("broken", ["first", "second", "third"])
def test_ends_with_the_error_of_a_required_request(way: Way, broken: str) -> None:
    api = Api(**{"first": 1, "second": 2, "third": 3, broken: DOWN})
    with pytest.raises(PlanasonixServerError) as caught:
        way(strict_flow(), api)
    assert caught.value is DOWN
    assert api.asked[-1] == broken


@both_ways
@pytest.mark.parametrize("broken", ["first", "second", "third"])
def test_continues_after_the_error_of_an_optional_request(way: Way, broken: str) -> None:
    answers = {"first": 1, "second": 2, "third": 3, broken: DOWN}
    api = Api(**answers)
    assert way(lenient_flow(), api) == list(answers.values())
    assert api.asked == ["first", "second", "third"]


@both_ways
def test_continues_if_all_requests_fail(way: Way) -> None:
    assert way(lenient_flow(), Api(first=DOWN, second=DOWN, third=DOWN)) == [DOWN, DOWN, DOWN]


@both_ways
def test_may_raise_another_error(way: Way) -> None:
    def steps() -> Steps[None]:
        try:
            yield routes.get_job("first")
        except PlanasonixServerError:
            raise PlanasonixError("worse") from None

    with pytest.raises(PlanasonixError, match="worse"):
        way(steps(), Api(first=DOWN))


@both_ways
def test_accepts_empty_responses(way: Way) -> None:
    assert way(strict_flow(), Api(first=None, second=0, third=[])) == [None, 0, []]


@both_ways
def test_does_not_pass_a_bug_to_the_flow(way: Way) -> None:
    with pytest.raises(ZeroDivisionError):
        way(lenient_flow(), Api(first=1, second=ZeroDivisionError("by zero"), third=3))


def test_may_send_no_request() -> None:
    def steps() -> Steps[str]:
        return "known already"
        yield

    api = Api()
    assert run_flow(steps(), api.send) == "known already"
    assert api.asked == []
