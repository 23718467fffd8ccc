from __future__ import annotations

import re
from urllib.parse import quote

import httpx
import pytest

from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.model.request_bodies import BackfillRequestBody, SyncRequestBody
from planasonix_provider.simulator.web.views import TaskReference
from tests.support.html_page import Page

FACTS, METRICS, TABLES = "Request and times", "Rows and bytes so far", "Loaded tables"
TASK = {"dag_id": "nightly", "task_id": "load", "run_id": "manual__1+00:00", "try_number": 2, "map_index": -1}


def sync(simulator, **body):
    return simulator.workspace.start_sync("conn_demo_01", SyncRequestBody.model_validate(body)).id


class TestJob:
    def test_shows_all_details(self, simulator, get_page, clock):
        warning = {"code": "column_type_widened", "message": "Column discount_pct was widened."}
        simulator.plan("conn_demo_01", tables={"orders": 1_200, "lines": 34}, warnings=[warning])
        job_id = sync(simulator, pipeline_id="pl_1", metadata={**TASK, "ticket": "OPS-1"})
        clock.move(3)
        page = get_page(f"/jobs/{job_id}")
        assert page.status == 200
        assert f"Job {job_id} succeeded 100 %" in page.text
        assert page.facts(FACTS) == {
            "Type": "connection_sync",
            "Connection": "conn_demo_01",
            "Pipeline": "pl_1",
            "Created (UTC)": "2025-03-27 14:22:10",
            "Started (UTC)": "2025-03-27 14:22:10",
            "Cancel requested (UTC)": "-",
            "Finished (UTC)": "2025-03-27 14:22:12",
            "Duration": "2.0 s",
        }
        assert page.facts(METRICS) == {"Rows extracted": "1,234", "Rows loaded": "1,234", "Bytes read": "1,831,726"}
        assert [row[:2] for row in page.tables[TABLES][1:]] == [["orders", "1,200"], ["lines", "34"]]
        assert page.tables[TABLES][1][2].startswith("sha256:")
        assert "column_type_widened: Column discount_pct was widened." in page.text
        assert page.facts("The Airflow task in the metadata") == {
            "DAG": "nightly",
            "Task": "load",
            "Run": "manual__1+00:00",
            "Try": "2",
            "Map index": "not mapped",
        }
        assert '"ticket": "OPS-1"' in page.text

    def test_shows_its_error(self, simulator, get_page, clock):
        simulator.plan("conn_demo_01", outcome="failed", code="source_unreachable", message="No route to host.")
        job_id = sync(simulator)
        clock.move(3)
        page = get_page(f"/jobs/{job_id}")
        assert "failed 50 %" in page.text
        assert "Error source_unreachable No route to host." in page.text
        assert "The metadata names no Airflow task." in page.text

    def test_is_live_until_it_has_ended(self, simulator, get_page, clock):
        job_id = sync(simulator)
        clock.move(1.2)
        page = get_page(f"/jobs/{job_id}")
        assert "running 50 %" in page.text
        (moving,) = page.all("div", id="now")
        assert ("data-live" in moving, moving["data-news"]) == (True, "The job is running.")
        assert "Available when the job has ended." in page.text
        clock.move(1)
        (moving,) = get_page(f"/jobs/{job_id}").all("div", id="now")
        assert ("data-live" in moving, moving["data-news"]) == (False, "The job is succeeded.")

    def test_is_cancelled_by_a_button(self, simulator, get_page, send, clock):
        job_id = sync(simulator)
        page = send(get_page(f"/jobs/{job_id}").all("form")[0]["action"])
        assert (page.status, "cancelling 0 %" in page.text, page.all("form")) == (200, True, [])
        assert simulator.job(job_id).status == "cancelling"
        clock.move(1)
        assert get_page(f"/jobs/{job_id}").all("form") == []

    def test_is_made_to_fail_by_a_form(self, simulator, get_page, send, clock):
        job_id = sync(simulator)
        clock.move(1.2)
        (form,) = get_page(f"/jobs/{job_id}").all("form", id="fail")
        page = send(form["action"], code="disk_full", message="No room.")
        assert (page.status, page.all("form")) == (200, [])
        assert "failed 50 % Error disk_full No room." in page.text
        assert simulator.job(job_id).status == "failed"

    @pytest.mark.parametrize(("planned", "code"), [({}, "sync_failed"), ({"code": "a_code"}, "a_code")])
    def test_shows_the_default_error_code(self, simulator, get_page, send, planned, code):
        simulator.plan("conn_demo_01", **planned)
        job_id = sync(simulator)
        assert f"Error code default {code}" in get_page(f"/jobs/{job_id}").text
        page = send(f"/jobs/{job_id}/fail", code="", message=" ")
        assert f"Error {code} The job was made to fail." in page.text

    def test_is_slowed_down_by_a_form(self, simulator, get_page, send, clock):
        job_id = sync(simulator)
        clock.move(1.2)
        page = get_page(f"/jobs/{job_id}")
        (form,) = page.all("form", id="slow")
        (seconds,) = page.all("input", name="seconds")
        page = send(form["action"], seconds=seconds["value"])
        assert (page.status, "running 50 %" in page.text) == (200, True)
        clock.move(31)
        assert "running 75 %" in get_page(f"/jobs/{job_id}").text
        clock.move(30)
        assert get_page(f"/jobs/{job_id}").facts(FACTS)["Duration"] == "62.0 s"

    @pytest.mark.parametrize(
        ("typed", "issue"),
        [("", "Field required"), ("soon", "should be a valid number"), ("0", "got 0.0, allowed is a number above 0")],
    )
    def test_invalid_form_marks_its_field(self, simulator, send, typed, issue):
        job_id = sync(simulator)
        before = simulator.job(job_id)
        page = send(f"/jobs/{job_id}/slow", seconds=typed)
        (field,) = page.all("input", id="slow-seconds")
        assert (page.status, field["aria-invalid"], field["value"]) == (400, "true", typed or "60")
        assert field["aria-describedby"] == "slow-seconds-hint slow-seconds-issue"
        assert "#slow-seconds" in page.links
        assert re.search(f"Additional seconds: .*{issue}", page.text)
        assert simulator.job(job_id) == before

    @pytest.mark.parametrize(("form", "typed"), [("fail", {}), ("slow", {"seconds": "5"})])
    @pytest.mark.parametrize("status", ["cancelling", "cancelled", "failed"])
    def test_change_of_an_ended_job_shows_an_error(self, simulator, send, clock, form, typed, status):
        job_id = sync(simulator)
        end = simulator.fail_job if status == "failed" else simulator.workspace.cancel
        end(job_id)
        clock.move(0 if status == "cancelling" else 1)
        before = simulator.job(job_id)
        page = send(f"/jobs/{job_id}/{form}", **typed)
        assert (page.status, len(page.all("div", role="alert"))) == (409, 1)
        assert f"job '{job_id}' is {status} and can no longer be changed." in page.text
        assert simulator.job(job_id) == before

    def test_error_page_links_the_job_and_is_not_live(self, simulator, send):
        job_id = sync(simulator)
        page = send(f"/jobs/{job_id}/slow", seconds="soon")
        assert f"/jobs/{job_id}" in page.links
        assert (page.all("button", id="live"), [one for one in page.all("div") if "data-live" in one]) == ([], [])

    def test_links_its_backfill(self, simulator, get_page, clock):
        body = BackfillRequestBody.model_validate({"start_at": "2025-01-01", "end_at": "2025-03-01"})
        backfill_id = simulator.workspace.start_backfill("conn_demo_01", body).id
        clock.move(1)
        job_id = simulator.backfill(backfill_id).job_ids[0]
        assert f"/backfills/{backfill_id}" in get_page(f"/jobs/{job_id}").links
        assert not [link for link in get_page(f"/jobs/{sync(simulator)}").links if "backfill" in link]


