"""Proof that the reference double does what its own text says, with the standard library's client alone."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from tests.support import reference_server as double
from tests.support.reference_server import ReferenceServer, after_effect, fourteen_faults

KEY = "plnx_test_only"
SYNC = "/api/v1/connections/conn_1/sync"
BACKFILL = "/api/v1/connections/conn_1/backfill"
WINDOW = {"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"}
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


def connect(server: ReferenceServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urllib.parse.urlsplit(server.url).netloc, timeout=60)


def exchange(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str) -> Reply:
    sent = {"Authorization": f"Bearer {KEY}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection.request(method, path, None if body is None else json.dumps(body), sent)
    response = connection.getresponse()
    return Reply(response.status, dict(response.headers), response.read())


def call(server: ReferenceServer, method: str, path: str, body: Any = None, **headers: str) -> Reply:
    connection = connect(server)
    try:
        return exchange(connection, method, path, body, **headers)
    finally:
        connection.close()


def start(server: ReferenceServer, connection_id: str = "conn_1", **body: Any) -> str:
    reply = call(server, "POST", f"/api/v1/connections/{connection_id}/sync", body or None)
    assert reply.status == 202, reply
    return str(reply.json["data"]["job"]["id"])


def start_backfill(server: ReferenceServer, connection_id: str = "conn_1", **body: Any) -> str:
    reply = call(server, "POST", f"/api/v1/connections/{connection_id}/backfill", {**WINDOW, **body})
    assert reply.status == 202, reply
    return str(reply.json["data"]["backfill"]["id"])


def look(server: ReferenceServer, backfill_id: str, count: int = 1) -> Any:
    """What the last of so many looks at the backfill shows."""
    for _ in range(count):
        reply = call(server, "GET", f"/api/v1/backfills/{backfill_id}")
        assert reply.status == 200, reply
    return reply.json["data"]


def cancel(server: ReferenceServer, job_id: str) -> str:
    return str(call(server, "POST", f"/api/v1/jobs/{job_id}/cancel").json["data"]["status"])


def ends(server: ReferenceServer, backfill_id: str) -> list[str]:
    """The states of the backfill's shards, without a look at them."""
    jobs = server.jobs
    return [jobs[job_id]["status"] for job_id in server.backfills[backfill_id]["job_ids"]]


class Clock:
    """Tells the double how many seconds have passed."""

    now = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(double, "time", SimpleNamespace(**{**vars(time), "monotonic": lambda: clock.now}))
    return clock


def statuses(server: ReferenceServer, job_id: str, count: int) -> list[str]:
    return [call(server, "GET", f"/api/v1/jobs/{job_id}").json["data"]["status"] for _ in range(count)]


def wait_for(server: ReferenceServer, job_id: str, status: str) -> None:
    deadline = time.monotonic() + 60
    while statuses(server, job_id, 1) != [status]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def listing(server: ReferenceServer, what: str = "jobs", **query: Any) -> Reply:
    return call(server, "GET", f"/api/v1/{what}?" + urllib.parse.urlencode(query))


def listed(server: ReferenceServer, what: str = "jobs", **query: Any) -> list[str]:
    return [row["id"] for row in listing(server, what, **query).json["data"]]


def meet(server: ReferenceServer, method: str, path: str) -> str:
    """What a client makes of one request: the name of what went wrong, or the status."""
    try:
        reply = call(server, method, path)
    except ConnectionResetError:
        return "reset"
    except http.client.IncompleteRead:
        return "cut"
    return "html" if reply.headers.get("Content-Type", "").startswith("text/html") else str(reply.status)


class TestShapes:
    def test_trigger(self) -> None:
        with ReferenceServer(api_key=KEY) as server:
            reply = call(server, "POST", SYNC, {"pipeline_id": "pl_1", "priority": "normal", "metadata": {"a": "b"}})
            job = reply.json["data"]["job"]
            expected = ["id", "type", "status", "connection_id", "pipeline_id", "created_at", "queued_at"]
            assert list(reply.json["data"]) == ["job"]
            assert list(job) == expected
            assert (job["type"], job["status"]) == ("connection_sync", "queued")
            assert (job["connection_id"], job["pipeline_id"]) == ("conn_1", "pl_1")
            assert STAMP.fullmatch(job["created_at"])
            assert server.jobs[job["id"]]["metadata"] == {"a": "b"}
            assert reply.headers["Content-Type"] == "application/json"

    def test_the_three_states_of_a_job(self) -> None:
        with ReferenceServer(api_key=KEY, looks=2) as server:
            path = f"/api/v1/jobs/{start(server)}"
            queued, running, done = (call(server, "GET", path).json["data"] for _ in range(3))
        keys = "id type status connection_id pipeline_id created_at queued_at started_at finished_at "
        keys += "duration_seconds metrics error"
        for job in (queued, running, done):
            assert list(job) == keys.split()
            assert list(job["metrics"]) == ["rows_extracted", "rows_loaded", "bytes_read"]
            assert job["error"] is None
        assert (queued["status"], queued["started_at"]) == ("queued", None)
        assert (running["status"], running["finished_at"], running["duration_seconds"]) == ("running", None, None)
        assert done["status"] == "succeeded"
        assert STAMP.fullmatch(done["finished_at"])
        assert isinstance(done["duration_seconds"], int)

    def test_row_of_a_list(self) -> None:
        with ReferenceServer(api_key=KEY) as server:
            start(server)
            page = listing(server).json
        keys = ["id", "type", "status", "connection_id", "pipeline_id", "created_at", "started_at"]
        assert list(page["data"][0]) == keys
        assert page["meta"] == {"page": {"limit": 50, "cursor": None}}

    def test_results(self) -> None:
        with ReferenceServer(api_key=KEY, looks=1) as server:
            path = f"/api/v1/jobs/{start(server)}/results"
            early, done = call(server, "GET", path), call(server, "GET", path)
        assert (early.status, early.json["error"]["code"]) == (409, "conflict")
        assert list(done.json["data"]) == ["job_id", "status", "tables", "warnings"]
        assert list(done.json["data"]["tables"][0]) == ["name", "rows_loaded", "checksum"]
        assert list(done.json["data"]["warnings"][0]) == ["code", "message"]

    def test_results_as_a_stub(self) -> None:
        with ReferenceServer(api_key=KEY, looks=5, partial_results=True) as server:
            reply = call(server, "GET", f"/api/v1/jobs/{start(server)}/results")
        assert reply.status == 200
        assert (reply.json["data"]["status"], reply.json["data"]["tables"]) == ("queued", [])

    def test_a_failed_job(self) -> None:
        with ReferenceServer(api_key=KEY, looks=0, outcome="failed") as server:
            job_id = start(server)
            job = call(server, "GET", f"/api/v1/jobs/{job_id}").json["data"]
            results = call(server, "GET", f"/api/v1/jobs/{job_id}/results").json["data"]
        assert (job["status"], list(job["error"])) == ("failed", ["code", "message"])
        assert (results["status"], results["tables"]) == ("failed", [])


