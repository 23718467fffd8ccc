"""A backfill that needs an approval. The tests approve or reject it through Airflow's REST API."""

from __future__ import annotations

import time

import pytest

from dev.local_airflow import LocalAirflow
from planasonix_provider.api.models import Backfill
from planasonix_provider.simulator import Simulator
from tests.system.conftest import Notes
from tests.system.runs import AIRFLOW, TaskRun, wait_until

pytestmark = pytest.mark.skipif(AIRFLOW < (3, 1), reason="approvals need Airflow 3.1")

CONNECTION = "conn_demo_49"
#: The seconds that a person needs to respond.
REACTION_SECONDS = 10.0
#: The state of a task that waits for a response. Before Airflow 3.3, a trigger polls for the response.
WAITING_FOR_PERSON = "awaiting_input" if AIRFLOW >= (3, 3) else "deferred"


def start(airflow: LocalAirflow) -> TaskRun:
    """Start the DAG, and wait until it asks for an approval."""
    run = TaskRun.start(airflow, "planasonix_approved_backfill", start="2024-02-01", end="2024-04-01").task("approve")
    run.wait_for(WAITING_FOR_PERSON)
    return run


def details(run: TaskRun) -> str:
    return f"dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{run.task_id}/-1/hitlDetails"


def respond(run: TaskRun, option: str) -> None:
    # Airflow 3.3.2 fails a task if the response comes before the scheduler has noticed that the process has ended.
    time.sleep(REACTION_SECONDS)
    run.airflow.api("PATCH", details(run), {"chosen_options": [option], "params_input": {}})


def backfills(simulator: Simulator) -> list[Backfill]:
    return [backfill for backfill in simulator.backfills() if backfill.connection_id == CONNECTION]


def test_a_backfill_starts_only_after_its_approval(airflow: LocalAirflow, simulator: Simulator, note: Notes) -> None:
    rejected = start(airflow)
    asked = airflow.api("GET", details(rejected))
    assert asked["subject"] == "Load the orders from 2024-02-01 to 2024-04-01 again?"
    assert asked["body"] == "2 backfills, one for each month."
    respond(rejected, "Reject")
    wait_until(lambda: rejected.dag_run_state == "success", "the rejected run ends")
    assert rejected.state == "success"
    assert rejected.task("load").count("skipped") == 1
    approved = start(airflow)
    assert backfills(simulator) == []
    respond(approved, "Approve")
    wait_until(lambda: approved.dag_run_state == "success", "the approved run ends")
    windows = sorted((f"{it.start_at:%m-%d}", f"{it.end_at:%m-%d}", it.status) for it in backfills(simulator))
    assert windows == [("02-01", "03-01", "completed"), ("03-01", "04-01", "completed")]
    note("rejected: no backfill; approved: two")
