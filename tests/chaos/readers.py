"""Reads the results of a storm: Airflow's database with plain SQL, the simulator's ledger, and all files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos.catalogue import catalogue, name_of
from tests.chaos.history import Action, Event, History, Task, Try, Work
from tests.support.proxy import HUGE

# These modules import the provider. The auditor and its readers must not.
if TYPE_CHECKING:
    from tests.chaos.environment import Database, Environment
    from tests.chaos.plan import Plan
    from tests.chaos.storm import Storm

#: A part of the huge texts that is too long for any log or table.
LONG = HUGE[:100_000]
# Matches lines of a task's log that name work or report trouble.
_RELEVANT = re.compile(
    r"\b(job|bf|backfill)_\w+|starting|about to start|on_kill|killed|Killed|SIG|could not|[Cc]hecking|unknown"
    r"|::endgroup::"
)
# Matches a supervisor's line about a task's failed heartbeat, in the log of its component.
_HEARTBEAT = re.compile(
    r"^(?P<at>\S+Z) .*Failed to send heartbeat.*failed_heartbeats=(?P<count>\d+)"
    r".*ti_id=UUID\('(?P<ti_id>[0-9a-f-]+)'\)",
    re.MULTILINE,
)


def read_history(plan: Plan, environment: Environment, storm: Storm) -> History:
    """Return the history of a storm."""
    ledger = read_ledger(environment.planasonix.ledger)
    # Check that the search works, with a text that is in many files and tables.
    assert list(keys_in_tables(environment.database, [environment.run_id]))
    assert list(keys_in_files(environment.home, [environment.run_id]))
    return History(
        seed=plan.seed,
        distributed=plan.distributed,
        settings=plan.settings,
        tasks=read_tasks(environment.database, environment.run_id),
        works=works_of(ledger, environment.run_id),
        actions=[Action(**vars(done)) for done in storm.done],
        events=sorted(
            [
                *_events_of_the_database(environment.database),
                *_events_of_files(environment.home / "airflow" / "logs"),
                *_events_of_supervisors(environment.home / "airflow" / "logs", _names_of_ids(environment.database)),
            ],
            key=lambda event: event.at,
        ),
        keys_found=[*keys_in_files(environment.home, storm.keys), *keys_in_tables(environment.database, storm.keys)],
        huge_found=[*keys_in_files(environment.home, [LONG]), *keys_in_tables(environment.database, [LONG])],
        refused=dict(environment.planasonix.proxy.counts),
        counted=environment.metrics.counted(),
        metric_values=dict(environment.metrics.values),
        ended=datetime.now(UTC),
    )


# --- The simulator's ledger ---


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a ledger. A kill may truncate a line; such lines are skipped."""
    lines = []
    for line in path.read_bytes().split(b"\n"):
        if line.strip():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
    return lines


def works_of(ledger: Iterable[dict[str, Any]], run_id: str) -> list[Work]:
    """Return the work that a ledger lists, oldest first. Only work of the DAG run has a task."""
    works: dict[str, Work] = {}
    # The work that each job belongs to. A sync belongs to itself.
    parents: dict[str, str] = {}
    for line in ledger:
        how = line.get("arguments") or {}
        if line["method"] in ("start_sync", "start_backfill"):
            work_id, *jobs = line["ids"]
            works[work_id] = _work(work_id, how, datetime.fromisoformat(line["at"]), run_id)
            works[work_id].jobs = [job for job in jobs if line["method"] == "start_backfill"]
            parents |= dict.fromkeys(line["ids"], work_id)
        for event in line.get("state_changes") or ():
            if event["type"] == "job.queued" and event.get("backfill_id"):
                parents[event["id"]] = event["backfill_id"]
                if event["id"] not in works[event["backfill_id"]].jobs:
                    works[event["backfill_id"]].jobs.append(event["id"])
            if event["id"] in works and event["type"].split(".")[1] not in ("queued", "running", "started"):
                works[event["id"]].ended = datetime.fromisoformat(event["at"])
                works[event["id"]].outcome = event["type"].split(".")[1]
        if line["method"] == "cancel":
            work = works.get(parents.get(how["job_id"], ""))
            if work and work.cancel_asked is None and work.ended is None:
                work.cancel_asked = datetime.fromisoformat(line["at"])
    return list(works.values())


def _work(work_id: str, how: dict[str, Any], at: datetime, run_id: str) -> Work:
    metadata = (how.get("body") or {}).get("metadata") or {}
    is_known = metadata.get("run_id") == run_id
    return Work(
        id=work_id,
        connection_id=how["connection_id"],
        task=name_of(metadata["task_id"], metadata["map_index"]) if is_known else None,
        try_number=metadata.get("try_number"),
        mark=metadata.get("airflow_attempt"),
        began=at,
    )


# --- Airflow's database ---