class TestLife:
    def test_by_looks(self) -> None:
        with ReferenceServer(api_key=KEY, looks=3) as server:
            seen = statuses(server, start(server), 5)
        assert seen == ["queued", "running", "running", "succeeded", "succeeded"]

    def test_by_seconds(self, clock: Clock) -> None:
        with ReferenceServer(api_key=KEY, queued_seconds=20, running_seconds=30) as server:
            job_id = start(server)
            seen = []
            for second in (19.9, 20.1, 49.9, 50.1):
                clock.now = second
                seen += statuses(server, job_id, 1)
        assert seen == ["queued", "running", "running", "succeeded"]

    def test_cancel(self) -> None:
        with ReferenceServer(api_key=KEY, running_seconds=60, cancelling_seconds=0.1) as server:
            job_id = start(server)
            path = f"/api/v1/jobs/{job_id}/cancel"
            first, second = call(server, "POST", path), call(server, "POST", path)
            wait_for(server, job_id, "cancelled")
            last = call(server, "POST", path)
        assert list(first.json["data"]) == ["id", "status", "cancel_requested_at"]
        assert first.json["data"]["status"] == "cancelling"
        assert second.json == first.json
        assert (last.status, last.json["data"]["status"]) == (200, "cancelled")

    def test_cancel_by_looks(self) -> None:
        with ReferenceServer(api_key=KEY, looks=9) as server:
            job_id = start(server)
            call(server, "POST", f"/api/v1/jobs/{job_id}/cancel")
            assert statuses(server, job_id, 2) == ["cancelling", "cancelled"]

    def test_cancel_of_a_finished_job(self) -> None:
        with ReferenceServer(api_key=KEY, queued_seconds=0, running_seconds=0) as server:
            reply = call(server, "POST", f"/api/v1/jobs/{start(server)}/cancel")
        assert (reply.status, reply.json["data"]["status"]) == (200, "succeeded")


class TestStarts:
    def test_second_sync_of_an_active_connection(self) -> None:
        with ReferenceServer(api_key=KEY, running_seconds=60) as server:
            job_id = start(server)
            reply = call(server, "POST", SYNC)
            start(server, "conn_2")
            assert reply.status == 409
            assert (reply.json["error"]["code"], reply.json["error"]["existing_job_id"]) == ("conflict", job_id)
            assert len(server.jobs) == 2

    def test_conflict_without_the_id(self) -> None:
        with ReferenceServer(api_key=KEY, name_existing_job=False) as server:
            start(server)
            assert list(call(server, "POST", SYNC).json["error"]) == ["code", "message"]

    def test_conflict_ends_with_the_job(self) -> None:
        with ReferenceServer(api_key=KEY, queued_seconds=0, running_seconds=0) as server:
            assert start(server) != start(server)

    def test_two_active_syncs_where_allowed(self) -> None:
        with ReferenceServer(api_key=KEY, conflict_on_active=False) as server:
            assert start(server) != start(server)

    @pytest.mark.parametrize(("honoured", "jobs"), [(False, 2), (True, 1)])
    def test_idempotency_key(self, honoured: bool, jobs: int) -> None:
        with ReferenceServer(api_key=KEY, conflict_on_active=False, honour_idempotency_key=honoured) as server:
            replies = [call(server, "POST", SYNC, {"priority": "low"}, Idempotency_Key="k1") for _ in range(2)]
            assert [reply.status for reply in replies] == [202, 202]
            assert len(server.jobs) == jobs
            other = call(server, "POST", SYNC, {"priority": "high"}, Idempotency_Key="k1")
            assert other.status == (400 if honoured else 202)
            assert {job["idempotency_key"] for job in server.jobs.values()} == {"k1"}

    def test_idempotency_key_is_off_by_default(self) -> None:
        with ReferenceServer(api_key=KEY) as server:
            assert [call(server, "POST", SYNC, Idempotency_Key="k").status for _ in range(2)] == [202, 409]

    @pytest.mark.parametrize(
        ("body", "field"),
        [([], "body"), ({"metadata": "x"}, "metadata"), ({"organization_id": "o"}, "organization_id")],
    )
    def test_bodies_that_are_refused(self, body: Any, field: str) -> None:
        with ReferenceServer(api_key=KEY) as server:
            error = call(server, "POST", SYNC, body).json["error"]
            assert (error["code"], error["details"][0]["field"]) == ("invalid_request", field)
            assert list(error["details"][0]) == ["field", "issue"]
            assert server.jobs == {}

    def test_parallel_starts_of_one_connection_make_one_job(self) -> None:
        with ReferenceServer(api_key=KEY, running_seconds=60) as server, ThreadPoolExecutor(16) as pool:
            replies = list(pool.map(lambda _: call(server, "POST", SYNC).status, range(32)))
            assert sorted(replies) == [202] + [409] * 31
            assert len(server.jobs) == 1
            assert len(server.requests) == 32


