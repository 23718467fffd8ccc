"""Chaos: sixty tasks, a seeded storm of kills and faults, and an auditor that judges the result.

    make chaos SEED=7                 one seed; odd seeds run distributed
    make chaos SEED=8 DISTRIBUTED=1   two triggerers, and Celery with two workers
    make chaos-short                  fewer tasks and a shorter storm, in less than five minutes

The storm runs Airflow 3.3 with PostgreSQL, and the simulator in its own process, which is killed, too. In one version
of this repository, a seed always gives the same plan, which is printed first. After the storm, the tasks have some
minutes to end. Then the auditor, which shares no code with the provider, compares Airflow's database with the ledger
(the simulator's file ``--state``) and assigns each piece of work, a job or a backfill, to a task.

The output is the plan, each action when it happens, and counts. A violation is one of
    lost         a task reports no work, or other work than its last; or work belongs to no task
    doubled      two pieces of work of one attempt
    orphaned     work that continues after its attempt ended, or after the command for orphans that follows the storm
    stuck        a task or work that does not end after the storm
    wrong state  a task whose state does not match its last work; work that was cancelled without a reason, or
                 started after the deadline of its task; a try that failed because of a disturbance of some seconds
    crashed      a component that ended without an action; it is started again
    huge         megabytes of one text in a log file, a database table or another file
    key          an API key in a log file, a database table or another file
    metrics      counts of starts or ends that differ from the ledger, without a kill that explains it
Each violation comes with the timeline of its task: tries, work, actions and Airflow's events. "allowed" counts cases
that the provider cannot prevent: none of its code runs if its worker is killed or its trigger has not started, and a
server that does not respond accepts no cancel. The exit code is 1 if there is a violation.

``.chaos/seed-…`` keeps all logs, the ledger, ``actions.jsonl`` and ``history.json``. To repeat the audit alone:
``python -m tests.chaos.auditor .chaos/seed-7/history.json``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from typing import Any

from dev.processes import ROOT
from tests.chaos.auditor import audit
from tests.chaos.catalogue import DAG_ID
from tests.chaos.environment import Environment, environment, wait_until
from tests.chaos.plan import Plan, make
from tests.chaos.readers import read_history
from tests.chaos.report import report
from tests.chaos.storm import Storm

#: Maximum seconds to wait for tasks after the storm. On a fast machine they have ended by then.
MAX_SECONDS_AFTER_STORM = {"full": 900.0, "short": 600.0}


def main() -> int:
    """Run one seed, and print the report.

    :return: the exit code: 1 if there is a violation.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Run an Airflow through a storm of kills and faults, and audit the result.",
    )
    parser.add_argument("--seed", type=int, required=True, help="the seed of the storm's plan")
    parser.add_argument("--distributed", action="store_true", help="two triggerers and Celery, for any seed")
    parser.add_argument("--local", action="store_true", help="the LocalExecutor, for any seed")
    parser.add_argument("--short", action="store_true", help="fewer tasks, and a shorter storm")
    options = parser.parse_args()
    distributed = True if options.distributed else False if options.local else None
    plan = make(options.seed, distributed=distributed, size="short" if options.short else "full")
    print(plan, flush=True)
    # Handle SIGTERM like Ctrl-C, so that all processes are ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    home = ROOT / ".chaos" / f"seed-{plan.seed}{'-distributed' if plan.distributed else ''}{'-short' * options.short}"
    began = time.monotonic()

    def say(text: str) -> None:
        print(text, flush=True)

    with environment(plan, home) as all_of_it:
        say(f"\nAirflow is healthy after {time.monotonic() - began:.0f} s. The storm:")
        answer = all_of_it.airflow.api("POST", f"dags/{DAG_ID}/dagRuns", {"logical_date": None})
        all_of_it.run_id = answer["dag_run_id"]
        storm = Storm(plan, all_of_it, say)
        storm.wait_for_first_task()
        storm.run_storm()
        say(f"The storm is over after {time.monotonic() - began:.0f} s. Waiting for the tasks:")
        _wait_for_the_end(all_of_it, plan, storm)
        say(f"The wait is over after {time.monotonic() - began:.0f} s.\n")
        history = read_history(plan, all_of_it, storm)
    (home / "history.json").write_text(history.model_dump_json(indent=1))
    findings = audit(history)
    say(report(history, findings))
    say(f"\nTook {time.monotonic() - began:.0f} s in total. Logs and ledger are in {home}.")
    return 1 if findings.violations else 0


def _wait_for_the_end(all_of_it: Environment, plan: Plan, storm: Storm) -> None:
    """Wait until all tasks and all work are over, but not longer than ``MAX_SECONDS_AFTER_STORM``."""
    wait_until(lambda: all_of_it.planasonix.is_up, "the simulator is up again")
    all_of_it.planasonix.calm()
    storm.cancel_orphans()
    deadline = time.monotonic() + MAX_SECONDS_AFTER_STORM[plan.size]
    while time.monotonic() < deadline:
        storm.restart_crashed()
        rows = all_of_it.database.rows(
            "select state, count(*) as many from task_instance where run_id = %s group by state", all_of_it.run_id
        )
        over = ("success", "failed", "skipped", "upstream_failed", "removed")
        if all(row["state"] in over for row in rows) and not _active(all_of_it):
            return
        time.sleep(1)


def _active(all_of_it: Environment) -> list[Any]:
    """List the work that is not over."""
    state = all_of_it.planasonix.state()
    jobs = [job for job in state["jobs"] if job["status"] in ("queued", "running", "cancelling")]
    return jobs + [backfill for backfill in state["backfills"] if backfill["status"] in ("queued", "running")]


if __name__ == "__main__":
    sys.exit(main())
