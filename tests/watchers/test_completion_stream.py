from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from planasonix_provider.api.errors import PlanasonixPermissionError, PlanasonixServerError
from planasonix_provider.watchers.broadcast import HANDOVER_SECONDS, Broadcast
from planasonix_provider.watchers.completion_stream import (
    MAX_BACKFILL_INTERVAL,
    MAX_POLL_INTERVAL,
    RETRY_AFTER_REFUSAL,
    CompletionBatch,
    CompletionStream,
)
from planasonix_provider.watchers.cursor import MAX_LISTING_DELAY
from planasonix_provider.watchers.event_filter import EventFilter
from planasonix_provider.watchers.list_scan import MAX_PASSES
from planasonix_provider.watchers.subscribers import Subscriber, SubscriberRegistry
from tests.support import virtual_time
from tests.support.job_history import BEGAN, History, Life

JOBS = EventFilter(frozenset({"job.succeeded", "job.failed"}))
BACKFILLS = EventFilter(frozenset({"backfill.completed"}))
BOTH = EventFilter(JOBS.events | BACKFILLS.events)


def backfill(name: str, created: float, ends: float) -> Life:
    return Life(name, created, ends, outcome="completed")


class Recorder:
    """One who listens, and notes when it hears of what."""

    def __init__(self, wanted: EventFilter = JOBS, interval: float = 30.0) -> None:
        self.subscriber = Subscriber(wanted, interval)
        self.reported_at: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    async def listen(self, history: History, roster: SubscriberRegistry, begins: float = 0.0) -> None:
        await asyncio.sleep(begins)
        with roster.subscribed(self.subscriber):
            await asyncio.Event().wait()


def run(history: History, *recorders: Recorder, seconds: float, begins: tuple[float, ...] = ()) -> None:
    """Let somebody listen, for a while."""

    async def main() -> None:
        roster = SubscriberRegistry()
        listening = [
            asyncio.ensure_future(recorder.listen(history, roster, begin))
            for recorder, begin in zip(recorders, begins or [0.0] * len(recorders), strict=True)
        ]
        channel: Any = history
        async with aclosing(CompletionStream(channel, roster, "https://{}".format, history.now).batches()) as all_news:
            try:
                async with asyncio.timeout(seconds):
                    async for news in all_news:
                        for recorder in recorders:
                            told = news.by_subscriber.get(recorder.subscriber, ())
                            ids = [one.get("job_id") or one["backfill_id"] for one in told]
                            recorder.reported_at |= dict.fromkeys(ids, history.time)
                            recorder.counts.update(ids)
                        news.acknowledged.set()
            except TimeoutError:
                pass
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)

    virtual_time.run(main())


def test_an_end_is_told_within_an_interval() -> None:
    recorder = Recorder()
    run(History([Life("job_1", 10, 100)]), recorder, seconds=1_000)
    assert recorder.reported_at == {"job_1": pytest.approx(120, abs=1)}


def test_a_row_that_cannot_be_read_hides_no_other_and_is_looked_at_by_itself() -> None:
    recorder, late = Recorder(), Recorder(interval=60)
    lives = [Life(f"job_{number}", 10 * number, 100 + 10 * number) for number in range(30)]
    history = History(lives, unreadable={"job_3", "job_7"})
    run(history, recorder, late, seconds=3_000, begins=(0, 230))
    assert recorder.reported_at.keys() == {life.id for life in lives}
    readable = [life for life in lives if life.id not in history.unreadable]
    assert all(recorder.reported_at[life.id] == pytest.approx(life.ends, abs=31) for life in readable)
    assert recorder.reported_at["job_3"] < 130 + MAX_POLL_INTERVAL + 31
    # For who began when it was over, it is past.
    assert "job_7" not in late.reported_at
    assert history.asked["/jobs/{job_id}"] < 100


def test_many_jobs_that_cannot_be_read_at_all_do_not_hide_the_backfills() -> None:
    recorder = Recorder(BOTH)
    lives = [Life(f"job_{number}", 10 * number, 100 + 10 * number) for number in range(60)]
    history = History(lives, [backfill("bf_1", 5, 300)], unreadable={life.id for life in lives})
    history.is_unreadable_alone = True
    run(history, recorder, seconds=3_000)
    assert recorder.reported_at.keys() == {"bf_1"}
    assert history.asked["/jobs"] == pytest.approx(100, abs=1)
    assert history.asked["/jobs/{job_id}"] <= 200


