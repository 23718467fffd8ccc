from __future__ import annotations

import httpx
import pytest

from planasonix_provider.simulator.model.request_bodies import BackfillRequestBody, SyncRequestBody

JOBS, BACKFILLS = "Jobs, newest first", "Backfills, newest first"


def backfill(simulator, connection_id="conn_demo_01", **more):
    window = {"start_at": "2025-01-01", "end_at": "2025-03-01"}
    return simulator.workspace.start_backfill(connection_id, BackfillRequestBody.model_validate({**window, **more})).id


def sync(simulator, connection_id="conn_demo_01", **body):
    return simulator.workspace.start_sync(connection_id, SyncRequestBody.model_validate(body)).id


class TestOverview:
    def test_counts_the_jobs_in_each_state(self, simulator, get_page, clock):
        simulator.workspace.configure(conflict="allowed")
        for _ in range(3):
            sync(simulator)
        clock.move(1)
        sync(simulator)
        page = get_page("/")
        assert "1 queued 3 running 0 cancelling 0 succeeded 0 failed 0 cancelled" in page.text
        assert "/jobs?status=running" in page.links

    def test_lists_the_newest_work(self, simulator, get_page, clock):
        simulator.workspace.configure(conflict="allowed")
        ids = [sync(simulator) for _ in range(11)]
        backfill_id = backfill(simulator)
        page = get_page("/")
        assert page.ids("The ten newest jobs, newest first") == ids[:0:-1]
        assert page.ids("The ten newest backfills, newest first") == [backfill_id]
        assert {f"/jobs/{ids[-1]}", f"/backfills/{backfill_id}"} <= set(page.links)

    def test_shows_the_airflow_connection_without_the_key(self, simulator, get_page):
        page = get_page("/")
        assert f'"host": "{simulator.url}", "password": "THE-API-KEY"' in page.text

    def test_empty(self, get_page):
        page = get_page("/")
        assert "No jobs yet." in page.text
        assert "No backfills yet." in page.text


class TestJobs:
    def test_shows_progress(self, simulator, get_page, clock):
        simulator.plan("conn_demo_01", tables={"orders": 4_000}, running_seconds=4, queued_seconds=0)
        job_id = sync(simulator)
        clock.move(1)
        page = get_page("/jobs")
        assert page.tables[JOBS] == [
            ["Job", "Status", "Progress", "Rows loaded", "Connection", "Type", "Created (UTC)"],
            [job_id, "running", "25 %", "1,000", "conn_demo_01", "connection_sync", "2025-03-27 14:22:10"],
        ]

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("connection_id=conn_demo_02", "second"),
            ("status=succeeded", "first"),
            ("type=backfill", "shard"),
            ("text=OPS-1", "first"),
            ("text=ops-1", "first"),
            ("text=conn_demo_02", "second"),
            ("text=PL_7", "second"),
            ("text=no+route", "failed"),
            ("text=made+to", "told"),
            ("text=Ä", "second"),
            ("connection_id=conn_demo_02&status=running&type=&text=", "second"),
            ("text=nothing+has+this", None),
        ],
    )
    def test_can_be_filtered(self, simulator, get_page, clock, query, found):
        ids = {}
        simulator.plan("conn_demo_01", queued_seconds=0, running_seconds=0)
        ids["first"] = sync(simulator, metadata={"ticket": ["OPS-1"]})
        simulator.plan("conn_demo_02", running_seconds=100, message="No route to host.", outcome="failed")
        ids["second"] = sync(simulator, "conn_demo_02", pipeline_id="pl_7", metadata={"ort": "ärgerlich"})
        simulator.plan("conn_demo_03", running_seconds=1, message="No route to host.", outcome="failed")
        ids["failed"] = sync(simulator, "conn_demo_03")
        simulator.plan_backfill("conn_demo_04", jobs=1, queued_seconds=0)
        backfill(simulator, "conn_demo_04")
        ids["told"] = sync(simulator, "conn_demo_05")
        simulator.fail_job(ids["told"])
        clock.move(1.5)
        (ids["shard"],) = simulator.backfills()[0].job_ids
        page = get_page(f"/jobs?{query}")
        assert page.ids(JOBS) == [ids[found]] if found else "No job matches the filters." in page.text

    def test_form_keeps_the_filters(self, get_page):
        page = get_page("/jobs?status=failed&text=a%22b&connection_id=conn_x")
        assert len([option for option in page.all("option") if "selected" in option]) == 1
        assert page.all("input", name="text")[0]["value"] == 'a"b'
        assert page.all("input", name="connection_id")[0]["value"] == "conn_x"

    def test_comes_in_pages_that_keep_the_filter(self, simulator, get_page):
        simulator.workspace.configure(conflict="allowed")
        ids = [sync(simulator, metadata={"n": "kept" if n % 2 else "other"}) for n in range(120)]
        seen, path = [], "/jobs?text=kept"
        while path:
            page = get_page(path)
            seen += page.ids(JOBS)
            path = next((link["href"] for link in page.all("a", rel="next")), None)
        assert seen == ids[::-2]

    @pytest.mark.parametrize("query", ["cursor=odd", "limit=x", "limit=1000"])
    def test_invalid_filter_is_an_error_page(self, get_page, query):
        page = get_page(f"/jobs?{query}")
        assert (page.status, "Invalid request" in page.text, query.split("=")[0] in page.text) == (400, True, True)


