"""Metrics of jobs: each start is counted once, and each end once by each task that sees it, in all modes."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from planasonix_provider import metrics
from planasonix_provider.api.errors import PlanasonixTimeoutError
from planasonix_provider.execution.attempt_store import AttemptStore
from planasonix_provider.operators.planasonix import PlanasonixCancelJobOperator
from planasonix_provider.sensors.planasonix import PlanasonixJobSensor
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting.attempt import AttemptRecord
from tests.support.attempts import Make, die_at, start_theirs, take
from tests.support.scenarios import CONNECTION, backfill, fail_starts, is_asked, killed, meanwhile, sync
from tests.support.statsd import StatsdServer
from tests.support.task_runs import drive

pytestmark = pytest.mark.usefixtures("travel")


@pytest.fixture
def work_tags(make: Make) -> dict[str, str]:
    kind = "backfill" if make is backfill else "job"
    return {"conn_id": "planasonix_default", "connection_id": CONNECTION, "kind": kind}


def test_a_success_is_counted_with_duration_rows_and_delay(
    make: Make, simulator: Simulator, deferrable: bool, statsd: StatsdServer, work_tags: dict[str, str]
) -> None:
    run = drive(lambda: make(deferrable=deferrable))
    assert statsd.totals().keys() == {"started", "succeeded", "rows_loaded"}
    assert statsd.tags(metrics.JOB_STARTED) == [work_tags]
    end = work_tags | {"source": "operator"}
    assert statsd.tags(metrics.JOB_SUCCEEDED) == [end]
    rows = run.result["rows_loaded"] if make is backfill else run.result["metrics"]["rows_loaded"]
    (loaded,) = statsd.named(metrics.JOB_ROWS_LOADED)
    assert (loaded.value, loaded.tags) == (rows, work_tags)
    (duration,) = statsd.named(metrics.JOB_DURATION)
    assert duration.tags == end | {"status": run.result["status"]}
    assert 0 <= duration.value < 60_000
    (delay,) = statsd.named(metrics.JOB_EVENT_DELAY)
    assert delay.tags == end
    assert 0 <= delay.value < 60_000


def test_a_start_whose_id_is_not_stored_is_counted_once(
    make: Make, simulator: Simulator, statsd: StatsdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = AttemptStore.write

    def write(store: AttemptStore, record: AttemptRecord) -> None:
        if record.id:
            raise OSError("away")
        whole(store, record)

    with monkeypatch.context() as patch:
        patch.setattr(AttemptStore, "write", write)
        notes = die_at(make, "while it waited")
    drive(make, notes, try_number=2)
    assert statsd.totals()["started"] == 1


def test_a_failure_is_counted(make: Make, simulator: Simulator, deferrable: bool, statsd: StatsdServer) -> None:
    take(simulator, 0.1, fails=True)
    assert drive(lambda: make(deferrable=deferrable)).error is not None
    assert statsd.totals() == {"started": 1, "failed": 1}


def test_the_cancel_at_the_deadline_is_counted_once(
    make: Make, simulator: Simulator, deferrable: bool, statsd: StatsdServer, work_tags: dict[str, str]
) -> None:
    take(simulator, 600)
    notes: dict[str, Any] = {}
    assert isinstance(drive(lambda: make(deferrable=deferrable, timeout=0.5), notes).error, PlanasonixTimeoutError)
    assert statsd.totals() == {"started": 1, "cancelled": 1}
    assert statsd.tags(metrics.JOB_CANCELLED) == [work_tags | {"source": "operator"}]
    # The next try finds the cancelled work, and starts again.
    take(simulator, 0.1)
    drive(lambda: make(deferrable=deferrable), notes, try_number=2)
    totals = statsd.totals()
    assert (totals["started"], totals["cancelled"], totals["succeeded"]) == (2, 1, 1)


def test_work_that_a_person_cancels_is_counted(simulator: Simulator, deferrable: bool, statsd: StatsdServer) -> None:
    simulator.plan(CONNECTION, running_seconds=600)
    with meanwhile(lambda: simulator.workspace.cancel(simulator.jobs()[0].id), once=is_asked(simulator, "get_job")):
        drive(lambda: sync(deferrable=deferrable))
    assert statsd.totals() == {"started": 1, "cancelled": 1}


def test_the_cancel_of_a_kill_is_counted_after_the_signal_handler(simulator: Simulator, statsd: StatsdServer) -> None:
    simulator.plan(CONNECTION, running_seconds=3600)
    notes: dict[str, Any] = {}
    killed(simulator, sync(), notes=notes, once=lambda: statsd.totals()["started"] == 1)
    assert statsd.totals() == {"started": 1, "cancelled": 1}
    drive(sync, notes, try_number=2)
    totals = statsd.totals()
    assert (totals["started"], totals["cancelled"], totals["succeeded"]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("point", "searches"),
    [("after the POST left", 1), ("before the id was recorded", 1), ("while it waited", 0)],
)
def test_a_retry_reconnects_without_another_start(
    make: Make, simulator: Simulator, statsd: StatsdServer, point: str, searches: int
) -> None:
    simulator.workspace.configure(show_metadata=True)
    notes = die_at(make, point, deferrable=False)
    drive(make, notes, try_number=2)
    totals = statsd.totals()
    assert (totals["started"], totals["reconnected"], totals["succeeded"]) == (1, 1, 1)
    assert totals["searched"] == searches


def test_a_lost_response_is_counted_as_a_search_and_one_start(
    make: Make, simulator: Simulator, statsd: StatsdServer, work_tags: dict[str, str]
) -> None:
    simulator.workspace.configure(show_metadata=True)
    fail_starts(simulator, "reset", when="after")
    assert drive(make).error is None
    totals = statsd.totals()
    assert (totals["started"], totals["searched"], totals["succeeded"]) == (1, 1, 1)
    assert statsd.tags(metrics.JOB_SEARCHED) == [work_tags]


def test_a_clear_counts_the_cancel_of_the_old_work(simulator: Simulator, statsd: StatsdServer) -> None:
    simulator.plan(CONNECTION, running_seconds=3600)
    notes = die_at(sync, "while it waited", deferrable=False)
    drive(sync, notes, try_number=2, max_tries=5, clear_number=1)
    totals = statsd.totals()
    assert (totals["started"], totals["cancelled"], totals["succeeded"], totals["reconnected"]) == (2, 1, 1, 0)


def test_an_attached_task_counts_the_end_and_no_start(
    simulator: Simulator, deferrable: bool, statsd: StatsdServer
) -> None:
    simulator.plan(CONNECTION, running_seconds=0.5)
    start_theirs(simulator)
    drive(lambda: sync(deferrable=deferrable, on_conflict="attach"))
    totals = statsd.totals()
    assert (totals["started"], totals["succeeded"]) == (0, 1)


def test_a_task_that_does_not_wait_counts_only_the_start(simulator: Simulator, statsd: StatsdServer) -> None:
    drive(lambda: sync(wait_for_completion=False))
    assert statsd.totals() == {"started": 1}


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
def test_a_sensor_counts_the_end_once(
    simulator: Simulator, mode: dict[str, Any], statsd: StatsdServer, fails: bool
) -> None:
    take(simulator, 0.3, fails=fails)
    job_id = start_theirs(simulator)
    drive(lambda: PlanasonixJobSensor(task_id="wait", job_id=job_id, poke_interval=0.03, **mode))
    name = "failed" if fails else "succeeded"
    assert statsd.totals() == {name: 1}
    ((end),) = [sample for sample in statsd.samples("planasonix.job.") if sample.kind == "c"]
    assert end.tags["source"] == "sensor"
    assert len(statsd.named(metrics.JOB_DURATION)) == 1


def test_a_task_that_cancels_counts_no_end(simulator: Simulator, statsd: StatsdServer) -> None:
    simulator.plan(CONNECTION, running_seconds=3600, cancelling_seconds=0.05)
    job_id = start_theirs(simulator)
    drive(lambda: PlanasonixCancelJobOperator(task_id="cancel", job_id=job_id, poll_interval=0.03))
    assert simulator.job(job_id).status == "cancelled"
    assert statsd.totals() == {}
    assert "cancel_job" in {tags["route"] for tags in statsd.tags(metrics.REQUEST)}


def test_a_refused_start_counts_nothing(simulator: Simulator, statsd: StatsdServer) -> None:
    fail_starts(simulator, "status", status=403)
    assert isinstance(drive(sync).error, AirflowException)
    assert statsd.totals() == {}


def test_no_metric_has_a_job_id_or_the_key(simulator: Simulator, statsd: StatsdServer) -> None:
    drive(sync)
    statsd.wait()
    (job,) = simulator.jobs()
    text = "\n".join(statsd.packets)
    assert "planasonix.job.started" in text
    assert job.id not in text
    assert simulator.api_key not in text