def test_more_rows_than_a_page_that_cannot_be_read_are_all_looked_at() -> None:
    recorder = Recorder()
    lives = [Life(f"job_{number}", 40, 50) for number in range(250)]
    run(History(lives, unreadable={life.id for life in lives}), recorder, seconds=3_000)
    assert recorder.reported_at.keys() == {life.id for life in lives}


def test_rows_that_cannot_be_read_and_nobody_wants_cost_a_look_now_and_then() -> None:
    recorder = Recorder(EventFilter(frozenset({"job.failed"})))
    history = History([Life("job_1", 10, 100)], unreadable={"job_1"})
    run(history, recorder, seconds=3_000)
    assert recorder.reported_at == {}
    assert history.asked["/jobs/{job_id}"] <= 12


def test_the_fastest_interval_is_that_of_all() -> None:
    history, recorders = History(), [Recorder(interval=interval) for interval in (10, 100, 1_000)]
    run(history, *recorders, seconds=1_000)
    assert history.asked["/jobs"] == pytest.approx(100, abs=1)


def test_whoever_is_new_is_looked_for_at_once() -> None:
    history, recorders = History(), [Recorder(interval=3_000), *(Recorder(interval=3_000) for _ in range(20))]
    run(history, *recorders, seconds=200, begins=(0.0, *(100 + number / 100 for number in range(20))))
    # For the first, for the others together, and for those that came meanwhile.
    assert history.asked["/jobs"] == 3
    assert all(recorder.subscriber.needs_save for recorder in recorders)


def test_what_starts_to_run_between_two_lists_of_a_new_watcher_is_told() -> None:
    history, recorder = History([Life("job_1", 1, 5_000)]), Recorder()
    shown = history._shown

    def queued_at_first(life: Life, model: Any, *, whole: bool = False) -> Any:
        work = shown(life, model, whole=whole)
        # Each answer takes 0.02 s, so that this is between the first and the second.
        return work if work.is_over or history.time > 1_000.03 else work.model_copy(update={"status": "queued"})

    history._shown = queued_at_first  # type: ignore[method-assign]
    run(history, recorder, seconds=6_000, begins=(1_000,))
    assert recorder.reported_at.keys() == {"job_1"}


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("pause", [0.005, 0.02, 0.1])
def test_a_new_watcher_misses_none_of_many_that_run_while_some_of_them_end(newest_first: bool, pause: float) -> None:
    # Page by page, 0.02 s each: what ends on one moves those behind it up, over the edge of the page that was read.
    ending = [Life(f"ending_{n}", -1 - n, 0.045 + pause * n) for n in range(60)]
    running = [Life(f"running_{n}", -100 - n, 500 + n) for n in range(350)]
    history, recorder = History([*ending, *running], newest_first=newest_first), Recorder()
    run(history, recorder, seconds=2_000)
    assert {life.id for life in running} <= recorder.reported_at.keys()
    assert history.asked["/jobs queued"] <= 4


def test_a_new_watcher_reads_lists_of_a_single_page_once() -> None:
    history = History([Life(f"job_{n}", -100 - n, 500) for n in range(100)])
    run(history, Recorder(), seconds=20)
    assert (history.asked["/jobs queued"], history.asked["/jobs running"]) == (1, 1)


def test_a_new_watcher_does_not_read_for_ever_where_lists_never_show_the_same(caplog: pytest.LogCaptureFixture) -> None:
    history, recorder = History(), Recorder()

    class Endless(History):
        def _page(self, lives: list[Life], model: Any, query: dict[str, Any]) -> Any:
            if query.get("status"):
                # Jobs of long ago appear again and again.
                lives = [Life(f"job_{self.time:.2f}_{n}", -100 - n, 500) for n in range(101)]
            return super()._page(lives, model, query)

    history = Endless()
    run(history, recorder, seconds=20)
    assert history.asked["/jobs queued"] == MAX_PASSES
    assert "a new watcher has read them 10 times" in caplog.text


def test_nobody_is_asked_while_nobody_listens() -> None:
    history = History()
    run(history, Recorder(), seconds=1_000, begins=(900,))
    assert history.asked["/jobs"] == 4


