"""A callback for deadline alerts, for Airflow's plugins folder: it logs what the sync of a late DAG run is doing."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)


async def report_late_sync(connection_id: str, context: Any) -> None:
    """Log what the connection's jobs since the run was queued are doing; a real callback would send this to a pager."""
    # All processes of Airflow import the files in the plugins folder, so slow imports belong here.
    from planasonix_provider.api.errors import PlanasonixError
    from planasonix_provider.hooks.planasonix import PlanasonixHook

    run, hook = context["dag_run"], PlanasonixHook()
    try:
        settings = await hook.async_settings()
        started = hook.aio.list_jobs(connection_id=connection_id, since=run["queued_at"])
        jobs = [await hook.aio.get_job(job.id) async for job in started]
    except PlanasonixError as error:
        # The alert is sent even if Planasonix cannot be reached.
        reports = [f"The state of its job is unknown: {error}"]
    else:
        reports = [
            f"Job {job.id} is {job.status}, {job.metrics.rows_loaded if job.metrics else 0:,} rows loaded: "
            f"{settings.job_url(job.id)}"
            for job in jobs
        ]
    report = " ".join(reports) or "No job of the connection was created since the run was queued."
    log.warning("DAG run %s of %s is late. %s", run["dag_run_id"], run["dag_id"], report)
