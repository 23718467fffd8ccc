from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from planasonix_provider.cli.exit_codes import EXIT_ERROR, EXIT_OK, EXIT_UNKNOWN, EXIT_USAGE
from planasonix_provider.monitoring import orphan_cancellation, orphan_search
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting.attempt import AttemptRecord
from tests.cli.conftest import Run
from tests.support.airflow_tasks import AirflowTasks, key_of, record_of
from tests.support.attempts import take
from tests.support.scenarios import CONNECTION, routes_asked

TASK = "task load of DAG nightly, run run_1"


@pytest.fixture
def tasks(airflow_db: None) -> Iterator[AirflowTasks]:
    tasks = AirflowTasks()
    yield tasks
    tasks.forget()


@pytest.fixture
def record(tasks: AirflowTasks, simulator: Simulator) -> AttemptRecord:
    """The record of a failed task whose job runs on."""
    take(simulator, 3600)
    key = tasks.add(key_of(), "failed", datetime.now(UTC) - timedelta(minutes=30))
    record = record_of(key, simulator.workspace.start_sync(CONNECTION).id)
    tasks.store(record)
    return record


def test_lists_orphans_of_all_connections(shell: Run, record: AttemptRecord) -> None:
    (row,) = shell("orphans", "-o", "json").json
    assert row["age_seconds"] >= 0
    assert row["task_ended_at"].endswith("Z")
    assert row | {"age_seconds": 0, "task_ended_at": "", "started_at": ""} == {
        "id": record.id,
        "kind": "job",
        "status": "running",
        "conn_id": "planasonix_default",
        "connection_id": CONNECTION,
        "dag_id": "nightly",
        "run_id": "run_1",
        "task_id": "load",
        "map_index": -1,
        "task_state": "failed",
        "task_ended_at": "",
        "started_at": "",
        "age_seconds": 0,
    }
    assert str(record.id) in shell("orphans").out
    assert shell("orphans").code == EXIT_OK


@pytest.mark.parametrize(
    ("options", "is_listed"),
    [
        (("--conn-id", "planasonix_default"), True),
        (("--conn-id", "planasonix_other"), False),
        (("--older-than", "29m"), True),
        (("--older-than", "1h"), False),
    ],
)
def test_lists_only_matching_orphans(
    shell: Run, record: AttemptRecord, options: tuple[str, ...], is_listed: bool
) -> None:
    assert bool(shell("orphans", *options, "-o", "json").json) is is_listed


@pytest.mark.parametrize("age", ["soon", "10", "-1m", "10 m", "2025-01-01"])
def test_refuses_an_invalid_age(shell: Run, simulator: Simulator, age: str) -> None:
    ran = shell("orphans", f"--older-than={age}")
    assert (ran.code, ran.last_line) == (
        EXIT_USAGE,
        f"--older-than: got '{age}', allowed is an age such as 10m, 24h, 7d or 2w.",
    )


def test_cancels_orphans(shell: Run, record: AttemptRecord, simulator: Simulator) -> None:
    ran = shell("orphans", "--cancel", "-o", "json")
    assert ran.code == EXIT_OK
    assert [(row["id"], row["outcome"], row["error"]) for row in ran.json] == [(record.id, "cancelled", None)]
    assert f"Job {record.id} of {TASK} was asked to cancel: it is cancelling." in ran.err
    assert routes_asked(simulator).count("cancel_job") == 1
    assert shell("orphans", "--cancel", "-o", "json").json == []


def test_cancels_nothing_without_the_option(shell: Run, record: AttemptRecord, simulator: Simulator) -> None:
    shell("orphans")
    assert "cancel_job" not in routes_asked(simulator)


def test_reports_a_failed_cancel(
    shell: Run, record: AttemptRecord, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphan_cancellation, "CANCEL_SECONDS", 0)
    simulator.fail("status", status=403, route="cancel_job", times=None)
    ran = shell("orphans", "--cancel")
    assert (ran.code, ran.last_line) == (EXIT_ERROR, "1 orphan could not be cancelled.")
    assert f"Job {record.id} of {TASK} could not be cancelled and may still run: POST " in ran.err
    assert f"To end it: `python -m planasonix_provider cancel {record.id} --conn-id planasonix_default`" in ran.err


def test_reports_a_task_that_runs_again(
    shell: Run, record: AttemptRecord, tasks: AirflowTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = orphan_cancellation.still_over

    def check_after_a_clear(*records: object) -> object:
        tasks.set_state(record.task_key, None)
        return check(*records)  # type: ignore[arg-type]

    monkeypatch.setattr(orphan_cancellation, "still_over", check_after_a_clear)
    ran = shell("orphans", "--cancel")
    assert ran.code == EXIT_OK
    assert f"Job {record.id} of {TASK} was not cancelled, because its task runs again, or" in ran.err


def test_reports_a_start_with_an_unknown_effect(shell: Run, tasks: AirflowTasks, simulator: Simulator) -> None:
    tasks.store(record_of(tasks.add(key_of(map_index=2), "failed")))
    ran = shell("orphans", "--cancel", "-o", "json")
    assert (ran.code, ran.json[0]["status"], ran.json[0]["outcome"]) == (EXIT_UNKNOWN, "unknown", "unknown")
    assert f"It is unknown whether {TASK}, map index 2 has started a job on connection {CONNECTION}." in ran.err
    assert f"`python -m planasonix_provider jobs --connection-id {CONNECTION} --conn-id" in ran.err


def test_lists_the_orphans_of_other_connections_after_an_error(
    shell: Run, record: AttemptRecord, tasks: AirflowTasks, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphan_search, "LIST_SECONDS", 9)
    wrong = simulator.airflow_connection() | {"password": "plnx_wrong"}
    monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_WRONG", json.dumps(wrong))
    other = record_of(tasks.add(key_of(map_index=1), "failed"), "job_1", planasonix_conn_id="planasonix_wrong")
    tasks.store(other)
    ran = shell("orphans", "-o", "json")
    assert (ran.code, [row["id"] for row in ran.json]) == (EXIT_ERROR, [record.id])
    assert "The orphaned jobs of Airflow connection 'planasonix_wrong' cannot be found. GET" in ran.err
    assert "plnx_wrong" not in ran.err
