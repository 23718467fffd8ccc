"""What a test does with Planasonix: says what is to happen there, and asks what has happened."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

import pytest

from planasonix_provider import validators
from planasonix_provider import validators as checks
from planasonix_provider.api import client, rate_limiter
from planasonix_provider.api.client_config import ClientConfig
from planasonix_provider.api.errors import PlanasonixConfigurationError
from planasonix_provider.api.models import BackfillBody, SyncBody
from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.model.backfill_plans import BackfillPlan
from planasonix_provider.start_parameters import StartKind
from planasonix_provider.testing.planned_starts import LaterStarts
from planasonix_provider.testing.skip_polls import leap
from planasonix_provider.testing.started_work import StartedWork, described, in_final_form, listed, starts_of
from planasonix_provider.testing.task_run import GivenXComs, TaskRun, is_mapped, mapped_arguments, run_task
from planasonix_provider.testing.time_travel import TravelledClock, travelling

#: How long a sync or a backfill takes that a test says nothing else of, and how long it is queued before.
TAKES = timedelta(minutes=1)
QUEUED = timedelta(seconds=2)


class Planasonix:
    """A Planasonix for one test; the fixture ``planasonix`` gives it.

    :param simulator: what plays Planasonix. It can do more than is offered here: lose answers (its method ``fail``),
        plan a backfill job by job, tell of each request.
    :param travel: the clock.
    :param patch: sets what is undone after the test.
    """

    def __init__(self, simulator: Simulator, travel: TravelledClock, patch: pytest.MonkeyPatch) -> None:
        self._later = LaterStarts(simulator.world, patch)
        self.simulator = simulator
        self._travel = travel
        self._patch = patch
        self._began = datetime.now(UTC)

    def add_airflow_connection(self, planasonix_conn_id: str) -> None:
        """Let an Airflow connection lead here, besides ``planasonix_default``.

        :param planasonix_conn_id: the connection's id, as in the DAG.
        :raises ValueError: if it is empty.
        """
        name = validators.text("planasonix_conn_id", planasonix_conn_id)
        self._patch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(self.simulator.airflow_connection()))

    def add_connections(self, *connection_ids: str) -> None:
        """Let connections exist in Planasonix; what is started on any other is refused with a 404.

        :param connection_ids: their ids. One that a test says anything else of need not be named here.
        :raises ValueError: if one could be no id.
        """
        for connection_id in connection_ids:
            self.simulator.world.add_connection(validators.identifier("connection_id", connection_id))

    def will_succeed(
        self,
        connection_id: str,
        *,
        takes: timedelta | float = TAKES,
        tables: Mapping[str, int] | None = None,
        warnings: Mapping[str, str] | None = None,
        times: int | None = None,
    ) -> None:
        """Let the syncs and the backfills of a connection succeed.

        :param connection_id: the connection; it need not exist before.
        :param takes: how long each runs, in seconds or as a ``timedelta``; default a minute. It is queued for two
            seconds before.
        :param tables: how many rows it loads into each table; default: some into ``public.orders``. A backfill that is
            asked for certain tables loads only these.
        :param warnings: what the results warn of: messages by their codes; default nothing.
        :param times: for how many syncs, and as many backfills, this holds; what is said of the next ones comes after.
            ``None``, the default, is for all that nothing else is said of.
        :raises ValueError: if a value makes no sense.
        """
        told = [{"code": code, "message": message} for code, message in (warnings or {}).items()]
        self._plan(connection_id, "succeeded", takes, tables, times, warnings=told)

    def will_fail(
        self,
        connection_id: str,
        *,
        code: str = "sync_failed",
        message: str = "The test lets it fail.",
        takes: timedelta | float = TAKES,
        tables: Mapping[str, int] | None = None,
        times: int | None = None,
    ) -> None:
        """Let the syncs and the backfills of a connection fail. Half of the rows are loaded before.

        :param connection_id: the connection; it need not exist before.
        :param code: the code of the error, as ``source_unreachable``; default ``sync_failed``.
        :param message: its message; default: that the test lets it fail.
        :param takes: how long each runs before it fails, as in :meth:`will_succeed`; default a minute.
        :param tables: how many rows there are to load, as in :meth:`will_succeed`.
        :param times: for how many syncs, and as many backfills; 1 fails the first try of a task and not the second.
            ``None``, the default, is for all that nothing else is said of.
        :raises ValueError: if a value makes no sense.
        """
        why = {"code": validators.text("code", code), "message": validators.text("message", message)}
        self._plan(connection_id, "failed", takes, tables, times, **why)

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
        how |= {"queued_seconds": QUEUED.total_seconds(), "running_seconds": validators.seconds("takes", takes)}
        if tables is not None:
            how["tables"] = tables
        self.simulator.plan(connection_id, times=times, outcome=outcome, **how)
        # All of its jobs fail, or none.
        failing = range(BackfillPlan().jobs) if outcome == "failed" else ()
        self.simulator.plan_backfill(connection_id, times=times, failing_jobs=failing, **how)

    def advance(self, time: timedelta | float) -> None:
        """Let time pass.

        :param time: how much, in seconds or as a ``timedelta``.
        :raises ValueError: if it is not above 0.
        """
        self._travel.sleep(validators.seconds("time", time))

    @property
    def waited(self) -> timedelta:
        """How much time has passed since the test began: what was waited, and the moments that the rest took."""
        return datetime.now(UTC) - self._began

    def start_externally(
        self, connection_id: str, *, kind: StartKind = "sync", after: timedelta | float | None = None, **parameters: Any
    ) -> None:
        """Start a sync or a backfill as another client of Planasonix would, now or when some time has passed.

        A start that Planasonix refuses, because another sync of the connection runs, does not happen.

        :param connection_id: the connection; it need not exist before.
        :param kind: ``sync`` (default) or ``backfill``.
        :param after: when, in seconds from now or as a ``timedelta``; default now. The time passes while a task waits,
            or by :meth:`advance`.
        :param parameters: the parameters of the start, as in :meth:`started`.
        :raises ValueError: if a value is invalid.
        """
        self.add_connections(connection_id)
        wanted = in_final_form(kind, parameters)
        world = self.simulator.world
        start: Callable[[], object]
        if kind == "backfill":
            start = partial(world.start_backfill, connection_id, BackfillBody(**wanted))
        else:
            start = partial(world.start_sync, connection_id, SyncBody(**wanted))
        seconds = 0.0 if after is None else checks.seconds("after", after)
        self._later.add(datetime.now(UTC) + timedelta(seconds=seconds), start)

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

        It is executed, deferred, waited for and resumed as Airflow does it; its templates are rendered. What it would
        look up in the database is not there: variables, pools, and XComs that ``xcoms`` does not have.

        :param task: an operator or a sensor of this provider; it stays as it is.
        :param try_number: which try it is; default the first.
        :param map_index: of a mapped task, which instance to run, from 0; see :meth:`run_mapped` for all of them.
        :param xcoms: the XComs of other tasks by task id: what the task returns, the :class:`TaskRun` of it, which has
            its other XComs, too, or a list of these for a mapped task; default none.
        :param context: what of Airflow's context its templates need, as ``ds="2025-01-01"`` or ``params={…}``. There
            are ``macros`` and a ``dag_run`` that starts now and has no logical date.
        :return: what came of it.
        :raises LookupError: if the task pulls an XCom of a task that ``xcoms`` does not have.
        :raises ValueError: if ``map_index`` does not fit the task.
        :raises Exception: what the task raises.
        """
        return run_task(task, try_number=try_number, map_index=map_index, xcoms=xcoms, **context)

    def run_mapped(self, task: Any, *, xcoms: Mapping[str, Any] | None = None, **context: Any) -> list[TaskRun]:
        """Run all instances of a mapped task, one after the other.

        :param task: an operator or a sensor of this provider that was made by ``expand`` or ``expand_kwargs``.
        :param xcoms: the XComs of other tasks, as in :meth:`run`; of those that it is mapped over, too.
        :param context: what of Airflow's context its templates need, as in :meth:`run`.
        :return: the results, in the order of the indexes.
        :raises ValueError: if the task is not mapped.
        :raises Exception: what the first instance that fails raises.
        """
        if not is_mapped(task):
            raise ValueError(f"task: got {task.task_id!r}, which is not mapped. Run it with planasonix.run(task).")
        count = len(mapped_arguments(task, GivenXComs(xcoms or {})))
        return [self.run(task, map_index=index, xcoms=xcoms, **context) for index in range(count)]

    def started(
        self, connection_id: str | None = None, *, kind: StartKind | None = None, **parameters: Any
    ) -> list[StartedWork]:
        """Tell what was started.

        :param connection_id: only on this connection; default: on any.
        :param kind: only a ``sync``, or a ``backfill``; default: both.
        :param parameters: only what was started with these: ``pipeline_id``, ``priority`` and ``metadata`` (as a
            mapping, of which each field has to be there), of a backfill ``start_at``, ``end_at`` and ``tables``, too.
            ``None`` is what was not given.
        :return: the starts, in their order.
        :raises ValueError: if there is no such parameter.
        """
        wanted = in_final_form(kind, parameters)
        return [
            start
            for start in starts_of(self.simulator.world)
            if connection_id in (None, start.connection_id) and kind in (None, start.kind) and start.is_of(wanted)
        ]

    def assert_started(
        self, connection_id: str | None = None, *, kind: StartKind | None = None, **parameters: Any
    ) -> StartedWork:
        """Let the test fail unless something was started, once; the message says what was started instead.

        :param connection_id: on which connection, as in :meth:`started`.
        :param kind: a ``sync`` or a ``backfill``, as in :meth:`started`.
        :param parameters: with which parameters, as in :meth:`started`.
        :return: the one start.
        """
        __tracebackhide__ = True
        found = self.started(connection_id, kind=kind, **parameters)
        if len(found) != 1:
            times = f"started {len(found)} times, and not once" if found else "not started"
            self._fail(f"{described(connection_id, kind, parameters)} was {times}")
        return found[0]

    def assert_not_started(
        self, connection_id: str | None = None, *, kind: StartKind | None = None, **parameters: Any
    ) -> None:
        """Let the test fail if something was started; the message says what.

        :param connection_id: on which connection, as in :meth:`started`.
        :param kind: a ``sync`` or a ``backfill``, as in :meth:`started`.
        :param parameters: with which parameters, as in :meth:`started`.
        """
        __tracebackhide__ = True
        if self.started(connection_id, kind=kind, **parameters):
            self._fail(f"{described(connection_id, kind, parameters)} was started")

    def assert_cancelled(
        self, connection_id: str | None = None, *, kind: StartKind | None = None, **parameters: Any
    ) -> StartedWork:
        """Let the test fail unless one start was asked to cancel; the message says what was started.

        :param connection_id: on which connection, as in :meth:`started`.
        :param kind: a ``sync`` or a ``backfill``, as in :meth:`started`.
        :param parameters: with which parameters, as in :meth:`started`.
        :return: the one start that was.
        """
        __tracebackhide__ = True
        found = [start for start in self.started(connection_id, kind=kind, **parameters) if start.is_cancelled]
        if len(found) != 1:
            times = f"asked to cancel {len(found)} times, and not once" if found else "not asked to cancel"
            self._fail(f"{described(connection_id, kind, parameters)} was {times}")
        return found[0]

    def _fail(self, what: str) -> None:
        __tracebackhide__ = True
        everything = listed(starts_of(self.simulator.world))
        pytest.fail(f"{what[0].upper()}{what[1:]}. What was started:\n{everything}", pytrace=True)


