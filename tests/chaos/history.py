"""The history of a storm as data. The auditor judges it, and can do so again from the stored file."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel


class Try(BaseModel):
    """One try of a task, from Airflow's database.

    :param max_tries: Airflow's ``max_tries`` at that time: a retry is left if ``number`` is at most this.
    """

    number: int
    max_tries: int | None = None
    state: str | None = None
    began: datetime | None = None
    ended: datetime | None = None


class Task(BaseModel):
    """A task instance.

    :param name: its task_id, with the map index if it is mapped.
    :param connection_id: the connection in Planasonix.
    :param starts: "job" or "backfill".
    :param cancel_on_kill: whether its work must be cancelled when it ends early.
    :param on_conflict: how it handles a running sync of the same connection.
    :param timeout: its timeout in seconds.
    :param state: its last state in Airflow.
    :param tries: its tries in order.
    :param returned: the id of the work in its result.
    """

    name: str
    connection_id: str
    starts: str = "job"
    cancel_on_kill: bool = True
    on_conflict: str = "fail"
    timeout: float | None = None
    state: str | None = None
    tries: list[Try] = []
    returned: str | None = None


class Work(BaseModel):
    """A sync or a backfill, from the simulator's ledger.

    :param id: its id.
    :param connection_id: its connection.
    :param task: the name of its task, from its metadata.
    :param try_number: the try that started it, from its metadata.
    :param mark: the key of its attempt, from its metadata.
    :param began: when it was started.
    :param ended: when it ended.
    :param outcome: its final state.
    :param cancel_asked: when the first cancel was requested; for a backfill, that of any of its jobs.
    :param jobs: the jobs of a backfill.
    """

    id: str
    connection_id: str
    task: str | None = None
    try_number: int | None = None
    mark: str | None = None
    began: datetime
    ended: datetime | None = None
    outcome: str | None = None
    cancel_asked: datetime | None = None
    jobs: list[str] = []


class Action(BaseModel):
    """An action of the storm."""

    at: datetime
    kind: str
    text: str
    task: str | None = None
    facts: dict[str, Any] = {}


class Counted(BaseModel):
    """A sum of the metrics. ``what`` is ``started`` or an outcome."""

    connection_id: str
    what: str
    number: int


class Event(BaseModel):
    """A log entry. ``source`` is "airflow" for Airflow's log table, or "task", "trigger" or "supervisor" for a file."""

    at: datetime
    task: str | None
    source: str
    text: str


class History(BaseModel):
    """The history of a storm.

    :param seed: the seed of the storm.
    :param distributed: whether Airflow was distributed.
    :param settings: the settings of the simulator.
    :param tasks: every task instance.
    :param works: all syncs and backfills, from the ledger.
    :param actions: the actions of the storm.
    :param events: entries of logs.
    :param keys_found: the places that contain an API key.
    :param huge_found: the places that contain a text of megabytes.
    :param refused: the number of responses that the proxy rejected or changed, by kind.
    :param counted: the sums of the metrics; ``None`` without a listener.
    :param metric_values: the number of received values of each metric.
    :param ended: when the history was read, after all tasks had ended.
    """

    seed: int = 0
    distributed: bool = False
    settings: dict[str, Any] = {}
    tasks: list[Task] = []
    works: list[Work] = []
    actions: list[Action] = []
    events: list[Event] = []
    keys_found: list[str] = []
    huge_found: list[str] = []
    refused: dict[str, int] = {}
    counted: list[Counted] | None = None
    metric_values: dict[str, int] = {}
    ended: datetime