@pytest.mark.parametrize(
    ("connections", "is_asked_for"), [(("conn_1", "conn_1"), "conn_1"), (("conn_1", "conn_2"), None)]
)
def test_the_list_is_that_of_one_connection_where_all_want_the_same(
    connections: tuple[str, ...], is_asked_for: str | None
) -> None:
    fields = [{"connection_id": "conn_1"}, {"connection_id": "conn_2"}]
    history = History([Life(f"job_{n}", 10, 20, fields=known) for n, known in enumerate(fields)])
    recorders = [Recorder(EventFilter(JOBS.events, connection_id=connection)) for connection in connections]
    seen: set[Any] = set()
    ask = history.ask

    async def spy(request: Any) -> Any:
        seen.add(request.query.get("connection_id"))
        return await ask(request)

    history.ask = spy  # type: ignore[method-assign]
    run(history, *recorders, seconds=200)
    assert seen - {None} == {is_asked_for} - {None} or seen == {is_asked_for, None}
    assert recorders[0].reported_at.keys() == {"job_0"}
    assert recorders[1].reported_at.keys() == {"job_0" if connections[1] == "conn_1" else "job_1"}


@pytest.mark.parametrize("ahead", [timedelta(hours=-5), timedelta(), timedelta(hours=5)])
@pytest.mark.parametrize("has_dates", [True, False])
def test_only_the_clock_of_the_api_counts(ahead: timedelta, has_dates: bool) -> None:
    past = [Life(f"past_{number}", -100 - number, -50) for number in range(5)]
    new = [Life("running", -9_000, 500), *(Life(f"job_{n}", 100 * n, 100 * n + 50) for n in range(1, 30))]
    recorder = Recorder()
    run(History([*past, *new], ahead=ahead, has_dates=has_dates), recorder, seconds=5_000)
    assert recorder.reported_at.keys() == {life.id for life in new}


def test_a_list_of_jobs_that_is_refused_keeps_nobody_from_the_backfills() -> None:
    class Refused(History):
        async def ask(self, request: Any) -> Any:
            if request.path.endswith("/jobs"):
                raise PlanasonixPermissionError("no", status=403)
            return await super().ask(request)

    recorder = Recorder(BOTH)
    run(Refused(backfills=[backfill("bf_1", 100, 200)]), recorder, seconds=1_000)
    assert recorder.reported_at.keys() == {"bf_1"}


@pytest.mark.parametrize("wanted", [JOBS, BOTH])
def test_what_ends_after_a_first_look_that_was_broken_off_is_told(wanted: EventFilter) -> None:
    # The first ends after the list of what runs, and before the list of all.
    lives = [Life("amid", -100, 0.045), Life("job_1", -100, 500), Life("past", -100, -50), Life("job_3", 300, 400)]
    history, first, second = History(lives), Recorder(wanted), Recorder(wanted)

    async def main() -> Any:
        channel: Any = history
        roster = SubscriberRegistry()
        with roster.subscribed(first.subscriber):
            async with aclosing(
                CompletionStream(channel, roster, "https://{}".format, history.now).batches()
            ) as all_news:
                async for news in all_news:
                    news.acknowledged.set()
                    if news.is_checkpoint:
                        # Nothing was told yet: the list is not taken in before this may be kept.
                        assert first.subscriber.needs_save
                        kept = first.subscriber.to_json()
                        break
        await asyncio.sleep(1_000)
        assert second.subscriber.restore([kept]) is None
        with roster.subscribed(second.subscriber):
            async with aclosing(
                CompletionStream(channel, roster, "https://{}".format, history.now).batches()
            ) as all_news:
                async for news in all_news:
                    second.reported_at |= {
                        one["job_id"]: history.time for one in news.by_subscriber.get(second.subscriber, ())
                    }
                    news.acknowledged.set()
                    if news.is_scan_end:
                        return

    virtual_time.run(main())
    assert second.reported_at.keys() == {"amid", "job_1", "job_3"}


@pytest.mark.parametrize("dates_ahead", [timedelta(minutes=-10), timedelta(minutes=10), timedelta(days=1)])
def test_a_proxy_whose_dates_are_wrong_hides_nothing(dates_ahead: timedelta) -> None:
    recorder = Recorder()
    lives = [Life(f"job_{n}", 100 * n, 100 * n + 50) for n in range(1, 30)]
    run(History(lives, dates_ahead=dates_ahead), recorder, seconds=5_000)
    assert recorder.reported_at.keys() == {life.id for life in lives}


