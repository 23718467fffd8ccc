from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from planasonix_provider import metrics
from planasonix_provider.api.errors import PlanasonixPermissionError, PlanasonixServerError
from planasonix_provider.testing.travelled_clock import TravelledClock
from planasonix_provider.watchers.completion_stream import (
    MAX_BACKFILL_INTERVAL_SECONDS,
    MAX_POLL_INTERVAL_SECONDS,
    RETRY_AFTER_REFUSAL_SECONDS,
    CompletionBatch,
    CompletionStream,
)
from planasonix_provider.watchers.cursor import MAX_LISTING_DELAY
from planasonix_provider.watchers.event_filter import EventFilter
from planasonix_provider.watchers.list_scan import MAX_PASSES
from planasonix_provider.watchers.subscribers import REGISTRIES, Subscriber, SubscriberRegistry
from tests.support.job_history import BEGAN, NO_TIME, History, Life
from tests.support.statsd import StatsdServer

JOBS = EventFilter(frozenset({"job.succeeded", "job.failed"}))
BACKFILLS = EventFilter(frozenset({"backfill.completed"}))
BOTH = EventFilter(JOBS.events | BACKFILLS.events)
HOUR = timedelta(hours=1)


def backfill(name: str, created: float, ends: float) -> Life:
    return Life(name, created, ends, outcome="completed")


def steady_jobs(number: int, spacing: float = 100, length: float = 50) -> list[Life]:
    """Return jobs that start one after the other."""
    return [Life(f"job_{n}", spacing * n, spacing * n + length) for n in range(1, number)]


def ids(lives: list[Life]) -> set[str]:
    return {life.id for life in lives}


def is_item(request: Any, job_id: str) -> bool:
    return bool(request.ids == {"job_id": job_id})


class Recorder:
    """A subscriber that records when each job or backfill is reported, and how often."""

    def __init__(self, event_filter: EventFilter = JOBS, interval: float = 30.0, subscribes_at: float = 0.0) -> None:
        self.subscriber = Subscriber(event_filter, interval)
        self.subscribes_at = subscribes_at
        self.times: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    def record(self, batch: CompletionBatch, time: float) -> None:
        payloads = batch.by_subscriber.get(self.subscriber, ())
        work_ids = [payload.get("job_id") or payload["backfill_id"] for payload in payloads]
        self.times |= dict.fromkeys(work_ids, time)
        self.counts.update(work_ids)

    async def subscribe(self, registry: SubscriberRegistry) -> None:
        await asyncio.sleep(self.subscribes_at)
        with registry.subscribed(self.subscriber):
            await asyncio.Event().wait()


def stream(history: History, registry: SubscriberRegistry) -> Any:
    client: Any = history
    return aclosing(CompletionStream(client, registry, "https://{}".format, history.now).batches())


def run(history: History, *recorders: Recorder, seconds: float) -> None:
    """Consume the stream for a number of seconds."""

    async def main() -> None:
        registry = SubscriberRegistry()
        subscribing = [asyncio.ensure_future(recorder.subscribe(registry)) for recorder in recorders]
        async with stream(history, registry) as batches:
            try:
                async with asyncio.timeout(seconds):
                    async for batch in batches:
                        for recorder in recorders:
                            recorder.record(batch, history.time)
                        batch.acknowledged.set()
            except TimeoutError:
                pass
        for task in subscribing:
            task.cancel()
        await asyncio.gather(*subscribing, return_exceptions=True)

    TravelledClock().run(main())


class TestIntervals:
    def test_an_end_is_reported_within_an_interval(self) -> None:
        run(History([Life("job_1", 10, 100)]), recorder := Recorder(), seconds=1_000)
        assert recorder.times == {"job_1": pytest.approx(120, abs=1)}

    def test_the_shortest_interval_counts(self) -> None:
        history = History()
        run(history, *(Recorder(interval=interval) for interval in (10, 100, 1_000)), seconds=1_000)
        assert history.requests["/jobs"] == pytest.approx(100, abs=1)

    def test_new_subscribers_start_a_scan_at_once_but_not_one_each(self) -> None:
        history = History()
        later = [Recorder(interval=3_000, subscribes_at=100 + number / 100) for number in range(20)]
        recorders = [Recorder(interval=3_000), *later]
        run(history, *recorders, seconds=200)
        # One scan for the first, one for the others, and one for those that subscribed during that scan.
        assert history.requests["/jobs"] == 3
        assert all(recorder.subscriber.needs_save for recorder in recorders)

    def test_no_request_is_sent_without_subscribers(self) -> None:
        history = History()
        run(history, Recorder(subscribes_at=900), seconds=1_000)
        assert history.requests["/jobs"] == 4


