from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from planasonix_provider.api.errors import PlanasonixError, PlanasonixLostTrackError, PlanasonixPermissionError
from planasonix_provider.api.errors import PlanasonixTransportError as Unreachable
from planasonix_provider.api.models import Backfill, Job, Page, PageInfo, PageMeta
from planasonix_provider.api.request import Request
from planasonix_provider.testing.time_travel import travel_time
from planasonix_provider.waiting.lost_start_search import SEARCH_DELAY_SECONDS, MatchCriteria, find_one
from tests.support.api_errors import api_error

BEGAN = datetime(2025, 3, 27, 14, 22, 10, 700_000, tzinfo=UTC)
MARKS = {"attempt": "5f0c"}
TRACES = MatchCriteria("job", "conn_1", BEGAN, MARKS)


def after(**span: float) -> datetime:
    return (BEGAN + timedelta(**span)).replace(microsecond=0)


@dataclass
class There:
    """Planasonix as far as a search sees it. Its lists show work only from a time on, by the event loop's clock."""

    work: dict[str, tuple[Any, float]] = field(default_factory=dict)
    shows_metadata: bool = True
    error: PlanasonixError | None = None
    down_until: float = 0.0
    hidden: int = 0
    page_size: int | None = None
    asked: list[str] = field(default_factory=list)
    odd_rows: dict[str, Any] = field(default_factory=dict)

    def has(self, work: Any, listed_after: float = 0.0) -> None:
        self.work[work.id] = (work, listed_after)

    async def send(self, request: Request[Any]) -> Any:
        now = asyncio.get_running_loop().time()
        self.asked.append(request.url_path)
        if self.error and now < self.down_until:
            raise self.error
        if request.ids:
            (work_id,) = request.ids.values()
            if self.hidden:
                self.hidden -= 1
                raise api_error(404)
            work = self.work[work_id][0]
            is_shown = self.shows_metadata and "metadata" not in (request.excluded_fields or ())
            return work if is_shown else work.model_copy(update={"metadata": None})
        since = request.query.get("since")
        shown = [
            work.model_copy(update={"metadata": None})
            for work, listed_after in self.work.values()
            if now >= listed_after and (since is None or work.created_at >= datetime.fromisoformat(str(since)))
        ]
        kind = Backfill if request.path == "/backfills" else Job
        begin, end = int(request.query.get("cursor") or 0), len(shown)
        if self.page_size:
            end = min(end, begin + self.page_size)
        cursor = str(end) if end < len(shown) else None
        rows = [self.odd_rows.get(work.id, work) for work in shown[begin:end]]
        meta = PageMeta(page=PageInfo(cursor=cursor))
        return Page[kind].model_validate({"data": rows, "meta": meta})  # type: ignore[valid-type]


@pytest.fixture
def there() -> There:
    return There()


def job(job_id: str, created: datetime | None = None, **fields: Any) -> Job:
    created = created or after(seconds=1)
    return Job(id=job_id, status="running", type="connection_sync", created_at=created, **fields)


def find(there: There, traces: MatchCriteria = TRACES, warn: Callable[[str], object] = lambda line: None) -> str | None:
    async def main() -> Any:
        return await find_one(
            there.send,
            traces,
            warn=warn,
            sleep=asyncio.sleep,
            pauses=SEARCH_DELAY_SECONDS,
        )

    with travel_time(BEGAN) as travel:
        found = travel.run(main())
    return found.id if found else None


class TestOurs:
    def test_is_what_bears_the_mark(self, there: There) -> None:
        there.has(job("theirs", metadata={"attempt": "aaaa"}))
        there.has(job("ours", metadata={"attempt": "5f0c", "ticket": "OPS-1"}))
        there.has(job("nobodys"))
        assert find(there) == "ours"

    def test_is_the_only_one_where_no_metadata_comes_back(self, there: There) -> None:
        there.shows_metadata = False
        there.has(job("before", after(minutes=-5)))
        there.has(job("ours", metadata=MARKS))
        assert find(there) == "ours"

    def test_is_not_the_only_one_if_that_says_that_it_is_another_s(self, there: There) -> None:
        there.has(job("theirs", metadata={"dag_id": "other"}))
        assert find(there) is None

    @pytest.mark.parametrize("shows_metadata", [True, False])
    def test_is_found_though_its_row_in_the_list_cannot_be_read(self, there: There, shows_metadata: bool) -> None:
        """Taken for absent, it would be started a second time."""
        there.shows_metadata = shows_metadata
        there.has(job("before", after(minutes=-5)))
        there.has(job("ours", metadata=MARKS))
        there.odd_rows = {"ours": {"id": "ours"}, "before": {"id": "before", "status": 7}}
        assert find(there) == "ours"

    def test_may_be_a_row_of_which_nothing_can_be_read(self, there: There) -> None:
        there.has(job("ours", metadata=MARKS))
        there.odd_rows = {"ours": {"status": "running"}}
        with pytest.raises(PlanasonixError, match="one of them may be what was started"):
            find(there)

    def test_is_no_row_that_cannot_be_read_and_is_not_there_by_itself(self, there: There) -> None:
        there.has(job("ours", metadata=MARKS))
        there.odd_rows, there.hidden = {"ours": {"id": "ours"}}, 1_000
        assert find(there) is None

    def test_is_none_of_several_that_say_nothing(self, there: There) -> None:
        there.has(job("one"))
        there.has(job("two"))
        with pytest.raises(
            PlanasonixLostTrackError, match=r"^2 jobs of connection conn_1 were started since .* (one, two|two, one)"
        ):
            find(there)

    def test_is_no_shard_of_a_backfill_and_nothing_that_is_known_to_be_others(self, there: There) -> None:
        there.has(job("shard").model_copy(update={"type": "backfill"}))
        there.has(job("in_the_way"))
        there.has(job("ours"))
        assert find(there, replace(TRACES, others=frozenset({"in_the_way"}))) == "ours"

    def test_is_created_in_the_second_in_which_the_start_was_sent(self, there: There) -> None:
        there.has(job("ours", BEGAN.replace(microsecond=0)))
        assert find(there) == "ours"

    @pytest.mark.parametrize("span", [{"seconds": 5}, {"minutes": 9}])
    def test_is_what_bears_the_mark_though_it_was_created_before_the_start(
        self, there: There, span: dict[str, float]
    ) -> None:
        there.has(job("ours", BEGAN - timedelta(**span), metadata=MARKS))
        there.has(job("nobodys"))
        assert find(there) == "ours"

    def test_is_nothing_without_metadata_that_was_created_before_the_start(self, there: There) -> None:
        there.has(job("theirs", BEGAN - timedelta(seconds=5)))
        assert find(there) is None

    def test_is_not_what_began_hours_later(self, there: There) -> None:
        there.has(job("later", after(hours=2)))
        assert find(there) is None

    def test_is_seen_in_the_list_before_it_is_seen_by_itself(self, there: There) -> None:
        there.has(job("ours", metadata=MARKS))
        there.hidden = 1
        assert find(there) == "ours"