class TestBackfill:
    def start(self, simulator, **more):
        body = {"start_at": "2025-01-01", "end_at": "2025-03-01", **more}
        return simulator.workspace.start_backfill("conn_demo_01", BackfillRequestBody.model_validate(body)).id

    def test_shows_all_details(self, simulator, get_page, clock):
        simulator.plan_backfill("conn_demo_01", jobs=60, parallel=30, failing_jobs=[0], tables={"a": 400, "b": 200})
        backfill_id = self.start(simulator, tables=["a", "b"], metadata=TASK)
        clock.move(4.2)
        page = get_page(f"/backfills/{backfill_id}")
        assert f"Backfill {backfill_id} failed 99 %" in page.text
        assert "Error jobs_failed 1 of 60 jobs failed" in page.text
        assert page.facts(FACTS) == {
            "Connection": "conn_demo_01",
            "From (UTC)": "2025-01-01 00:00:00",
            "To (UTC)": "2025-03-01 00:00:00",
            "Tables": "a, b",
            "Rows loaded": "594",
            "Created (UTC)": "2025-03-27 14:22:10",
            "Changed (UTC)": "2025-03-27 14:22:14",
        }
        assert page.facts("The Airflow task in the metadata")["DAG"] == "nightly"
        assert page.all("form") == []

    def test_shows_its_jobs_in_pages(self, simulator, get_page, clock):
        simulator.plan_backfill("conn_demo_01", jobs=60, parallel=60)
        backfill_id = self.start(simulator)
        assert "The backfill has created no jobs yet." in get_page(f"/backfills/{backfill_id}").text
        clock.move(1)
        ids = simulator.backfill(backfill_id).job_ids
        first = get_page(f"/backfills/{backfill_id}")
        assert first.ids("Jobs 11 to 60 of 60 so far, newest first") == ids[:9:-1]
        (older,) = first.all("a", rel="next")
        second = get_page(older["href"])
        assert second.ids("Jobs 1 to 10 of 60 so far, newest first") == ids[9::-1]
        assert second.all("a", rel="next") == []

    @pytest.mark.parametrize("before", ["x", "-1", "99999", ""])
    def test_invalid_position_shows_the_newest_jobs(self, simulator, get_page, clock, before):
        backfill_id = self.start(simulator)
        clock.move(1)
        assert "Jobs 1 to 3 of 3 so far, newest first" in get_page(f"/backfills/{backfill_id}?before={before}").tables

    def test_is_cancelled_by_a_button_which_ends_its_jobs(self, simulator, get_page, send, clock):
        simulator.plan_backfill("conn_demo_01", jobs=4, parallel=2)
        backfill_id = self.start(simulator)
        clock.move(2.3)
        (form,) = get_page(f"/backfills/{backfill_id}").all("form")
        assert send(form["action"]).status == 200
        clock.move(1)
        assert simulator.backfill(backfill_id).status == "cancelled"
        assert [simulator.job(job_id).status for job_id in simulator.backfill(backfill_id).job_ids] == [
            "succeeded",
            "succeeded",
            "cancelled",
            "cancelled",
        ]