def test_a_clock_that_is_set_back_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class SetBack(History):
        def now(self) -> Any:
            self.ahead = timedelta() if self.time < 1_000 else timedelta(hours=-1)
            return super().now()

    recorder = Recorder()
    caplog.set_level("INFO")
    run(SetBack([Life(f"job_{n}", 100 * n, 100 * n + 50) for n in range(1, 30)]), recorder, seconds=5_000)
    assert recorder.reported_at.keys() == {f"job_{n}" for n in range(1, 30)}
    assert "The clock of Planasonix was set back" in caplog.text


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_single_wrong_date_hides_and_repeats_nothing(hours: int, caplog: pytest.LogCaptureFixture) -> None:
    class WrongForOneLook(History):
        @property
        def skew(self) -> Any:
            self.dates_ahead = timedelta(hours=hours if 3_000 <= self.time < 3_030 else 0)
            return super().skew

    recorder = Recorder()
    caplog.set_level("INFO")
    lives = [Life(f"job_{n}", 100 * n, 100 * n + 50) for n in range(1, 50)]
    run(WrongForOneLook(lives), recorder, seconds=6_000)
    assert recorder.counts == {life.id: 1 for life in lives}
    assert "was set back" not in caplog.text


@pytest.mark.parametrize("is_wrong", [lambda time: time < 0.03, lambda time: 0.03 < time < 0.05])
def test_a_new_watcher_is_told_nothing_of_the_past_though_one_date_is_wrong(is_wrong: Callable[[float], bool]) -> None:
    class WrongOnce(History):
        @property
        def skew(self) -> Any:
            self.dates_ahead = timedelta(hours=-1 if is_wrong(self.time) else 0)
            return super().skew

    recorder = Recorder()
    past = [Life(f"past_{n}", -60 * n, -60 * n + 30) for n in range(1, 60)]
    run(WrongOnce([*past, Life("job_1", 100, 200)]), recorder, seconds=1_000)
    assert recorder.counts == {"job_1": 1}


def test_what_is_created_while_it_is_not_certain_that_the_clock_was_set_back_is_told() -> None:
    class SetBack(History):
        def now(self) -> Any:
            self.ahead = timedelta() if self.time < 1_230 else timedelta(hours=-1)
            return super().now()

        def _shown(self, life: Life, model: Any, *, whole: bool = False) -> Any:
            # Jobs keep the date that they were created with.
            work = super()._shown(life, model, whole=whole)
            ahead = timedelta() if life.created < 1_230 else timedelta(hours=-1)
            return work.model_copy(update={"created_at": work.created_at - self.ahead + ahead})

    recorder = Recorder(interval=600)
    lives = [Life(f"job_{n}", 40 * n, 40 * n + 20) for n in range(1, 100)]
    run(SetBack(lives), recorder, seconds=9_000)
    assert recorder.reported_at.keys() == {life.id for life in lives}


def test_a_list_that_is_late_hides_nothing() -> None:
    late = MAX_LISTING_DELAY.total_seconds() - 10
    recorder = Recorder()
    run(History([Life(f"job_{n}", 40 * n, 40 * n + 1, late) for n in range(1, 50)]), recorder, seconds=5_000)
    assert recorder.reported_at.keys() == {f"job_{n}" for n in range(1, 50)}


def test_what_was_created_just_before_somebody_listens_and_is_listed_late_is_told() -> None:
    recorder = Recorder()
    run(History([Life("job_1", -10, 300, listing_delay=100)]), recorder, seconds=500)
    assert recorder.reported_at.keys() == {"job_1"}


def test_few_that_are_in_order_by_chance_end_no_list() -> None:
    backfills = [backfill(f"bf_{n}", 50 + n, 60 + n) for n in range(20)]
    old = [backfill(f"old_{n}", -9_000 - n, -8_000) for n in range(40)]
    recorder = Recorder(BACKFILLS)
    run(History(backfills=[*old, *backfills], newest_first=False, page_size=2), recorder, seconds=300)
    assert recorder.reported_at.keys() == {life.id for life in backfills}