def test_what_is_listed_late_is_found(there: There) -> None:
    there.has(job("ours"), listed_after=20)
    assert find(there) == "ours"


def test_nothing_is_nothing_after_half_a_minute(there: There) -> None:
    assert find(there) is None
    assert len(there.asked) == 1 + len(SEARCH_DELAY_SECONDS)
    assert sum(SEARCH_DELAY_SECONDS) == 30


def test_a_backfill_is_recognized_by_its_window(there: There) -> None:
    window = (datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC))
    for name, (start, end) in {"ours": window, "theirs": (window[0], datetime(2025, 2, 1, tzinfo=UTC))}.items():
        there.has(Backfill(id=name, status="running", start_at=start, end_at=end, created_at=after(seconds=1)))
    assert find(there, replace(TRACES, kind="backfill", window=window)) == "ours"


class TestAListOfBackfills:
    """Planasonix lists all backfills of a connection, in an order that the reference does not name."""

    @pytest.fixture
    def traces(self) -> MatchCriteria:
        return replace(TRACES, kind="backfill")

    def test_whose_oldest_come_first_has_the_new_one_on_its_last_page(
        self, there: There, traces: MatchCriteria
    ) -> None:
        for index in range(620):
            created = after(hours=index - 620)
            there.has(Backfill(id=f"theirs_{index}", status="completed", created_at=created))
        there.has(Backfill(id="ours", status="running", created_at=after(seconds=1), metadata=MARKS))
        there.page_size = 100
        assert find(there, traces) == "ours"

    def test_whose_newest_come_first_is_read_until_it_has_passed_the_start(
        self, there: There, traces: MatchCriteria
    ) -> None:
        for index in range(250):
            there.has(Backfill(id=f"later_{index}", status="completed", created_at=after(hours=500 - index)))
        there.has(Backfill(id="ours", status="running", created_at=after(seconds=1), metadata=MARKS))
        for index in range(1, 900):
            there.has(Backfill(id=f"theirs_{index}", status="completed", created_at=after(hours=-index)))
        there.page_size = 100
        assert find(there, traces) == "ours"
        assert there.asked.count("/api/v1/backfills") == 3

    def test_of_one_moment_shows_no_order_and_is_read_to_its_end(self, there: There, traces: MatchCriteria) -> None:
        for index in range(300):
            there.has(Backfill(id=f"theirs_{index}", status="completed", created_at=after(hours=-1)))
        there.has(Backfill(id="ours", status="running", created_at=after(seconds=1), metadata=MARKS))
        there.page_size = 100
        assert find(there, traces) == "ours"


class TestAnOutage:
    def test_is_sat_out(self, there: There) -> None:
        there.has(job("ours"))
        there.error, there.down_until = Unreachable("reset", sent=True), 40 * 60
        warnings: list[str] = []
        assert find(there, warn=warnings.append) == "ours"
        assert warnings[0].startswith("Whether a job was started cannot be found out yet, still trying: reset")

    def test_of_more_than_an_hour_ends_the_try(self, there: There) -> None:
        there.error, there.down_until = Unreachable("reset", sent=True), 2 * 3600
        with pytest.raises(Unreachable, match="reset"):
            find(there)

    def test_is_no_refusal_that_lasts_for_a_minute(self, there: There) -> None:
        there.error, there.down_until = api_error(403), 1e9
        with pytest.raises(PlanasonixPermissionError, match="403"):
            find(there)
        assert len(there.asked) == 7

    @pytest.mark.parametrize("status", [302, 400, 403, 404])
    def test_is_a_proxy_that_refuses(self, there: There, status: int) -> None:
        there.has(job("ours"))
        there.error = api_error(status, has_envelope=False)
        there.down_until = 40 * 60
        warnings: list[str] = []
        assert find(there, warn=warnings.append) == "ours"
        assert len(warnings) <= 41
