"""One process of a sensor's task: looks, with one client for all looks, and says what came of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Self

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixTimeoutError,
)
from planasonix_provider.api.models import Backfill
from planasonix_provider.api.retry import ONCE, is_final
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.links.planasonix import Signpost
from planasonix_provider.triggers.deferral import deadline_of, defer
from planasonix_provider.waiting import worker
from planasonix_provider.waiting.account import Account, explain
from planasonix_provider.waiting.channel import Channel, run_aside
from planasonix_provider.waiting.clock import utcnow
from planasonix_provider.waiting.event import WaitEvent
from planasonix_provider.waiting.patience import Patience
from planasonix_provider.waiting.report import error_of_work, report_backfill, report_job
from planasonix_provider.waiting.subjects import Work
from planasonix_provider.waiting.watch import Watch
from planasonix_provider.waiting.words import sentence

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.sensors.base import PlanasonixSensor

#: Where a rescheduled sensor notes since when it has had no answer.
UNSEEN_SINCE = "planasonix_unseen_since"


class Lookout:
    """One process of a sensor's task; use it in a ``with`` block.

    :param sensor: says what to wait for, and how; its parameters are in their final form.
    :param context: the task's context, from Airflow.
    """

    def __init__(self, sensor: PlanasonixSensor, context: Context) -> None:
        self.sensor = sensor
        self.log = sensor.log
        self.hook = PlanasonixHook(sensor.planasonix_conn_id)
        self.signpost = Signpost(context, self.log)
        # A rescheduled sensor is another process at each look; Airflow 3.3 and later keep a note for it.
        self._notes = context.get("task_state_store") if sensor.reschedule and not sensor.deferrable else None
        self.watch = Watch(
            sensor.subject(),
            now=utcnow(),
            info=self.log.info,
            warn=self.log.warning,
            deadline=self._deadline(context),
            owned=False,
            forgetful=sensor.reschedule and not sensor.deferrable,
            silent=sensor.silent_fail,
            unseen_since=self._read_note(),
        )

    def __enter__(self) -> Self:
        self.sensor._lookout = self
        return self

    def __exit__(self, *_: object) -> None:
        self.sensor._lookout = None
        self.hook.close()

    def poke(self) -> dict[str, Any] | None:
        """Look once.

        :return: an account of what was waited for, or ``None`` while the wait goes on.
        """
        noted = self.watch.unseen_since
        answer = worker.look(self.watch, lambda request: self.hook.send(request, ONCE))
        event = self.watch.take(answer, utcnow())
        if self.watch.unseen_since != noted:
            self._write_note()
        return self._conclude(event) if event else None

    def defer(self) -> NoReturn:
        """Go on in the triggerer.

        :raises TaskDeferred: always.
        """
        if self.sensor.exponential_backoff:
            self.log.info("exponential_backoff and max_wait do not apply here: deferred sensors share their looks.")
        defer(
            self.sensor,
            self.sensor.trigger(
                planasonix_conn_id=self.sensor.planasonix_conn_id,
                poll_interval=self.sensor.poke_interval,
                deadline=self.watch.deadline,
                status=self.watch.status,
                silent=self.sensor.silent_fail,
            ),
        )

    def resume(self, payload: Any) -> dict[str, Any]:
        """Go on from what the trigger handed back.

        :param payload: the trigger's event.
        :return: an account of what was waited for.
        """
        try:
            event = WaitEvent.from_payload(payload, self.watch.subject.kind)
        except PlanasonixError as error:
            self._fail(error)
        return self._conclude(event)

    def _conclude(self, event: WaitEvent) -> dict[str, Any]:
        try:
            work = event.work_or_error()
        except PlanasonixError as error:
            self._fail(error)
        job_ids = (work.job_ids or []) if isinstance(work, Backfill) else [work.id]
        self.signpost.show(self.hook.job_url(job_ids[0]) if job_ids else None)
        if work.status not in self.sensor.allowed_states:
            self._fail(self._why(work))
        return report_backfill(work) if isinstance(work, Backfill) else report_job(work, self.hook.job_url(work.id))

    def _why(self, work: Work) -> PlanasonixError:
        """Say what is wrong with work that the sensor was not waiting for in this state."""
        name = sentence(self.watch.subject.name)
        if not work.is_over:
            return PlanasonixJobFailedError(f"{name} is {work.status}, which is one of failed_states.")
        if work.status in ("succeeded", "completed"):
            allowed = ", ".join(sorted(self.sensor.allowed_states))
            return PlanasonixJobFailedError(f"{name} is {work.status} for good, and allowed_states has only {allowed}.")
        if not isinstance(work, Backfill):
            error = error_of_work(work, self.hook.job_url(work.id))
        else:
            account = run_aside(partial(next, self.hook.accounts()), partial(self._explain, work))
            self.signpost.show(account.url)
            error = account.error
        assert error is not None  # noqa: S101 - it has ended otherwise than well
        return error

    async def _explain(self, backfill: Backfill, channel: Channel) -> Account:
        patience = Patience(channel.send, self.sensor.poke_interval, self.log.warning)
        return await explain(await patience.backfill(backfill.id), patience, job_url=self.hook.job_url)

    def _fail(self, error: PlanasonixError) -> NoReturn:
        """End the task as Airflow does it with a sensor, alike in all modes."""
        is_late = isinstance(error, PlanasonixTimeoutError)
        # No retry would see another end of the same work; nor is silent_fail to poke on until the timeout.
        is_meant = is_final(error) or isinstance(error, (PlanasonixJobFailedError, PlanasonixJobCancelledError))
        if self.sensor.never_fail or (self.sensor.soft_fail and (is_late or is_meant)):
            raise AirflowSkipException(error.message) from error
        if is_late:
            raise AirflowSensorTimeout(error.message) from error
        if is_meant:
            raise AirflowFailException(error.message) from error
        raise error

    def _deadline(self, context: Context) -> datetime | None:
        timeout = timedelta(seconds=self.sensor.timeout)
        began = getattr(context["ti"], "start_date", None)
        if self.sensor.reschedule and not self.sensor.deferrable:
            # The time between two looks counts, too; execution_timeout is about each look by itself.
            return (first_look_at(self.sensor, context) or utcnow()) + timeout
        return deadline_of(began, timeout=timeout, execution_timeout=self.sensor.execution_timeout)

    def _read_note(self) -> datetime | None:
        noted = self._notes.get(UNSEEN_SINCE) if self._notes else None
        return datetime.fromisoformat(noted) if isinstance(noted, str) else None

    def _write_note(self) -> None:
        if self._notes is None:
            return
        if self.watch.unseen_since:
            self._notes.set(UNSEEN_SINCE, self.watch.unseen_since.isoformat())
        else:
            self._notes.delete(UNSEEN_SINCE)


def first_look_at(sensor: PlanasonixSensor, context: Context) -> datetime | None:
    """Say when a rescheduled sensor has looked first, as Airflow counts its ``timeout``.

    :param sensor: the sensor.
    :param context: the task's context, from Airflow.
    :return: the time, or ``None`` if this is the first look.
    """
    ti: Any = context["ti"]
    first: datetime | None
    if hasattr(ti, "get_first_reschedule_date"):
        first = ti.get_first_reschedule_date(context)
        return first
    # Airflow 2 tells nobody but its own sensors.
    from airflow.sensors.base import _orig_start_date  # type: ignore[import-not-found]

    first = _orig_start_date(
        dag_id=ti.dag_id,
        task_id=ti.task_id,
        run_id=ti.run_id,
        map_index=ti.map_index,
        try_number=(ti.max_tries or 0) - (sensor.retries or 0) + 1,
    )
    return first
