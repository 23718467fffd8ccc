from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from planasonix_provider.api.json_bodies import MAX_TEXT
from planasonix_provider.api.models import Backfill, Job, WorkError
from planasonix_provider.waiting.attempt import ATTEMPT_KEY
from planasonix_provider.watchers.event_filter import MAX_METADATA, EventFilter, event_payload
from tests.support.time_travel import BEGAN

SUCCEEDED = frozenset({"job.succeeded"})
ALL = frozenset({"job.succeeded", "job.failed", "backfill.completed"})


def job(**more: Any) -> Job:
    known = {"type": "connection_sync", "connection_id": "conn_1", "pipeline_id": "pl_1"}
    return Job(**{"id": "job_1", "status": "succeeded", **known, **more})


def backfill(**more: Any) -> Backfill:
    return Backfill(**{"id": "bf_1", "status": "completed", "connection_id": "conn_1", **more})


def operator_metadata(dag_id: str) -> dict[str, Any]:
    """Return the metadata of work that an operator has started."""
    return {"dag_id": dag_id, "task_id": "load", ATTEMPT_KEY: "a1b2"}


@pytest.mark.parametrize(
    ("event_filter", "work", "is_match"),
    [
        (EventFilter(ALL), job(), True),
        (EventFilter(ALL), job(status="failed"), True),
        (EventFilter(SUCCEEDED), job(status="failed"), False),
        (EventFilter(ALL), backfill(), True),
        (EventFilter(ALL), backfill(status="failed"), False),
        (EventFilter(ALL, connection_id="conn_1"), job(), True),
        (EventFilter(ALL, connection_id="conn_2"), job(), False),
        (EventFilter(ALL, connection_id="conn_2"), backfill(), False),
        (EventFilter(ALL, connection_id="conn_1"), job(connection_id=None), False),
        (EventFilter(ALL, pipeline_id="pl_1"), job(), True),
        (EventFilter(ALL, pipeline_id="pl_2"), job(), False),
        (EventFilter(ALL, pipeline_id="pl_1"), job(pipeline_id=None), False),
        (EventFilter(ALL, pipeline_id="pl_1"), backfill(), False),
        (EventFilter(ALL), job(type=None), True),
        (EventFilter(ALL), job(type="backfill"), False),
        (EventFilter(ALL, types=frozenset({"backfill"})), job(type="backfill"), True),
        (EventFilter(ALL, types=frozenset({"backfill"})), backfill(), True),
        (EventFilter(ALL, types=frozenset({"backfill"})), job(), False),
        (EventFilter(ALL, types=frozenset({"connection_sync"})), job(), True),
        (EventFilter(ALL, types=frozenset({"connection_sync"})), job(type=None), False),
        (EventFilter(ALL, types=frozenset({"connection_sync"})), backfill(), False),
        (EventFilter(ALL, metadata={"team": "sales"}), job(metadata={"team": "sales", "more": 1}), True),
        (EventFilter(ALL, metadata={"team": "sales", "more": 1}), job(metadata={"team": "sales"}), False),
        (EventFilter(ALL, metadata={"team": None}), job(metadata={}), False),
        (EventFilter(ALL, metadata={"team": "sales"}), job(), False),
        (EventFilter(ALL, ignore_own=True), job(), True),
        (EventFilter(ALL, ignore_own=True), job(metadata={"dag_id": "react"}), True),
        (EventFilter(ALL, ignore_own=True), job(metadata=operator_metadata("react")), False),
        (EventFilter(ALL, ignore_own=True), backfill(metadata=operator_metadata("react")), False),
        (EventFilter(ALL, ignore_own=frozenset({"react"})), job(metadata=operator_metadata("react")), False),
        (EventFilter(ALL, ignore_own=frozenset({"react"})), job(metadata=operator_metadata("load")), True),
        (EventFilter(ALL, ignore_own=False), job(metadata=operator_metadata("react")), True),
    ],
)
def test_matches(event_filter: EventFilter, work: Any, is_match: bool) -> None:
    assert event_filter.matches(work) == is_match
    assert event_filter.could_match(work) or not is_match


def test_fields_that_a_list_leaves_out_do_not_count() -> None:
    event_filter = EventFilter(ALL, connection_id="conn_1", pipeline_id="pl_1", types=frozenset({"connection_sync"}))
    assert event_filter.could_match(Job(id="job_1", status="succeeded"))
    for known in ({"connection_id": "conn_2"}, {"pipeline_id": "pl_2"}, {"type": "pipeline_run"}):
        assert not event_filter.could_match(Job(id="job_1", status="succeeded", **known))


