from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from planasonix_provider import clock, state_store
from planasonix_provider.api.models import BackfillBody, SyncBody
from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers import cursor_store
from planasonix_provider.triggers.events import HAS_WATCHERS
from planasonix_provider.triggers.planasonix import PlanasonixEventTrigger
from planasonix_provider.waiting.attempt import ATTEMPT_KEY
from planasonix_provider.watchers.completion_stream import MAX_NOT_FOUND_SECONDS, RETRY_AFTER_REFUSAL_SECONDS
from tests.support.time_travel import BEGAN, TravelledClock, simulated_time
from tests.support.triggerer import HAS_SHARED_STREAMS, Store, Triggerer

CONNECTION = "conn_demo_01"
OTHER = "conn_demo_02"
#: The default interval, in seconds.
INTERVAL = 30
PATH = "planasonix_provider.triggers.events.PlanasonixEventTrigger"

watchers = pytest.mark.skipif(not HAS_WATCHERS, reason="Airflow 2 has no watchers")


@pytest.fixture
def travel(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[TravelledClock]:
    with simulated_time() as travel:
        monkeypatch.setattr(cursor_store, "shielded", travel.stop_during(cursor_store.shielded))
        yield travel


class Airflow:
    """Consecutive triggerers on one database."""

    def __init__(self, store: Store, *, has_shared_streams: bool) -> None:
        self.store = store
        self.has_shared_streams = has_shared_streams

    def triggerer(self, *triggers: PlanasonixEventTrigger, assets: tuple[str, ...] = ("asset",)) -> Triggerer:
        triggerer = Triggerer(self.store, has_shared_streams=self.has_shared_streams)
        triggerer.watch(*triggers, assets=assets)
        return triggerer

    @asynccontextmanager
    async def watching(
        self, *triggers: PlanasonixEventTrigger, assets: tuple[str, ...] = ("asset",)
    ) -> AsyncIterator[Triggerer]:
        """Run triggers in a triggerer that is killed at the end of the block."""
        triggerer = self.triggerer(*triggers, assets=assets)
        yield triggerer
        await triggerer.kill()

    async def watch_for(self, seconds: float, *triggers: PlanasonixEventTrigger, **options: Any) -> None:
        async with self.watching(*triggers, **options):
            await asyncio.sleep(seconds)

    @property
    def received(self) -> list[str]:
        """The ids that the one asset has received, in order."""
        return [payload.get("job_id") or payload["backfill_id"] for _, payload in self.store.received]

    def count_log_lines(self, text: str) -> int:
        """Return how many log lines of the triggers contain a text."""
        return sum(text in line for line in self.store.log.lines)


@pytest.fixture(params=["shared stream", "run"] if HAS_SHARED_STREAMS else ["run"])
def airflow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, travel: TravelledClock) -> Airflow:
    store = Store()
    monkeypatch.setattr(state_store, "variable_class", lambda: store)
    return Airflow(store, has_shared_streams=request.param == "shared stream")


def requests(simulator: Simulator, *routes: str) -> int:
    return sum(not routes or request.route in routes for request in simulator.requests)


def sync(simulator: Simulator, metadata: dict[str, Any] | None = None, connection_id: str = CONNECTION) -> str:
    """Start a sync and return its id."""
    return simulator.workspace.start_sync(connection_id, SyncBody(metadata=metadata)).id


