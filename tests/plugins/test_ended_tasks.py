from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.jobs.job import Job
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.utils.session import create_session
from sqlalchemy import delete, insert, update

from planasonix_provider.plugins import ended_tasks
from planasonix_provider.plugins.ended_tasks import EndedTaskWatcher, watch_next
from planasonix_provider.plugins.listener import EndedTaskListener
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting.attempt import AttemptRecord, TaskKey
from tests.support.airflow_tasks import AirflowTasks, key_of, record_of
from tests.support.attempts import take
from tests.support.scenarios import CONNECTION, routes_asked
from tests.support.time_travel import TravelledClock, steps_while_asleep

pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no API server")

#: The maximum wait for a thread, on a slow machine.
MAX_SECONDS = 60.0
HEARTBEAT = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)

When = float | Callable[[], object]


class Api:
    """An API server's listener, without its thread, and the tasks of its Airflow."""

    def __init__(self, tasks: AirflowTasks, simulator: Simulator, travel: TravelledClock) -> None:
        self.tasks = tasks
        self.simulator = simulator
        self._travel = travel
        self.listener = EndedTaskListener()
        self.listener.enable()

    def start(self, key: TaskKey | None = None, *, is_deferred: bool = True, **fields: Any) -> AttemptRecord:
        """Add a task that waits for its job."""
        columns = {"trigger_id": self.tasks.add_trigger()} if is_deferred else {}
        key = self.tasks.add(key or key_of(), "deferred" if is_deferred else "up_for_retry", **columns)
        record = record_of(key, self.simulator.workspace.start_sync(CONNECTION).id, **fields)
        self.tasks.store(record)
        return record

    def mark(self, record: AttemptRecord, state: str = "failed") -> None:
        """End a task, as a request does: the listener is called before the transaction is committed."""
        key = record.task_key
        hooks: dict[str, Callable[..., None]] = {
            "failed": self.listener.on_task_instance_failed,
            "success": self.listener.on_task_instance_success,
            "skipped": self.listener.on_task_instance_skipped,
        }
        hooks[state](task_instance=SimpleNamespace(**key._asdict()))
        self.tasks.set_state(key, state)

    def watch(self, *steps: tuple[When, Callable[[], object]]) -> None:
        """Watch ended tasks until none is left.

        :param steps: actions in this order, each with the seconds from now on or the condition that it waits for.
        """
        began = self._travel.passed

        def is_due(when: When) -> bool:
            return bool(when()) if callable(when) else self._travel.passed - began >= when

        with steps_while_asleep(self._travel, *((lambda when=when: is_due(when), act) for when, act in steps)):
            watch_next(self.listener.pending)

    def cancels(self) -> int:
        return routes_asked(self.simulator).count("cancel_job")

    def expect(self, cancels: int) -> Callable[[], None]:
        """Return a step that checks the number of cancels."""

        def check() -> None:
            assert self.cancels() == cancels

        return check

    def status(self, record: AttemptRecord) -> str:
        return str(self.simulator.job(str(record.id)).status)


@pytest.fixture
def travel(travel: TravelledClock, monkeypatch: pytest.MonkeyPatch) -> TravelledClock:
    """Simulated time that does not pass while Airflow's database is read."""
    monkeypatch.setattr(asyncio, "to_thread", travel.stop_during(asyncio.to_thread))
    return travel


@pytest.fixture
def api(
    airflow_db: None, simulator: Simulator, travel: TravelledClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Api]:
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    # Ten minutes would be hundreds of reads of the database.
    monkeypatch.setattr(ended_tasks, "WATCH_SECONDS", 60.0)
    take(simulator, 36_000)
    simulator.workspace.configure(conflict="allowed")
    set_heartbeat(None)
    api = Api(AirflowTasks(), simulator, travel)
    monkeypatch.setattr(api.listener, "_ensure_thread", lambda: None)
    yield api
    api.tasks.forget()
    set_heartbeat(None)


def set_heartbeat(at: datetime | None) -> None:
    """Store the heartbeat of a triggerer; ``None``: there is no triggerer."""
    with create_session() as session:
        session.execute(delete(Job.__table__).where(Job.job_type == "TriggererJob"))
        if at:
            values = {"job_type": "TriggererJob", "state": "running", "latest_heartbeat": at, "start_date": at}
            session.execute(insert(Job.__table__).values(values | {"hostname": "here", "unixname": "airflow"}))


