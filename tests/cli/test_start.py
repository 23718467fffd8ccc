from __future__ import annotations

import argparse
import os
import shlex
from types import SimpleNamespace
from typing import Any

import pytest

from planasonix_provider import start_parameters, validators
from planasonix_provider.cli import commands, start
from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.start_parameters import StartParameter
from tests.cli.conftest import QUICK_WAIT, Run, call_on_request, press
from tests.conftest import API_KEY
from tests.support.hanging_responses import Hanging
from tests.support.scenarios import CONNECTION, routes_asked, the_one

WINDOW = ("--start-at", "2025-01-01", "--end-at", "2025-03-01T00:00:00+01:00")


class TestASync:
    def test_has_the_given_parameters(self, simulator: Simulator, shell: Run) -> None:
        metadata = ("--metadata", "ticket=OPS-1", "--metadata", '{"tries": 2, "ticket": "OPS-2"}')
        ran = shell("sync", CONNECTION, "--pipeline-id", "pl_1", "--priority", "high", *metadata, "-o", "json")
        (job,) = simulator.jobs()
        assert ran.code == 0
        assert ran.json["job_id"] == job.id
        assert ran.json["status"] == "queued"
        assert (job.pipeline_id, job.metadata) == ("pl_1", {"ticket": "OPS-2", "tries": 2})
        assert ran.err == f"Started job {job.id} on connection {CONNECTION}: {simulator.url}/jobs/{job.id}\n"

    def test_has_a_new_idempotency_key_unless_one_is_given(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, times=None, queued_seconds=0, running_seconds=0)
        shell("sync", CONNECTION)
        shell("sync", CONNECTION)
        one, other = [request.headers["idempotency-key"] for request in simulator.requests]
        assert one != other
        again = [shell("sync", CONNECTION, "--idempotency-key", "mine", "-o", "json").json["job_id"] for _ in range(2)]
        assert again[0] == again[1]
        assert simulator.requests[-1].headers["idempotency-key"] == "mine"

    def test_with_a_wait_shows_its_results(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, tables={"public.orders": 44_802}, warnings=[{"code": "w", "message": "m"}])
        ran = shell("sync", CONNECTION, *QUICK_WAIT)
        assert ran.code == 0
        assert ran.json["metrics"]["rows_loaded"] == 44_802
        assert [(table["name"], table["rows_loaded"]) for table in ran.json["tables"]] == [("public.orders", 44_802)]
        assert ran.json["warnings"] == [{"code": "w", "message": "m"}]
        lines = ran.err.splitlines()
        assert lines[0].startswith("Started job job_")
        assert " is queued" in lines[1]
        assert lines[-2:] == [f"Job {ran.json['job_id']} warns: w: m", "Loaded 44,802 rows into 1 table."]
        assert "\x1b" not in ran.err, "only a terminal gets a progress bar"

    def test_that_fails_shows_its_error_and_its_last_state(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, outcome="failed", code="source_unreachable", message="no route to [/db]\nat all")
        ran = shell("sync", CONNECTION, *QUICK_WAIT)
        assert ran.code == 3
        assert ran.json["status"] == "failed"
        assert ran.json["error"] == {"code": "source_unreachable", "message": "no route to [/db]\nat all"}
        job = simulator.jobs()[0]
        assert ran.last_line == (
            f"Job failed: source_unreachable: no route to [/db] at all (job {job.id}). "
            f"See {simulator.url}/jobs/{job.id}"
        )

    def test_that_is_repeated_after_it_failed_shows_its_error(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, outcome="failed", code="disk_full")
        command = ("sync", CONNECTION, *QUICK_WAIT, "--idempotency-key", "mine")
        first, second = shell(*command), shell(*command)
        assert (first.code, second.code) == (3, 3)
        assert first.json["error"]["code"] == "disk_full"
        assert first.json["finished_at"]
        assert second.json == first.json

    def test_that_another_user_cancels_has_its_own_exit_code(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        call_on_request(simulator, "get_job", lambda: simulator.workspace.cancel(simulator.jobs()[0].id))
        ran = shell("sync", CONNECTION, *QUICK_WAIT)
        assert (ran.code, ran.json["status"]) == (4, "cancelled")

    def test_that_conflicts_names_the_active_job(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        ran = shell("sync", CONNECTION, "--wait")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.endswith(f"To wait for it: `python -m planasonix_provider job {job.id} --wait`\n")

    @pytest.mark.parametrize(
        ("job_id", "hint"),
        [
            ("job_$(reboot)", "To wait for it: `python -m planasonix_provider job 'job_$(reboot)' --wait`"),
            ("1; reboot", None),
        ],
    )
    def test_that_conflicts_suggests_no_unsafe_command(
        self, simulator: Simulator, shell: Run, monkeypatch: pytest.MonkeyPatch, job_id: str, hint: str | None
    ) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise ApiError("sync_in_progress", "a sync is in progress", existing_job_id=job_id)

        monkeypatch.setattr(simulator.workspace, "start_sync", refuse)
        ran = shell("sync", CONNECTION)
        assert ran.code == 1
        assert job_id in ran.last_line
        assert ran.last_line.endswith(hint) if hint else "planasonix_provider" not in ran.last_line


class TestAFailedStart:
    def test_a_later_error_is_no_usage_error(
        self, simulator: Simulator, shell: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise ValueError("not of what was typed")

        monkeypatch.setattr(start, "report", fail)
        with pytest.raises(ValueError, match="not of what was typed"):
            shell("sync", CONNECTION)
        assert len(simulator.jobs()) == 1

    def test_is_retried_if_it_had_no_effect(self, simulator: Simulator, shell: Run) -> None:
        simulator.fail("status", route="trigger_sync", status=429)
        ran = shell("sync", CONNECTION)
        assert ran.code == 0
        assert "Trying again in 0.0 s." in ran.err
        assert len(simulator.jobs()) == 1

    @pytest.mark.parametrize(
        ("command", "route", "listing"),
        [
            (("sync", CONNECTION), "trigger_sync", "jobs"),
            (("backfill", CONNECTION, *WINDOW), "trigger_backfill", "backfills"),
        ],
        ids=["sync", "backfill"],
    )
    def test_reports_an_unknown_effect(
        self, simulator: Simulator, shell: Run, command: tuple[str, ...], route: Any, listing: str
    ) -> None:
        simulator.fail("reset", route=route, when="after")
        ran = shell(*command, "--idempotency-key", "mine")
        assert (ran.code, ran.out) == (6, "")
        assert routes_asked(simulator) == [route]
        look = f"`python -m planasonix_provider {listing} --connection-id {CONNECTION}`"
        assert f"It is unknown whether the {command[0]} was started: check with {look} before you" in ran.last_line
        assert "With --idempotency-key mine a server" in ran.last_line

    @pytest.mark.parametrize(
        ("typed", "said"),
        [
            ("sync C --metadata x", "--metadata: got 'x', allowed is KEY=VALUE, or a JSON object."),
            ("sync C --wait --timeout 0", "--timeout: got '0', allowed is a number of seconds above 0"),
            ("sync C --poll-interval x", "--poll-interval: got 'x', allowed is a number of seconds"),
            ("sync ' '", "connection_id: got ' ', allowed is"),
            ("sync C --priority urgent", "argument --priority: invalid choice: 'urgent'"),
            ("sync", "the following arguments are required: connection_id"),
            ("backfill C --start-at x --end-at 2025-01-01", "--start-at: got 'x', allowed is a"),
            (
                "backfill C --start-at 2025-01-02 --end-at 2025-01-01",
                "--end-at: got '2025-01-01', allowed is a time after --start-at (2025-01-02).",
            ),
            (f"backfill C {shlex.join(WINDOW)} --tables a,b --tables a", "--tables: got ['a', 'b', 'a'],"),
            (f"backfill C {shlex.join(WINDOW)} --tables ,", "--tables: got [], allowed is a list of table names"),
        ],
    )
    def test_with_invalid_arguments_sends_no_request(
        self, simulator: Simulator, shell: Run, typed: str, said: str
    ) -> None:
        ran = shell(*shlex.split(typed))
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
        assert not simulator.requests


class TestAnInterruptDuringAStart:
    def test_takes_effect_after_the_response(self, simulator: Simulator, shell: Run, hanging: Hanging) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.fail("hang", route="trigger_sync")
        call_on_request(simulator, "trigger_sync", lambda: (press(), hanging.ends()))
        ran = shell("sync", CONNECTION, "--wait", "-o", "json")
        assert ran.code == 130
        assert ran.json["job_id"] == simulator.jobs()[0].id
        assert "Interrupted: the command ends when the response to the start has arrived." in ran.err
        assert "It was not cancelled, and runs on." in ran.last_line

    def test_is_ignored_without_a_wait(self, simulator: Simulator, shell: Run, hanging: Hanging) -> None:
        simulator.fail("hang", route="trigger_sync")
        call_on_request(simulator, "trigger_sync", lambda: (press(), hanging.ends()))
        ran = shell("sync", CONNECTION, "-o", "json")
        assert (ran.code, ran.json["job_id"]) == (0, simulator.jobs()[0].id)

    def test_ends_the_command_at_once_the_second_time(self, simulator: Simulator, at_a_terminal: Run) -> None:
        simulator.fail("hang", route="trigger_sync", seconds=600)
        call_on_request(simulator, "trigger_sync", press)
        ran = at_a_terminal("sync", CONNECTION, answers=(("Interrupted: the command ends when", press),))
        assert (ran.code, ran.out) == (6, "")
        assert "Interrupted. It is unknown whether the sync was started" in ran.err

    def test_between_two_tries_ends_the_command_with_nothing_started(self, simulator: Simulator, shell: Run) -> None:
        simulator.fail("status", route="trigger_sync", status=429, headers={"Retry-After": "20"}, times=None)
        call_on_request(simulator, "trigger_sync", press)
        ran = shell("sync", CONNECTION)
        assert (ran.code, ran.last_line) == (130, "Interrupted before anything was started.")
        assert not simulator.jobs()


@pytest.mark.parametrize(
    ("typed", "sent"), [((), None), (("--full-refresh",), True), (("--no-full-refresh",), False)], ids=str
)
def test_a_boolean_parameter_needs_only_its_row_in_the_table(
    monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...], sent: bool | None
) -> None:
    flag = StartParameter("full_refresh", validators.flag, "load all rows again", is_flag=True)
    monkeypatch.setattr(start_parameters, "START_PARAMETERS", (flag,))
    parser = argparse.ArgumentParser()
    for option in commands._start_options("sync"):
        parser.add_argument(*option.flags, help=option.help, **option.keywords)
    context: Any = SimpleNamespace(options=parser.parse_args([CONNECTION, *typed]))
    assert start._parameters(context, "sync") == {"full_refresh": sent}


class TestABackfill:
    def test_has_the_given_parameters(self, simulator: Simulator, shell: Run) -> None:
        tables = ("--tables", "public.orders, public.items", "--tables", "public.x")
        ran = shell("backfill", CONNECTION, *WINDOW, *tables, "--metadata", "reason=replay", "-o", "json")
        backfill = the_one(simulator)
        assert ran.code == 0
        assert ran.json["backfill_id"] == backfill.id
        assert ran.json["start_at"] == "2025-01-01T00:00:00Z"
        assert ran.json["end_at"] == "2025-02-28T23:00:00Z"
        assert backfill.tables == ["public.orders", "public.items", "public.x"]
        assert backfill.metadata == {"reason": "replay"}

    def test_with_a_wait_shows_its_results(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan_backfill(CONNECTION, jobs=4, job_seconds=0.05)
        ran = shell("backfill", CONNECTION, *WINDOW, *QUICK_WAIT)
        assert (ran.code, ran.json["status"], ran.json["jobs_total"]) == (0, "completed", 4)

    def test_that_fails_shows_its_error(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan_backfill(CONNECTION, jobs=3, job_seconds=0.02, failing_jobs=[1], code="disk_full")
        ran = shell("backfill", CONNECTION, *WINDOW, *QUICK_WAIT)
        assert (ran.code, ran.json["status"]) == (3, "failed")
        assert "disk_full" in ran.last_line

    def test_that_is_repeated_after_it_failed_shows_the_same(self, simulator: Simulator, shell: Run) -> None:
        simulator.plan_backfill(CONNECTION, jobs=1, job_seconds=0.02, failing_jobs=[0], code="disk_full")
        command = ("backfill", CONNECTION, *WINDOW, *QUICK_WAIT, "--idempotency-key", "mine")
        first, second = shell(*command), shell(*command)
        assert (first.code, second.code) == (3, 3)
        assert second.json == first.json

    def test_with_an_end_in_the_future_logs_a_warning(self, simulator: Simulator, shell: Run) -> None:
        ran = shell("backfill", CONNECTION, "--start-at", "2025-01-01", "--end-at", "2999-01-01")
        assert ran.code == 0
        assert ran.err.startswith("--end-at is in the future (2999-01-01 00:00:00+00:00)")


def test_the_key_is_never_shown(simulator: Simulator, shell: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "plnx_wrong_51e0a7"
    connection = os.environ["AIRFLOW_CONN_PLANASONIX_DEFAULT"]
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", connection.replace(API_KEY, wrong))
    for conn_id, code in {"planasonix_default": 0, "wrong": 1}.items():
        ran = shell("sync", CONNECTION, "--conn-id", conn_id, "-o", "json")
        assert ran.code == code
        assert wrong not in ran.out + ran.err
        assert API_KEY not in ran.out + ran.err
