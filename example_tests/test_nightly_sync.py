"""Tests of a DAG: it starts the right sync, and handles failed and slow syncs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from planasonix_nightly_sync import dag

from planasonix_provider.api.errors import PlanasonixJobFailedError
from planasonix_provider.testing import Planasonix

ORDERS = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"


def test_loads_the_orders(planasonix: Planasonix) -> None:
    planasonix.will_succeed(ORDERS, takes=timedelta(hours=1), tables={"public.orders": 1_200_000})
    assert dag.test().state == "success"
    planasonix.assert_started(ORDERS, pipeline_id="pl_01hqxyz", priority="high", metadata={"ticket": "OPS-1"})


def test_retries_when_the_source_was_unreachable(planasonix: Planasonix) -> None:
    planasonix.will_fail(ORDERS, code="source_unreachable", times=1)
    assert dag.test().state == "success"
    assert [start.status for start in planasonix.started(ORDERS)] == ["failed", "succeeded"]


def test_cancels_a_sync_that_takes_longer_than_two_hours(planasonix: Planasonix) -> None:
    planasonix.will_succeed(ORDERS, takes=timedelta(hours=5))
    assert dag.test().state == "failed"
    tries = planasonix.started(ORDERS)
    assert len(tries) == 3
    assert all(start.is_cancelled for start in tries)


def test_one_task_alone_needs_no_database(planasonix: Planasonix) -> None:
    planasonix.will_fail(ORDERS, message="The disk is full.")
    with pytest.raises(PlanasonixJobFailedError, match="The disk is full"):
        planasonix.run(dag.get_task("load_orders"), params={"ticket": "OPS-2"})
    planasonix.assert_started(ORDERS, metadata={"ticket": "OPS-2"})
    planasonix.assert_not_started(kind="backfill")