def beat() -> None:
    """Store another heartbeat of the triggerer."""
    with create_session() as session:
        later = HEARTBEAT + timedelta(seconds=5)
        session.execute(update(Job).where(Job.job_type == "TriggererJob").values(latest_heartbeat=later))


@pytest.mark.parametrize("state", ["failed", "success", "skipped"])
def test_cancels_the_job_once_and_deletes_the_record(api: Api, state: str, caplog: pytest.LogCaptureFixture) -> None:
    record = api.start()
    api.mark(record, state)
    api.watch((5, api.expect(cancels=0)), (9, api.expect(cancels=1)))
    assert api.tasks.records() == 0
    assert api.status(record) == "cancelled"
    assert api.cancels() == 1
    assert (
        f"The task was ended by hand. Job {record.id} of task load of DAG nightly, run run_1 was asked to cancel"
        in caplog.text
    )


def test_runs_in_a_thread_of_the_listener(api: Api) -> None:
    api.listener = EndedTaskListener()
    api.listener.enable()
    for _ in range(2):
        record = api.start()
        api.mark(record)
        idle = Thread(target=api.listener.pending.join, daemon=True)
        idle.start()
        idle.join(MAX_SECONDS)
        assert not idle.is_alive()
        assert api.status(record) == "cancelled"
        api.tasks.forget()


def test_cancels_the_jobs_of_a_task_that_is_ended_twice(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended_tasks, "MIN_LOOK_INTERVAL_SECONDS", 600.0)
    first = api.start()
    second = record_of(first.task_key, api.simulator.workspace.start_sync(CONNECTION).id)

    def run_and_end_again() -> None:
        api.tasks.set_state(first.task_key, "deferred")
        api.tasks.store(second)
        api.mark(second)

    api.mark(first)
    api.watch((lambda: api.status(first) == "cancelled", run_and_end_again))
    assert api.status(second) == "cancelled"
    assert api.cancels() == 2


def test_waits_until_the_transaction_is_committed(api: Api) -> None:
    record = api.start()
    api.listener.on_task_instance_failed(task_instance=SimpleNamespace(**record.task_key._asdict()))
    api.watch((30, api.expect(cancels=0)), (30, lambda: api.tasks.set_state(record.task_key, "failed")))
    assert api.cancels() == 1


@pytest.mark.parametrize("state", [None, "scheduled", "running", "deferred", "up_for_retry"])
def test_never_touches_a_task_that_waits_again(api: Api, state: str | None) -> None:
    record = api.start()
    api.mark(record)
    api.tasks.set_state(record.task_key, state)
    api.watch()
    assert api.cancels() == 0
    assert api.status(record) == "running"


@pytest.mark.parametrize("fields", [{"cancel_on_kill": False}, {"is_own": False}, {"is_released": True}])
def test_spares_work_that_must_run_on(api: Api, fields: dict[str, bool]) -> None:
    record = api.start(**fields)
    api.mark(record)
    api.watch()
    assert api.cancels() == 0


def test_cancels_the_jobs_of_a_whole_run(api: Api) -> None:
    records = [api.start(key_of(map_index=index)) for index in range(3)]
    other = api.start(key_of(run_id="run_2"))
    for record in records:
        api.tasks.set_state(record.task_key, "failed")
    api.tasks.set_state(other.task_key, "failed")
    api.listener.on_dag_run_failed(dag_run=SimpleNamespace(dag_id="nightly", run_id="run_1"))
    api.watch()
    assert api.tasks.records() == 1
    assert api.cancels() == 3
    assert api.status(other) == "running"


