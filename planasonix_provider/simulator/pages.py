"""The web pages that Planasonix has for people: where Airflow's link to a job leads, and a start page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from planasonix_provider.simulator.connect import export_line
from planasonix_provider.simulator.front import PathId
from planasonix_provider.simulator.refusals import Refused

if TYPE_CHECKING:
    from planasonix_provider.api.models import Job
    from planasonix_provider.simulator.world import World

#: How many jobs the start page shows.
RECENT = 50

_HOME = '<p><a href="/">All recent jobs</a></p>'
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - Planasonix simulator</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; }}
caption {{ text-align: left; font-weight: bold; padding: .5rem 0; }}
th, td {{ border: 1px solid #767676; padding: .25rem .75rem; text-align: left; vertical-align: top; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{content}
</main>
</body>
</html>
"""


class Pages:
    """The pages.

    :param world: what they show.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.router = router = APIRouter(redirect_slashes=False)
        router.add_api_route("/", self.start, methods=["GET"])
        router.add_api_route("/jobs/{job_id}", self.job, methods=["GET"])

    async def start(self, request: Request) -> Response:
        """List recent jobs, and say how to connect Airflow."""
        url = f"http://{request.headers.get('host', '127.0.0.1')}"
        jobs, _ = self._world.page(lambda job, now: True, limit=RECENT)
        line = escape(export_line(url, self._world.api_key))
        return _page("Planasonix simulator", f"<p>To connect Airflow:</p>\n<pre>{line}</pre>\n{_job_table(jobs)}")

    async def job(self, job_id: PathId) -> Response:
        """Show a job."""
        try:
            job = self._world.job(job_id)
        except Refused as refused:
            return _page("No such job", f"<p>There is {escape(refused.message)}.</p>{_HOME}", status=404)
        return _page(f"Job {job.id}", f"{_details(job)}\n{_HOME}")


def _page(title: str, content: str, status: int = 200) -> Response:
    return Response(_PAGE.format(title=escape(title), content=content), status, media_type="text/html")


def _details(job: Job) -> str:
    metrics = job.metrics
    metadata = json.dumps(job.metadata, indent=2, ensure_ascii=False) if job.metadata else ""
    cells = {
        "Status": _text(job.status),
        "Error": _text(f"{job.error.code}: {job.error.message}" if job.error else None),
        "Connection": _text(job.connection_id),
        "Pipeline": _text(job.pipeline_id),
        "Rows extracted": _text(metrics and metrics.rows_extracted),
        "Rows loaded": _text(metrics and metrics.rows_loaded),
        "Created": _time(job.created_at),
        "Started": _time(job.started_at),
        "Cancel requested": _time(job.cancel_requested_at),
        "Finished": _time(job.finished_at),
        "Metadata": f"<pre>{escape(metadata)}</pre>" if metadata else "-",
    }
    rows = "\n".join(f'<tr><th scope="row">{name}</th><td>{cell}</td></tr>' for name, cell in cells.items())
    return f"<table>\n<caption>Details</caption>\n{rows}\n</table>"


def _job_table(jobs: Sequence[Job]) -> str:
    if not jobs:
        return "<p>No job was started yet.</p>"
    names = ("Job", "Status", "Connection", "Created")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "\n".join(
        f'<tr><td><a href="/jobs/{escape(quote(job.id, safe=""))}">{escape(job.id)}</a></td>'
        f"<td>{_text(job.status)}</td><td>{_text(job.connection_id)}</td><td>{_time(job.created_at)}</td></tr>"
        for job in jobs
    )
    return f"<table>\n<caption>Recent jobs</caption>\n<tr>{head}</tr>\n{rows}\n</table>"


def _text(value: object) -> str:
    return "-" if value is None else escape(str(value))


def _time(moment: datetime | None) -> str:
    if moment is None:
        return "-"
    return f'<time datetime="{moment.isoformat()}">{moment:%Y-%m-%d %H:%M:%S} UTC</time>'
