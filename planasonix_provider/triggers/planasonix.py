"""Waits in the triggerer, on the poller that all triggers of an Airflow connection share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixError, PlanasonixLostTrackError
from planasonix_provider.api.models import Job
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.parameters import seconds, text
from planasonix_provider.waiting.clock import utcnow
from planasonix_provider.waiting.event import WaitEvent
from planasonix_provider.waiting.poller import Poller, poller_for
from planasonix_provider.waiting.watch import Watch


class PlanasonixJobTrigger(BaseTrigger):
    """Waits until a job is over, and hands back one event that says how it ended.

    :param job_id: the job.
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix.
    :param poll_interval: the seconds between two looks at the job; default 10.
    :param deadline: when to give up, as a time with an offset or as ISO 8601 text; default never.
    :param cancel_on_deadline: whether to cancel the job then; default not, for who waits need not own what it waits
        for.
    :param not_before: until when to keep the event back, as a time with an offset or as ISO 8601 text; default not at
        all. Where the task defers, Airflow may notice only seconds later that its process has ended, and fails a task
        whose event comes first.
    :param status: the job's state as the task's log shows it already, so that it is not logged twice.
    :raises ValueError: if a parameter makes no sense.
    """

    def __init__(
        self,
        job_id: str,
        planasonix_conn_id: str = "planasonix_default",
        poll_interval: float = 10.0,
        deadline: datetime | str | None = None,
        cancel_on_deadline: bool = False,
        not_before: datetime | str | None = None,
        status: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job_id = text("job_id", job_id)
        self.planasonix_conn_id = text("planasonix_conn_id", planasonix_conn_id)
        self.poll_interval = seconds("poll_interval", poll_interval)
        self.deadline = _moment("deadline", deadline)
        self.cancel_on_deadline = cancel_on_deadline
        self.not_before = _moment("not_before", not_before)
        self.status = status

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Say how to make this trigger again, in another process.

        :return: the class's path, and its arguments as JSON types.
        """
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "job_id": self.job_id,
                "planasonix_conn_id": self.planasonix_conn_id,
                "poll_interval": self.poll_interval,
                "deadline": self.deadline.isoformat() if self.deadline else None,
                "cancel_on_deadline": self.cancel_on_deadline,
                "not_before": self.not_before.isoformat() if self.not_before else None,
                "status": self.status,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait; yield the one event, whatever happens: a trigger that raises fails its task without a reason."""
        try:
            event = await self._wait()
        except Exception as bug:
            self.log.exception("The wait for job %s broke", self.job_id)
            error = PlanasonixLostTrackError(
                f"The wait for job {self.job_id} broke ({type(bug).__name__}), and the job may still run: look at it "
                "in Planasonix before you clear the task, and please report this."
            )
            event = WaitEvent.failed(self.job_id, error)
        await asyncio.sleep(self._seconds_to_keep_back())
        yield TriggerEvent(event.to_payload())

    def _seconds_to_keep_back(self) -> float:
        return max(0.0, (self.not_before - utcnow()).total_seconds()) if self.not_before else 0.0

    async def _wait(self) -> WaitEvent:
        hook = PlanasonixHook(self.planasonix_conn_id)
        poller = poller_for(self.planasonix_conn_id, hook.async_client)
        watch = Watch(
            self.job_id,
            now=utcnow(),
            info=self.log.info,
            warn=self.log.warning,
            deadline=self.deadline,
            status=self.status,
        )
        event = None
        # The task has looked just before it deferred, and what a look brings before the event may go is of no use.
        delay = min(self.poll_interval, self._seconds_to_keep_back())
        async with poller.wait(routes.get_job(self.job_id), self.poll_interval, delay) as wait:
            while event is None:
                answer = await wait.next(watch.seconds_until_attention(utcnow()))
                event = watch.take(answer, utcnow())
            if event.is_out_of_time:
                # Here and not in the task: for hours there may be no worker free to run it.
                cancelled = self.cancel_on_deadline
                event = event.after_cancel(await self._cancel(poller)) if cancelled else event.after_no_cancel()
        return event

    async def _cancel(self, poller: Poller) -> Job | PlanasonixError:
        try:
            job = await poller.send(routes.cancel_job(self.job_id))
            if job.is_over:
                # The answer to a cancel has only part of what the account of an ended job needs.
                job = await poller.send(routes.get_job(self.job_id))
        except PlanasonixError as error:
            return error
        return job


def _moment(name: str, given: datetime | str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(given) if isinstance(given, str) else given
    except ValueError:
        moment = None
    if given is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
        raise ValueError(f"{name}: got {given!r}, allowed is a time with an offset, or None.")
    return moment