class TestLists:
    def test_filters(self) -> None:
        with ReferenceServer(api_key=KEY, looks=0) as server:
            first, second = start(server, "conn_1", pipeline_id="pl_1"), start(server, "conn_2", pipeline_id="pl_2")
            assert listed(server) == [second, first]
            assert listed(server, connection_id="conn_1") == [first]
            assert listed(server, pipeline_id="pl_2", type="connection_sync") == [second]
            assert listed(server, type="backfill") == []
            assert set(listed(server, status="succeeded")) == {first, second}
            assert listed(server, status="running") == []

    def test_bounds_include_their_ends(self) -> None:
        with ReferenceServer(api_key=KEY) as server:
            job_id = start(server)
            shown = server.jobs[job_id]["created_at"]
            moment = datetime.fromisoformat(shown)
            later, earlier = (moment + timedelta(seconds=shift) for shift in (1, -1))
            assert listed(server, since=shown, until=shown) == [job_id]
            assert listed(server, since=earlier.isoformat(), until=later.isoformat()) == [job_id]
            assert listed(server, since=later.isoformat()) == []
            assert listed(server, until=earlier.isoformat()) == []

    @pytest.mark.parametrize("newest_first", [True, False])
    def test_pages(self, newest_first: bool) -> None:
        with ReferenceServer(api_key=KEY, newest_first=newest_first) as server:
            made = [start(server, f"conn_{n}") for n in range(5)]
            seen, cursor, pages = [], {}, 0
            while True:
                page = listing(server, limit=2, **cursor).json
                seen += [row["id"] for row in page["data"]]
                pages += 1
                if page["meta"]["page"]["cursor"] is None:
                    break
                cursor = {"cursor": page["meta"]["page"]["cursor"]}
        assert (seen, pages) == (made[::-1] if newest_first else made, 3)

    def test_full_last_page_has_no_cursor(self) -> None:
        with ReferenceServer(api_key=KEY) as server:
            for n in range(2):
                start(server, f"conn_{n}")
            assert listing(server, limit=2).json["meta"]["page"] == {"limit": 2, "cursor": None}

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("limit", "0"),
            ("limit", "101"),
            ("limit", "x"),
            ("since", "soon"),
            ("until", "2025-01-01T00:00:00"),
            ("cursor", "%"),
            ("cursor", "e30="),
        ],
    )
    def test_queries_that_are_refused(self, name: str, value: str) -> None:
        with ReferenceServer(api_key=KEY) as server:
            reply = listing(server, **{name: value})
        assert (reply.status, reply.json["error"]["details"][0]["field"]) == (400, name)

    def test_an_offset_whose_plus_is_not_escaped_is_refused(self) -> None:
        with ReferenceServer(api_key=KEY) as server:
            since = datetime.now(UTC).isoformat()
            assert call(server, "GET", f"/api/v1/jobs?since={since}").status == 400


class TestBackfillShapes:
    def test_trigger(self) -> None:
        sent = {"tables": ["public.orders"], "priority": "low", "metadata": {"a": "b"}}
        with ReferenceServer(api_key=KEY) as server:
            reply = call(server, "POST", BACKFILL, {**WINDOW, **sent})
            backfill = reply.json["data"]["backfill"]
            known = server.backfills[backfill["id"]]
        assert (reply.status, list(reply.json["data"])) == (202, ["backfill"])
        assert set(backfill) - {"lane"} == {
            *("id", "connection_id", "status", "start_at", "end_at"),
            *("tables", "progress_percent", "created_at"),
        }
        assert (backfill["connection_id"], backfill["status"]) == ("conn_1", "queued")
        assert {name: backfill[name] for name in WINDOW} == WINDOW
        assert (backfill["tables"], backfill["progress_percent"]) == (["public.orders"], 0)
        assert STAMP.fullmatch(backfill["created_at"])
        assert (known["priority"], known["metadata"]) == ("low", {"a": "b"})

    def test_the_states_of_a_backfill(self) -> None:
        with ReferenceServer(api_key=KEY, backfill_looks=5) as server:
            backfill_id = start_backfill(server)
            queued, empty, running, _, _, done = (look(server, backfill_id) for _ in range(6))
        keys = {"id", "connection_id", "status", "start_at", "end_at", "tables", "progress_percent"}
        keys |= {"rows_processed", "error", "created_at", "updated_at", "lane"}
        assert set(queued) == keys
        assert set(empty) == set(running) == set(done) == keys | {"job_ids"}
        assert (queued["status"], queued["tables"], queued["rows_processed"]) == ("queued", None, None)
        assert (empty["status"], empty["job_ids"], empty["progress_percent"]) == ("running", None, 0)
        assert (running["status"], len(running["job_ids"]), running["progress_percent"]) == ("running", 1, 0)
        assert (done["status"], len(done["job_ids"]), done["progress_percent"]) == ("completed", 3, 100)
        assert (done["rows_processed"], done["error"]) == (3 * 44802, None)
        assert STAMP.fullmatch(done["updated_at"])

    def test_row_of_a_list(self) -> None:
        with ReferenceServer(api_key=KEY) as server:
            start_backfill(server)
            page = listing(server, "backfills").json
        assert set(page["data"][0]) - {"lane"} == {
            *("id", "connection_id", "status", "start_at", "end_at"),
            *("progress_percent", "created_at", "updated_at"),
        }
        assert page["meta"] == {"page": {"limit": 50, "cursor": None}}

    def test_a_window_comes_back_in_utc(self) -> None:
        window = {"start_at": "2025-01-01T00:00:00.5+02:00", "end_at": "2025-01-01T00:00:00-01:00"}
        with ReferenceServer(api_key=KEY) as server:
            backfill = look(server, start_backfill(server, **window))
        assert (backfill["start_at"], backfill["end_at"]) == ("2024-12-31T22:00:00Z", "2025-01-01T01:00:00Z")


