from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import ViewportSize, expect
from pydantic import SecretStr

from dev.local_airflow import RECEIVER, LocalAirflow, add_connection
from dev.processes import end, free_port
from planasonix_provider.plugins.page_data import RESPONSE_SECONDS
from planasonix_provider.secret_stores.stored_secret import StoredSecret
from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.model.plans import BackfillPlanChanges
from tests.browser.airflows import NEWEST, LocalAirflow3
from tests.browser.many_tasks import many_tasks
from tests.browser.planasonix_page import (
    CONN_ID,
    CONNECTIONS,
    VIEWS,
    Clock,
    PlanasonixPage,
    start_backfill,
    start_jobs,
)
from tests.browser.task_history import add_history, add_waiting_tasks, database_of, fail_without_its_triggerer
from tests.browser.test_accessibility import findings
from tests.browser.ui import UI
from tests.conftest import API_KEY
from tests.system.runs import wait_until

pytestmark = pytest.mark.timeout(900)

# High enough for the whole page: axe cannot check parts outside the visible area.
SIZES: tuple[ViewportSize, ...] = ({"width": 1440, "height": 5000}, {"width": 390, "height": 16000})
TYPICAL: ViewportSize = {"width": 1440, "height": 900}
#: The CPU seconds for a view with hundreds of rows, which takes half a second. If each row were drawn for each other
#: row, it would take many seconds.
MAX_CPU_SECONDS = 2.0
#: Seconds for which twenty tabs show the page.
BROWSING_SECONDS = 60
#: The requests behind the view Jobs: jobs of three states, backfills of two states for the overview, and one rejected
#: request with the revoked key.
LISTS = 6


@pytest.fixture(scope="session")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def simulator_of_page(clock: Clock) -> Iterator[Simulator]:
    """A simulator whose jobs run longer than the tests. Its port is fixed, so that it can stop and start again."""
    with Simulator(
        api_key=API_KEY, port=free_port(), clock=clock, queued_seconds=0, job_seconds=100_000, rate_limit=100_000
    ) as planasonix:
        yield planasonix


@pytest.fixture(scope="session")
def has_connections(airflow: LocalAirflow, simulator_of_page: Simulator) -> None:
    """Airflow connections: a valid one, one with a revoked key, and a webhook receiver with its secret."""
    if not isinstance(airflow, LocalAirflow3):
        return
    connection = simulator_of_page.airflow_connection()
    add_connection(airflow, CONN_ID, connection)
    add_connection(airflow, "planasonix_old", connection | {"password": "plnx_old_key"})
    add_connection(airflow, "planasonix_orders", {"conn_type": "planasonix_webhook", "extra": RECEIVER})
    secret = StoredSecret("wh_1", SecretStr("whsec_1")).to_json()
    airflow.api("POST", "variables", {"key": "planasonix_orders_secret", "value": secret})


@pytest.fixture
def planasonix(simulator_of_page: Simulator, clock: Clock) -> Simulator:
    """The simulator behind the Airflow connection, without jobs."""
    clock.behind = timedelta()
    simulator_of_page.reset()
    # Several syncs of one connection may run.
    simulator_of_page.workspace.configure(conflict="allowed")
    return simulator_of_page


@pytest.fixture
def plnx(ui: UI, planasonix: Simulator, has_connections: None) -> PlanasonixPage:
    """The page in a tab of typical size."""
    if ui.version.startswith(("2.", "3.0.")):
        pytest.skip("Airflow before 3.1 has no React apps.")
    ui.page.set_viewport_size(TYPICAL)
    return PlanasonixPage(ui.page)


def metadata_of(ui: UI) -> dict[str, Any]:
    """Return the metadata of a job that a running task of this Airflow has started."""
    return dict(ui.job_of("load_history").metadata or {})


def task_state(ui: UI, task_id: str) -> str:
    run_id = metadata_of(ui)["run_id"]
    return str(ui.airflow.api("GET", f"dags/nightly/dagRuns/{quote(run_id)}/taskInstances/{task_id}")["state"])


