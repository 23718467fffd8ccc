"""Ctrl-C while ``airflow dags test`` or ``dag.test()`` runs a task, without a scheduler and a later try."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting.cli_hints import cancel_command
from planasonix_provider.waiting.targets import JobTarget
from tests.support.dags_folder import load_dags, run_dag
from tests.support.scenarios import CONNECTION, ENDED, meanwhile, routes_asked, sync
from tests.support.task_runs import Log, Run, context, record

DAG_FILE = """
from airflow.providers.common.compat.sdk import DAG

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

with DAG("{name}", schedule=None) as dag:
    PlanasonixSyncOperator(
        task_id="load",
        connection_id="{connection_id}",
        deferrable={deferrable},
        cancel_on_kill={cancel_on_kill},
        poll_interval=0.05,
    )
"""


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    """Handle SIGINT as in a terminal; a worker of pytest-xdist ignores it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def is_seen(simulator: Simulator, looks: int) -> Callable[[], bool]:
    """Return a check for this number of polls of the job; a task that defers polls once before it defers."""
    return lambda: sum(request.route == "get_job" and bool(request.status) for request in simulator.requests) >= looks


@pytest.mark.slow("runs whole DAGs")
@pytest.mark.dag
@pytest.mark.usefixtures("dags_folder")
@pytest.mark.parametrize("cancel_on_kill", [True, False])
@pytest.mark.parametrize("deferrable", [False, True], ids=["on a worker", "deferred"])
def test_in_a_dag_test_cancels_the_job_or_names_the_command(
    simulator: Simulator,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    deferrable: bool,
    cancel_on_kill: bool,
) -> None:
    simulator.plan(CONNECTION, queued_seconds=0, running_seconds=600)
    name = f"ctrl_c_{deferrable}_{cancel_on_kill}".lower()
    source = DAG_FILE.format(name=name, connection_id=CONNECTION, deferrable=deferrable, cancel_on_kill=cancel_on_kill)
    dag = load_dags(name, source)["dag"]
    # Some versions of Airflow fail the task and continue.
    with meanwhile(press_ctrl_c, once=is_seen(simulator, looks=3)), suppress(KeyboardInterrupt):
        run_dag(dag)
    (job,) = simulator.jobs()
    said = "".join(capfd.readouterr()) + caplog.text
    assert (job.status in ENDED) == cancel_on_kill
    assert "The task was interrupted by Ctrl-C." in said
    assert cancel_command(JobTarget(job.id), "planasonix_default") in said


class TestCtrlC:
    def test_cancels_a_start_without_a_response(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=600)
        simulator.fail("hang", route="trigger_sync", when="after", seconds=3)
        operator = sync()
        record(operator, log := Log())
        with (
            pytest.raises(KeyboardInterrupt),
            meanwhile(press_ctrl_c, once=lambda: bool(simulator.jobs())),
        ):
            operator.execute(context(Run()))
        (job,) = simulator.jobs()
        assert job.status in ENDED
        assert log.lines[-1] == f"The task was interrupted by Ctrl-C. Job {job.id} was asked to cancel."

    def test_twice_leaves_the_job_after_logging_the_command(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=600)
        simulator.fail("hang", route="cancel_job", when="before", seconds=30, times=None)
        operator = sync()
        record(operator, log := Log())
        presses: list[None] = []

        def press_again() -> bool:
            if not presses and is_seen(simulator, looks=1)():
                presses.append(press_ctrl_c())
            return "cancel_job" in routes_asked(simulator)

        with pytest.raises(KeyboardInterrupt), meanwhile(press_ctrl_c, once=press_again):
            operator.execute(context(Run()))
        (job,) = simulator.jobs()
        assert log.lines[-1] == (
            f"Ctrl-C: cancelling job {job.id}. To end it: {cancel_command(JobTarget(job.id), 'planasonix_default')}"
        )

    @pytest.mark.usefixtures("airflow_db")
    def test_does_not_cancel_a_job_of_others(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=600)
        simulator.workspace.start_sync(CONNECTION)
        operator = sync(on_conflict="attach")
        record(operator, log := Log())
        with (
            pytest.raises(KeyboardInterrupt),
            # The task polls the job before it attaches to it.
            meanwhile(press_ctrl_c, once=lambda: any("Going on with" in line for line in log.lines)),
        ):
            operator.execute(context(Run()))
        (job,) = simulator.jobs()
        assert "cancel_job" not in routes_asked(simulator)
        assert log.lines[-1] == f"The task was interrupted by Ctrl-C. Job {job.id} was not cancelled, and runs on."