class TestBackfillLife:
    def test_by_looks(self) -> None:
        with ReferenceServer(api_key=KEY, backfill_looks=4) as server:
            backfill_id = start_backfill(server)
            seen = [look(server, backfill_id) for _ in range(6)]
        assert [one["status"] for one in seen] == ["queued", "running", "running", "running", "completed", "completed"]
        assert [len(one.get("job_ids") or []) for one in seen] == [0, 1, 2, 3, 3, 3]
        assert seen[1]["job_ids"] == seen[5]["job_ids"][:1]

    def test_goes_by_the_looks_of_jobs_where_it_has_none(self) -> None:
        with ReferenceServer(api_key=KEY, looks=2) as server:
            backfill_id = start_backfill(server)
            assert [look(server, backfill_id)["status"] for _ in range(3)] == ["queued", "running", "completed"]

    def test_over_at_the_first_look(self) -> None:
        with ReferenceServer(api_key=KEY, backfill_looks=0) as server:
            backfill_id = start_backfill(server)
            assert look(server, backfill_id)["status"] == "completed"
            assert ends(server, backfill_id) == ["succeeded"] * 3

    def test_without_shards(self) -> None:
        with ReferenceServer(api_key=KEY, backfill_looks=2, backfill_jobs=0) as server:
            done = look(server, start_backfill(server), 3)
        assert (done["status"], done["job_ids"], done["rows_processed"]) == ("completed", None, None)

    def test_by_seconds(self, clock: Clock) -> None:
        with ReferenceServer(api_key=KEY, queued_seconds=10, running_seconds=20) as server:
            backfill_id = start_backfill(server)
            seen = []
            for second in (9.9, 10.1, 29.9, 30.1):
                clock.now = second
                seen.append(look(server, backfill_id)["status"])
            assert ends(server, backfill_id) == ["succeeded"] * 3
        assert seen == ["queued", "running", "running", "completed"]

    def test_the_clock_needs_no_look(self) -> None:
        with ReferenceServer(api_key=KEY, queued_seconds=0, running_seconds=0) as server:
            start_backfill(server)
            assert [job["status"] for job in server.jobs.values()] == ["succeeded"] * 3
            assert [backfill["status"] for backfill in server.backfills.values()] == ["completed"]
            assert len(listed(server, type="backfill")) == 3

    def test_a_look_at_a_list_is_a_look_at_each_row(self) -> None:
        with ReferenceServer(api_key=KEY, backfill_looks=1) as server:
            backfill_id = start_backfill(server)
            assert server.backfills[backfill_id]["status"] == "queued"
            assert listed(server, "backfills", connection_id="conn_2") == []
            assert [listing(server, "backfills").json["data"][0]["status"] for _ in range(2)] == ["queued", "completed"]

    def test_shards_that_end_before_their_backfill(self) -> None:
        with ReferenceServer(api_key=KEY, looks=1, backfill_looks=6) as server:
            backfill_id = start_backfill(server)
            seen = [look(server, backfill_id) for _ in range(7)]
        assert [one["progress_percent"] for one in seen] == [0, 0, 0, 0, 33, 33, 100]
        assert [one["rows_processed"] for one in seen[3:5]] == [None, 44802]

    def test_a_shard_is_a_job(self) -> None:
        with ReferenceServer(api_key=KEY, looks=3, backfill_looks=9, backfill_jobs=1) as server:
            job_id = look(server, start_backfill(server, tables=["a", "b"], metadata={"k": "v"}), 9)["job_ids"][0]
            assert listed(server, type="backfill", connection_id="conn_1") == [job_id]
            assert listed(server, type="connection_sync") == []
            job = call(server, "GET", f"/api/v1/jobs/{job_id}").json["data"]
            early, late = (call(server, "GET", f"/api/v1/jobs/{job_id}/results") for _ in range(2))
            assert server.jobs[job_id]["metadata"] == {"k": "v"}
        assert (job["type"], job["connection_id"], job["pipeline_id"]) == ("backfill", "conn_1", None)
        assert (early.status, late.status) == (409, 200)
        assert [table["name"] for table in late.json["data"]["tables"]] == ["a", "b"]

    def test_results_of_a_shard_as_a_stub(self) -> None:
        with ReferenceServer(api_key=KEY, backfill_looks=3, partial_results=True) as server:
            job_id = look(server, start_backfill(server), 2)["job_ids"][0]
            reply = call(server, "GET", f"/api/v1/jobs/{job_id}/results")
        assert (reply.status, reply.json["data"]["tables"]) == (200, [])


