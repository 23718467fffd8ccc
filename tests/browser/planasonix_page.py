"""The page Browse > Planasonix in Airflow's UI, and the simulator behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import FloatRect, Locator, Page, Request, expect

from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.model.plans import BackfillPlanChanges
from planasonix_provider.simulator.model.request_bodies import BackfillRequestBody, SyncRequestBody

VIEWS = ("Overview", "Jobs", "Backfills", "Waiting tasks", "Orphans", "Charts")
#: The Airflow connection to the simulator in which the tests start jobs.
CONN_ID = "planasonix_eu"
PATH = "/plugin/planasonix"
CONNECTIONS = 8


class Clock:
    """The simulator's clock. If it is behind, jobs that start now appear to have run for a while."""

    def __init__(self) -> None:
        self.behind = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) - self.behind


class PlanasonixPage:
    """The page, in a tab with a logged-in user."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, view: str = "overview", **query: str) -> None:
        self.page.goto(f"{PATH}?{urlencode({'view': view, **query})}")
        expect(self.page.get_by_role("heading", name="Planasonix", exact=True)).to_be_visible()

    def show(self, view: str) -> None:
        """Open a view by its link and wait for its data."""
        self.page.get_by_role("navigation", name="Views").get_by_role("link", name=view, exact=True).click()
        self.expect_data(view)

    def expect_data(self, view: str) -> None:
        expect(self.region(view).get_by_text("Updated").first).to_be_visible()

    def region(self, view: str) -> Locator:
        return self.page.get_by_role("region", name=view, exact=True)

    def rows(self, table: str) -> Locator:
        """Return the rows of a table without its header."""
        return (
            self.page.get_by_role("table", name=table).get_by_role("row").filter(has=self.page.get_by_role("rowheader"))
        )

    def content(self) -> FloatRect:
        """Return the part of the tab that the page fills."""
        page = self.page.locator(".planasonix").bounding_box()
        last = self.page.locator(".planasonix > :last-child").bounding_box()
        assert page
        assert last
        return {**page, "height": last["y"] + last["height"] - page["y"] + 16}

    def refresh(self) -> None:
        self.page.get_by_role("button", name="Refresh").click()

    @contextmanager
    def requests(self) -> Iterator[list[str]]:
        """Record the requests that the page sends to its server."""
        sent: list[str] = []

        def record(request: Request) -> None:
            if "/planasonix/ui/" in request.url:
                sent.append(f"{request.method} {request.url.partition('/planasonix/ui/')[2]}")

        self.page.on("request", record)
        yield sent
        self.page.remove_listener("request", record)

    def cancel(self, conn_id: str, job_id: str) -> None:
        """Send the same request as the button that cancels a job."""
        path = f"/planasonix/ui/jobs/{conn_id}/{job_id}/cancel"
        assert self.page.request.post(path, headers={"X-Requested-With": "planasonix"}).ok

    def start_cpu_timer(self) -> Callable[[], float]:
        """Return a function that returns the CPU seconds of the tab's main thread since its last call.

        Unlike the time that passes, they do not depend on what else the machine runs.
        """
        session = self.page.context.new_cdp_session(self.page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        previous = 0.0

        def since_last_call() -> float:
            nonlocal previous
            metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
            seconds, previous = metrics["TaskDuration"] - previous, metrics["TaskDuration"]
            return float(seconds)

        since_last_call()
        return since_last_call

    def advance_clock(self, seconds: int, step: int = 1) -> None:
        """Advance the page's clock, with pauses in which responses arrive."""
        for _ in range(0, seconds, step):
            self.page.clock.run_for(step * 1000)
            self.page.wait_for_timeout(50)

    def hide(self, is_hidden: bool) -> None:
        """Hide or show the page, as a browser does when the user changes tabs."""
        state = "hidden" if is_hidden else "visible"
        self.page.evaluate(
            f"Object.defineProperty(document, 'visibilityState', {{ value: '{state}', configurable: true }});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )


def start_jobs(planasonix: Simulator, count: int) -> list[str]:
    """Start jobs of different pipelines, several of them on each connection."""
    return [
        planasonix.workspace.start_sync(
            f"conn_demo_{index % CONNECTIONS + 1:02}",
            SyncRequestBody(pipeline_id=f"pl_{index}"),
        ).id
        for index in range(count)
    ]


def start_backfill(planasonix: Simulator, jobs: int, plan: BackfillPlanChanges | None = None, **body: Any) -> str:
    planasonix.plan_backfill("conn_demo_05", jobs=jobs, **(plan or {}))
    body = {"start_at": "2024-01-01", "end_at": "2025-01-01", "tables": ["orders", "order_items"], **body}
    return planasonix.workspace.start_backfill("conn_demo_05", BackfillRequestBody.model_validate(body)).id