@pytest.mark.parametrize("count", [0, 3, 300])
def test_each_view_is_accessible_and_fits(
    ui: UI, plnx: PlanasonixPage, planasonix: Simulator, axe: str, count: int
) -> None:
    start_jobs(planasonix, count)
    for _ in range(min(count, 3)):
        start_backfill(planasonix, 12, {"parallel": 4, "job_seconds": 100_000})
    found = {}
    plnx.open()
    # The server caches its responses for some seconds. Each backfill has four jobs.
    active = {0: "0", 3: "15", 300: "100+"}[count]
    expect(plnx.page.get_by_role("link", name=f"{active} active jobs of {CONN_ID}")).to_be_visible()
    for view in VIEWS:
        plnx.show(view)
        if view in ("Jobs", "Backfills"):
            plnx.region(view).get_by_label("Airflow connection").select_option(CONN_ID)
            shown = {"Jobs": min(50, count * 5), "Backfills": min(count, 3)}[view]
            if shown:
                expect(plnx.rows(f"{view}, newest first")).to_have_count(shown)
            else:
                expect(plnx.page.get_by_text(f"No active {view[:-1].lower()} was found.")).to_be_visible()
        if view == "Backfills" and count:
            plnx.page.get_by_role("button", name="Jobs of backfill").first.click()
            expect(plnx.page.get_by_role("img", name=re.compile("Jobs by"))).to_be_visible()
        for size in SIZES:
            # axe takes longest on 300 rows, and they have no colours that three rows lack.
            for colours in ("light", "dark") if count < 300 else ("light",):
                plnx.page.set_viewport_size(size)
                plnx.page.emulate_media(color_scheme=colours)
                expect(plnx.page.locator(f"html.{colours}")).to_be_attached()
                name = f"{view}-{count}-{size['width']}-{colours}"
                # The sidebar and everything around the page are Airflow's.
                found[name] = findings(plnx.page, axe, ".planasonix")
                box = plnx.page.locator(".planasonix").evaluate("(page) => [page.scrollWidth, page.clientWidth]")
                if box[0] > box[1]:
                    found[name].append(f"needs {box[0]} px of {box[1]}")
                ui.picture(f"page-{name}", plnx.content())
        plnx.page.set_viewport_size(TYPICAL)
    assert {name: what for name, what in found.items() if what} == {}


def test_a_job_is_cancelled_by_keyboard_after_a_confirmation(plnx: PlanasonixPage, planasonix: Simulator) -> None:
    (job_id,) = start_jobs(planasonix, 1)
    plnx.open("jobs", conn_id=CONN_ID)
    button = plnx.page.get_by_role("button", name=f"Cancel job {job_id}")
    button.focus()
    plnx.page.keyboard.press("Enter")
    dialog = plnx.page.get_by_role("dialog", name="Cancel this job?")
    keep = dialog.get_by_role("button", name="Keep it running")
    confirm = dialog.get_by_role("button", name="Cancel the job")
    expect(keep).to_be_focused()
    plnx.page.keyboard.press("Escape")
    # Wait until the page has handled the event "close". Otherwise, that event would close the next dialog.
    expect(plnx.page.locator("dialog")).to_have_count(0)
    expect(button).to_be_focused()
    assert planasonix.job(job_id).status == "running"
    plnx.page.keyboard.press("Enter")
    expect(keep).to_be_focused()
    plnx.page.keyboard.press("Tab")
    expect(confirm).to_be_focused()
    for _ in range(4):  # the focus may move to the browser's own UI, but not behind the dialog
        plnx.page.keyboard.press("Tab")
        assert plnx.page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    confirm.focus()
    plnx.page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(plnx.page.get_by_role("status").filter(has_text=job_id)).to_be_visible()
    assert planasonix.job(job_id).status in ("cancelling", "cancelled")


def test_a_backfill_is_cancelled(plnx: PlanasonixPage, planasonix: Simulator) -> None:
    backfill_id = start_backfill(planasonix, jobs=3)
    plnx.open("backfills", conn_id=CONN_ID)
    plnx.page.get_by_role("button", name=f"Cancel backfill {backfill_id}").click()
    plnx.page.get_by_role("dialog").get_by_role("button", name="Cancel the backfill").click()
    expect(plnx.page.get_by_role("status").filter(has_text=backfill_id)).to_be_visible()
    wait_until(lambda: planasonix.workspace.backfill(backfill_id).is_over, "the backfill is over")


