from __future__ import annotations

from typing import Any

import pytest

from planasonix_provider.cli.runner import ShellHook
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.simulator import Simulator
from tests.cli.conftest import QUICK_WAIT, WINDOW, Run, call_on_request, press
from tests.conftest import API_KEY
from tests.support.scenarios import CONNECTION, ENDED, STUBBORN, routes_asked, the_one
from tests.support.time_travel import simulated_time


class TestLists:
    def test_of_jobs_are_filtered_and_complete(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, times=None, queued_seconds=0, running_seconds=0)
        ours = [simulator.workspace.start_sync(CONNECTION).id for _ in range(3)]
        simulator.workspace.start_sync("conn_demo_01")
        ran = shell(
            "jobs", "--connection-id", CONNECTION, "--status", "succeeded", "--since", "2025-01-01", "-o", "json"
        )
        assert (ran.code, ran.err) == (0, "")
        assert [job["id"] for job in ran.json] == ours[::-1]
        assert shell("jobs", "--until", "2025-01-01", "-o", "json").json == []
        assert shell("jobs", "--pipeline-id", "pl_0", "--type", "backfill", "-o", "json").json == []

    def test_report_that_there_may_be_more(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, times=None, queued_seconds=0, running_seconds=0)
        for _ in range(3):
            simulator.workspace.start_sync(CONNECTION)
        ran = shell("jobs", "--limit", "2", "-o", "json")
        assert len(ran.json) == 2
        assert ran.err == "Listed the newest 2: a higher --limit may list more.\n"
        assert shell("jobs", "--limit", "4").err == ""

    def test_of_backfills(self, simulator: Simulator, shell: Run) -> None:
        shell("backfill", CONNECTION, *WINDOW)
        ran = shell("backfills", "--connection-id", CONNECTION)
        assert ran.out.splitlines()[0].split(" | ")[0].strip() == "id"
        assert the_one(simulator).id in ran.out
        assert shell("backfills", "--status", "failed", "-o", "json").json == []

    @pytest.mark.parametrize("listing", ["jobs", "backfills"])
    def test_of_an_unknown_state_are_refused(self, simulator: Simulator, shell: Run, listing: str) -> None:
        ran = shell(listing, "--status", "bogus")
        assert (ran.code, ran.out) == (2, "")
        assert "argument --status: invalid choice: 'bogus' (choose from " in ran.err
        assert "failed" in ran.err
        assert not simulator.requests

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--limit", "0"), "--limit: got 0, allowed is a whole number from 1."),
            (("--limit", "x"), "argument --limit: invalid int value: 'x'"),
            (("--since", "soon"), "--since: got 'soon', allowed is a time"),
        ],
    )
    def test_with_invalid_options_are_refused(self, shell: Run, arguments: tuple[str, ...], said: str) -> None:
        ran = shell("jobs", *arguments)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err


def test_commands_do_not_wait_for_the_rate_limit(simulator: Simulator, shell: Run) -> None:
    with simulated_time() as travel:
        headers = {"x-ratelimit-limit": "1000", "x-ratelimit-remaining": "1", "x-ratelimit-reset": "60"}
        PlanasonixHook().client().rate_limiter.update(200, headers)
        assert PlanasonixHook().client().rate_limiter.delay()
        assert shell("jobs").code == 0
        assert travel.passed == 0


