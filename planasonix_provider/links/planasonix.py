"""The button "Open in Planasonix", and how a task lets it lead somewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context, TaskInstanceKey

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


class XComWriter:
    """Lets a task's button lead to a page, by the XCom that it reads.

    :param context: the task's context, from Airflow.
    :param log: the task's log.
    """

    def __init__(self, context: Context, log: Any) -> None:
        self._ti = context["ti"]
        self._log = log
        self.url: str | None = None

    def set_job_url(self, url: str | None) -> None:
        """Let the button lead to a page, unless it does so already.

        :param url: the page, or ``None`` where there is none yet.
        """
        if url and url != self.url:
            self.url = url
            self.push(JOB_URL_KEY, url)

    def push(self, key: str, value: str) -> None:
        """Write an XCom; one that cannot be written is no reason to abandon work that runs.

        :param key: its key.
        :param value: its value.
        """
        try:
            self._ti.xcom_push(key=key, value=value)
        except Exception as error:
            self._log.warning("The XCom %r could not be written, going on without it: %r", key, error)