def count_log_records(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


@watchers
class TestAWatcher:
    def test_sends_one_event_per_job(self, simulator: Simulator, airflow: Airflow) -> None:
        simulator.plan(CONNECTION, outcome="failed", code="disk_full", message="No room.", running_seconds=100)
        simulator.plan(CONNECTION, running_seconds=100)

        async def main() -> None:
            async with airflow.watching(PlanasonixEventTrigger(events=["job.succeeded", "job.failed"])):
                await asyncio.sleep(INTERVAL)
                simulator.workspace.start_sync(CONNECTION, SyncBody(pipeline_id="pl_1"))
                await asyncio.sleep(200)
                sync(simulator)
                await asyncio.sleep(1000)

        clock.run(main())
        second, first = simulator.jobs()
        assert airflow.received == [first.id, second.id]
        _, payload = airflow.store.received[0]
        assert payload == {
            "event": "job.failed",
            "type": "connection_sync",
            "job_id": first.id,
            "connection_id": CONNECTION,
            "pipeline_id": "pl_1",
            "status": "failed",
            "created_at": "2025-03-27T14:22:40Z",
            "finished_at": "2025-03-27T14:24:20.020000Z",
            "window": {"start_at": "2025-03-27T14:22:40.020000Z", "end_at": "2025-03-27T14:24:20.020000Z"},
            "error": {"code": "disk_full", "message": "No room."},
            "metrics": payload["metrics"],
            "metadata": None,
            "job_url": f"{simulator.url}/jobs/{first.id}",
        }
        assert payload["metrics"]["rows_loaded"] == 22401

    def test_that_is_new_reports_running_work_but_no_past_work(
        self, simulator: Simulator, airflow: Airflow, travel: TravelledClock
    ) -> None:
        simulator.plan(CONNECTION, running_seconds=10)
        sync(simulator)
        simulator.plan(OTHER, running_seconds=20_000)
        running = simulator.workspace.start_sync(OTHER)
        travel.sleep(7_200)

        async def main() -> None:
            async with airflow.watching(PlanasonixEventTrigger(poll_interval=600)):
                await asyncio.sleep(20_000)

        clock.run(main())
        assert airflow.received == [running.id]

    @pytest.mark.slow("simulates hours of polls")
    def test_reports_jobs_that_ended_while_no_triggerer_ran(
        self, simulator: Simulator, airflow: Airflow, travel: TravelledClock
    ) -> None:
        simulator.plan(CONNECTION, times=None, running_seconds=1_000)
        simulator.workspace.configure(conflict="allowed")

        async def main() -> list[str]:
            async with airflow.watching(PlanasonixEventTrigger()):
                await asyncio.sleep(INTERVAL)
                jobs = [sync(simulator)]
                await asyncio.sleep(2 * INTERVAL)
            for _ in range(150):
                jobs.append(sync(simulator))
                await asyncio.sleep(700)
            async with airflow.watching(PlanasonixEventTrigger()):
                await asyncio.sleep(2_000)
            return jobs

        jobs = clock.run(main())
        assert airflow.store.ids() == dict.fromkeys(jobs, 1)

    def test_repeats_events_that_were_not_stored(self, simulator: Simulator, airflow: Airflow) -> None:
        async def main() -> str:
            async with airflow.watching(PlanasonixEventTrigger()) as triggerer:
                await asyncio.sleep(INTERVAL)
                job = sync(simulator)
                while not triggerer.has_something_to_store:  # noqa: ASYNC110 - there is no event to wait for
                    await asyncio.sleep(0.1)
                # A cursor that is saved now is saved before its events.
                await asyncio.sleep(0.5)
            assert airflow.received == []
            await airflow.watch_for(100, PlanasonixEventTrigger())
            return job

        job = clock.run(main())
        assert airflow.received == [job]

    def test_reports_a_backfill_and_not_its_jobs(self, simulator: Simulator, airflow: Airflow) -> None:
        simulator.plan_backfill(CONNECTION, queued_seconds=60, jobs=5, job_seconds=200)

        async def main() -> None:
            async with airflow.watching(PlanasonixEventTrigger()):
                await asyncio.sleep(INTERVAL)
                simulator.workspace.start_backfill(
                    CONNECTION, BackfillBody(start_at=datetime(2025, 1, 1, tzinfo=UTC), end_at=BEGAN)
                )
                await asyncio.sleep(3_000)

        clock.run(main())
        (backfill,) = simulator.backfills()
        assert airflow.received == [backfill.id]
        _, payload = airflow.store.received[0]
        assert payload["event"] == "backfill.completed"
        assert payload["job_url"] is None

    def test_sends_events_to_each_of_its_assets_and_saves_its_cursor_with_each(
        self, simulator: Simulator, airflow: Airflow
    ) -> None:
        async def main() -> None:
            async with airflow.watching(PlanasonixEventTrigger(), assets=("one", "two")):
                await asyncio.sleep(INTERVAL)
                sync(simulator)
                await asyncio.sleep(100)
            if airflow.has_shared_streams:
                # One asset was deleted, or is not known in time.
                del airflow.store.values[min(airflow.store.values)]
            simulator.workspace.start_sync(OTHER)
            await asyncio.sleep(INTERVAL)
            async with airflow.watching(PlanasonixEventTrigger(), assets=("one", "two")):
                await asyncio.sleep(100)

        clock.run(main())
        expected = {job.id: 1 for job in simulator.jobs()}
        assert len(expected) == 2
        assert airflow.store.ids("one") == airflow.store.ids("two") == expected

    def test_with_the_name_of_its_asset_loses_no_event_while_its_dags_are_paused(
        self, simulator: Simulator, airflow: Airflow
    ) -> None:
        watchers = {name: PlanasonixEventTrigger(asset=name) for name in ("one", "other")}
        assert len({trigger.hash(*trigger.serialize()) for trigger in watchers.values()}) == 2

        async def watch(*names: str) -> None:
            async with airflow.watching() as triggerer:
                for name in names:
                    triggerer.watch(watchers[name], assets=(name,))
                await asyncio.sleep(100)

        async def main() -> list[str]:
            await watch("one", "other")
            job = sync(simulator)
            await watch("one")
            assert airflow.store.ids("one") == {job: 1}
            assert airflow.store.ids("other") == {}
            await watch("one", "other")
            return [job]

        jobs = clock.run(main())
        assert airflow.store.ids("one") == airflow.store.ids("other") == dict.fromkeys(jobs, 1)
        assert airflow.count_log_lines("equal watchers") == 0

    def test_of_two_assets_logs_a_warning_with_their_names(self, airflow: Airflow) -> None:
        async def main() -> None:
            await airflow.watch_for(100, PlanasonixEventTrigger(), assets=("two", "one"))

        clock.run(main())
        # Before Airflow 3.3, a trigger does not know its assets.
        assert (
            airflow.count_log_lines("The assets 'one', 'two' have equal watchers. Airflow")
            == airflow.has_shared_streams
        )

    @pytest.mark.parametrize(
        ("before", "after"), [({"poll_interval": 30}, {"poll_interval": 20}), ({}, {"asset": "asset"})]
    )
    def test_keeps_its_cursor_if_an_argument_is_changed(
        self, simulator: Simulator, airflow: Airflow, before: dict[str, Any], after: dict[str, Any]
    ) -> None:
        if "asset" in after and not airflow.has_shared_streams:
            pytest.skip("before Airflow 3.3, the name of the asset is part of the variable's name")

        async def main() -> str:
            await airflow.watch_for(100, PlanasonixEventTrigger(**before))
            job = sync(simulator)
            await asyncio.sleep(100)
            await airflow.watch_for(100, PlanasonixEventTrigger(**after))
            return job

        job = clock.run(main())
        assert airflow.received == [job]

    def test_with_ignore_own_skips_jobs_of_operators(self, simulator: Simulator, airflow: Airflow) -> None:
        simulator.workspace.configure(show_metadata=True, conflict="allowed")
        own = {"dag_id": "react", "run_id": "asset_triggered__2025", ATTEMPT_KEY: "a1"}
        others = {"dag_id": "load", "run_id": "asset_triggered__2025", ATTEMPT_KEY: "a2"}

        async def main() -> list[str]:
            async with airflow.watching(PlanasonixEventTrigger(ignore_own="react")) as triggerer:
                triggerer.watch(PlanasonixEventTrigger(ignore_own=True), assets=("none of any DAG",))
                await asyncio.sleep(INTERVAL)
                jobs = [sync(simulator, m) for m in (own, others, None)]
                await asyncio.sleep(100)
            return jobs

        jobs = clock.run(main())
        assert airflow.store.ids() == dict.fromkeys(jobs[1:], 1)
        assert airflow.store.ids("none of any DAG") == {jobs[2]: 1}
        assert airflow.count_log_lines("ignore_own='load' ends that") == 1
        assert airflow.count_log_lines("has shown no metadata") == 0

    def test_warns_once_if_the_api_shows_no_metadata(self, simulator: Simulator, airflow: Airflow) -> None:
        async def main() -> None:
            async with airflow.watching(PlanasonixEventTrigger(ignore_own=True)) as triggerer:
                triggerer.watch(PlanasonixEventTrigger(metadata={"team": "sales"}), assets=("sales",))
                for connection_id in (CONNECTION, OTHER):
                    await asyncio.sleep(3 * INTERVAL)
                    sync(simulator, {"team": "sales", ATTEMPT_KEY: "a1"}, connection_id)
                await asyncio.sleep(100)

        clock.run(main())
        second, first = simulator.jobs()
        # The second was created after the first event, so a DAG may have started it in response.
        assert airflow.received == [first.id]
        assert airflow.store.ids("sales") == {}
        # Once for each of the two watchers.
        assert airflow.count_log_lines("has shown no metadata") == 2
        assert airflow.count_log_lines(f"Job {second.id} has ended (job.succeeded), and starts no DAG") == 1
        assert airflow.count_log_lines("starts no DAG") == 1

    def test_starts_no_endless_loop_if_the_api_shows_no_metadata(self, simulator: Simulator, airflow: Airflow) -> None:
        simulator.workspace.configure(conflict="allowed")

        async def main() -> None:
            trigger = {"connection_id": CONNECTION, "ignore_own": "react"}
            triggerer = airflow.triggerer(PlanasonixEventTrigger(**trigger))
            await asyncio.sleep(INTERVAL)
            sync(simulator)
            reactions = restarts = 0
            for _ in range(200):
                await asyncio.sleep(10)
                if airflow.received and not restarts:
                    # The DAG's first sync runs when the triggerer is restarted.
                    restarts += 1
                    sync(simulator, {"dag_id": "react", ATTEMPT_KEY: "a0"})
                    reactions += 1
                    await asyncio.sleep(10)
                    await triggerer.kill()
                    triggerer = airflow.triggerer(PlanasonixEventTrigger(**trigger))
                # The DAG syncs the connection that it watches.
                while reactions < len(airflow.received):
                    reactions += 1
                    sync(simulator, {"dag_id": "react", ATTEMPT_KEY: f"a{reactions}"})
            await triggerer.kill()

        clock.run(main())
        own, others = simulator.jobs()
        assert airflow.received == [others.id]
        assert airflow.count_log_lines(f"Job {own.id} has ended (job.succeeded), and starts no DAG") == 1

    def test_that_has_seen_metadata_reports_jobs_without_metadata(self, simulator: Simulator, airflow: Airflow) -> None:
        simulator.workspace.configure(show_metadata=True, conflict="allowed")
        trigger = {"ignore_own": "react"}

        async def main() -> list[str]:
            async with airflow.watching(PlanasonixEventTrigger(**trigger)):
                await asyncio.sleep(INTERVAL)
                jobs = [sync(simulator)]
                await asyncio.sleep(100)
                # The DAG's own job shows that there is metadata.
                sync(simulator, {"dag_id": "react", ATTEMPT_KEY: "a1"})
                await asyncio.sleep(100)
            async with airflow.watching(PlanasonixEventTrigger(**trigger)):
                for _ in range(2):
                    await asyncio.sleep(100)
                    jobs.append(sync(simulator))
                await asyncio.sleep(100)
            return jobs

        jobs = clock.run(main())
        assert airflow.received == jobs
        assert airflow.count_log_lines("starts no DAG") == 0

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (lambda cursor: {**cursor, "version": 2}, "its version is 2, and not 1"),
            (lambda cursor: {"version": 1}, "Input should be a valid dictionary"),
            (lambda cursor: {**cursor, "job": {**cursor["job"], "reported": 7}}, "reported: "),
            (lambda cursor: "planasonix", "it is no object"),
        ],
    )
    def test_with_a_damaged_cursor_warns_and_rescans(
        self, simulator: Simulator, airflow: Airflow, damage: Callable[[Any], Any], reason: str
    ) -> None:
        simulator.plan(OTHER, running_seconds=20_000)

        async def main() -> list[str]:
            jobs = [simulator.workspace.start_sync(OTHER).id]
            async with airflow.watching(PlanasonixEventTrigger(poll_interval=600)):
                await asyncio.sleep(7_200)
            ((place, text),) = airflow.store.values.items()
            airflow.store.values[place] = json.dumps(damage(json.loads(text)))
            jobs.append(sync(simulator))
            await asyncio.sleep(600)
            async with airflow.watching(PlanasonixEventTrigger(poll_interval=600)):
                await asyncio.sleep(20_000)
            return jobs

        long, short = clock.run(main())
        assert airflow.received == [short, long]
        assert airflow.count_log_lines(reason) == 1
        assert airflow.count_log_lines("cannot be read") == 1

    def test_waits_until_its_cursor_can_be_read(self, simulator: Simulator, airflow: Airflow) -> None:
        async def main() -> str:
            await airflow.watch_for(100, PlanasonixEventTrigger())
            job = sync(simulator)
            await asyncio.sleep(100)
            airflow.store.error = RuntimeError("the database is away")
            async with airflow.watching(PlanasonixEventTrigger()):
                await asyncio.sleep(60)
                assert airflow.received == []
                airflow.store.error = None
                await asyncio.sleep(60)
            return job

        job = clock.run(main())
        assert airflow.received == [job]
        assert airflow.count_log_lines("the database is away") == 1

    def test_does_not_delay_others_while_its_cursor_cannot_be_read(
        self, simulator: Simulator, airflow: Airflow
    ) -> None:
        simulator.plan(CONNECTION, times=None, running_seconds=5)

        async def main() -> None:
            airflow.store.broken_assets.add("broken")
            async with airflow.watching(PlanasonixEventTrigger()) as triggerer:
                triggerer.watch(PlanasonixEventTrigger(connection_id=OTHER), assets=["broken"])
                await asyncio.sleep(100)
                jobs = []
                for _ in range(3):
                    jobs.append(sync(simulator))
                    await asyncio.sleep(60)
                received = list(airflow.received)
            assert received == jobs

        clock.run(main())
        if airflow.has_shared_streams:
            assert airflow.count_log_lines("the state of broken is away") == 1

    def test_continues_if_its_cursor_cannot_be_saved(self, simulator: Simulator, airflow: Airflow) -> None:
        async def main() -> str:
            async with airflow.watching(PlanasonixEventTrigger()):
                await asyncio.sleep(100)
                airflow.store.error = RuntimeError("the database is away")
                job = sync(simulator)
                await asyncio.sleep(100)
                airflow.store.error = None
                await asyncio.sleep(INTERVAL + 1)
            await airflow.watch_for(100, PlanasonixEventTrigger())
            return job

        job = clock.run(main())
        assert airflow.received == [job]
        assert airflow.count_log_lines("cannot be saved yet") == 1


