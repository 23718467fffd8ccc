"""What all tests share: an Airflow of their own, and a simulator."""

from __future__ import annotations

import atexit
import gc
import json
import os
import shutil
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

# Hypothesis must not fail a test because the machine is slow.
settings.register_profile("any machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Airflow reads its settings when it is imported, so they are set before any import of it.
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="planasonix-tests-"))
atexit.register(shutil.rmtree, AIRFLOW_HOME, ignore_errors=True)
DAGS_FOLDER = AIRFLOW_HOME / "dags"
DAGS_FOLDER.mkdir()
for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[name]
os.environ.update(
    AIRFLOW_HOME=str(AIRFLOW_HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__DAGS_FOLDER=str(DAGS_FOLDER),
    AIRFLOW__DAG_FACTORY__ENABLE_TELEMETRY="False",
    # Without a key, Airflow logs a warning in the first test that reads an Airflow connection.
    AIRFLOW__CORE__FERNET_KEY=urlsafe_b64encode(os.urandom(32)).decode(),
)

from planasonix_provider import validators  # noqa: E402
from planasonix_provider.api import rate_limiter  # noqa: E402
from planasonix_provider.simulator import Simulator  # noqa: E402
from planasonix_provider.waiting import interruptible_sleep, outages  # noqa: E402
from tests.support.hanging_responses import Hanging  # noqa: E402

if TYPE_CHECKING:
    from tests.support.statsd import StatsdServer
    from tests.support.time_travel import TravelledClock

#: Looks like a real key. Tests search for it in all that a task logs and stores.
API_KEY = "plnx_test_4f8a1c0e9d"


# The simulator's jobs take a twentieth of a second here. With the package's limits, the tests would sleep for minutes.
# They are not set by a fixture, because tasks are also created while tests are collected.
MIN_POLL_SECONDS = validators.MIN_POLL_SECONDS
validators.MIN_POLL_SECONDS = 0.01
# A task notices a kill at the end of such a slice. With 0.5 s, sixty tests would wait for it.
interruptible_sleep.MAX_SLICE_SECONDS = 0.05


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Use three workers for two cores, because some tests wait for timeouts, threads and processes."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ or not hasattr(os, "sched_getaffinity"):
        return None
    return ceil(1.5 * len(os.sched_getaffinity(0)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[object]:
    """Disable the garbage collector: the collected tests live until the end, and each scan of them takes seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("slow"):
            if not mark.args:
                raise pytest.UsageError(f"{item.nodeid} is marked as slow without a reason: slow(reason).")


@pytest.fixture
def min_poll_seconds(monkeypatch: pytest.MonkeyPatch) -> float:
    """The limit of the package."""
    monkeypatch.setattr(validators, "MIN_POLL_SECONDS", MIN_POLL_SECONDS)
    return MIN_POLL_SECONDS


@pytest.fixture(autouse=True)
def _a_short_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat a refusal as final after 0.05 seconds. Tests of the real limit override this fixture."""
    monkeypatch.setattr(outages, "MAX_REFUSAL", timedelta(seconds=0.05))


@pytest.fixture(scope="session")
def _simulator() -> Iterator[Simulator]:
    # Without metadata, as in the API reference. Tests that recognise work by its metadata must enable it.
    with Simulator(
        api_key=API_KEY, queued_seconds=0.02, job_seconds=0.06, cancelling_seconds=0.02, show_metadata=False
    ) as simulator:
        yield simulator


@pytest.fixture
def simulator(_simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A new simulator, and the Airflow connection ``planasonix_default`` to it."""
    _simulator.reset()
    monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_DEFAULT", json.dumps(_simulator.airflow_connection()))
    yield _simulator
    # The thread of a subscription that a test left behind would poll during later tests.
    _simulator.reset()


@pytest.fixture
def travel() -> Iterator[TravelledClock]:
    """Simulated time, which advances only during sleeps, so that a slow machine reaches no deadline early."""
    from tests.support.time_travel import simulated_time

    with simulated_time() as travel:
        yield travel


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[StatsdServer]:
    """Airflow sends its metrics to this server."""
    from tests.support.statsd import StatsdServer, forgetting_stats, statsd_settings

    server = StatsdServer()
    for name, value in statsd_settings(server).items():
        monkeypatch.setenv(name, value)
    with forgetting_stats():
        yield server
    server.close()


@pytest.fixture
def without_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run tasks without Airflow's variables, and without a supervisor that must notice their end."""
    from planasonix_provider.triggers import deferral
    from tests.support.task_runs import no_variables

    no_variables(monkeypatch)
    monkeypatch.setattr(deferral, "DEFER_SETTLE_TIME", timedelta(0))


@pytest.fixture(params=[False, True], ids=["on a worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=[{}, {"mode": "reschedule"}, {"deferrable": True}], ids=["poke", "reschedule", "deferred"])
def mode(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The parameters of one of a sensor's modes."""
    return dict(request.param)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    """Responses of a simulator that hang until the test lets them go on, or ends."""
    hanging = Hanging(monkeypatch)
    yield hanging
    hanging.ends()


@pytest.fixture(autouse=True)
def _unknown_pace() -> None:
    """Forget the rate limits that an earlier test has read."""
    rate_limiter._rate_limiters.clear()


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Airflow's database, for tests that run whole DAGs."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def secrets_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A function that makes Airflow search a secrets backend first, which has some connections."""
    from tests.support.slow_secrets import SlowBackend, forget_backends

    def set_backend(seconds: float = 0.0, **connections: dict[str, Any]) -> None:
        monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", "tests.support.slow_secrets.SlowBackend")
        given = {"seconds": seconds, "connections": connections}
        monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND_KWARGS", json.dumps(given))
        SlowBackend.requested.clear()

    forget_backends()
    yield set_backend
    forget_backends()


@pytest.fixture
def dags_folder(airflow_db: None) -> Iterator[None]:
    """A folder for DAGs, empty before and after a test, because ``dag.test()`` of Airflow 3.3 reads all of it."""
    yield
    shutil.rmtree(DAGS_FOLDER)
    DAGS_FOLDER.mkdir()
