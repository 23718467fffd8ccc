from __future__ import annotations

import pytest

from tests.support.simulator_responses import error, invalid_fields

NOW = "2025-03-27T14:22:10Z"
URL = "https://example.com/planasonix"
ORDER = {"url": URL, "events": ["job.succeeded", "job.failed"]}


def create(client, **changes) -> str:
    return client.post("/webhooks", json={**ORDER, **changes}).json()["data"]["id"]


class TestCreate:
    def test_response_is_that_of_the_reference(self, client):
        response = client.post("/webhooks", json={**ORDER, "secret": "whsec_of_my_own_1"})
        assert response.status_code == 201
        webhook = response.json()["data"]
        assert webhook.pop("id").startswith("wh_")
        assert webhook == {
            "url": URL,
            "events": ["job.succeeded", "job.failed"],
            "signing_secret": "whsec_of_my_own_1",
            "enabled": True,
            "created_at": NOW,
        }

    def test_secret_is_random(self, client):
        one, two = (client.post("/webhooks", json=ORDER).json()["data"]["signing_secret"] for _ in range(2))
        assert one.startswith("whsec_")
        assert one != two

    @pytest.mark.parametrize(
        ("changes", "fields"),
        [
            ({"url": None}, {"url"}),
            ({"url": 1}, {"url"}),
            ({"url": ""}, {"url"}),
            ({"url": "http://example.com"}, {"url"}),
            ({"url": "http://localhost@example.com"}, {"url"}),
            ({"url": "ftp://localhost"}, {"url"}),
            ({"url": "https://"}, {"url"}),
            ({"url": "https://[::1"}, {"url"}),
            ({"url": "https://example.com:port"}, {"url"}),
            ({"url": "https://example.com/a b"}, {"url"}),
            ({"url": "https://example.com/ä"}, {"url"}),
            ({"events": None}, {"events"}),
            ({"events": []}, {"events"}),
            ({"events": "job.succeeded"}, {"events"}),
            ({"events": ["job.failed", 1]}, {"events.1"}),
            ({"events": [" "]}, {"events.0"}),
            ({"secret": "fifteen_letters"}, {"secret"}),
            ({"secret": 1234567890123456}, {"secret"}),
        ],
    )
    def test_bad_body_names_its_field_and_creates_nothing(self, client, changes, fields):
        assert invalid_fields(client.post("/webhooks", json={**ORDER, **changes})) == fields
        assert client.get("/webhooks").json() == {"data": []}

    def test_empty_body(self, client):
        assert invalid_fields(client.post("/webhooks")) == {"url", "events"}

    @pytest.mark.parametrize("url", ["http://localhost:8080/x", "http://127.0.0.2", "http://[::1]:80"])
    def test_http_to_this_machine(self, client, url):
        assert client.post("/webhooks", json={**ORDER, "url": url}).status_code == 201

    def test_idempotency_key(self, client, simulator):
        headers = {"Idempotency-Key": "k"}
        first, again = (client.post("/webhooks", json=ORDER, headers=headers).json() for _ in range(2))
        assert first == again
        other = client.post("/webhooks", json={**ORDER, "url": f"{URL}/2"}, headers=headers)
        assert error(other, 409)["code"] == "idempotency_key_reused"
        simulator.workspace.configure(honour_idempotency=False)
        assert client.post("/webhooks", json=ORDER, headers=headers).json() != first


def test_get(client):
    webhook_id = create(client)
    assert client.get(f"/webhooks/{webhook_id}").json() == {
        "data": {
            "id": webhook_id,
            **ORDER,
            "enabled": True,
            "failure_count_24h": 0,
            "created_at": NOW,
        }
    }


def test_list(client):
    ids = [create(client) for _ in range(3)]
    everything = client.get("/webhooks").json()
    assert everything == {
        "data": [{"id": webhook_id, **ORDER, "enabled": True, "created_at": NOW} for webhook_id in reversed(ids)]
    }
    page = client.get("/webhooks?limit=2").json()
    assert [webhook["id"] for webhook in page["data"]] == ids[:0:-1]
    last = client.get("/webhooks", params={"limit": 2, "cursor": page["meta"]["page"]["cursor"]}).json()
    assert [webhook["id"] for webhook in last["data"]] == ids[:1]
    assert last["meta"] == {"page": {"limit": 2, "cursor": None}}


def test_update(client, clock):
    webhook_id = create(client)
    clock.move(60)
    change = {"url": f"{URL}/v2", "events": ["backfill.completed", "coffee.ready"], "enabled": False}
    updated = {"id": webhook_id, **change, "updated_at": "2025-03-27T14:23:10Z"}
    assert client.put(f"/webhooks/{webhook_id}", json=change).json() == {"data": updated}
    assert client.put(f"/webhooks/{webhook_id}", json={"enabled": True}).json()["data"]["url"] == f"{URL}/v2"
    assert client.get(f"/webhooks/{webhook_id}").json()["data"].items() >= {**change, "enabled": True}.items()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "http://example.com"}, "url"),
        ({"events": []}, "events"),
        ({"enabled": "yes"}, "enabled"),
        ({"enabled": None}, "enabled"),
    ],
)
def test_bad_update_changes_nothing(client, change, field):
    webhook_id = create(client)
    assert invalid_fields(client.put(f"/webhooks/{webhook_id}", json={"enabled": False, **change})) == {field}
    assert client.get(f"/webhooks/{webhook_id}").json()["data"].items() >= {**ORDER, "enabled": True}.items()


def test_update_with_no_body(client):
    assert invalid_fields(client.put(f"/webhooks/{create(client)}")) == {"body"}