class TestAJob:
    @pytest.mark.parametrize("form", ["json", "yaml", "table", "plain"])
    def test_does_not_show_an_api_key_that_planasonix_sends_back(
        self, simulator: Simulator, shell: Run, form: str
    ) -> None:
        told = f"Bearer {API_KEY} may not read it."
        simulator.plan(CONNECTION, outcome="failed", message=told, queued_seconds=0, running_seconds=0)
        job = simulator.workspace.start_sync(CONNECTION)
        for arguments in (("job", job.id), ("jobs", "--connection-id", CONNECTION)):
            ran = shell(*arguments, "-o", form)
            assert ran.code == 0
            assert job.id in ran.out
            assert API_KEY not in ran.out + ran.err
        assert "Bearer *** may not" in shell("job", job.id, "-o", "json").out

    def test_is_shown_with_all_fields_of_the_api(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, outcome="failed", code="disk_full", queued_seconds=0, running_seconds=0)
        job = simulator.workspace.start_sync(CONNECTION)
        ran = shell("job", job.id, "-o", "json")
        assert ran.code == 0, "the request has succeeded, although the job has failed"
        assert ran.json["error"]["code"] == "disk_full"
        assert "error.code" in shell("job", job.id).out

    def test_that_others_started_can_be_waited_for(self, simulator: Simulator, shell: Run) -> None:
        job = simulator.workspace.start_sync(CONNECTION)
        ran = shell("job", job.id, *QUICK_WAIT)
        assert (ran.code, ran.json["status"], ran.json["tables_total"]) == (0, "succeeded", 1)

    def test_that_others_started_runs_on_after_ctrl_c(self, simulator: Simulator, at_a_terminal: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        ran = at_a_terminal("job", job.id, *QUICK_WAIT, answers=(("is running", press),))
        assert (ran.code, ran.json["status"]) == (130, "running")
        assert "[y/N" not in ran.err

    def test_that_failed_before_fails_the_wait(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, outcome="failed", queued_seconds=0, running_seconds=0)
        assert shell("job", simulator.workspace.start_sync(CONNECTION).id, *QUICK_WAIT).code == 3

    def test_that_does_not_exist_is_an_error(self, shell: Run) -> None:
        ran = shell("job", "job_0", "--wait")
        assert (ran.code, ran.out) == (1, "")
        assert "GET /api/v1/jobs/job_0: answered 404 Not Found" in ran.err

    def test_has_results(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0, tables={"a": 1, "b": 2})
        job = simulator.workspace.start_sync(CONNECTION)
        ran = shell("results", job.id, "-o", "json")
        assert (ran.code, ran.json["job_id"]) == (0, job.id)
        assert {table["name"]: table["rows_loaded"] for table in ran.json["tables"]} == {"a": 1, "b": 2}


class TestAWatch:
    @pytest.mark.parametrize(
        ("plan", "code", "status"),
        [
            ({}, 0, "succeeded"),
            ({"outcome": "failed"}, 3, "failed"),
            ({"queued_seconds": 0, "running_seconds": 0}, 0, "succeeded"),
        ],
        ids=str,
    )
    def test_of_a_job_has_the_exit_code_of_a_wait(
        self, simulator: Simulator, shell: Run, plan: dict[str, Any], code: int, status: str
    ) -> None:
        simulator.plan(CONNECTION, **plan)
        job = simulator.workspace.start_sync(CONNECTION)
        ran = shell("watch", job.id, *QUICK_WAIT[1:])
        assert (ran.code, ran.json["job_id"], ran.json["status"]) == (code, job.id, status)

    @pytest.mark.parametrize(("failing", "code"), [([], 0), ([1], 3)])
    def test_of_a_backfill_has_the_exit_code_of_a_wait(
        self, simulator: Simulator, shell: Run, failing: list[int], code: int
    ) -> None:
        simulator.plan_backfill(CONNECTION, jobs=2, job_seconds=0.02, failing_jobs=failing)
        shell("backfill", CONNECTION, *WINDOW)
        ran = shell("watch", the_one(simulator).id, *QUICK_WAIT[1:])
        assert (ran.code, ran.json["backfill_id"]) == (code, the_one(simulator).id)
        assert routes_asked(simulator)[1] == "get_backfill"

    @pytest.mark.parametrize("given", ["job_7", "other_7"])
    def test_finds_a_backfill_by_any_id(
        self, simulator: Simulator, shell: Run, monkeypatch: pytest.MonkeyPatch, given: str
    ) -> None:
        shell("backfill", CONNECTION, *WINDOW)
        monkeypatch.setattr(ShellHook, "get_backfill", lambda hook, _: hook.list_backfills().__next__())
        assert shell("watch", given, *QUICK_WAIT[1:]).json["backfill_id"] == the_one(simulator).id

    def test_that_times_out_leaves_the_job_running(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        ran = shell("watch", job.id, *QUICK_WAIT[1:], "--timeout", "0.1")
        assert (ran.code, job.cancel_requested_at) == (5, None)

    def test_ends_with_ctrl_c_and_leaves_the_job_running(self, simulator: Simulator, at_a_terminal: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        ran = at_a_terminal("watch", job.id, *QUICK_WAIT[1:], answers=(("is running", press),))
        assert (ran.code, ran.json["status"], job.cancel_requested_at) == (130, "running", None)
        assert "[y/N" not in ran.err

    @pytest.mark.parametrize(("given", "route"), [("job_0", "jobs"), ("bf_0", "backfills")])
    def test_of_an_unknown_id_is_an_error(self, simulator: Simulator, shell: Run, given: str, route: str) -> None:
        ran = shell("watch", given)
        assert (ran.code, ran.out) == (1, "")
        said = f"There is no job and no backfill with the id {given}. GET /api/v1/{route}/{given}: answered 404"
        assert ran.last_line.startswith(said)
        assert sorted(routes_asked(simulator)) == ["get_backfill", "get_job"]


class TestResultsOfARunningJob:
    @pytest.fixture
    def job_id(self, simulator: Simulator) -> str:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60)
        return simulator.workspace.start_sync(CONNECTION).id

    def test_are_not_available_until_it_is_over(self, shell: Run, job_id: str) -> None:
        ran = shell("results", job_id)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith(f"Job {job_id} has no results yet: GET /api/v1/jobs/{job_id}/results: answered 409")
        assert ran.last_line.endswith(f"To wait until it is over: `python -m planasonix_provider job {job_id} --wait`")

    def test_are_partial_if_the_api_returns_them(self, simulator: Simulator, shell: Run, job_id: str) -> None:
        simulator.workspace.configure(results_policy="partial")
        ran = shell("results", job_id, "-o", "json")
        assert (ran.code, ran.json["status"]) == (0, "running")
        assert ran.err == (
            f"Job {job_id} is running, and these are its results so far. To wait until it is over: "
            f"`python -m planasonix_provider job {job_id} --wait`\n"
        )


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (
            ("cancel", "bf_1"),
            "bf_1 looks like the id of a backfill: `python -m planasonix_provider cancel --backfill bf_1`",
        ),
        (
            ("cancel", "--backfill", "job_1"),
            "job_1 looks like the id of a job: `python -m planasonix_provider cancel job_1`",
        ),
        (("job", "bf_1"), "bf_1 looks like the id of a backfill: `python -m planasonix_provider backfill-status bf_1`"),
        (
            ("results", "bf_1"),
            "bf_1 looks like the id of a backfill: `python -m planasonix_provider backfill-status bf_1`",
        ),
        (("backfill-status", "job_1"), "job_1 looks like the id of a job: `python -m planasonix_provider job job_1`"),
        (("cancel", "x_1"), ""),
    ],
    ids=str,
)
def test_an_id_of_the_other_kind_suggests_the_right_command(shell: Run, typed: tuple[str, ...], meant: str) -> None:
    ran = shell(*typed)
    assert ran.code == 1
    assert "answered 404" in ran.err
    assert ran.last_line.endswith(meant)
    assert ("looks like" in ran.err) is bool(meant)


