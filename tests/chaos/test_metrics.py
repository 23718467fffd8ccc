"""The comparison of metrics with the ledger."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from tests.chaos.auditor import audit
from tests.chaos.history import Counted, History
from tests.chaos.metrics import EXPECTED, MetricsListener, disagreements
from tests.chaos.report import report
from tests.chaos.test_auditor import action, cancelled, found, history, job, other, task, took_the_job_of_another


def counted(**numbers: int) -> dict[str, Any]:
    counts = [Counted(connection_id="conn_load", what=what, number=n) for what, n in numbers.items()]
    return {"counted": counts, "metric_values": dict.fromkeys(EXPECTED, 1)}


AGREE = {
    "each start and each end": history(task(), job(1, 5, 30), **counted(started=1, succeeded=1)),
    "no listener": history(task(), job(1, 5, 30)),
    "the end was not sent by a killed worker": history(
        task(), job(1, 5, 30), action(31, "kill_task", signal="SIGKILL"), **counted(started=1)
    ),
    "the start was not sent by a killed worker": history(
        task(), job(1, 5, 30), action(6, "kill", component="scheduler", signal="SIGKILL"), **counted(succeeded=1)
    ),
    "an attached task has sent the end, too": history(
        task(on_conflict="attach"), job(1, 5, 30), **counted(started=1, succeeded=2)
    ),
    "a task takes the job of another task for its own": took_the_job_of_another().model_copy(
        update=counted(started=2, succeeded=2)
    ),
    "the cancel of a clear": history(
        task(returned="job_2"),
        cancelled(1, 1, 20),
        action(18, "clear", state="deferred"),
        job(2, 22, 39),
        **counted(started=2, cancelled=1, succeeded=1),
    ),
}

DISAGREE = {
    "a start is missing": (history(task(), job(1, 5, 30), **counted(succeeded=1)), "0 started sent, 1 in the ledger"),
    "an end is missing": (history(task(), job(1, 5, 30), **counted(started=1)), "0 succeeded sent, 1 in the ledger"),
    "an end is missing although the task waited for it": (
        history(task(cancel_on_kill=False), job(1, 5, 30), **counted(started=1)),
        "0 succeeded sent, 1 in the ledger",
    ),
    "a start was sent twice": (
        history(task(), job(1, 5, 30), **counted(started=2, succeeded=1)),
        "2 started sent, 1 in the ledger",
    ),
    "an attached task has sent the start although it can recognise its own": (
        history(
            task(),
            job(1, 5, 30),
            others=[other(on_conflict="attach")],
            settings={"show_metadata": True},
            **counted(started=2, succeeded=2),
        ),
        "2 started sent, 1 in the ledger",
    ),
    "a start was sent twice on the connection of two tasks": (
        history(
            task(),
            job(1, 5, 30),
            job(2, 40, 60, task="other"),
            others=[other(returned="job_2")],
            **counted(started=3, succeeded=2),
        ),
        "3 started sent, 2 in the ledger",
    ),
    "more is missing than kills explain": (
        history(
            task(returned="job_2", tries=[]),
            job(1, 5, 10, "failed"),
            job(2, 200, 230),
            action(6, "kill", component="scheduler"),
            **counted(failed=1, succeeded=1),
        ),
        "0 started sent, 2 in the ledger",
    ),
    "nothing was sent": (history(task(), job(1, 5, 30), **counted()), "0 started sent, 1 in the ledger"),
}


@pytest.mark.parametrize("name", AGREE)
def test_metrics_without_unexplained_differences_agree(name: str) -> None:
    story: History = AGREE[name]
    assert found(audit(story)) == []
    if story.counted is not None:
        assert "metrics     agree; started " in report(story, audit(story))


@pytest.mark.parametrize("name", DISAGREE)
def test_unexplained_differences_of_metrics_are_a_violation(name: str) -> None:
    story, text = DISAGREE[name]
    assert ("metrics", f"conn_load: {text}") in found(audit(story))
    assert "metrics     disagree; " in report(story, audit(story))


def test_a_triggerer_that_sends_nothing_is_a_violation() -> None:
    story = history(task(), job(1, 5, 30), **counted(started=1, succeeded=1))
    del story.metric_values["planasonix.waits.deferred"]
    assert found(audit(story)) == [("metrics", "no value of planasonix.waits.deferred was sent")]


def test_the_listener_adds_up_metrics_of_operators() -> None:
    listener = MetricsListener()
    tags = "conn_id=a,connection_id=conn_load,kind=job"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for line in (
            f"airflow.planasonix.job.started,{tags}:1|c",
            f"airflow.planasonix.job.started,{tags}:1|c",
            f"airflow.planasonix.job.succeeded,{tags},source=sensor:1|c",
            f"airflow.planasonix.job.duration,{tags},source=operator:1000|ms",
            f"airflow.planasonix.job.succeeded,{tags},source=operator:1|c",
        ):
            sender.sendto(line.encode(), ("127.0.0.1", int(listener.settings["AIRFLOW__METRICS__STATSD_PORT"])))
    deadline = time.monotonic() + 60
    while len(listener.counted()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert listener.values["planasonix.job.duration"] == 1
    assert {each.what: each.number for each in listener.counted()} == {"started": 2, "succeeded": 1}


def test_a_missing_end_of_work_that_was_left_running_is_allowed() -> None:
    story = history(task("failed", cancel_on_kill=False), job(1, 5, 80), **counted(started=1))
    assert [reason for _, reason in disagreements(story)] == ["metrics of work that was left running"]
