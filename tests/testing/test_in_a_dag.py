"""Whole DAGs in Airflow itself, with its guards and its handling of deferral, retries and skips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_3_PLUS

from planasonix_provider.testing import Planasonix
from planasonix_provider.testing.time_travel import IDLE_STEP_SECONDS
from planasonix_provider.triggers.deferral import HAS_STALE_EVENTS
from tests.support.airflow_users import simple_auth_manager
from tests.support.approvals import person_who_chooses
from tests.support.dags_folder import load_dags, run_dag
from tests.support.task_rows import TaskRows

ORDERS = "conn_orders"
HEAD = """
from datetime import UTC, datetime, timedelta
from airflow.providers.common.compat.sdk import DAG
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from planasonix_provider.sensors.planasonix import PlanasonixJobSensor

with DAG("{name}", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
"""
RunTasks = Callable[[str], str]

needs_a_try_in_events = pytest.mark.skipif(
    HAS_STALE_EVENTS, reason="dag.test() of Airflow 3.0 passes old events to retries, and no try number to triggers"
)
pytestmark = [pytest.mark.usefixtures("dags_folder"), pytest.mark.slow("runs whole DAGs"), pytest.mark.dag]


@pytest.fixture
def dag_id() -> str:
    # Airflow 3.1 does not read a known DAG again.
    return f"in_a_dag_{uuid4().hex}"


@pytest.fixture
def run_tasks(dag_id: str) -> RunTasks:
    """Run a DAG with these tasks, and return the state of its run."""

    def run(tasks: str) -> str:
        source = HEAD.format(name=dag_id) + "".join(f"    {line}\n" for line in tasks.splitlines())
        return run_dag(load_dags(dag_id, source)["dag"])

    return run


@pytest.fixture
def triggerer() -> Iterator[None]:
    """Airflow's database names a triggerer that is alive."""
    rows = TaskRows()
    rows.add_triggerer(datetime.now(UTC))
    yield
    rows.forget()


class TestASync:
    def test_of_hours_ends_at_once(self, planasonix: Planasonix, run_tasks: RunTasks, deferrable: bool) -> None:
        planasonix.will_succeed(ORDERS, takes=timedelta(hours=3))
        task = f"PlanasonixSyncOperator(task_id='load', connection_id='{ORDERS}', deferrable={deferrable})"
        assert run_tasks(task) == "success"
        assert planasonix.assert_started(ORDERS).status == "succeeded"
        assert planasonix.waited > timedelta(hours=3)

    @pytest.mark.skipif(AIRFLOW_V_3_0_PLUS, reason="only dag.test() of Airflow 2 leaves triggers to a triggerer")
    @pytest.mark.timeout(120)
    @pytest.mark.usefixtures("triggerer")
    def test_waits_in_simulated_time_beside_a_running_triggerer(
        self, planasonix: Planasonix, run_tasks: RunTasks
    ) -> None:
        planasonix.will_succeed(ORDERS, takes=timedelta(hours=3))
        task = f"PlanasonixSyncOperator(task_id='load', connection_id='{ORDERS}', deferrable=True)"
        assert run_tasks(task) == "success"
        assert planasonix.waited > timedelta(hours=3)

    @pytest.mark.parametrize(
        "deferrable", [False, pytest.param(True, marks=needs_a_try_in_events)], ids=["on a worker", "deferred"]
    )
    def test_is_cancelled_at_its_timeout_and_retried_after_the_retry_delay(
        self, planasonix: Planasonix, run_tasks: RunTasks, deferrable: bool
    ) -> None:
        planasonix.will_succeed(ORDERS, takes=timedelta(hours=30), times=1)
        planasonix.will_succeed(ORDERS)
        how = f"timeout=timedelta(hours=2), retries=1, retry_delay=timedelta(hours=1), deferrable={deferrable}"
        assert run_tasks(f"PlanasonixSyncOperator(task_id='load', connection_id='{ORDERS}', {how})") == "success"
        assert [(start.status, start.is_cancelled) for start in planasonix.started()] == [
            ("cancelled", True),
            ("succeeded", False),
        ]
        assert timedelta(hours=3) < planasonix.waited < timedelta(hours=4)


def test_sensors_succeed_in_each_mode_and_pass_airflows_guard(
    planasonix: Planasonix,
    run_tasks: RunTasks,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    planasonix.will_succeed(ORDERS, takes=timedelta(hours=2), times=3)
    ways = {
        "poke": "",
        "reschedule": ", mode='reschedule'",
        "deferred": ", deferrable=True",
    }
    lines = ["PlanasonixJobSensor(task_id='skipped', job_id='job_unknown', deferrable=True, soft_fail=True)"]
    for name, how in ways.items():
        planasonix.simulator.workspace.configure(conflict="allowed")
        job_id = planasonix.simulator.workspace.start_sync(ORDERS).id
        lines.append(f"PlanasonixJobSensor(task_id='{name}', job_id='{job_id}'{how})")
    assert run_tasks("\n".join(lines)) == "success"
    assert {job.status for job in planasonix.simulator.jobs()} == {"succeeded"}
    assert planasonix.waited > timedelta(hours=2)
    assert "cannot be called outside" not in "".join([*capfd.readouterr(), caplog.text])


@pytest.fixture
def approval(dag_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A person approves as soon as real time passes."""
    simple_auth_manager(tmp_path, monkeypatch)
    with person_who_chooses("Approve", dag_id, "approve"):
        yield


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="dag.test() before Airflow 3.3 does not wait for a person")
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("approval")  # before planasonix, which replaces time.sleep
def test_real_time_passes_while_a_task_waits_for_a_person(planasonix: Planasonix, run_tasks: RunTasks) -> None:
    operator = "from airflow.providers.standard.operators.hitl import ApprovalOperator"
    assert run_tasks(f"{operator}\nApprovalOperator(task_id='approve', subject='Load?')") == "success"
    assert planasonix.waited < timedelta(seconds=IDLE_STEP_SECONDS)
