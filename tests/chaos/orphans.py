"""Runs ``orphans --cancel`` once after a storm, as cron would, and lists the orphans that it misses."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from tests.chaos.catalogue import catalogue, name_of
from tests.chaos.environment import Environment

OVER = ("success", "failed", "skipped", "upstream_failed", "removed")
COMMAND = ("-m", "planasonix_provider", "orphans", "--cancel", "-o", "json")


@dataclass(frozen=True)
class Outcome:
    """The result of the command.

    :param code: its exit code.
    :param cancelled: the ids of the work that it has cancelled.
    :param left: the ids of the orphans that it has missed.
    :param unknown: the ids of the orphans whose start it reports as unknown, because the API shows no metadata.
    :param messages: its messages on stderr.
    """

    code: int
    cancelled: list[str]
    left: list[str]
    unknown: list[str]
    messages: str


def cancel_orphans(environment: Environment) -> Outcome:
    """Run the command, and list the work that still runs although its task was over before."""
    over = _over(environment)
    command = [environment.airflow.python, *COMMAND]
    done = subprocess.run(
        command, env=environment.airflow.env, capture_output=True, text=True, timeout=600, check=False
    )
    rows = json.loads(done.stdout) if done.stdout.strip().startswith("[") else []
    cancelled = [row["id"] for row in rows if row["outcome"] == "cancelled"]
    still_over = over & _over(environment)
    reported = {name_of(row["task_id"], row["map_index"]) for row in rows if row["outcome"] == "unknown"}
    running = {work["id"]: _task_of(work) for work in _running(environment)}
    left = [work_id for work_id, task in running.items() if task in still_over - reported]
    unknown = [work_id for work_id, task in running.items() if task in still_over & reported]
    return Outcome(done.returncode, cancelled, left, unknown, done.stderr)


def _over(environment: Environment) -> set[str]:
    """Return the tasks that are over and whose work may be cancelled."""
    query = "select task_id, map_index, state from task_instance where run_id = %s"
    kept = {spec.task_id for spec in catalogue() if not spec.cancel_on_kill}
    rows = environment.database.rows(query, environment.run_id)
    return {
        name_of(row["task_id"], row["map_index"]) for row in rows if row["state"] in OVER and row["task_id"] not in kept
    }


def _running(environment: Environment) -> list[dict[str, Any]]:
    state = environment.planasonix.state()
    return [work for work in [*state["jobs"], *state["backfills"]] if work["status"] in ("queued", "running")]


def _task_of(work: dict[str, Any]) -> str | None:
    metadata = work.get("metadata") or {}
    return name_of(metadata["task_id"], metadata["map_index"]) if "task_id" in metadata else None
