"""Opens pages of Planasonix's web app in a browser."""

from __future__ import annotations

import subprocess
import sys
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
        webbrowser.get()
    except webbrowser.Error:
        context.terminal.print(f"No browser was found. The page of job {job_id}: {url}")
        return
    # In another process: some browsers block until they end, or print to the stdout that a script reads. -P leaves out
    # modules of the current directory.
    subprocess.Popen(  # noqa: S603 - the arguments are constants and a checked URL
        [sys.executable, "-P", "-m", "webbrowser", url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
