"""A browser tab with the UI of an Airflow whose connections use a simulator."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from playwright.sync_api import FloatRect, Page

from dev.local_airflow import LocalAirflow
from planasonix_provider.api.models import Job
from planasonix_provider.simulator import Simulator
from tests.browser.airflows import NEWEST, LocalAirflow3
from tests.browser.connection_form import Airflow2Form, Airflow3Form, ConnectionForm
from tests.browser.task_page import TaskPage
from tests.system.runs import wait_until


class UI:
    """The tab and its parts.

    :param version: the version of Airflow.
    :param airflow: the Airflow.
    :param planasonix: the simulator behind its ``planasonix_default``.
    :param page: the tab.
    :param pictures: the folder for pictures.
    """

    def __init__(self, version: str, airflow: LocalAirflow, planasonix: Simulator, page: Page, pictures: Path) -> None:
        self.version = version
        self.airflow = airflow
        self.planasonix = planasonix
        self.page = page
        self._pictures = pictures
        self.is_airflow_2 = version.startswith("2.")
        if not self.is_airflow_2:
            self.log_in("admin")

    def log_in(self, user: str) -> None:
        """Log in as a user of Airflow 3."""
        assert isinstance(self.airflow, LocalAirflow3)
        self.page.context.add_cookies([{"name": "_token", "value": self.airflow.log_in(user), "url": self.airflow.url}])

    @property
    def form(self) -> ConnectionForm:
        return (Airflow2Form if self.is_airflow_2 else Airflow3Form)(self.page)

    def task(self, job: Job) -> TaskPage:
        """Return the page of the task that started a job."""
        return TaskPage(self.page, job, is_airflow_2=self.is_airflow_2)

    def job_of(self, task_id: str, map_index: int = -1) -> Job:
        """Wait until a task has started a job, and return the job."""
        wanted = {"task_id": task_id, "map_index": map_index}
        (job,) = wait_until(
            lambda: [job for job in self.planasonix.jobs() if wanted.items() <= (job.metadata or {}).items()],
            f"{task_id} [{map_index}] starts a job",
            timeout=300,
        )
        return job

    def stored_connection(self, conn_id: str) -> dict[str, Any]:
        """Return a connection as Airflow has stored it."""
        command = [self.airflow.python, "-m", "airflow", "connections", "get", conn_id, "--output", "json"]
        done = subprocess.run(command, env=self.airflow.env, capture_output=True, text=True, check=True)
        (connection,) = json.loads(done.stdout[done.stdout.index("[{") :])
        return dict(connection)

    def picture(self, name: str, area: FloatRect | None = None) -> None:
        """Save a screenshot of the tab, or of a part of it."""
        path = self._pictures / f"airflow-{self.version}-{name}.png"
        self.page.screenshot(path=path, clip=area, animations="disabled")

    def picture_of_the_docs(self, name: str, area: FloatRect) -> None:
        """Save a screenshot for the docs, which show the newest Airflow."""
        if self.version == NEWEST:
            path = self._pictures / f"{name}.png"
            self.page.screenshot(path=path, clip=area, animations="disabled")
            assert path.stat().st_size < 150_000
