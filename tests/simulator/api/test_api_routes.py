from __future__ import annotations

import base64
import json
from email.utils import parsedate_to_datetime

import httpx
import pytest

from planasonix_provider.simulator import Fault
from planasonix_provider.simulator.app import create_app
from planasonix_provider.simulator.model.api_keys import SCOPES
from planasonix_provider.simulator.workspace import Workspace
from tests.support.simulator_responses import error, invalid_fields

SYNC = "/connections/conn_demo_01/sync"
NOW = "2025-03-27T14:22:10Z"


def start(client: httpx.Client, connection_id: str = "conn_demo_01", **body: object) -> str:
    return client.post(f"/connections/{connection_id}/sync", json=body).json()["data"]["job"]["id"]


class TestTriggerSync:
    @pytest.mark.parametrize("content", [b"", b"{}", b'{"new_field": null}'])
    def test_body_is_optional(self, client, content):
        response = client.post(SYNC, content=content)
        assert response.status_code == 202
        assert set(response.json()["data"]["job"]) == {
            "id", "type", "status", "connection_id", "created_at", "queued_at"
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("content", "fields"),
        [
            (b"[]", {"body"}),
            (b"null", {"body"}),
            (b'"text"', {"body"}),
            (b"{", {"body"}),
            (b"\xff", {"body"}),
            (b"[" * 10_000, {"body"}),
            (b'{"priority": "urgent"}', {"priority"}),
            (b'{"pipeline_id": 1}', {"pipeline_id"}),
            (b'{"pipeline_id": null, "priority": null, "metadata": null}', {"pipeline_id", "priority", "metadata"}),
            (b'{"metadata": []}', {"metadata"}),
            (b'{"metadata": "x", "priority": 1}', {"metadata", "priority"}),
        ],
    )
    def test_bad_body_names_its_fields_and_starts_nothing(self, client, simulator, content, fields):
        assert invalid_fields(client.post(SYNC, content=content)) == fields
        assert simulator.jobs() == []

    def test_unknown_connection(self, client):
        assert error(client.post("/connections/conn_nope/sync"), 404)["message"] == "no connection 'conn_nope'"

    def test_conflict_names_the_active_job(self, client):
        first = start(client)
        body = error(client.post(SYNC), 409)
        assert (body["code"], body["existing_job_id"]) == ("sync_in_progress", first)

    def test_conflict_can_hide_the_active_job(self, client, simulator):
        simulator.workspace.configure(conflict="unnamed")
        start(client)
        assert "existing_job_id" not in error(client.post(SYNC), 409)

    def test_idempotency_key(self, client):
        headers = {"Idempotency-Key": "k"}
        first, again = (client.post(SYNC, headers=headers).json()["data"]["job"]["id"] for _ in range(2))
        assert first == again
        assert error(client.post(SYNC, headers=headers, json={"priority": "low"}), 409)["code"] == (
            "idempotency_key_reused"
        )


class TestGetJob:
    def test_queued_job_has_the_references_fields(self, client):
        job_id = start(client)
        response = client.get(f"/jobs/{job_id}")
        assert response.status_code == 200
        assert response.json() == {
            "data": {
                "id": job_id,
                "type": "connection_sync",
                "status": "queued",
                "connection_id": "conn_demo_01",
                "created_at": NOW,
                "queued_at": NOW,
                "finished_at": None,
                "duration_seconds": None,
                "metrics": {"rows_extracted": 0, "rows_loaded": 0, "bytes_read": 0},
                "error": None,
            }
        }

    def test_failed_job(self, client, clock, simulator):
        simulator.plan("conn_demo_01", outcome="failed", code="source_unreachable", message="No route to host.")
        job_id = start(client)
        clock.move(3)
        job = client.get(f"/jobs/{job_id}").json()["data"]
        assert job["error"] == {"code": "source_unreachable", "message": "No route to host."}
        assert (job["status"], job["duration_seconds"]) == ("failed", 2.0)

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("job_nope", "job_nope"),
            ("a%2Fb", "a/b"),
            ("a%2Fresults", "a/results"),
            ("%2E%2E", ".."),
            ("%2E%2E%2Fjobs", "../jobs"),
            ("%C3%A4%20%3F", "ä ?"),
            ("%252F", "%2F"),
        ],
    )
    def test_id_stays_one_segment(self, client, simulator, path, name):
        # httpx would resolve dots and decode unneeded escapes, so the path is sent as raw bytes.
        url = httpx.URL(simulator.url).copy_with(raw_path=f"/api/v1/jobs/{path}".encode())
        assert error(client.send(client.build_request("GET", url)), 404)["message"] == f"no job {name!r}"
        assert simulator.requests[-1].route == "get_job"

    def test_encoded_id_finds_its_connection(self, client, simulator):
        simulator.workspace.add_connection("conn/with slash")
        response = client.post("/connections/conn%2Fwith%20slash/sync")
        assert response.json()["data"]["job"]["connection_id"] == "conn/with slash"