class TestBackfillFailure:
    def test_failing_jobs(self) -> None:
        with ReferenceServer(api_key=KEY, backfill_looks=3, failing_jobs=[1]) as server:
            backfill_id = start_backfill(server)
            done = look(server, backfill_id, 4)
            assert ends(server, backfill_id) == ["succeeded", "failed", "succeeded"]
            job = call(server, "GET", f"/api/v1/jobs/{done['job_ids'][1]}").json["data"]
        assert (done["status"], done["error"], done["progress_percent"]) == ("failed", "1 of 3 shards failed.", 66)
        assert job["error"] == {"code": "source_unavailable", "message": "The source did not answer shard 1."}

    def test_a_shard_may_fail_long_before_its_backfill(self) -> None:
        with ReferenceServer(api_key=KEY, looks=0, backfill_looks=5, failing_jobs=[0]) as server:
            backfill_id = start_backfill(server)
            running = look(server, backfill_id, 4)
            assert ends(server, backfill_id)[0] == "failed"
        assert (running["status"], running["error"]) == ("running", None)

    @pytest.mark.parametrize("jobs", [0, 2])
    def test_outcome(self, jobs: int) -> None:
        with ReferenceServer(api_key=KEY, looks=0, outcome="failed", backfill_jobs=jobs) as server:
            backfill_id = start_backfill(server)
            assert look(server, backfill_id)["status"] == "failed"
            assert ends(server, backfill_id) == ["failed"] * jobs

    @pytest.mark.parametrize("place", [-1, 3])
    def test_a_failure_of_no_shard(self, place: int) -> None:
        with pytest.raises(ValueError, match="shards"):
            ReferenceServer(failing_jobs=[place])


class TestBackfillCancel:
    def test_all_shards(self) -> None:
        with ReferenceServer(api_key=KEY, backfill_looks=9) as server:
            backfill_id = start_backfill(server)
            for job_id in look(server, backfill_id, 9)["job_ids"]:
                assert cancel(server, job_id) == "cancelling"
            first, second = look(server, backfill_id), look(server, backfill_id)
            assert ends(server, backfill_id) == ["cancelled"] * 3
        assert (first["status"], second["status"]) == ("running", "cancelled")
        assert (second["error"], second["rows_processed"]) == (None, None)

    def test_others_live_on_and_none_is_added(self) -> None:
        with ReferenceServer(api_key=KEY, backfill_looks=4) as server:
            backfill_id = start_backfill(server)
            first, second = look(server, backfill_id, 3)["job_ids"]
            cancel(server, second)
            assert [look(server, backfill_id)["status"] for _ in range(4)] == ["running"] * 3 + ["cancelled"]
            assert ends(server, backfill_id) == ["succeeded", "cancelled"]
            assert cancel(server, first) == "succeeded"

    def test_further_shards_after_the_first_cancel(self) -> None:
        with ReferenceServer(api_key=KEY, backfill_looks=9, backfill_jobs=1, jobs_after_cancel=2) as server:
            backfill_id = start_backfill(server)
            cancelled: list[str] = []
            seen = [look(server, backfill_id, 9)]
            while seen[-1]["status"] == "running":
                for job_id in set(seen[-1]["job_ids"]).difference(cancelled):
                    cancel(server, job_id)
                    cancelled.append(job_id)
                seen.append(look(server, backfill_id))
            assert ends(server, backfill_id) == ["cancelled"] * 3
        assert [len(one["job_ids"]) for one in seen] == [1, 2, 3, 3, 3]
        assert seen[-1]["status"] == "cancelled"

    def test_a_further_shard_that_nobody_cancels_lives_on(self) -> None:
        with ReferenceServer(api_key=KEY, looks=1, backfill_looks=2, jobs_after_cancel=1) as server:
            backfill_id = start_backfill(server)
            for job_id in look(server, backfill_id, 2)["job_ids"]:
                cancel(server, job_id)
            assert [look(server, backfill_id)["status"] for _ in range(3)] == ["running", "running", "cancelled"]
            assert ends(server, backfill_id) == ["cancelled"] * 3 + ["succeeded"]

    def test_by_seconds(self) -> None:
        seconds = {"queued_seconds": 0, "running_seconds": 60, "cancelling_seconds": 0.05}
        with ReferenceServer(api_key=KEY, jobs_after_cancel=1, **seconds) as server:
            backfill_id = start_backfill(server)
            begun = time.monotonic()
            while (seen := look(server, backfill_id))["status"] != "cancelled":
                assert time.monotonic() - begun < 60
                for job_id in seen["job_ids"]:
                    cancel(server, job_id)
            assert ends(server, backfill_id) == ["cancelled"] * 4

    def test_a_cancel_of_what_is_over_is_none(self) -> None:
        with ReferenceServer(api_key=KEY, looks=0, backfill_looks=3, jobs_after_cancel=1) as server:
            backfill_id = start_backfill(server)
            first, *_ = look(server, backfill_id, 3)["job_ids"]
            assert statuses(server, first, 1) == ["succeeded"]
            assert cancel(server, first) == "succeeded"
            assert look(server, backfill_id)["status"] == "completed"


