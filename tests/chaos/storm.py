"""Performs a plan on a running environment, and records each action."""

from __future__ import annotations

import heapq
import json
import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any
from urllib.parse import unquote

import httpx
import psutil

from dev.local_airflow import LocalAirflowError, add_connection
from tests.chaos.catalogue import CONN_ID, DAG_ID, catalogue, name_of
from tests.chaos.environment import Environment, connection_fields, wait_until
from tests.chaos.orphans import cancel_orphans
from tests.chaos.plan import Action, Plan

#: The routes that start work.
STARTS = ("trigger_sync", "trigger_backfill")
#: How many seconds an action is delayed while the server that it needs is down.
PATIENCE = 60.0
#: Longer delays of actions that happen once in a storm, or that undo another action.
MAX_DELAY_BY_KIND = {"api_server_away": 150.0, "restart": math.inf, "thaw": math.inf, "create_connection": math.inf}
#: The tasks that wait on a worker for longer than the outage of the API server.
LONG_ON_WORKERS = tuple(
    spec.task_id for spec in catalogue("full") if spec.is_long and not spec.deferrable and spec.retries
)
#: The name of the Airflow connection in ``_down``.
CONNECTION = "the connection"
#: Seconds between SIGTERM to a component and its restart, which kills remaining processes.
GRACE = 12.0


class NotNowError(Exception):
    """A server that an action needs is down; the action is delayed."""


@dataclass(frozen=True)
class PerformedAction:
    """An action that was performed; the auditor reads ``facts``."""

    at: datetime
    kind: str
    text: str
    task: str | None
    facts: dict[str, Any]


