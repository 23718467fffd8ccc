from __future__ import annotations

import json
import re
import weakref
from datetime import UTC, datetime
from itertools import permutations
from typing import ClassVar

import pytest

from planasonix_provider.api.errors import (
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixLostTrackError,
)
from planasonix_provider.api.models import Backfill, Job, JobResults, JobWarning, TableResult
from planasonix_provider.waiting import report
from planasonix_provider.waiting.report import (
    MAX_LIST_BYTES,
    MAX_LISTED,
    Summary,
    error_of_work,
    log_results,
    report_backfill,
    report_job,
)

URL = "https://app.planasonix.com/jobs/job_1"


def test_a_report_is_plain_json_with_all_fields() -> None:
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
def test_the_error_of_a_failed_job_has_the_reason_from_the_api(error: object, reason: str) -> None:
    failure = error_of_work(Job.model_validate({"id": "job_1", "status": "failed", "error": error}), URL)
    assert str(failure) == f"Job failed: {reason} (job job_1). See {URL}"


def test_a_report_has_only_fields_of_the_api_reference() -> None:
    """Airflow would read a dict with such a key from an XCom as an object of a class."""
    foreign = {"__classname__": "builtins.set", "__type": "set", "more": {"__var": 1}}
    job = Job.model_validate(
        {"id": "job_1", "status": "succeeded", "metrics": {"rows_loaded": 7, **foreign}, **foreign}
    )
    results = JobResults.model_validate(
        {
            "job_id": "job_1",
            "status": "succeeded",
            "tables": [{"name": "orders", **foreign}],
            "warnings": [{"code": "odd", **foreign}],
            **foreign,
        }
    )
    backfill = Backfill.model_validate({"id": "bf_1", "status": "completed", **foreign})
    for account in (report_job(job, URL, results), report_backfill(backfill, Summary.of([results]))):
        assert "__" not in json.dumps(account)
        assert "more" not in json.dumps(account)


def test_the_error_of_a_failed_backfill_is_short() -> None:
    reason = {"code": "c" * 3_000, "message": "m" * 3_000}
    failed = [Job.model_validate({"id": f"job_{n}", "status": "failed", "error": reason}) for n in range(20)]
    error = error_of_work(Backfill.model_validate({"id": "bf_1", "status": "failed", "error": reason}), URL, failed)
    assert len(str(error)) < 8_000
    assert str(error).endswith(f"See {URL}")


def test_success_is_no_error() -> None:
    assert error_of_work(Job(id="job_1", status="succeeded"), URL) is None


def test_the_log_has_the_warnings_and_the_sum() -> None:
    lines: list[str] = []
    one = JobResults(
        job_id="job_1",
        status="succeeded",
        tables=[TableResult(name="a", rows_loaded=1_000), TableResult(name="b", rows_loaded=234)],
        warnings=[JobWarning(code="column_type_widened", message="Column x"), JobWarning()],
    )
    log_results(Summary.of([one]), info=lines.append, warn=lambda line: lines.append(f"! {line}"))
    assert lines == [
        "! Job job_1 warns: column_type_widened: Column x",
        "! Job job_1 warns: Planasonix gave no reason",
        "Loaded 1,234 rows into 2 tables.",
    ]


def log(*results: JobResults) -> list[str]:
    lines: list[str] = []
    log_results(Summary.of(results), info=lines.append, warn=lambda line: lines.append(f"! {line}"))
    return lines


def test_the_log_of_many_jobs_counts_each_table_once_and_all_rows() -> None:
    results = [loaded("job_1", a=1, b=2), loaded("job_2", a=3), loaded("job_3", c=None)]
    assert log(*results) == ["Loaded 6 rows into 3 tables by 3 jobs."]


