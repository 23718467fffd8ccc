from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from planasonix_provider.monitoring import orphan_search
from planasonix_provider.monitoring.orphan_listing import list_orphans
from planasonix_provider.waiting.attempt import ATTEMPT_KEY
from planasonix_provider.waiting.lost_start_search import START_WINDOW
from tests.support.airflow_tasks import key_of
from tests.support.attempts import take
from tests.support.planted_tasks import PlantedTasks, start
from tests.support.scenarios import CONNECTION, routes_asked

DAY = timedelta(days=1)


def ids(conn_id: str | None = None, **options: Any) -> list[str | None]:
    return [orphan.id for orphan in list_orphans(conn_id, **options).orphans]


@pytest.mark.parametrize("kind", ["job", "backfill"])
@pytest.mark.parametrize("count", [1, 7])
def test_deletes_the_records_of_work_that_is_over(planted: PlantedTasks, count: int, kind: Any) -> None:
    take(planted.simulator, 0)
    planted.add_many(count, kind=kind)
    assert ids() == []
    assert planted.tasks.records() == 0


def test_has_no_job_that_is_being_cancelled(planted: PlantedTasks) -> None:
    planted.simulator.plan(CONNECTION, times=None, running_seconds=60, cancelling_seconds=60)
    record = planted.add()
    planted.simulator.workspace.cancel(str(record.id))
    assert ids() == []
    assert planted.tasks.records() == 1


def test_forgets_missing_work_after_a_day(planted: PlantedTasks) -> None:
    planted.add(id="job_gone")
    assert ids() == []
    assert planted.tasks.records() == 1
    planted.add(id="job_gone", key=key_of(map_index=1), first_sent_at=datetime.now(UTC) - DAY)
    assert ids() == []
    assert planted.tasks.records() == 1


@pytest.mark.slow("handles hundreds of jobs")
def test_requests_a_hundred_jobs_at_once(planted: PlantedTasks) -> None:
    records = planted.add_many(230)
    for record in records[:30]:
        planted.simulator.workspace.cancel(str(record.id))
    found = ids()
    assert Counter(found) == Counter(record.id for record in records[30:])
    assert Counter(routes_asked(planted.simulator))["get_job"] <= 30
    assert Counter(routes_asked(planted.simulator))["list_jobs"] <= 10


def test_limits_the_number_of_requests(planted: PlantedTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphan_search, "MAX_SINGLE_REQUESTS", 3)
    monkeypatch.setattr(orphan_search, "MAX_SEARCHES", 1)
    for index in range(5):
        planted.add(kind="backfill", key=key_of(map_index=index))
        planted.add(id=None, key=key_of(map_index=10 + index))
    listing = list_orphans()
    assert Counter(orphan.kind for orphan in listing.orphans) == {"backfill": 3, "job": 1}
    assert listing.problems == [
        "There are more ended tasks of Airflow connection 'planasonix_default' to look at: 6. List again for them."
    ]


def test_lists_the_other_jobs_if_one_job_cannot_be_read(planted: PlantedTasks) -> None:
    records = planted.add_many(3)
    planted.simulator.fail("status", status=403, route="get_job")
    listing = list_orphans()
    assert len({orphan.id for orphan in listing.orphans} & {record.id for record in records}) == 2
    (problem,) = listing.problems
    assert "Some orphaned jobs of Airflow connection 'planasonix_default' cannot be found. GET" in problem
    assert "403" in problem


def test_lists_the_jobs_that_it_found_before_the_timeout(planted: PlantedTasks) -> None:
    planted.add_many(3)
    planted.simulator.fail("hang", seconds=60, route="get_job")
    listing = list_orphans(max_seconds=2)
    assert len(listing.orphans) == 2
    assert listing.problems == [
        "Some orphaned jobs of Airflow connection 'planasonix_default' cannot be found. Planasonix does not answer "
        "in time."
    ]


class TestALostStart:
    def test_is_found_by_its_metadata(self, planted: PlantedTasks) -> None:
        planted.simulator.workspace.configure(show_metadata=True)
        record = planted.add(id=None)
        mine = start(planted.simulator, **{ATTEMPT_KEY: record.nonce})
        start(planted.simulator, **{ATTEMPT_KEY: "other"})
        assert ids() == [mine]

    @pytest.mark.parametrize("others", [0, 1])
    def test_is_unknown_without_metadata(self, planted: PlantedTasks, others: int) -> None:
        planted.add(id=None)
        for _ in range(others):
            start(planted.simulator)
        (orphan,) = list_orphans().orphans
        assert (orphan.id, orphan.status) == (None, "unknown")
        assert orphan.manual_command == (
            f"`python -m planasonix_provider jobs --connection-id {CONNECTION} --conn-id planasonix_default`"
        )

    def test_is_forgotten_when_it_can_have_no_effect_any_more(self, planted: PlantedTasks) -> None:
        planted.add(id=None, first_sent_at=datetime.now(UTC) - START_WINDOW)
        assert ids() == []
        assert planted.tasks.records() == 0

    def test_is_forgotten_when_its_work_is_over(self, planted: PlantedTasks) -> None:
        planted.simulator.workspace.configure(show_metadata=True)
        take(planted.simulator, 0)
        record = planted.add(id=None)
        start(planted.simulator, **{ATTEMPT_KEY: record.nonce})
        assert ids() == []
        assert planted.tasks.records() == 0
