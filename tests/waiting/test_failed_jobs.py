from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from planasonix_provider.api.errors import PlanasonixNotFoundError
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.testing.travelled_clock import TravelledClock
from planasonix_provider.waiting.result import failed_jobs
from tests.support.api_errors import api_error
from tests.support.memory_api import MemoryApi, fail_always

BEGAN = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)
DOWN = api_error(503)


def job(number: int, status: str = "succeeded", **fields: Any) -> Job:
    error = {"code": f"code_{number}"} if status == "failed" else None
    return Job(
        **{
            "id": f"job_{number}",
            "status": status,
            "connection_id": "conn_1",
            "created_at": BEGAN + timedelta(minutes=number),
            "error": error,
            **fields,
        }
    )


def api(jobs: list[Job], **fields: Any) -> MemoryApi:
    """Return an API with these jobs, the oldest first; its lists leave out the error of a failed job."""
    return MemoryApi(jobs[::-1], hidden_fields=("error",), **fields)


def find(there: MemoryApi, jobs: int, **fields: Any) -> list[Job]:
    backfill = Backfill(
        **{
            "id": "bf_1",
            "status": "failed",
            "connection_id": "conn_1",
            "created_at": BEGAN,
            "job_ids": [f"job_{number}" for number in range(jobs)],
            **fields,
        }
    )
    return TravelledClock().run(failed_jobs(there.send_async, backfill))


def test_are_found_with_their_errors_by_one_list() -> None:
    there = api([job(number, "failed" if number in (3, 1) else "succeeded") for number in range(50)])
    assert find(there, 50) == [there.get_job("job_1"), there.get_job("job_3")]
    assert there.requests == ["list failed", "get job_1", "get job_3"]


def test_are_all_counted_although_only_ten_are_requested_for_their_errors() -> None:
    there = api([job(number, "failed") for number in range(250)])
    found = find(there, 250)
    assert [job.id for job in found] == [f"job_{number}" for number in range(250)]
    assert {job.status for job in found} == {"failed"}
    assert [job.error.code for job in found if job.error] == [f"code_{number}" for number in range(10)]
    assert len(there.requests) == 3 + 10
    assert there.most_in_flight == 5


def test_exclude_jobs_of_another_backfill_or_sync() -> None:
    there = api([job(0), job(1, "failed"), *[job(number, "failed", id=f"other_{number}") for number in range(2, 9)]])
    assert [job.id for job in find(there, 2)] == ["job_1"]


def test_are_found_if_lists_ignore_filters() -> None:
    other = job(2, "failed", id="other_2")
    there = api([job(0), job(1, "failed"), other], ignored_filters=("status", "connection_id", "since"))
    assert [job.id for job in find(there, 2)] == ["job_1"]


@pytest.mark.parametrize("missing", [{"connection_id": None}, {"created_at": None}])
def test_are_found_if_the_backfill_lacks_a_field(missing: dict[str, Any]) -> None:
    there = api([job(0), job(1, "failed")])
    assert [job.id for job in find(there, 2, **missing)] == ["job_1"]


def test_are_requested_one_by_one_if_the_list_fails() -> None:
    there = api([job(number, "failed" if number == 20 else "succeeded") for number in range(30)])
    there.get_error = fail_always("list", DOWN)
    assert find(there, 30) == [there.get_job("job_20")]
    assert sorted(there.requests[1:]) == sorted(f"get job_{number}" for number in range(30))
    assert there.most_in_flight == 5


def test_are_requested_one_by_one_if_the_list_does_not_contain_them() -> None:
    there = api([job(0, created_at=BEGAN - timedelta(days=1)), job(1, "failed", created_at=BEGAN - timedelta(days=1))])
    assert find(there, 2) == [there.get_job("job_1")]


def test_are_those_of_the_pages_before_a_failed_page() -> None:
    there = api([job(number, "failed") for number in range(150)])
    there.get_error = lambda asked: DOWN if asked == "list failed" and there.requests.count(asked) == 2 else None
    assert [job.id for job in find(there, 150)] == [f"job_{number}" for number in range(50, 150)]


def test_exclude_jobs_that_only_the_list_shows_as_failed() -> None:
    there = api([job(0, "failed"), job(1, "failed")])
    there.get_error = lambda asked: there.set_status("job_0", "succeeded") and None if asked == "get job_0" else None
    assert find(there, 2) == [there.get_job("job_1")]


def test_can_be_empty() -> None:
    assert find(api([job(0), job(1)]), 2) == []


@pytest.mark.parametrize("job_ids", [None, []])
def test_of_a_backfill_without_jobs_are_empty(job_ids: Any) -> None:
    there = api([job(0, "failed", id="other")])
    assert find(there, 0, job_ids=job_ids) == []
    assert there.requests == ["list failed"]


def test_raise_an_error_if_they_cannot_be_requested() -> None:
    there = api([job(0, "failed")], get_error=fail_always("get", api_error(404)))
    with pytest.raises(PlanasonixNotFoundError):
        find(there, 1)
