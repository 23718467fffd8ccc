from __future__ import annotations

import re

import pytest

from planasonix_provider.simulator.model.plans import UNPLANNED_ROWS, BackfillPlan

CONNECTION = "conn_demo_01"
BODY = {"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"times": 0}, "times: got 0"),
        ({"jobs": 0}, "jobs"),
        ({"jobs": 10_001}, "jobs"),
        ({"parallel": 0}, "parallel"),
        ({"failing_jobs": [0, 3]}, "got [3], allowed are 0 to 2"),
        ({"failing_jobs": [-1]}, "got [-1], allowed are 0 to 2"),
        ({"jobs": 12, "failing_jobs": {12}}, "got [12], allowed are 0 to 11"),
        ({"queued_seconds": -1}, "queued_seconds"),
        ({"job_seconds": float("inf")}, "job_seconds"),
        ({"running_seconds": -1}, "running_seconds"),
        ({"cancelling_seconds": "soon"}, "cancelling_seconds"),
        ({"jobs_after_cancel": -1}, "jobs_after_cancel"),
        ({"tables": {"a": -1}}, "tables.a"),
        ({"outcome": "failed"}, "outcome"),
    ],
)
def test_bad_values_are_named(workspace, changes, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        workspace.plan_backfill(CONNECTION, **changes)


def test_maximum_number_of_jobs(workspace):
    assert workspace.plan_backfill(CONNECTION, jobs=10_000, failing_jobs=[9_999]).jobs == 10_000


def test_default_durations_are_those_of_syncs(workspace):
    plan = workspace.plan_backfill(CONNECTION)
    assert (plan.jobs, plan.parallel) == (3, 4)
    assert (plan.queued_seconds, plan.job_seconds, plan.cancelling_seconds) == (2, 20, 1)


@pytest.mark.parametrize(
    ("jobs", "parallel", "each"), [(12, 4, 40 / 3), (12, 12, 40), (12, 50, 40), (13, 4, 10), (5, 1, 8)]
)
def test_running_seconds_are_spread_over_the_waves(jobs, parallel, each):
    plan = BackfillPlan(jobs=jobs, parallel=parallel, running_seconds=40)
    assert plan.job_plan({}, fails=False).running_seconds == each


def test_speed_shortens_every_duration():
    plan = BackfillPlan(queued_seconds=2, job_seconds=20, running_seconds=40, cancelling_seconds=1).faster(10)
    durations = (plan.queued_seconds, plan.job_seconds, plan.running_seconds, plan.cancelling_seconds)
    assert durations == (0.2, 2, 4, 0.1)
    assert BackfillPlan().faster(10).running_seconds is None


def test_only_requested_tables():
    plan = BackfillPlan(tables={"a": 5, "b": 7})
    assert plan.rows(None) == {"a": 5, "b": 7}
    assert plan.rows(["b", "c"]) == {"b": 7, "c": UNPLANNED_ROWS}
