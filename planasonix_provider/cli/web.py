"""Opens pages of Planasonix's web app in a browser."""

from __future__ import annotations

import webbrowser

from planasonix_provider.cli.runner import CommandContext
from planasonix_provider.waiting.report import first_job_of
from planasonix_provider.waiting.targets import Work


def open_page(context: CommandContext, work: Work) -> None:
    """Open the page of a job in a browser, or print its URL if there is no browser.

    Backfills have no page, so theirs is that of their first job.
    """
    job_id = first_job_of(work)
    if job_id is None:
        context.terminal.warn(f"Backfill {work.id} has no page yet, because it has made no jobs.")
        return
    url = context.hook.job_url(job_id)
    try:
        is_open = webbrowser.open(url)
    except webbrowser.Error:
        is_open = False
    if not is_open:
        context.terminal.print(f"No browser was found. The page of job {job_id}: {url}")