def test_a_job_that_turns_out_to_be_of_another_pipeline_is_expected_no_longer() -> None:
    class Brief(History):
        def _shown(self, life: Life, model: Any, *, whole: bool = False) -> Any:
            work = super()._shown(life, model, whole=whole)
            return work.model_copy(update={"pipeline_id": "pl_2"}) if whole else work

    recorder = Recorder(EventFilter(JOBS.events, pipeline_id="pl_1"))
    history = Brief([Life("job_1", -9_000, 99_000)])
    run(history, recorder, seconds=600)
    assert not recorder.subscriber.cursors["job"].pending
    assert history.asked["/jobs/{job_id}"] == 1


def test_a_list_that_says_too_early_that_a_job_is_over_is_not_believed() -> None:
    history, recorder = History([Life("job_1", 10, 500)]), Recorder()
    shown = history._shown

    def early(life: Life, model: Any, *, whole: bool = False) -> Any:
        work = shown(life, model, whole=whole)
        return work if whole else work.model_copy(update={"status": "succeeded"})

    history._shown = early  # type: ignore[method-assign]
    run(history, recorder, seconds=1_000)
    assert recorder.reported_at == {"job_1": pytest.approx(510, abs=10)}


def test_a_job_that_was_deleted_once_it_was_over_is_told_by_what_the_list_showed() -> None:
    history, recorder = History([Life("job_1", 10, 500)]), Recorder()
    ask = history.ask

    async def delete_before_the_look(request: Any) -> Any:
        if request.ids and history.time > 500:
            history.gone = {"job_1"}
        return await ask(request)

    history.ask = delete_before_the_look  # type: ignore[method-assign]
    run(history, recorder, seconds=600)
    assert recorder.reported_at.keys() == {"job_1"}


def test_a_job_that_alone_cannot_be_had_keeps_nobody_from_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    history = History([Life(f"job_{n}", 40, 50 + n / 10) for n in range(250)], newest_first=False)
    ask, recorder = history.ask, Recorder()

    async def fail_for_one(request: Any) -> Any:
        answer = await ask(request)
        if request.ids == {"job_id": "job_7"} and history.time < 1_000:
            raise PlanasonixServerError(f"{request}: answered 500.", status=500)
        return answer

    history.ask = fail_for_one  # type: ignore[method-assign]
    run(history, recorder, seconds=2_000)
    assert len(recorder.reported_at) == 250
    assert recorder.reported_at.pop("job_7") == pytest.approx(1_020, abs=30)
    assert max(recorder.reported_at.values()) < 120
    assert sum("GET /api/v1/jobs/job_7: answered 500." in record.message for record in caplog.records) == 2
    assert recorder.subscriber.watermark > timedelta(seconds=1_000) + BEGAN


def test_a_job_that_can_never_be_had_keeps_nobody_from_what_other_pages_tell() -> None:
    # On the first page it is all that is news, look after look.
    waiting = [Life(f"waiting_{n}", 50 + n / 2, 10_000) for n in range(150)]
    history = History([Life("long", 1, 900), *waiting, Life("broken", 150, 700)], backfills=[backfill("bf_1", 10, 800)])
    ask, recorder = history.ask, Recorder(BOTH)

    async def fail_for_one(request: Any) -> Any:
        answer = await ask(request)
        if request.ids == {"job_id": "broken"}:
            raise PlanasonixServerError(f"{request}: answered 500.", status=500)
        return answer

    history.ask = fail_for_one  # type: ignore[method-assign]
    run(history, recorder, seconds=2_000)
    assert recorder.reported_at.keys() == {"long", "bf_1"}


def test_an_outage_amid_a_look_ends_it_after_few_requests() -> None:
    history = History([Life(f"job_{n}", 40, 50) for n in range(250)], outages=[(61, 1_000)])
    ask, recorder = history.ask, Recorder()

    async def answer_lists(request: Any) -> Any:
        outages, history.outages = history.outages, [] if not request.ids else history.outages
        try:
            return await ask(request)
        finally:
            history.outages = outages

    history.ask = answer_lists  # type: ignore[method-assign]
    run(history, recorder, seconds=2_000)
    assert len(recorder.reported_at) == 250
    assert history.asked["/jobs/{job_id}"] < 250 + 10 * 1_000 / 30


