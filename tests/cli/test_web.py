from __future__ import annotations

import time
import webbrowser
from pathlib import Path

import pytest

from planasonix_provider.simulator import Simulator
from tests.cli.conftest import QUICK_WAIT, WINDOW, Run
from tests.support.scenarios import CONNECTION, the_one


class Browser:
    """A browser that writes each URL that it must open into a file, and then runs until the tests end."""

    def __init__(self, folder: Path) -> None:
        self._urls = folder / "urls"
        self._urls.touch()
        self.command = folder / "browser"
        self.command.write_text(f'#!/bin/sh\necho noise\necho "$1" >> {self._urls}\nexec sleep 20\n')
        self.command.chmod(0o700)

    def opened(self, count: int) -> list[str]:
        """Return the URLs as soon as there are this many."""
        give_up = time.monotonic() + 20
        while len(urls := self._urls.read_text().splitlines()) < count and time.monotonic() < give_up:
            time.sleep(0.05)
        return urls


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Browser:
    browser = Browser(tmp_path)
    use_browser(monkeypatch, str(browser.command))
    return browser


def use_browser(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("BROWSER", command)
    # Python searches for browsers only once.
    monkeypatch.setattr(webbrowser, "_tryorder", None)
    monkeypatch.setattr(webbrowser, "_browsers", {})


@pytest.mark.parametrize("more", [(), ("--wait", "--poll-interval", "0.03")], ids=["no wait", "--wait"])
def test_a_sync_and_its_job_open_the_page_of_the_job(
    simulator: Simulator, shell: Run, browser: Browser, more: tuple[str, ...]
) -> None:
    ran = shell("sync", CONNECTION, "--web", "-o", "json", *more)
    assert ran.code == 0
    assert shell("job", ran.json["job_id"], "--web", *more).code == 0
    assert shell("watch", ran.json["job_id"], "--web", "--poll-interval", "0.03").code == 0
    assert browser.opened(3) == [ran.json["job_url"]] * 3 == [f"{simulator.url}/jobs/{simulator.jobs()[0].id}"] * 3


def test_no_page_is_opened_without_the_option(shell: Run, browser: Browser) -> None:
    shell("sync", CONNECTION)
    assert browser.opened(0) == []


def test_a_backfill_opens_the_page_of_its_first_job(simulator: Simulator, shell: Run, browser: Browser) -> None:
    simulator.plan_backfill(CONNECTION, jobs=2, job_seconds=0.02)
    shell("backfill", CONNECTION, *WINDOW, *QUICK_WAIT)
    assert shell("backfill-status", the_one(simulator).id, "--web").code == 0
    assert browser.opened(1) == [f"{simulator.url}/jobs/{(the_one(simulator).job_ids or [])[0]}"]


def test_a_backfill_without_jobs_has_no_page(simulator: Simulator, shell: Run, browser: Browser) -> None:
    simulator.plan_backfill(CONNECTION, queued_seconds=60)
    shell("backfill", CONNECTION, *WINDOW)
    ran = shell("backfill-status", the_one(simulator).id, "--web")
    assert (ran.code, browser.opened(0)) == (0, [])
    assert "has no page yet" in ran.err


def test_the_url_is_printed_if_there_is_no_browser(
    simulator: Simulator, shell: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_browser(monkeypatch, "")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("DISPLAY", raising=False)
    ran = shell("sync", CONNECTION, "--web")
    job_id = simulator.jobs()[0].id
    assert ran.code == 0
    assert ran.last_line == f"No browser was found. The page of job {job_id}: {simulator.url}/jobs/{job_id}"
