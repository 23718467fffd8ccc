"""Run one nightly sync in Airflow against a simulated Planasonix, and print each step."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from dev.processes import EXAMPLE_DAGS, ROOT, airflow_environment, end, end_on_sigterm, start, tail
from planasonix_provider.simulator import Simulator

DAG = "planasonix_nightly_sync"
HOME = ROOT / ".demo"
LOG = HOME / "airflow.log"

WHAT_HAPPENED = """
What happened
  A task of the DAG started a job in Planasonix, waited for it, and passed its results to the next task:

  job       {job_id}
  sync of   {connection_id}
  took      {duration_seconds:.0f} s
  loaded    {loaded}
  its page  {job_url}
            (a button of the task in Airflow's UI opens such a page; this server stopped with the demo)
"""
WHAT_NEXT = f"""
What to try next
  read the DAG             example_dags/{DAG}.py
  see it in Airflow's UI   make airflow
  make a job fail          make airflow, and follow its instructions
"""


class DemoError(Exception):
    """The demo failed."""


class Narrator:
    """Prints progress with the seconds since the start, and a line at least every 15 seconds."""

    def __init__(self) -> None:
        self._began = self._spoke = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line."""
        self._spoke = time.monotonic()
        print(f"[{self._spoke - self._began:3.0f} s] {text}", flush=True)

    def reassure(self) -> None:
        """Print a line if the last one was long ago."""
        if time.monotonic() - self._spoke > 15:
            self.say("Airflow is still working")


def airflow(env: dict[str, str], *command: str) -> Iterator[None]:
    """Run an Airflow command, and yield several times a second until it ends. No process remains afterwards."""
    process = start([sys.executable, "-m", "airflow", *command], env, LOG)
    try:
        while process.poll() is None:
            yield
            time.sleep(0.25)
    finally:
        end(process)
    if process.returncode:
        raise DemoError(f"`airflow {' '.join(command)}` failed with exit code {process.returncode}.")


def run_dag(env: dict[str, str], planasonix: Simulator, narrator: Narrator) -> None:
    """Run the DAG once, and print the states of its jobs."""
    known: dict[str, str] = {}
    for _ in airflow(env, "dags", "test", DAG):
        for job in planasonix.jobs():
            if known.get(job.id) != job.status:
                known[job.id] = job.status
                narrator.say(f"Planasonix: job {job.status}")
        narrator.reassure()
    if not known:
        raise DemoError(f"{DAG} ended without starting a job.")


def results() -> list[dict[str, Any]]:
    """Return the results of the tasks that ran jobs."""
    with closing(sqlite3.connect(HOME / "airflow.db")) as database:
        values = [json.loads(value) for (value,) in database.execute("SELECT value FROM xcom WHERE key='return_value'")]
    return [value for value in values if isinstance(value, dict) and "job_id" in value]


def demo() -> None:
    """Run the DAG in a new Airflow, and print its results."""
    narrator = Narrator()
    with Simulator(job_seconds=6, queued_seconds=1) as planasonix:
        narrator.say(f"A simulated Planasonix listens on {planasonix.url}")
        env = airflow_environment(HOME, EXAMPLE_DAGS)
        env["AIRFLOW_CONN_PLANASONIX_DEFAULT"] = json.dumps(planasonix.airflow_connection())
        narrator.say("Airflow creates its database")
        for _ in airflow(env, "db", "migrate"):
            narrator.reassure()
        narrator.say(f"Airflow loads the DAG {DAG} and runs it")
        run_dag(env, planasonix, narrator)
        narrator.say("Airflow: run succeeded")
    for result in results():
        loaded = ", ".join(f"{table['rows_loaded']:,} rows into {table['name']}" for table in result["tables"])
        print(WHAT_HAPPENED.format(loaded=loaded, **result), end="")
    print(WHAT_NEXT, end="")


def main() -> int:
    """Run the demo, and delete its files unless it fails."""
    end_on_sigterm()
    shutil.rmtree(HOME, ignore_errors=True)
    failed = False
    try:
        demo()
    except DemoError as error:
        failed = True
        print(f"\nThe end of Airflow's log:\n{tail(LOG)}\n\n{error} The whole log: {LOG}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    finally:
        if not failed:
            shutil.rmtree(HOME, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