@pytest.mark.parametrize(("other", "requested"), [("conn_1", "conn_1"), ("conn_2", None)])
def test_the_list_is_filtered_by_connection_if_all_filters_name_the_same(other: str, requested: str | None) -> None:
    jobs = [Life(f"job_{n}", 10, 20, fields={"connection_id": f"conn_{n}"}) for n in (1, 2)]
    seen: set[Any] = set()
    history = History(jobs, on_request=lambda request: seen.add(request.query.get("connection_id")))
    recorders = [Recorder(EventFilter(JOBS.events, connection_id=connection)) for connection in ("conn_1", other)]
    run(history, *recorders, seconds=200)
    assert seen == {requested, None}
    assert [list(recorder.times) for recorder in recorders] == [["job_1"], ["job_1" if requested else "job_2"]]


class TestUnreadableRows:
    def test_hide_no_other_work_and_are_requested_one_by_one(self) -> None:
        recorder, late = Recorder(), Recorder(interval=60, subscribes_at=230)
        lives = [Life(f"job_{number}", 10 * number, 100 + 10 * number) for number in range(30)]
        history = History(lives, unreadable={"job_3", "job_7"})
        run(history, recorder, late, seconds=3_000)
        assert recorder.times.keys() == ids(lives)
        readable = [life for life in lives if life.id not in history.unreadable]
        assert all(recorder.times[life.id] == pytest.approx(life.ends, abs=31) for life in readable)
        assert recorder.times["job_3"] < 130 + MAX_POLL_INTERVAL_SECONDS + 31
        # The job had ended before this recorder subscribed.
        assert "job_7" not in late.times
        assert history.requests["/jobs/{job_id}"] < 100

    def test_of_jobs_that_stay_unreadable_do_not_hide_the_backfills(self) -> None:
        lives = [Life(f"job_{number}", 10 * number, 100 + 10 * number) for number in range(60)]
        history = History(lives, [backfill("bf_1", 5, 300)], unreadable=ids(lives), is_unreadable_alone=True)
        run(history, recorder := Recorder(BOTH), seconds=3_000)
        assert recorder.times.keys() == {"bf_1"}
        assert history.requests["/jobs"] == pytest.approx(100, abs=1)
        assert history.requests["/jobs/{job_id}"] <= 200

    def test_are_all_requested_if_they_are_more_than_a_page(self) -> None:
        lives = [Life(f"job_{number}", 40, 50) for number in range(250)]
        run(History(lives, unreadable=ids(lives)), recorder := Recorder(), seconds=3_000)
        assert recorder.times.keys() == ids(lives)

    def test_that_do_not_match_are_requested_rarely(self) -> None:
        history = History([Life("job_1", 10, 100)], unreadable={"job_1"})
        run(history, recorder := Recorder(EventFilter(frozenset({"job.failed"}))), seconds=3_000)
        assert recorder.times == {}
        assert history.requests["/jobs/{job_id}"] <= 12


