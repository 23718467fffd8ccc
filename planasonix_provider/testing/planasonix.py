"""The fixture ``planasonix``: plans what happens in Planasonix, runs tasks, and asserts what was started."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

import pytest

from planasonix_provider import validators
from planasonix_provider.api import client, rate_limiter
from planasonix_provider.api.client_config import ClientConfig
from planasonix_provider.api.errors import PlanasonixConfigurationError
from planasonix_provider.api.models import BackfillBody, SyncBody
from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.model.plans import BackfillPlan
from planasonix_provider.start_parameters import StartKind
from planasonix_provider.testing.planned_starts import PlannedStarts
from planasonix_provider.testing.skip_polls import skip_polls
from planasonix_provider.testing.started_work import StartedWork, describe, describe_all, normalize, started_work
from planasonix_provider.testing.task_run import GivenXComs, TaskRun, is_mapped, mapped_arguments, run_task
from planasonix_provider.testing.time_travel import travel_time
from planasonix_provider.testing.travelled_clock import TravelledClock

#: The default duration of a sync or a backfill, and the time that it is queued before.
DEFAULT_DURATION = timedelta(minutes=1)
QUEUE_TIME = timedelta(seconds=2)


class Planasonix:
    """A Planasonix for one test: the value of the fixture ``planasonix``.

    :param simulator: the simulator. It offers more: lost responses (its method ``fail``), plans for each job of a
        backfill, and a log of all requests.
    :param travel: the clock.
    :param patch: undoes all changes after the test.
    """

    def __init__(self, simulator: Simulator, travel: TravelledClock, patch: pytest.MonkeyPatch) -> None:
        self._planned_starts = PlannedStarts(simulator.workspace, patch)
        self.simulator = simulator
        self._travel = travel
        self._patch = patch
        self._began = datetime.now(UTC)

    def add_airflow_connection(self, planasonix_conn_id: str) -> None:
        """Add an Airflow connection to this Planasonix, besides ``planasonix_default``.

        :param planasonix_conn_id: the connection's id, as in the DAG.
        :raises ValueError: if it is empty.
        """
        name = validators.text("planasonix_conn_id", planasonix_conn_id)
        self._patch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(self.simulator.airflow_connection()))

    def add_connections(self, *connection_ids: str) -> None:
        """Add connections in Planasonix. Starts on other connections get the response 404.

        :param connection_ids: their ids. Connections that other methods name are added automatically.
        :raises ValueError: if an id is invalid.
        """
        for connection_id in connection_ids:
            self.simulator.workspace.add_connection(validators.identifier("connection_id", connection_id))

    def will_succeed(
        self,
        connection_id: str,
        *,
        takes: timedelta | float = DEFAULT_DURATION,
        tables: Mapping[str, int] | None = None,
        warnings: Mapping[str, str] | None = None,
        times: int | None = None,
    ) -> None:
        """Plan that syncs and backfills of a connection succeed.

        :param connection_id: the connection; it is added if it does not exist.
        :param takes: the duration of each, in seconds or as a ``timedelta``; default one minute. Each is queued for
            two seconds before.
        :param tables: the number of rows by table; default: some rows in ``public.orders``. A backfill of certain
            tables loads only these.
        :param warnings: the warnings in the results, as messages by code; default none.
        :param times: for this number of syncs, and of backfills; later plans follow. Default ``None``: all without
            another plan.
        :raises ValueError: if a value is invalid.
        """
        listed = [{"code": code, "message": message} for code, message in (warnings or {}).items()]
        self._plan(connection_id, "succeeded", takes, tables, times, warnings=listed)

    def will_fail(
        self,
        connection_id: str,
        *,
        code: str = "sync_failed",
        message: str = "The test lets it fail.",
        takes: timedelta | float = DEFAULT_DURATION,
        tables: Mapping[str, int] | None = None,
        times: int | None = None,
    ) -> None:
        """Plan that syncs and backfills of a connection fail after half of the rows.

        :param connection_id: the connection; it is added if it does not exist.
        :param code: the error code, for example ``source_unreachable``; default ``sync_failed``.
        :param message: the error message; default ``The test lets it fail.``
        :param takes: the duration until the failure, as in :meth:`will_succeed`; default one minute.
        :param tables: the number of rows by table, as in :meth:`will_succeed`.
        :param times: for this number of syncs, and of backfills: 1 fails a task's first try only. Default ``None``:
            all without another plan.
        :raises ValueError: if a value is invalid.
        """
        error = {"code": validators.text("code", code), "message": validators.text("message", message)}
        self._plan(connection_id, "failed", takes, tables, times, **error)

    def _plan(
        self,
        connection_id: str,
        outcome: Literal["succeeded", "failed"],
        takes: timedelta | float,
        tables: Mapping[str, int] | None,
        times: int | None,
        **how: Any,
    ) -> None:
        self.add_connections(connection_id)
        how |= {"queued_seconds": QUEUE_TIME.total_seconds(), "running_seconds": validators.seconds("takes", takes)}
        if tables is not None:
            how["tables"] = tables
        self.simulator.plan(connection_id, times=times, outcome=outcome, **how)
        # All of its jobs fail, or none.
        failing = range(BackfillPlan().jobs) if outcome == "failed" else ()
        self.simulator.plan_backfill(connection_id, times=times, failing_jobs=failing, **how)

    def advance(self, time: timedelta | float) -> None:
        """Advance the clock.

        :param time: the time, in seconds or as a ``timedelta``.
        :raises ValueError: if it is not above 0.
        """
        self._travel.sleep(validators.seconds("time", time))

    @property
    def waited(self) -> timedelta:
        """The time since the start of the test, real time included."""
        return datetime.now(UTC) - self._began

    def start_externally(
        self, connection_id: str, *, kind: StartKind = "sync", after: timedelta | float | None = None, **parameters: Any
    ) -> None:
        """Start a sync or a backfill as another client of Planasonix would, now or when some time has passed.

        A start that Planasonix refuses, because another sync of the connection runs, does not happen.

        :param connection_id: the connection; it is added if it does not exist.
        :param kind: ``sync`` (default) or ``backfill``.
        :param after: seconds from now, or a ``timedelta``; default now. Time passes while a task waits, or by
            :meth:`advance`.
        :param parameters: the parameters of the start, as in :meth:`started`.
        :raises ValueError: if a value is invalid.
        """
        self.add_connections(connection_id)
        wanted = normalize(kind, parameters)
        workspace = self.simulator.workspace
        start: Callable[[], object]
        if kind == "backfill":
            start = partial(workspace.start_backfill, connection_id, BackfillBody(**wanted))
        else:
            start = partial(workspace.start_sync, connection_id, SyncBody(**wanted))
        seconds = 0.0 if after is None else validators.seconds("after", after)
        self._planned_starts.add(datetime.now(UTC) + timedelta(seconds=seconds), start)

    def run(
        self,
        task: Any,
        *,
        try_number: int = 1,
        map_index: int = -1,
        xcoms: Mapping[str, Any] | None = None,
        **context: Any,
    ) -> TaskRun:
        """Run one task to its end, without a DAG run and without Airflow's database.

        The task is executed, deferred and resumed as in Airflow, and its templates are rendered. There are no
        Variables, no pools, and no XComs but those in ``xcoms``.

        :param task: an operator or a sensor of this provider; it is not changed.
        :param try_number: the number of the try; default 1.
        :param map_index: the instance of a mapped task, from 0; :meth:`run_mapped` runs all.
        :param xcoms: the XComs of other tasks by task id: the return value, or the task's :class:`TaskRun`, which has
            its other XComs too, or a list of these for a mapped task; default none.
        :param context: values of Airflow's context for templates, as ``ds="2025-01-01"`` or ``params={…}``.
            ``macros`` exist, and a ``dag_run`` that starts now and has no logical date.
        :return: the outcome.
        :raises LookupError: if the task pulls an XCom of a task that ``xcoms`` does not have.
        :raises ValueError: if ``map_index`` does not fit the task.
        :raises Exception: the exception of the task.
        """
        return run_task(task, try_number=try_number, map_index=map_index, xcoms=xcoms, **context)

    def run_mapped(self, task: Any, *, xcoms: Mapping[str, Any] | None = None, **context: Any) -> list[TaskRun]:
        """Run all instances of a mapped task, one after the other.

        :param task: an operator or a sensor of this provider, made by ``expand`` or ``expand_kwargs``.
        :param xcoms: the XComs of other tasks, as in :meth:`run`, including those that the task is mapped over.
        :param context: values of Airflow's context for templates, as in :meth:`run`.
        :return: the outcomes, in the order of the indexes.
        :raises ValueError: if the task is not mapped.
        :raises Exception: the exception of the first instance that fails.
        """
        if not is_mapped(task):
            raise ValueError(f"task: got {task.task_id!r}, which is not mapped. Run it with planasonix.run(task).")
        count = len(mapped_arguments(task, GivenXComs(xcoms or {})))
        return [self.run(task, map_index=index, xcoms=xcoms, **context) for index in range(count)]

    def started(
        self, connection_id: str | None = None, *, kind: StartKind | None = None, **parameters: Any
    ) -> list[StartedWork]:
        """Return the syncs and backfills that were started, in order.

        :param connection_id: only on this connection; default: on any.
        :param kind: only ``sync`` or ``backfill``; default: both.
        :param parameters: only with these values of the parameters that are sent to the API, such as ``pipeline_id``
            or ``start_at``. ``metadata`` may have more fields. ``None``: the parameter was not given.
        :return: the matching starts.
        :raises ValueError: if there is no such parameter.
        """
        wanted = normalize(kind, parameters)
        return [
            start
            for start in started_work(self.simulator.workspace)
            if connection_id in (None, start.connection_id)
            and kind in (None, start.kind)
            and start.has_parameters(wanted)
        ]

    def assert_started(
        self, connection_id: str | None = None, *, kind: StartKind | None = None, **parameters: Any
    ) -> StartedWork:
        """Fail the test unless exactly one matching start exists; the message lists all starts.

        :param connection_id: as in :meth:`started`.
        :param kind: as in :meth:`started`.
        :param parameters: as in :meth:`started`.
        :return: the start.
        """
        __tracebackhide__ = True
        found = self.started(connection_id, kind=kind, **parameters)
        return self._require_one(found, describe(connection_id, kind, parameters), "started")

    def assert_not_started(
        self, connection_id: str | None = None, *, kind: StartKind | None = None, **parameters: Any
    ) -> None:
        """Fail the test if a matching start exists; the message lists all starts.

        :param connection_id: as in :meth:`started`.
        :param kind: as in :meth:`started`.
        :param parameters: as in :meth:`started`.
        """
        __tracebackhide__ = True
        if self.started(connection_id, kind=kind, **parameters):
            self._fail(f"{describe(connection_id, kind, parameters)} was started")

    def assert_cancelled(
        self, connection_id: str | None = None, *, kind: StartKind | None = None, **parameters: Any
    ) -> StartedWork:
        """Fail the test unless a cancel was requested for exactly one matching start.

        :param connection_id: as in :meth:`started`.
        :param kind: as in :meth:`started`.
        :param parameters: as in :meth:`started`.
        :return: the start.
        """
        __tracebackhide__ = True
        found = [start for start in self.started(connection_id, kind=kind, **parameters) if start.is_cancelled]
        return self._require_one(found, describe(connection_id, kind, parameters), "asked to cancel")

    def _require_one(self, found: list[StartedWork], wanted: str, action: str) -> StartedWork:
        __tracebackhide__ = True
        if len(found) != 1:
            times = f"{action} {len(found)} times, and not once" if found else f"not {action}"
            self._fail(f"{wanted} was {times}")
        return found[0]

    def _fail(self, what: str) -> None:
        __tracebackhide__ = True
        everything = describe_all(started_work(self.simulator.workspace))
        pytest.fail(f"{what[0].upper()}{what[1:]}. What was started:\n{everything}", pytrace=True)


def new_simulator() -> Simulator:
    """Return a simulator for all tests of a process; it is not started yet."""
    return Simulator(
        queued_seconds=QUEUE_TIME.total_seconds(), job_seconds=DEFAULT_DURATION.total_seconds(), cancelling_seconds=1
    )


@contextmanager
def use_simulator(simulator: Simulator) -> Iterator[Planasonix]:
    """Reset a running simulator and lead tasks and clock to it for one test."""
    with pytest.MonkeyPatch.context() as patch, travel_time() as travel:
        simulator.reset()
        skip_polls(simulator.workspace, patch)
        # Rate limiters belong to one test.
        patch.setattr(rate_limiter, "_rate_limiters", {})
        patch.setattr(client, "_options", _only_to(simulator, client._options))
        planasonix = Planasonix(simulator, travel, patch)
        planasonix.add_airflow_connection("planasonix_default")
        try:
            yield planasonix
        finally:
            # The thread of the webhook sender would go on for subscriptions that are left.
            simulator.reset()


def _only_to(
    simulator: Simulator, options: Callable[[ClientConfig], dict[str, Any]]
) -> Callable[[ClientConfig], dict[str, Any]]:
    """Allow no request to a real Planasonix: a secrets backend takes precedence over the test's Airflow connection."""

    def checked(account: ClientConfig) -> dict[str, Any]:
        if account.base_url != simulator.url:
            raise PlanasonixConfigurationError(
                f"In a test with the fixture planasonix, an Airflow connection leads to {account.base_url}. Add it in "
                "the test: planasonix.add_airflow_connection('<its id>'). If the test does that, a secrets "
                "backend has it too and takes precedence: unset [secrets] backend for the tests."
            )
        return options(account)

    return checked
