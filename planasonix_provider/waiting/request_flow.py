"""Several requests that belong together, written once and sent by whoever can: blocking, or awaited.

The requests are the steps of a generator: it yields a request, and is sent the answer, or thrown the error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.request import Request

R = TypeVar("R")

Steps: TypeAlias = Generator[Request[Any], Any, R]


def run_flow(steps: Steps[R], send: Callable[[Request[Any]], Any]) -> R:
    """Go all the steps, blocking.

    :param steps: the requests.
    :param send: sends one, and raises a ``PlanasonixError`` where that fails.
    :return: what the steps return.
    :raises PlanasonixError: that of a step, unless the steps can do without its answer.
    """
    try:
        request = next(steps)
        while True:
            try:
                answer = send(request)
            except PlanasonixError as error:
                request = steps.throw(error)
            else:
                request = steps.send(answer)
    except StopIteration as end:
        result: R = end.value
        return result


async def resume_flow(first: Any, steps: Steps[R], send: Callable[[Request[Any]], Awaitable[Any]]) -> R:
    """Go all the steps but the first, which somebody has gone already.

    :param first: the answer to the first request, or why there is none.
    :param steps: the requests.
    :param send: sends one, and raises a ``PlanasonixError`` where that fails.
    :return: what the steps return.
    :raises PlanasonixError: that of a step, unless the steps can do without its answer.
    """
    answer = first
    try:
        next(steps)
        while True:
            request = steps.throw(answer) if isinstance(answer, PlanasonixError) else steps.send(answer)
            try:
                answer = await send(request)
            except PlanasonixError as error:
                answer = error
    except StopIteration as end:
        result: R = end.value
        return result