class TestBackfillRequests:
    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ([], "body"),
            ({"start_at": None}, "start_at"),
            ({"end_at": 1740787200}, "end_at"),
            ({"start_at": "2025-01-01"}, "start_at"),
            ({"end_at": "soon"}, "end_at"),
            ({"start_at": "0001-01-01T00:00:00+01:00"}, "start_at"),
            ({"end_at": WINDOW["start_at"]}, "end_at"),
            ({"tables": "public.orders"}, "tables"),
            ({"tables": []}, "tables"),
            ({"tables": ["public.orders", ""]}, "tables"),
            ({"priority": 1}, "priority"),
            ({"pipeline_id": "pl_1"}, "pipeline_id"),
        ],
    )
    def test_bodies_that_are_refused(self, body: Any, field: str) -> None:
        with ReferenceServer(api_key=KEY) as server:
            reply = call(server, "POST", BACKFILL, {**WINDOW, **body} if isinstance(body, dict) else body)
            assert (reply.status, reply.json["error"]["details"][0]["field"]) == (400, field)
            assert server.backfills == {}

    @pytest.mark.parametrize("field", ["start_at", "end_at"])
    def test_a_window_needs_both_ends(self, field: str) -> None:
        with ReferenceServer(api_key=KEY) as server:
            error = call(server, "POST", BACKFILL, {name: WINDOW[name] for name in WINDOW if name != field})
        assert error.json["error"]["details"] == [{"field": field, "issue": "is missing"}]

    def test_not_found(self) -> None:
        with ReferenceServer(api_key=KEY, connections={"conn_2"}) as server:
            assert call(server, "POST", BACKFILL, WINDOW).status == 404
            backfill_id = start_backfill(server, "conn_2")
            assert call(server, "GET", "/api/v1/backfills/bf_none").status == 404
            assert call(server, "POST", f"/api/v1/backfills/{backfill_id}/cancel").status == 404

    @pytest.mark.parametrize(("honoured", "backfills"), [(False, 2), (True, 1)])
    def test_idempotency_key(self, honoured: bool, backfills: int) -> None:
        with ReferenceServer(api_key=KEY, honour_idempotency_key=honoured) as server:
            replies = [call(server, "POST", BACKFILL, WINDOW, Idempotency_Key="k1") for _ in range(2)]
            assert [reply.status for reply in replies] == [202, 202]
            assert len(server.backfills) == backfills
            assert {one["idempotency_key"] for one in server.backfills.values()} == {"k1"}
            other = call(server, "POST", BACKFILL, {**WINDOW, "tables": ["a"]}, Idempotency_Key="k1")
            assert other.status == (400 if honoured else 202)
            assert call(server, "POST", SYNC, Idempotency_Key="k1").status == 202

    def test_no_conflict_with_a_sync_or_another_backfill(self) -> None:
        with ReferenceServer(api_key=KEY, queued_seconds=0, running_seconds=60) as server:
            assert start_backfill(server) != start_backfill(server)
            assert len(listed(server, status="running")) == 6
            start(server)
            start_backfill(server)
            assert call(server, "POST", SYNC).status == 409

    def test_filters(self) -> None:
        with ReferenceServer(api_key=KEY, looks=0) as server:
            first, second = start_backfill(server, "conn_1"), start_backfill(server, "conn_2")
            assert listed(server, "backfills", connection_id="conn_1") == [first]
            assert listed(server, "backfills", status="completed") == [second, first]
            assert listed(server, "backfills", status="running", connection_id="conn_2") == []

    @pytest.mark.parametrize("newest_first", [True, False])
    def test_pages(self, newest_first: bool) -> None:
        with ReferenceServer(api_key=KEY, newest_first=newest_first) as server:
            made = [start_backfill(server) for _ in range(3)]
            page = listing(server, "backfills", limit=2).json
            cursor = page["meta"]["page"]["cursor"]
            last = listing(server, "backfills", limit=2, cursor=cursor).json
            assert listing(server, cursor=cursor).status == 400
        assert [row["id"] for row in page["data"] + last["data"]] == (made[::-1] if newest_first else made)
        assert last["meta"]["page"]["cursor"] is None

    @pytest.mark.parametrize(
        ("name", "value"),
        [("limit", "101"), ("cursor", "e30="), ("status", "succeeded"), ("type", "backfill"), ("since", "x")],
    )
    def test_queries_that_are_refused(self, name: str, value: str) -> None:
        with ReferenceServer(api_key=KEY, looks=0) as server:
            backfill_id = start_backfill(server)
            reply = listing(server, "backfills", **{name: value})
            assert server.backfills[backfill_id]["status"] == "queued"
        assert (reply.status, reply.json["error"]["details"][0]["field"]) == (400, name)

    def test_copies_do_not_change_the_server(self) -> None:
        with ReferenceServer(api_key=KEY, looks=0) as server:
            backfill_id = start_backfill(server, tables=["a"], metadata={"a": "b"})
            server.backfills[backfill_id]["metadata"]["a"] = "changed"
            server.backfills[backfill_id]["tables"].append("b")
            known = server.backfills[backfill_id]
        assert (known["metadata"], known["tables"]) == ({"a": "b"}, ["a"])

    def test_start_faults_before_and_after_the_effect(self) -> None:
        fault = ("status", 503, {"Retry-After": "1"})
        with ReferenceServer(api_key=KEY, start_faults=[fault, after_effect(fault)]) as server:
            assert call(server, "POST", BACKFILL, WINDOW).status == 503
            assert server.backfills == {}
            assert call(server, "POST", BACKFILL, WINDOW).status == 503
            assert len(server.backfills) == 1

    def test_a_read_fault_is_no_look(self) -> None:
        with ReferenceServer(api_key=KEY, backfill_looks=1, read_faults=[("reset",), ("html", 502)]) as server:
            path = f"/api/v1/backfills/{start_backfill(server)}"
            assert [meet(server, "GET", path) for _ in range(3)] == ["reset", "html", "200"]
            assert look(server, path.rpartition("/")[2])["status"] == "completed"

    def test_ledger(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.jsonl"
        with ReferenceServer(api_key=KEY, looks=0, backfill_jobs=1, ledger=ledger) as server:
            look(server, start_backfill(server))
        lines = [json.loads(line) for line in ledger.read_text().splitlines()]
        told = [(line["kind"], line["event"], line[line["kind"]]["status"]) for line in lines if "event" in line]
        assert told == [
            ("backfill", "created", "queued"),
            ("job", "created", "queued"),
            ("job", "changed", "succeeded"),
            ("backfill", "changed", "completed"),
        ]


class TestErrors:
    @pytest.mark.parametrize("value", ["", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY])
    def test_wrong_key(self, value: str) -> None:
        with ReferenceServer(api_key=KEY) as server:
            reply = call(server, "POST", SYNC, Authorization=value)
            assert (reply.status, reply.json["error"]["code"]) == (401, "unauthorized")
            assert server.jobs == {}

    def test_rotation(self) -> None:
        with ReferenceServer(api_key="old") as server:
            server.accept_keys("old", KEY)
            assert listing(server).status == 200
            server.accept_keys("new")
            assert listing(server).status == 401

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/"),
            ("GET", "/api/v1/jobs/job_none"),
            ("GET", "/api/v1/jobs/"),
            ("GET", SYNC),
            ("PUT", SYNC),
            ("POST", "/api/v1/jobs/job_none/cancel"),
            ("DELETE", "/api/v1/jobs"),
            ("PATCH", "/x"),
        ],
    )
    def test_not_found(self, method: str, path: str) -> None:
        with ReferenceServer(api_key=KEY) as server:
            reply = call(server, method, path)
        assert (reply.status, reply.json["error"]["code"]) == (404, "not_found")

    def test_unknown_connection(self) -> None:
        with ReferenceServer(api_key=KEY, connections={"conn_2"}) as server:
            assert call(server, "POST", SYNC).status == 404
            start(server, "conn_2")


