"""What has happened in a storm, as data: what the auditor judges, and what can be judged again later."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel


class Try(BaseModel):
    """One try of a task, by Airflow's database.

    :param max_tries: the number of the last retry that Airflow would make at that time.
    """

    number: int
    max_tries: int | None = None
    state: str | None = None
    began: datetime | None = None
    ended: datetime | None = None


class Task(BaseModel):
    """A task instance.

    :param name: its task_id, with the map index where it is mapped.
    :param connection_id: Planasonix's connection.
    :param starts: "job" or "backfill".
    :param cancel_on_kill: whether its work is to be cancelled when it gives up.
    :param on_conflict: what it does where another sync is in its way.
    :param timeout: for how many seconds it waits.
    :param state: the state in which Airflow has left it.
    :param tries: its tries in order.
    :param returned: the id of the work that it has accounted for.
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
    """A sync or a backfill that was started, by the simulator's ledger.

    :param id: its id.
    :param connection_id: of which connection.
    :param task: whose it is, by its metadata.
    :param try_number: of which try, by its metadata.
    :param mark: what names its start, by its metadata.
    :param began: when it was started.
    :param ended: when it ended.
    :param outcome: how it ended.
    :param cancel_asked: when its cancel was first asked for; of a backfill, that of one of its jobs.
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
    """What the storm did."""

    at: datetime
    kind: str
    text: str
    task: str | None = None
    facts: dict[str, Any] = {}


class Counted(BaseModel):
    """A sum of the metrics: ``what`` is ``started`` or an outcome."""

    connection_id: str
    what: str
    number: int


class Event(BaseModel):
    """What a log says: Airflow's own log table (``source`` is "airflow"), or the file of a task or a trigger."""

    at: datetime
    task: str | None
    source: str
    text: str


class History(BaseModel):
    """All of it.

    :param seed: what the storm was made from.
    :param distributed: whether it was a distributed Airflow.
    :param settings: how the simulator behaved.
    :param tasks: every task instance.
    :param works: all that was started, by the ledger.
    :param actions: what the storm did.
    :param events: what logs say.
    :param keys_found: where an API key was found.
    :param huge_found: where a text of megabytes was found.
    :param refused: how many answers the proxy has refused or spoilt, by how.
    :param counted: the sums of the metrics; ``None`` if there was no listener.
    :param metric_values: how many values of each metric were received.
    :param ended: when the calm was over.
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
