from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from planasonix_provider.simulator import Simulator


@pytest.fixture(scope="module")
def module_control(session_simulator: Simulator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{session_simulator.url}/_simulator", timeout=60) as client:
        yield client


@pytest.fixture
def control(module_control: httpx.Client, simulator: Simulator) -> httpx.Client:
    """A client of the control API, which needs no key."""
    return module_control


def test_state_has_jobs_requests_and_faults_but_no_key(control, client, simulator):
    headers = {"Idempotency-Key": "k", "User-Agent": "airflow"}
    job_id = client.post("/connections/conn_demo_01/sync", headers=headers).json()["data"]["job"]["id"]
    client.get("/jobs?limit=5")
    client.get("/nope")
    simulator.fail("reset", route="cancel_job", times=3)
    answer = control.get("/state")
    state = answer.json()["data"]
    assert [job["id"] for job in state["jobs"]] == [job_id]
    assert state["counts"] == {"trigger_sync": 1, "list_jobs": 1, "unknown": 1}
    assert [(fault["kind"], fault["route"], fault["times"]) for fault in state["faults"]] == [
        ("reset", "cancel_job", 3)
    ]
    first, second, third = state["requests"]
    assert (first["method"], first["path"], first["status"]) == ("POST", "/api/v1/connections/conn_demo_01/sync", 202)
    assert (first["headers"]["user-agent"], first["headers"]["idempotency-key"]) == ("airflow", "k")
    assert (second["query"], third["status"]) == ("limit=5", 404)
    assert simulator.api_key not in answer.text


def test_faults(control, client):
    command = {"kind": "status", "status": 503, "route": "list_jobs"}
    left = control.post("/faults", json=command).json()["data"]["faults"]
    assert left[0].items() >= command.items()
    assert client.get("/jobs").status_code == 503
    control.post("/faults", json=command)
    assert control.delete("/faults").json() == {"data": {"faults": []}}
    assert client.get("/jobs").status_code == 200


def test_body_needs_no_content_type(control, client):
    control.post("/faults", content=b'{"kind": "empty"}', headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert client.get("/jobs").content == b""


def test_plan(control, client, clock):
    control.post("/plans", json={"connection_id": "conn_demo_01", "outcome": "failed", "code": "nope"})
    job_id = client.post("/connections/conn_demo_01/sync").json()["data"]["job"]["id"]
    clock.move(2.2)
    job = client.get(f"/jobs/{job_id}").json()["data"]
    assert (job["status"], job["error"]["code"]) == ("failed", "nope"), "other fields have the simulator's defaults"


WINDOW = {"start_at": "2025-01-01", "end_at": "2025-03-01"}


def test_backfill_plan(control, client, clock):
    command = {"connection_id": "conn_demo_01", "jobs": 4, "failing_jobs": [1], "running_seconds": 8, "times": 2}
    response = control.post("/backfill_plans", json=command).json()["data"]
    assert (response["times"], response["plan"]["jobs"], response["plan"]["queued_seconds"]) == (2, 4, 0.2), (
        "other fields have the simulator's defaults"
    )
    for _ in range(3):
        client.post("/connections/conn_demo_01/backfill", json=WINDOW)
    clock.move(8.2)
    backfills = control.get("/state").json()["data"]["backfills"]
    assert [(backfill["status"], len(backfill["job_ids"])) for backfill in backfills] == [
        ("completed", 3),
        ("failed", 4),
        ("failed", 4),
    ]


def test_fail_job(control, client, clock):
    job_id = client.post("/connections/conn_demo_01/sync").json()["data"]["job"]["id"]
    clock.move(1)
    response = control.post(f"/jobs/{job_id}/fail", json={"code": "disk_full", "message": "No room."})
    job = client.get(f"/jobs/{job_id}").json()["data"]
    assert (
        response.json()["data"]["job"].items() >= {"id": job_id, "status": job["status"], "error": job["error"]}.items()
    )
    assert (job["status"], job["error"]) == ("failed", {"code": "disk_full", "message": "No room."})
    refused = control.post(f"/jobs/{job_id}/fail")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job_not_active")
    assert control.post("/jobs/job_nope/fail").status_code == 404
    assert control.post(f"/jobs/{job_id}/fail", json={"codes": "x"}).status_code == 400


def test_slow_job(control, client, clock):
    job_id = client.post("/connections/conn_demo_01/sync").json()["data"]["job"]["id"]
    clock.move(1)
    assert control.post(f"/jobs/{job_id}/slow", json={"seconds": 7.5}).json()["data"]["job"]["id"] == job_id
    clock.move(60)
    assert client.get(f"/jobs/{job_id}").json()["data"]["duration_seconds"] == 9.5
    assert control.post(f"/jobs/{job_id}/slow", json={"seconds": 1}).status_code == 409
    assert control.post("/jobs/job_nope/slow", json={"seconds": 1}).status_code == 404


@pytest.mark.parametrize("seconds", ["0", "-1", '"x"', "null", "1e9", "NaN"])
def test_slow_job_rejects_invalid_seconds(control, client, seconds):
    job_id = client.post("/connections/conn_demo_01/sync").json()["data"]["job"]["id"]
    refused = control.post(f"/jobs/{job_id}/slow", content=f'{{"seconds": {seconds}}}')
    assert (refused.status_code, refused.json()["error"]["details"][0]["field"]) == (400, "seconds")


def test_keys(control, client):
    key = control.post("/keys", json={"scopes": ["jobs:read"]}).json()["data"]["key"]
    headers = {"Authorization": f"Bearer {key}"}
    assert client.get("/jobs", headers=headers).status_code == 200
    assert client.post("/connections/conn_demo_01/sync", headers=headers).status_code == 403
    control.post(f"/keys/{key}/revoke")
    assert client.get("/jobs", headers=headers).status_code == 401


def test_given_key_has_all_scopes(control):
    assert control.post("/keys", json={"key": "flx_1"}).json()["data"] == {
        "key": "flx_1",
        "name": "key 2",
        "scopes": ["jobs:read", "jobs:write", "webhooks:read", "webhooks:write"],
    }


def test_connections(control, client):
    assert "conn_new" in control.post("/connections", json={"connection_id": "conn_new"}).json()["data"]["connections"]
    assert client.post("/connections/conn_new/sync").status_code == 202


def test_details_show_metadata_until_a_setting_hides_it(control, client, simulator):
    sent = {"dag_id": "d", "deep": [1]}
    job_id = client.post("/connections/conn_demo_01/sync", json={"metadata": sent}).json()["data"]["job"]["id"]
    assert client.get(f"/jobs/{job_id}").json()["data"]["metadata"] == sent
    control.post("/settings", json={"show_metadata": False})
    assert "metadata" not in client.get(f"/jobs/{job_id}").json()["data"]
    simulator.reset()
    assert simulator.workspace.settings.show_metadata


def test_only_the_named_settings_change(control, client):
    first = control.post("/settings", json={"conflict": "allowed"}).json()["data"]["settings"]
    second = control.post("/settings", json={"rate_limit": 7}).json()["data"]["settings"]
    assert second == {**first, "rate_limit": 7}
    assert second["conflict"] == "allowed"
    assert client.get("/jobs").headers["x-ratelimit-limit"] == "7"


def test_reset(control, client, simulator):
    client.post("/connections/conn_demo_01/sync")
    client.post("/connections/conn_demo_01/backfill", json=WINDOW)
    simulator.fail("reset")
    simulator.rate_limit.configure(5)
    assert control.post("/reset").status_code == 200
    state = control.get("/state").json()["data"]
    assert (state["jobs"], state["backfills"], state["requests"], state["counts"]) == ([], [], [], {})
    assert state["faults"] == []
    assert state["settings"]["rate_limit"] == 1200


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/faults", {}, "kind"),
        ("/faults", {"kind": "reset", "route": "nope"}, "route"),
        ("/plans", {"outcome": "failed"}, "connection_id"),
        ("/plans", {"connection_id": "conn_demo_01", "outcome": "odd"}, "outcome"),
        ("/plans", {"connection_id": "conn_demo_01", "times": 0}, "times"),
        ("/backfill_plans", {"jobs": 1}, "connection_id"),
        ("/backfill_plans", {"connection_id": "conn_demo_01", "jobs": 10_001}, "jobs"),
        ("/backfill_plans", {"connection_id": "conn_demo_01", "failing_jobs": [3]}, "failing_jobs"),
        ("/backfill_plans", {"connection_id": "conn_demo_01", "outcome": "failed"}, "outcome"),
        ("/backfill_plans", {"connection_id": "conn_demo_01", "times": 0}, "times"),
        ("/keys", {"scopes": ["coffee"]}, "scopes"),
        ("/keys", {"key": "two words"}, "value"),
        ("/connections", {"connection_id": ""}, "connection_id"),
        ("/settings", {"conflict": "maybe"}, "conflict"),
        ("/settings", {"rate_limit": 0}, "rate_limit"),
        ("/settings", {"colour": "red"}, "colour"),
    ],
)
def test_bad_command_names_its_field(control, path, body, field):
    response = control.post(path, json=body)
    assert response.status_code == 400
    assert [detail["field"] for detail in response.json()["error"]["details"]] == [field]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/plans", {"connection_id": "conn_nope"}),
        ("/backfill_plans", {"connection_id": "conn_nope"}),
        ("/keys/nope/revoke", {}),
    ],
)
def test_unknown_ids(control, path, body):
    assert control.post(path, json=body).status_code == 404
