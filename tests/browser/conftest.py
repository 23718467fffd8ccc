"""Tests that need a browser: the simulator's pages as a person has them.

    make browser

Chromium comes from the operating system, axe-core from npm; ``pytest`` alone, and ``make test``, leave this folder out.
Pictures of all pages are in ``.browser/`` afterwards; ``make browser WRITE=docs`` renews the one that the docs show.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.stage import Stage

PICTURES = Path(__file__).parents[2] / ".browser"
AXE = PICTURES / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path, "There is no Chromium on the PATH: apt-get install chromium"
    with sync_playwright() as playwright:
        # Whoever is root, as in a container, has no sandbox.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """A script that looks for what keeps people out."""
    return AXE.read_text()


@pytest.fixture(scope="session")
def session_stage() -> Iterator[Stage]:
    stage = Stage()
    with stage.planasonix:
        yield stage


@pytest.fixture
def stage(session_stage: Stage) -> Stage:
    """A simulator in which nothing happened yet."""
    session_stage.planasonix.reset()
    return session_stage


@pytest.fixture
def context(chromium: Browser, stage: Stage) -> Iterator[BrowserContext]:
    context = chromium.new_context(base_url=stage.planasonix.url)
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A tab whose clock stands until it is told to run."""
    page = context.new_page()
    page.clock.install()
    return page
