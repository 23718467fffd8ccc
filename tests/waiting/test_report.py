from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from planasonix_provider.api.models import Job, JobResults, JobWarning, TableResult
from planasonix_provider.waiting.report import error_of_work, log_results, report_job

URL = "https://app.planasonix.com/jobs/job_1"


def test_a_report_is_plain_json_with_every_field_there() -> None:
    job = Job(id="job_1", status="succeeded", created_at=datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC))
    results = JobResults(job_id="job_1", status="succeeded", tables=[TableResult(name="public.orders", rows_loaded=3)])
    answer = report_job(job, URL, results)
    assert json.loads(json.dumps(answer)) == answer
    assert answer == {
        "job_id": "job_1",
        "job_url": URL,
        "status": "succeeded",
        "type": None,
        "connection_id": None,
        "pipeline_id": None,
        "created_at": "2025-03-27T14:22:10Z",
        "queued_at": None,
        "started_at": None,
        "finished_at": None,
        "duration_seconds": None,
        "metrics": None,
        "tables": [{"name": "public.orders", "rows_loaded": 3, "checksum": None}],
        "tables_total": 1,
        "warnings": [],
        "warnings_total": 0,
    }


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"code": "source_unreachable", "message": "No route"}, "source_unreachable: No route"),
        ({"code": "source_unreachable"}, "source_unreachable"),
        ("just a text", "just a text"),
        (None, "Planasonix gave no reason"),
    ],
)
def test_a_failure_tells_what_the_api_tells(error: object, reason: str) -> None:
    failure = error_of_work(Job.model_validate({"id": "job_1", "status": "failed", "error": error}), URL)
    assert str(failure) == f"Job job_1 failed: {reason}. See {URL}"


def test_success_is_no_error() -> None:
    assert error_of_work(Job(id="job_1", status="succeeded"), URL) is None


def test_the_log_has_the_warnings_and_the_sum() -> None:
    lines: list[str] = []
    log_results(
        [
            JobResults(
                job_id="job_1",
                status="succeeded",
                tables=[TableResult(name="a", rows_loaded=1_000), TableResult(name="b", rows_loaded=234)],
                warnings=[JobWarning(code="column_type_widened", message="Column x"), JobWarning()],
            )
        ],
        info=lines.append,
        warn=lambda line: lines.append(f"! {line}"),
    )
    assert lines == [
        "! Warning of the job: column_type_widened: Column x",
        "! Warning of the job: without a code: without a message",
        "Loaded 1,234 rows into 2 tables.",
    ]