def test_a_cancel_without_permission_shows_an_error(ui: UI, plnx: PlanasonixPage, planasonix: Simulator) -> None:
    (job_id,) = start_jobs(planasonix, 1)
    plnx.open("jobs", conn_id=CONN_ID)
    plnx.page.get_by_role("button", name=f"Cancel job {job_id}").click()
    ui.log_in("viewer")  # in another tab
    dialog = plnx.page.get_by_role("dialog")
    with plnx.page.expect_response(re.compile("/cancel$")) as answer:
        dialog.get_by_role("button", name="Cancel the job").click()
    assert answer.value.status == 403
    expect(dialog.get_by_role("alert")).to_contain_text("It was not cancelled.")
    dialog.get_by_role("button", name="Close").click()
    expect(plnx.page.get_by_role("button", name=f"Cancel job {job_id}")).to_be_focused()
    assert planasonix.job(job_id).status == "running"


def test_a_viewer_sees_which_permission_is_missing(ui: UI, plnx: PlanasonixPage) -> None:
    ui.log_in("viewer")
    plnx.open()
    for view in VIEWS:
        plnx.page.get_by_role("navigation", name="Views").get_by_role("link", name=view, exact=True).click()
        expect(plnx.region(view).get_by_role("alert")).to_contain_text("permission")
    plnx.page.goto("/")
    expect(plnx.page.get_by_role("heading", name="Welcome")).to_be_visible()
    expect(plnx.page.locator(".planasonix")).to_have_count(0)


def test_during_an_api_outage_the_page_shows_the_error_and_the_last_data(
    plnx: PlanasonixPage, planasonix: Simulator
) -> None:
    (job_id,) = start_jobs(planasonix, 1)
    plnx.open("jobs", conn_id=CONN_ID)
    expect(plnx.page.get_by_text(job_id)).to_be_visible()
    planasonix.stop()
    try:
        expect(plnx.region("Jobs").get_by_role("alert")).to_contain_text("GET /api/v1/jobs: connection")
        expect(plnx.page.get_by_text(job_id)).to_be_visible()
        plnx.show("Overview")
        row = plnx.rows("Airflow connections of type Planasonix").filter(has_text=CONN_ID)
        expect(row).to_contain_text("Not reachable")
        expect(row).to_contain_text("GET /api/v1/jobs: connection")
    finally:
        planasonix.start()
    expect(row).to_contain_text("Reachable")


def test_without_airflow_the_page_shows_the_error_and_the_age_of_its_data(
    plnx: PlanasonixPage, planasonix: Simulator
) -> None:
    (job_id,) = start_jobs(planasonix, 1)
    plnx.open("jobs", conn_id=CONN_ID)
    expect(plnx.page.get_by_text(job_id)).to_be_visible()
    plnx.page.context.set_offline(True)
    plnx.refresh()
    expect(plnx.region("Jobs").get_by_role("alert")).to_have_text("Airflow's API server does not respond.")
    expect(plnx.region("Jobs").get_by_text("Below is the state of")).to_be_visible()
    expect(plnx.page.get_by_text(job_id)).to_be_visible()
    plnx.page.context.set_offline(False)
    plnx.refresh()
    expect(plnx.region("Jobs").get_by_role("alert")).to_have_count(0)


def test_only_a_visible_tab_polls_every_ten_seconds(plnx: PlanasonixPage) -> None:
    plnx.page.clock.install()
    plnx.open("overview")
    plnx.expect_data("Overview")
    plnx.page.clock.pause_at(plnx.page.evaluate("Date.now() + 1000"))
    with plnx.requests() as sent:
        plnx.advance_clock(60)
        assert 3 <= len(sent) <= 6  # the next one is due ten seconds after the response
        assert set(sent) == {"GET overview"}
        plnx.hide(True)
        sent.clear()
        plnx.advance_clock(300, step=30)
        assert sent == []
        with plnx.page.expect_request(re.compile("/ui/overview")):
            plnx.hide(False)
        # Other pages of Airflow do not poll.
        plnx.page.get_by_role("link", name="Assets").click()
        expect(plnx.page).to_have_url(re.compile("/assets"))
        sent.clear()
        plnx.advance_clock(60)
        assert sent == []