def test_more_than_a_page_is_told_page_by_page() -> None:
    history = History([Life(f"job_{n}", 40, 50) for n in range(450)], newest_first=False)
    recorder = Recorder()
    run(history, recorder, seconds=100)
    assert len(recorder.reported_at) == 450
    assert len(set(recorder.reported_at.values())) == 5


def test_what_one_look_has_told_is_told_though_the_next_page_fails() -> None:
    history, recorder = History([Life(f"job_{n}", 40, 50) for n in range(150)]), Recorder()
    ask, pages = history.ask, []

    async def fail_at_the_second_page(request: Any) -> Any:
        if "cursor" in request.query and not pages:
            pages.append(request)
            history.outages.append((history.time, history.time + 10))
        return await ask(request)

    history.ask = fail_at_the_second_page  # type: ignore[method-assign]
    run(history, recorder, seconds=200)
    assert len(recorder.reported_at) == 150
    assert len(set(recorder.reported_at.values())) > 1


@pytest.mark.parametrize("newest_first", [True, False])
def test_old_backfills_are_not_looked_through_where_the_newest_come_first(newest_first: bool) -> None:
    old = [backfill(f"old_{n}", -9_000 - n, -8_000) for n in range(1_000)]
    history = History(backfills=[*old, backfill("bf_1", 50, 400)], newest_first=newest_first)
    recorder = Recorder(BACKFILLS)
    run(history, recorder, seconds=600)
    assert recorder.reported_at == {"bf_1": pytest.approx(420, abs=5)}
    looks = 600 / 30
    assert history.asked["/backfills"] == pytest.approx(looks if newest_first else 11 * looks, abs=11)


def test_backfills_are_looked_at_when_a_job_of_one_tells_of_it() -> None:
    shard = Life("job_1", 1_000, 1_100, fields={"type": "backfill"})
    history, recorder = History([shard], [backfill("bf_1", 990, 1_110)]), Recorder(BOTH)
    run(history, recorder, seconds=2_000)
    assert recorder.reported_at == {"bf_1": pytest.approx(1_125, abs=15)}
    looks = history.asked["/backfills"]
    assert looks <= 2_000 / MAX_BACKFILL_INTERVAL + 8


def test_backfills_that_no_job_tells_of_are_found_all_the_same() -> None:
    history, recorder = History(backfills=[backfill("bf_1", 990, 995)]), Recorder(BOTH)
    run(history, recorder, seconds=2_000)
    assert recorder.reported_at == {"bf_1": pytest.approx(1_100, abs=MAX_BACKFILL_INTERVAL)}


def test_a_job_that_was_created_long_ago_is_looked_at_ever_more_rarely() -> None:
    others = [Life(f"job_{n}", 10 * n, 10 * n + 5) for n in range(1, 200)]
    history = History([Life("long", 5, 40_000), *others])
    recorder = Recorder(interval=60)
    run(history, recorder, seconds=41_000)
    assert recorder.reported_at["long"] - 40_000 <= MAX_POLL_INTERVAL + 60
    assert history.asked["/jobs/{job_id}"] - len(others) < 40_000 / MAX_POLL_INTERVAL + 150


def test_a_long_job_of_a_quiet_connection_does_not_have_all_of_a_busy_one_looked_through() -> None:
    others = [Life(f"job_{n}", 10 * n, 10 * n + 5, fields={"connection_id": "busy"}) for n in range(1, 1_000)]
    history = History([Life("long", 5, 12_000, fields={"connection_id": "quiet"}), *others])
    recorders = [
        Recorder(EventFilter(JOBS.events, connection_id=connection), interval=100) for connection in ("quiet", "busy")
    ]
    run(history, *recorders, seconds=13_000)
    assert [len(recorder.reported_at) for recorder in recorders] == [1, 999]
    # At first two pages, until the long one is left behind.
    assert history.asked["/jobs"] < 1.2 * 13_000 / 100


def test_what_a_person_has_to_mend_is_asked_for_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    history = History(
        [Life("job_1", 20, 30)],
        outages=[(10, 3_610)],
        error=lambda: PlanasonixPermissionError("no", status=403),
    )
    recorder = Recorder(interval=1)
    run(history, recorder, seconds=3_800)
    assert recorder.reported_at == {"job_1": pytest.approx(3_640, abs=RETRY_AFTER_REFUSAL)}
    assert history.asked["/jobs"] <= 10 + 60 + 200
    assert sum("cannot be asked for" in record.message for record in caplog.records) == 6


