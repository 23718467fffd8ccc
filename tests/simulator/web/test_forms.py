from __future__ import annotations

from typing import get_args

import pytest

from planasonix_provider.simulator.api.faults import Kind
from tests.support.webhook_target import until

CONNECTION = "conn_demo_01"


def problems(page):
    """Return the fields that a page marks, and check that the page links each of them."""
    marked = [field["id"] for kind in ("input", "select") for field in page.all(kind) if "aria-invalid" in field]
    assert {f"#{field}" for field in marked} <= {link["href"] for link in page.all("a")}
    assert len(page.all("div", role="alert")) == 1
    return marked


class TestStart:
    def test_a_sync_starts_and_is_shown(self, simulator, send):
        page = send("/start/sync", connection_id=CONNECTION, pipeline_id=" pl_1 ")
        (job,) = simulator.jobs()
        assert (job.connection_id, job.pipeline_id) == (CONNECTION, "pl_1")
        assert (page.status, f"Job {job.id}" in page.text) == (200, True)

    def test_empty_field_is_not_sent(self, simulator, send):
        send("/start/sync", connection_id=CONNECTION, pipeline_id=" ")
        assert simulator.jobs()[0].pipeline_id is None

    def test_conflict_links_the_active_job(self, simulator, send):
        in_the_way = simulator.workspace.start_sync(CONNECTION).id
        page = send("/start/sync", connection_id=CONNECTION)
        assert (page.status, problems(page)) == (409, [])
        assert f"/jobs/{in_the_way}" in page.links

    def test_an_unknown_connection_is_refused(self, simulator, send):
        page = send("/start/sync", connection_id="conn_nope")
        assert (page.status, "no connection 'conn_nope'" in page.text, simulator.jobs()) == (404, True, [])

    def test_a_backfill_starts_and_is_shown(self, simulator, send):
        values = {"start_at": "2025-01-01", "end_at": "2025-02-01", "tables": "orders, order items,"}
        page = send("/start/backfill", connection_id=CONNECTION, **values)
        (backfill,) = simulator.backfills()
        assert backfill.tables == ["orders", "order items"]
        assert (page.status, f"Backfill {backfill.id}" in page.text) == (200, True)

    def test_invalid_backfill_marks_its_fields(self, simulator, send):
        page = send("/start/backfill", connection_id=CONNECTION, start_at="soon", end_at="2025-02-01", tables="a,a")
        assert (page.status, problems(page)) == (400, ["backfill-start_at", "backfill-tables"])
        values = {field["id"]: field["value"] for field in page.all("input")}
        assert (values["backfill-start_at"], values["backfill-tables"]) == ("soon", "a,a"), "the form keeps its values"
        assert values["sync-pipeline_id"] == "", "the other form has no values"
        assert "From: must be a time as ISO 8601" in page.text, "the message uses the field's label"
        (field,) = page.all("input", id="backfill-tables")
        assert field["aria-describedby"] == "backfill-tables-hint backfill-tables-issue"
        assert simulator.backfills() == []

    def test_a_connection_is_created_and_chosen(self, simulator, send):
        page = send("/start/connection", connection_id="conn/new & odd")
        assert "conn/new & odd" in simulator.workspace.connections
        assert len([option for option in page.all("option", value="conn/new & odd") if "selected" in option]) == 1
        assert problems(send("/start/connection", connection_id="")) == ["connection-connection_id"]


