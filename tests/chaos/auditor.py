"""Judges the result of a storm: which task owns each piece of work, and does the work justify the task's state?

The auditor shares no code with the provider and knows only what the provider promises. An attempt lasts until its work
is over: a retry continues the work of the previous try, and starts new work only after the old one failed or was
cancelled, or after a clear.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from tests.chaos.history import Action, Event, History, Task, Try, Work
from tests.chaos.metrics import disagreements

#: How long work may run after the end of its attempt, before the cancel arrives: Airflow notifies a task on a worker
#: with its next heartbeat, and a trigger within ten seconds.
GRACE = timedelta(seconds=15)
#: The same during a disturbance.
GRACE_IN_TROUBLE = timedelta(seconds=45)
#: The first such line in a task's log comes just before its operator executes.
EXECUTES = "::endgroup::"
#: How long a try may take from its start until its process knows the work, on a busy machine.
SLOW_START = timedelta(seconds=45)
#: The maximum time from an action to an event that it causes.
CAUSE = timedelta(seconds=45)
#: How long a task may search for work before it sends the request again, on a busy machine.
SEARCH = timedelta(seconds=90)
#: Airflow's database and the ledger use the same clock, but do not write their entries at the same moment.
SLACK = timedelta(seconds=1)

DONE = ("succeeded", "completed")
OVER = ("success", "failed", "skipped", "upstream_failed", "removed")
#: Components whose death delays a cancel.
ON_THE_WAY = ("simulator", "api-server", "triggerer", "triggerer-2")
#: A log line of tasks that Airflow ends.
ENDED_BY_AIRFLOW = "shouldn't be running"
#: A log line of tasks that their supervisor ends because no heartbeat reaches Airflow.
ENDED_BY_SUPERVISOR = "3 heartbeats failed"
#: A log line of tasks whose Airflow connection is missing.
NO_CONNECTION = "There is no Airflow connection"
#: Log lines of tasks that search for the work of a start that got no response.
SEARCH_MESSAGES = ("was started anyway", "was about to start")
PLACES_OF_TASKS = ("scheduler", "celery-worker", "celery-worker-2")

#: Short disturbances: a try whose work was already polled must survive them.
PASSING = ("refuse", "spoil_lists", "delete_connection")
#: Disturbances that may make a start fail. An unreadable row is not one of them.
IN_THE_WAY_OF_A_START = ("refuse", "delete_connection")
#: How long a disturbance must be tolerated.
PATIENCE = timedelta(seconds=60)
#: How long a disturbance may end tasks after it is over.
AFTERMATH = timedelta(seconds=5)

VIOLATIONS = ("lost", "doubled", "orphaned", "stuck", "wrong state", "crashed", "huge", "key", "metrics")


@dataclass(frozen=True)
class Violation:
    """A violation of a kind in :data:`VIOLATIONS`."""

    kind: str
    task: str | None
    text: str


@dataclass
class Findings:
    """The result of an audit: violations, and what documented limits allow, as pairs of limit and text."""

    violations: list[Violation] = field(default_factory=list)
    allowed: list[tuple[str, str]] = field(default_factory=list)

    def violate(self, kind: str, task: str | None, text: str) -> None:
        self.violations.append(Violation(kind, task, text))

    def allow(self, limit: str, text: str) -> None:
        self.allowed.append((limit, text))

    def count(self, kind: str) -> int:
        return sum(violation.kind == kind for violation in self.violations)

    def limits(self) -> Counter[str]:
        return Counter(limit for limit, _ in self.allowed)


def audit(history: History) -> Findings:
    """Return the findings about the history of a storm."""
    findings = Findings()
    for place in history.keys_found:
        findings.violate("key", None, f"an API key is in {place}")
    for place in history.huge_found:
        findings.violate("huge", None, f"a text of megabytes is in {place}")
    for action in history.actions:
        if action.kind == "crash":
            findings.violate("crashed", None, action.text)
        for work_id in action.facts.get("left", ()):
            findings.violate("orphaned", None, f"{work_id} runs on after `orphans --cancel`")
        for work_id in action.facts.get("unknown", ()):
            if history.settings.get("show_metadata"):
                findings.violate("orphaned", None, f"{work_id} is unknown to `orphans --cancel`, despite its metadata")
            else:
                findings.allow("start that `orphans --cancel` reports as unknown", f"{work_id} runs on")
    names = {task.name for task in history.tasks}
    for work in history.works:
        if work.task not in names:
            findings.violate("lost", work.task, f"{work.id} on {work.connection_id} belongs to no task")
        if work.ended is None:
            findings.violate("stuck", work.task, f"{work.id} is not over")
    for task in history.tasks:
        _Case(history, task, findings).judge()
    for text, reason in disagreements(history):
        if reason:
            findings.allow(reason, text)
        else:
            findings.violate("metrics", None, text)
    return findings


class _Case:
    """Judges one task, and adds to the findings."""

    def __init__(self, history: History, task: Task, findings: Findings) -> None:
        self.history = history
        self.task = task
        self.findings = findings
        self.works = sorted((work for work in history.works if work.task == task.name), key=lambda work: work.began)
        self.actions = [action for action in history.actions if action.task == task.name]

    def judge(self) -> None:
        if self.task.state not in OVER:
            self._violate("stuck", f"the task is {self.task.state}")
        self._judge_starts()
        self._judge_abandoned_work()
        self._judge_timeout()
        self._judge_cancels()
        self._judge_tries()
        if self.task.state == "success":
            self._judge_success()
            self._judge_clears()
        elif self.task.state == "failed":
            self._judge_failure()
        elif self.task.state in OVER:
            self._violate("wrong state", f"the task is {self.task.state} without a reason")

    def _violate(self, kind: str, text: str) -> None:
        self.findings.violate(kind, self.task.name, text)

    def _allow(self, limit: str, text: str) -> None:
        self.findings.allow(limit, f"{self.task.name}: {text}")

    # --- Was the work started once? ---

    def _judge_starts(self) -> None:
        for mark, times in Counter(work.mark for work in self.works if work.mark).items():
            if times > 1:
                self._violate("doubled", f"{times} pieces of work were started as {mark}")
        for work in self.works:
            if not self._was_a_try(work.try_number):
                self._violate("lost", f"{work.id} belongs to try {work.try_number}, which does not exist")
            if work.connection_id != self.task.connection_id:
                self._violate("lost", f"{work.id} is on {work.connection_id}, and not on {self.task.connection_id}")
        for old, new in zip(self.works, self.works[1:], strict=False):
            if old.mark and old.mark == new.mark:
                continue
            clear = self._action("clear", old.began - SLACK, new.began)
            is_over = old.ended is not None and old.ended <= new.began + SLACK
            if clear and not is_over:
                if not self.task.cancel_on_kill:
                    self._allow("runs on after a clear because of cancel_on_kill=False", old.id)
                else:
                    self._violate("orphaned", f"{old.id} still ran when the cleared task started {new.id}")
            elif not clear and not is_over:
                self._violate("doubled", f"{old.id} still ran when {new.id} was started")
            elif not clear and old.outcome in DONE:
                self._violate("doubled", f"{new.id} was started after {old.id}, which has {old.outcome}")

    # --- Did the work end with its attempt? ---

    def _judge_abandoned_work(self) -> None:
        for work, at, why, action in self._abandoned_work():
            if work.ended is not None and work.ended <= at + SLACK:
                continue
            if not self.task.cancel_on_kill:
                self._allow("runs on because of cancel_on_kill=False", f"{work.id}, {why}")
                continue
            late = at + (GRACE_IN_TROUBLE if self._is_troubled(at) else GRACE)
            if work.cancel_asked and work.cancel_asked <= late:
                continue
            ran_on = (work.ended or self.history.ended) - at
            text = f"{work.id} ran on for {ran_on.total_seconds():.0f} s after the task {why}"
            if limit := self._limit_of(work, at, action):
                self._allow(limit, text)
            elif work.ended is None or work.ended > late:
                self._violate("orphaned", text)
            else:
                self._allow("ended by itself before a cancel was due", text)

    def _abandoned_work(self) -> Iterator[tuple[Work, datetime, str, Action | None]]:
        """Yield work whose attempt ended, with the time, the reason and the action.

        Cleared work is judged when the next work starts.
        """
        marks = [action for action in self.actions if action.kind == "mark_failed"]
        for mark in marks:
            for work in self.works:
                clear = self._action("clear", mark.at, work.began)
                # The process may start this work just before it learns of the mark.
                if not clear and work.began <= mark.at + GRACE and (work.ended is None or work.ended > mark.at):
                    yield work, max(mark.at, work.began), "was marked failed", mark
        last = self.task.tries[-1] if self.task.tries else None
        was_marked = last and any(last.began is None or mark.at >= last.began for mark in marks)
        if self.task.state == "failed" and last and last.ended and self.works and not was_marked:
            yield self.works[-1], last.ended, "had failed for good", None
        for clear in (action for action in self.actions if action.kind == "clear"):
            old = [work for work in self.works if work.began <= clear.at]
            is_followed = any(work.began > clear.at for work in self.works)
            is_kept = self.task.state == "success" and old and self.task.returned == old[-1].id
            if old and not is_followed and not is_kept and (old[-1].ended is None or old[-1].ended > clear.at):
                yield old[-1], clear.at, "was cleared", clear

    def _judge_timeout(self) -> None:
        """Work must not run after the timeout of the last try. Each try has its own timeout."""
        last = self.task.tries[-1] if self.task.tries else None
        if not (self.task.timeout and last and last.began and self.works):
            return
        for work in self.works:
            began = max((one.began for one in self.task.tries if one.began and one.began <= work.began), default=None)
            if began and work.began > self._executed_at(began) + timedelta(seconds=self.task.timeout) + GRACE:
                self._violate("wrong state", f"{work.id} was started after the timeout of its try")
        work, up = self.works[-1], self._executed_at(last.began) + timedelta(seconds=self.task.timeout)
        late = max(up, self._knew_work_at(work, last.began)) + (GRACE_IN_TROUBLE if self._is_troubled(up) else GRACE)
        is_given_up = self._action("mark_failed", last.began - SLACK, late)
        if self.task.state == "failed" and self._limit_of(work, last.ended or up, None):
            return
        if (work.cancel_asked or work.ended or self.history.ended) > late and not is_given_up:
            self._violate("orphaned", f"{work.id} ran on after the timeout of try {last.number}")

    def _executed_at(self, began: datetime) -> datetime:
        """Return when the operator of a try executed: Airflow first starts a process and parses the DAG."""
        begins = (event.at for event in self._events("task", began, began + SLOW_START) if EXECUTES in event.text)
        return min(begins, default=began)

    def _knew_work_at(self, work: Work, began: datetime) -> datetime:
        """Return when a try first logged its work: for Airflow, a try starts before its process."""
        words = (event.at for event in self._events("task", began, began + SLOW_START) if work.id in event.text)
        return min(words, default=began)

    def _limit_of(self, work: Work, at: datetime, action: Action | None) -> str | None:
        """Return the documented limit that lets work run on, if any."""
        state = action.facts.get("state") if action else None
        # A try that started since then knows the work.
        since = max((one.began for one in self.task.tries if one.began and one.began <= at), default=at)
        if self._has_logged(work, "could not be cancelled", since):
            return "could not be cancelled during an outage, according to the log"
        if self._has_logged(work, "unknown whether", since):
            return "its start got no response, and no search succeeded before the timeout, according to the log"
        if any(self._has_logged(work, f"{job_id}/cancel: ", since) for job_id in work.jobs or [work.id]):
            return "killed before a cancel reached Planasonix, according to the log"
        if state == "deferred" and not self._was_notified(at):
            if not self._trigger_ran(at):
                return "marked failed before its trigger ran"
            if self._killed(("triggerer", "triggerer-2"), at - CAUSE, at + GRACE):
                return "marked failed while its triggerer was dead"
        # The task may also be killed before it learns of the mark.
        until = at + GRACE if action else at
        if self._action("kill_task", since, until, signal="SIGKILL") or self._killed(PLACES_OF_TASKS, since, until):
            if action is None:
                return "worker killed with no retry left"
            if state in ("running", "up_for_retry", "queued", "scheduled"):
                return "marked failed about when its worker was killed"
        return None

    def _was_notified(self, at: datetime) -> bool:
        return any("invoking on_kill" in event.text for event in self._events("trigger", at, at + GRACE_IN_TROUBLE))

    def _trigger_ran(self, at: datetime) -> bool:
        """Return whether the trigger of the last deferral had started."""
        deferred = [
            event.at
            for event in self._events("airflow", datetime.min.replace(tzinfo=at.tzinfo), at)
            if event.text.startswith("deferred")
        ]
        since = max(deferred, default=at)
        return any("starting" in event.text for event in self._events("trigger", since - SLACK, at))

    # --- Was the work cancelled for a reason? ---

    def _judge_cancels(self) -> None:
        for work in self.works:
            at = work.cancel_asked
            if at is None:
                continue
            if not self.task.cancel_on_kill:
                self._violate("wrong state", f"{work.id} was cancelled despite cancel_on_kill=False")
                continue
            began = [one.began for one in self.task.tries if one.began and one.began <= at]
            timeout = timedelta(seconds=self.task.timeout or 0)
            causes = [
                self.task.timeout and any(then + timeout <= at for then in began),
                self._action("mark_failed", work.began - SLACK, at + SLACK),
                # The trigger cancels at once, but the next try may start much later.
                self._action("clear", work.began - SLACK, at + SLACK),
                self._action("kill_task", at - CAUSE, at + SLACK, signal="SIGTERM"),
                self._killed(PLACES_OF_TASKS, at - CAUSE, at + SLACK, signal="SIGTERM"),
                any(work.id in action.facts.get("cancelled", ()) for action in self.history.actions),
                self._is_ended_by_airflow(at) or (self._is_ended_by_supervisor(at) and not self._has_a_retry_left(at)),
            ]
            if not any(causes):
                self._violate("wrong state", f"{work.id} was cancelled without a reason")

    # --- Did each try fail for a reason? ---

    def _judge_tries(self) -> None:
        """A disturbance of less than a minute must not fail a try whose work was polled before it."""
        for one in self.task.tries:
            if one.state not in ("failed", "up_for_retry") or not (one.began and one.ended):
                continue
            disturbance = self._disturbance(self._executed_at(one.began), one.ended)
            if disturbance is None or self._has_another_reason(one.began, one.ended):
                continue
            began = max((work.began for work in self.works if work.began <= disturbance.at - SLACK), default=None)
            last = next((work for work in self.works if work.began == began), None)
            ran = last and (last.ended is None or last.ended > one.ended or last.outcome in DONE)
            if not (last and ran) or self._action("clear", last.began, one.ended):
                continue
            if not (disturbance.kind == "delete_connection" and self._had_no_connection(one, last)):
                self._violate("wrong state", f"try {one.number} failed with {last.id} because {disturbance.text}")

    def _had_no_connection(self, one: Try, work: Work) -> bool:
        """Return whether the connection was missing when a try began. It reads the connection before it names work."""
        prefix = f"[{one.number}]"
        log = [
            event.text
            for event in self.history.events
            if event.task == self.task.name and event.source == "task" and event.text.startswith(prefix)
        ]
        return any(NO_CONNECTION in line for line in log) and not any(work.id in line for line in log)

    def _disturbance(self, began: datetime, ended: datetime) -> Action | None:
        """Return a short disturbance during which a try ended."""
        for action in self.history.actions:
            if action.kind in PASSING and began <= action.at <= ended:
                over = self._over(action)
                if over - action.at <= PATIENCE and ended <= over + AFTERMATH:
                    return action
        return None

    def _over(self, action: Action) -> datetime:
        """Return when a disturbance ended. A deleted connection is a disturbance until it is created again."""
        if action.kind == "delete_connection":
            created = [
                each.at for each in self.history.actions if each.kind == "create_connection" and each.at >= action.at
            ]
            return min(created, default=self.history.ended)
        return action.at + timedelta(seconds=float(action.facts.get("seconds", 0)))

    def _has_another_reason(self, began: datetime, ended: datetime) -> bool:
        """Return whether a try may have ended for any other reason."""
        since, until = began - SLACK, ended + SLACK
        return bool(
            self.task.timeout
            or any(self._action(kind, since, until) for kind in ("kill_task", "mark_failed", "clear"))
            or self._killed((*PLACES_OF_TASKS, "api-server"), since, until)
            or self._is_ended_by_airflow(ended)
            or self._is_ended_by_supervisor(ended)
            or any("this task's cannot be told" in event.text for event in self._events("task", since, until))
        )

    # --- Does the work justify the task's state? ---

    def _judge_success(self) -> None:
        works = {work.id: work for work in self.history.works}
        accounted = works.get(self.task.returned or "")
        if accounted is None:
            self._violate("lost", f"the task has succeeded and returned {self.task.returned}, which was never started")
        elif accounted.outcome not in DONE:
            self._violate("wrong state", f"the task has succeeded, but {accounted.id} was {accounted.outcome}")
        elif self.works and accounted.id != self.works[-1].id and accounted.task == self.task.name:
            self._violate("lost", f"the task has returned {accounted.id}, and not its last work {self.works[-1].id}")
        elif accounted.task != self.task.name and self.task.on_conflict != "attach":
            text = f"the task has returned {accounted.id}, which belongs to {accounted.task}"
            if self._can_mistake(accounted):
                self._allow("took the work of another task for that of its lost start, without metadata", text)
            else:
                self._violate("lost", text)

    def _can_mistake(self, work: Work) -> bool:
        """Return whether the task can take the work of another task for that of its start that got no response.

        The work has no metadata, the task has no running work, and it searched after it may have sent its start.
        """
        if self.history.settings.get("show_metadata") or work.connection_id != self.task.connection_id:
            return False
        if any(own.ended is None or own.ended > work.began for own in self.works):
            return False
        return any(
            self._sent_start_at(event) <= work.began <= event.at + SEARCH
            for event in self.history.events
            if event.task == self.task.name and any(words in event.text for words in SEARCH_MESSAGES)
        )

    def _sent_start_at(self, search: Event) -> datetime:
        """Return the earliest time of the start that a task searches for: its try, or the try before, has sent it."""
        begins = [one.began for one in self.task.tries if one.began and one.began <= search.at]
        return begins[-2:][0] if begins else search.at

    def _judge_clears(self) -> None:
        """After a clear, a task must not report work from before it."""
        kept = next((work for work in self.works if work.id == self.task.returned), None)
        clear = next(
            (action for action in self.actions if action.kind == "clear" and kept and action.at > kept.began), None
        )
        if clear and kept:
            state = clear.facts.get("state")
            if state == "running":
                self._allow("cleared while it ran, but continued with its job", kept.id)
            else:
                self._violate("wrong state", f"the task was cleared ({state}), but returned {kept.id} from before")

    def _judge_failure(self) -> None:
        last = self.task.tries[-1] if self.task.tries else None
        began = (last and last.began) or self.history.ended
        ended = (last and last.ended) or self.history.ended
        if any(action.kind == "mark_failed" and action.at >= began - SLACK for action in self.actions):
            return
        if self.task.timeout and not self.works and ended >= began + timedelta(seconds=self.task.timeout) - SLACK:
            # The timeout passed before the task could start work.
            return
        if any(
            "this task's cannot be told" in event.text for event in self._events("task", began - SLACK, ended + SLACK)
        ):
            if self.history.settings.get("show_metadata"):
                self._violate("wrong state", "the task did not recognize its work, although the API shows metadata")
            else:
                self._allow("unknown which of several jobs a lost start has created", f"try {last and last.number}")
            return
        if last and last.max_tries is not None and last.number <= last.max_tries:
            self._violate("wrong state", f"the task has failed at try {last.number} of {last.max_tries + 1}")
            return
        work = self.works[-1] if self.works else None
        if work and work.outcome in ("failed", "cancelled"):
            return
        killed = self._action("kill_task", began - SLACK, ended) or self._killed(
            (*PLACES_OF_TASKS, "api-server"), began - SLACK, ended + SLACK
        )
        has = f"its last work {work.id} has {work.outcome}" if work else "no work was started"
        is_fresh = work is None or self._action("clear", work.began, ended)
        if last and not last.began:
            self._allow("failed by Airflow before its process began", has)
        elif is_fresh and (disturbance := self._blocking_disturbance(began, ended)):
            self._allow("could start nothing during a disturbance, with no retry left", f"{disturbance.text}; {has}")
        elif killed:
            self._allow("failed by a kill with no retry left", f"{killed.text}; {has}")
        else:
            self._violate("wrong state", f"the task has failed without a reason; {has}")

    # --- Helpers ---

    def _was_a_try(self, number: int | None) -> bool:
        """Return whether a try existed; if the scheduler treated it as lost, only the log shows it."""
        ran = f"running (try {number})"
        return any(one.number == number for one in self.task.tries) or any(
            event.task == self.task.name and event.source == "airflow" and event.text == ran
            for event in self.history.events
        )

    def _is_ended_by_airflow(self, at: datetime) -> bool:
        """Return whether Airflow ended the process: the task was reset, or its heartbeats were too late."""
        return any(ENDED_BY_AIRFLOW in event.text for event in self._events("task", at - CAUSE, at + SLACK))

    def _is_ended_by_supervisor(self, at: datetime) -> bool:
        """Return whether the supervisor ended the process because it could not reach Airflow."""
        return any(ENDED_BY_SUPERVISOR in event.text for event in self._events("supervisor", at - CAUSE, at + SLACK))

    def _has_a_retry_left(self, at: datetime) -> bool:
        """Return whether a retry was left after the try that ran at that time."""
        tries = [one for one in self.task.tries if one.began and one.began <= at]
        return bool(tries and tries[-1].max_tries is not None and tries[-1].number <= tries[-1].max_tries)

    def _blocking_disturbance(self, began: datetime, ended: datetime) -> Action | None:
        """Return a disturbance during a try that blocks starts and cancels."""
        passing = (action for action in self.history.actions if action.kind in IN_THE_WAY_OF_A_START)
        return next((action for action in passing if action.at <= ended and self._over(action) >= began), None)

    def _action(self, kind: str, since: datetime, until: datetime, **facts: object) -> Action | None:
        """Return an action on this task."""
        for action in self.actions:
            if action.kind == kind and since <= action.at <= until and facts.items() <= action.facts.items():
                return action
        return None

    def _killed(self, components: tuple[str, ...], since: datetime, until: datetime, **facts: object) -> Action | None:
        """Return a kill of one of the components. A restart counts, because it first kills remaining processes."""
        for action in self.history.actions:
            is_one = action.kind in ("kill", "freeze", "restart") and action.facts.get("component") in components
            if is_one and since <= action.at <= until and facts.items() <= action.facts.items():
                return action
        return None

    def _is_troubled(self, at: datetime) -> bool:
        faults = [
            action
            for action in self.history.actions
            if action.kind == "fault" and not str(action.facts.get("route")).startswith("trigger_")
        ]
        is_faulty = any(at - GRACE <= action.at <= at + GRACE for action in faults)
        is_killed = self._killed(ON_THE_WAY, at - GRACE, at + GRACE) is not None
        return is_faulty or is_killed or self._blocking_disturbance(at - GRACE, at + GRACE) is not None

    def _events(self, source: str, since: datetime, until: datetime) -> list[Event]:
        return [
            event
            for event in self.history.events
            if event.task == self.task.name and event.source == source and since <= event.at <= until
        ]

    def _has_logged(self, work: Work, words: str, since: datetime) -> bool:
        """Return whether a log has these words together with the work."""
        return any(
            words in event.text and any(each in event.text for each in (work.id, work.connection_id, *work.jobs))
            for event in self.history.events
            if event.task == self.task.name and event.at >= since - SLACK
        )


def main() -> int:
    """Audit a stored history; the exit code is 1 if there is a violation."""
    from tests.chaos.report import report

    history = History.model_validate_json(Path(sys.argv[1]).read_text())
    findings = audit(history)
    print(report(history, findings))
    return 1 if findings.violations else 0


if __name__ == "__main__":
    sys.exit(main())
