from __future__ import annotations

import webbrowser

import pytest

from planasonix_provider.simulator import Simulator
from tests.cli.conftest import QUICKLY, WINDOW, Run
from tests.support.scenarios import CONNECTION, the_one


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs that a browser was asked to open."""
    urls: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: urls.append(url) or True)
    return urls


@pytest.mark.parametrize("more", [(), ("--wait", "--poll-interval", "0.03")], ids=["", "--wait"])
def test_a_sync_and_its_job_open_the_page_of_the_job(
    simulator: Simulator, shell: Run, opened: list[str], more: tuple[str, ...]
) -> None:
    ran = shell("sync", CONNECTION, "--web", "-o", "json", *more)
    assert ran.code == 0
    assert shell("job", ran.json["job_id"], "--web", *more).code == 0
    assert shell("watch", ran.json["job_id"], "--web", "--poll-interval", "0.03").code == 0
    assert opened == [ran.json["job_url"]] * 3 == [f"{simulator.url}/jobs/{simulator.jobs()[0].id}"] * 3


def test_nothing_is_opened_unless_asked_for(shell: Run, opened: list[str]) -> None:
    shell("sync", CONNECTION)
    assert opened == []


def test_a_backfill_opens_the_page_of_its_first_job(simulator: Simulator, shell: Run, opened: list[str]) -> None:
    simulator.plan_backfill(CONNECTION, jobs=2, job_seconds=0.02)
    shell("backfill", CONNECTION, *WINDOW, *QUICKLY)
    assert shell("backfill-status", the_one(simulator).id, "--web").code == 0
    assert opened == [f"{simulator.url}/jobs/{(the_one(simulator).job_ids or [])[0]}"]


def test_a_backfill_without_jobs_has_no_page(simulator: Simulator, shell: Run, opened: list[str]) -> None:
    simulator.plan_backfill(CONNECTION, queued_seconds=60)
    shell("backfill", CONNECTION, *WINDOW)
    ran = shell("backfill-status", the_one(simulator).id, "--web")
    assert (ran.code, opened) == (0, [])
    assert "has no page yet" in ran.err


def _fail(url: str) -> bool:
    raise webbrowser.Error("could not locate runnable browser")


@pytest.mark.parametrize("browser", [lambda url: False, _fail], ids=["none", "error"])
def test_the_url_is_printed_if_there_is_no_browser(
    simulator: Simulator, shell: Run, monkeypatch: pytest.MonkeyPatch, browser: object
) -> None:
    monkeypatch.setattr(webbrowser, "open", browser)
    ran = shell("sync", CONNECTION, "--web")
    job_id = simulator.jobs()[0].id
    assert ran.code == 0
    assert ran.last_words == f"No browser was found. The page of job {job_id}: {simulator.url}/jobs/{job_id}"