def simulator() -> Simulator:
    """Make what plays Planasonix for all tests of a process.

    :return: the simulator; it is not started yet.
    """
    return Simulator(queued_seconds=QUEUED.total_seconds(), job_seconds=TAKES.total_seconds(), cancelling_seconds=1)


@contextmanager
def staged(simulator: Simulator) -> Iterator[Planasonix]:
    """Set the stage for one test; after it, all is as before.

    :param simulator: what plays Planasonix; it runs, and forgets what it knew.
    :return: what the test does with it.
    """
    with pytest.MonkeyPatch.context() as patch, travelling() as travel:
        simulator.reset()
        leap(simulator.world, patch)
        # What is known of a key's rate limit is of this test alone.
        patch.setattr(rate_limiter, "_paces", {})
        patch.setattr(client, "_options", _only_to(simulator, client._options))
        planasonix = Planasonix(simulator, travel, patch)
        planasonix.add_airflow_connection("planasonix_default")
        try:
            yield planasonix
        finally:
            # Subscriptions that were left would have their thread look on.
            simulator.reset()


def _only_to(
    simulator: Simulator, options: Callable[[ClientConfig], dict[str, Any]]
) -> Callable[[ClientConfig], dict[str, Any]]:
    """Let nothing reach a real Planasonix: a secrets backend may know a connection, and Airflow asks it first."""

    def checked(account: ClientConfig) -> dict[str, Any]:
        if account.base_url != simulator.url:
            raise PlanasonixConfigurationError(
                f"In a test with the fixture planasonix, an Airflow connection leads to {account.base_url}. Name it in "
                "the test: planasonix.connect('<its id>'). If it is named, a secrets backend knows it, too, which "
                "Airflow asks first: unset [secrets] backend for the tests."
            )
        return options(account)

    return checked