def test_delete(client):
    kept, webhook_id = create(client), create(client)
    response = client.delete(f"/webhooks/{webhook_id}")
    assert (response.status_code, response.content) == (204, b"")
    assert [webhook["id"] for webhook in client.get("/webhooks").json()["data"]] == [kept]
    error(client.delete(f"/webhooks/{webhook_id}"), 404)


def test_rotate(client):
    first = client.post("/webhooks", json=ORDER).json()["data"]
    response = client.post(f"/webhooks/{first['id']}/rotate-secret")
    assert response.status_code == 200
    rotated = response.json()["data"]
    assert rotated.pop("signing_secret") != first["signing_secret"]
    assert rotated == {"id": first["id"], "rotated_at": NOW}


def test_test(client):
    webhook_id = create(client, enabled=False)
    client.put(f"/webhooks/{webhook_id}", json={"enabled": False})
    response = client.post(f"/webhooks/{webhook_id}/test")
    assert response.status_code == 202
    told = response.json()["data"]
    assert told.pop("delivery_id").startswith("whd_")
    assert told == {"status": "pending"}
    client.post(f"/webhooks/{webhook_id}/test", json={"event": "backfill.completed"})
    assert invalid_fields(client.post(f"/webhooks/{webhook_id}/test", json={"event": ""})) == {"event"}
    deliveries = client.get(f"/webhooks/{webhook_id}/deliveries").json()
    assert [delivery.pop("id")[:4] for delivery in deliveries["data"]] == ["whd_", "whd_"]
    pending = {"status": "pending", "attempt": 0, "delivered_at": None}
    assert deliveries == {
        "data": [{"event": "backfill.completed", **pending}, {"event": "job.succeeded", **pending}]
    }, "newest first"
    page = client.get(f"/webhooks/{webhook_id}/deliveries?limit=1").json()
    assert page["meta"]["page"]["limit"] == 1
    query = {"limit": 1, "cursor": page["meta"]["page"]["cursor"]}
    last = client.get(f"/webhooks/{webhook_id}/deliveries", params=query).json()
    assert [one["event"] for one in (*page["data"], *last["data"])] == ["backfill.completed", "job.succeeded"]
    assert last["meta"] == {"page": {"limit": 1, "cursor": None}}


@pytest.mark.parametrize("webhook_id", ["wh_nope", "gone"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PUT", ""),
        ("DELETE", ""),
        ("POST", "/rotate-secret"),
        ("POST", "/test"),
        ("GET", "/deliveries"),
    ],
)
def test_unknown_webhook(client, webhook_id, method, path):
    if webhook_id == "gone":
        webhook_id = create(client)
        client.delete(f"/webhooks/{webhook_id}")
    response = client.request(method, f"/webhooks/{webhook_id}{path}", content=b"{}")
    assert error(response, 404)["message"] == f"no webhook {webhook_id!r}"


def test_scopes(client, simulator):
    webhook_id = create(client)
    reads = [("GET", ""), ("GET", f"/{webhook_id}"), ("GET", f"/{webhook_id}/deliveries")]
    writes = [
        ("POST", ""),
        ("PUT", f"/{webhook_id}"),
        ("DELETE", f"/{webhook_id}"),
        ("POST", f"/{webhook_id}/rotate-secret"),
        ("POST", f"/{webhook_id}/test"),
    ]
    for mine, others in ((reads, writes), (writes, reads)):
        key = simulator.workspace.keys.add(scopes=["webhooks:read" if mine is reads else "webhooks:write", "jobs:read"])
        headers = {"Authorization": f"Bearer {key.value}"}
        for method, path in others:
            error(client.request(method, f"/webhooks{path}", headers=headers), 403)
        for method, path in mine:
            assert client.request(method, f"/webhooks{path}", headers=headers).status_code != 403


def test_routes_can_be_made_to_fail(client, simulator):
    for route in ("list_webhooks", "create_webhook"):
        simulator.fail("status", route=route, status=503)
    assert client.get("/webhooks").status_code == 503
    assert client.post("/webhooks", json=ORDER).status_code == 503
    assert [request.route for request in simulator.requests] == ["list_webhooks", "create_webhook"]


def test_no_other_response_contains_secrets(client, simulator, caplog):
    caplog.set_level(0)
    given = "whsec_given_0123456789"
    webhook_id = create(client, secret=given)
    made_up = client.post("/webhooks", json=ORDER).json()["data"]["signing_secret"]
    rotated = client.post(f"/webhooks/{webhook_id}/rotate-secret").json()["data"]["signing_secret"]
    client.post(f"/webhooks/{webhook_id}/test")
    short = "whsec_too_short"
    shown = [
        client.get(path).text
        for path in (
            f"/webhooks/{webhook_id}",
            "/webhooks",
            f"/webhooks/{webhook_id}/deliveries",
            simulator.url,
            f"{simulator.url}/_simulator/state",
        )
    ]
    shown.append(client.put(f"/webhooks/{webhook_id}", json={"enabled": False, "secret": given}).text)
    shown.append(client.post("/webhooks", json={"url": URL, "events": [], "secret": given}).text)
    shown.append(client.post("/webhooks", json={**ORDER, "secret": short}).text)
    with pytest.raises(ValueError, match="secret") as caught:
        simulator.subscribe(URL, ["job.failed"], secret=short)
    webhooks = simulator.workspace.webhooks
    shown += [str(caught.value), repr(simulator.deliveries()), repr(simulator.requests), caplog.text]
    shown += [repr(vars(vars(webhooks)["_subscriptions"])), repr(webhooks.all()), repr(webhooks.rotate(webhook_id))]
    for secret in (given, made_up, rotated, short):
        assert not [text for text in shown if secret in text]
