from __future__ import annotations

import httpx
import pytest

from tests.support.simulator_responses import error, invalid_fields

BACKFILL = "/connections/conn_demo_01/backfill"
NOW = "2025-03-27T14:22:10Z"
WINDOW = {"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"}


def start(client: httpx.Client, connection_id: str = "conn_demo_01", **body: object) -> str:
    response = client.post(f"/connections/{connection_id}/backfill", json={**WINDOW, **body})
    return response.json()["data"]["backfill"]["id"]


class TestTriggerBackfill:
    def test_only_the_window_is_required(self, client):
        response = client.post(BACKFILL, json={**WINDOW, "new_field": 1})
        assert response.status_code == 202
        assert set(response.json()["data"]["backfill"]) == {
            "id", "connection_id", "status", "start_at", "end_at", "progress_percent", "created_at"
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("start_at", "end_at"),
        [
            ("2025-01-01", "2025-03-01"),
            ("2025-01-01T00:00:00", "2025-03-01T00:00:00"),
            ("2025-01-01T02:00:00+02:00", "2025-02-28T19:00:00-05:00"),
        ],
    )
    def test_times_are_utc(self, client, start_at, end_at):
        response = client.post(BACKFILL, json={"start_at": start_at, "end_at": end_at})
        assert response.json()["data"]["backfill"].items() >= WINDOW.items()

    @pytest.mark.parametrize(
        ("change", "fields"),
        [
            ({"start_at": None}, {"start_at"}),
            ({"start_at": 1735689600}, {"start_at"}),
            ({"start_at": "1735689600"}, {"start_at"}),
            ({"end_at": 1735689600.5}, {"end_at"}),
            ({"end_at": "tomorrow"}, {"end_at"}),
            ({"end_at": ["2025-03-01"]}, {"end_at"}),
            ({"start_at": "0001-01-01T00:00:00+23:00"}, {"start_at"}),
            ({"end_at": WINDOW["start_at"]}, {"end_at"}),
            ({"end_at": "2024-12-31"}, {"end_at"}),
            ({"end_at": "2025-01-01T01:00:00+01:00"}, {"end_at"}),
            ({"tables": []}, {"tables"}),
            ({"tables": "public.orders"}, {"tables"}),
            ({"tables": None, "priority": None, "metadata": None}, {"tables", "priority", "metadata"}),
            ({"tables": ["public.orders", 1]}, {"tables.1"}),
            ({"tables": [None]}, {"tables.0"}),
            ({"tables": ["public.orders", " "]}, {"tables"}),
            ({"tables": ["a", "b", "a"]}, {"tables"}),
            ({"priority": "urgent"}, {"priority"}),
            ({"metadata": []}, {"metadata"}),
            ({"start_at": "x", "end_at": 1, "tables": [], "priority": 1}, {"start_at", "end_at", "tables", "priority"}),
        ],
    )
    def test_bad_body_names_its_fields_and_starts_nothing(self, client, simulator, change, fields):
        assert invalid_fields(client.post(BACKFILL, json={**WINDOW, **change})) == fields
        assert simulator.backfills() == []

    @pytest.mark.parametrize(
        ("content", "fields"),
        [
            (b"", {"start_at", "end_at"}),
            (b"{}", {"start_at", "end_at"}),
            (b'{"end_at": "2025-03-01"}', {"start_at"}),
            (b"[]", {"body"}),
            (b"{", {"body"}),
        ],
    )
    def test_body_that_lacks_the_window(self, client, content, fields):
        assert invalid_fields(client.post(BACKFILL, content=content)) == fields

    def test_error_for_a_time_shows_an_example(self, client):
        (detail,) = error(client.post(BACKFILL, json={**WINDOW, "start_at": 1}), 400)["details"]
        assert "2025-03-27T14:22:10Z" in detail["issue"]

    def test_unknown_connection(self, client):
        response = client.post("/connections/conn_nope/backfill", json=WINDOW)
        assert error(response, 404)["message"] == "no connection 'conn_nope'"

    def test_idempotency_key(self, client):
        headers = {"Idempotency-Key": "k"}
        first, again = (client.post(BACKFILL, headers=headers, json=WINDOW) for _ in range(2))
        assert (first.json(), first.status_code) == (again.json(), again.status_code)
        other_body = client.post(BACKFILL, headers=headers, json={**WINDOW, "priority": "low"})
        other_route = client.post("/connections/conn_demo_01/sync", headers=headers)
        for response in (other_body, other_route):
            assert error(response, 409)["code"] == "idempotency_key_reused"