class Storm:
    """Performs a plan, and prints each action with ``say``."""

    def __init__(self, plan: Plan, environment: Environment, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._environment = environment
        self._say = say
        self._queue: list[tuple[float, int, Action, float]] = []
        self._turn = count()
        self._key = environment.planasonix.key
        self._down: set[str] = set()
        #: All API keys of the storm.
        self.keys = [self._key]
        self.done: list[PerformedAction] = []

    def wait_for_first_task(self) -> None:
        """Wait until a task runs: on a busy machine, the storm would otherwise end before the first task."""
        query = "select count(*) as many from task_instance where run_id = %s and start_date is not null"
        wait_until(lambda: self._environment.database.rows(query, self._environment.run_id)[0]["many"], "a task begins")

    def run_storm(self) -> None:
        """Perform all actions, and restart what they killed."""
        self._began = time.monotonic()
        for action in self._plan.actions:
            self._put(action)
        while self._queue:
            due, _, action, given_up_at = heapq.heappop(self._queue)
            time.sleep(max(0.0, due - self._now()))
            self.restart_crashed()
            try:
                getattr(self, f"_{action.kind}")(action)
            except (NotNowError, httpx.HTTPError, LocalAirflowError) as reason:
                if self._now() < given_up_at:
                    pause = 0.2 if action.kind in ("catch_start", "catch_request") else 1
                    heapq.heappush(self._queue, (self._now() + pause, next(self._turn), action, given_up_at))
                else:
                    self._note("not done", f"{action.kind} of {action.at:.1f} s: {reason or type(reason).__name__}")

    def restart_crashed(self) -> None:
        """Restart crashed components as a supervisor would, and record the crash for the auditor."""
        processes: dict[str, Any] = {
            **self._environment.airflow.processes,
            "simulator": self._environment.planasonix.process,
        }
        for name, process in processes.items():
            if name not in self._down and process.poll() is not None:
                self._note("crash", f"{name} has ended by itself ({process.returncode})", component=name)
                self._start_again(name)

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _put(self, action: Action) -> None:
        given_up_at = action.at + MAX_DELAY_BY_KIND.get(action.kind, PATIENCE)
        heapq.heappush(self._queue, (action.at, next(self._turn), action, given_up_at))

    def _later(self, seconds: float, kind: str, target: str | None = None, **how: Any) -> None:
        self._put(Action(self._now() + seconds, kind, target, how))

    def _note(
        self, kind: str, text: str, task: str | None = None, /, *, at: datetime | None = None, **facts: Any
    ) -> None:
        done = PerformedAction(at or datetime.now(UTC), kind, text, task, facts)
        self.done.append(done)
        with (self._environment.home / "actions.jsonl").open("a") as log:
            log.write(json.dumps({**vars(done), "at": done.at.isoformat()}, default=str) + "\n")
        self._say(f"{self._now():6.1f} s  {text}")

    # --- Components ---

    def _kill(self, action: Action) -> None:
        name, how = str(action.target), signal.Signals[action.how["signal"]]
        if name in self._down:
            raise NotNowError(f"{name} is down already")
        if name == "api-server" and CONNECTION in self._down:
            raise NotNowError("the API server must create the connection first")
        self._down.add(name)
        if name == "simulator":
            self._environment.planasonix.kill(how)
        else:
            self._environment.airflow.kill(name, how)
        self._note("kill", f"{how.name} to {name}", component=name, signal=how.name)
        self._later(
            action.how["down"] + (GRACE if how is signal.SIGTERM and name != "simulator" else 0), "restart", name
        )

    def _api_server_away(self, action: Action) -> None:
        """Stop the API server for a while, while tasks on workers wait. The clock of the storm stops, too."""
        if self._down:
            raise NotNowError(f"{', '.join(self._down)} is down")
        if not any(row["task_id"] in LONG_ON_WORKERS for row in self._running()):
            raise NotNowError("no task waits on a worker for long")
        stopped_at = time.monotonic()
        self._environment.airflow.kill("api-server", signal.SIGKILL)
        facts = {"component": "api-server", "signal": "SIGKILL"}
        self._note("kill", f"SIGKILL to api-server, which restarts after {action.how['down']} s", **facts)
        time.sleep(action.how["down"])
        self._restart(Action(action.at, "restart", "api-server"))
        wait_until(lambda: self._environment.airflow.is_up, "the API server answers again")
        self._began += time.monotonic() - stopped_at

    def _restart(self, action: Action) -> None:
        name = str(action.target)
        self._start_again(name)
        self._down.discard(name)
        self._note("restart", f"{name} is started again", component=name)

    def _start_again(self, name: str) -> None:
        if name == "simulator":
            self._environment.planasonix.start()
        else:
            self._environment.airflow.begin(name)

    def _freeze(self, action: Action) -> None:
        name = str(action.target)
        if name in self._down:
            raise NotNowError(f"{name} is down")
        self._down.add(name)
        self._environment.airflow.freeze(name, signal.SIGSTOP)
        self._note("freeze", f"SIGSTOP to {name}", component=name)
        self._later(action.how["seconds"], "thaw", name)

    def _thaw(self, action: Action) -> None:
        name = str(action.target)
        self._environment.airflow.freeze(name, signal.SIGCONT)
        self._down.discard(name)
        self._note("thaw", f"SIGCONT to {name}", component=name)

    # --- Planasonix ---

    def _fault(self, action: Action) -> None:
        self._environment.planasonix.control("faults", action.how)
        self._note("fault", f"fault {json.dumps(action.how)}", **action.how)

    def _rotate(self, action: Action) -> None:
        key, old = action.how["key"], self._key
        if key not in self.keys:
            self._environment.planasonix.control("keys", {"key": key})
            self.keys.append(key)
        if not self._environment.airflow.is_up or CONNECTION in self._down:
            raise NotNowError("the API server is down, or the connection deleted")
        add_connection(self._environment.airflow, CONN_ID, connection_fields(self._environment.planasonix, key))
        self._key = key
        self._note("rotate", "a new key is in the Airflow connection")
        self._later(action.how["revoke_after"], "revoke", old)

    def _revoke(self, action: Action) -> None:
        self._environment.planasonix.control(f"keys/{action.target}/revoke")
        self._note("revoke", "the previous key is revoked")

    def _refuse(self, action: Action) -> None:
        self._require_proxy()
        which, how, seconds = action.how["which"], action.how["how"], action.how["seconds"]
        self._environment.planasonix.proxy.refuse(which, how, seconds)
        text = f"a proxy refuses all {which} for {seconds} s: {how}"
        self._later(0.2, "catch_request", which, what="refuse", text=text, facts=action.how)

    def _spoil_lists(self, action: Action) -> None:
        self._require_proxy()
        self._environment.planasonix.proxy.spoil_lists(action.how["seconds"])
        text = f"each list has an unreadable row for {action.how['seconds']} s"
        self._later(0.2, "catch_request", "lists", what="spoil_lists", text=text, facts=action.how)

    def _catch_request(self, action: Action) -> None:
        """Record a disturbance of the proxy from the first request that it disturbs."""
        began = self._environment.planasonix.proxy.began(str(action.target))
        if began is None:
            raise NotNowError("no request was disturbed yet")
        self._note(action.how["what"], action.how["text"], at=began, **action.how["facts"])

    def _require_proxy(self) -> None:
        if "simulator" in self._down:
            raise NotNowError("the simulator is down, and the proxy with it")

    # --- The Airflow connection ---

    def _delete_connection(self, action: Action) -> None:
        self._call("DELETE", f"connections/{CONN_ID}")
        self._down.add(CONNECTION)
        self._note("delete_connection", "the Airflow connection is deleted", **action.how)
        self._later(action.how["seconds"], "create_connection")

    def _create_connection(self, action: Action) -> None:
        if not self._environment.airflow.is_up:
            raise NotNowError("the API server is down")
        add_connection(self._environment.airflow, CONN_ID, connection_fields(self._environment.planasonix, self._key))
        self._down.discard(CONNECTION)
        self._note("create_connection", "the Airflow connection is created again")

    # --- Tasks ---

    def _kill_task(self, action: Action) -> None:
        how = signal.Signals[action.how["signal"]]
        task = self._pick(action.target, ["running"], lambda row: row["pid"] and psutil.pid_exists(row["pid"]))
        process = psutil.Process(task["pid"])
        victims = [process]
        if action.how["with_supervisor"]:
            victims = [*process.parents()[:1], process]
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                os.kill(victim.pid, how)
        with_what = " and its supervisor" if len(victims) > 1 else ""
        facts = {"signal": how.name, "with_supervisor": len(victims) > 1, **_facts(task)}
        self._note("kill_task", f"{how.name} to the process of {task['name']}{with_what}", task["name"], **facts)

    def _kill_start(self, action: Action) -> None:
        """Delay the responses to starts, and kill the first task that waits for one."""
        fault = {"kind": "hang", "when": action.how["when"], "seconds": action.how["seconds"]}
        for route in STARTS:
            self._environment.planasonix.control("faults", {**fault, "route": route})
        began = datetime.now(UTC).isoformat()
        self._later(0.2, "catch_start", signal=action.how["signal"], when=action.how["when"], since=began)

    def _catch_start(self, action: Action) -> None:
        requests = [
            request
            for request in self._environment.planasonix.state()["requests"]
            if request["route"] in STARTS and request["status"] is None and request["at"] > action.how["since"]
        ]
        if not requests:
            raise NotNowError("no start waits for its response")
        # The idempotency key of a start contains the task.
        _, _, task_id, map_index, *_ = map(unquote, requests[0]["headers"]["idempotency-key"].split("/"))
        rows = [row for row in self._running() if (row["task_id"], str(row["map_index"])) == (task_id, map_index)]
        if not rows:
            raise NotNowError(f"{task_id} has no process")
        (task,) = rows
        how = signal.Signals[action.how["signal"]]
        with suppress(ProcessLookupError):
            os.kill(task["pid"], how)
        text = f"{how.name} to the process of {task['name']}, whose start waits for its response ({action.how['when']})"
        self._note("kill_task", text, task["name"], signal=how.name, in_start=action.how["when"], **_facts(task))

    def _running(self) -> list[dict[str, Any]]:
        return self._tasks(["running"], lambda row: row["pid"] and psutil.pid_exists(row["pid"]))

    def _clear(self, action: Action) -> None:
        task = self._pick(action.target, action.how["states"])
        which = task["task_id"] if task["map_index"] < 0 else [task["task_id"], task["map_index"]]
        body = {"dag_run_id": self._environment.run_id, "task_ids": [which], "only_failed": False, "dry_run": False}
        self._call("POST", f"dags/{DAG_ID}/clearTaskInstances", body)
        self._note("clear", f"{task['name']} is cleared ({task['state']})", task["name"], **_facts(task))

    def _mark_failed(self, action: Action) -> None:
        task = self._pick(action.target, action.how["states"])
        path = f"dags/{DAG_ID}/dagRuns/{self._environment.run_id}/taskInstances/{task['task_id']}"
        path += "" if task["map_index"] < 0 else f"/{task['map_index']}"
        self._call("PATCH", path, {"new_state": "failed"})
        self._note("mark_failed", f"{task['name']} is marked failed ({task['state']})", task["name"], **_facts(task))

    def _end_by_hand(self, action: Action) -> None:
        """Kill all triggerers, and mark a deferred task failed through the REST API."""
        triggerers = [name for name in self._environment.airflow.processes if name.startswith("triggerer")]
        if self._down & {*triggerers, "api-server"} or not self._environment.airflow.is_up:
            raise NotNowError("a triggerer or the API server is down")
        self._pick(action.target, ["deferred"])
        for name in triggerers:
            self._kill(Action(action.at, "kill", name, {"signal": "SIGKILL", "down": action.how["down"]}))
        self._mark_failed(Action(action.at, "mark_failed", action.target, {"states": ["deferred"]}))

    def cancel_orphans(self) -> None:
        """Run the command for orphaned jobs, and record its result for the auditor."""
        outcome = cancel_orphans(self._environment)
        text = f"`orphans --cancel` has cancelled {len(outcome.cancelled)} and left {len(outcome.left)}"
        if outcome.unknown:
            text += f"; {len(outcome.unknown)} unknown"
        facts = {"left": outcome.left, "unknown": outcome.unknown, "messages": outcome.messages}
        self._note("orphans", f"{text} (exit code {outcome.code})", cancelled=outcome.cancelled, **facts)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        if not self._environment.airflow.is_up:
            raise NotNowError("the API server is down")
        self._environment.airflow.api(method, path, body)

    def _pick(
        self, place: str | float | None, states: list[str], fits: Callable[[dict[str, Any]], Any] = bool
    ) -> dict[str, Any]:
        """Return the task at a position, from 0 to 1, in the list of suitable tasks."""
        fit = self._tasks(states, fits)
        if not fit:
            raise NotNowError(f"no task is {' or '.join(states)}")
        return fit[int(float(place or 0) * len(fit))]

    def _tasks(self, states: list[str], fits: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
        rows = self._environment.database.rows(
            "select ti.task_id, ti.map_index, ti.state, ti.try_number, ti.pid, ti.trigger_id, tr.triggerer_id "
            "from task_instance ti left join trigger tr on tr.id = ti.trigger_id "
            "where ti.run_id = %s and ti.state = any(%s) order by ti.task_id, ti.map_index",
            self._environment.run_id,
            states,
        )
        return [row | {"name": name_of(row["task_id"], row["map_index"])} for row in rows if fits(row)]


def _facts(task: dict[str, Any]) -> dict[str, Any]:
    return {name: task[name] for name in ("state", "try_number", "trigger_id", "triggerer_id")}
