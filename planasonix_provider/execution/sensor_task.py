"""Runs one process of a sensor's task: polls, defers, resumes, and returns a result or raises an error."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixTimeoutError,
    add_details,
)
from planasonix_provider.api.models import Backfill
from planasonix_provider.api.rate_limiter import rate_limiter_for
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import NO_RETRY, is_permanent
from planasonix_provider.clock import sleep, utcnow
from planasonix_provider.execution.options import AirflowTask, SensorOptions
from planasonix_provider.execution.xcom import XComWriter
from planasonix_provider.hooks.outage_settings import outage_policy
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.triggers.base import PlanasonixWaitTrigger
from planasonix_provider.triggers.deferral import deadline_of, defer, discard_if_stale, limit_behind, read_connection
from planasonix_provider.waiting import blocking_wait, outages
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.report import details_of, error_of_work, first_job_of, report
from planasonix_provider.waiting.result import WorkResult, explain
from planasonix_provider.waiting.result_fetcher import ResultFetcher
from planasonix_provider.waiting.shared_client import AsyncSend, run_requests
from planasonix_provider.waiting.targets import Snapshot, WaitTarget, Work
from planasonix_provider.waiting.wait_event import WaitEvent
from planasonix_provider.waiting.wait_state import WaitState
from planasonix_provider.waiting.work_metrics import WorkMetrics

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.state_store import TaskStateStore

#: How long a job may lag behind the list that has reported its end. Then the list counts.
MAX_LAG = timedelta(seconds=30)
#: The key under which a rescheduled sensor stores the begin of an outage.
UNSEEN_SINCE = "planasonix_unseen_since"


class SensorTask:
    """One process of a sensor's task, with one client for all its polls. Use it in a ``with`` block."""

    def __init__(self, options: SensorOptions, task: AirflowTask, target: WaitTarget, context: Context) -> None:
        self._options = options
        self._task = task
        self._target = target
        self._log = task.log
        self._hook = PlanasonixHook(options.planasonix_conn_id)
        self._context = context
        self._xcoms = XComWriter(context, self._log)
        self._metrics = WorkMetrics(options.planasonix_conn_id, "sensor")
        self._delayed_since: datetime | None = None
        self._outages = outage_policy()
        # The attributes of an exception that ends the task.
        self._details: dict[str, str | None] = {target.id_name: target.id}
        # Each poke of a rescheduled sensor is another process.
        is_rescheduled = options.reschedule and not options.deferrable
        first_poke = _first_poke_at(options, context) if is_rescheduled else None
        store: Any = context.get("task_state_store") if is_rescheduled else None
        self._outage_note = OutageNote(store, context["ti"].try_number)
        outage = self._outage_note.read()
        if options.deferrable:
            deadline = deadline_of(task, context)
        else:
            # On a worker, Airflow enforces execution_timeout. The time between two pokes counts, too.
            deadline = (first_poke or utcnow()) + timedelta(seconds=options.timeout)
        self._state = WaitState(
            target,
            now=utcnow(),
            info=self._log.info,
            warn=self._log.warning,
            deadline=deadline,
            limit=limit_behind(deadline, task, context),
            is_owned=False,
            # The first poke does not end before the API has responded, or an outage has begun.
            is_known=outage.is_known if outage else first_poke is not None,
            policy=self._outages,
            is_silent=options.silent_fail,
            unseen_since=outage.since if outage else None,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, exception: BaseException | None, __: object) -> None:
        self._hook.close()
        if exception:
            add_details(exception, **self._details)

    def poke(self) -> dict[str, Any] | None:
        """Poll once. Return the task's result, or ``None`` while the wait goes on."""
        unseen_since = self._state.unseen_since
        event = self._poll()
        while event is None and self._state.is_in_doubt:
            # Decided within one poke, because the next one may be hours away, in another process.
            sleep(min(self._options.poke_interval, outages.RETRY_INTERVAL_SECONDS))
            event = self._poll()
        if self._state.unseen_since != unseen_since:
            self._outage_note.write(self._state)
        return self._finish(event) if event else None

    def _poll(self) -> WaitEvent | None:
        answer = None if self._is_delayed() else blocking_wait.poll(self._state, self._send)
        if isinstance(answer, Snapshot):
            self._set_details(answer.work)
        return self._state.update(answer, utcnow())

    def _is_delayed(self) -> bool:
        """Return whether this poke sends no request, because the rate limit runs short: for a minute at most."""
        if not self._hook.delay():
            self._delayed_since = None
            return False
        now = utcnow()
        self._delayed_since = self._delayed_since or now
        if now - self._delayed_since < blocking_wait.MAX_RATE_LIMIT_DELAY:
            return True
        self._delayed_since = None
        return False

    def _send(self, request: Request[Any]) -> Any:
        return self._hook.send(request, NO_RETRY)

    def poke_or_defer(self) -> dict[str, Any]:
        """Poll once, and go on in the triggerer if the wait is not over."""
        result = self.poke()
        return self._defer() if result is None else result

    def _defer(self) -> NoReturn:
        if self._options.exponential_backoff:
            self._log.info("exponential_backoff and max_wait do not apply here: deferred sensors share their polls.")
        defer(
            self._task,
            PlanasonixWaitTrigger(
                self._target,
                planasonix_conn_id=self._options.planasonix_conn_id,
                poll_interval=self._options.poke_interval,
                deadline=self._state.deadline,
                limit=self._state.limit,
                status=self._state.status,
                silent=self._options.silent_fail,
            ),
        )

    def resume(self, payload: Any) -> dict[str, Any]:
        """Return the task's result after the trigger has sent its event."""
        try:
            event = WaitEvent.from_payload(payload, self._target.kind)
            if discard_if_stale(event, self._context, self._log):
                return self.poke_or_defer()
            if event.outcome == "over":
                read_connection(self._hook, self._log.warning)
            return self._finish(event)
        except PlanasonixError as error:
            self._fail(error)

    def _finish(self, event: WaitEvent) -> dict[str, Any]:
        self._outage_note.delete()
        self._set_details(event.work)
        try:
            work = self._complete(event.work_or_error())
            job_id = first_job_of(work)
            self._xcoms.set_job_url(self._hook.job_url(job_id) if job_id else None)
            self._metrics.count_end(work)
            if event.sent_at and work.is_over:
                config = self._hook.settings.client_config
                self._metrics.record_delay(work, event.sent_at, rate_limiter_for(config.base_url, config.api_key).skew)
            if work.status not in self._options.allowed_states:
                raise self._error_of(work)
            return report(work, self._hook.job_url)
        except PlanasonixError as error:
            self._fail(error)

    def _set_details(self, work: Work | None) -> None:
        """Store the work's ids for an exception: a kill leaves no time to ask Airflow for its connection."""
        if work:
            self._details |= {name: value for name, value in details_of(work).items() if value}
        if job_id := self._details.get("job_id"):
            # Without the Airflow connection the page is unknown, and the task has its own error.
            with suppress(PlanasonixError):
                self._details["job_url"] = self._hook.job_url(job_id)

    def _complete(self, work: Work) -> Work:
        """Return a finished job with all its fields: the list that has reported its end leaves some out.

        A list can be ahead of the job itself. An end is final, so a job that still lags behind is polled again.
        """
        if isinstance(work, Backfill) or not work.is_over or work.finished_at:
            return work
        give_up = utcnow() + MAX_LAG
        try:
            while not (job := self._hook.get_job(work.id)).is_over:
                if utcnow() >= give_up:
                    self._log.warning(
                        "Job %s is %s in the list of jobs, and still %s by itself. The list counts; the result lacks "
                        "the times and metrics that only the job itself has.",
                        work.id,
                        work.status,
                        job.status,
                    )
                    return work
                sleep(outages.RETRY_INTERVAL_SECONDS)
        except PlanasonixError as error:
            self._log.warning("Job %s is %s, and nothing more of it can be fetched: %s", work.id, work.status, error)
            return work
        return job

    def _error_of(self, work: Work) -> PlanasonixError:
        """Return why the sensor fails at work that is in none of the allowed states."""
        name = capitalize(self._target.name)
        if not work.is_over:
            return PlanasonixJobFailedError(f"{name} is {work.status}, which is one of failed_states.")
        if work.status in ("succeeded", "completed"):
            allowed = ", ".join(sorted(self._options.allowed_states))
            return PlanasonixJobFailedError(f"{name} is {work.status} for good, and allowed_states has only {allowed}.")
        if not isinstance(work, Backfill):
            error = error_of_work(work, self._hook.job_url(work.id))
        else:
            result = self._explain(work)
            self._xcoms.set_job_url(result.url)
            error = result.error
        assert error is not None  # noqa: S101 - it has failed, or was cancelled
        return error

    def _explain(self, backfill: Backfill) -> WorkResult:
        """Return which of the backfill's jobs failed."""

        async def fetch(send: AsyncSend) -> WorkResult:
            interval, warn = self._options.poke_interval, self._log.warning
            fetcher = ResultFetcher(send, interval, warn, policy=self._outages)
            return await explain(await fetcher.backfill(backfill.id), fetcher, job_url=self._hook.job_url)

        try:
            return run_requests(self._hook.config_source(), fetch)
        except PlanasonixError as error:
            end = f"{'was ' if backfill.status == 'cancelled' else ''}{backfill.status}"
            self._log.warning("Why backfill %s %s cannot be found out: %s", backfill.id, end, error)
            return WorkResult(backfill, None, error_of_work(backfill, None))

    def _fail(self, error: PlanasonixError) -> NoReturn:
        """Raise the exception with which Airflow's own sensors fail, in all three modes."""
        is_timeout = isinstance(error, PlanasonixTimeoutError)
        # A retry would see the same end again, and silent_fail must not let such a sensor poke until its timeout.
        is_final = is_permanent(error) or isinstance(error, (PlanasonixJobFailedError, PlanasonixJobCancelledError))
        if self._options.never_fail or (self._options.soft_fail and (is_timeout or is_final)):
            raise AirflowSkipException(error.message) from error
        if is_timeout and not self._has_shorter_execution_timeout:
            raise AirflowSensorTimeout(error.message) from error
        if is_final:
            raise AirflowFailException(error.message) from error
        raise error

    @property
    def _has_shorter_execution_timeout(self) -> bool:
        """Whether ``execution_timeout`` ends a deferred wait: Airflow retries after it, but not after ``timeout``."""
        limit = self._task.execution_timeout
        return self._options.deferrable and limit is not None and limit.total_seconds() < self._options.timeout