@watchers
class TestTheRequests:
    @pytest.mark.slow("simulates hours of polls")
    def test_of_fifty_idle_watchers_are_one_per_interval(self, simulator: Simulator, airflow: Airflow) -> None:
        async def main() -> int:
            async with airflow.watching() as triggerer:
                for number in range(50):
                    arguments: dict[str, Any] = {"pipeline_id": f"pl_{number}", "poll_interval": 30 + number}
                    triggerer.watch(PlanasonixEventTrigger(**arguments), assets=(f"asset_{number}",))
                await asyncio.sleep(100)
                before = requests(simulator)
                await asyncio.sleep(3_600)
                return requests(simulator) - before

        assert clock.run(main()) == pytest.approx(3_600 / 30, abs=1)
        assert {request.route for request in simulator.requests} == {"list_jobs"}

    @pytest.mark.slow("simulates hours of polls")
    def test_for_backfills_add_one_per_five_minutes(self, simulator: Simulator, airflow: Airflow) -> None:
        async def main() -> None:
            async with airflow.watching(PlanasonixEventTrigger()):
                await asyncio.sleep(3_600)

        clock.run(main())
        assert requests(simulator, "list_jobs") == pytest.approx(3_600 / 30 + 2, abs=1)
        assert requests(simulator, "list_backfills") == pytest.approx(12 + 2, abs=1)

    def test_for_details_are_one_per_job_for_all_watchers(self, simulator: Simulator, airflow: Airflow) -> None:
        async def main() -> None:
            async with airflow.watching() as triggerer:
                for number in range(20):
                    trigger = PlanasonixEventTrigger(events=["job.succeeded"], poll_interval=30 + number)
                    triggerer.watch(trigger, assets=(f"asset_{number}",))
                triggerer.watch(PlanasonixEventTrigger(events=["job.failed"]))
                await asyncio.sleep(50)
                sync(simulator)
                await asyncio.sleep(100)

        clock.run(main())
        assert len(airflow.store.received) == 20
        assert requests(simulator, "get_job") == 1

    @pytest.mark.slow("simulates hours of polls")
    def test_for_one_long_job_among_many_short_ones_stay_few(
        self, simulator: Simulator, airflow: Airflow, travel: TravelledClock
    ) -> None:
        simulator.plan(OTHER, running_seconds=30_000)
        simulator.plan(CONNECTION, times=None, running_seconds=60)
        simulator.workspace.configure(conflict="allowed")

        async def main() -> tuple[str, int]:
            long = simulator.workspace.start_sync(OTHER).id
            async with airflow.watching(PlanasonixEventTrigger(poll_interval=60)):
                await asyncio.sleep(60)
                for _ in range(300):
                    sync(simulator)
                    await asyncio.sleep(60)
                before = requests(simulator)
                await asyncio.sleep(6_000)
                idle = requests(simulator) - before
                await asyncio.sleep(10_000)
            return long, idle

        long, idle = clock.run(main())
        assert airflow.received[-1] == long
        assert airflow.store.ids() == {job.id: 1 for job in simulator.jobs()}
        # One scan per interval, one of the backfills per five minutes, and a poll of the job per 1 % of its age.
        assert idle <= 100 + 6_000 / 300 + 6_000 / 180 + 2
        assert len(max(airflow.store.values.values(), key=len)) < 20_000


