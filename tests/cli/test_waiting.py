from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from planasonix_provider.simulator import Simulator
from tests.cli.conftest import QUICK_WAIT, WINDOW, Run, call_on_request, press
from tests.support.scenarios import CONNECTION, ENDED, STUBBORN, routes_asked, the_one
from tests.support.time_travel import simulated_time


class TestTimeout:
    def test_leaves_the_job_running_and_shows_the_next_commands(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        ran = shell("sync", CONNECTION, *QUICK_WAIT, "--timeout", "0.2")
        job = simulator.jobs()[0]
        assert (ran.code, ran.json["job_id"]) == (5, job.id)
        assert ran.json["status"] in ("queued", "running"), "the last known state"
        assert job.cancel_requested_at is None
        assert ran.last_line == (
            f"Job {job.id} was not over within 0 s. It was not cancelled, and runs on. To wait for it again: "
            f"`python -m planasonix_provider job {job.id} --wait` To cancel it: `python -m planasonix_provider cancel "
            f"{job.id}`"
        )

    def test_cancels_the_job_with_the_option(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        ran = shell("sync", CONNECTION, *QUICK_WAIT, "--timeout", "0.2", "--on-timeout", "cancel")
        job = simulator.jobs()[0]
        assert (ran.code, ran.json["job_id"]) == (5, job.id)
        assert job.status in ENDED
        assert "was not over within 0 s. It was asked to cancel. To wait for its end:" in ran.last_line

    def test_reports_a_failed_cancel(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.fail("status", route="cancel_job", status=403, times=None)
        ran = shell("sync", CONNECTION, *QUICK_WAIT, "--timeout", "0.1", "--on-timeout", "cancel")
        assert ran.code == 5
        assert "was not over within 0 s. It could not be cancelled, and may still run: POST" in ran.last_line

    def test_of_a_job_that_has_just_succeeded_is_no_error(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0.1)
        ran = shell("sync", CONNECTION, "--wait", "--poll-interval", "60", "--timeout", "0.3", "--on-timeout", "cancel")
        assert ran.code == 0


class TestAnInterrupt:
    @pytest.mark.parametrize("choice", ["ask", "leave"])
    def test_leaves_the_job_running_without_a_terminal(self, simulator: Simulator, shell: Run, choice: str) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        call_on_request(simulator, "get_job", press)
        ran = shell("sync", CONNECTION, *QUICK_WAIT, "--on-interrupt", choice)
        job = simulator.jobs()[0]
        assert (ran.code, ran.json["job_id"]) == (130, job.id)
        assert job.cancel_requested_at is None
        assert ran.last_line.startswith(f"No longer waiting for job {job.id}. It was not cancelled, and runs on. To ")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_cancels_the_job_with_the_option(self, simulator: Simulator, shell: Run, number: int) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        call_on_request(simulator, "get_job", lambda: press(number))
        ran = shell("sync", CONNECTION, *QUICK_WAIT, "--on-interrupt", "cancel")
        assert (ran.code, ran.json["status"]) == (4, "cancelled")

    def test_by_sigterm_has_its_own_exit_code(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        call_on_request(simulator, "get_job", lambda: press(signal.SIGTERM))
        assert shell("sync", CONNECTION, *QUICK_WAIT).code == 143

    def test_during_a_poll_takes_effect_at_once(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.fail("hang", route="get_job", seconds=600)
        call_on_request(simulator, "get_job", press)
        ran = shell("sync", CONNECTION, *QUICK_WAIT, "--on-interrupt", "cancel")
        assert (ran.code, ran.json["status"]) == (4, "cancelled")

    def test_after_the_cancel_ends_the_command(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60, cancelling_seconds=60)
        call_on_request(simulator, "get_job", press)
        call_on_request(
            simulator, "cancel_job", lambda: call_on_request(simulator, "get_job", press, times=len(simulator.requests))
        )
        ran = shell("sync", CONNECTION, *QUICK_WAIT, "--on-interrupt", "cancel")
        assert ran.code == 130
        assert "It was asked to cancel. To wait for its end: `python" in ran.last_line

    def test_during_the_cancel_has_an_unknown_effect(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.fail("hang", route="cancel_job", seconds=600)
        call_on_request(simulator, "get_job", press)
        call_on_request(simulator, "cancel_job", press)
        ran = shell("sync", CONNECTION, *QUICK_WAIT, "--on-interrupt", "cancel")
        job = simulator.jobs()[0]
        assert (ran.code, ran.json["job_id"], job.cancel_requested_at) == (130, job.id, None)
        assert ran.last_line == (
            f"No longer waiting for job {job.id}. It is unknown whether it was asked to cancel. To wait for it again: "
            f"`python -m planasonix_provider job {job.id} --wait` To cancel it: `python -m planasonix_provider cancel "
            f"{job.id}`"
        )

    def test_cancels_the_new_jobs_of_a_backfill_too(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan_backfill(CONNECTION, jobs=30, **STUBBORN)
        call_on_request(simulator, "get_backfill", press, times=2)
        ran = shell("backfill", CONNECTION, *WINDOW, *QUICK_WAIT, "--on-interrupt", "cancel")
        assert (ran.code, ran.json["status"]) == (4, "cancelled")
        assert len(the_one(simulator).job_ids or []) == 6
        assert {job.status for job in simulator.jobs()} == {"cancelled"}

    def test_reports_a_failed_cancel(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.fail("status", route="cancel_job", status=403, times=None)
        call_on_request(simulator, "get_job", press)
        ran = shell("sync", CONNECTION, *QUICK_WAIT, "--on-interrupt", "cancel")
        assert (ran.code, ran.json["job_id"]) == (1, simulator.jobs()[0].id)
        assert "could not be cancelled, and may still run: POST /api/v1/jobs/" in ran.last_line

    def test_during_the_request_of_results_reports_that_the_job_is_over(self, simulator: Simulator, shell: Run) -> None:
        simulator.fail("hang", route="get_job_results", seconds=600)
        call_on_request(simulator, "get_job_results", press)
        ran = shell("sync", CONNECTION, *QUICK_WAIT)
        job = simulator.jobs()[0]
        assert (ran.code, ran.json["status"]) == (130, "succeeded")
        hint = f"To see its result: `python -m planasonix_provider job {job.id} --wait`"
        assert ran.last_line == f"Job {job.id} is succeeded. {hint}"


class TestAtATerminal:
    def test_a_bar_shows_the_progress(self, simulator: Simulator, at_a_terminal: Run) -> None:
        simulator.plan_backfill(CONNECTION, jobs=2, job_seconds=0.4)
        ran = at_a_terminal("backfill", CONNECTION, *WINDOW, *QUICK_WAIT)
        assert ran.code == 0
        assert ran.json["status"] == "completed"
        assert "━" in ran.err
        assert "rows processed" in ran.err
        assert "Loaded 5,000,000 rows into 2 tables by 2 jobs." in ran.err
        assert "━" not in ran.out

    def test_ctrl_c_asks_a_question_and_yes_cancels(self, simulator: Simulator, at_a_terminal: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        ran = at_a_terminal("sync", CONNECTION, *QUICK_WAIT, answers=(("is running", press), ("[y/N", "y\n")))
        assert f"Cancel job {simulator.jobs()[0].id}? [y/N, Ctrl-C leaves it running] " in ran.err
        assert (ran.code, ran.json["status"]) == (4, "cancelled")

    @pytest.mark.parametrize("answer", ["n\n", "\n", "\x04"], ids=["no", "nothing", "Ctrl-D"])
    def test_any_other_answer_continues_the_wait(
        self, simulator: Simulator, at_a_terminal: Run, answer: str, end_all_jobs: Callable[[], None]
    ) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        answers = (("is running", press), ("leaves it running] ", answer), ("running", end_all_jobs))
        ran = at_a_terminal("sync", CONNECTION, *QUICK_WAIT, answers=answers)
        assert (ran.code, ran.json["status"]) == (0, "succeeded")
        assert "cancel_job" not in routes_asked(simulator)

    def test_the_wait_continues_if_the_job_cannot_be_cancelled(
        self, simulator: Simulator, at_a_terminal: Run, end_all_jobs: Callable[[], None]
    ) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.fail("status", route="cancel_job", status=403, times=None)
        answers = (("is running", press), ("[y/N", "y\n"), ("could not be cancelled", end_all_jobs))
        ran = at_a_terminal("sync", CONNECTION, *QUICK_WAIT, answers=answers)
        assert (ran.code, ran.json["status"]) == (0, "succeeded")
        assert "could not be cancelled, and may still run: POST /api/v1/jobs/" in ran.err

    def test_a_second_ctrl_c_leaves_it_running(self, simulator: Simulator, at_a_terminal: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        ran = at_a_terminal("sync", CONNECTION, *QUICK_WAIT, answers=(("is running", press), ("[y/N", press)))
        job = simulator.jobs()[0]
        assert (ran.code, ran.json["status"]) == (130, "running")
        assert job.cancel_requested_at is None
        assert f"To cancel it: `python -m planasonix_provider cancel {job.id}`" in ran.err

    def test_sigterm_asks_no_question(self, simulator: Simulator, at_a_terminal: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        ran = at_a_terminal("sync", CONNECTION, *QUICK_WAIT, answers=(("is running", lambda: press(signal.SIGTERM)),))
        assert ran.code == 143
        assert "[y/N" not in ran.err


class TestALongWait:
    def test_logs_the_same_lines_as_a_worker(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=100)
        with simulated_time():
            ran = shell("sync", CONNECTION, "--wait", "--poll-interval", "10")
        assert ran.code == 0
        assert len([line for line in ran.err.splitlines() if " is running, " in line]) >= 3

    def test_survives_an_outage_but_ends_in_a_longer_one(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=1)
        simulator.fail("status", route="get_job", status=503, times=3)
        with simulated_time():
            assert shell("sync", CONNECTION, "--wait").code == 0
            simulator.fail("status", route="get_job", status=503, times=None)
            simulator.plan(CONNECTION, queued_seconds=0, running_seconds=1)
            ran = shell("sync", CONNECTION, "--wait", "--poll-interval", "600", "-o", "json")
        assert ran.code == 6
        assert ran.json["job_id"] == simulator.jobs()[0].id
        assert "It was not cancelled, and runs on. To wait for it again: `python" in ran.last_line
        assert "task" not in ran.last_line
