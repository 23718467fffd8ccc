from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from planasonix_provider.monitoring import attempt_records
from planasonix_provider.monitoring.attempt_records import (
    HAS_STATE_STORE_TABLE,
    delete_records,
    read_records,
    still_over,
)
from tests.support.airflow_tasks import AirflowTasks, key_of, record_of

needs_state_store = pytest.mark.skipif(not HAS_STATE_STORE_TABLE, reason="Airflow 3.3 and later")
before_3_3 = pytest.mark.skipif(HAS_STATE_STORE_TABLE, reason="before Airflow 3.3")

OVER = ["success", "failed", "skipped", "upstream_failed", "removed"]
NOT_OVER = [None, "scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred"]


@pytest.mark.parametrize(("state", "is_over"), [*((one, True) for one in OVER), *((one, False) for one in NOT_OVER)])
def test_knows_whether_a_task_is_over(airflow_tasks: AirflowTasks, state: str | None, is_over: bool) -> None:
    record = record_of(airflow_tasks.add(key_of(), state), "job_1")
    airflow_tasks.store(record)
    (stored,) = read_records().records
    assert stored.record == record
    assert stored.task is not None
    assert (stored.task.state, stored.is_task_over) == (state, is_over)


def test_distinguishes_the_mapped_tasks_of_each_run(airflow_tasks: AirflowTasks) -> None:
    keys = [key_of(run_id=run_id, map_index=index) for run_id in ("run_1", "run_2") for index in (0, 1)]
    for key, state in zip(keys, ("success", "running", "deferred", "failed"), strict=True):
        airflow_tasks.store(record_of(airflow_tasks.add(key, state)))
    found = {stored.record.task_key: stored.task and stored.task.state for stored in read_records().records}
    assert found == dict(zip(keys, ("success", "running", "deferred", "failed"), strict=True))
    limited = read_records({("nightly", "run_2"), ("nightly", "run_3")}).records
    assert {stored.record.task_key for stored in limited} == set(keys[2:])
    assert read_records(set()).records == []


def test_reads_only_the_records_of_the_given_runs(airflow_tasks: AirflowTasks) -> None:
    airflow_tasks.store(record_of(airflow_tasks.add(key_of(), "failed")))
    airflow_tasks.store_value(airflow_tasks.add(key_of(run_id="run_2"), "failed"), {"version": 2})
    assert read_records().problem is not None
    listing = read_records({("nightly", "run_1")})
    assert (len(listing.records), listing.problem) == (1, None)


def test_knows_when_a_task_ended(airflow_tasks: AirflowTasks) -> None:
    ended_at = datetime.now(UTC) - timedelta(hours=2)
    record = record_of(airflow_tasks.add(key_of(), "failed", ended_at))
    airflow_tasks.store(record)
    assert read_records().records[0].task_ended_at == ended_at
    airflow_tasks.delete_task(record.task_key)
    (stored,) = read_records().records
    assert stored.task is None
    assert stored.is_task_over
    assert stored.task_ended_at == record.first_sent_at


def test_lists_no_released_work(airflow_tasks: AirflowTasks) -> None:
    airflow_tasks.store(record_of(airflow_tasks.add(key_of(), "success"), is_released=True))
    assert read_records().records == []


@before_3_3
def test_finds_the_record_of_a_deleted_run(airflow_tasks: AirflowTasks) -> None:
    airflow_tasks.store(record_of(airflow_tasks.add(key_of(), "deferred")))
    airflow_tasks.delete_run("run_1")
    assert read_records().records[0].task is None


@needs_state_store
def test_loses_the_record_of_a_deleted_run(airflow_tasks: AirflowTasks) -> None:
    airflow_tasks.store(record_of(airflow_tasks.add(key_of(), "deferred")))
    airflow_tasks.delete_run("run_1")
    assert airflow_tasks.records() == 0


def test_counts_unreadable_records(airflow_tasks: AirflowTasks) -> None:
    airflow_tasks.store(record_of(airflow_tasks.add(key_of(), "failed")))
    for index, value in enumerate(({"version": 2}, {"kind": "job"})):
        airflow_tasks.store_value(airflow_tasks.add(key_of(map_index=index), "failed"), value)
    listing = read_records()
    assert len(listing.records) == 1
    assert listing.problem == (
        "Records of starts that cannot be read: 2 (they are damaged, or of another version of "
        "airflow-provider-planasonix). Orphaned jobs among them are not found."
    )


@needs_state_store
@pytest.mark.parametrize(
    ("section", "option", "text"),
    [
        ("state_store", "backend", "[state_store] backend is company.Store, and only records in Airflow's database"),
        ("workers", "state_store_backend", "[workers] state_store_backend keeps them outside of Airflow's database"),
    ],
)
def test_reports_that_other_backends_cannot_be_listed(
    airflow_tasks: AirflowTasks, monkeypatch: pytest.MonkeyPatch, section: str, option: str, text: str
) -> None:
    airflow_tasks.store_value(airflow_tasks.add(key_of(), "failed"), {"reference": "s3://company/1"})
    monkeypatch.setenv(f"AIRFLOW__{section}__{option}".upper(), "company.Store")
    assert text in str(read_records().problem)


@before_3_3
def test_reads_encrypted_variables(airflow_tasks: AirflowTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    airflow_tasks.store(record_of(airflow_tasks.add(key_of(), "failed")))
    assert "nightly" not in read_records().records[0].stored

    def lose_key() -> Any:
        raise RuntimeError("no key")

    monkeypatch.setattr(attempt_records, "get_fernet", lose_key)
    assert "cannot be read: 1" in str(read_records().problem)


def test_deletes_only_unchanged_records(airflow_tasks: AirflowTasks) -> None:
    old, new = (record_of(airflow_tasks.add(key_of(map_index=index), "failed"), "job_1") for index in (0, 1))
    for record in (old, new):
        airflow_tasks.store(record)
    listed = read_records().records
    airflow_tasks.store(new.model_copy(update={"id": "job_2"}))
    delete_records(listed)
    assert [stored.record.id for stored in read_records().records] == ["job_2"]


@pytest.mark.parametrize("state", NOT_OVER)
def test_notices_that_a_task_runs_again(airflow_tasks: AirflowTasks, state: str | None) -> None:
    key = airflow_tasks.add(key_of(), "failed")
    airflow_tasks.store(record_of(key))
    listed = read_records().records
    assert still_over(listed) == list(listed)
    airflow_tasks.set_state(key, state)
    assert still_over(listed) == []


def test_notices_that_a_later_try_has_started_something(airflow_tasks: AirflowTasks) -> None:
    key = airflow_tasks.add(key_of(), "failed")
    airflow_tasks.store(record_of(key, "job_1"))
    listed = read_records().records
    airflow_tasks.store(record_of(key, "job_2"))
    assert still_over(listed) == []


@pytest.mark.slow("handles thousands of records")
def test_reads_thousands_of_records(airflow_tasks: AirflowTasks) -> None:
    for index in range(450):
        airflow_tasks.store(record_of(airflow_tasks.add(key_of(map_index=index), "failed", datetime.now(UTC))))
    listed = read_records().records
    assert len(still_over(listed)) == 450
    delete_records(listed)
    assert airflow_tasks.records() == 0
