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
    """Make the API, by jobs with the oldest first; its lists leave out why a job failed."""
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


def test_are_found_by_one_list_with_their_reason() -> None:
    there = api([job(number, "failed" if number in (3, 1) else "succeeded") for number in range(50)])
    assert find(there, 50) == [there.get_job("job_1"), there.get_job("job_3")]
    assert there.requests == ["list failed", "get job_1", "get job_3"]


def test_are_all_counted_though_ten_are_asked_for_a_reason() -> None:
    there = api([job(number, "failed") for number in range(250)])
    found = find(there, 250)
    assert [job.id for job in found] == [f"job_{number}" for number in range(250)]
    assert {job.status for job in found} == {"failed"}
    assert [job.error.code for job in found if job.error] == [f"code_{number}" for number in range(10)]
    assert len(there.requests) == 3 + 10
    assert there.most_in_flight == 5


def test_are_none_that_another_backfill_or_sync_has_made() -> None:
    there = api([job(0), job(1, "failed"), *[job(number, "failed", id=f"other_{number}") for number in range(2, 9)]])
    assert [job.id for job in find(there, 2)] == ["job_1"]


def test_are_none_that_another_connection_or_time_has_where_lists_know_no_filter() -> None:
    there = api([job(0), job(1, "failed")], ignored_filters=("status", "connection_id", "since"))
    assert [job.id for job in find(there, 2)] == ["job_1"]


@pytest.mark.parametrize("missing", [{"connection_id": None}, {"created_at": None}])
def test_are_found_though_the_backfill_says_little(missing: dict[str, Any]) -> None:
    there = api([job(0), job(1, "failed")])
    assert [job.id for job in find(there, 2, **missing)] == ["job_1"]


def test_are_asked_for_one_by_one_where_the_list_fails() -> None:
    there = api([job(number, "failed" if number == 20 else "succeeded") for number in range(30)])
    there.get_error = fail_always("list", DOWN)
    assert find(there, 30) == [there.get_job("job_20")]
    assert sorted(there.requests[1:]) == sorted(f"get job_{number}" for number in range(30))
    assert there.most_in_flight == 5


def test_are_asked_for_one_by_one_where_the_list_is_late() -> None:
    there = api([job(0, created_at=BEGAN - timedelta(days=1)), job(1, "failed", created_at=BEGAN - timedelta(days=1))])
    assert find(there, 2) == [there.get_job("job_1")]


def test_are_those_of_the_pages_before_one_that_fails() -> None:
    there = api([job(number, "failed") for number in range(150)])
    there.get_error = lambda asked: DOWN if asked == "list failed" and there.requests.count(asked) == 2 else None
    assert [job.id for job in find(there, 150)] == [f"job_{number}" for number in range(50, 150)]


def test_are_not_those_that_only_the_list_calls_failed() -> None:
    there = api([job(0, "failed"), job(1, "failed")])
    there.get_error = lambda asked: there.set_status("job_0", "succeeded") and None if asked == "get job_0" else None
    assert find(there, 2) == [there.get_job("job_1")]


def test_may_be_none() -> None:
    assert find(api([job(0), job(1)]), 2) == []


@pytest.mark.parametrize("job_ids", [None, []])
def test_are_none_of_a_backfill_that_made_no_job(job_ids: Any) -> None:
    there = api([job(0, "failed", id="other")])
    assert find(there, 0, job_ids=job_ids) == []
    assert there.requests == ["list failed"]


def test_that_cannot_be_asked_for_are_an_error() -> None:
    there = api([job(0, "failed")], get_error=fail_always("get", api_error(404)))
    with pytest.raises(PlanasonixNotFoundError):
        find(there, 1)
