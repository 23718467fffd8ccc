from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from planasonix_provider.api.errors import PlanasonixError, PlanasonixLostTrackError, PlanasonixPermissionError
from planasonix_provider.api.errors import PlanasonixTransportError as Unreachable
from planasonix_provider.api.models import Backfill, Job, Page
from planasonix_provider.testing.travelled_clock import travel_clock
from planasonix_provider.waiting.lost_start_search import SEARCH_DELAY_SECONDS, MatchCriteria, find_one
from tests.support.api_errors import api_error
from tests.support.memory_api import MemoryApi, fail_always, fail_once

BEGAN = datetime(2025, 3, 27, 14, 22, 10, 700_000, tzinfo=UTC)
MARKS = {"attempt": "5f0c"}
CRITERIA = MatchCriteria("job", "conn_1", BEGAN, MARKS)


def after(**span: float) -> datetime:
    return (BEGAN + timedelta(**span)).replace(microsecond=0)


def api(*works: Job | Backfill, **fields: Any) -> MemoryApi:
    """Return an API whose lists leave out metadata; work without metadata stands for an API that never shows it."""
    jobs = [work for work in works if isinstance(work, Job)]
    backfills = [work for work in works if isinstance(work, Backfill)]
    return MemoryApi(jobs, backfills, hidden_fields=("metadata",), **fields)


def job(job_id: str, created: datetime | None = None, **fields: Any) -> Job:
    fields = {"status": "running", "type": "connection_sync", "connection_id": "conn_1"} | fields
    return Job(id=job_id, created_at=created or after(seconds=1), **fields)


def backfill(backfill_id: str, created: datetime | None = None, **fields: Any) -> Backfill:
    fields = {"status": "running", "connection_id": "conn_1"} | fields
    return Backfill(id=backfill_id, created_at=created or after(seconds=1), **fields)


def down(error: PlanasonixError, seconds: float) -> Callable[[str], PlanasonixError | None]:
    """Return a ``get_error`` for an outage from the beginning of the search."""
    return lambda _: error if asyncio.get_running_loop().time() < seconds else None


def find(
    there: MemoryApi, criteria: MatchCriteria = CRITERIA, warn: Callable[[str], object] = lambda line: None
) -> str | None:
    """Search, and return the id of the work that was found."""
    with travel_clock(BEGAN) as travel:
        found = travel.run(
            find_one(there.send_async, criteria, warn=warn, sleep=asyncio.sleep, pauses=SEARCH_DELAY_SECONDS)
        )
    return found.id if found else None


class TestMatch:
    def test_is_the_job_with_the_mark(self) -> None:
        theirs = job("theirs", metadata={"attempt": "aaaa"})
        ours = job("ours", metadata={"attempt": "5f0c", "ticket": "OPS-1"})
        assert find(api(theirs, ours, job("unmarked"))) == "ours"

    def test_is_the_only_job_if_the_api_shows_no_metadata(self) -> None:
        assert find(api(job("before", after(minutes=-5)), job("ours"))) == "ours"

    def test_excludes_the_only_job_if_its_metadata_is_that_of_another_task(self) -> None:
        assert find(api(job("theirs", metadata={"dag_id": "other"}))) is None

    @pytest.mark.parametrize("metadata", [MARKS, None])
    def test_is_found_although_its_row_in_the_list_is_unreadable(self, metadata: Any) -> None:
        """Otherwise it would be started a second time."""
        jobs = job("before", after(minutes=-5)), job("ours", metadata=metadata)
        assert find(api(*jobs, unreadable_ids=("ours", "before"))) == "ours"

    def test_is_unknown_if_an_unreadable_row_has_no_id(self) -> None:
        async def send(_: Any) -> Page[Job]:
            return Page[Job].model_validate({"data": [{"status": "running"}], "meta": {}})

        there = api()
        there.send_async = send
        with pytest.raises(PlanasonixError, match="one of them may be what was started"):
            find(there)

    def test_excludes_an_unreadable_row_whose_job_does_not_exist(self) -> None:
        there = api(job("ours"), unreadable_ids=("ours",), get_error=fail_always("get", api_error(404)))
        assert find(there) is None

    def test_of_several_jobs_without_metadata_raises_an_error(self) -> None:
        with pytest.raises(
            PlanasonixLostTrackError, match=r"^2 jobs of connection conn_1 were started since .* (one, two|two, one)"
        ):
            find(api(job("one"), job("two")))

    def test_excludes_jobs_of_backfills_and_known_jobs_of_others(self) -> None:
        others = job("shard", type="backfill"), job("in_the_way"), job("elsewhere", connection_id="conn_2")
        there = api(*others, job("ours"), ignored_filters=("connection_id",))
        assert find(there, replace(CRITERIA, others=frozenset({"in_the_way"}))) == "ours"

    def test_may_be_created_in_the_second_of_the_request(self) -> None:
        assert find(api(job("ours", BEGAN.replace(microsecond=0)))) == "ours"

    @pytest.mark.parametrize("span", [{"seconds": 5}, {"minutes": 9}])
    def test_is_the_job_with_the_mark_although_it_was_created_before_the_request(self, span: dict[str, float]) -> None:
        assert find(api(job("ours", BEGAN - timedelta(**span), metadata=MARKS), job("unmarked"))) == "ours"

    @pytest.mark.parametrize("created", [after(seconds=-5), after(hours=2)])
    def test_excludes_unmarked_jobs_from_before_or_hours_after_the_request(self, created: datetime) -> None:
        assert find(api(job("theirs", created))) is None

    def test_is_found_in_the_list_before_it_can_be_requested_alone(self) -> None:
        assert find(api(job("ours"), get_error=fail_once("get ours", api_error(404)))) == "ours"