class TestRequests:
    LIST = "The newest 3 of 3 requests of the API, newest first"
    LIMITS = "Requests that each key has left in this minute"

    def test_lists_the_newest_requests_without_keys(self, simulator, client, get_page, clock):
        key = simulator.workspace.keys.add().value
        simulator.fail("reset", route="cancel_job")
        client.get("/jobs?limit=5", headers={"Authorization": f"Bearer {key}"})
        clock.move(1)
        client.get("/jobs/a%2Fb", headers={"Authorization": "Bearer unknown"})
        with pytest.raises(httpx.ReadError):
            client.post("/jobs/x/cancel")
        page = get_page("/requests")
        assert page.tables[self.LIST] == [
            ["Time (UTC)", "Method", "Path", "HTTP status", "Key"],
            ["2025-03-27 14:22:11", "POST", "/api/v1/jobs/x/cancel", "-", "key 1"],
            ["2025-03-27 14:22:11", "GET", "/api/v1/jobs/a%2Fb", "401", "-"],
            ["2025-03-27 14:22:10", "GET", "/api/v1/jobs?limit=5", "200", "key 2"],
        ]
        assert not [one for one in (key, simulator.api_key) if one in page.text]

    def test_shows_the_rate_limit_of_each_valid_key(self, simulator, client, get_page, clock):
        keys = simulator.workspace.keys
        keys.add("plnx_second")
        keys.revoke(keys.add("plnx_third").value)
        keys.add("plnx_second", scopes=["jobs:read"])
        simulator.rate_limit.configure(2)
        for _ in range(3):
            client.get("/jobs")
        used, unused = ["key 1", "0", "2", "2025-03-27 14:23:00"], ["key 2", "2", "2", "2025-03-27 14:23:00"]
        assert get_page("/requests").tables[self.LIMITS][1:] == [used, unused]
        assert get_page("/requests").tables[self.LIMITS][1:] == [used, unused], "the page itself uses none"
        clock.move(60)
        assert get_page("/requests").tables[self.LIMITS][1][1] == "2"

    @pytest.mark.heavy
    def test_lists_at_most_a_hundred(self, client, get_page):
        for _ in range(101):
            client.get("/jobs")
        page = get_page("/requests")
        assert len(page.tables["The newest 100 of 101 requests of the API, newest first"]) == 1 + 100

    def test_empty(self, get_page):
        assert "No requests yet." in get_page("/requests").text


class TestBackfills:
    def test_shows_progress(self, simulator, get_page, clock):
        simulator.plan_backfill("conn_demo_01", jobs=4, parallel=2, job_seconds=2, queued_seconds=0, tables={"a": 400})
        backfill_id = backfill(simulator)
        clock.move(3)
        (_, row) = get_page("/backfills").tables[BACKFILLS]
        assert row == [
            backfill_id,
            "running",
            "75 %",
            "300",
            "conn_demo_01",
            "2025-01-01 00:00:00 to 2025-03-01 00:00:00",
            "2025-03-27 14:22:10",
        ]

    @pytest.mark.parametrize(
        "query", ["connection_id=conn_demo_02", "status=completed", "text=ops-1", "text=LINES", "text=demo_02"]
    )
    def test_can_be_filtered(self, simulator, get_page, query):
        backfill(simulator)
        simulator.plan_backfill("conn_demo_02", queued_seconds=0, job_seconds=0)
        wanted = backfill(simulator, "conn_demo_02", tables=["orders", "lines"], metadata={"ticket": "OPS-1"})
        assert get_page(f"/backfills?{query}").ids(BACKFILLS) == [wanted]
        assert "No backfill matches the filters." in get_page("/backfills?text=nothing+has+this").text

    def test_comes_in_pages(self, simulator, get_page):
        ids = [backfill(simulator) for _ in range(3)]
        first = get_page("/backfills?limit=2")
        assert first.ids(BACKFILLS) == ids[:0:-1]
        (older,) = first.all("a", rel="next")
        assert get_page(older["href"]).ids(BACKFILLS) == ids[:1]