def test_the_log_of_many_jobs_has_the_first_thousand_warnings_and_counts_them() -> None:
    many = [JobResults(job_id=f"job_{n}", status="succeeded", warnings=[JobWarning()] * 400) for n in range(3)]
    lines = log(*many)
    assert len([line for line in lines if line.startswith("!")]) == MAX_LISTED
    assert lines[-2:] == ["These are the first 1,000 of 1,200 warnings.", "Loaded 0 rows into 0 tables by 3 jobs."]


def test_the_log_without_jobs_shows_no_rows_and_no_tables() -> None:
    assert log() == ["Loaded 0 rows into 0 tables."]


def loaded(job_id: str, status: str = "succeeded", **rows: int | None) -> JobResults:
    tables = [TableResult(name=name, rows_loaded=number, checksum="sha256:1") for name, number in rows.items()]
    return JobResults(job_id=job_id, status=status, tables=tables)


class TestTables:
    def test_of_several_jobs_are_listed_once_with_the_rows_of_all(self) -> None:
        tables = Summary.of([loaded("job_1", b=1, a=2), loaded("job_2", a=3, c=4)]).tables
        assert [(table.name, table.rows_loaded) for table in tables] == [("b", 1), ("a", 5), ("c", 4)]

    def test_of_several_jobs_have_a_checksum_only_if_one_job_loaded_them(self) -> None:
        tables = Summary.of([loaded("job_1", b=1, a=2), loaded("job_2", a=3)]).tables
        assert [(table.name, table.checksum) for table in tables] == [("b", "sha256:1"), ("a", None)]

    def test_have_no_row_count_if_no_job_counts_rows(self) -> None:
        assert Summary.of([loaded("job_1", a=None)]).tables[0].rows_loaded is None
        assert Summary.of([loaded("job_1", a=None), loaded("job_2", a=None)]).tables[0].rows_loaded is None
        assert Summary.of([loaded("job_1", a=None), loaded("job_2", a=0)]).tables[0].rows_loaded == 0


@pytest.mark.parametrize("rows", [2**63 - 1, -(2**63) + 1])
def test_a_sum_of_rows_has_no_more_than_64_bits(rows: int) -> None:
    summary = Summary.of([loaded("job_1", a=rows, b=rows), loaded("job_2", a=rows, b=rows)])
    assert summary.rows == rows
    assert [table.rows_loaded for table in summary.tables] == [rows, rows]
    assert [job["rows_loaded"] for job in summary.as_dict()["jobs"]] == [rows, rows]


class TestASummary:
    RESULTS: ClassVar[list[JobResults]] = [
        loaded("job_1", "failed", a=1, b=2),
        loaded("job_2", b=None, c=3),
        JobResults(job_id="job_3", status="succeeded", warnings=[JobWarning(code=f"w{n}") for n in range(700)]),
        JobResults(job_id="job_4", status="succeeded", warnings=[JobWarning(code=f"x{n}") for n in range(700)]),
    ]

    @pytest.mark.parametrize("order", list(permutations(range(4))))
    def test_does_not_depend_on_the_order_of_the_results(self, order: tuple[int, ...]) -> None:
        summary, whole = Summary(), Summary.of(self.RESULTS)
        for position in order:
            summary.add(self.RESULTS[position], position)
        assert summary.as_dict() == whole.as_dict()
        assert summary.tables == whole.tables
        assert summary.warnings == whole.warnings
        assert [warning.code for _, warning in summary.warnings[698:702]] == ["w698", "w699", "x0", "x1"]
        assert (len(summary.warnings), summary.warnings_total) == (MAX_LISTED, 1_400)

    def test_keeps_a_warning_of_an_earlier_job_instead_of_the_last_one(self) -> None:
        summary = Summary()
        for position, count in ((0, MAX_LISTED - 1), (2, 1), (1, 1)):
            results = JobResults(job_id=f"job_{position}", status="succeeded", warnings=[JobWarning()] * count)
            summary.add(results, position)
        assert [job_id for job_id, _ in summary.warnings[-2:]] == ["job_0", "job_1"]

    def test_has_a_limited_number_of_tables_and_counts_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(report, "MAX_TABLES", 2)
        summary = Summary.of([loaded("job_1", a=1, b=2, c=3, d=4), loaded("job_2", b=5, d=6)])
        assert summary.tables == (("a", 1, "sha256:1"), ("b", 7, None))
        assert (summary.tables_total, summary.rows) == (4, 21)

    def test_keeps_no_results_in_memory(self) -> None:
        """With them, a backfill of 10,000 jobs with 100 tables each took 700 MB."""
        summary, refs = Summary(), []
        for position in range(50):
            results = loaded(f"job_{position}", a=1, b=2)
            refs += [weakref.ref(results), *map(weakref.ref, results.tables)]
            summary.add(results, position)
        del results
        assert [ref for ref in refs if ref()] == []
        assert summary.rows == 150