def test_a_job_that_is_listed_late_is_found() -> None:
    there = api()
    there.get_error = lambda _: there.jobs.append(job("ours")) if len(there.requests) == 5 else None
    assert find(there) == "ours"


def test_a_search_without_a_match_ends_after_half_a_minute() -> None:
    there = api()
    assert find(there) is None
    assert len(there.requests) == 1 + len(SEARCH_DELAY_SECONDS)
    assert sum(SEARCH_DELAY_SECONDS) == 30


def test_a_backfill_is_recognized_by_its_window() -> None:
    start, end, other = (datetime(2025, month, 1, tzinfo=UTC) for month in (1, 3, 2))
    there = api(backfill("ours", start_at=start, end_at=end), backfill("theirs", start_at=start, end_at=other))
    assert find(there, replace(CRITERIA, kind="backfill", window=(start, end))) == "ours"


class TestAListOfBackfills:
    """Planasonix lists all backfills of a connection, in an order that the API reference does not define."""

    CRITERIA = replace(CRITERIA, kind="backfill")
    OURS = backfill("ours", metadata=MARKS)

    def test_with_the_oldest_first_has_the_new_backfill_on_its_last_page(self) -> None:
        theirs = [backfill(f"theirs_{index}", after(hours=index - 620)) for index in range(620)]
        assert find(api(*theirs, self.OURS), self.CRITERIA) == "ours"

    def test_with_the_newest_first_is_read_until_the_time_of_the_request(self) -> None:
        later = [backfill(f"later_{index}", after(hours=500 - index)) for index in range(250)]
        theirs = [backfill(f"theirs_{index}", after(hours=-index)) for index in range(1, 900)]
        there = api(*later, self.OURS, *theirs)
        assert find(there, self.CRITERIA) == "ours"
        assert there.requests.count("list backfills") == 3

    def test_with_equal_times_has_no_order_and_is_read_to_its_end(self) -> None:
        theirs = [backfill(f"theirs_{index}", after(hours=-1)) for index in range(300)]
        assert find(api(*theirs, self.OURS), self.CRITERIA) == "ours"


class TestAnOutage:
    @pytest.mark.parametrize(
        "error", [Unreachable("reset", sent=True), api_error(403, has_envelope=False)], ids=["reset", "a proxy"]
    )
    def test_is_waited_out(self, error: PlanasonixError) -> None:
        warnings: list[str] = []
        assert find(api(job("ours"), get_error=down(error, 40 * 60)), warn=warnings.append) == "ours"
        assert warnings[0] == f"Whether a job was started cannot be found out yet, still trying: {error}"
        assert len(warnings) == pytest.approx(40, abs=1)

    def test_of_more_than_an_hour_ends_the_try(self) -> None:
        with pytest.raises(Unreachable, match="reset"):
            find(api(get_error=down(Unreachable("reset", sent=True), 2 * 3_600)))

    def test_is_not_assumed_for_a_refusal_of_a_minute(self) -> None:
        there = api(get_error=fail_always("", api_error(403)))
        with pytest.raises(PlanasonixPermissionError, match="403"):
            find(there)
        assert len(there.requests) == 7
