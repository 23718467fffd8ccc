from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from planasonix_provider.simulator import Simulator
from tests.browser.stage import Stage

PAUSE = 2_100


def poll_now(page: Page) -> None:
    """Advance the clock to the page's next poll, and wait for the response."""
    with page.expect_response(page.url):
        page.clock.run_for(PAUSE)


def test_a_job_page_shows_progress(page: Page, stage: Stage) -> None:
    stage.planasonix.plan("conn_demo_01", running_seconds=10, queued_seconds=0, tables={"orders": 1_000})
    page.goto(f"/jobs/{stage.sync()}")
    expect(page.get_by_text("running 0 %")).to_be_visible()
    stage.move(4)
    poll_now(page)
    expect(page.get_by_role("row", name="Rows loaded 400")).to_be_visible()
    stage.move(6)
    poll_now(page)
    expect(page.get_by_role("row", name="orders 1,000")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel this job")).to_have_count(0)


def test_a_job_page_slows_and_fails_the_job(page: Page, stage: Stage) -> None:
    stage.planasonix.plan("conn_demo_01", running_seconds=10, queued_seconds=0)
    page.goto(f"/jobs/{stage.sync()}")
    slow = page.get_by_role("form", name="Make it run longer")
    slow.get_by_label("Additional seconds").fill("20")
    slow.get_by_role("button", name="Slow this job").press("Enter")
    stage.move(15)
    poll_now(page)
    expect(page.get_by_text("running 50 %")).to_be_visible()
    message = page.get_by_role("form", name="Make it fail now").get_by_label("Error message")
    message.fill("No room.")
    stage.move(3)
    poll_now(page)
    expect(page.get_by_text("running 60 %")).to_be_visible()
    expect(message).to_have_value("No room.")
    expect(message).to_be_focused()
    message.press("Enter")
    expect(page.get_by_role("region", name="Error")).to_contain_text("No room.")
    expect(page.get_by_role("form")).to_have_count(0)


def test_a_job_page_hides_its_buttons_when_the_job_ends(page: Page, stage: Stage) -> None:
    stage.planasonix.plan("conn_demo_01", running_seconds=10, queued_seconds=0)
    page.goto(f"/jobs/{stage.sync()}")
    expect(page.get_by_role("form")).to_have_count(2)
    stage.move(10)
    poll_now(page)
    expect(page.get_by_text("succeeded 100 %")).to_be_visible()
    expect(page.get_by_role("form")).to_have_count(0)


def test_screen_readers_announce_only_state_changes(page: Page, stage: Stage) -> None:
    stage.planasonix.plan("conn_demo_01", running_seconds=10, queued_seconds=0)
    page.goto(f"/jobs/{stage.sync()}")
    news = page.locator("#news")
    for _ in range(3):
        stage.move(2)
        poll_now(page)
    expect(page.get_by_role("row", name="Rows loaded 26,881")).to_be_visible()
    expect(news).to_be_empty()
    stage.move(4)
    poll_now(page)
    expect(news).to_have_text("The job is succeeded.")


def test_a_page_of_a_finished_job_stops_polling(page: Page, stage: Stage) -> None:
    page.goto(f"/jobs/{stage.sync()}")
    stage.move(9)
    poll_now(page)
    live = page.get_by_role("button", name="Live updates")
    expect(live).to_be_hidden()
    assert requests_within(page, 10_000) == []
    page.reload()
    expect(live).to_have_count(0)


def test_a_focused_row_stays_when_new_rows_arrive(page: Page, stage: Stage) -> None:
    stage.planasonix.workspace.configure(conflict="allowed")
    first = stage.sync()
    page.goto("/jobs")
    link = page.get_by_role("link", name=first)
    link.focus()
    page.evaluate("(id) => { window.row = document.getElementById(id) }", first)
    newer = [stage.sync() for _ in range(3)]
    stage.move(1)
    poll_now(page)
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(0)).to_contain_text(newer[-1])
    expect(rows.nth(3)).to_contain_text("running")
    expect(link).to_be_focused()
    assert page.evaluate("(id) => window.row === document.getElementById(id)", first)


