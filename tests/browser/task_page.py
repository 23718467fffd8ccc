"""The page of a task in Airflow's UI."""

from __future__ import annotations

from urllib.parse import quote

from playwright.sync_api import Locator, Page, expect

from planasonix_provider.api.models import Job


class TaskPage:
    """The page of the task that has started a job.

    :param page: a tab with the UI of Airflow 2 or 3.
    :param job: the job; its metadata names the task.
    :param is_airflow_2: whether the UI is that of Airflow 2.
    """

    def __init__(self, page: Page, job: Job, *, is_airflow_2: bool) -> None:
        self.page = page
        self._is_airflow_2 = is_airflow_2
        task = {name: str(value) for name, value in (job.metadata or {}).items()}
        self._dag_id, self._run_id = task["dag_id"], quote(task["run_id"], safe="")
        self._task_id, self._map_index = task["task_id"], int(task["map_index"])

    def show_details(self) -> None:
        """Open the part of the page that has the extra links."""
        self.page.goto(self._grid() if self._is_airflow_2 else f"{self._path()}/details")

    def show_log(self) -> None:
        self.page.goto(f"{self._grid()}&tab=logs" if self._is_airflow_2 else self._path())

    def expect_state(self, state: str) -> None:
        """Wait until the page shows the task in a state. The page refreshes itself."""
        if self._is_airflow_2:
            shown = self.page.get_by_role("row", name="Status").filter(has_text=state)
        else:
            shown = self.page.get_by_text(state, exact=True)
        expect(shown.first).to_be_visible()

    @property
    def button(self) -> Locator:
        return self.page.get_by_role("link", name="Open in Planasonix")

    def _grid(self) -> str:
        mapped = f"&map_index={self._map_index}" if self._map_index >= 0 else ""
        return f"/dags/{self._dag_id}/grid?dag_run_id={self._run_id}&task_id={self._task_id}{mapped}"

    def _path(self) -> str:
        mapped = f"/mapped/{self._map_index}" if self._map_index >= 0 else ""
        return f"/dags/{self._dag_id}/runs/{self._run_id}/tasks/{self._task_id}{mapped}"
