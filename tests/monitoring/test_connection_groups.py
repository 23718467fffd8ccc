from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from planasonix_provider.monitoring import orphan_cancellation
from planasonix_provider.monitoring.orphan_cancellation import cancel_orphans
from planasonix_provider.monitoring.orphan_listing import list_orphans
from tests.support.airflow_tasks import key_of
from tests.support.planted_tasks import PlantedTasks


def test_connections_do_not_hide_each_other(planted: PlantedTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = planted.simulator.airflow_connection() | {"password": "plnx_wrong"}
    monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_WRONG", json.dumps(wrong))
    right = planted.add()
    planted.add(planasonix_conn_id="planasonix_wrong", key=key_of(map_index=1))
    planted.add(planasonix_conn_id="planasonix_missing", key=key_of(map_index=2))
    listing = list_orphans(max_seconds=9)
    assert [orphan.id for orphan in listing.orphans] == [right.id]
    first, second = sorted(listing.problems)
    assert "'planasonix_missing' cannot be found. There is no Airflow connection" in first
    assert "'planasonix_wrong' cannot be found. GET" in second
    assert "401" in second
    assert planted.tasks.records() == 3


def test_connections_survive_an_error_of_the_database_for_another(
    planted: PlantedTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_OTHER", json.dumps(planted.simulator.airflow_connection()))
    planted.add()
    planted.add(planasonix_conn_id="planasonix_other", key=key_of(map_index=1))
    listed = list_orphans().orphans
    whole = orphan_cancellation.still_over

    def fails_for_one(some: Any) -> Any:
        if some[0].record.planasonix_conn_id == "planasonix_other":
            raise OSError("away")
        return whole(some)

    monkeypatch.setattr(orphan_cancellation, "still_over", fails_for_one)
    results = cancel_orphans(listed)
    assert Counter((result.outcome, result.error) for result in results) == {
        ("cancelled", None): 1,
        ("failed", "OSError, see the log."): 1,
    }


def test_a_connection_that_hangs_times_out(planted: PlantedTasks) -> None:
    planted.add()
    planted.simulator.fail("hang", seconds=60, times=None)
    assert list_orphans(max_seconds=0.3).problems == [
        "The orphaned jobs of Airflow connection 'planasonix_default' cannot be found. Planasonix does not answer "
        "in time."
    ]