class TestFaults:
    def test_fourteen(self) -> None:
        faults = fourteen_faults(1)
        assert sorted(fault[0] for fault in faults) == sorted(
            ["status"] * 6 + ["reset"] * 3 + ["cut"] * 2 + ["html"] * 3
        )
        assert [fault[2] for fault in faults if fault[1:2] == (429,)] == [{"Retry-After": "1"}] * 3
        assert faults == fourteen_faults(1) != fourteen_faults(2)

    def test_each_read_fault_as_a_client_meets_it(self) -> None:
        faults = fourteen_faults(3)
        with ReferenceServer(api_key=KEY, looks=9, read_faults=faults) as server:
            job_id = start(server)
            met = [meet(server, "GET", f"/api/v1/jobs/{job_id}") for _ in range(15)]
            outcomes = [request.outcome for request in server.requests[1:]]
            assert server.faults_left == (0, 0)
        planned = [str(fault[1]) if fault[0] == "status" else fault[0] for fault in faults]
        assert met == [*planned, "200"]
        assert [str(outcome) for outcome in outcomes] == met

    def test_status_with_headers_and_envelope(self) -> None:
        with ReferenceServer(api_key=KEY, read_faults=[("status", 429, {"Retry-After": "1"})]) as server:
            reply = listing(server)
        assert (reply.status, reply.headers["Retry-After"]) == (429, "1")
        assert list(reply.json) == ["error"]

    def test_empty_and_ok(self) -> None:
        with ReferenceServer(api_key=KEY, read_faults=[("empty",), ("ok",), ("empty", 502)]) as server:
            replies = [listing(server) for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 502]
        assert [reply.raw == b"" for reply in replies] == [True, False, True]

    def test_cut_body_announces_all_and_sends_half(self) -> None:
        with ReferenceServer(api_key=KEY, read_faults=[("cut",)]) as server:
            with pytest.raises(http.client.IncompleteRead) as caught:
                listing(server)
            whole = listing(server).raw
        assert caught.value.partial == whole[: len(whole) // 2]
        assert caught.value.expected == len(whole) - len(whole) // 2

    def test_reset_sends_no_byte(self) -> None:
        with ReferenceServer(api_key=KEY, read_faults=[("reset",)]) as server:
            host, port = urllib.parse.urlsplit(server.url).netloc.split(":")
            with socket.create_connection((host, int(port)), timeout=60) as peer:
                peer.sendall(b"GET /api/v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n")
                with pytest.raises(ConnectionResetError):
                    peer.recv(1)

    @pytest.mark.parametrize("fault", [("status", 503, {"Retry-After": "1"}), ("reset",), ("html", 502), ("empty",)])
    def test_start_fault_before_and_after_the_effect(self, fault: tuple[Any, ...]) -> None:
        with ReferenceServer(api_key=KEY, start_faults=[fault, after_effect(fault)], running_seconds=60) as server:
            first = meet(server, "POST", SYNC)
            assert server.jobs == {}
            assert meet(server, "POST", SYNC) == first
            assert len(server.jobs) == 1
            assert meet(server, "POST", SYNC) == "409"

    def test_all_start_faults_after_the_effect(self) -> None:
        plan = [("status", 500), ("reset",)]
        with ReferenceServer(
            api_key=KEY, start_faults=plan, start_faults_after_effect=True, conflict_on_active=False
        ) as server:
            assert [meet(server, "POST", SYNC) for _ in plan] == ["500", "reset"]
            assert len(server.jobs) == 2

    def test_cut_start_has_its_effect(self) -> None:
        with ReferenceServer(api_key=KEY, start_faults=[("cut",)]) as server:
            assert meet(server, "POST", SYNC) == "cut"
            assert len(server.jobs) == 1

    def test_the_two_plans_are_separate(self) -> None:
        faults = {"read_faults": [("status", 500)], "start_faults": [("status", 503)]}
        with ReferenceServer(api_key=KEY, **faults) as server:
            assert call(server, "POST", "/api/v1/jobs/job_none/cancel").status == 404
            assert call(server, "GET", "/health").status == 404
            assert server.faults_left == (1, 1)
            assert call(server, "POST", SYNC).status == 503
            assert listing(server).status == 500

    @pytest.mark.parametrize("item", [(), ("status",), ("html",), ("after",), ("storm",), ("status", "500")])
    def test_a_plan_that_says_nothing(self, item: tuple[Any, ...]) -> None:
        with pytest.raises(ValueError, match="not a fault"):
            ReferenceServer(read_faults=[item])


class TestServer:
    def test_the_key_is_recorded_nowhere(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.jsonl"
        with ReferenceServer(api_key=KEY, ledger=ledger) as server:
            start(server)
            (request,) = server.requests
        assert request[:2] == ("POST", SYNC)
        assert request.outcome == 202
        assert request.headers["authorization"] == "[removed]"
        assert KEY not in repr(request)
        assert KEY not in ledger.read_text()

    def test_keep_alive_without_delay(self) -> None:
        with ReferenceServer(api_key=KEY) as server:
            connection = connect(server)
            assert exchange(connection, "GET", "/api/v1/jobs").status == 200
            used = connection.sock
            for _ in range(20):
                assert exchange(connection, "POST", SYNC, {"metadata": {"n": 1}}).status in {202, 409}
            assert connection.sock is used
            assert server._server is not None
            (kept,) = server._server._open
            # An acknowledgement that is waited for would cost each answer forty milliseconds.
            assert kept.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            connection.close()

    def test_stops_at_once_and_answers_nobody_afterwards(self) -> None:
        server = ReferenceServer(api_key=KEY)
        server.start()
        connection = connect(server)
        exchange(connection, "GET", "/api/v1/jobs")
        connection.auto_open = 0
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < 60
        with pytest.raises((OSError, http.client.HTTPException)):
            exchange(connection, "GET", "/api/v1/jobs")
        connection.close()
        server.stop()

    def test_comes_back_with_its_port_and_its_jobs(self) -> None:
        server = ReferenceServer(api_key=KEY)
        with server:
            url, job_id = server.url, start(server)
        with server:
            assert server.url == url
            assert listed(server) == [job_id]

    def test_copies_do_not_change_the_server(self) -> None:
        with ReferenceServer(api_key=KEY) as server:
            job_id = start(server, metadata={"a": "b"})
            server.jobs[job_id]["metadata"]["a"] = "changed"
            server.requests.clear()
            assert server.jobs[job_id]["metadata"] == {"a": "b"}
            assert len(server.requests) == 1

    def test_quiet(self, capfd: pytest.CaptureFixture[str]) -> None:
        with ReferenceServer(api_key=KEY, read_faults=[("reset",), ("cut",), ("html", 502)]) as server:
            for _ in range(4):
                meet(server, "GET", "/api/v1/jobs")
        assert capfd.readouterr() == ("", "")

    def test_shares_no_code_with_the_package(self) -> None:
        assert "import planasonix" not in Path(double.__file__).read_text()
        assert "from planasonix" not in Path(double.__file__).read_text()


class TestTls:
    @staticmethod
    def get(server: ReferenceServer, context: ssl.SSLContext) -> int:
        netloc = urllib.parse.urlsplit(server.url).netloc
        connection = http.client.HTTPSConnection(netloc, timeout=60, context=context)
        try:
            return exchange(connection, "GET", "/api/v1/jobs").status
        finally:
            connection.close()

    def test_trusted_only_by_who_names_the_certificate(self, capfd: pytest.CaptureFixture[str]) -> None:
        with ReferenceServer(api_key=KEY, tls=True, read_faults=[("ok",), ("reset",)]) as server:
            assert server.url.startswith("https://127.0.0.1:")
            certificate = server.ca_file
            assert certificate is not None
            with pytest.raises(ssl.SSLCertVerificationError):
                self.get(server, ssl.create_default_context())
            trusting = ssl.create_default_context(cafile=str(certificate))
            trusting.verify_flags |= ssl.VERIFY_X509_STRICT
            assert self.get(server, trusting) == 200
            with pytest.raises(ConnectionResetError):
                self.get(server, trusting)
            assert self.get(server, trusting) == 200
        assert not certificate.exists()
        assert capfd.readouterr() == ("", "")

    def test_a_silent_peer_holds_nobody_up(self) -> None:
        with ReferenceServer(api_key=KEY, tls=True) as server:
            host, port = urllib.parse.urlsplit(server.url).netloc.split(":")
            with socket.create_connection((host, int(port))):
                assert self.get(server, ssl.create_default_context(cafile=str(server.ca_file))) == 200


class TestCommand:
    def test_serves_and_keeps_a_ledger(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.jsonl"
        options = ["--api-key", KEY, "--faults", "3", "--ledger", str(ledger), "--running-seconds", "0"]
        command = [sys.executable, double.__file__, *options, "--queued-seconds", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                server = ReferenceServer()
                server.url = process.stdout.readline().strip()
                job_id = start(server, metadata={"dag_id": "d"})
                met = [meet(server, "GET", f"/api/v1/jobs/{job_id}") for _ in range(15)]
                lines = [json.loads(line) for line in ledger.read_text().splitlines()]
            finally:
                process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""
        requests = [line for line in lines if line["kind"] == "request"]
        jobs = [line for line in lines if line["kind"] == "job"]
        assert [str(request["outcome"]) for request in requests] == ["202", *met]
        assert sorted(met)[:1] == ["200"]
        assert [(job["event"], job["job"]["status"]) for job in jobs] == [
            ("created", "queued"),
            ("changed", "succeeded"),
        ]
        assert jobs[0]["job"]["id"] == job_id
        assert jobs[0]["job"]["metadata"] == {"dag_id": "d"}
