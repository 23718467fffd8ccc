"""Flows of several requests, written once as a generator for blocking and asynchronous code.

The generator yields a request, and gets the response sent or the error thrown into it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.request import Request

R = TypeVar("R")

Steps: TypeAlias = Generator[Request[Any], Any, R]


def run_flow(steps: Steps[R], send: Callable[[Request[Any]], Any]) -> R:
    """Run a flow with blocking requests, and return its result."""
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
    """Run a flow whose first response, or error, is known already, and return its result."""
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