class _Outage(NamedTuple):
    since: datetime
    #: Whether the work was seen before the outage.
    is_known: bool


class OutageNote:
    """Stores the outage of a rescheduled sensor for its next poke, which is another process.

    Airflow before 3.3 has no ``task_state_store``, and the outage is forgotten. A variable is no replacement: each poke
    would look it up, in the secrets backend, too.
    """

    def __init__(self, store: TaskStateStore | None, try_number: int) -> None:
        self._store = store
        # The store outlives the try.
        self._try_number = try_number
        self._exists = False

    def read(self) -> _Outage | None:
        """Return the outage of the previous poke, if there was one."""
        note = self._store.get(UNSEEN_SINCE) if self._store else None
        self._exists = note is not None
        if isinstance(note, dict) and note.get("try") == self._try_number:
            return _Outage(datetime.fromisoformat(note["since"]), note.get("is_known", True))
        return None

    def write(self, state: WaitState) -> None:
        """Store the outage that this poke has met, or delete the note if the API has responded."""
        if self._store and state.unseen_since:
            since = state.unseen_since.isoformat()
            self._store.set(UNSEEN_SINCE, {"try": self._try_number, "since": since, "is_known": state.is_known})
            self._exists = True
        else:
            self.delete()

    def delete(self) -> None:
        """Delete the note, if there is one."""
        if self._store and self._exists:
            self._store.delete(UNSEEN_SINCE)
            self._exists = False


def _first_poke_at(options: SensorOptions, context: Context) -> datetime | None:
    """Return when a rescheduled sensor first poked: its ``timeout`` counts from then. ``None`` at the first poke."""
    ti: Any = context["ti"]
    first: datetime | None
    if hasattr(ti, "get_first_reschedule_date"):
        first = ti.get_first_reschedule_date(context)
        return first
    # Airflow 2 has this only for its own sensors.
    from airflow.sensors.base import _orig_start_date  # type: ignore[import-not-found]

    first = _orig_start_date(
        dag_id=ti.dag_id,
        task_id=ti.task_id,
        run_id=ti.run_id,
        map_index=ti.map_index,
        try_number=(ti.max_tries or 0) - (options.retries or 0) + 1,
    )
    return first
