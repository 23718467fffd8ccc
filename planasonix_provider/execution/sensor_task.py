"""One process of a sensor's task: looks, with one client for all looks, and says what came of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn, Self

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixTimeoutError,
    add_details,
)
from planasonix_provider.api.models import Backfill
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import NO_RETRY, is_permanent
from planasonix_provider.clock import sleep, utcnow
from planasonix_provider.execution.xcom import XComWriter
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.triggers.base import defer
from planasonix_provider.triggers.deferral import deadline_of, limit_behind, outage_policy, read_connection
from planasonix_provider.waiting import blocking_wait, outages
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.report import details_of, error_of_work, first_job_of, report
from planasonix_provider.waiting.result import WorkResult, explain
from planasonix_provider.waiting.result_fetcher import ResultFetcher
from planasonix_provider.waiting.shared_client import SharedClient, run_aside
from planasonix_provider.waiting.targets import Snapshot, Work
from planasonix_provider.waiting.wait_event import WaitEvent
from planasonix_provider.waiting.wait_state import WaitState

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.sensors.base import PlanasonixSensor

#: Which id a subject has, by its kind: a wait for the next sync is known by its connection.
_NAMED_BY = {"job": "job", "backfill": "backfill", "sync": "connection"}
#: How far a job itself may lag behind the list that has reported its end, before the list counts.
MAX_LAG = timedelta(seconds=30)
#: Where a rescheduled sensor notes since when it has had no answer.
UNSEEN_SINCE = "planasonix_unseen_since"


class SensorTask:
    """One process of a sensor's task; use it in a ``with`` block.

    :param sensor: says what to wait for, and how; its parameters are in their final form.
    :param context: the task's context, from Airflow.
    """

    def __init__(self, sensor: PlanasonixSensor, context: Context) -> None:
        self.sensor = sensor
        self.log = sensor.log
        self.hook = PlanasonixHook(sensor.planasonix_conn_id)
        self.signpost = XComWriter(context, self.log)
        self._notes = OutageNote(sensor, context)
        self._rests_since: datetime | None = None
        subject = sensor.subject()
        # The attributes of an exception that ends the task.
        self._details: dict[str, str | None] = {f"{_NAMED_BY[subject.kind]}_id": subject.id}
        # Each poke of a rescheduled sensor is another process.
        self._is_rescheduled = sensor.reschedule and not sensor.deferrable
        first_poke = first_look_at(sensor, context) if self._is_rescheduled else None
        trouble = self._notes.read()
        self._outages = outage_policy()
        self.watch = WaitState(
            subject,
            now=utcnow(),
            info=self.log.info,
            warn=self.log.warning,
            deadline=(deadline := self._deadline(context, first_poke)),
            limit=limit_behind(deadline, sensor, context),
            owned=False,
            # The first poke does not end before the API has answered, or met an outage.
            is_known=trouble.is_known if trouble else first_poke is not None,
            policy=self._outages,
            silent=sensor.silent_fail,
            unseen_since=trouble.since if trouble else None,
        )

    def __enter__(self) -> Self:
        self.sensor._lookout = self
        return self

    def __exit__(self, _: object, exception: BaseException | None, __: object) -> None:
        self.sensor._lookout = None
        self.hook.close()
        if exception:
            add_details(exception, **self._details)

    def poke(self) -> dict[str, Any] | None:
        """Look once.

        :return: an account of what was waited for, or ``None`` while the wait goes on.
        """
        noted = self.watch.unseen_since
        event = self._look()
        while event is None and self.watch.is_in_doubt:
            # Decided within one poke: the next one may be another process, or hours away.
            sleep(min(self.sensor.poke_interval, outages.RETRY_INTERVAL))
            event = self._look()
        if self.watch.unseen_since != noted:
            self._notes.write(self.watch)
        return self._finish(event) if event else None

    def _look(self) -> WaitEvent | None:
        answer = None if self._lets_others_go_first() else blocking_wait.look(self.watch, self._send)
        if isinstance(answer, Snapshot):
            self._note(answer.work)
        return self.watch.update(answer, utcnow())

    def _lets_others_go_first(self) -> bool:
        """Let time just pass, where the rate limit runs short: a minute at most."""
        if not self.hook.delay():
            self._rests_since = None
            return False
        now = utcnow()
        self._rests_since = self._rests_since or now
        if now - self._rests_since < blocking_wait.LONGEST_DELAY:
            return True
        self._rests_since = None
        return False

    def _send(self, request: Request[Any]) -> Any:
        return self.hook.send(request, NO_RETRY)

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
                limit=self.watch.limit,
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
            if event.outcome == "over":
                read_connection(self.hook, self.log.warning)
            return self._finish(event)
        except AirflowSkipException:
            # Airflow would put its own words over ours: that it skips because it was told to.
            self.sensor.soft_fail = self.sensor.never_fail = False
            raise
        except PlanasonixError as error:
            self._fail(error)

    def _finish(self, event: WaitEvent) -> dict[str, Any]:
        self._notes.delete()
        self._note(event.work)
        try:
            work = self._whole(event.work_or_error())
            job_id = first_job_of(work)
            self.signpost.set_job_url(self.hook.job_url(job_id) if job_id else None)
            if work.status not in self.sensor.allowed_states:
                raise self._why(work)
            return report(work, self.hook.job_url)
        except PlanasonixError as error:
            self._fail(error)

    def _note(self, work: Work | None) -> None:
        """Keep the work's ids for an exception, because Airflow may not be asked when a task is killed."""
        if work:
            self._details |= {name: value for name, value in details_of(work).items() if value}
        if job_id := self._details.get("job_id"):
            # Without the Airflow connection there is no page, and the task has its own error.
            with suppress(PlanasonixError):
                self._details["job_url"] = self.hook.job_url(job_id)

    def _whole(self, work: Work) -> Work:
        """Fetch what a list, which may have reported the job's end, leaves out.

        A list can be ahead of the job itself, and an end is never taken back. So the job is asked for again, and if it
        still lags behind, the list counts.
        """
        if isinstance(work, Backfill) or not work.is_over or work.finished_at:
            return work
        give_up = utcnow() + MAX_LAG
        try:
            while not (whole := self.hook.get_job(work.id)).is_over:
                if utcnow() >= give_up:
                    self.log.warning(
                        "Job %s is %s in the list of jobs, and still %s by itself. The list counts; the result lacks "
                        "the times and metrics that only the job itself has.",
                        work.id,
                        work.status,
                        whole.status,
                    )
                    return work
                sleep(outages.RETRY_INTERVAL)
        except PlanasonixError as trouble:
            self.log.warning("Job %s is %s, and nothing more of it can be fetched: %s", work.id, work.status, trouble)
            return work
        return whole

    def _why(self, work: Work) -> PlanasonixError:
        """Say what is wrong with work that the sensor was not waiting for in this state."""
        name = capitalize(self.watch.subject.name)
        if not work.is_over:
            return PlanasonixJobFailedError(f"{name} is {work.status}, which is one of failed_states.")
        if work.status in ("succeeded", "completed"):
            allowed = ", ".join(sorted(self.sensor.allowed_states))
            return PlanasonixJobFailedError(f"{name} is {work.status} for good, and allowed_states has only {allowed}.")
        if not isinstance(work, Backfill):
            error = error_of_work(work, self.hook.job_url(work.id))
        else:
            account = self._explained(work)
            self.signpost.set_job_url(account.url)
            error = account.error
        assert error is not None  # noqa: S101 - it has ended otherwise than well
        return error

    def _explained(self, backfill: Backfill) -> WorkResult:
        async def ask(channel: SharedClient) -> WorkResult:
            patience = ResultFetcher(channel.send, self.sensor.poke_interval, self.log.warning, policy=self._outages)
            return await explain(await patience.backfill(backfill.id), patience, job_url=self.hook.job_url)

        try:
            return run_aside(self.hook.config_source(), ask)
        except PlanasonixError as trouble:
            how = f"{'was ' if backfill.status == 'cancelled' else ''}{backfill.status}"
            self.log.warning("Why backfill %s %s cannot be found out: %s", backfill.id, how, trouble)
            return WorkResult(backfill, None, error_of_work(backfill, None))

    def _fail(self, error: PlanasonixError) -> NoReturn:
        """End the task as Airflow does it with a sensor, alike in all modes."""
        is_late = isinstance(error, PlanasonixTimeoutError)
        # No retry would see another end of the same work; nor is silent_fail to poke on until the timeout.
        is_meant = is_permanent(error) or isinstance(error, (PlanasonixJobFailedError, PlanasonixJobCancelledError))
        if self.sensor.never_fail or (self.sensor.soft_fail and (is_late or is_meant)):
            raise AirflowSkipException(error.message) from error
        if is_late and not self._ends_by_execution_timeout:
            raise AirflowSensorTimeout(error.message) from error
        if is_meant:
            raise AirflowFailException(error.message) from error
        raise error

    @property
    def _ends_by_execution_timeout(self) -> bool:
        """Whether that ends a deferred wait first: Airflow tries a task again after it, and not after ``timeout``."""
        limit = self.sensor.execution_timeout
        return self.sensor.deferrable and limit is not None and limit.total_seconds() < self.sensor.timeout

    def _deadline(self, context: Context, first_poke: datetime | None) -> datetime | None:
        if self.sensor.deferrable:
            return deadline_of(self.sensor, context)
        # On a worker, Airflow minds execution_timeout. The time between the looks of a rescheduled sensor counts, too.
        return (first_poke or utcnow()) + timedelta(seconds=self.sensor.timeout)