def test_navigation_marks_the_list_of_a_detail_page(simulator, get_page):
    body = BackfillRequestBody.model_validate({"start_at": "2025-01-01", "end_at": "2025-03-01"})
    details = {
        "/jobs": sync(simulator),
        "/backfills": simulator.workspace.start_backfill("conn_demo_01", body).id,
        "/webhooks": simulator.subscribe("https://x.example", ["job.failed"]).id,
    }
    for path, detail_id in details.items():
        for page, marked in ((get_page(path), "page"), (get_page(f"{path}/{detail_id}"), "true")):
            current = [(link["href"], link["aria-current"]) for link in page.all("a") if "aria-current" in link]
            assert current == [(path, marked)]
        assert page.all("span", **{"class": "id"}), "the id fits into one line of a phone"


@pytest.mark.parametrize(("kind", "name"), [("jobs", "job"), ("backfills", "backfill"), ("webhooks", "webhook")])
def test_unknown_id(get_page, kind, name):
    page = get_page(f"/{kind}/a%2Fb")
    assert (page.status, f"There is no {name} 'a/b'." in page.text) == (404, True)


@pytest.mark.parametrize(
    "path", ["/jobs/x/cancel", "/jobs/x/fail", "/jobs/x/slow", "/backfills/x/cancel", "/webhooks/x/test"]
)
def test_unknown_id_cannot_be_changed(send, path):
    assert send(path, seconds="5").status == 404


class TestTaskReference:
    def test_has_a_url_if_airflow_is_known(self):
        task = TaskReference.of(TASK, "http://localhost:8080/")
        assert task.url == "http://localhost:8080/dags/nightly/runs/manual__1%2B00%3A00/tasks/load?try_number=2"
        mapped = TaskReference.of({**TASK, "map_index": 3}, "https://airflow.example/team")
        assert mapped.url.startswith("https://airflow.example/team/dags/nightly/runs/")
        assert mapped.url.endswith("/tasks/load/mapped/3?try_number=2")
        assert mapped.facts["Map index"] == "3"

    @pytest.mark.parametrize("missing", ["run_id", "task_id"])
    def test_has_no_url_without_airflow_or_run(self, missing):
        assert TaskReference.of(TASK, None).url is None
        assert TaskReference.of({**TASK, missing: None}, "http://localhost:8080").url is None

    @pytest.mark.parametrize("metadata", [None, {}, {"task_id": "load"}, {"dag_id": ["nightly"]}, {"dag_id": ""}])
    def test_is_none_without_a_dag(self, metadata):
        assert TaskReference.of(metadata, "http://localhost:8080") is None

    def test_names_are_escaped_in_the_url(self):
        odd = dict.fromkeys(TASK, "../../x?y#z")
        task = TaskReference.of(odd, "http://localhost:8080")
        one = quote("../../x?y#z", safe="")
        assert task.url == f"http://localhost:8080/dags/{one}/runs/{one}/tasks/{one}?try_number={one}"

    def test_is_linked_from_its_job(self, clock):
        with Simulator(clock=clock, airflow_url="http://localhost:8080") as simulator:
            page = Page(httpx.get(f"{simulator.url}/jobs/{sync(simulator, metadata=TASK)}", timeout=60))
        assert TaskReference.of(TASK, "http://localhost:8080").url in page.links

    @pytest.mark.parametrize("url", ["javascript:alert(1)", "localhost:8080", "http://", "ftp://x", "http://[", ""])
    def test_airflow_url_must_be_http(self, url):
        with pytest.raises(ValueError, match=r"airflow_url: got .*, allowed is an http or https URL"):
            Simulator(airflow_url=url)