class TestGetJobResults:
    def test_before_the_end(self, client, simulator):
        job_id = start(client)
        assert error(client.get(f"/jobs/{job_id}/results"), 409)["code"] == "job_not_finished"
        simulator.workspace.configure(results_policy="partial")
        assert client.get(f"/jobs/{job_id}/results").json() == {
            "data": {"job_id": job_id, "status": "queued", "tables": [], "warnings": []}
        }

    def test_unknown_job(self, client):
        error(client.get("/jobs/job_nope/results"), 404)


class TestCancelJob:
    def test_active_job(self, client):
        job_id = start(client)
        response = client.post(f"/jobs/{job_id}/cancel")
        assert response.status_code == 200
        assert response.json() == {"data": {"id": job_id, "status": "cancelling", "cancel_requested_at": NOW}}
        shown = client.get(f"/jobs/{job_id}").json()["data"]
        assert (shown["status"], shown["cancel_requested_at"]) == ("cancelling", NOW)

    def test_job_that_is_over(self, client, clock):
        job_id = start(client)
        clock.move(3)
        assert client.post(f"/jobs/{job_id}/cancel").json() == {"data": {"id": job_id, "status": "succeeded"}}

    def test_unknown_job(self, client):
        error(client.post("/jobs/job_nope/cancel"), 404)