def test_a_look_that_breaks_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    history, recorder = History([Life("job_1", 20, 30)]), Recorder()
    ask = history.ask

    async def break_once(request: Any) -> Any:
        if 50 < history.time < 70:
            raise ZeroDivisionError
        return await ask(request)

    history.ask = break_once  # type: ignore[method-assign]
    run(history, recorder, seconds=300)
    assert recorder.reported_at.keys() == {"job_1"}
    assert "Please report this." in caplog.text


def test_what_has_no_date_is_told_once_and_what_is_past_never() -> None:
    backfills = [backfill("past", 1, 10), backfill("bf_1", 900, 1_500), backfill("bf_2", 1_600, 1_610)]
    history = History(backfills=backfills, newest_first=False)
    shown, told = history._shown, list[str]()

    def undated(life: Life, model: Any, *, whole: bool = False) -> Any:
        return shown(life, model, whole=whole).model_copy(update={"created_at": None})

    class Counting(dict[str, float]):
        def __ior__(self, other: Any) -> Any:  # type: ignore[misc]
            told.extend(other)
            return self

    history._shown = undated  # type: ignore[method-assign]
    recorder = Recorder(BACKFILLS)
    recorder.reported_at = Counting()
    run(history, recorder, seconds=6_000, begins=(1_000,))
    assert told == ["bf_1", "bf_2"]


class TestABroadcast:
    @staticmethod
    def of(*news: CompletionBatch, closed: list[str] | None = None) -> Broadcast:
        async def tell() -> AsyncGenerator[CompletionBatch]:
            try:
                for one in news:
                    yield one
                    await one.acknowledged.wait()
                await asyncio.Event().wait()
            finally:
                if closed is not None:
                    closed.append(CALLER.get("nobody"))

        return Broadcast(tell)

    def test_gives_no_more_news_before_all_have_passed_on_what_they_have(self) -> None:
        first, second = CompletionBatch(), CompletionBatch()

        async def main() -> None:
            broadcast = self.of(first, second)
            async with aclosing(broadcast.subscribe()) as fast, aclosing(broadcast.subscribe()) as slow:
                one = asyncio.ensure_future(anext(fast))
                assert await anext(slow) is first is await one
                ahead = asyncio.ensure_future(anext(fast))
                await asyncio.sleep(100)
                assert not ahead.done()
                assert not first.acknowledged.is_set()
                assert await anext(slow) is second is await ahead

        virtual_time.run(main())

    def test_waits_for_nobody_who_has_left(self) -> None:
        first, second = CompletionBatch(), CompletionBatch()

        async def main() -> None:
            broadcast = self.of(first, second)
            async with aclosing(broadcast.subscribe()) as stays:
                leaves = broadcast.subscribe()
                one = asyncio.ensure_future(anext(leaves))
                assert await anext(stays) is first is await one
                await leaves.aclose()
                assert await anext(stays) is second

        virtual_time.run(main())

    def test_leaves_a_triggerer_time_to_hand_over_what_was_told_before_cursors_are_kept(self) -> None:
        told, checkpoint = CompletionBatch(), CompletionBatch(is_checkpoint=True, is_scan_end=True)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with aclosing(
                self.of(told, checkpoint, CompletionBatch(is_checkpoint=True)).subscribe()
            ) as listening:
                assert await anext(listening) is told
                assert await anext(listening) is checkpoint
                assert loop.time() == HANDOVER_SECONDS
                await anext(listening)
                assert loop.time() == HANDOVER_SECONDS

        virtual_time.run(main())

    def test_ends_when_nobody_listens_and_begins_again_in_a_context_of_its_own(self) -> None:
        closed: list[str] = []

        async def main() -> None:
            CALLER.set("the first trigger")
            broadcast = self.of(CompletionBatch(), closed=closed)
            for number in (1, 2):
                async with aclosing(broadcast.subscribe()) as listening:
                    await anext(listening)
                await asyncio.sleep(1)
                assert closed == ["nobody"] * number

        virtual_time.run(main())


CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("caller")
