"""Compares the metrics that Airflow has sent with the simulator's ledger.

A StatsD server counts the starts and ends that tasks have sent, for each connection in Planasonix. Metrics have no job
ids, but nearly every task of the storm has its own connection. The counts must match the ledger, with these exceptions:

- A process that is killed between the API's response and the counter loses one start or one end. So at most one may be
  missing for each job or backfill that a kill disturbed. Marking or clearing a task by hand is a kill, too.
- A task that attaches to the work of another task counts the end a second time. So does a retry, if the killed try
  had counted the work but not stored its record.
- If the API shows no metadata, a task whose start was lost may take the work of another task for its own, and count its
  start and its end again.
"""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from tests.chaos.history import Action, Counted, History, Work

#: A counter of jobs, with tags in InfluxDB's format.
_LINE = re.compile(
    r"airflow\.planasonix\.job\.(?P<what>started|succeeded|failed|cancelled),(?P<tags>[^:]+):(?P<n>\d+)\|c"
)
_NAME = re.compile(r"airflow\.(planasonix\.[\w.]+)")
#: Metrics that workers and triggerers must send in every storm.
EXPECTED = ("planasonix.request", "planasonix.job.event_delay", "planasonix.waits.deferred", "planasonix.poll.duration")
#: Outcomes in the ledger, and their different names in the metrics.
OUTCOMES = {"completed": "succeeded"}
#: The counters that are compared.
WHAT = ("started", "succeeded", "failed", "cancelled")
#: The actions that end a task's process or trigger.
KILLS = ("kill", "kill_task", "freeze", "restart", "mark_failed", "clear")
#: How long after a kill the process may still end, or Airflow may start the next try.
AFTERMATH = timedelta(seconds=45)


class MetricsListener:
    """A StatsD server on a free port that adds up the counters of jobs."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._counts: Counter[tuple[str, str]] = Counter()
        #: The number of received values of each metric of this package.
        self.values: Counter[str] = Counter()
        threading.Thread(target=self._receive, daemon=True).start()

    @property
    def settings(self) -> dict[str, str]:
        """The environment that makes Airflow send its metrics to this server."""
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(self._socket.getsockname()[1]),
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
            # Airflow's own metrics would fill the buffer of the socket.
            "AIRFLOW__METRICS__METRICS_ALLOW_LIST": "planasonix",
        }

    def _receive(self) -> None:
        while packet := self._socket.recv(65_535):
            for line in packet.decode().split("\n"):
                self.count(line)

    def count(self, line: str) -> None:
        """Add the value of a line. Ignore other metrics, and ends that sensors have sent."""
        if name := _NAME.match(line):
            self.values[name[1]] += 1
        if found := _LINE.fullmatch(line):
            tags = dict(tag.split("=", 1) for tag in found["tags"].split(","))
            if tags.get("source") in (None, "operator"):
                self._counts[tags["connection_id"], found["what"]] += int(found["n"])

    def counted(self) -> list[Counted]:
        """Return all counts so far."""
        return [
            Counted(connection_id=connection_id, what=what, number=number)
            for (connection_id, what), number in sorted(self._counts.items())
        ]


def summary(history: History) -> Iterator[str]:
    """Yield the numbers of starts and ends in the metrics and in the ledger."""
    sent, connections = _sent(history), _connections(history)
    for what in WHAT:
        recorded = sum(_recorded(one.works)[what] for one in connections)
        yield f"{what} {sum(sent[one.connection_id, what] for one in connections)} of {recorded}"


def disagreements(history: History) -> Iterator[tuple[str, str | None]]:
    """Yield each difference from the ledger, with the reason that allows it, or ``None``."""
    if history.counted is None:
        return
    for name in EXPECTED:
        if not history.metric_values.get(name):
            yield f"no value of {name} was sent", None
    sent = _sent(history)
    for one in _connections(history):
        recorded = _recorded(one.works)
        for what in WHAT:
            missing = recorded[what] - sent[one.connection_id, what]
            if not missing:
                continue
            excused = sum(one.is_disturbed(work, what) for work in one.works)
            text = f"{one.connection_id}: {sent[one.connection_id, what]} {what} sent, {recorded[what]} in the ledger"
            if missing > 0:
                yield text, "metrics lost with a killed process" if missing <= excused else one.runs_on(missing, what)
            elif what != "started" and -missing <= one.attached:
                yield text, "metrics of attached tasks"
            elif -missing <= one.mistaken and not history.settings.get("show_metadata"):
                yield text, "metrics of the work of another task, which has no metadata"
            else:
                yield text, "metrics sent again after a kill" if -missing <= excused else None


class _Connection:
    """A connection in Planasonix, with its work and the kills of its tasks."""

    def __init__(self, history: History, connection_id: str) -> None:
        self.connection_id = connection_id
        self.works = [work for work in history.works if work.connection_id == connection_id]
        tasks = [task for task in history.tasks if task.connection_id == connection_id]
        names = {task.name for task in tasks}
        self._kills = [each for each in history.actions if each.kind in KILLS and each.task in (None, *names)]
        self._ended = history.ended
        self._tasks = {task.name: task for task in tasks}
        #: The number of tasks that may attach to the work of another task.
        self.attached = sum(task.on_conflict == "attach" for task in tasks)
        owners = {work.id: work.task for work in self.works}
        #: The number of tasks that have returned the work of another task.
        self.mistaken = sum(owners.get(task.returned or "", task.name) != task.name for task in tasks)

    def is_disturbed(self, work: Work, what: str) -> bool:
        """Return whether a kill may have hit the process that counts."""
        until = work.began if what == "started" else work.ended or self._ended
        return any(_is_within(kill, work.began - AFTERMATH, until + AFTERMATH) for kill in self._kills)

    def runs_on(self, missing: int, what: str) -> str | None:
        """Return why ends are missing without a kill, or ``None``."""
        left = sum(self._is_left(work) for work in self.works if OUTCOMES.get(str(work.outcome), work.outcome) == what)
        return "metrics of work that was left running" if missing <= left else None

    def _is_left(self, work: Work) -> bool:
        """Return whether no try waited for the work when it ended."""
        task = self._tasks.get(str(work.task))
        if task is None or work.ended is None:
            return not all(task.cancel_on_kill for task in self._tasks.values())
        ended = work.ended
        has_later = any(one.task == work.task and work.began < one.began <= ended for one in self.works)
        is_awaited = any(one.began and one.began <= ended <= (one.ended or self._ended) for one in task.tries)
        return not task.cancel_on_kill and (has_later or not is_awaited)


def _connections(history: History) -> list[_Connection]:
    return [_Connection(history, each) for each in sorted({task.connection_id for task in history.tasks})]


def _sent(history: History) -> Counter[tuple[str, str]]:
    return Counter({(each.connection_id, each.what): each.number for each in history.counted or ()})


def _recorded(works: list[Work]) -> Counter[str]:
    ends = Counter(OUTCOMES.get(work.outcome, work.outcome) for work in works if work.outcome)
    return ends + Counter(started=len(works))


def _is_within(action: Action, since: datetime, until: datetime) -> bool:
    return since <= action.at <= until