class TestATriggererThatRuns:
    def test_gets_the_time_to_cancel(self, api: Api) -> None:
        set_heartbeat(HEARTBEAT)
        record = api.start()
        api.mark(record)
        api.watch(
            (4, beat),
            (19, api.expect(cancels=0)),
            (19, lambda: api.simulator.workspace.cancel(str(record.id))),
        )
        assert api.cancels() == 0
        assert api.tasks.records() == 0

    def test_is_believed_dead_without_a_heartbeat(self, api: Api) -> None:
        set_heartbeat(HEARTBEAT)
        api.mark(api.start())
        api.watch((9, api.expect(cancels=1)))

    def test_that_has_cancelled_the_job_is_not_followed_by_another_cancel(self, api: Api) -> None:
        record = api.start()
        api.simulator.plan(CONNECTION, running_seconds=60, cancelling_seconds=3)
        api.simulator.workspace.cancel(str(record.id))
        api.mark(record)
        api.watch()
        assert api.tasks.records() == 0
        assert api.cancels() == 0

    def test_may_forget_the_job(self, api: Api) -> None:
        set_heartbeat(HEARTBEAT)
        api.mark(api.start())
        api.watch((4, beat), (19, api.expect(cancels=0)), (23, api.expect(cancels=1)))


def test_leaves_a_task_on_a_worker_to_the_worker(api: Api) -> None:
    api.mark(api.start(is_deferred=False))
    api.watch((19, api.expect(cancels=0)), (23, api.expect(cancels=1)))


def test_spares_the_job_of_a_task_that_had_failed_before(api: Api) -> None:
    ended_at = datetime.now(UTC) - timedelta(minutes=5)
    key = api.tasks.add(key_of(), "failed", ended_at, try_number=3)
    record = record_of(key, api.simulator.workspace.start_sync(CONNECTION).id)
    api.tasks.store(record)
    api.listener.on_task_instance_success(task_instance=SimpleNamespace(**key._asdict()))
    api.tasks.set_state(key, "success", ended_at)
    api.watch()
    assert api.cancels() == 0


def test_spares_a_job_for_which_the_task_of_another_run_waits(api: Api) -> None:
    record = api.start()
    other = api.tasks.add(key_of(run_id="run_2"), "deferred", trigger_id=api.tasks.add_trigger())
    api.tasks.store(record_of(other, record.id, is_own=False))
    api.mark(record)
    api.watch()
    assert api.cancels() == 0


def test_repeats_a_failed_cancel(api: Api) -> None:
    record = api.start()
    api.simulator.fail("status", status=403, route="cancel_job", times=2)
    api.mark(record)
    api.watch()
    assert api.cancels() == 3
    assert api.status(record) == "cancelled"


@pytest.mark.slow("handles hundreds of jobs")
def test_sends_few_requests_for_many_tasks(api: Api) -> None:
    records = [api.start(key_of(map_index=index)) for index in range(300)]
    for record in records:
        api.mark(record)
    api.watch()
    assert api.tasks.records() == 0
    asked = Counter(routes_asked(api.simulator))
    assert asked["cancel_job"] == 300
    # Lists of a hundred jobs each, and single requests for a few jobs that were between two states.
    assert asked["list_jobs"] + asked["get_job"] < 600


def test_logs_a_cancel_that_fails_until_the_end(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    record = api.start()
    api.simulator.fail("status", status=403, route="cancel_job", times=None)
    api.mark(record)
    api.watch()
    assert "could not be cancelled" in caplog.text
    assert f"To end it: `python -m planasonix_provider cancel {record.id} --conn-id planasonix_default`" in caplog.text


def test_forgets_tasks_of_other_operators_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Any] = []
    whole = ended_tasks.read_records

    def read(runs: Any = ()) -> Any:
        reads.append(runs)
        return whole(runs)

    monkeypatch.setattr(ended_tasks, "read_records", read)
    key = api.tasks.add(key_of(run_id="run_other"), "failed")
    api.listener.on_task_instance_failed(task_instance=SimpleNamespace(**key._asdict()))
    api.watch()
    assert reads == [{("nightly", "run_other")}]
    assert routes_asked(api.simulator) == []


def test_survives_an_unavailable_database(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [OSError("away"), OSError("away")]
    whole = ended_tasks.read_records

    def read(runs: Any = None) -> Any:
        if failures:
            raise failures.pop()
        return whole(runs)

    monkeypatch.setattr(ended_tasks, "read_records", read)
    api.mark(api.start())
    api.watch()
    assert api.cancels() == 1
    assert "The Planasonix jobs of ended tasks cannot be read yet, still trying: OSError('away')" in caplog.text


async def test_ends_when_nothing_is_left() -> None:
    await EndedTaskWatcher(EndedTaskListener().pending, {}).run()