@pytest.mark.parametrize(
    ("event_filter", "kinds"),
    [
        (EventFilter(SUCCEEDED), ("job",)),
        (EventFilter(ALL), ("job", "backfill")),
        (EventFilter(frozenset({"backfill.failed"})), ("backfill",)),
        (EventFilter(ALL, pipeline_id="pl_1"), ("job",)),
        (EventFilter(ALL, types=frozenset({"connection_sync"})), ("job",)),
        (EventFilter(ALL, types=frozenset({"backfill"})), ("job", "backfill")),
        (EventFilter(frozenset({"table.loaded"})), ("job",)),
    ],
)
def test_kinds_are_those_that_can_match(event_filter: EventFilter, kinds: Any) -> None:
    assert event_filter.kinds == kinds


def test_payload_of_a_job() -> None:
    failed = job(
        status="failed",
        created_at=BEGAN,
        started_at=BEGAN,
        finished_at=BEGAN,
        error=WorkError(code="disk_full", message="x" * 3_000),
        metrics={"rows_loaded": 7},
        metadata={"team": "sales"},
    )
    payload = event_payload(failed, "https://app.example.com/jobs/{}".format)
    assert json.loads(json.dumps(payload)) == {
        "event": "job.failed",
        "type": "connection_sync",
        "job_id": "job_1",
        "connection_id": "conn_1",
        "pipeline_id": "pl_1",
        "status": "failed",
        "created_at": "2025-03-27T14:22:10Z",
        "finished_at": "2025-03-27T14:22:10Z",
        "window": {"start_at": "2025-03-27T14:22:10Z", "end_at": "2025-03-27T14:22:10Z"},
        "error": {"code": "disk_full", "message": "x" * (MAX_TEXT - 1) + "…"},
        "metrics": {"rows_extracted": None, "rows_loaded": 7, "bytes_read": None},
        "metadata": {"team": "sales"},
        "job_url": "https://app.example.com/jobs/job_1",
    }


def test_payload_of_a_job_that_was_cancelled_in_the_queue() -> None:
    payload = event_payload(job(status="cancelled", created_at=BEGAN, finished_at=BEGAN), str)
    assert payload["window"] == {"start_at": None, "end_at": payload["finished_at"]}


def test_payload_can_be_stored() -> None:
    """An event that Airflow cannot store ends the triggerer, with the waits of all tasks."""
    deep: Any = "\0"
    for _ in range(300):
        deep = [deep]
    odd = {"a": "\0\ud800", "__classname__": "set", "deep": deep, "number": 2**70, "endless": float("inf")}
    error = {"code": "c", "message": "m", "__type": "set"}
    payload = event_payload(
        job(metadata=odd, metrics={"rows_loaded": 7, "__type": "set", "more": "\0"}, error=error), str
    )
    assert payload["error"] == {"code": "c", "message": "m"}
    assert payload["metrics"] == {"rows_extracted": None, "rows_loaded": 7, "bytes_read": None}
    shown = payload["metadata"] | {"deep": None}
    assert shown == {"a": "\ufffd\ufffd", "deep": None, "number": float(2**70), "endless": None}
    assert len(json.dumps(payload, allow_nan=False)) < 1_000


def test_payload_of_large_metadata_is_limited() -> None:
    payload = event_payload(job(metadata={"a": 1, "b": "x" * MAX_METADATA, "c": 3}), str)
    assert payload["metadata"] == {"a": 1, "c": 3}


def test_payload_of_a_backfill() -> None:
    window = {"start_at": datetime(2024, 3, 1, tzinfo=UTC), "end_at": datetime(2024, 4, 1, tzinfo=UTC)}
    payload = event_payload(backfill(created_at=BEGAN, updated_at=BEGAN, rows_processed=7, **window), str)
    assert json.loads(json.dumps(payload)) == {
        "event": "backfill.completed",
        "type": "backfill",
        "backfill_id": "bf_1",
        "connection_id": "conn_1",
        "pipeline_id": None,
        "status": "completed",
        "created_at": "2025-03-27T14:22:10Z",
        "finished_at": "2025-03-27T14:22:10Z",
        "window": {"start_at": "2024-03-01T00:00:00Z", "end_at": "2024-04-01T00:00:00Z"},
        "error": None,
        "metrics": {"rows_processed": 7},
        "metadata": None,
        "job_url": None,
    }
