"""Writes the XComs of a running task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from planasonix_provider.links.planasonix import JOB_URL_KEY

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class XComWriter:
    """Pushes XComs."""

    def __init__(self, context: Context, log: Any) -> None:
        self._ti = context["ti"]
        self._log = log
        self.url: str | None = None

    def set_job_url(self, url: str | None) -> None:
        """Set the page that the task's button opens."""
        if url and url != self.url:
            self.url = url
            self.push(JOB_URL_KEY, url)

    def push(self, key: str, value: str) -> None:
        """Push an XCom. A failure is only logged, because it is no reason to abandon work that runs."""
        try:
            self._ti.xcom_push(key=key, value=value)
        except Exception as error:
            self._log.warning("The XCom %r could not be written, going on without it: %r", key, error)
