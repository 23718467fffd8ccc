"""Tests of single tasks: with XComs of other tasks, mapped, and with jobs that another client starts later."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from planasonix_nightly_syncs import dag as nightly_syncs
from planasonix_wait_for_others import dag

from planasonix_provider.testing import Planasonix

ORDERS = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"


def test_continues_after_a_sync_of_another_client(planasonix: Planasonix) -> None:
    planasonix.start_externally(ORDERS, after=timedelta(minutes=40))
    fresh = planasonix.run(dag.get_task("fresh"))
    assert fresh.result["status"] == "succeeded"
    assert timedelta(minutes=40) < planasonix.waited < timedelta(minutes=45)


def test_fails_if_the_job_of_another_task_fails(planasonix: Planasonix) -> None:
    planasonix.will_fail("conn_demo_37", message="The disk is full.")
    start = planasonix.run(dag.get_task("start"))
    with pytest.raises(AirflowFailException, match="The disk is full"):
        planasonix.run(dag.get_task("wait"), xcoms={"start": start})


def test_syncs_each_connection_of_the_catalogue(planasonix: Planasonix) -> None:
    planasonix.add_connections("conn_a", "conn_b")
    runs = planasonix.run_mapped(nightly_syncs.get_task("sync"), xcoms={"connections": ["conn_a", "conn_b"]})
    assert [run.result["connection_id"] for run in runs] == ["conn_a", "conn_b"]