@dataclass(frozen=True)
class Trouble:
    """The outage that the previous poke has stored.

    :param since: when it began.
    :param is_known: whether the work was seen before it.
    """

    since: datetime
    is_known: bool


class OutageNote:
    """What a rescheduled sensor, which is another process at each look, knows of the looks before.

    :param sensor: the sensor.
    :param context: the task's context, from Airflow: from 3.3 on, there is a store in it.
    """

    def __init__(self, sensor: PlanasonixSensor, context: Context) -> None:
        self._store: Any = context.get("task_state_store") if sensor.reschedule and not sensor.deferrable else None
        # The store outlives the try.
        self._try = context["ti"].try_number
        self._is_there = False

    def read(self) -> Trouble | None:
        """Return the outage that the poke before has met.

        :return: the outage; ``None`` if that poke got a response, or could leave no note.
        """
        note = self._store.get(UNSEEN_SINCE) if self._store else None
        self._is_there = note is not None
        if isinstance(note, dict) and note.get("try") == self._try:
            return Trouble(datetime.fromisoformat(note["since"]), note.get("is_known", True))
        return None

    def write(self, watch: WaitState) -> None:
        """Note the outage that this poke has met, or delete the note if it got a response.

        :param watch: the wait.
        """
        if self._store and watch.unseen_since:
            since = watch.unseen_since.isoformat()
            self._store.set(UNSEEN_SINCE, {"try": self._try, "since": since, "is_known": watch.is_known})
            self._is_there = True
        else:
            self.delete()

    def delete(self) -> None:
        """Delete the note, if there is one."""
        if self._is_there:
            self._store.delete(UNSEEN_SINCE)
            self._is_there = False


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
