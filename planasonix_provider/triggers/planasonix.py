"""Waits in the triggerer, on the poller that all triggers of an Airflow connection share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.models import Job
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.parameters import seconds, text
from planasonix_provider.waiting.event import WaitEvent
from planasonix_provider.waiting.poller import poller_for
from planasonix_provider.waiting.watch import Watch
from planasonix_provider.waiting.worker import utcnow


class PlanasonixJobTrigger(BaseTrigger):
    """Waits until a job is over, and hands back one event that says how it ended.

    :param job_id: the job.
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix.
    :param poll_interval: the seconds between two looks at the job; default 10.
    :param deadline: when to give up, as a time with an offset or as ISO 8601 text; default never.
    :param cancel_on_deadline: whether to cancel the job then; default not, for who waits need not own what it waits
        for.
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
        status: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job_id = text("job_id", job_id)
        self.planasonix_conn_id = text("planasonix_conn_id", planasonix_conn_id)
        self.poll_interval = seconds("poll_interval", poll_interval)
        self.deadline = _moment(deadline)
        self.cancel_on_deadline = cancel_on_deadline
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
                "status": self.status,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait; yield the one event, whatever happens: a trigger that raises fails its task without a reason."""
        try:
            event = await self._wait()
        except Exception as bug:
            self.log.exception("The wait for job %s broke", self.job_id)
            error = PlanasonixError(f"The wait for job {self.job_id} broke ({type(bug).__name__}). Please report it.")
            event = WaitEvent.failed(self.job_id, error)
        yield TriggerEvent(event.to_payload())

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
        async with poller.wait(routes.get_job(self.job_id), self.poll_interval) as wait:
            while event is None:
                answer = await wait.next(watch.seconds_until_attention(utcnow()))
                event = watch.take(answer, utcnow())
        if event.is_out_of_time and self.cancel_on_deadline:
            # Here and not in the task: for hours there may be no worker free to run it.
            event = event.after_cancel(await self._cancel(hook))
        return event

    async def _cancel(self, hook: PlanasonixHook) -> Job | PlanasonixError:
        try:
            return await hook.aio.cancel_job(self.job_id)
        except PlanasonixError as error:
            return error


def _moment(deadline: datetime | str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(deadline) if isinstance(deadline, str) else deadline
    except ValueError:
        moment = None
    if deadline is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
        raise ValueError(f"deadline: got {deadline!r}, allowed is a time with an offset, or None.")
    return moment
