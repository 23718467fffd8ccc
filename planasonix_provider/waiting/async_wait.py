"""Waits in an event loop, on the poller that all waits of an Airflow connection share."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.clock import utcnow
from planasonix_provider.waiting.poller import PollSubscription
from planasonix_provider.waiting.request_flow import resume_flow
from planasonix_provider.waiting.shared_client import RequestPriority, SharedClient
from planasonix_provider.waiting.targets import Snapshot
from planasonix_provider.waiting.wait_event import WaitEvent
from planasonix_provider.waiting.wait_state import WaitState


async def until_event(state: WaitState, wait: PollSubscription[Any], client: SharedClient) -> WaitEvent:
    """Return the event that ends a wait."""
    event = None
    while event is None:
        event = state.update(await _poll(state, wait, client), utcnow(), wait.age)
    return event


async def _poll(
    state: WaitState, wait: PollSubscription[Any], client: SharedClient
) -> Snapshot | PlanasonixError | None:
    """Return the next answer of the poller, with what the other requests of the poll brought."""
    first = await wait.next(state.seconds_until_attention(utcnow()))
    if first is None:
        return None
    try:
        # The other requests may have to wait for their turn.
        async with asyncio.timeout(state.seconds_until_deadline(utcnow())):
            return await resume_flow(first, state.poll(utcnow()), partial(client.send, retry=False))
    except PlanasonixError as error:
        return error
    except TimeoutError:
        return None


async def poll_at_the_deadline(state: WaitState, event: WaitEvent, client: SharedClient) -> WaitEvent:
    """Poll once more, because the last poll may be long ago, and return how the wait ends."""
    send = partial(client.send, priority=RequestPriority.FIRST)
    steps = state.target.poll(utcnow(), detailed=False)
    try:
        return state.on_final_poll(await resume_flow(await send(state.target.request), steps, send), event)
    except PlanasonixError:
        return event
