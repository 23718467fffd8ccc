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
    """Gives an answer for each job, and notes who was asked for."""

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


def blocking(steps: Steps[Any], api: Api) -> Any:
    return run_flow(steps, api.send)


def awaited(steps: Steps[Any], api: Api) -> Any:
    """Let somebody else ask for the job ``first``, as the poller does for many."""

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
both_ways = pytest.mark.parametrize("way", [blocking, awaited])


def strict() -> Steps[list[Any]]:
    got: list[Any] = []
    for job_id in ("first", "second", "third"):
        got.append((yield routes.get_job(job_id)))  # noqa: PERF401 - no comprehension may yield
    return got


def lenient() -> Steps[list[Any]]:
    got: list[Any] = []
    for job_id in ("first", "second", "third"):
        try:
            got.append((yield routes.get_job(job_id)))
        except PlanasonixError as error:
            got.append(error)
    return got


@both_ways
def test_are_gone_in_turn_each_once(way: Way) -> None:
    api = Api(first=1, second=2, third=3)
    assert way(strict(), api) == [1, 2, 3]
    assert api.asked == ["first", "second", "third"]


@both_ways
@pytest.mark.parametrize("broken", ["first", "second", "third"])
def test_end_with_the_error_of_one_that_is_needed(way: Way, broken: str) -> None:
    api = Api(**{"first": 1, "second": 2, "third": 3, broken: DOWN})
    with pytest.raises(PlanasonixServerError) as caught:
        way(strict(), api)
    assert caught.value is DOWN
    assert api.asked[-1] == broken


@both_ways
@pytest.mark.parametrize("broken", ["first", "second", "third"])
def test_go_on_after_the_error_of_one_that_they_can_do_without(way: Way, broken: str) -> None:
    answers = {"first": 1, "second": 2, "third": 3, broken: DOWN}
    api = Api(**answers)
    assert way(lenient(), api) == list(answers.values())
    assert api.asked == ["first", "second", "third"]


@both_ways
def test_may_all_fail(way: Way) -> None:
    assert way(lenient(), Api(first=DOWN, second=DOWN, third=DOWN)) == [DOWN, DOWN, DOWN]


@both_ways
def test_may_end_with_an_error_that_they_make_of_another(way: Way) -> None:
    def steps() -> Steps[None]:
        try:
            yield routes.get_job("first")
        except PlanasonixServerError:
            raise PlanasonixError("worse") from None

    with pytest.raises(PlanasonixError, match="worse"):
        way(steps(), Api(first=DOWN))


@both_ways
def test_may_take_nothing_for_an_answer(way: Way) -> None:
    assert way(strict(), Api(first=None, second=0, third=[])) == [None, 0, []]


@both_ways
def test_do_not_get_to_see_a_bug(way: Way) -> None:
    with pytest.raises(ZeroDivisionError):
        way(lenient(), Api(first=1, second=ZeroDivisionError("by zero"), third=3))


def test_may_be_none() -> None:
    def steps() -> Steps[str]:
        return "known already"
        yield

    api = Api()
    assert run_flow(steps(), api.send) == "known already"
    assert api.asked == []