class TestGetBackfill:
    def test_queued_backfill_has_the_references_fields(self, client):
        backfill_id = start(client, tables=["public.orders"])
        response = client.get(f"/backfills/{backfill_id}")
        assert response.status_code == 200
        assert response.json() == {
            "data": {
                "id": backfill_id,
                "connection_id": "conn_demo_01",
                "status": "queued",
                **WINDOW,
                "tables": ["public.orders"],
                "progress_percent": 0,
                "rows_processed": 0,
                "error": None,
                "job_ids": [],
                "created_at": NOW,
                "updated_at": NOW,
            }
        }

    def test_failed_backfill(self, client, clock, simulator):
        simulator.plan_backfill("conn_demo_01", jobs=4, failing_jobs=[2], tables={"a": 400})
        backfill_id = start(client)
        clock.move(2.2)
        backfill = client.get(f"/backfills/{backfill_id}").json()["data"]
        assert backfill["status"] == "failed"
        assert backfill["error"] == {"code": "jobs_failed", "message": "1 of 4 jobs failed"}
        assert (backfill["progress_percent"], backfill["rows_processed"]) == (87, 350)
        assert backfill["updated_at"] == "2025-03-27T14:22:12.200000Z"

    def test_unknown_backfill(self, client, simulator):
        assert error(client.get("/backfills/a%2Fb"), 404)["message"] == "no backfill 'a/b'"
        assert simulator.requests[-1].route == "get_backfill"

    def test_job_is_no_backfill(self, client):
        job_id = client.post("/connections/conn_demo_01/sync").json()["data"]["job"]["id"]
        error(client.get(f"/backfills/{job_id}"), 404)


class TestJobsOfABackfill:
    @pytest.fixture
    def job_ids(self, client, clock, simulator):
        """The jobs of a running backfill that will start three more."""
        simulator.plan_backfill("conn_demo_01", jobs=6, parallel=3)
        backfill_id = start(client)
        clock.move(0.2)
        return client.get(f"/backfills/{backfill_id}").json()["data"]["job_ids"]

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({}, True),
            ({"type": "backfill"}, True),
            ({"type": "connection_sync"}, False),
            ({"connection_id": "conn_demo_01", "status": "running"}, True),
            ({"connection_id": "conn_demo_02"}, False),
            ({"pipeline_id": "pl_1"}, False),
            ({"status": "queued"}, False),
            ({"since": "2025-03-27T14:22:10.2Z"}, True),
            ({"since": "2025-03-27T14:22:10.3Z"}, False),
        ],
    )
    def test_are_listed_newest_first(self, client, job_ids, query, found):
        listed = [job["id"] for job in client.get("/jobs", params=query).json()["data"]]
        assert listed == (job_ids[::-1] if found else [])

    def test_get_results_and_cancel(self, client, clock, job_ids):
        job = client.get(f"/jobs/{job_ids[0]}").json()["data"]
        assert (job["type"], job["status"]) == ("backfill", "running")
        assert error(client.get(f"/jobs/{job_ids[0]}/results"), 409)["code"] == "job_not_finished"
        cancelled = client.post(f"/jobs/{job_ids[0]}/cancel").json()["data"]
        assert cancelled == {
            "id": job_ids[0],
            "status": "cancelling",
            "cancel_requested_at": "2025-03-27T14:22:10.200000Z",
        }
        clock.move(2)
        for job_id, status in zip(job_ids, ["cancelled", "succeeded", "succeeded"], strict=True):
            assert client.get(f"/jobs/{job_id}/results").json()["data"]["status"] == status

    def test_cursors_walk_over_them_while_new_ones_come(self, client, clock, job_ids):
        page = client.get("/jobs", params={"limit": 2}).json()
        clock.move(2)
        cursor = page["meta"]["page"]["cursor"]
        rest = client.get("/jobs", params={"limit": 2, "cursor": cursor}).json()["data"]
        assert [job["id"] for job in page["data"] + rest] == job_ids[::-1]
        assert len(client.get("/jobs").json()["data"]) == 6


