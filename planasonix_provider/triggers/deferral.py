"""How a task of ours defers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from planasonix_provider import configuration
from planasonix_provider.api.errors import PlanasonixConfigurationError, PlanasonixError
from planasonix_provider.clock import sleep, utcnow
from planasonix_provider.waiting.outages import OutagePolicy, OutageTracker, Verdict

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseTrigger, Context

    from planasonix_provider.hooks.planasonix import PlanasonixHook
    from planasonix_provider.triggers.base import PlanasonixWaitTrigger

#: How long Airflow may take to notice that the process of a deferring task has ended. Its supervisor looks every five
#: seconds; an event that comes before lets the scheduler take the old end for a crash, and fail the task.
DEFER_SETTLE_TIME = timedelta(seconds=7)
#: How long after its own deadline a trigger may take to cancel and to report before Airflow ends the deferral for it.
DEFER_TIMEOUT_MARGIN = timedelta(minutes=20)
#: The seconds between two reads of an Airflow connection that is missing.
READ_RETRY_SECONDS = 5.0
#: For how long before the end of ``execution_timeout`` to cancel and to report, at the most.
CLEANUP_TIME = timedelta(seconds=30)


class DeferrableTask(Protocol):
    """What ``defer`` uses of Airflow's operator."""

    def defer(self, *, trigger: BaseTrigger, method_name: str, timeout: timedelta | None = None) -> NoReturn:
        """Leave the worker until the trigger sends an event."""


def defer(task: DeferrableTask, trigger: PlanasonixWaitTrigger, method_name: str = "execute_complete") -> NoReturn:
    """Wait in the triggerer.

    :param task: the task.
    :param trigger: waits, and keeps the deadline: a timeout of Airflow's would cancel and report nothing.
    :param method_name: the task's method that it goes on with.
    :raises TaskDeferred: always.
    """
    trigger.not_before = utcnow() + DEFER_SETTLE_TIME
    task.defer(
        trigger=trigger,
        method_name=method_name,
        timeout=trigger.deadline - utcnow() + DEFER_TIMEOUT_MARGIN if trigger.deadline else None,
    )


def outage_policy() -> OutagePolicy:
    """Return for how long errors are tolerated, as Airflow's configuration says.

    :raises PlanasonixConfigurationError: if an option has an invalid value.
    """
    try:
        return OutagePolicy(
            outage=timedelta(seconds=configuration.outage_patience()),
            first_contact=timedelta(seconds=configuration.first_contact_patience()),
        )
    except ValueError as invalid:
        raise PlanasonixConfigurationError(str(invalid)) from None


def read_connection(hook: PlanasonixHook, warn: Callable[..., object], rest: Callable[[float], None] = sleep) -> None:
    """Read the Airflow connection of a task that resumes; it may be missing for a moment.

    :param hook: reads it.
    :param warn: logs a warning.
    :param rest: waits for a number of seconds.
    :raises PlanasonixError: if it cannot be read for longer than a wait tolerates.
    """
    outage = OutageTracker(outage_policy())
    while True:
        try:
            _ = hook.settings
        except PlanasonixError as error:
            if outage.fail(error, utcnow()) is not Verdict.TOLERATED:
                raise
            if outage.is_news(utcnow()):
                warn("The wait is over, but the Airflow connection cannot be read yet, still trying: %s", error)
            rest(READ_RETRY_SECONDS)
        else:
            return


def deadline_of(task: Any, context: Context) -> datetime | None:
    """Say when a task that starts to wait now is to give up.

    :param task: the task. Its ``timeout``, in its final form (seconds, or ``None``), counts from now; its
        ``execution_timeout``, which is Airflow's limit, from the task's start.
    :param context: its context, from Airflow.
    :return: the earlier of both ends, or ``None`` if there is none.
    """
    ends = []
    if task.timeout is not None:
        ends.append(utcnow() + timedelta(seconds=task.timeout))
    if limit := _end_of_execution_timeout(task, context):
        ends.append(limit)
    return min(ends, default=None)


def limit_behind(deadline: datetime | None, task: Any, context: Context) -> str | None:
    """Return which of a task's parameters has set its deadline.

    :param deadline: the deadline, as of :func:`deadline_of`; in another process of the same try, too.
    :param task: the task.
    :param context: its context, from Airflow.
    :return: ``timeout`` or ``execution_timeout``, or ``None`` if there is no deadline.
    """
    if deadline is None:
        return None
    if task.timeout is None:
        return "execution_timeout"
    limit = _end_of_execution_timeout(task, context)
    # If Airflow does not know when the task began, the two times differ a little.
    is_that = limit is not None and abs(limit - deadline) < timedelta(seconds=1)
    return "execution_timeout" if is_that else "timeout"


def _end_of_execution_timeout(task: Any, context: Context) -> datetime | None:
    limit: timedelta | None = task.execution_timeout
    if not limit:
        return None
    began: datetime = getattr(context["ti"], "start_date", None) or utcnow()
    # At the end of it, Airflow neither lets a worker cancel nor, on 2.11, a trigger. So give up a little before.
    return began + limit - min(limit / 10, CLEANUP_TIME)
