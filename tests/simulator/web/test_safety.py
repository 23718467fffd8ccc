"""Texts in a job cannot inject code into a page, and other sites cannot use the pages."""

from __future__ import annotations

import httpx
import pytest

from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.app import create_app
from planasonix_provider.simulator.model.request_bodies import BackfillRequestBody, SyncRequestBody
from planasonix_provider.simulator.workspace import Workspace
from tests.support.html_page import Page
from tests.support.simulator_responses import error

ATTACK = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}{% raw %}"
PAGES = ("/", "/jobs", "/backfills", "/webhooks", "/requests", "/start", "/control")


@pytest.fixture
def attacked(simulator, clock):
    """The pages of a simulator with an attack in every text that a caller can set."""
    workspace = simulator.workspace
    workspace.configure(conflict="allowed")
    workspace.add_connection(ATTACK)
    simulator.plan(
        ATTACK,
        outcome="failed",
        code=ATTACK,
        message=ATTACK,
        queued_seconds=0,
        running_seconds=0,
        tables={ATTACK: 5},
        warnings=[{"code": ATTACK, "message": ATTACK}],
    )
    task = {"dag_id": ATTACK, "task_id": ATTACK, "run_id": ATTACK, "try_number": ATTACK, "map_index": ATTACK}
    metadata = {**task, ATTACK: {ATTACK: [ATTACK]}}
    job = workspace.start_sync(ATTACK, SyncRequestBody(pipeline_id=ATTACK, metadata=metadata)).id
    body = {"start_at": "2025-01-01", "end_at": "2025-03-01", "tables": [ATTACK], "metadata": metadata}
    backfill = workspace.start_backfill(ATTACK, BackfillRequestBody.model_validate(body)).id
    clock.move(9)
    url = "https://x.example/" + ATTACK.replace(" ", "")
    webhook = simulator.subscribe(url, [ATTACK]).id
    workspace.webhooks.test(webhook)
    lists = [f"{page}?text=script" for page in ("/jobs", "/backfills")]
    return [*PAGES, *lists, f"/jobs/{job}", f"/backfills/{backfill}", f"/webhooks/{webhook}"]


def test_everything_is_escaped(attacked, browser):
    for path in attacked:
        page = Page(browser.get(path))
        assert page.status == 200
        assert page.all("script") == [{"src": "/assets/page.js", "defer": None}], path
        assert not page.all("img"), path
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes), path
        if path not in ("/requests", "/start", "/control"):
            assert "{{ 7 * 7 }}" in page.text or "{{7*7}}" in page.text, path


@pytest.mark.parametrize("path", ["/jobs/{}", "/backfills/{}", "/webhooks/{}", "/assets/{}"])
def test_unknown_ids_are_escaped(browser, path):
    answer = browser.get(path.format("%3Cscript%3Ealert(1)%3C%2Fscript%3E"))
    page = Page(answer)
    assert (page.status, len(page.all("script")), "<script>alert(1)" in page.text) == (404, 1, True)


@pytest.mark.parametrize(
    "form", ["/start/sync", "/start/backfill", "/start/connection", "/control/plan", "/control/fault", "/jobs/{}/slow"]
)
def test_form_values_are_escaped(simulator, send, form):
    form = form.format(simulator.workspace.start_sync("conn_demo_01").id)
    page = send(
        form,
        seconds=ATTACK,
        connection_id=ATTACK,
        tables=ATTACK,
        start_at=ATTACK,
        message=ATTACK,
        route=ATTACK,
        times=ATTACK,
    )
    assert len(page.all("script")) == 1
    assert page.all("img") == []


def test_no_key_and_no_secret_is_on_any_page(attacked, simulator, browser):
    secret = simulator.subscribe("https://x.example", ["job.failed"]).signing_secret.get_secret_value()
    key = simulator.workspace.keys.add().value
    for path in attacked:
        text = browser.get(path).text
        assert [one for one in (secret, key, simulator.api_key) if one in text] == [], path


@pytest.mark.parametrize("path", [*PAGES, "/jobs/x", "/assets/page.js", "/assets/page.css", "/assets/icon.svg"])
def test_pages_run_only_own_scripts(browser, path):
    headers = browser.get(path).headers
    rules = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert {rules[name] for name in ("script-src", "style-src", "connect-src", "img-src", "form-action")} == {"'self'"}
    assert headers["x-content-type-options"] == "nosniff"


def test_pages_load_nothing_from_other_hosts(browser):
    for path in PAGES:
        page = Page(browser.get(path))
        asked = [value for _, found in page.elements for name, value in found.items() if name in ("src", "href")]
        assert {value for value in asked if not value.startswith(("/", "#"))} <= {""}, "a link loads the page itself"