class TestListBackfills:
    @pytest.fixture
    def ids(self, client, clock):
        """One backfill per second, newest first: the last one is queued, two are running, two completed."""
        ids = []
        for number in range(1, 6):
            clock.move(1)
            ids.append(start(client, f"conn_demo_0{number % 2 + 1}"))
        return ids[::-1]

    @staticmethod
    def listed(client: httpx.Client, **query: object) -> list[str]:
        response = client.get("/backfills", params=query)
        assert response.status_code == 200, response.text
        return [backfill["id"] for backfill in response.json()["data"]]

    @pytest.mark.parametrize(
        ("query", "picked"),
        [
            ({}, [0, 1, 2, 3, 4]),
            ({"connection_id": "conn_demo_02"}, [0, 2, 4]),
            ({"status": "queued"}, [0]),
            ({"status": "running"}, [1, 2]),
            ({"status": "completed"}, [3, 4]),
            ({"status": "completed", "connection_id": "conn_demo_01"}, [3]),
            ({"status": "succeeded"}, []),
            ({"connection_id": "conn_nope"}, []),
        ],
    )
    def test_filters(self, client, ids, query, picked):
        assert self.listed(client, **query) == [ids[number] for number in picked]

    def test_cursors_walk_the_whole_list_while_new_ones_start(self, client, ids):
        pages, query = [], {"limit": 2}
        for _ in range(3):
            page = client.get("/backfills", params=query).json()
            pages.append([backfill["id"] for backfill in page["data"]])
            query["cursor"] = page["meta"]["page"]["cursor"]
            start(client, "conn_demo_09")
        assert pages == [ids[:2], ids[2:4], ids[4:]]
        assert query["cursor"] is None

    @pytest.mark.parametrize("query", [{"status": "running"}, {"connection_id": "conn_demo_01"}])
    def test_cursor_of_another_list(self, client, ids, query):
        cursor = client.get("/backfills", params={"limit": 1}).json()["meta"]["page"]["cursor"]
        assert invalid_fields(client.get("/backfills", params={**query, "cursor": cursor})) == {"cursor"}
        assert invalid_fields(client.get("/jobs", params={"cursor": cursor})) == {"cursor"}


def test_faults_and_log_know_the_routes(client, simulator):
    for route in ("trigger_backfill", "list_backfills", "get_backfill"):
        simulator.fail("status", route=route, status=503)
    calls = [("POST", BACKFILL), ("GET", "/backfills"), ("GET", "/backfills/x")]
    assert [client.request(*call).status_code for call in calls] == [503, 503, 503]
    assert [client.request(*call).status_code for call in calls] == [400, 200, 404]
    assert [request.route for request in simulator.requests] == [
        "trigger_backfill",
        "list_backfills",
        "get_backfill",
    ] * 2


def test_start_can_take_effect_without_a_response(client, simulator):
    simulator.fail("reset", route="trigger_backfill", when="after")
    with pytest.raises(httpx.ReadError):
        client.post(BACKFILL, json=WINDOW)
    (backfill,) = simulator.backfills()
    assert simulator.backfill(backfill.id) == backfill