class TestListJobs:
    @pytest.fixture
    def ids(self, client, clock):
        """One job per minute, newest first: the last one is queued, the others succeeded."""
        ids = []
        for number in range(1, 6):
            clock.move(60)
            ids.append(start(client, f"conn_demo_0{number}", pipeline_id=f"pl_{number % 2}"))
        return ids[::-1]

    @staticmethod
    def listed(client: httpx.Client, **query: object) -> list[str]:
        response = client.get("/jobs", params=query)
        assert response.status_code == 200, response.text
        return [job["id"] for job in response.json()["data"]]

    def test_empty(self, client):
        assert client.get("/jobs").json() == {"data": [], "meta": {"page": {"limit": 50, "cursor": None}}}

    @pytest.mark.parametrize(
        ("query", "picked"),
        [
            ({}, [0, 1, 2, 3, 4]),
            ({"connection_id": "conn_demo_02"}, [3]),
            ({"pipeline_id": "pl_1"}, [0, 2, 4]),
            ({"type": "connection_sync"}, [0, 1, 2, 3, 4]),
            ({"type": "backfill"}, []),
            ({"status": "queued"}, [0]),
            ({"status": "succeeded", "pipeline_id": "pl_1"}, [2, 4]),
            ({"status": "levitating"}, []),
            ({"since": "2025-03-27T14:25:10Z"}, [0, 1, 2]),
            ({"until": "2025-03-27T14:25:10Z"}, [2, 3, 4]),
            ({"since": "2025-03-27T14:24:10Z", "until": "2025-03-27T15:25:10+01:00"}, [2, 3]),
            ({"since": "2025-03-27T14:25:10", "until": "2025-03-27T14:25:10"}, [2]),
            ({"since": "2025-03-28"}, []),
        ],
    )
    def test_filters(self, client, ids, query, picked):
        assert self.listed(client, **query) == [ids[number] for number in picked]

    def test_cursors_walk_the_whole_list(self, client, ids):
        pages, query = [], {"limit": 2, "until": "2025-03-27T16:00:00Z"}
        for _ in range(3):
            page = client.get("/jobs", params=query).json()
            pages.append([job["id"] for job in page["data"]])
            query["cursor"] = page["meta"]["page"]["cursor"]
        assert pages == [ids[:2], ids[2:4], ids[4:]]
        assert query["cursor"] is None

    def test_cursor_of_another_list(self, client, ids):
        cursor = client.get("/jobs", params={"limit": 1}).json()["meta"]["page"]["cursor"]
        response = client.get("/jobs", params={"limit": 1, "cursor": cursor, "type": "connection_sync"})
        assert invalid_fields(response) == {"cursor"}

    def test_limit_may_change_between_pages(self, client, ids):
        cursor = client.get("/jobs", params={"limit": 1}).json()["meta"]["page"]["cursor"]
        assert self.listed(client, limit=100, cursor=cursor) == ids[1:]

    @pytest.mark.parametrize(
        "cursor",
        [
            "",
            "garbage",
            "ä",
            "%%%",
            *(
                base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
                for value in ([], {}, {"before": -1, "of": ""}, {"before": True, "of": ""}, {"before": "1", "of": ""})
            ),
        ],
    )
    def test_invalid_cursor(self, client, cursor):
        assert invalid_fields(client.get("/jobs", params={"cursor": cursor})) == {"cursor"}

    @pytest.mark.parametrize(
        ("query", "fields"),
        [
            ({"limit": 0}, {"limit"}),
            ({"limit": 101}, {"limit"}),
            ({"limit": "many"}, {"limit"}),
            ({"since": "yesterday"}, {"since"}),
            ({"since": "1743085330"}, {"since"}),
            ({"until": ""}, {"until"}),
            ({"since": "0001-01-01T00:00:00+23:00"}, {"since"}),
            ({"since": "2025-03-27T14:22:11Z", "until": "2025-03-27T14:22:10Z"}, {"until"}),
            ({"limit": -1, "since": "x", "until": "y"}, {"limit", "since", "until"}),
        ],
    )
    def test_bad_query_names_its_fields(self, client, query, fields):
        assert invalid_fields(client.get("/jobs", params=query)) == fields

    @pytest.mark.parametrize("limit", [1, 100])
    def test_limit_is_returned(self, client, limit):
        assert client.get("/jobs", params={"limit": limit}).json()["meta"]["page"]["limit"] == limit


class TestAccess:
    @pytest.mark.parametrize("header", ["", "Basic abc", "Bearer", "Bearer wrong"])
    def test_no_valid_key(self, client, header):
        assert error(client.get("/jobs", headers={"Authorization": header}), 401)["code"] == "unauthorized"

    def test_missing_header(self, simulator):
        assert error(httpx.get(f"{simulator.url}/api/v1/jobs", timeout=60), 401)["code"] == "unauthorized"

    def test_revoked_key(self, client, simulator):
        simulator.workspace.keys.revoke(simulator.api_key)
        error(client.get("/jobs"), 401)

    def test_scopes_hold_for_every_route(self, client, simulator):
        job_id = start(client)
        calls = {
            "jobs:read": [
                ("GET", "/jobs"),
                ("GET", f"/jobs/{job_id}"),
                ("GET", f"/jobs/{job_id}/results"),
                ("GET", "/backfills"),
                ("GET", "/backfills/bf_nope"),
            ],
            "jobs:write": [
                ("POST", SYNC),
                ("POST", "/connections/conn_demo_01/backfill"),
                ("POST", f"/jobs/{job_id}/cancel"),
            ],
        }
        for scope in calls:
            headers = {"Authorization": f"Bearer {simulator.workspace.keys.add(scopes=[scope]).value}"}
            for needed, routes in calls.items():
                statuses = [client.request(*route, headers=headers).status_code for route in routes]
                assert all((status == 403) == (needed != scope) for status in statuses), (scope, routes, statuses)

    def test_openapi_document_needs_any_key(self, client, simulator):
        for scope in SCOPES:
            headers = {"Authorization": f"Bearer {simulator.workspace.keys.add(scopes=[scope]).value}"}
            assert client.get("/openapi.yaml", headers=headers).status_code == 200
        error(client.get("/openapi.yaml", headers={"Authorization": ""}), 401)

    def test_no_scope_no_effect(self, client, simulator):
        key = simulator.workspace.keys.add(scopes=["jobs:read"]).value
        body = error(client.post(SYNC, headers={"Authorization": f"Bearer {key}"}), 403)
        assert body["code"] == "forbidden"
        assert "jobs:write" in body["message"]
        assert simulator.jobs() == []