def read_tasks(database: Database, run_id: str) -> list[Task]:
    """Return the task instances of a DAG run, with their tries."""
    columns = "task_id, map_index, try_number, max_tries, state, start_date, end_date"
    now = {_name(row): row for row in database.rows(f"select {columns} from task_instance where run_id = %s", run_id)}
    before = database.rows(f"select {columns} from task_instance_history where run_id = %s order by try_number", run_id)
    returned = {
        _name(row): row["value"]
        for row in database.rows(
            "select task_id, map_index, value from xcom where run_id = %s and key = 'return_value'", run_id
        )
    }
    tasks = []
    for spec in catalogue():
        for name, _, connection_id in spec.names():
            rows = {row["try_number"]: row for row in before if _name(row) == name}
            row = now.get(name)
            if row:
                rows[row["try_number"]] = row
            tasks.append(
                Task(
                    name=name,
                    connection_id=connection_id,
                    starts=spec.starts,
                    cancel_on_kill=spec.cancel_on_kill,
                    on_conflict=spec.on_conflict,
                    timeout=spec.timeout,
                    state=row["state"] if row else None,
                    tries=[_try(rows[number]) for number in sorted(rows)],
                    returned=_returned(returned.get(name), spec.starts),
                )
            )
    return tasks


def _name(row: dict[str, Any]) -> str:
    return name_of(row["task_id"], row["map_index"])


def _try(row: dict[str, Any]) -> Try:
    return Try(
        number=row["try_number"],
        max_tries=row["max_tries"],
        state=row["state"],
        began=row["start_date"],
        ended=row["end_date"],
    )


def _returned(value: Any, starts: str) -> str | None:
    if isinstance(value, str):
        value = json.loads(value)
    return value.get(f"{starts}_id") if isinstance(value, dict) else None


def _events_of_the_database(database: Database) -> Iterator[Event]:
    for row in database.rows("select dttm, event, task_id, map_index, try_number from log where task_id is not null"):
        of_try = f" (try {row['try_number']})" if row["try_number"] else ""
        name = name_of(row["task_id"], -1 if row["map_index"] is None else row["map_index"])
        yield Event(at=row["dttm"], task=name, source="airflow", text=f"{row['event']}{of_try}")


# --- Files ---


def _events_of_files(logs: Path) -> Iterator[Event]:
    """Yield log entries of tasks and triggers."""
    for path in logs.glob("dag_id=*/run_id=*/task_id=*/**/attempt=*"):
        task_id = next(part for part in path.parts if part.startswith("task_id=")).removeprefix("task_id=")
        index = [part.removeprefix("map_index=") for part in path.parts if part.startswith("map_index=")]
        name = name_of(task_id, int(index[0]) if index else -1)
        source = "trigger" if ".trigger." in path.name else "task"
        number = path.name.removeprefix("attempt=").split(".")[0]
        for place, line in enumerate(path.read_bytes().splitlines()):
            try:
                said = json.loads(line)
                at = datetime.fromisoformat(said["timestamp"])
            except (ValueError, KeyError):
                continue
            text = str(said.get("event"))
            errors = [str(error.get("exc_value")) for error in said.get("error_detail") or ()]
            # The first line shows when the process existed.
            if not place or said.get("level") in ("warning", "error", "critical") or _RELEVANT.search(text):
                yield Event(at=at, task=name, source=source, text=f"[{number}] " + " | ".join([text, *errors])[:600])


def _events_of_supervisors(logs: Path, names: dict[str, str]) -> Iterator[Event]:
    """Yield failed heartbeats, after which supervisors end their tasks."""
    for path in logs.glob("*.log"):
        for found in _HEARTBEAT.finditer(path.read_text(errors="replace")):
            if name := names.get(found["ti_id"]):
                at = datetime.fromisoformat(found["at"])
                yield Event(at=at, task=name, source="supervisor", text=f"{found['count']} heartbeats failed")


def _names_of_ids(database: Database) -> dict[str, str]:
    rows = database.rows(
        "select id::text as id, task_id, map_index from task_instance union "
        "select task_instance_id::text, task_id, map_index from task_instance_history"
    )
    return {row["id"]: _name(row) for row in rows}


def keys_in_files(folder: Path, keys: Iterable[str]) -> Iterator[str]:
    """Search every file below a folder for keys, except those of the simulator and of PostgreSQL."""
    wanted = [key.encode() for key in keys]
    for path in sorted(folder.rglob("*")):
        is_foreign = path.relative_to(folder).parts[0] in ("planasonix", "postgres")
        if path.is_file() and not path.is_symlink() and not is_foreign:
            content = path.read_bytes()
            if any(key in content for key in wanted):
                yield f"the file {path.relative_to(folder)}"


def keys_in_tables(database: Database, keys: Iterable[str]) -> Iterator[str]:
    """Search every table for keys, as text and in the hexadecimal form of binary columns."""
    patterns = [f"%{text}%" for key in keys for text in (key, key.encode().hex())]
    tables = database.rows("select table_name from information_schema.tables where table_schema = 'public'")
    for name in sorted(row["table_name"] for row in tables):
        count = database.rows(f'select count(*) as many from "{name}" t where t::text like any(%s)', patterns)[0][
            "many"
        ]
        if count:
            yield f"{count} rows of the table {name}"