CHANGES = (
    "/start/sync",
    "/control/settings",
    "/control/clear",
    "/jobs/{}/fail",
    "/jobs/{}/slow",
    "/_simulator/reset",
    "/_simulator/plans",
    "/_simulator/jobs/{}/fail",
)


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "OWN"},
    ],
)
def test_cross_site_requests_change_nothing(browser, simulator, path, headers):
    job_id = simulator.workspace.start_sync("conn_demo_02").id
    before = simulator.workspace.next_change_at()
    headers = {name: value.replace("OWN", simulator.url) for name, value in headers.items()}
    typed = {"connection_id": "conn_demo_01", "speed": "5", "seconds": "5"}
    answer = browser.post(path.format(job_id), data=typed, headers=headers)
    assert answer.status_code == 403
    assert "another site" in answer.text
    assert (len(simulator.jobs()), simulator.workspace.settings.speed) == (1, 1.0)
    assert (simulator.job(job_id).status, simulator.workspace.next_change_at()) == ("queued", before)


@pytest.mark.parametrize("path", ["/start/sync", "/_simulator/reset", "/api/v1/connections/conn_demo_01/sync"])
def test_dns_rebinding_reads_and_changes_nothing(browser, simulator, path):
    simulator.workspace.start_sync("conn_demo_02")
    name = f"rebound.example:{browser.base_url.port}"
    headers = {"Host": name, "Origin": f"http://{name}", "Sec-Fetch-Site": "same-origin"}
    headers["Authorization"] = f"Bearer {simulator.api_key}"
    answer = browser.post(path, data={"connection_id": "conn_demo_01"}, headers=headers)
    assert error(answer, 403)["message"] == (
        f"the request was sent to host {name!r}, which is not a name of this simulator; use its IP address, or start "
        "it with --allow-host and that name"
    )
    assert [job.connection_id for job in simulator.jobs()] == ["conn_demo_02"]
    assert simulator.requests == [], "no request of the API"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/assets/page.js", "/api/v1/jobs", "/_simulator/state", "/nowhere"])
def test_foreign_host_is_rejected_for_every_path_and_method(browser, method, path):
    answer = browser.request(method, path, headers={"Host": "rebound.example"})
    assert (answer.status_code, "x-request-id" in answer.headers) == (403, True)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "host",
    [
        "",
        ATTACK.replace("\n", ""),
        "localhost.evil.example",
        "evil.localhost",
        "127.0.0.1.nip.example",
        "127.0.0.1@evil.example",
        "evil.example#127.0.0.1",
        "[::1].evil.example",
        "[evil.example]",
        "evil.example, localhost",
        "0x7f000001.example",
    ],
)
def test_similar_host_names_are_rejected(browser, host):
    answer = browser.get("/", headers={"Host": host})
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("host", ["localhost", "LocalHost:8321", "localhost.", "127.0.0.1", "10.1.2.3:80", "[::1]:1"])
def test_localhost_and_addresses_are_allowed(browser, host):
    assert browser.get("/", headers={"Host": host}).status_code == 200


def test_configured_host_name_is_allowed(clock):
    with Simulator(clock=clock, host="localhost", allowed_hosts=["Planasonix.Internal."]) as simulator:
        for name, status in (("planasonix.internal:8321", 200), ("internal", 403), ("localhost", 200)):
            assert httpx.get(simulator.url, headers={"Host": name}, timeout=60).status_code == status


async def test_websockets_are_rejected(clock):
    sent = []

    async def send(message):
        sent.append(message)

    await create_app(Workspace(clock=clock))({"type": "websocket", "path": "/", "headers": []}, None, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "OWN"}, {"Sec-Fetch-Site": "same-origin", "Origin": "https://forwarded.example"}]
)
def test_programs_and_own_pages_are_allowed(browser, simulator, headers):
    headers = {name: value.replace("OWN", simulator.url) for name, value in headers.items()}
    answer = browser.post("/start/sync", data={"connection_id": "conn_demo_01"}, headers=headers)
    assert (answer.status_code, len(simulator.jobs())) == (303, 1)
    assert browser.post("/_simulator/reset", headers=headers).status_code == 200


def test_get_changes_nothing(browser):
    for path in (*CHANGES[:5], "/jobs/x/cancel"):
        assert browser.get(path).status_code == 405


@pytest.mark.parametrize("path", [*PAGES, "/jobs/x", "/assets/page.css"])
def test_pages_need_no_key_and_are_not_logged(simulator, browser, path):
    assert browser.get(path).status_code in (200, 404)
    assert simulator.requests == []


def test_faults_do_not_affect_pages(simulator, browser):
    simulator.fail("status", times=None)
    assert browser.get("/").status_code == 200


@pytest.mark.heavy
def test_page_size_is_independent_of_the_number_of_jobs(simulator, browser, client):
    simulator.workspace.configure(conflict="allowed")
    simulator.plan("conn_demo_01", times=None, running_seconds=86_400)

    def start(jobs: int) -> int:
        for _ in range(jobs):
            simulator.workspace.start_sync("conn_demo_01")
        return len(browser.get("/jobs").content)

    assert abs(start(5_000) - start(60)) < 100
    assert "5,060" in browser.get("/").text
