"""The web pages that Planasonix has for people: where Airflow's links to jobs and backfills lead, and a start page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from planasonix_provider.simulator.connect import export_line
from planasonix_provider.simulator.front import PathId
from planasonix_provider.simulator.refusals import Refused

if TYPE_CHECKING:
    from planasonix_provider.api.models import Backfill, Job, WorkError
    from planasonix_provider.simulator.world import World

#: How many things a page lists.
RECENT = 50

_HOME = '<p><a href="/">All recent jobs and backfills</a></p>'
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
        router.add_api_route("/backfills/{backfill_id}", self.backfill, methods=["GET"])

    async def start(self, request: Request) -> Response:
        """List recent jobs and backfills, and say how to connect Airflow."""
        url = f"http://{request.headers.get('host', '127.0.0.1')}"
        jobs, _ = self._world.page(lambda job, now: True, limit=RECENT)
        backfills, _ = self._world.backfill_page(lambda backfill, now: True, limit=RECENT)
        line = escape(export_line(url, self._world.api_key))
        connect = f"<p>To connect Airflow:</p>\n<pre>{line}</pre>"
        tables = f"{_backfill_table(backfills)}\n{_job_table('Recent jobs', jobs)}"
        return _page("Planasonix simulator", f"{connect}\n{tables}")

    async def job(self, job_id: PathId) -> Response:
        """Show a job."""
        try:
            job = self._world.job(job_id)
        except Refused as refused:
            return _nothing("No such job", refused)
        return _page(f"Job {job.id}", f"{_job_details(job)}\n{_HOME}")

    async def backfill(self, backfill_id: PathId) -> Response:
        """Show a backfill and the newest of its jobs."""
        try:
            backfill = self._world.backfill(backfill_id)
        except Refused as refused:
            return _nothing("No such backfill", refused)
        job_ids = backfill.job_ids or []
        newest = [self._world.job(job_id) for job_id in job_ids[: -RECENT - 1 : -1]]
        jobs = _job_table(f"Its newest jobs, of {len(job_ids)} so far", newest)
        return _page(f"Backfill {backfill.id}", f"{_backfill_details(backfill)}\n{jobs}\n{_HOME}")


def _page(title: str, content: str, status: int = 200) -> Response:
    return Response(_PAGE.format(title=escape(title), content=content), status, media_type="text/html")


def _nothing(title: str, refused: Refused) -> Response:
    return _page(title, f"<p>There is {escape(refused.message)}.</p>{_HOME}", status=404)


def _job_details(job: Job) -> str:
    metrics = job.metrics
    return _details(
        {
            "Type": _text(job.type),
            "Status": _text(job.status),
            "Error": _error(job.error),
            "Connection": _text(job.connection_id),
            "Pipeline": _text(job.pipeline_id),
            "Rows extracted": _text(metrics and metrics.rows_extracted),
            "Rows loaded": _text(metrics and metrics.rows_loaded),
            "Created": _time(job.created_at),
            "Started": _time(job.started_at),
            "Cancel requested": _time(job.cancel_requested_at),
            "Finished": _time(job.finished_at),
            "Metadata": _json(job.metadata),
        }
    )


def _backfill_details(backfill: Backfill) -> str:
    return _details(
        {
            "Status": _text(backfill.status),
            "Progress": _percent(backfill.progress_percent),
            "Rows processed": _text(backfill.rows_processed),
            "Error": _error(backfill.error),
            "Connection": _text(backfill.connection_id),
            "From": _time(backfill.start_at),
            "To": _time(backfill.end_at),
            "Tables": _text(", ".join(backfill.tables) if backfill.tables else "all"),
            "Created": _time(backfill.created_at),
            "Updated": _time(backfill.updated_at),
            "Metadata": _json(backfill.metadata),
        }
    )


def _details(cells: Mapping[str, str]) -> str:
    rows = "\n".join(f'<tr><th scope="row">{name}</th><td>{cell}</td></tr>' for name, cell in cells.items())
    return f"<table>\n<caption>Details</caption>\n{rows}\n</table>"


def _job_table(caption: str, jobs: Sequence[Job]) -> str:
    if not jobs:
        return "<p>No job was started yet.</p>"
    rows = ((_link("jobs", job.id), _text(job.status), _text(job.connection_id), _time(job.created_at)) for job in jobs)
    return _table(caption, ("Job", "Status", "Connection", "Created"), rows)


def _backfill_table(backfills: Sequence[Backfill]) -> str:
    if not backfills:
        return "<p>No backfill was started yet.</p>"
    rows = (
        (
            _link("backfills", backfill.id),
            _text(backfill.status),
            _percent(backfill.progress_percent),
            _text(backfill.connection_id),
            _time(backfill.created_at),
        )
        for backfill in backfills
    )
    return _table("Recent backfills", ("Backfill", "Status", "Progress", "Connection", "Created"), rows)


def _table(caption: str, names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>\n<caption>{caption}</caption>\n<tr>{head}</tr>\n{body}\n</table>"


def _link(kind: str, thing_id: str) -> str:
    return f'<a href="/{kind}/{escape(quote(thing_id, safe=""))}">{escape(thing_id)}</a>'


def _error(error: WorkError | None) -> str:
    return _text(f"{error.code}: {error.message}" if error else None)


def _json(value: Mapping[str, object] | None) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>" if value else "-"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0f} %"


def _text(value: object) -> str:
    return "-" if value is None else escape(str(value))


def _time(moment: datetime | None) -> str:
    if moment is None:
        return "-"
    return f'<time datetime="{moment.isoformat()}">{moment:%Y-%m-%d %H:%M:%S} UTC</time>'