class TestControl:
    def test_the_next_syncs_follow_the_plan(self, simulator, send, clock):
        page = send("/control/plan", connection_id=CONNECTION, outcome="failed", code="nope", running_seconds="1.5")
        assert "The next starts of this connection follow the plan." in page.text
        jobs = [simulator.workspace.start_sync(CONNECTION)]
        clock.move(1.7)
        jobs.append(simulator.workspace.start_sync(CONNECTION))
        clock.move(9)
        first, second = (simulator.job(job.id) for job in jobs)
        assert (first.status, first.error.code, first.duration_seconds) == ("failed", "nope", 1.5)
        assert second.status == "succeeded"

    def test_a_plan_can_hold_for_all_starts(self, simulator, send, clock):
        send("/control/plan", connection_id=CONNECTION, outcome="failed", times="1", always="yes")
        for _ in range(3):
            job = simulator.workspace.start_sync(CONNECTION)
            clock.move(9)
            assert simulator.job(job.id).status == "failed"

    def test_the_next_backfills_follow_the_plan(self, simulator, send, clock):
        send("/control/backfill_plan", connection_id=CONNECTION, jobs="4", failing_jobs="1, 3", job_seconds="1")
        send("/start/backfill", connection_id=CONNECTION, start_at="2025-01-01", end_at="2025-02-01")
        clock.move(9)
        (backfill,) = simulator.backfills()
        assert (backfill.status, backfill.error.message) == ("failed", "2 of 4 jobs failed")

    def test_requests_fail_until_the_faults_are_cleared(self, simulator, client, send, get_page):
        page = send("/control/fault", kind="status", route="list_jobs", status="503", times="2", always="yes")
        assert page.tables["Faults, in the order of their use"][1] == ["status", "list_jobs", "before", "0", "all"]
        assert [client.get("/jobs").status_code for _ in range(3)] == [503, 503, 503]
        assert "All faults were cleared." in send("/control/clear").text
        assert (client.get("/jobs").status_code, get_page("/control").tables) == (200, {})

    def test_a_fault_can_change_fields_of_the_response(self, simulator, client, send):
        page = send("/control/fault", kind="odd", route="get_job", fields='{"status": "paused"}')
        assert page.tables["Faults, in the order of their use"][1][0] == "odd"
        job_id = simulator.workspace.start_sync(CONNECTION).id
        statuses = [client.get(f"/jobs/{job_id}").json()["data"]["status"] for _ in range(2)]
        assert statuses == ["paused", "queued"]

    def test_every_kind_of_fault_is_offered(self, get_page):
        (kinds,) = get_page("/control").all("select", name="kind")
        assert kinds["id"] == "fault-kind"
        offered = {option["value"] for option in get_page("/control").all("option")}
        assert set(get_args(Kind)) <= offered

    def test_settings_are_shown_and_changed(self, simulator, client, send, get_page):
        values = {"speed": "0.5", "conflict": "allowed", "honour_idempotency": "false", "rate_limit": "7"}
        values["show_metadata"] = "false"
        page = send("/control/settings", **values)
        settings = simulator.workspace.settings
        assert (settings.speed, settings.conflict, settings.honour_idempotency) == (0.5, "allowed", False)
        assert not settings.show_metadata
        assert client.get("/jobs").headers["x-ratelimit-limit"] == "7"
        assert {
            field["name"]: field["value"] for field in page.all("input") if field["id"].startswith("settings-")
        } == {
            "speed": "0.5",
            "webhook_attempts": "5",
            "rate_limit": "7",
        }
        chosen = {option["value"] for option in page.all("option") if "selected" in option}
        assert chosen == {"allowed", "false", "conflict", "once"}

    @pytest.mark.parametrize(
        ("form", "values", "marked"),
        [
            ("plan", {"connection_id": CONNECTION, "running_seconds": "-1"}, ["plan-running_seconds"]),
            ("plan", {"connection_id": CONNECTION, "times": "0"}, ["plan-times"]),
            ("plan", {}, ["plan-connection_id"]),
            ("backfill_plan", {"connection_id": CONNECTION, "failing_jobs": "x"}, ["backfill_plan-failing_jobs"]),
            ("backfill_plan", {"connection_id": CONNECTION, "failing_jobs": "7"}, ["backfill_plan-failing_jobs"]),
            ("fault", {"kind": "reset", "route": "nope"}, ["fault-route"]),
            ("fault", {"kind": "status", "status": "200"}, []),
            ("fault", {"kind": "odd", "fields": "status"}, ["fault-fields"]),
            ("fault", {"kind": "odd", "fields": "[1]"}, ["fault-fields"]),
            ("fault", {"kind": "odd", "fields": '{"a": "\\ud800"}'}, ["fault-fields"]),
            ("fault", {"kind": "odd", "fields": "[" * 10_000}, ["fault-fields"]),
            ("settings", {"speed": "0", "conflict": "maybe"}, ["settings-speed", "settings-conflict"]),
        ],
    )
    def test_invalid_form_marks_its_fields_and_changes_nothing(self, simulator, send, form, values, marked):
        before = simulator.workspace.settings
        page = send(f"/control/{form}", **values)
        assert (page.status, problems(page)) == (400, marked)
        assert (simulator.workspace.settings, simulator.faults.pending()) == (before, [])

    def test_unknown_confirmation_is_not_shown(self, get_page):
        assert get_page("/control?done=<b>all</b>").all("p", role="status") == []

    @pytest.mark.parametrize(("page", "form"), [("/start", "sync"), ("/control", "plan")])
    def test_a_connection_can_be_chosen_by_the_address(self, get_page, page, form):
        chosen = [one for one in get_page(f"{page}?connection_id=conn_demo_04").all("option") if "selected" in one]
        assert [option["value"] for option in chosen if option["value"].startswith("conn_")] == ["conn_demo_04"]


class TestWebhooks:
    def test_shows_subscriptions_and_deliveries(self, simulator, get_page, send):
        simulator.workspace.configure(webhook_attempts=1)
        webhook = simulator.subscribe("http://127.0.0.1:9/hook?a=1", ["job.succeeded", "job.failed"])
        (_, row) = get_page("/webhooks").tables["Subscriptions, newest first"]
        assert row == [webhook.id, "http://127.0.0.1:9/hook?a=1", "job.succeeded, job.failed", "enabled", "-", "0"]
        assert "No deliveries yet." in get_page(f"/webhooks/{webhook.id}").text
        page = send(f"/webhooks/{webhook.id}/test")
        (delivery,) = simulator.deliveries()
        (_, row) = page.tables["Deliveries, newest first"]
        assert row[:2] == [delivery.id, "job.succeeded"]
        assert page.facts("Subscription")["URL"] == "http://127.0.0.1:9/hook?a=1"

    def test_shows_when_a_delivery_has_failed(self, simulator, get_page, send):
        simulator.workspace.configure(webhook_attempts=1)
        webhook = simulator.subscribe("http://127.0.0.1:9/hook", ["job.failed"])
        send(f"/webhooks/{webhook.id}/test")
        until(lambda: simulator.deliveries()[0].status == "failed")
        (_, row) = get_page(f"/webhooks/{webhook.id}").tables["Deliveries, newest first"]
        assert (row[2], row[-1]) == ("failed", "2025-03-27 14:22:10")

    def test_comes_in_pages(self, simulator, get_page):
        webhooks = [simulator.subscribe(f"https://x.example/{n}", ["job.failed"]).id for n in range(3)]
        first = get_page("/webhooks?limit=2")
        (older,) = first.all("a", rel="next")
        assert first.ids("Subscriptions, newest first") == webhooks[:0:-1]
        assert get_page(older["href"]).ids("Subscriptions, newest first") == webhooks[:1]

    def test_without_any(self, get_page):
        assert "No subscriptions yet." in get_page("/webhooks").text