def test_pagination_and_filters(plnx: PlanasonixPage, planasonix: Simulator) -> None:
    ids = start_jobs(planasonix, 120)
    plnx.open("jobs", conn_id=CONN_ID)
    jobs = plnx.rows("Jobs, newest first")
    pages = plnx.page.get_by_role("navigation", name="Pages")
    seen = []
    for shown in ("1 to 50", "51 to 100", "101 to 120"):
        expect(pages.get_by_text(shown)).to_be_visible()
        seen += jobs.locator(".id").all_text_contents()
        if pages.get_by_role("button", name="Next").is_enabled():
            pages.get_by_role("button", name="Next").click()
    assert sorted(seen) == sorted(ids)
    pages.get_by_role("button", name="Previous").click()
    expect(pages.get_by_text("51 to 100")).to_be_visible()
    plnx.page.get_by_label("Connection in Planasonix").fill("conn_demo_03")
    plnx.page.keyboard.press("Enter")
    expect(jobs).to_have_count(len(ids) // CONNECTIONS)
    expect(plnx.page).to_have_url(re.compile("connection_id=conn_demo_03"))
    expect(plnx.page.get_by_label("Connection in Planasonix")).to_be_focused()
    plnx.page.get_by_label("State").select_option("failed")
    expect(plnx.page.get_by_text("No failed job was found.")).to_be_visible()
    plnx.page.reload()
    expect(plnx.page.get_by_label("State")).to_have_value("failed")
    expect(plnx.page.get_by_label("Connection in Planasonix")).to_have_value("conn_demo_03")


def test_links_lead_to_the_task_and_to_planasonix(ui: UI, plnx: PlanasonixPage) -> None:
    job = ui.job_of("load_history")
    plnx.open("jobs", conn_id="planasonix_default")
    row = plnx.rows("Jobs, newest first").filter(has_text=job.id)
    with ui.page.context.expect_page() as opened:
        row.get_by_role("link", name=f"Open in Planasonix: job {job.id}").click()
    expect(opened.value).to_have_url(f"{ui.planasonix.url}/jobs/{job.id}")
    assert opened.value.evaluate("window.opener") is None
    opened.value.close()
    ui.page.evaluate("window.isSamePage = true")
    row.get_by_role("link", name="nightly.load_history").click()
    expect(ui.page).to_have_url(re.compile(r"/dags/nightly/runs/[^/]+/tasks/load_history"))
    assert ui.page.evaluate("window.isSamePage")


def test_a_job_shows_its_details(ui: UI, plnx: PlanasonixPage, planasonix: Simulator) -> None:
    job = ui.job_of("load_orders")
    plnx.open("jobs", conn_id="planasonix_default", state="succeeded")
    toggle = plnx.page.get_by_role("button", name=f"Details of job {job.id}")
    toggle.press("Enter")
    expect(toggle).to_have_attribute("aria-expanded", "true")
    expect(plnx.rows(f"Tables of job {job.id}")).to_have_text(["public.orders44,802"])
    expect(plnx.page.get_by_role("definition").filter(has_text="4 s")).to_be_visible()
    toggle.press("Enter")
    expect(plnx.page.get_by_role("definition")).to_have_count(0)


def test_a_waiting_task_is_listed(ui: UI, plnx: PlanasonixPage) -> None:
    job = ui.job_of("wait_for_months")
    plnx.open("waits")
    row = plnx.rows("Deferred tasks that wait for Planasonix").filter(has_text="wait_for_months")
    expect(row).to_contain_text(f"job {job.id}")
    expect(row).to_contain_text("Alive")
    row.get_by_role("link", name="nightly.wait_for_months").click()
    expect(ui.page).to_have_url(re.compile("/tasks/wait_for_months"))


def test_an_orphan_is_listed_and_cancelled(ui: UI, plnx: PlanasonixPage) -> None:
    job = ui.job_of("left_behind")
    wait_until(lambda: task_state(ui, "left_behind") == "deferred", "the task is deferred")
    end(ui.airflow.processes["triggerer"])
    fail_without_its_triggerer(database_of(ui.airflow), "left_behind")
    try:
        plnx.open("orphans")
        row = plnx.rows("Jobs whose task is over").filter(has_text=job.id)
        expect(row).to_contain_text("nightly.left_behind")
        expect(row).to_contain_text("Failed")
        row.get_by_role("button", name=f"Cancel job {job.id}").click()
        plnx.page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
        expect(plnx.page.get_by_role("status").filter(has_text=job.id)).to_be_visible()
        assert ui.planasonix.job(job.id).status in ("cancelling", "cancelled")
    finally:
        ui.airflow.restart("triggerer")
    expect(row).to_have_count(0)


def test_charts_show_ended_jobs(ui: UI, plnx: PlanasonixPage) -> None:
    ui.task(ui.job_of("load_orders")).show_details()
    ui.task(ui.job_of("load_orders")).expect_state("success")
    plnx.open("charts")
    chart = plnx.page.get_by_role("img", name=re.compile("^Last 24 hours: [1-9]"))
    expect(chart).to_be_visible()
    expect(plnx.page.get_by_role("table", name="Rows loaded per table")).to_contain_text("public.orders")
    plnx.page.get_by_text("Show the numbers").click()
    expect(plnx.rows("Jobs by outcome, last 24 hours")).to_have_count(24)
    plnx.page.get_by_role("button", name="Last 7 days").click()
    expect(plnx.page).to_have_url(re.compile("period=7d"))
    expect(plnx.page.get_by_role("img", name=re.compile("^Last 7 days: [1-9]"))).to_be_visible()


def test_the_panel_on_the_home_page(plnx: PlanasonixPage, planasonix: Simulator, axe: str) -> None:
    start_jobs(planasonix, 3)
    plnx.page.goto("/")
    panel = plnx.page.get_by_role("region", name="Planasonix")
    card = panel.get_by_role("listitem").filter(has_text=CONN_ID)
    expect(card).to_contain_text("Reachable")
    expect(card).to_contain_text("3 active jobs")
    for colours in ("light", "dark"):
        plnx.page.emulate_media(color_scheme=colours)
        assert findings(plnx.page, axe, ".planasonix") == []
    card.get_by_role("link", name="3 active jobs").click()
    expect(plnx.rows("Jobs, newest first")).to_have_count(3)


def test_a_thousand_active_jobs_do_not_block_the_page(plnx: PlanasonixPage, planasonix: Simulator) -> None:
    start_jobs(planasonix, 1000)
    plnx.open("overview")
    cpu_seconds = plnx.start_cpu_timer()
    plnx.page.get_by_role("link", name="Jobs", exact=True).click()
    plnx.page.get_by_label("Airflow connection").select_option(CONN_ID)
    jobs = plnx.rows("Jobs, newest first")
    for _ in range(3):
        expect(jobs).to_have_count(50)
        plnx.page.get_by_role("navigation", name="Pages").get_by_role("button", name="Next").click()
    assert cpu_seconds() < MAX_CPU_SECONDS


def test_hundreds_of_waits_orphans_and_backfills_do_not_block_the_page(
    ui: UI, plnx: PlanasonixPage, planasonix: Simulator
) -> None:
    *jobs, cancelled = start_jobs(planasonix, 301)
    for _ in range(100):
        start_backfill(planasonix, 1)
    wait_until(lambda: task_state(ui, "wait_for_months") == "deferred", "the task is deferred")
    end(ui.airflow.processes["triggerer"])
    try:
        with many_tasks(
            database_of(ui.airflow), "wait_for_months", waits=300, orphans=jobs, planasonix_conn_id=CONN_ID
        ):
            plnx.open("overview")
            # The page refreshes its list of orphans only every few minutes, or after a cancel.
            plnx.cancel(CONN_ID, cancelled)
            cpu_seconds, spent = plnx.start_cpu_timer(), {}
            for view, table, count in (
                ("Waiting tasks", "Deferred tasks that wait for Planasonix", 300),
                ("Orphans", "Jobs whose task is over", 300),
                ("Backfills", "Backfills, newest first", 50),
            ):
                plnx.page.get_by_role("link", name=view, exact=True).click()
                if view == "Backfills":
                    plnx.page.get_by_label("Airflow connection").select_option(CONN_ID)
                wait_until(lambda table=table, count=count: plnx.rows(table).count() >= count, view)
                # The second response replaces rows that already exist.
                plnx.refresh()
                plnx.page.wait_for_timeout(1000)
                spent[view] = cpu_seconds()
            print(f"CPU seconds: {spent}")
            assert max(spent.values()) < MAX_CPU_SECONDS
    finally:
        ui.airflow.restart("triggerer")


@pytest.mark.slow("keeps twenty tabs open for a minute")
def test_twenty_tabs_share_cached_responses(plnx: PlanasonixPage, planasonix: Simulator) -> None:
    start_jobs(planasonix, 100)
    answered: list[str] = []
    plnx.page.context.on("response", lambda response: answered.append(response.url))
    tabs = [plnx.page, *(plnx.page.context.new_page() for _ in range(19))]
    for tab in tabs:
        PlanasonixPage(tab).open("jobs", conn_id=CONN_ID)
        expect(PlanasonixPage(tab).rows("Jobs, newest first")).to_have_count(50)
    before, began = len(planasonix.requests), time.monotonic()
    answered.clear()
    # Playwright handles the events of all tabs during this wait.
    plnx.page.wait_for_timeout(BROWSING_SECONDS * 1000)
    sent, seconds = len(planasonix.requests) - before, time.monotonic() - began
    asked = sum("/planasonix/ui/jobs" in url for url in answered)
    print(f"{asked} requests of {len(tabs)} tabs in {seconds:.0f} s, {sent} to Planasonix")
    # Each tab sends the next request ten seconds after a response.
    assert asked > len(tabs) * (seconds / 20)
    # The server caches each list, so the number of tabs does not matter.
    assert sent <= LISTS * (seconds / RESPONSE_SECONDS + 2)


def test_the_pictures_for_the_docs(ui: UI, plnx: PlanasonixPage, planasonix: Simulator, clock: Clock) -> None:
    if ui.version != NEWEST:
        pytest.skip("The docs show the newest Airflow.")
    wait_until(lambda: task_state(ui, "load_orders") == "success", "the task has a result")
    add_history(database_of(ui.airflow), "load_orders")
    clock.behind = timedelta(minutes=4.5)
    planasonix.reset()
    planasonix.workspace.configure(conflict="allowed")
    for number in range(1, 5):
        planasonix.plan(f"conn_demo_{number:02}", queued_seconds=2 + 200 * (number % 4), running_seconds=900)
    jobs = start_jobs(planasonix, 4)
    clock.behind = timedelta()
    add_waiting_tasks(database_of(ui.airflow), "load_orders", jobs)
    plnx.open("jobs", conn_id=CONN_ID)
    expect(plnx.rows("Jobs, newest first").first).to_contain_text("load_orders")
    plnx.page.set_viewport_size({"width": 390, "height": 844})
    ui.picture_of_the_docs("page-phone", {"x": 0, "y": 0, "width": 390, "height": 844})
    clock.behind = timedelta(minutes=4.5)
    planasonix.reset()
    plan: BackfillPlanChanges = {"parallel": 3, "job_seconds": 110, "failing_jobs": frozenset({4})}
    add_waiting_tasks(database_of(ui.airflow), "wait_for_months", [start_backfill(planasonix, 12, plan)])
    clock.behind = timedelta()
    # High enough for all charts.
    plnx.page.set_viewport_size({"width": 1440, "height": 1200})
    for view in ("Overview", "Backfills", "Charts"):
        plnx.show(view)
        if view == "Overview":
            connections = plnx.rows("Airflow connections of type Planasonix")
            expect(connections).to_contain_text(["Reachable", "Reachable", "Not reachable"])
        if view == "Backfills":
            plnx.page.get_by_role("button", name="Jobs of backfill").click()
            expect(plnx.page.get_by_role("img", name=re.compile("Jobs by"))).to_be_visible()
            plnx.page.mouse.move(0, 0)
        area = plnx.content()
        height = min(area["y"] + area["height"], 780 if view == "Backfills" else 1200)
        ui.picture_of_the_docs(f"page-{view.lower()}", {"x": 0, "y": 0, "width": 1440, "height": height})
    plnx.page.goto("/")
    panel = plnx.page.get_by_role("region", name="Planasonix")
    expect(panel.get_by_text("orphan").last).to_be_visible()
    box = panel.bounding_box()
    assert box
    ui.picture_of_the_docs("page-panel", {"x": 0, "y": 0, "width": 1440, "height": box["y"] + box["height"] + 24})
