from __future__ import annotations

from html.parser import HTMLParser

import pytest

ATTACK = '<script>alert("x")</script>'


class Page(HTMLParser):
    """The text of a page, and how often each tag is in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.links = "", [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name == "href"]

    def handle_data(self, data):
        self.text += data


def test_job_page_tells_what_a_person_asks(planasonix, client, clock):
    planasonix.plan("conn_demo_01", outcome="failed", code="source_unreachable", message="No route to host.")
    body = {"pipeline_id": "pl_1", "metadata": {"dag_id": "nightly"}}
    job_id = client.post("/connections/conn_demo_01/sync", json=body).json()["data"]["job"]["id"]
    clock.move(3)
    response = client.get(f"{planasonix.url}/jobs/{job_id}")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = Page(response.text)
    for told in (job_id, "failed", "source_unreachable: No route to host.", "conn_demo_01", "pl_1", "22401", "nightly"):
        assert told in page.text
    assert "2025-03-27 14:22:12 UTC" in page.text
    assert (page.tags.count("h1"), page.tags.count("title"), page.tags.count("main")) == (1, 1, 1)
    assert '<html lang="en">' in response.text


def test_backfill_page_tells_what_a_person_asks(planasonix, client, clock):
    planasonix.plan_backfill("conn_demo_01", jobs=60, parallel=30, failing_jobs=[0], tables={"a": 400, "b": 200})
    body = {"start_at": "2025-01-01", "end_at": "2025-03-01", "tables": ["a", "b"], "metadata": {"dag_id": "nightly"}}
    backfill_id = client.post("/connections/conn_demo_01/backfill", json=body).json()["data"]["backfill"]["id"]
    clock.move(4.2)
    response = client.get(f"{planasonix.url}/backfills/{backfill_id}")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = Page(response.text)
    for told in (
        backfill_id,
        "failed",
        "jobs_failed: 1 of 60 jobs failed",
        "99 %",
        "Rows processed594",
        "conn_demo_01",
        "nightly",
    ):
        assert told in page.text
    for told in ("a, b", "2025-01-01 00:00:00 UTC", "2025-03-01 00:00:00 UTC", "of 60 so far"):
        assert told in page.text
    job_ids = planasonix.backfill(backfill_id).job_ids
    assert page.links == [*(f"/jobs/{job_id}" for job_id in job_ids[:9:-1]), "/"], "the newest 50, and the way home"
    job = Page(client.get(planasonix.url + page.links[0]).text)
    assert (job_ids[-1] in job.text, "backfill" in job.text, "succeeded" in job.text) == (True, True, True)


def test_everything_is_escaped(planasonix, client):
    planasonix.world.add_connection(ATTACK)
    planasonix.plan(ATTACK, outcome="failed", message=ATTACK, queued_seconds=0, running_seconds=0)
    body = {"pipeline_id": ATTACK, "metadata": {ATTACK: ATTACK}}
    path = "/connections/%3Cscript%3Ealert%28%22x%22%29%3C%2Fscript%3E/sync"
    job_id = client.post(path, json=body).json()["data"]["job"]["id"]
    body = {"start_at": "2025-01-01", "end_at": "2025-03-01", "tables": [ATTACK], "metadata": {ATTACK: ATTACK}}
    answer = client.post(path.replace("/sync", "/backfill"), json=body).json()
    backfill = f"/backfills/{answer['data']['backfill']['id']}"
    for page in (f"/jobs/{job_id}", backfill, "/", "/jobs/%3Cscript%3E", "/backfills/%3Cscript%3E"):
        shown = Page(client.get(planasonix.url + page, headers={"Host": ATTACK}).text)
        assert "script" not in shown.tags
        assert "script" in shown.text


@pytest.mark.parametrize(("kind", "name"), [("jobs", "job"), ("backfills", "backfill")])
def test_unknown_thing(planasonix, client, kind, name):
    response = client.get(f"{planasonix.url}/{kind}/a%2Fb")
    assert response.status_code == 404
    assert f"no {name} 'a/b'" in Page(response.text).text


def test_start_page_links_jobs_and_connects_airflow(planasonix, client):
    job_id = client.post("/connections/conn_demo_01/sync").json()["data"]["job"]["id"]
    page = Page(client.get(planasonix.url).text)
    assert page.links == [f"/jobs/{job_id}"]
    assert f'"host": "{planasonix.url}", "password": "{planasonix.api_key}"' in page.text


def test_start_page_lists_backfills_in_short(planasonix, client, clock):
    body = {"start_at": "2025-01-01", "end_at": "2025-03-01"}
    backfill_id = client.post("/connections/conn_demo_01/backfill", json=body).json()["data"]["backfill"]["id"]
    page = Page(client.get(planasonix.url).text)
    assert page.links == [f"/backfills/{backfill_id}"]
    for told in ("queued", "0 %", "conn_demo_01", "2025-03-27 14:22:10 UTC"):
        assert told in page.text
    clock.move(1.2)
    page = Page(client.get(planasonix.url).text)
    assert ("running" in page.text, "50 %" in page.text, len(page.links)) == (True, True, 4)


@pytest.mark.parametrize("path", ["/", "/jobs/x", "/backfills/x"])
def test_pages_are_no_requests_of_the_api(planasonix, client, path):
    client.get(planasonix.url + path)
    assert planasonix.requests == []


def test_start_page_without_anything(planasonix, client):
    page = Page(client.get(planasonix.url).text)
    assert "No job was started yet." in page.text
    assert "No backfill was started yet." in page.text