class TestBackfillReport:
    WHOLE = Backfill(
        id="bf_1",
        status="completed",
        connection_id="conn_1",
        start_at=datetime(2025, 1, 1, tzinfo=UTC),
        end_at=datetime(2025, 3, 1, tzinfo=UTC),
        progress_percent=100,
        rows_processed=10,
        created_at=datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC),
        updated_at=datetime(2025, 3, 27, 15, 22, 10, tzinfo=UTC),
        job_ids=["job_1", "job_2"],
    )

    def test_a_report_is_plain_json_with_all_fields(self) -> None:
        results = [
            loaded("job_1", a=1, b=2),
            loaded("job_2", "failed", a=3, c=None),
            JobResults(job_id="job_3", status="succeeded", warnings=[JobWarning(code="odd", message="It is odd.")]),
        ]
        answer = report_backfill(self.WHOLE, Summary.of(results))
        assert json.loads(json.dumps(answer)) == answer
        assert answer == {
            "backfill_id": "bf_1",
            "status": "completed",
            "connection_id": "conn_1",
            "start_at": "2025-01-01T00:00:00Z",
            "end_at": "2025-03-01T00:00:00Z",
            "progress_percent": 100,
            "rows_processed": 10,
            "created_at": "2025-03-27T14:22:10Z",
            "updated_at": "2025-03-27T15:22:10Z",
            "rows_loaded": 6,
            "jobs": [
                {"job_id": "job_2", "status": "failed", "rows_loaded": 3},
                {"job_id": "job_1", "status": "succeeded", "rows_loaded": 3},
                {"job_id": "job_3", "status": "succeeded", "rows_loaded": 0},
            ],
            "jobs_total": 3,
            "tables": [
                {"name": "a", "rows_loaded": 4, "jobs": 2},
                {"name": "b", "rows_loaded": 2, "jobs": 1},
                {"name": "c", "rows_loaded": 0, "jobs": 1},
            ],
            "tables_total": 3,
            "warnings": [{"code": "odd", "message": "It is odd."}],
            "warnings_total": 1,
        }

    def test_a_report_before_its_end_has_no_results(self) -> None:
        answer = report_backfill(Backfill(id="bf_1", status="queued", job_ids=["job_1"]))
        assert answer["status"] == "queued"
        assert set(answer).isdisjoint({"rows_loaded", "jobs", "tables", "warnings", "job_ids"})

    def test_a_report_without_jobs_has_no_rows(self) -> None:
        answer = report_backfill(self.WHOLE, Summary())
        assert (answer["rows_loaded"], answer["jobs"], answer["jobs_total"], answer["tables"]) == (0, [], 0, [])

    @pytest.mark.heavy
    def test_a_report_of_thousands_of_jobs_is_small_and_counts_all(self) -> None:
        # The names are as long as a database allows, and JSON takes six bytes for each escaped character.
        names = [f"{number:05}" + "ü" * 120 for number in range(3_000)]
        results = [loaded(f"job_{number:032}", **{names[number % 3_000]: 7}) for number in range(5_000)]
        warning = JobWarning(code="column_type_widened", message="Column x is wider now. " * 10)
        results[0] = results[0].model_copy(update={"warnings": [warning] * 2_000})
        results[4_999] = results[4_999].model_copy(update={"status": "failed"})
        answer = report_backfill(self.WHOLE, Summary.of(results))
        assert len(json.dumps(answer)) < 100_000
        assert (answer["jobs_total"], answer["tables_total"], answer["warnings_total"]) == (5_000, 3_000, 2_000)
        assert answer["rows_loaded"] == 35_000
        assert answer["jobs"][0] == {"job_id": f"job_{4_999:032}", "status": "failed", "rows_loaded": 7}
        for name in ("jobs", "tables", "warnings"):
            assert MAX_LIST_BYTES * 0.9 < len(json.dumps(answer[name])) <= MAX_LIST_BYTES

    def test_a_report_of_a_job_is_small_as_well(self) -> None:
        tables = [TableResult(name=f"{number:05}" + "ü" * 1_000, rows_loaded=7) for number in range(1_500)]
        warnings = [JobWarning(message="x" * 2_000)] * 1_500
        results = JobResults(job_id="job_1", status="succeeded", tables=tables, warnings=warnings)
        answer = report_job(Job(id="job_1", status="succeeded"), URL, results)
        assert len(json.dumps(answer)) < 600_000
        assert (answer["tables_total"], answer["warnings_total"]) == (1_500, 1_500)
        assert 0 < len(answer["tables"]) < MAX_LISTED

    def test_success_is_no_error(self) -> None:
        assert error_of_work(self.WHOLE, URL) is None

    def error(self, *failed: Job, status: str = "failed", error: object = None, url: str | None = URL) -> Exception:
        backfill = Backfill.model_validate({"id": "bf_1", "status": status, "error": error})
        found = error_of_work(backfill, url, failed)
        assert found is not None
        return found

    def test_an_error_names_the_failed_jobs(self) -> None:
        failure = self.error(
            Job.model_validate({"id": "job_1", "status": "failed", "error": {"code": "no_route", "message": "No."}}),
            Job(id="job_2", status="failed"),
            error={"message": "Two jobs failed."},
        )
        assert isinstance(failure, PlanasonixJobFailedError)
        assert failure.code == "no_route"
        assert str(failure) == (
            "Backfill failed: Two jobs failed (backfill bf_1). Failed jobs: job_1: no_route: No; "
            f"job_2: Planasonix gave no reason. See {URL}"
        )

    def test_an_error_has_the_code_of_the_backfill_first(self) -> None:
        job = Job.model_validate({"id": "job_1", "status": "failed", "error": {"code": "no_route"}})
        failure = self.error(job, error={"code": "jobs_failed"})
        assert isinstance(failure, PlanasonixJobFailedError)
        assert failure.code == "jobs_failed"

    @pytest.mark.parametrize(("failed", "more"), [(10, None), (11, "; and 1 more."), (5_000, "; and 4,990 more.")])
    def test_an_error_names_ten_jobs_and_counts_the_others(self, failed: int, more: str | None) -> None:
        message = str(self.error(*[Job(id=f"job_{number}", status="failed") for number in range(failed)]))
        assert len(re.findall(r"job_\d+: ", message)) == 10
        assert ("more" in message) is (more is not None)
        assert (more or "") in message

    def test_a_failure_without_details_is_an_error(self) -> None:
        assert str(self.error(url=None)) == "Backfill failed: Planasonix gave no reason (backfill bf_1)."

    def test_a_cancel_has_its_own_error(self) -> None:
        error = self.error(status="cancelled")
        assert isinstance(error, PlanasonixJobCancelledError)
        assert str(error) == f"Backfill bf_1 was cancelled before it was done. See {URL}"

    def test_an_unfinished_state_is_an_error(self) -> None:
        assert isinstance(self.error(status="running"), PlanasonixLostTrackError)
