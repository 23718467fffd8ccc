"""Runs the command for orphaned jobs after a storm, as cron would, and looks for those that it leaves."""

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
    """The ids that the command has cancelled, those that run on, and what it has printed for a person."""

    code: int
    cancelled: list[str]
    left: list[str]
    messages: str


def cancel_orphans(environment: Environment) -> Outcome:
    """Run the command once, and list the work that runs on although its task was over before."""
    over = _over(environment)
    command = [environment.airflow.python, *COMMAND]
    done = subprocess.run(
        command, env=environment.airflow.env, capture_output=True, text=True, timeout=600, check=False
    )
    rows = json.loads(done.stdout) if done.stdout.strip().startswith("[") else []
    cancelled = [row["id"] for row in rows if row["outcome"] == "cancelled"]
    still_over = over & _over(environment)
    left = [work["id"] for work in _running(environment) if _task_of(work) in still_over]
    return Outcome(done.returncode, cancelled, left, done.stderr)


def _over(environment: Environment) -> set[str]:
    """The tasks that are over and whose work may be cancelled."""
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