class TestANewSubscriber:
    def test_sees_work_that_changes_its_state_between_the_lists(self) -> None:
        # Each response takes 0.02 s, so the change is between the first and the second list.
        history = History(
            [Life("job_1", 1, 5_000)],
            change=lambda work, _: (
                work if work.is_over or history.time > 1_000.03 else work.model_copy(update={"status": "queued"})
            ),
        )
        run(history, recorder := Recorder(subscribes_at=1_000), seconds=6_000)
        assert recorder.times.keys() == {"job_1"}

    @pytest.mark.slow("simulates hours of polls")
    @pytest.mark.parametrize("newest_first", [True, False])
    @pytest.mark.parametrize("pause", [0.005, 0.02, 0.1])
    def test_misses_no_running_job_while_others_end(self, newest_first: bool, pause: float) -> None:
        # Each page takes 0.02 s. When jobs end, later jobs move up to a page that was already read.
        ending = [Life(f"ending_{n}", -1 - n, 0.045 + pause * n) for n in range(60)]
        running = [Life(f"running_{n}", -100 - n, 500 + n) for n in range(350)]
        history = History([*ending, *running], newest_first=newest_first)
        run(history, recorder := Recorder(), seconds=2_000)
        assert ids(running) <= recorder.times.keys()
        # With the shortest pause, jobs end during four passes of 0.08 s, and a fifth finds nothing new. A job that ends
        # exactly between two pages may need one pass more.
        assert history.requests["/jobs queued"] <= 6

    def test_reads_lists_of_a_single_page_once(self) -> None:
        history = History([Life(f"job_{n}", -100 - n, 500) for n in range(100)])
        run(history, Recorder(), seconds=20)
        assert (history.requests["/jobs queued"], history.requests["/jobs running"]) == (1, 1)

    def test_stops_reading_lists_that_never_settle(self, caplog: pytest.LogCaptureFixture) -> None:
        class Unsettled(History):
            def _page(self, lives: list[Life], model: Any, query: dict[str, Any]) -> Any:
                if query.get("status"):
                    # Each response contains other old jobs.
                    lives = [Life(f"job_{self.time:.2f}_{n}", -100 - n, 500) for n in range(101)]
                return super()._page(lives, model, query)

        history = Unsettled()
        run(history, Recorder(), seconds=20)
        assert history.requests["/jobs queued"] == MAX_PASSES
        assert "a new watcher has read them 10 times" in caplog.text

    @pytest.mark.parametrize("event_filter", [JOBS, BOTH])
    def test_continues_after_a_first_scan_that_was_interrupted(self, event_filter: EventFilter) -> None:
        # The first job ends after the list of active jobs, and before the list of all jobs.
        lives = [
            Life("during", -100, 0.045),
            Life("job_1", -100, 500),
            Life("past", -100, -50),
            Life("job_3", 300, 400),
        ]
        history = History(lives)
        first, second = Recorder(event_filter), Recorder(event_filter)

        async def main() -> None:
            registry = SubscriberRegistry()
            with registry.subscribed(first.subscriber):
                async with stream(history, registry) as batches:
                    async for batch in batches:
                        batch.acknowledged.set()
                        if batch.is_checkpoint:
                            # The new cursor is saved before any event is reported.
                            assert first.subscriber.needs_save
                            saved = first.subscriber.to_json()
                            break
            await asyncio.sleep(1_000)
            assert second.subscriber.restore([saved]) is None
            with registry.subscribed(second.subscriber):
                async with stream(history, registry) as batches:
                    async for batch in batches:
                        second.record(batch, history.time)
                        batch.acknowledged.set()
                        if batch.is_scan_end:
                            return

        TravelledClock().run(main())
        assert second.times.keys() == {"during", "job_1", "job_3"}

    @pytest.mark.parametrize("is_wrong", [lambda time: time < 0.03, lambda time: 0.03 < time < 0.05])
    def test_reports_no_past_work_after_one_wrong_date(self, is_wrong: Callable[[float], bool]) -> None:
        past = [Life(f"past_{n}", -60 * n, -60 * n + 30) for n in range(1, 60)]
        history = History(
            [*past, Life("job_1", 100, 200)], dates_ahead=lambda time: -HOUR if is_wrong(time) else NO_TIME
        )
        run(history, recorder := Recorder(), seconds=1_000)
        assert recorder.counts == {"job_1": 1}

    def test_reports_work_that_lists_show_late(self) -> None:
        run(History([Life("job_1", -10, 300, listing_delay=100)]), recorder := Recorder(), seconds=500)
        assert recorder.times.keys() == {"job_1"}


