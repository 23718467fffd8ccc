"""Rolling upgrades: fifty tasks wait while components of Airflow change to another release of the package.

The other release is the last tag before this commit, or the commit in ``UPGRADE_FROM``. A component uses it if its code
comes first in ``PYTHONPATH``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from dev.local_airflow import add_connection
from dev.processes import ROOT
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.support.postgres import running_postgres
from tests.system.conftest import Notes, ThisAirflow, settings_of
from tests.system.runs import Clock, TaskRun, wait_until

TASKS = 50
#: Maximum seconds to wait for fifty tasks on a machine with two cores.
TIMEOUT_SECONDS = 600.0
CONNECTIONS = [f"conn_upgrade_{number:02}" for number in range(TASKS)]
DAG_FILE = f"""
from datetime import datetime, timedelta
from airflow.providers.common.compat.sdk import DAG
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

with DAG("upgraded", start_date=datetime(2025, 1, 1), schedule=None, is_paused_upon_creation=False):
    PlanasonixSyncOperator.partial(
        task_id="load", deferrable=True, poll_interval=5, retries=1, retry_delay=timedelta(seconds=1)
    ).expand(connection_id={CONNECTIONS})
"""
#: The components that parse DAGs and run tasks.
WORKERS = tuple(ThisAirflow.components)[:3]
TRIGGERER = ("triggerer",)


def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)


@pytest.fixture(scope="module")
def other_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the code of the other release."""
    commit = os.environ.get("UPGRADE_FROM") or git("describe", "--tags", "--abbrev=0", "HEAD^").stdout.decode().strip()
    if not commit:
        pytest.skip("no release is tagged yet; UPGRADE_FROM=<commit> names another one")
    folder = tmp_path_factory.mktemp("release")
    archive = git("archive", commit, "planasonix_provider", "airflow_provider_planasonix.py")
    archive.check_returncode()
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


class MixedAirflow(ThisAirflow):  # type: ignore[valid-type]
    """An Airflow whose components may run the other release."""

    def __init__(self, home: Path, *, dags: Path, env: dict[str, str], other_release: Path) -> None:
        # Components must not import the package from their working directory.
        super().__init__(home, dags=dags, env=env | {"PYTHONSAFEPATH": "1"})
        self._other_release = str(other_release)

    def use(self, components: Sequence[str], *, is_new: bool) -> None:
        """Use one of the releases: restart those of the components that run. Later starts use this release, too."""
        self.env: dict[str, str] = {name: value for name, value in self.env.items() if name != "PYTHONPATH"}
        if not is_new:
            self.env["PYTHONPATH"] = self._other_release
        for name in components:
            if name in self.processes:
                self.restart(name)
        if set(self.processes) == set(self.components):
            wait_until(self._is_healthy, "Airflow is healthy again", TIMEOUT_SECONDS, every=1)

    def _is_healthy(self) -> bool:
        try:
            return all(part["status"] == "healthy" for part in self.health().values())
        except httpx.HTTPError:
            return False

    def package(self) -> Path:
        """Return the folder of the package that a new component would import."""
        code = "import planasonix_provider; print(planasonix_provider.__path__[0])"
        found = subprocess.run([self.python, "-c", code], env=self.env, capture_output=True, check=True, text=True)
        return Path(found.stdout.strip())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def simulator(clock: Clock) -> Iterator[Simulator]:
    with Simulator(api_key=API_KEY, connections=CONNECTIONS, clock=clock, show_metadata=False) as simulator:
        for connection_id in CONNECTIONS:
            simulator.plan(connection_id, queued_seconds=0, running_seconds=3600)
        yield simulator


@pytest.fixture
def mixed_airflow(tmp_path: Path, simulator: Simulator, other_release: Path) -> Iterator[MixedAirflow]:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "upgraded.py").write_text(DAG_FILE)
    with running_postgres() as postgres:
        env = settings_of(postgres.get_uri(), simulator)
        airflow = MixedAirflow(tmp_path / "airflow", dags=dags, env=env, other_release=other_release)
        airflow.use((), is_new=True)
        assert airflow.package() == ROOT / "planasonix_provider"
        airflow.use((), is_new=False)
        assert airflow.package() == other_release / "planasonix_provider"
        try:
            yield airflow
        finally:
            airflow.stop()


@pytest.mark.timeout(4 * TIMEOUT_SECONDS)
@pytest.mark.parametrize(
    ("old_at_first", "new_later"),
    [
        (WORKERS + TRIGGERER, TRIGGERER),
        (TRIGGERER, ()),
        (WORKERS + TRIGGERER, WORKERS + TRIGGERER),
    ],
    ids=["triggerer first", "workers first", "all at once"],
)
def test_no_waiting_task_is_lost(
    mixed_airflow: MixedAirflow,
    simulator: Simulator,
    clock: Clock,
    note: Notes,
    old_at_first: tuple[str, ...],
    new_later: tuple[str, ...],
) -> None:
    mixed_airflow.start()
    mixed_airflow.use([name for name in mixed_airflow.components if name not in old_at_first], is_new=True)
    add_connection(mixed_airflow, "planasonix_default", simulator.airflow_connection())
    wait_until(lambda: mixed_airflow.api("GET", "dags")["total_entries"], "Airflow has parsed the DAG", TIMEOUT_SECONDS)
    run = TaskRun.start(mixed_airflow, "upgraded").task("load")
    wait_until(lambda: run.count("deferred") == TASKS, "all tasks wait", TIMEOUT_SECONDS, every=1)

    mixed_airflow.use(new_later, is_new=True)
    clock.ahead += timedelta(hours=2)
    wait_until(lambda: run.dag_run_state in ("success", "failed"), "the run ends", TIMEOUT_SECONDS, every=1)
    note(f"{run.count('success')} of {TASKS} succeeded, {len(simulator.jobs())} jobs")
    assert run.count("success") == TASKS
    assert sorted(job.connection_id for job in simulator.jobs()) == CONNECTIONS
