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


async def until_event(watch: WaitState, wait: PollSubscription[Any], channel: SharedClient) -> WaitEvent:
    """Return the event that ends a wait."""
    event = None
    while event is None:
        event = watch.update(await _poll(watch, wait, channel), utcnow(), wait.age)
    return event


async def _poll(
    watch: WaitState, wait: PollSubscription[Any], channel: SharedClient
) -> Snapshot | PlanasonixError | None:
    """Return the next answer of the poller, with what the other requests of the poll brought."""
    first = await wait.next(watch.seconds_until_attention(utcnow()))
    if first is None:
        return None
    try:
        # The other requests may have to wait for their turn.
        async with asyncio.timeout(watch.seconds_until_deadline(utcnow())):
            return await resume_flow(first, watch.poll(utcnow()), partial(channel.send, retry=False))
    except PlanasonixError as error:
        return error
    except TimeoutError:
        return None


async def poll_at_the_deadline(watch: WaitState, event: WaitEvent, channel: SharedClient) -> WaitEvent:
    """Return the event of work that ended since the last poll: the interval may be long, or no triggerer have run."""
    send = partial(channel.send, priority=RequestPriority.FIRST)
    steps = watch.subject.poll(utcnow(), detailed=False)
    try:
        seen = await resume_flow(await send(watch.subject.request), steps, send)
    except PlanasonixError:
        return event
    return WaitEvent.over(watch.subject, seen.work) if seen.is_over and seen.work else event