def test_a_full_list_drops_its_last_rows(page: Page, stage: Stage) -> None:
    for number in range(1, 4):
        stage.planasonix.plan(f"conn_demo_0{number}", queued_seconds=0, running_seconds=5 * number)
        stage.sync(f"conn_demo_0{number}")
    page.goto("/jobs?status=running")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(3)
    stage.move(6)
    poll_now(page)
    expect(rows).to_have_count(2)
    stage.move(60)
    poll_now(page)
    expect(page.get_by_text("No job matches the filters.")).to_be_visible()
    stage.planasonix.plan("conn_demo_04", queued_seconds=0, running_seconds=60)
    stage.sync("conn_demo_04")
    poll_now(page)
    expect(rows).to_have_count(1)


def test_live_updates_can_be_switched_off(page: Page, stage: Stage) -> None:
    page.goto("/jobs")
    live = page.get_by_role("button", name="Live updates", pressed=True)
    live.click()
    expect(page.get_by_role("button", name="Live updates", pressed=False)).to_be_visible()
    assert requests_within(page, 10_000) == []
    page.get_by_role("button", name="Live updates").click()
    poll_now(page)


def test_a_page_reports_a_stopped_simulator_and_reconnects(page: Page) -> None:
    with Simulator() as planasonix:
        page.goto(planasonix.url)
        port = int(planasonix.url.rsplit(":", 1)[1])
        planasonix.stop()
        page.clock.run_for(PAUSE)
        lost = page.get_by_text("The simulator does not respond. Retrying.")
        expect(lost).to_be_visible()
    with Simulator(port=port):
        poll_now(page)
        expect(lost).to_have_count(0)


def test_everything_but_live_updates_works_without_javascript(chromium: Browser, stage: Stage) -> None:
    context = chromium.new_context(base_url=stage.planasonix.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/start")
    page.get_by_role("form", name="Sync").get_by_label("Connection").select_option("conn_demo_03")
    page.get_by_role("button", name="Start the sync").click()
    expect(page.get_by_role("button", name="Live updates")).to_have_count(0)
    stage.move(1.2)
    page.get_by_role("link", name="Refresh").click()
    expect(page.get_by_text("50 %")).to_be_visible()
    page.get_by_role("button", name="Cancel this job").click()
    expect(page.get_by_text("cancelling")).to_be_visible()
    page.goto("/jobs")
    page.get_by_label("Status").select_option("cancelling")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    context.close()


@pytest.fixture
def other_site(stage: Stage):
    """The URL of a page of another site with a form that posts to the simulator."""

    class OtherSite(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            url = stage.planasonix.url
            self.wfile.write(
                f'<form action="{url}/start/sync" method="post">'
                f'<input name="connection_id" value="conn_demo_01"><button>Win</button></form>'.encode()
            )

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), OtherSite) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_form_on_another_site_cannot_start_jobs(context: BrowserContext, stage: Stage, other_site: str) -> None:
    page = context.new_page()
    page.goto(other_site)
    page.get_by_role("button", name="Win").click()
    expect(page.get_by_role("heading", name="Not allowed")).to_be_visible()
    assert stage.planasonix.jobs() == []


def test_job_fields_cannot_inject_scripts(page: Page, stage: Stage) -> None:
    attack = "\"'><script>alert(1)</script><img src=x onerror=alert(1)><b id=now data-live>"
    complaints: list[str] = []
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    stage.planasonix.workspace.add_connection(attack)
    stage.planasonix.plan(attack, outcome="failed", message=attack, queued_seconds=0, tables={attack: 1})
    job_id = stage.sync(attack, pipeline_id=attack, metadata={"dag_id": attack, attack: attack})
    for path in ("/", "/jobs?text=script", "/start", f"/jobs/{job_id}"):
        page.goto(path)
        expect(page.get_by_text("<img src=x").first).to_be_attached()
    stage.move(9)
    poll_now(page)
    expect(page.get_by_role("heading", name="Error")).to_be_visible()
    assert complaints == []


def requests_within(page: Page, milliseconds: int) -> list[str]:
    """Return the URLs that a page requests while its clock advances."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(milliseconds)
    # Playwright has reported all earlier requests when this one returns.
    page.evaluate("fetch('/assets/icon.svg').then((answer) => answer.text())")
    return [url for url in asked if not url.endswith("/assets/icon.svg")]
