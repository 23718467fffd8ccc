"""The button "Open in Planasonix"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

#: The XCom with the URL of the job's page. A task pushes it as soon as the job exists.
JOB_URL_KEY = "job_url"


class PlanasonixJobLink(BaseOperatorLink):
    """Opens the task's job in Planasonix's web app.

    Airflow 3 reads the URL from the XCom named by ``xcom_key``, so the button works as soon as the job exists.
    Airflow 2 calls ``get_link`` in its web server.
    """

    name = "Open in Planasonix"
    xcom_key = JOB_URL_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL of the job's page.

        :param operator: the task; not used.
        :param ti_key: the task instance, including its map index.
        :return: the URL, or an empty string if the task has not started a job yet.
        """
        url = XCom.get_value(key=JOB_URL_KEY, ti_key=ti_key)
        return url if isinstance(url, str) else ""