class TestClocks:
    @pytest.mark.parametrize("ahead", [-5 * HOUR, NO_TIME, 5 * HOUR])
    @pytest.mark.parametrize("has_dates", [True, False])
    def test_only_the_clock_of_the_api_counts(self, ahead: timedelta, has_dates: bool) -> None:
        past = [Life(f"past_{number}", -100 - number, -50) for number in range(5)]
        new = [Life("running", -9_000, 500), *steady_jobs(30)]
        run(History([*past, *new], ahead=lambda _: ahead, has_dates=has_dates), recorder := Recorder(), seconds=5_000)
        assert recorder.times.keys() == ids(new)

    @pytest.mark.parametrize("dates_ahead", [timedelta(minutes=-10), timedelta(minutes=10), timedelta(days=1)])
    def test_wrong_dates_of_a_proxy_hide_nothing(self, dates_ahead: timedelta) -> None:
        lives = steady_jobs(30)
        run(History(lives, dates_ahead=lambda _: dates_ahead), recorder := Recorder(), seconds=5_000)
        assert recorder.times.keys() == ids(lives)

    @pytest.mark.parametrize("hours", [-1, 1])
    def test_one_wrong_date_hides_and_repeats_nothing(self, hours: int, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        lives = steady_jobs(50)
        history = History(lives, dates_ahead=lambda time: hours * HOUR if 3_000 <= time < 3_030 else NO_TIME)
        run(history, recorder := Recorder(), seconds=6_000)
        assert recorder.counts == dict.fromkeys(ids(lives), 1)
        assert "was set back" not in caplog.text

    @pytest.mark.parametrize(("set_back_at", "interval"), [(1_000, 30), (1_230, 600)])
    def test_a_clock_that_is_set_back_hides_nothing(
        self, set_back_at: float, interval: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        lives = steady_jobs(100, spacing=40, length=20)
        history = History(lives, ahead=lambda time: NO_TIME if time < set_back_at else -HOUR)
        run(history, recorder := Recorder(interval=interval), seconds=9_000)
        assert recorder.times.keys() == ids(lives)
        assert "The clock of Planasonix was set back" in caplog.text


class TestLists:
    def test_that_are_late_hide_nothing(self) -> None:
        delay = MAX_LISTING_DELAY.total_seconds() - 10
        lives = [Life(f"job_{n}", 40 * n, 40 * n + 1, delay) for n in range(1, 50)]
        run(History(lives), recorder := Recorder(), seconds=5_000)
        assert recorder.times.keys() == ids(lives)

    def test_that_report_an_end_too_early_are_not_trusted(self) -> None:
        history = History(
            [Life("job_1", 10, 500)],
            change=lambda work, is_whole: work if is_whole else work.model_copy(update={"status": "succeeded"}),
        )
        run(history, recorder := Recorder(), seconds=1_000)
        assert recorder.times == {"job_1": pytest.approx(510, abs=10)}

    def test_that_leave_out_the_pipeline_make_no_job_pending_for_long(self) -> None:
        history = History(
            [Life("job_1", -9_000, 99_000)],
            change=lambda work, is_whole: work.model_copy(update={"pipeline_id": "pl_2"}) if is_whole else work,
        )
        recorder = Recorder(EventFilter(JOBS.events, pipeline_id="pl_1"))
        run(history, recorder, seconds=600)
        assert not recorder.subscriber.cursors["job"].pending
        assert history.requests["/jobs/{job_id}"] == 1

    def test_without_dates_report_each_end_once_and_no_past_work(self) -> None:
        history = History(
            backfills=[backfill("past", 1, 10), backfill("bf_1", 900, 1_500), backfill("bf_2", 1_600, 1_610)],
            newest_first=False,
            change=lambda work, _: work.model_copy(update={"created_at": None}),
        )
        run(history, recorder := Recorder(BACKFILLS, subscribes_at=1_000), seconds=6_000)
        assert recorder.counts == {"bf_1": 1, "bf_2": 1}

    def test_are_reported_page_by_page(self) -> None:
        history = History([Life(f"job_{n}", 40, 50) for n in range(450)], newest_first=False)
        run(history, recorder := Recorder(), seconds=100)
        assert len(recorder.times) == 450
        assert len(set(recorder.times.values())) == 5

    def test_are_read_to_the_end_if_a_few_rows_are_sorted_by_chance(self) -> None:
        backfills = [backfill(f"bf_{n}", 50 + n, 60 + n) for n in range(20)]
        old = [backfill(f"old_{n}", -9_000 - n, -8_000) for n in range(40)]
        history = History(backfills=[*old, *backfills], newest_first=False, page_size=2)
        run(history, recorder := Recorder(BACKFILLS), seconds=300)
        assert recorder.times.keys() == ids(backfills)

    @pytest.mark.parametrize(
        "newest_first", [True, pytest.param(False, marks=pytest.mark.slow("reads a thousand backfills at each scan"))]
    )
    def test_of_backfills_are_read_only_to_the_watermark_if_they_are_sorted(self, newest_first: bool) -> None:
        old = [backfill(f"old_{n}", -9_000 - n, -8_000) for n in range(1_000)]
        history = History(backfills=[*old, backfill("bf_1", 50, 400)], newest_first=newest_first)
        run(history, recorder := Recorder(BACKFILLS), seconds=600)
        assert recorder.times == {"bf_1": pytest.approx(420, abs=5)}
        scans = 600 / 30
        assert history.requests["/backfills"] == pytest.approx(scans if newest_first else 11 * scans, abs=11)


class TestCosts:
    def test_backfills_are_scanned_when_a_job_of_one_is_new(self) -> None:
        job = Life("job_1", 1_000, 1_100, fields={"type": "backfill"})
        history = History([job], [backfill("bf_1", 990, 1_110)])
        run(history, recorder := Recorder(BOTH), seconds=2_000)
        assert recorder.times == {"bf_1": pytest.approx(1_125, abs=15)}
        assert history.requests["/backfills"] <= 2_000 / MAX_BACKFILL_INTERVAL_SECONDS + 8

    def test_backfills_without_jobs_are_found_in_time(self) -> None:
        run(History(backfills=[backfill("bf_1", 990, 995)]), recorder := Recorder(BOTH), seconds=2_000)
        assert recorder.times == {"bf_1": pytest.approx(1_100, abs=MAX_BACKFILL_INTERVAL_SECONDS)}

    @pytest.mark.slow("simulates hours of polls")
    def test_a_long_job_is_polled_less_often_with_its_age(self) -> None:
        others = steady_jobs(200, spacing=10, length=5)
        history = History([Life("long", 5, 40_000), *others])
        run(history, recorder := Recorder(interval=60), seconds=41_000)
        assert recorder.times["long"] - 40_000 <= MAX_POLL_INTERVAL_SECONDS + 60
        assert history.requests["/jobs/{job_id}"] - len(others) < 40_000 / MAX_POLL_INTERVAL_SECONDS + 150

    @pytest.mark.slow("simulates hours of polls")
    def test_a_long_job_does_not_make_every_scan_list_all_later_jobs(self) -> None:
        others = [Life(f"job_{n}", 10 * n, 10 * n + 5, fields={"connection_id": "busy"}) for n in range(1, 1_000)]
        history = History([Life("long", 5, 12_000, fields={"connection_id": "quiet"}), *others])
        filters = [EventFilter(JOBS.events, connection_id=connection) for connection in ("quiet", "busy")]
        recorders = [Recorder(event_filter, interval=100) for event_filter in filters]
        run(history, *recorders, seconds=13_000)
        assert [len(recorder.times) for recorder in recorders] == [1, 999]
        # Two pages at first, until the watermark passes the long job.
        assert history.requests["/jobs"] < 1.2 * 13_000 / 100


class TestErrors:
    def test_a_deleted_job_is_reported_as_the_list_showed_it(self) -> None:
        def delete(request: Any) -> None:
            if request.ids and history.time > 500:
                history.deleted = {"job_1"}

        history = History([Life("job_1", 10, 500)], on_request=delete)
        run(history, recorder := Recorder(), seconds=600)
        assert recorder.times.keys() == {"job_1"}

    def test_a_refused_list_of_jobs_does_not_hide_the_backfills(self) -> None:
        def refuse(request: Any) -> None:
            if request.path.endswith("/jobs"):
                raise PlanasonixPermissionError("no", status=403)

        history = History(backfills=[backfill("bf_1", 100, 200)], on_request=refuse)
        run(history, recorder := Recorder(BOTH), seconds=1_000)
        assert recorder.times.keys() == {"bf_1"}

    def test_of_one_job_delay_no_others(self, caplog: pytest.LogCaptureFixture) -> None:
        def fail(request: Any) -> None:
            if is_item(request, "job_7") and history.time < 1_000:
                raise PlanasonixServerError(f"{request}: answered 500.", status=500)

        history = History([Life(f"job_{n}", 40, 50 + n / 10) for n in range(250)], newest_first=False, on_request=fail)
        run(history, recorder := Recorder(), seconds=2_000)
        assert len(recorder.times) == 250
        assert recorder.times.pop("job_7") == pytest.approx(1_020, abs=30)
        assert max(recorder.times.values()) < 120
        assert sum("GET /api/v1/jobs/job_7: answered 500." in record.message for record in caplog.records) == 2
        assert recorder.subscriber.watermark > timedelta(seconds=1_000) + BEGAN

    def test_of_one_job_that_never_end_do_not_hide_other_pages(self) -> None:
        def fail(request: Any) -> None:
            if is_item(request, "broken"):
                raise PlanasonixServerError(f"{request}: answered 500.", status=500)

        # On the first page, the broken job is the only one that has ended, in every scan.
        waiting = [Life(f"waiting_{n}", 50 + n / 2, 10_000) for n in range(150)]
        jobs = [Life("long", 1, 900), *waiting, Life("broken", 150, 700)]
        history = History(jobs, [backfill("bf_1", 10, 800)], on_request=fail)
        run(history, recorder := Recorder(BOTH), seconds=2_000)
        assert recorder.times.keys() == {"long", "bf_1"}

    def test_during_a_scan_end_it_after_a_few_requests(self) -> None:
        def fail(request: Any) -> None:
            if request.ids and 61 <= history.time < 1_000:
                raise PlanasonixServerError("no", status=503)

        history = History([Life(f"job_{n}", 40, 50) for n in range(250)], on_request=fail)
        run(history, recorder := Recorder(), seconds=2_000)
        assert len(recorder.times) == 250
        assert history.requests["/jobs/{job_id}"] < 250 + 10 * 1_000 / 30

    def test_of_the_next_page_do_not_revoke_reported_work(self) -> None:
        def fail(request: Any) -> None:
            if "cursor" in request.query and not history.outages:
                history.outages.append((history.time, history.time + 10))

        history = History([Life(f"job_{n}", 40, 50) for n in range(150)], on_request=fail)
        run(history, recorder := Recorder(), seconds=200)
        assert len(recorder.times) == 150
        assert len(set(recorder.times.values())) > 1

    def test_that_a_person_must_fix_are_retried_once_a_minute(self, caplog: pytest.LogCaptureFixture) -> None:
        history = History(
            [Life("job_1", 20, 30)], outages=[(10, 3_610)], error=lambda: PlanasonixPermissionError("no", status=403)
        )
        run(history, recorder := Recorder(interval=1), seconds=3_800)
        assert recorder.times == {"job_1": pytest.approx(3_640, abs=RETRY_AFTER_REFUSAL_SECONDS)}
        assert history.requests["/jobs"] <= 10 + 60 + 200
        assert sum("The lists of Planasonix cannot be read" in record.message for record in caplog.records) == 6

    def test_caused_by_a_bug_are_logged_and_the_scan_is_repeated(self, caplog: pytest.LogCaptureFixture) -> None:
        def fail(request: Any) -> None:
            if 50 < history.time < 70:
                raise ZeroDivisionError

        history = History([Life("job_1", 20, 30)], on_request=fail)
        run(history, recorder := Recorder(), seconds=300)
        assert recorder.times.keys() == {"job_1"}
        assert "Please report this." in caplog.text


def test_a_registry_is_shared_by_event_loop_and_airflow_connection() -> None:
    async def main() -> list[SubscriberRegistry]:
        return [REGISTRIES.get(conn_id, SubscriberRegistry) for conn_id in ("one", "one", "two")]

    one, same, other = asyncio.run(main())
    again, _, _ = asyncio.run(main())
    assert one is same
    assert one is not other
    assert one is not again


@pytest.mark.parametrize("ahead", [0, 3600])
def test_the_lag_metric_uses_the_clock_of_the_api(statsd: StatsdServer, ahead: int) -> None:
    life = Life("job_1", 100, 205)
    history = History([life], ahead=lambda _: timedelta(seconds=ahead))
    recorder = Recorder(BOTH, interval=30)
    run(history, recorder, seconds=400)
    (sample,) = statsd.named(metrics.WATCHER_LAG)
    assert sample.tags == {"conn_id": "planasonix_default", "kind": "job"}
    assert sample.value / 1000 == pytest.approx(recorder.times[life.id] - 205, abs=1)
