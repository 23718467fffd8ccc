"""The traceback that Airflow writes into the log of a failed task."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator

import planasonix_provider
from planasonix_provider.execution.api_session import ApiSession
from planasonix_provider.execution.short_traceback import with_short_traceback
from planasonix_provider.operators.planasonix import PlanasonixCancelJobOperator, PlanasonixWebhookOperator
from planasonix_provider.sensors.planasonix import PlanasonixJobSensor
from planasonix_provider.simulator import Simulator
from tests.support.scenarios import CONNECTION, killed, sync
from tests.support.task_runs import drive

pytestmark = pytest.mark.usefixtures("travel")

PACKAGE = Path(planasonix_provider.__file__).parent


def sensor(job_id: str = "job_that_is_not_there", **parameters: Any) -> PlanasonixJobSensor:
    return PlanasonixJobSensor(task_id="wait", job_id=job_id, poke_interval=0.03, **parameters)


def template(operator: BaseOperator, **rendered: Any) -> BaseOperator:
    for name, value in rendered.items():
        setattr(operator, name, value)
    return operator


def own_frames(error: BaseException) -> list[str]:
    """Return the functions of this package in an exception's traceback, without ``testing``, which runs the task."""
    frames = traceback.extract_tb(error.__traceback__)
    return [
        frame.name
        for frame in frames
        if PACKAGE in (path := Path(frame.filename)).parents and "testing" not in path.parts
    ]


class TestTheTracebackOfAFailedTask:
    @pytest.mark.parametrize(
        "make",
        [
            pytest.param(lambda: sync(deferrable=False), id="sync on a worker"),
            pytest.param(lambda: sync(deferrable=True), id="deferred sync"),
            pytest.param(lambda: sync(planasonix_conn_id="nowhere"), id="unknown Airflow connection"),
            pytest.param(lambda: template(sync(), connection_id="None"), id="invalid parameter"),
            pytest.param(lambda: sync(timeout=0.01), id="timeout"),
            pytest.param(lambda: sensor(mode="poke"), id="sensor in poke mode"),
            pytest.param(lambda: sensor(mode="reschedule"), id="rescheduled sensor"),
            pytest.param(lambda: sensor(deferrable=True), id="deferred sensor"),
            pytest.param(
                lambda: PlanasonixCancelJobOperator(task_id="stop", job_id="job_that_is_not_there"), id="cancel"
            ),
            pytest.param(
                lambda: PlanasonixWebhookOperator(
                    task_id="subscribe", url="https://example.com", events=["job.failed"], secret_to="file:/nowhere/s"
                ),
                id="webhook",
            ),
        ],
    )
    def test_has_one_frame_of_the_provider_and_ends_with_the_message(self, simulator: Simulator, make: Any) -> None:
        simulator.plan(CONNECTION, running_seconds=0.3, outcome="failed")
        run = drive(make)
        assert run.error is not None
        text = "".join(traceback.format_exception(run.error))
        assert text.endswith(f": {run.error}\n")
        assert text.count("Traceback (most recent call last)") == 1
        assert own_frames(run.error) == ["wrapper"]
        assert run.log.debug_lines[-1] == "The traceback of the error that ends the task:"

    def test_is_as_short_after_a_kill(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        error, _ = killed(simulator, sync(), route="get_job")
        assert "asked to cancel" in str(error)
        assert own_frames(error) == ["wrapper"]

    def test_has_all_frames_of_an_unexpected_error(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise TypeError("a mistake")

        monkeypatch.setattr(ApiSession, "wait_state", fail)
        run = drive(sync)
        assert isinstance(run.error, TypeError)
        assert "_run" in own_frames(run.error)


class TestADebugLog:
    def test_has_the_frames_and_the_cause(self, caplog: pytest.LogCaptureFixture) -> None:
        class Task:
            log = logging.getLogger("planasonix.task")

            @with_short_traceback
            def execute(self, context: Any) -> None:
                self.send()

            def send(self) -> None:
                try:
                    raise OSError("refused")
                except OSError as cause:
                    raise AirflowFailException("The task fails.") from cause

        caplog.set_level(logging.DEBUG)
        with pytest.raises(AirflowFailException) as failed:
            Task().execute({})
        assert "in send" not in "".join(traceback.format_exception(failed.value))
        assert "in send" in caplog.text
        assert "OSError: refused" in caplog.text