@pytest.mark.parametrize("command", [("job", "job_1"), ("backfill-status", "bf_1"), ("cancel", "job_1"), ("sync", "c")])
def test_a_timeout_without_a_wait_is_refused(simulator: Simulator, shell: Run, command: tuple[str, ...]) -> None:
    ran = shell(*command, "--timeout", "30")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "--timeout: got a time without --wait, so there is nothing to wait for: add --wait.\n"
    assert simulator.requests == []


@pytest.mark.usefixtures("min_poll_seconds")
def test_a_poll_interval_below_the_minimum_is_refused(simulator: Simulator, shell: Run) -> None:
    ran = shell("job", "job_1", "--wait", "--poll-interval", "0.1")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "--poll-interval: got '0.1', allowed is a number of seconds from 0.5, or a timedelta.\n"
    assert simulator.requests == []


def test_a_backfill_is_shown_or_waited_for(simulator: Simulator, shell: Run) -> None:
    shell("backfill", CONNECTION, *WINDOW)
    backfill_id = the_one(simulator).id
    assert shell("backfill-status", backfill_id, "-o", "json").json["id"] == backfill_id
    ran = shell("backfill-status", backfill_id, *QUICK_WAIT)
    assert (ran.code, ran.json["status"]) == (0, "completed")


class TestACancel:
    def test_of_a_job_is_requested(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        ran = shell("cancel", job.id, "-o", "json")
        assert (ran.code, ran.json["job_id"]) == (0, job.id)
        assert ran.err == f"Job {job.id} was asked to cancel: it is {ran.json['status']}.\n"
        assert simulator.job(job.id).status in ENDED

    def test_with_a_wait_ends_with_the_job(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        ran = shell("cancel", simulator.workspace.start_sync(CONNECTION).id, *QUICK_WAIT)
        assert (ran.code, ran.json["status"]) == (0, "cancelled")

    def test_of_an_ended_job_is_no_error(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0)
        job = simulator.workspace.start_sync(CONNECTION)
        ran = shell("cancel", job.id, *QUICK_WAIT)
        assert (ran.code, ran.json["status"]) == (0, "succeeded")
        assert ran.err == f"Job {job.id} is over: it is succeeded.\n"

    def test_of_an_unknown_job_is_an_error(self, shell: Run) -> None:
        ran = shell("cancel", "job_0", "-o", "json")
        assert (ran.code, ran.out) == (1, "")
        assert "POST /api/v1/jobs/job_0/cancel: answered 404" in ran.err

    def test_can_be_interrupted(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60, cancelling_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        call_on_request(simulator, "get_job", press)
        ran = shell("cancel", job.id, *QUICK_WAIT)
        assert (ran.code, ran.json["job_id"]) == (130, job.id)
        assert "It was asked to cancel." in ran.last_line

    @pytest.mark.parametrize("more", [(), QUICK_WAIT], ids=["no wait", "--wait"])
    def test_interrupted_before_the_response_has_an_unknown_effect(
        self, simulator: Simulator, shell: Run, more: tuple[str, ...]
    ) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        simulator.fail("hang", route="cancel_job", seconds=600)
        call_on_request(simulator, "cancel_job", press)
        ran = shell("cancel", job.id, *more)
        assert (ran.code, ran.out) == (130, "")
        assert "It is unknown whether it was asked to cancel. To wait for it again: `python" in ran.last_line
        assert ran.last_line.endswith(f"To cancel it: `python -m planasonix_provider cancel {job.id}`")

    def test_of_an_invalid_id_is_refused(self, simulator: Simulator, shell: Run) -> None:
        for more in ((), ("--backfill",)):
            ran = shell("cancel", "a/b", *more)
            assert (ran.code, ran.out) == (2, "")
            assert ran.err.startswith(f"{'backfill' if more else 'job'}_id: got 'a/b', allowed is an id")
        assert not simulator.requests

    def test_that_times_out_has_its_own_exit_code(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60, cancelling_seconds=60)
        ran = shell("cancel", simulator.workspace.start_sync(CONNECTION).id, *QUICK_WAIT, "--timeout", "0.1")
        assert (ran.code, ran.json["status"]) == (5, "cancelling")

    def test_of_a_backfill_cancels_its_new_jobs_too(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan_backfill(CONNECTION, **STUBBORN)
        shell("backfill", CONNECTION, *WINDOW)
        ran = shell("cancel", "--backfill", the_one(simulator).id, *QUICK_WAIT)
        assert (ran.code, ran.json["status"]) == (0, "cancelled")
        assert {job.status for job in simulator.jobs()} == {"cancelled"}

    def test_of_a_backfill_without_jobs_has_nothing_to_cancel(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan_backfill(CONNECTION, **{**STUBBORN, "queued_seconds": 60})
        shell("backfill", CONNECTION, *WINDOW)
        ran = shell("cancel", "--backfill", the_one(simulator).id)
        assert ran.code == 1
        assert the_one(simulator).id in ran.out
        assert "has made no jobs yet, so there is nothing to cancel. Try later, or add --wait" in ran.err

    def test_of_a_backfill_without_jobs_waits_for_them(self, simulator: Simulator, shell: Run) -> None:
        with simulated_time():
            simulator.plan_backfill(CONNECTION, **{**STUBBORN, "queued_seconds": 0.4})
            shell("backfill", CONNECTION, *WINDOW)
            ran = shell("cancel", "--backfill", the_one(simulator).id, *QUICK_WAIT)
        assert "has made no jobs yet" in ran.err
        assert (ran.code, ran.json["status"]) == (0, "cancelled")


class TestPing:
    def test_reports_a_working_connection(self, simulator: Simulator, shell: Run) -> None:
        ran = shell("ping", "-o", "json")
        assert (ran.code, ran.err) == (0, "")
        assert ran.json == {
            "conn_id": "planasonix_default",
            "works": True,
            "message": f"Connected to {simulator.url}. The API key may read jobs.",
        }

    def test_reports_the_error_of_a_connection(self, shell: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(
            "AIRFLOW_CONN_DEAD",
            '{"conn_type": "planasonix", "host": "http://127.0.0.1:1", "password": "plnx_dead"}',
        )
        ran = shell("ping", "--conn-id", "dead")
        assert (ran.code, ran.out) == (1, "")
        assert "connection refused at http://127.0.0.1:1" in ran.err

    def test_reports_an_unknown_connection(self, shell: Run) -> None:
        ran = shell("ping", "--conn-id", "nope")
        assert ran.code == 1
        assert "or set AIRFLOW_CONN_NOPE for every process of Airflow" in ran.last_line


def test_openapi_is_printed_unchanged(shell: Run) -> None:
    ran = shell("openapi")
    assert ran.code == 0
    assert ran.out.startswith("openapi: 3")
