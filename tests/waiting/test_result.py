from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from planasonix_provider.api.errors import (
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixLostTrackError,
)
from planasonix_provider.api.models import Backfill, Job, JobResults, JobWarning, TableResult
from planasonix_provider.api.states import JOB_OVER
from planasonix_provider.testing.travelled_clock import travel_clock
from planasonix_provider.waiting.result import WorkResult, explain, fetch_result
from planasonix_provider.waiting.result_fetcher import ResultFetcher
from planasonix_provider.waiting.targets import Work
from tests.support.api_errors import api_error
from tests.support.memory_api import MemoryApi, fail_always, fail_once

BEGAN = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)
DOWN = api_error(503)
FORBIDDEN = api_error(403)


class Task:
    """A task that fetches a result, and its log."""

    def __init__(self, there: MemoryApi) -> None:
        self.lines: list[str] = []
        self.fetcher = ResultFetcher(there.send_async, 10, lambda line: self.lines.append(f"! {line}"))

    def account_for(self, work: Work) -> WorkResult:
        with travel_clock(BEGAN) as travel:
            return travel.run(fetch_result(work, self.fetcher, job_url=url, info=self.lines.append))

    def explain(self, backfill: Backfill) -> WorkResult:
        with travel_clock(BEGAN) as travel:
            return travel.run(explain(backfill, self.fetcher, job_url=url))


def url(job_id: str) -> str:
    return f"https://x/{job_id}"


def loaded(job_id: str, *rows: int, warnings: int = 0) -> JobResults:
    return JobResults(
        job_id=job_id,
        status="succeeded",
        tables=[TableResult(name=f"table_{number}", rows_loaded=loaded) for number, loaded in enumerate(rows)],
        warnings=[JobWarning(code="odd", message="It is odd.")] * warnings,
    )


def api(*states: str, status: str = "completed", **fields: Any) -> MemoryApi:
    """Return an API with a backfill whose jobs have these states, oldest first."""
    jobs = [
        Job.model_validate(
            {
                "id": f"job_{number}",
                "status": state,
                "connection_id": "conn_1",
                "created_at": BEGAN,
                "finished_at": BEGAN if state in JOB_OVER else None,
                "error": {"code": f"code_{number}", "message": "No route."} if state == "failed" else None,
            }
        )
        for number, state in enumerate(states)
    ]
    backfill = Backfill(
        id="bf_1", status=status, connection_id="conn_1", created_at=BEGAN, job_ids=[job.id for job in jobs]
    )
    return MemoryApi(jobs[::-1], [backfill], **fields)


def backfill_without_jobs(there: MemoryApi) -> Backfill:
    """Return the backfill as a trigger passes it on: without its jobs."""
    return there.backfills[0].model_copy(update={"job_ids": None})


class TestResultOfAJob:
    def test_has_the_loaded_tables_in_report_and_log(self) -> None:
        there = api("succeeded", results={"job_0": loaded("job_0", 3, 4, warnings=1)})
        task = Task(there)
        account = task.account_for(there.jobs[0])
        assert account.error is None
        assert account.url == "https://x/job_0"
        assert account.report["job_id"] == "job_0"
        assert [table["rows_loaded"] for table in account.report["tables"]] == [3, 4]
        assert task.lines == ["! Job job_0 warns: odd: It is odd.", "Loaded 7 rows into 2 tables."]
        assert there.requests == ["results job_0"]

    @pytest.mark.parametrize(
        ("status", "error"), [("failed", PlanasonixJobFailedError), ("cancelled", PlanasonixJobCancelledError)]
    )
    def test_without_success_is_an_error_and_sends_no_request(self, status: str, error: type[Exception]) -> None:
        there = api(status)
        account = Task(there).account_for(there.jobs[0])
        assert type(account.error) is error
        assert "See https://x/job_0" in str(account.error)
        assert account.report is None
        assert there.requests == []

    @pytest.mark.parametrize(
        ("status", "words"),
        [("succeeded", None), ("failed", "Job failed: code_0: No route (job job_0)."), ("cancelled", "was cancelled")],
    )
    def test_is_complete_if_the_job_comes_from_a_list(self, status: str, words: str | None) -> None:
        there = api(status, results={"job_0": loaded("job_0", 3)})
        listed = Job(id="job_0", status=status, created_at=BEGAN)
        account = Task(there).account_for(listed)
        assert there.requests[0] == "get job_0"
        if words:
            assert words in str(account.error)
        else:
            assert account.report["finished_at"] == BEGAN.strftime("%Y-%m-%dT%H:%M:%SZ")

    def test_logs_that_the_report_is_shortened(self) -> None:
        there = api("succeeded", results={"job_0": loaded("job_0", *[1] * 1_200, warnings=1_100)})
        task = Task(there)
        task.account_for(there.jobs[0])
        assert task.lines[-4:] == [
            "These are the first 1,000 of 1,100 warnings.",
            "Loaded 1,200 rows into 1,200 tables.",
            "The task's result lists the first 1,000 of 1,200 tables, and counts them all.",
            "The task's result lists the first 1,000 of 1,100 warnings, and counts them all.",
        ]


