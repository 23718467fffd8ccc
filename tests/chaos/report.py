"""Formats the findings of the auditor: counts first, then the timeline of each violation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from tests.chaos.auditor import VIOLATIONS, Findings
from tests.chaos.history import History
from tests.chaos.metrics import summary

#: Actions this long before and after the events of a task are in its timeline, too.
NEAR = timedelta(seconds=20)

#: The actions that are neither a kill nor a fault.
OTHERS = (
    *("clear", "mark_failed", "rotate", "revoke", "refuse", "spoil_lists", "delete_connection", "crash", "not done"),
)


def report(history: History, findings: Findings) -> str:
    """Return the report of an audit."""
    return "\n".join(_lines(history, findings))


def _lines(history: History, findings: Findings) -> Iterator[str]:
    kills = Counter(
        f"{action.facts.get('signal', 'SIGSTOP')} {_victim(action.facts)}"
        for action in history.actions
        if action.kind in ("kill", "kill_task", "freeze")
    )
    faults = Counter(_fault(action.facts) for action in history.actions if action.kind == "fault")
    others = Counter(action.kind for action in history.actions if action.kind in OTHERS)
    jobs = sum(len(work.jobs) or 1 for work in history.works)
    how = "two triggerers, Celery with two workers" if history.distributed else "LocalExecutor"
    yield f"Seed {history.seed}, {how}, {history.settings}"
    yield f"kills       {sum(kills.values())}: {_counts(kills)}"
    yield f"faults      {sum(faults.values())}: {_counts(faults)}"
    yield f"actions       {_counts(others)}"
    yield f"responses   {_counts(Counter(history.refused))}"
    yield f"tasks       {len(history.tasks)}: {_counts(Counter(str(task.state) for task in history.tasks))}"
    yield f"tries       {sum(len(task.tries) for task in history.tasks)}"
    outcomes = Counter(str(work.outcome) for work in history.works)
    yield f"work        {len(history.works)}: {_counts(outcomes)}; {jobs} jobs"
    if history.counted is not None:
        verdict = "disagree" if findings.count("metrics") else "agree"
        yield f"metrics     {verdict}; {', '.join(summary(history))}"
    for limit, count in sorted(findings.limits().items()):
        yield f"allowed     {count}: {limit}"
        for text in (text for its_limit, text in findings.allowed if its_limit == limit):
            yield f"              {text}"
    yield "violations  " + ", ".join(f"{findings.count(kind)} {kind}" for kind in VIOLATIONS)
    told = set()
    for violation in findings.violations:
        yield ""
        yield f"VIOLATION   {violation.kind}: {violation.task or ''} {violation.text}"
        if violation.task and violation.task not in told:
            told.add(violation.task)
            yield from timeline(history, violation.task)
    if findings.violations:
        # Repeat them at the end, because readers of a long output start there.
        yield ""
        yield from (f"{each.kind}: {each.task or ''} {each.text}" for each in findings.violations)


def timeline(history: History, name: str) -> Iterator[str]:
    """Yield the lines of a task's timeline: its work, tries, log entries and the storm's actions, by time."""
    moments: list[tuple[datetime, str, str]] = []
    for work in history.works:
        if work.task == name:
            moments.append((work.began, "planasonix", f"{work.id} is started by try {work.try_number} as {work.mark}"))
            if work.cancel_asked:
                moments.append((work.cancel_asked, "planasonix", f"{work.id} is asked to cancel"))
            if work.ended:
                moments.append((work.ended, "planasonix", f"{work.id} has {work.outcome}"))
    for task in history.tasks:
        if task.name == name:
            for one in task.tries:
                if one.began:
                    moments.append((one.began, "airflow", f"try {one.number} begins"))
                if one.ended:
                    moments.append((one.ended, "airflow", f"try {one.number} ends: {one.state}"))
    moments += [(event.at, event.source, event.text) for event in history.events if event.task == name]
    if moments:
        first, last = min(moments)[0] - NEAR, max(moments)[0] + NEAR
        moments += [
            (action.at, "STORM", action.text)
            for action in history.actions
            if action.task == name or (action.task is None and first <= action.at <= last)
        ]
    for at, source, text in sorted(moments):
        yield f"  {at:%H:%M:%S}.{at.microsecond // 1000:03}  {source:10}  {text}"


def _victim(facts: dict[str, object]) -> object:
    if facts.get("in_start"):
        return "task during its start"
    return facts.get("component") or ("task with its supervisor" if facts.get("with_supervisor") else "task")


def _fault(facts: dict[str, object]) -> str:
    kind = str(facts.get("status") if facts.get("kind") == "status" else facts.get("kind"))
    return f"{kind} {facts['when']} a start" if str(facts.get("route", "")).startswith("trigger_") else kind


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