class TestEveryResponse:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("POST", SYNC, 202),
            ("GET", "/jobs", 200),
            ("GET", "/openapi.yaml", 200),
            ("GET", "/jobs/nope", 404),
            ("GET", "/jobs?limit=0", 400),
            ("GET", "/nope", 404),
            ("GET", "/jobs/", 404),
            ("GET", "/jobs/a/b/c", 404),
            ("DELETE", "/jobs", 405),
            ("GET", SYNC, 405),
        ],
    )
    def test_headers(self, client, clock, method, path, status):
        response = client.request(method, path)
        assert response.status_code == status
        assert parsedate_to_datetime(response.headers["date"]) == clock.now
        assert response.headers["x-request-id"].startswith("req_")
        assert response.headers["x-ratelimit-limit"] == "1200"
        assert response.headers["x-ratelimit-remaining"] == "1199"
        assert response.headers["x-ratelimit-reset"] == "1743085380"
        if status >= 400:
            error(response, status)

    def test_request_ids_differ(self, client):
        assert len({client.get("/jobs").headers["x-request-id"] for _ in range(3)}) == 3

    @pytest.mark.parametrize(
        ("path", "methods"),
        [("/jobs", "GET"), (SYNC, "POST"), ("/webhooks", "GET, POST"), ("/webhooks/wh_1", "DELETE, GET, PUT")],
    )
    def test_405_names_the_allowed_methods(self, client, path, methods):
        response = client.request("OPTIONS", path)
        assert (response.status_code, response.headers["allow"]) == (405, methods)

    def test_404_outside_the_api(self, simulator):
        assert error(httpx.get(f"{simulator.url}/nope", timeout=60), 404)["code"] == "not_found"

    def test_beyond_the_limit(self, client, clock, simulator):
        simulator.rate_limit.configure(2)
        start(client)
        assert client.get("/jobs").status_code == 200
        response = client.post("/connections/conn_demo_02/sync")
        assert error(response, 429)["code"] == "rate_limited"
        assert (response.headers["retry-after"], response.headers["x-ratelimit-remaining"]) == ("50", "0")
        assert len(simulator.jobs()) == 1
        clock.move(50)
        assert client.get("/jobs").status_code == 200


class TestLongBodies:
    PATHS = (f"/api/v1{SYNC}", "/_simulator/plans", "/start/sync", "/nowhere")

    @pytest.mark.parametrize("path", PATHS)
    def test_are_refused_by_their_length(self, client, simulator, path):
        answer = client.post(f"{simulator.url}{path}", content=b"{" + b" " * 1_048_576)
        assert error(answer, 413)["code"] == "request_too_large"
        assert simulator.jobs() == []

    # Without a route, the body is not read.
    @pytest.mark.parametrize("path", PATHS[:-1])
    def test_are_refused_when_they_get_longer_than_that(self, client, simulator, path):
        answer = client.post(f"{simulator.url}{path}", content=(b" " * 65_536 for _ in range(17)))
        assert answer.status_code == 413
        assert "the body is longer than 1,048,576 bytes; send a shorter one" in answer.text
        assert simulator.jobs() == []

    def test_may_be_a_megabyte(self, client):
        assert client.post(SYNC, content=b"{}" + b" " * (1_048_576 - 2)).status_code == 202


async def test_app_works_without_a_server(clock):
    app = create_app(Workspace(clock=clock))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        client.headers["Authorization"] = "Bearer plnx_sim_local_key"
        job_id = (await client.post(f"/api/v1{SYNC}")).json()["data"]["job"]["id"]
        assert (await client.get(f"/api/v1/jobs/{job_id}")).json()["data"]["status"] == "queued"
        response = await client.get("/api/v1/jobs/a%2Fb")
        assert error(response, 404)["message"] == "no job 'a/b'"


async def test_reset_needs_a_server(clock):
    app = create_app(Workspace(clock=clock))
    app.state.pipeline.faults.add(Fault(kind="reset"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        with pytest.raises(RuntimeError, match="class Simulator"):
            await client.get("/api/v1/jobs")
