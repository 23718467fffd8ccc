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


def test_everything_is_escaped(planasonix, client):
    planasonix.world.add_connection(ATTACK)
    planasonix.plan(ATTACK, outcome="failed", message=ATTACK, queued_seconds=0, running_seconds=0)
    body = {"pipeline_id": ATTACK, "metadata": {ATTACK: ATTACK}}
    path = "/connections/%3Cscript%3Ealert%28%22x%22%29%3C%2Fscript%3E/sync"
    job_id = client.post(path, json=body).json()["data"]["job"]["id"]
    for page in (f"/jobs/{job_id}", "/", "/jobs/%3Cscript%3E"):
        shown = Page(client.get(planasonix.url + page, headers={"Host": ATTACK}).text)
        assert "script" not in shown.tags
        assert "script" in shown.text


def test_unknown_job(planasonix, client):
    response = client.get(f"{planasonix.url}/jobs/a%2Fb")
    assert response.status_code == 404
    assert "no job 'a/b'" in Page(response.text).text


def test_start_page_links_jobs_and_connects_airflow(planasonix, client):
    job_id = client.post("/connections/conn_demo_01/sync").json()["data"]["job"]["id"]
    page = Page(client.get(planasonix.url).text)
    assert page.links == [f"/jobs/{job_id}"]
    assert f'"host": "{planasonix.url}", "password": "{planasonix.api_key}"' in page.text


@pytest.mark.parametrize("path", ["/", "/jobs/x"])
def test_pages_are_no_requests_of_the_api(planasonix, client, path):
    client.get(planasonix.url + path)
    assert planasonix.requests == []


def test_start_page_without_jobs(planasonix, client):
    assert "No job was started yet." in Page(client.get(planasonix.url).text).text
