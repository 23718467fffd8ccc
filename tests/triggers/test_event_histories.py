"""Tests with random histories: watchers report every end, even if triggerers are killed; without kills exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from planasonix_provider import state_store
from planasonix_provider.testing.travelled_clock import TravelledClock
from planasonix_provider.triggers import cursor_store, events
from planasonix_provider.triggers.planasonix import PlanasonixEventTrigger
from planasonix_provider.watchers.completion_stream import MAX_POLL_INTERVAL_SECONDS, CompletionBatch, CompletionStream
from planasonix_provider.watchers.cursor import MAX_LISTING_DELAY
from planasonix_provider.watchers.subscribers import REGISTRIES, SubscriberRegistry
from tests.support.job_history import History, Life
from tests.support.triggerer import HAS_SHARED_STREAMS, Store, Triggerer

pytestmark = [
    pytest.mark.skipif(not events.HAS_WATCHERS, reason="Airflow 2 has no watchers"),
    pytest.mark.slow("tries hundreds of histories"),
]

#: Seconds that watchers run before the first kill, and after the last event of a history.
FIRST, LAST = 30.0, MAX_POLL_INTERVAL_SECONDS + 400.0
#: The length of a history, in seconds.
SPAN = 2_000.0
#: The events of the first of two watchers.
EVENTS = ["job.succeeded", "job.failed", "backfill.completed"]

ENDS = st.floats(0.0, SPAN) | st.sampled_from([100.0, 100.5, 900.0])
LATENESS = st.just(0.0) | st.floats(0.0, MAX_LISTING_DELAY.total_seconds() - 20)


@st.composite
def lives(draw: st.DrawFn, kind: str, outcomes: list[str], most: int) -> list[Life]:
    """Draw work that is created before or while watchers run, and its ends."""
    found = []
    for number in range(draw(st.integers(0, most))):
        created = draw(st.floats(-2_000.0, 0.0) | st.floats(FIRST, SPAN) | st.sampled_from([50.0, 50.2, 600.0]))
        begins = max(created, 0.0) + FIRST
        late = draw(LATENESS) if created > 0 else 0.0
        ends = draw(st.just(begins) | st.floats(begins, begins + SPAN))
        found.append(Life(f"{kind}_{number}", created, ends, late, draw(st.sampled_from(outcomes))))
    return found


histories = st.builds(
    History,
    jobs=lives("job", ["succeeded", "failed"], 25),
    backfills=lives("bf", ["completed"], 4),
    outages=st.lists(
        st.floats(FIRST, SPAN).flatmap(lambda at: st.tuples(st.just(at), st.floats(at, at + 900))), max_size=3
    ),
    newest_first=st.booleans(),
    page_size=st.integers(2, 9),
    ahead=st.sampled_from([timedelta(), timedelta(hours=-7), timedelta(hours=7)]).map(lambda ahead: lambda time: ahead),
)
deaths = st.lists(st.tuples(st.floats(FIRST, SPAN), st.just(0.0) | st.floats(0.0, 1_500.0)), max_size=4).map(sorted)
shared = st.booleans() if HAS_SHARED_STREAMS else st.just(False)


def watch(history: History, deaths: list[tuple[float, float]], *, shared: bool) -> Store:
    """Run two watchers in triggerers that are killed."""
    history = replace(history, jobs=[*history.jobs, *(Life(f"past_{n}", -n - 5.0, -n) for n in range(8))])
    store = Store()
    store.latency = 0.05

    async def news(conn_id: str) -> AsyncGenerator[CompletionBatch]:
        channel: Any = history
        async with aclosing(
            CompletionStream(
                channel, REGISTRIES.get(conn_id, SubscriberRegistry), "https://{}".format, history.now
            ).batches()
        ) as all_news:
            async for one in all_news:
                yield one

    async def main() -> None:
        for death, rest in [*deaths, (None, 0.0)]:
            triggerer = Triggerer(store, has_shared_streams=shared)
            triggerer.watch(PlanasonixEventTrigger(events=EVENTS, poll_interval=30), assets=("all", "same"))
            triggerer.watch(PlanasonixEventTrigger(events=["job.failed"], poll_interval=45), assets=("failed",))
            await asyncio.sleep(max(death - history.time, 0.0) if death is not None else 2 * SPAN + FIRST + LAST)
            await triggerer.kill()
            await asyncio.sleep(rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "_stream_for", news)
        patch.setattr(state_store, "variable_class", lambda: store)
        patch.setattr(cursor_store, "sync_to_async", lambda call: delay_call(call))
        TravelledClock().run(main())
    return store


def delay_call(call: Any) -> Any:
    """Return an async function that makes the call after 0.05 seconds."""

    async def called(*arguments: Any, **more: Any) -> Any:
        await asyncio.sleep(0.05)
        return call(*arguments, **more)

    return called


def ended_ids(history: History, *outcomes: str) -> set[str]:
    return {life.id for life in [*history.jobs, *history.backfills] if life.outcome in outcomes}


@given(history=histories, shared=shared)
@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_each_end_is_reported_once(history: History, shared: bool) -> None:
    store = watch(history, [], shared=shared)
    assert (
        store.ids("all")
        == store.ids("same")
        == dict.fromkeys(ended_ids(history, "succeeded", "failed", "completed"), 1)
    )
    assert store.ids("failed") == dict.fromkeys(ended_ids(history, "failed"), 1)


@given(history=histories, deaths=deaths, shared=shared)
@settings(max_examples=50, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_each_end_is_reported_although_triggerers_are_killed(
    history: History, deaths: list[tuple[float, float]], shared: bool
) -> None:
    store = watch(history, deaths, shared=shared)
    assert store.ids("all").keys() == store.ids("same").keys() == ended_ids(history, "succeeded", "failed", "completed")
    assert store.ids("failed").keys() == ended_ids(history, "failed")