class TestResultOfABackfill:
    def test_has_the_tables_of_all_jobs(self) -> None:
        there = api("succeeded", "succeeded", results={"job_0": loaded("job_0", 3), "job_1": loaded("job_1", 4, 5)})
        task = Task(there)
        account = task.account_for(backfill_without_jobs(there))
        assert account.error is None
        assert account.url == "https://x/job_0"
        assert account.report["rows_loaded"] == 12
        assert [job["job_id"] for job in account.report["jobs"]] == ["job_0", "job_1"]
        assert task.lines == ["Loaded 12 rows into 2 tables by 2 jobs."]

    def test_requests_each_job_once_and_five_at_a_time(self) -> None:
        there = api(*["succeeded"] * 200)
        account = Task(there).account_for(backfill_without_jobs(there))
        assert sorted(there.requests) == sorted(["get bf_1", *(f"results job_{number}" for number in range(200))])
        assert there.most_in_flight == 5
        assert account.report["jobs_total"] == 200

    def test_waits_for_late_results_and_requests_no_other_job_again(self) -> None:
        there = api("succeeded", "succeeded", "succeeded", get_error=fail_once("results job_1", DOWN))
        task = Task(there)
        account = task.account_for(backfill_without_jobs(there))
        assert account.report["jobs_total"] == 3
        assert len(there.requests) == 1 + 3 + 1
        assert "Job job_1 is over, but its results cannot be fetched yet, still trying: 503" in task.lines[0]

    def test_is_an_error_of_the_task_without_permission_for_the_results(self) -> None:
        there = api("succeeded", get_error=fail_always("results", FORBIDDEN))
        with pytest.raises(PlanasonixLostTrackError, match="its results cannot be fetched"):
            Task(there).account_for(backfill_without_jobs(there))

    def test_without_jobs_has_no_rows(self) -> None:
        there = api()
        account = Task(there).account_for(backfill_without_jobs(there))
        assert account.url is None
        assert (account.report["rows_loaded"], account.report["jobs"]) == (0, [])

    def test_of_a_failure_names_the_failed_jobs_and_links_to_the_first(self) -> None:
        there = api("succeeded", "failed", "succeeded", "failed", status="failed")
        account = Task(there).account_for(backfill_without_jobs(there))
        assert account.url == "https://x/job_1"
        assert account.report is None
        assert isinstance(account.error, PlanasonixJobFailedError)
        assert account.error.code == "code_1"
        assert str(account.error) == (
            "Backfill failed: Planasonix gave no reason (backfill bf_1). Failed jobs: job_1: code_1: No route; "
            "job_3: code_3: No route. See https://x/job_1"
        )
        assert not [asked for asked in there.requests if asked.startswith("results")]

    def test_of_a_cancel_is_an_error_without_requests_for_jobs(self) -> None:
        there = api("succeeded", "cancelled", status="cancelled")
        account = Task(there).account_for(backfill_without_jobs(there))
        assert isinstance(account.error, PlanasonixJobCancelledError)
        assert account.url == "https://x/job_0"
        assert there.requests == ["get bf_1"]

    def test_is_no_error_if_a_late_server_still_shows_the_backfill_as_running(self) -> None:
        there = api("succeeded", results={"job_0": loaded("job_0", 3)})
        over = backfill_without_jobs(there)
        (current,) = there.backfills
        late = [current.model_copy(update={"status": "running", "job_ids": []})]
        there.get_backfill = lambda _: late.pop() if late else current
        account = Task(there).account_for(over)
        assert account.error is None
        assert account.report["rows_loaded"] == 3

    @pytest.mark.heavy
    def test_logs_that_the_report_is_shortened(self) -> None:
        there = api(*["succeeded"] * 1_000)
        task = Task(there)
        account = task.account_for(backfill_without_jobs(there))
        listed = len(account.report["jobs"])
        assert task.lines[-1] == f"The task's result lists the first {listed} of 1,000 jobs, and counts them all."


class TestAnExplanation:
    def test_requests_the_jobs_one_by_one_if_the_list_fails(self) -> None:
        there = api("succeeded", "failed", status="failed", get_error=fail_always("list", FORBIDDEN))
        account = Task(there).explain(there.backfills[0])
        assert account.url == "https://x/job_1"
        assert "Failed jobs: job_1: code_1: No route." in str(account.error)

    def test_is_short_if_no_details_are_available(self) -> None:
        there = api("succeeded", "failed", status="failed", get_error=lambda _: FORBIDDEN)
        task = Task(there)
        account = task.explain(there.backfills[0])
        assert account.url == "https://x/job_0"
        assert str(account.error) == "Backfill failed: Planasonix gave no reason (backfill bf_1). See https://x/job_0"
        assert task.lines == ["! Which jobs of backfill bf_1 failed cannot be found out: 403"]

    def test_has_no_url_without_a_job(self) -> None:
        backfill = Backfill.model_validate({"id": "bf_1", "status": "failed", "error": {"code": "no_source"}})
        account = Task(MemoryApi()).explain(backfill)
        assert account.url is None
        assert str(account.error) == "Backfill failed: no_source (backfill bf_1)."

    def test_of_an_unknown_state_is_an_error(self) -> None:
        there = api("succeeded", status="paused")
        account = Task(there).explain(there.backfills[0])
        assert isinstance(account.error, PlanasonixLostTrackError)
        assert there.requests == []