@watchers
class TestAnOutage:
    @pytest.mark.slow("simulates hours of polls")
    def test_of_any_length_loses_no_event_and_logs_few_lines(
        self, simulator: Simulator, airflow: Airflow, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            async with airflow.watching(PlanasonixEventTrigger()):
                await asyncio.sleep(100)
                simulator.fail("status", status=503, times=None)
                sync(simulator)
                await asyncio.sleep(3 * 3_600)
                simulator.faults.clear()
                await asyncio.sleep(100)

        clock.run(main())
        assert airflow.received == [simulator.jobs()[0].id]
        assert count_log_records(caplog, "The lists of Planasonix cannot be read") == 18
        assert count_log_records(caplog, "Planasonix answers again, after 3 h 0 min.") == 1

    @pytest.mark.slow("simulates hours of polls")
    @pytest.mark.parametrize("status", [401, 403, 404])
    def test_that_a_person_must_fix_is_retried_once_a_minute(
        self, simulator: Simulator, airflow: Airflow, status: int
    ) -> None:
        async def main() -> int:
            async with airflow.watching(PlanasonixEventTrigger(poll_interval=1, events=["job.succeeded"])):
                await asyncio.sleep(100)
                simulator.fail("status", status=status, times=None, route="list_jobs")
                sync(simulator)
                before = requests(simulator)
                await asyncio.sleep(3_600)
                meanwhile = requests(simulator) - before
                simulator.faults.clear()
                await asyncio.sleep(RETRY_AFTER_REFUSAL_SECONDS + 10)
            return meanwhile

        assert clock.run(main()) <= 3_600 / RETRY_AFTER_REFUSAL_SECONDS + 1
        assert airflow.received == [simulator.jobs()[0].id]

    def test_with_the_rate_limit_waits_for_retry_after(self, simulator: Simulator, airflow: Airflow) -> None:
        async def main() -> int:
            async with airflow.watching(PlanasonixEventTrigger()):
                await asyncio.sleep(100)
                simulator.fail("status", status=429, headers={"Retry-After": "300"})
                sync(simulator)
                before = requests(simulator)
                await asyncio.sleep(290)
                silent = requests(simulator) - before
                await asyncio.sleep(100)
            return silent

        assert clock.run(main()) == 1
        assert airflow.received == [simulator.jobs()[0].id]

    @pytest.mark.slow("simulates hours of polls")
    def test_with_a_missing_airflow_connection_ends_when_it_is_added(
        self, simulator: Simulator, airflow: Airflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        simulator.plan(CONNECTION, running_seconds=3_600)

        async def main() -> None:
            sync(simulator)
            trigger = PlanasonixEventTrigger(planasonix_conn_id="planasonix_later")
            async with airflow.watching(trigger):
                await asyncio.sleep(1_000)
                monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_LATER", json.dumps(simulator.airflow_connection()))
                await asyncio.sleep(4_000)

        clock.run(main())
        assert airflow.received == [simulator.jobs()[0].id]
        assert count_log_records(caplog, "There is no Airflow connection 'planasonix_later'") == 2

    def test_of_a_job_that_is_not_found_is_logged_and_ends(
        self, simulator: Simulator, airflow: Airflow, caplog: pytest.LogCaptureFixture
    ) -> None:
        simulator.plan(CONNECTION, running_seconds=10 * MAX_NOT_FOUND_SECONDS)

        async def main() -> None:
            job = sync(simulator)
            async with airflow.watching(PlanasonixEventTrigger(poll_interval=300)):
                await asyncio.sleep(400)
                simulator.reset()
                await asyncio.sleep(2 * MAX_NOT_FOUND_SECONDS)
                assert (
                    count_log_records(caplog, f"Job {job} was not found for 1 h 0 min, so its end is not reported.")
                    == 1
                )
                before = requests(simulator, "get_job")
                await asyncio.sleep(MAX_NOT_FOUND_SECONDS)
                assert requests(simulator, "get_job") == before

        clock.run(main())


@watchers
class TestTheArguments:
    def test_survive_json(self) -> None:
        trigger = PlanasonixEventTrigger(
            connection_id="conn_1",
            pipeline_id="pl_1",
            events={"job.failed", "job.cancelled"},
            types=["pipeline_run", "connection_sync", "pipeline_run"],
            metadata={"team": "sales", "level": [1, {"a": None}]},
            ignore_own=["react", "load"],
            planasonix_conn_id="planasonix_eu",
            poll_interval=12,
            asset="orders_loaded",
        )
        path, arguments = trigger.serialize()
        assert path == PATH
        assert arguments == {
            "connection_id": "conn_1",
            "pipeline_id": "pl_1",
            "events": ["job.cancelled", "job.failed"],
            "types": ["connection_sync", "pipeline_run"],
            "metadata": '{"level": [1, {"a": null}], "team": "sales"}',
            "ignore_own": ["load", "react"],
            "planasonix_conn_id": "planasonix_eu",
            "poll_interval": 12.0,
            "asset": "orders_loaded",
        }
        again = PlanasonixEventTrigger(**json.loads(json.dumps(arguments)))
        assert again.serialize() == trigger.serialize()
        assert again.event_filter == trigger.event_filter

    def test_make_equal_triggers_in_any_order(self) -> None:
        one = PlanasonixEventTrigger(events=["job.failed", "job.succeeded"], metadata={"a": 1, "b": 2}, ignore_own="x")
        two = PlanasonixEventTrigger(
            events=("job.succeeded", "job.failed"), metadata={"b": 2, "a": 1}, ignore_own=["x"]
        )
        assert json.dumps(one.serialize()) == json.dumps(two.serialize())
        assert one.hash(*one.serialize()) == two.hash(*two.serialize())

    def test_make_equal_triggers_in_the_database(self) -> None:
        from airflow.models.trigger import Trigger

        try:
            from airflow.serialization.encoders import encode_trigger
        except ImportError:
            from airflow.serialization.serialized_objects import _encode_trigger as encode_trigger
        trigger = PlanasonixEventTrigger(metadata={"team": "sales"}, ignore_own=["react"])
        encoded = encode_trigger(encode_trigger(trigger))
        row = Trigger(classpath=encoded["classpath"], kwargs=encoded["kwargs"])
        assert trigger.hash(encoded["classpath"], encoded["kwargs"]) == trigger.hash(row.classpath, row.kwargs)
        assert PlanasonixEventTrigger(**row.kwargs).serialize() == trigger.serialize()

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"connection_id": "conn 1"}, "connection_id: got 'conn 1', allowed is an id"),
            (
                {"connection_id": "{{ var.value.x }}"},
                "what is known when the DAG is parsed: a watcher has no templates",
            ),
            ({"pipeline_id": ""}, "pipeline_id: got '', allowed is an id"),
            ({"events": "job.failed"}, "events: got 'job.failed', allowed is a list of events"),
            ({"events": []}, r"events: got \[\], allowed is a list of events"),
            ({"types": "backfill"}, "types: got 'backfill', allowed is a list of texts that are not empty"),
            ({"types": [7]}, r"types: got \[7\], allowed is a list of texts"),
            ({"metadata": {}}, "metadata: got {}, allowed is a mapping that is not empty, or a JSON object as text"),
            ({"metadata": "[1]"}, r"metadata: got '\[1\]', allowed is a mapping"),
            ({"metadata": {"a": object}}, "metadata: got .*, allowed is what JSON can hold"),
            ({"ignore_own": None}, "ignore_own: got None, allowed is True, False, the id of a DAG, or a list of such"),
            ({"ignore_own": [True]}, r"ignore_own: got \[True\], allowed is True"),
            ({"planasonix_conn_id": ""}, "planasonix_conn_id: got '', allowed is a text that is not empty"),
            ({"asset": " "}, "asset: got ' ', allowed is a text that is not empty"),
            ({"asset": "{{ params.x }}"}, "asset: got '{{ params.x }}', allowed is what is known when the DAG is"),
            ({"poll_interval": 0}, "poll_interval: got 0, allowed is a number of seconds above 0"),
        ],
    )
    def test_that_are_invalid_raise_an_error_with_their_name(self, wrong: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            PlanasonixEventTrigger(**wrong)

    def test_with_an_unknown_event_log_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        PlanasonixEventTrigger(events=["job.succeeded", "job.suceeded"])
        (record,) = caplog.records
        assert (
            "does not know job.suceeded, which may never come. Check the spelling; known are backfill.cancelled"
            in record.message
        )

    def test_that_are_equal_log_a_warning_unless_they_have_a_name(self, caplog: pytest.LogCaptureFixture) -> None:
        wanted: dict[str, Any] = {"connection_id": "conn_7", "events": ["job.failed"]}
        first = [PlanasonixEventTrigger(**wanted, asset=name) for name in ("one", "two")]
        first += [PlanasonixEventTrigger(**wanted), PlanasonixEventTrigger(**wanted, pipeline_id="pl_1")]
        assert not caplog.records
        second = PlanasonixEventTrigger(**wanted)
        assert second not in first
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert "Two watchers are equal, which is fine only if they are of one asset (connection_id='conn_7'" in (
            record.getMessage()
        )
        assert "Give each PlanasonixEventTrigger the name of its asset" in record.getMessage()

    def test_contain_no_secret(self, simulator: Simulator) -> None:
        assert simulator.api_key not in json.dumps(PlanasonixEventTrigger().serialize())


@pytest.mark.skipif(HAS_WATCHERS, reason="this Airflow has watchers")
def test_airflow_2_is_an_error_with_the_required_version() -> None:
    with pytest.raises(
        AirflowException, match=r"needs the asset watchers of Airflow 3\.0 or later; this is Airflow 2\."
    ):
        PlanasonixEventTrigger(connection_id=CONNECTION)
    assert version("apache-airflow").startswith("2.")
