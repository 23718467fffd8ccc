"""The button "Open in Planasonix"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

#: The XCom that holds the address of the job's page. An operator pushes it the moment that the job exists.
JOB_URL_KEY = "job_url"


class PlanasonixJobLink(BaseOperatorLink):
    """Opens the task's job in Planasonix's web app.

    Airflow 3 reads the address straight from the XCom named by ``xcom_key``, so the button works from the moment that
    the job exists; Airflow 2 calls ``get_link`` in its web server.
    """

    name = "Open in Planasonix"
    xcom_key = JOB_URL_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Give the address of the job's page.

        :param operator: the task; not needed.
        :param ti_key: the task instance, its map index included.
        :return: the address, or an empty text while the task has started no job.
        """
        url = XCom.get_value(key=JOB_URL_KEY, ti_key=ti_key)
        return url if isinstance(url, str) else ""
