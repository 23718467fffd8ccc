"""The auditor finds planted violations, and none in clean histories."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dev.processes import ROOT
from tests.chaos.auditor import Findings, audit
from tests.chaos.history import Action, Event, History, Task, Try, Work
from tests.chaos.readers import keys_in_files, read_ledger, works_of
from tests.chaos.report import report

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def job(number: int, began: float, ended: float | None, outcome: str | None = "succeeded", **more: Any) -> Work:
    return Work(
        **{
            "id": f"job_{number}",
            "connection_id": "conn_load",
            "task": "load",
            "try_number": 1,
            "mark": f"mark_{number}",
            "began": at(began),
            "ended": None if ended is None else at(ended),
            "outcome": outcome,
            **more,
        }
    )


def cancelled(number: int, began: float, ended: float, **more: Any) -> Work:
    return job(number, began, ended, "cancelled", **{"cancel_asked": at(ended - 1), **more})


def tries(*times: tuple[float, float, str], max_tries: int = 0) -> list[Try]:
    return [
        Try(number=number, began=at(began), ended=at(ended), state=state, max_tries=max_tries)
        for number, (began, ended, state) in enumerate(times, 1)
    ]


def task(state: str = "success", returned: str | None = "job_1", **more: Any) -> Task:
    how = {"name": "load", "tries": tries((0, 40, state)), **more}
    return Task(connection_id="conn_load", state=state, returned=returned, **how)


def other(**more: Any) -> Task:
    """Return a second task on the same connection, with the same job."""
    return task(name="other", **more)


def action(when: float, kind: str, **facts: Any) -> Action:
    is_of_task = kind in ("mark_failed", "clear", "kill_task")
    return Action(at=at(when), kind=kind, text=kind, task="load" if is_of_task else None, facts=facts)


def event(when: float, source: str, text: str) -> Event:
    return Event(at=at(when), task="load", source=source, text=text)


def history(one: Task, *what: Work | Action | Event, others: Sequence[Task] = (), **more: Any) -> History:
    return History(
        tasks=[one, *others],
        works=[each for each in what if isinstance(each, Work)],
        actions=[each for each in what if isinstance(each, Action)],
        events=[each for each in what if isinstance(each, Event)],
        ended=at(600),
        **more,
    )


def found(findings: Findings) -> list[tuple[str, str]]:
    return [(violation.kind, violation.text) for violation in findings.violations]


def refusal(when: float, seconds: float, which: str = "reads") -> Action:
    text = f"a proxy refuses all {which}"
    return Action(at=at(when), kind="refuse", text=text, facts={"which": which, "how": "404 html", "seconds": seconds})


def missing_connection(since: float, until: float) -> tuple[Action, Action]:
    deleted = Action(at=at(since), kind="delete_connection", text="the Airflow connection is deleted")
    return deleted, Action(at=at(until), kind="create_connection", text="the Airflow connection is created again")


FAILED = {"state": "failed", "returned": None}
RETRIED = {"tries": tries((0, 10, "failed"), (12, 40, "success"), max_tries=1)}
#: Airflow should not make the second try: it treated a running task as an orphan.
RESET = {"tries": tries((0, 10, "failed"), (12, 40, "success"))}


ABOUT_TO_START = "Try 1 was about to start a job when it ended; looking for that job."


def took_the_job_of_another(*own: Work, search: float = 13, message: str = ABOUT_TO_START, **settings: bool) -> History:
    """Return a history in which try 2 of a task searches for the job of try 1, and returns that of another task."""
    return history(
        task(tries=tries((0, 10, "failed"), (12, 70, "success"), max_tries=1)),
        job(1, 40, 60, task="other"),
        action(9, "kill_task", signal="SIGKILL"),
        event(search, "task", f"[2] {message}"),
        *own,
        others=[other()],
        settings=settings,
    )


NO_CONNECTION = "[2] Task failed with exception | There is no Airflow connection 'planasonix_chaos'."


def failed_without_connection(*log: Event) -> History:
    """Return a history in which try 2 fails while the connection is missing; try 1 has started the job."""
    return history(
        task(tries=tries((0, 4, "failed"), (5, 12, "failed"), (14, 40, "success"), max_tries=2)),
        action(3, "kill_task", signal="SIGKILL"),
        *missing_connection(8, 13),
        job(1, 1, 30),
        *log,
    )


CLEAN = {
    "one job": history(task(), job(1, 5, 30)),
    "a retry that continued with the job": history(
        task(**RETRIED), job(1, 5, 30), action(10, "kill_task", signal="SIGKILL")
    ),
    "a retry after a job that failed": history(
        task(returned="job_2", **RETRIED), job(1, 1, 9, "failed"), job(2, 13, 30)
    ),
    "a clear that cancelled the job": history(
        task(returned="job_2"), cancelled(1, 1, 20), action(18, "clear", state="deferred"), job(2, 22, 39)
    ),
    "marked failed, and cancelled": history(
        task(**FAILED), cancelled(1, 1, 25), action(20, "mark_failed", state="running")
    ),
    "cancelled at its timeout": history(task(**FAILED, timeout=10), cancelled(1, 1, 12)),
    "timed out before it could start work": history(task(**FAILED, timeout=30)),
    "cancelled at the timeout of the second try only": history(
        task(**FAILED, timeout=10, tries=tries((0, 8, "failed"), (40, 60, "failed"), max_tries=1)),
        cancelled(1, 1, 52),
        action(7, "kill_task", signal="SIGKILL"),
    ),
    "cancelled after its timeout, because its process started late": history(
        task(**FAILED, timeout=15, tries=tries((0, 8, "failed"), (60, 96, "failed"), max_tries=1)),
        cancelled(1, 1, 92),
        event(90, "task", "[2] Job job_1, which try 1 has started, still runs: this try goes on with it."),
        action(7, "kill_task", signal="SIGKILL"),
    ),
    "cancelled at its timeout, which starts when its operator executes": history(
        task(**FAILED, timeout=10, tries=tries((0, 55, "failed"))),
        event(18, "task", "[1] ::endgroup::"),
        cancelled(1, 27, 42),
        event(56, "task", "[1] ::endgroup::"),
    ),
    "a job that failed for good": history(task(**FAILED), job(1, 1, 30, "failed")),
    "attached to the job of another task": history(task(), job(1, 5, 30), others=[other(on_conflict="attach")]),
    "ended by Airflow, and cancelled": history(
        task(returned="job_2", **RETRIED),
        cancelled(1, 1, 11),
        event(9, "task", "[1] Server indicated the task shouldn't be running anymore. Terminating process"),
        job(2, 13, 30),
    ),
    "ended by its supervisor with no retry left, and cancelled": history(
        task(**FAILED), cancelled(1, 1, 11), event(8, "supervisor", "3 heartbeats failed")
    ),
    "ended by its supervisor, and continued by the retry": history(
        task(**RETRIED), job(1, 1, 30), event(8, "supervisor", "3 heartbeats failed")
    ),
    "a refusal while the job runs": history(task(), refusal(10, 8), job(1, 5, 30)),
    "a refusal at a start, which costs a try": history(task(**RETRIED), refusal(5, 8), job(1, 14, 30, try_number=2)),
    "a job that failed during a refusal": history(
        task(returned="job_2", **RETRIED), refusal(5, 8), job(1, 1, 9, "failed"), job(2, 13, 30, try_number=2)
    ),
    "killed during a refusal": history(
        task(**RETRIED), refusal(5, 8), job(1, 1, 30), action(9, "kill_task", signal="SIGKILL")
    ),
    "ended by its supervisor during a refusal": history(
        task(**RETRIED), refusal(5, 8), job(1, 1, 30), event(9, "supervisor", "3 heartbeats failed")
    ),
    "a connection that was deleted before the operator of a try executed": history(
        task(tries=tries((0, 4, "failed"), (5, 12, "failed"), (14, 40, "success"), max_tries=2)),
        action(3, "kill_task", signal="SIGKILL"),
        event(9, "task", "[2] ::endgroup::"),
        *missing_connection(8, 13),
        job(1, 1, 30),
    ),
    "a connection that is missing before a later try has polled the job": failed_without_connection(
        event(2, "task", "[1] Started job job_1"),
        event(11, "task", NO_CONNECTION),
    ),
    "a try that ended long after a refusal": history(
        task(tries=tries((0, 30, "failed"), (32, 60, "success"), max_tries=1)), refusal(5, 8), job(1, 1, 50)
    ),
    "a connection that is missing for more than a minute": history(
        task(tries=tries((0, 75, "failed"), (82, 99, "success"), max_tries=1)),
        *missing_connection(5, 80),
        job(1, 1, 98),
    ),
    "ended with its worker, and cancelled": history(
        task(returned="job_2", **RETRIED),
        cancelled(1, 1, 11),
        action(8, "kill", component="celery-worker", signal="SIGTERM"),
        job(2, 13, 30),
    ),
    "a try that only Airflow's log shows": history(
        task(tries=[Try(number=2, began=at(12), ended=at(40), state="success", max_tries=1)]),
        event(0, "airflow", "running (try 1)"),
        event(10, "airflow", "state mismatch (try 1)"),
        job(1, 5, 30),
    ),
    "a backfill": history(
        task(returned="bf_1", starts="backfill"), job(1, 1, 30, "completed", id="bf_1", jobs=["job_1", "job_2"])
    ),
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_history_has_no_violation(name: str) -> None:
    findings = audit(CLEAN[name])
    assert found(findings) == []
    assert findings.allowed == []


PLANTED = {
    "lost: nothing was started": ("lost", history(task())),
    "lost: returned an older job": (
        "lost",
        history(task(), job(1, 1, 5), action(5, "clear", state="success"), job(2, 6, 30)),
    ),
    "lost: work without a task": ("lost", history(task(), job(1, 5, 30), job(2, 6, 20, task=None))),
    "lost: work of a try that does not exist": ("lost", history(task(), job(1, 5, 30, try_number=2))),
    "wrong state: did not recognize its work, although the API shows metadata": (
        "wrong state",
        history(
            task(**FAILED),
            job(1, 1, 30),
            event(38, "task", "[1] Task failed | which of them is this task's cannot be told: job_1, job_2"),
            settings={"show_metadata": True},
        ),
    ),
    "lost: on the connection of another task": ("lost", history(task(), job(1, 5, 30, connection_id="conn_other"))),
    "lost: returned the job of another task": (
        "lost",
        history(task(), job(1, 5, 30), others=[other()]),
    ),
    "lost: returned the job of another task, although the API shows metadata": (
        "lost",
        took_the_job_of_another(show_metadata=True),
    ),
    "lost: returned the job of another task without a search at that time": (
        "lost",
        took_the_job_of_another(search=-100),
    ),
    "lost: returned the job of another task while its own was running": (
        "lost",
        took_the_job_of_another(job(2, 13, 60)),
    ),
    "doubled: two at a time": ("doubled", history(task(returned="job_2"), job(1, 5, 30), job(2, 13, 35))),
    "doubled: one key used twice": (
        "doubled",
        history(task(returned="job_2"), job(1, 5, 6, "failed"), job(2, 13, 35, mark="mark_1")),
    ),
    "doubled: started again after a success": (
        "doubled",
        history(task(returned="job_2"), job(1, 5, 10), job(2, 13, 35)),
    ),
    "orphaned: marked failed while it ran": (
        "orphaned",
        history(task(**FAILED), job(1, 1, 90), action(20, "mark_failed", state="running")),
    ),
    "orphaned: marked failed, and its trigger was notified": (
        "orphaned",
        history(
            task(**FAILED),
            job(1, 1, 90),
            event(8, "airflow", "deferred (try 1)"),
            event(9, "trigger", "[1] trigger load (ID 1) starting"),
            action(20, "mark_failed", state="deferred"),
            event(22, "trigger", "[1] Trigger cancelled by user action, invoking on_kill"),
        ),
    ),
    "orphaned: marked failed, but its running trigger was not notified": (
        "orphaned",
        history(
            task(**FAILED),
            job(1, 1, 90),
            event(8, "airflow", "deferred (try 1)"),
            event(9, "trigger", "[1] trigger load (ID 1) starting"),
            action(20, "mark_failed", state="deferred"),
        ),
    ),
    "orphaned: marked failed in the try after a killed one": (
        "orphaned",
        history(
            task(**FAILED, tries=tries((0, 10, "failed"), (14, 20, "failed"), max_tries=1)),
            job(1, 1, 90),
            action(9, "kill_task", signal="SIGKILL"),
            action(20, "mark_failed", state="running"),
        ),
    ),
    "orphaned: cancelled much too late": (
        "orphaned",
        history(task(**FAILED), cancelled(1, 1, 200), action(20, "mark_failed", state="running"), action(150, "clear")),
    ),
    "orphaned: failed for good": ("orphaned", history(task(**FAILED), job(1, 1, 90))),
    "orphaned: started after it was marked failed": (
        "orphaned",
        history(task(**FAILED), action(20, "mark_failed", state="running"), job(1, 22, 90)),
    ),
    "orphaned: still running when the cleared task starts again": (
        "orphaned",
        history(task(returned="job_2"), job(1, 1, 60), action(18, "clear", state="deferred"), job(2, 22, 39)),
    ),
    "orphaned: cleared, and no new work was started": (
        "orphaned",
        history(
            task(**FAILED), job(1, 1, 90), action(18, "clear", state="deferred"), action(30, "mark_failed", state=None)
        ),
    ),
    "orphaned: not cancelled at its timeout": ("orphaned", history(task(timeout=10), job(1, 1, 39))),
    "orphaned: not cancelled at its timeout, after a kill of the scheduler": (
        "orphaned",
        history(task(timeout=10), job(1, 1, 39), action(8, "kill", component="scheduler", signal="SIGKILL")),
    ),
    "orphaned: cancelled long after its timeout": (
        "orphaned",
        history(task(**FAILED, timeout=10), cancelled(1, 1, 39)),
    ),
    "orphaned: cancelled long after its timeout, although its process knew the job": (
        "orphaned",
        history(
            task(**FAILED, timeout=15, tries=tries((0, 8, "failed"), (60, 106, "failed"), max_tries=1)),
            cancelled(1, 1, 102),
            event(70, "task", "[2] Job job_1, which try 1 has started, still runs: this try goes on with it."),
            action(7, "kill_task", signal="SIGKILL"),
        ),
    ),
    "orphaned: cancelled long after its timeout, which starts when its operator executes": (
        "orphaned",
        history(
            task(**FAILED, timeout=10, tries=tries((0, 55, "failed"))),
            event(18, "task", "[1] ::endgroup::"),
            cancelled(1, 27, 52),
        ),
    ),
    "orphaned: cancelled long after its timeout, although its process started minutes late": (
        "orphaned",
        history(
            task(**FAILED, timeout=15, tries=tries((0, 8, "failed"), (60, 206, "failed"), max_tries=1)),
            cancelled(1, 1, 202),
            event(200, "task", "[2] Job job_1, which try 1 has started, still runs: this try goes on with it."),
            action(7, "kill_task", signal="SIGKILL"),
        ),
    ),
    "stuck: a task": ("stuck", history(task(state="deferred"), job(1, 5, 30))),
    "stuck: a job": ("stuck", history(task(), job(1, 5, None, None))),
    "wrong state: succeeded with a failed job": ("wrong state", history(task(), job(1, 5, 30, "failed"))),
    "wrong state: succeeded with a cancelled job": (
        "wrong state",
        history(task(), cancelled(1, 5, 30), action(25, "kill_task", signal="SIGTERM")),
    ),
    "wrong state: failed although its job succeeded": ("wrong state", history(task(**FAILED), job(1, 5, 30))),
    "wrong state: failed without starting work": ("wrong state", history(task(**FAILED))),
    "wrong state: failed before its timeout without starting work": (
        "wrong state",
        history(task(**FAILED, timeout=50)),
    ),
    "wrong state: failed although its job succeeded, long after a mark and a clear": (
        "wrong state",
        history(
            task(**FAILED, tries=tries((0, 10, "failed"), (20, 50, "failed"), max_tries=1)),
            job(1, 1, 9),
            action(10, "mark_failed", state="running"),
            action(15, "clear", state="failed"),
            job(2, 21, 40, try_number=2),
        ),
    ),
    "doubled: started again after a success, in a try beyond the retries": (
        "doubled",
        history(task(returned="job_2", **RESET), job(1, 1, 11), job(2, 13, 30, try_number=2)),
    ),
    "wrong state: cancelled for no reason": (
        "wrong state",
        history(
            task(returned="job_2", **RETRIED),
            cancelled(1, 5, 9),
            action(4, "kill", component="triggerer"),
            job(2, 13, 30),
        ),
    ),
    "wrong state: cancelled despite cancel_on_kill=False": (
        "wrong state",
        history(task(**FAILED, cancel_on_kill=False), cancelled(1, 1, 25), action(20, "mark_failed", state="running")),
    ),
    "wrong state: continued with the old job after it was cleared while deferred": (
        "wrong state",
        history(task(), job(1, 1, 60), action(18, "clear", state="deferred")),
    ),
    "wrong state: returned the old job after the finished task was cleared": (
        "wrong state",
        history(task(), job(1, 1, 10), action(18, "clear", state="success")),
    ),
    "wrong state: started after its timeout": (
        "wrong state",
        history(task(**FAILED, timeout=10), cancelled(1, 27, 29)),
    ),
    "wrong state: cancelled before its timeout": (
        "wrong state",
        history(task(**FAILED, timeout=30), cancelled(1, 1, 25)),
    ),
    "wrong state: cancelled after two failed heartbeats": (
        "wrong state",
        history(
            task(returned="job_2", **RETRIED),
            cancelled(1, 1, 11),
            event(8, "supervisor", "2 heartbeats failed"),
            job(2, 13, 30),
        ),
    ),
    "wrong state: cancelled after three failed heartbeats, with a retry left": (
        "wrong state",
        history(
            task(returned="job_2", **RETRIED),
            cancelled(1, 1, 11),
            event(8, "supervisor", "3 heartbeats failed"),
            job(2, 13, 30, try_number=2),
        ),
    ),
    "wrong state: a refusal uses up a try": ("wrong state", history(task(**RETRIED), refusal(6, 8), job(1, 1, 30))),
    "wrong state: a refusal uses up the try after a killed one": (
        "wrong state",
        history(
            task(tries=tries((0, 10, "failed"), (12, 20, "failed"), (22, 40, "success"), max_tries=2)),
            action(10, "kill_task", signal="SIGKILL"),
            refusal(15, 6),
            job(1, 1, 35),
        ),
    ),
    "wrong state: a refusal uses up a try after a kill of the scheduler": (
        "wrong state",
        history(
            task(tries=tries((0, 10, "failed"), (12, 20, "failed"), (22, 40, "success"), max_tries=2)),
            action(8, "kill", component="scheduler", signal="SIGKILL"),
            refusal(15, 6),
            job(1, 1, 35),
        ),
    ),
    "wrong state: an unreadable row uses up a try": (
        "wrong state",
        history(
            task(**RETRIED),
            Action(at=at(6), kind="spoil_lists", text="each list has an unreadable row", facts={"seconds": 9}),
            job(1, 1, 30),
        ),
    ),
    "wrong state: a connection that is missing for three seconds uses up a try": (
        "wrong state",
        history(task(**RETRIED), *missing_connection(8, 11), job(1, 1, 30)),
    ),
    "wrong state: a missing connection uses up a later try that has polled the job": (
        "wrong state",
        failed_without_connection(
            event(9, "task", "[2] Going on with job job_1"),
            event(11, "task", NO_CONNECTION),
        ),
    ),
    "wrong state: a later try fails for another reason while its connection is missing": (
        "wrong state",
        failed_without_connection(event(11, "task", "[2] Task failed with exception | TypeError: a mistake")),
    ),
    "wrong state: a refusal fails the task in its only try": (
        "wrong state",
        history(task(**FAILED, tries=tries((0, 10, "failed"))), refusal(6, 8), job(1, 1, 30)),
    ),
    "orphaned: a refusal fails the task in its only try": (
        "orphaned",
        history(task(**FAILED, tries=tries((0, 10, "failed"))), refusal(6, 8), job(1, 1, 100)),
    ),
    "wrong state: an unreadable row fails a start": (
        "wrong state",
        history(
            task(**FAILED, tries=tries((10, 14, "failed"))),
            Action(at=at(6), kind="spoil_lists", text="each list has an unreadable row", facts={"seconds": 9}),
        ),
    ),
    "doubled: a refusal is treated as a missing job": (
        "doubled",
        history(
            task(returned="job_2", **RETRIED),
            action(10, "kill_task", signal="SIGKILL"),
            refusal(11, 6),
            job(1, 1, 60),
            job(2, 14, 35, try_number=2),
        ),
    ),
    "crashed: a component ends by itself": (
        "crashed",
        history(task(), job(1, 5, 30), action(20, "crash", component="triggerer")),
    ),
    "huge: megabytes of an error message in a log": (
        "huge",
        history(task(), job(1, 5, 30), huge_found=["the file logs/triggerer.log"]),
    ),
    "wrong state: cancelled after a SIGKILL, which the provider cannot notice": (
        "wrong state",
        history(
            task(returned="job_2", **RETRIED),
            cancelled(1, 5, 9),
            action(7, "kill_task", signal="SIGKILL"),
            action(7, "kill", component="scheduler", signal="SIGKILL"),
            job(2, 13, 30, try_number=2),
        ),
    ),
    "wrong state: failed with retries left": (
        "wrong state",
        history(task(**FAILED, tries=tries((0, 40, "failed"), max_tries=2)), job(1, 5, 30, "failed")),
    ),
    "wrong state: skipped": ("wrong state", history(task(state="skipped", returned=None))),
    "key in a log": ("key", history(task(), job(1, 5, 30), keys_found=["the file logs/scheduler.log"])),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_found(name: str) -> None:
    kind, planted = PLANTED[name]
    findings = audit(planted)
    assert findings.count(kind) > 0
    told = report(planted, findings)
    assert f"VIOLATION   {kind}" in told
    last = told.splitlines()[-len(findings.violations) :]
    assert any(line.startswith(f"{kind}: ") for line in last)


ALLOWED = {
    "marked failed before its trigger ran": history(
        task(**FAILED),
        job(1, 1, 90),
        event(19, "airflow", "deferred (try 1)"),
        action(20, "mark_failed", state="deferred"),
    ),
    "marked failed while its triggerer was dead": history(
        task(**FAILED),
        job(1, 1, 150),
        event(8, "airflow", "deferred (try 1)"),
        event(9, "trigger", "[1] trigger load (ID 1) starting"),
        action(18, "kill", component="triggerer"),
        action(20, "mark_failed", state="deferred"),
    ),
    "cleared while it ran, but continued with its job": history(
        task(), job(1, 1, 60), action(18, "clear", state="running")
    ),
    "marked failed about when its worker was killed (before it learned of the mark)": history(
        task(**FAILED),
        job(1, 1, 90),
        action(20, "mark_failed", state="running"),
        action(22, "kill_task", signal="SIGKILL"),
    ),
    "marked failed about when its worker was killed": history(
        task(**FAILED),
        job(1, 1, 90),
        action(15, "kill_task", signal="SIGKILL"),
        action(20, "mark_failed", state="up_for_retry"),
    ),
    "worker killed with no retry left": history(
        task(**FAILED, tries=tries((0, 16, "failed"))), job(1, 1, 90), action(15, "kill_task", signal="SIGKILL")
    ),
    "worker killed with no retry left (by the restart of a scheduler)": history(
        task(**FAILED, tries=tries((5, 60, "failed"))),
        job(1, 8, 90),
        action(4, "kill", component="scheduler", signal="SIGTERM"),
        action(15, "restart", component="scheduler"),
    ),
    "worker killed with no retry left (and with a timeout)": history(
        task(**FAILED, timeout=20, tries=tries((0, 16, "failed"))),
        job(1, 1, 90),
        action(15, "kill_task", signal="SIGKILL"),
    ),
    "could not be cancelled during an outage, according to the log": history(
        task(**FAILED),
        job(1, 1, 150),
        action(20, "mark_failed", state="running"),
        event(18, "task", "[1] The task was killed. Job job_1 could not be cancelled and may still run"),
    ),
    "its start got no response, and no search succeeded before the timeout, according to the log": history(
        task(**FAILED, timeout=20),
        job(1, 1, 150, "failed"),
        event(38, "task", "[1] Task failed | So it is unknown whether a job was started: look at connection conn_load"),
    ),
    "failed by Airflow before its process began": history(
        task(**FAILED, tries=[Try(number=1, ended=at(20), state="failed", max_tries=0)])
    ),
    "unknown which of several jobs a lost start has created": history(
        task(**FAILED),
        job(1, 1, 30),
        event(38, "task", "[1] Task failed | which of them is this task's cannot be told: job_1, job_2"),
        settings={"show_metadata": False},
    ),
    "failed by a kill with no retry left": history(
        task(**FAILED), job(1, 1, 30), action(35, "kill_task", signal="SIGKILL")
    ),
    "killed before a cancel reached Planasonix, according to the log": history(
        task(**FAILED),
        job(1, 1, 150),
        action(20, "mark_failed", state="running"),
        event(24, "task", "[1] POST /api/v1/jobs/job_1/cancel: no answer in time at http://127.0.0.1:1."),
    ),
    "runs on because of cancel_on_kill=False": history(
        task(**FAILED, cancel_on_kill=False), job(1, 1, 90), action(20, "mark_failed", state="running")
    ),
    "runs on after a clear because of cancel_on_kill=False": history(
        task(returned="job_2", cancel_on_kill=False),
        job(1, 1, 60),
        action(18, "clear", state="deferred"),
        job(2, 22, 39),
    ),
    "could start nothing during a disturbance, with no retry left": history(
        task(**FAILED, tries=tries((10, 14, "failed"))), refusal(6, 8, "writes")
    ),
    "could start nothing during a disturbance, with no retry left (a missing connection)": history(
        task(**FAILED, tries=tries((10, 14, "failed"))), *missing_connection(8, 16)
    ),
    "could start nothing during a disturbance, with no retry left (after a clear)": history(
        task(**FAILED, tries=tries((0, 9, "success"), (12, 14, "failed"), max_tries=1)),
        job(1, 1, 8),
        action(10, "clear", state="success"),
        refusal(11, 8, "writes"),
    ),
    "took the work of another task for that of its lost start, without metadata": took_the_job_of_another(),
    "took the work of another task for that of its lost start, without metadata (in the same try)": (
        took_the_job_of_another(message="answered 502. Checking whether a job was started anyway.")
    ),
    "ended by itself before a cancel was due": history(
        task(**FAILED), job(1, 1, 28), action(20, "mark_failed", state="running")
    ),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_a_documented_limit_is_counted_but_is_no_violation(name: str) -> None:
    findings = audit(ALLOWED[name])
    limit = name.partition(" (")[0]
    assert found(findings) == []
    assert findings.limits()[limit] == 1
    assert f"allowed     1: {limit}" in report(ALLOWED[name], findings)


def test_a_violation_is_reported_with_the_timeline_of_its_task() -> None:
    planted = history(
        task(**FAILED),
        job(1, 1, 120),
        action(20, "mark_failed", state="running"),
        action(12, "kill", component="triggerer", signal="SIGKILL"),
        event(2, "task", "[1] Started job job_1"),
    )
    lines = report(planted, audit(planted)).splitlines()
    moments = [line.split("  ")[1:] for line in lines if line.startswith("  12:")]
    assert [moment[0] for moment in moments] == sorted(moment[0] for moment in moments)
    words = " ".join(lines)
    for word in ("job_1 is started by try 1", "Started job job_1", "mark_failed", "job_1 has succeeded", "try 1 ends"):
        assert word in words


# --- Readers ---


def line(
    when: float, do: str, ids: tuple[str, ...] = (), happened: tuple[tuple[str, str, float], ...] = (), **how: Any
):
    events = [{"type": what, "id": one, "at": at(then).isoformat()} for what, one, then in happened]
    return {"at": at(when).isoformat(), "method": do, "arguments": how, "ids": list(ids), "state_changes": events}


METADATA = {
    "dag_id": "chaos",
    "run_id": "r",
    "task_id": "load",
    "map_index": 2,
    "try_number": 3,
    "airflow_attempt": "m",
}


def test_works_of_reads_the_task_and_outcome_of_a_sync() -> None:
    ledger = [
        line(1, "start_sync", ("job_1",), connection_id="c", body={"metadata": METADATA}),
        line(2, "advance", happened=(("job.queued", "job_1", 1),)),
        line(5, "cancel", job_id="job_1"),
        line(9, "advance", happened=(("job.cancelled", "job_1", 6),)),
    ]
    (work,) = works_of(ledger, "r")
    assert (work.id, work.connection_id, work.task, work.try_number, work.mark) == ("job_1", "c", "load[2]", 3, "m")
    assert (work.began, work.cancel_asked, work.ended, work.outcome) == (at(1), at(5), at(6), "cancelled")


def test_works_of_reads_a_backfill_with_its_jobs() -> None:
    born = {"type": "job.queued", "id": "job_1", "backfill_id": "bf_1", "at": at(2).isoformat()}
    ledger = [
        line(1, "start_backfill", ("bf_1",), connection_id="c", body={"metadata": METADATA}),
        line(2, "advance") | {"state_changes": [born]},
        line(5, "cancel", job_id="job_1"),
        line(9, "advance", happened=(("job.cancelled", "job_1", 6), ("backfill.cancelled", "bf_1", 6))),
    ]
    (work,) = works_of(ledger, "r")
    assert (work.id, work.jobs) == ("bf_1", ["job_1"])
    assert (work.cancel_asked, work.ended, work.outcome) == (at(5), at(6), "cancelled")


@pytest.mark.parametrize("metadata", [{}, METADATA | {"run_id": "another"}])
def test_work_without_metadata_of_this_run_has_no_task(metadata: dict[str, Any]) -> None:
    (work,) = works_of([line(1, "start_sync", ("job_1",), connection_id="c", body={"metadata": metadata})], "r")
    assert work.task is None


def test_truncated_ledger_lines_are_skipped(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text(json.dumps(line(1, "advance")) + '\n{"at": "20' + "\n" + json.dumps(line(2, "cancel")) + "\n")
    assert [each["method"] for each in read_ledger(ledger)] == ["advance", "cancel"]


def test_a_key_is_found_in_any_file(tmp_path: Path) -> None:
    (tmp_path / "logs" / "deep").mkdir(parents=True)
    (tmp_path / "logs" / "deep" / "task.log").write_bytes(b"\xff\x00 Bearer plnx_two\n")
    (tmp_path / "clean.log").write_text("plnx_twin")
    (tmp_path / "planasonix").mkdir()
    (tmp_path / "planasonix" / "ledger.jsonl").write_text("plnx_one")
    assert list(keys_in_files(tmp_path, ["plnx_one", "plnx_two"])) == ["the file logs/deep/task.log"]


def test_the_auditor_shares_no_code_with_the_provider() -> None:
    look = "import sys, tests.chaos.auditor, tests.chaos.readers, tests.chaos.report as r; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "tests.chaos.auditor" in loaded.split()
    assert not [name for name in loaded.split() if name.startswith(("planasonix_provider", "airflow"))]


def test_orphans_that_the_command_leaves_are_a_violation() -> None:
    work = cancelled(1, 5, 200)
    left = history(task("failed", None), work, action(100, "orphans", left=["job_1"], cancelled=[]))
    assert ("orphaned", "job_1 runs on after `orphans --cancel`") in found(audit(left))


@pytest.mark.parametrize("show_metadata", [False, True])
def test_an_unknown_orphan_is_allowed_only_if_the_api_shows_no_metadata(show_metadata: bool) -> None:
    reported = action(100, "orphans", left=[], unknown=["job_1"], cancelled=[])
    findings = audit(history(task("failed", None), job(1, 1, 200), reported, settings={"show_metadata": show_metadata}))
    assert ("start that `orphans --cancel` reports as unknown" in findings.limits()) != show_metadata
    assert [one.text for one in findings.violations if "orphans --cancel" in one.text] == [
        "job_1 is unknown to `orphans --cancel`, despite its metadata"
    ] * show_metadata


def test_a_cancel_by_the_command_for_orphans_is_no_violation() -> None:
    gone = action(30, "kill_task", signal="SIGKILL", state="running")
    given_up = (task("failed", None), cancelled(1, 5, 101), gone)
    text = ("wrong state", "job_1 was cancelled without a reason")
    assert text in found(audit(history(*given_up)))
    assert text not in found(audit(history(*given_up, action(100, "orphans", left=[], cancelled=["job_1"]))))
