"""Defers a task and resumes it, and computes its deadline."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS
from tenacity import Retrying

from planasonix_provider.clock import sleep, utcnow
from planasonix_provider.hooks.outage_settings import outage_policy
from planasonix_provider.waiting.outages import OutageTracker, outage_retry_options

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.hooks.planasonix import PlanasonixHook
    from planasonix_provider.waiting.wait_event import WaitEvent

#: How long Airflow may take to notice that the process of a deferring task has ended: its supervisor checks every five
#: seconds. If the event comes earlier, the scheduler takes the end of the process for a crash, and fails the task.
DEFER_SETTLE_TIME = timedelta(seconds=7)
#: How long a trigger may take after its deadline to cancel and to report, until Airflow's own timeout ends it.
DEFER_TIMEOUT_MARGIN = timedelta(minutes=20)
#: Whether Airflow passes the event of a deferred task to its retry, too. Other versions pass an event to a later try
#: only if they repeat the end of a try whose worker or scheduler has died, and then the event is the right one.
HAS_STALE_EVENTS = AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS
#: Seconds between two attempts to read an Airflow connection.
READ_RETRY_SECONDS = 5.0
#: How long before the end of ``execution_timeout`` a task gives up, at most, to have time to cancel and to report.
CLEANUP_TIME = timedelta(seconds=30)


class DeferrableTask(Protocol):
    """The method of Airflow's operators that :func:`defer` uses."""

    def defer(self, *, trigger: Any, method_name: str, timeout: timedelta | None = None) -> NoReturn:
        """Leave the worker until the trigger sends an event."""


class DeadlineTrigger(Protocol):
    """The fields of a wait's trigger that :func:`defer` uses."""

    deadline: datetime | None
    not_before: datetime | None


def defer(task: DeferrableTask, trigger: DeadlineTrigger, method_name: str = "execute_complete") -> NoReturn:
    """Defer a task. The trigger enforces the deadline, because Airflow's timeout would neither cancel nor report.

    :param task: the operator or sensor.
    :param trigger: a ``PlanasonixWaitTrigger``.
    :param method_name: the method of the task that gets the trigger's event.
    :raises TaskDeferred: always.
    """
    trigger.not_before = utcnow() + DEFER_SETTLE_TIME
    timeout = trigger.deadline - utcnow() + DEFER_TIMEOUT_MARGIN if trigger.deadline else None
    task.defer(trigger=trigger, method_name=method_name, timeout=timeout)


def discard_if_stale(event: WaitEvent, context: Context, log: Any) -> bool:
    """Return whether an earlier try waited for this event, and log that this try does not use it."""
    if not HAS_STALE_EVENTS or event.try_number is None or event.try_number >= context["ti"].try_number:
        return False
    log.info("Airflow passed the event of try %s to this try, which does not use it.", event.try_number)
    return True


def read_connection(hook: PlanasonixHook, warn: Callable[..., object], pause: Callable[[float], None] = sleep) -> None:
    """Read the Airflow connection of a task that resumes; retry as in an outage, because it may be missing briefly.

    :raises PlanasonixError: if it cannot be read for longer than a wait tolerates.
    """
    options = outage_retry_options(
        OutageTracker(outage_policy()),
        pause=lambda _: READ_RETRY_SECONDS,
        warn=lambda error: warn(
            "The wait is over, but the Airflow connection cannot be read yet, still trying: %s", error
        ),
    )
    Retrying(**options, sleep=pause)(lambda: hook.settings)


def deadline_of(task: Any, context: Context) -> datetime | None:
    """Return when a task that starts to wait now gives up, or ``None`` if it has no limit.

    Its ``timeout`` (seconds or ``None``) counts from now; its ``execution_timeout``, which is Airflow's limit, from the
    task's start.
    """
    limits = []
    if task.timeout is not None:
        limits.append(utcnow() + timedelta(seconds=task.timeout))
    if limit := _end_of_execution_timeout(task, context):
        limits.append(limit)
    return min(limits, default=None)


def limit_behind(deadline: datetime | None, task: Any, context: Context) -> str | None:
    """Return which parameter has set a task's deadline, in any process of the same try.

    It is ``timeout`` or ``execution_timeout``, or ``None`` without a deadline.
    """
    if deadline is None:
        return None
    if task.timeout is None:
        return "execution_timeout"
    limit = _end_of_execution_timeout(task, context)
    # If Airflow does not know when the task started, the two times differ a little.
    is_that = limit is not None and abs(limit - deadline) < timedelta(seconds=1)
    return "execution_timeout" if is_that else "timeout"


def _end_of_execution_timeout(task: Any, context: Context) -> datetime | None:
    limit: timedelta | None = task.execution_timeout
    if not limit:
        return None
    started_at: datetime = getattr(context["ti"], "start_date", None) or utcnow()
    # At its end, Airflow lets neither a worker cancel nor, on 2.11, a trigger. So give up a little earlier.
    return started_at + limit - min(limit / 10, CLEANUP_TIME)
