"""The hook's waits until a job or a backfill is over: blocking, and awaited."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from planasonix_provider import validators
from planasonix_provider.api.errors import PlanasonixError, PlanasonixTimeoutError, add_details
from planasonix_provider.api.models import Backfill
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import FINAL_POLL, NO_RETRY
from planasonix_provider.clock import utcnow
from planasonix_provider.waiting import blocking_wait
from planasonix_provider.waiting.async_wait import poll_at_the_deadline, until_event
from planasonix_provider.waiting.formatting import format_duration
from planasonix_provider.waiting.poller import POLLERS, Poller
from planasonix_provider.waiting.report import details_of, error_of_work, first_job_of
from planasonix_provider.waiting.result import explain
from planasonix_provider.waiting.result_fetcher import ResultFetcher
from planasonix_provider.waiting.shared_client import SharedClient, run_aside
from planasonix_provider.waiting.targets import BackfillTarget, Snapshot, Work, WorkTarget
from planasonix_provider.waiting.wait_event import WaitEvent
from planasonix_provider.waiting.wait_state import WaitState

if TYPE_CHECKING:
    from planasonix_provider.hooks.planasonix import PlanasonixHook


class HookWait:
    """One wait of a hook.

    :param hook: sends the requests.
    :param subject: the job or backfill.
    :param poll_interval: the seconds between two polls.
    :param timeout: for how long to wait, in seconds or as a ``timedelta``; ``None`` for as long as it takes.
    :raises ValueError: if a parameter makes no sense.
    """

    def __init__(
        self,
        hook: PlanasonixHook,
        subject: WorkTarget,
        poll_interval: float | timedelta,
        timeout: float | timedelta | None,
    ) -> None:
        self._hook = hook
        self._subject = subject
        self._interval = validators.poll_interval("poll_interval", poll_interval)
        seconds = validators.optional(validators.seconds)("timeout", timeout)
        now = utcnow()
        self._watch = WaitState(
            subject,
            now=now,
            info=hook.log.info,
            warn=hook.log.warning,
            deadline=None if seconds is None else now + timedelta(seconds=seconds),
            owned=False,
            # The caller knows its id, so a first 404 may be that of a server that lags behind.
            is_known=True,
        )
        self._seconds = seconds

    def block(self, sleep: Callable[[float], None]) -> Work:
        """Block until the work is over.

        :param sleep: waits for a number of seconds.
        :return: the work, which has succeeded.
        :raises PlanasonixError: if it has not, or if the wait ended before.
        """
        event = self._watch.update(blocking_wait.look(self._watch, self._send), utcnow()) or blocking_wait.wait(
            self._watch, self._send, interval=self._interval, rest=self._hook.delay, nap=sleep
        )
        if event.is_out_of_time:
            seen = blocking_wait.look(self._watch, lambda request: self._hook.send(request, FINAL_POLL))
            if isinstance(seen, Snapshot) and seen.is_over and seen.work:
                event = WaitEvent.over(self._subject, seen.work)

        async def ask(channel: SharedClient) -> Work:
            return await self._finish(event, channel, self._hook.job_url)

        return run_aside(self._hook.config_source(), ask)

    async def wait(self) -> Work:
        """Wait until the work is over, on the poller that all waits of the Airflow connection share.

        :return: the work, which has succeeded.
        :raises PlanasonixError: if it has not, or if the wait ended before.
        """
        poller = POLLERS.get(self._hook.planasonix_conn_id, lambda: Poller(self._hook.async_client))
        async with poller.wait(self._subject.request, self._interval) as wait:
            event = await until_event(self._watch, wait, poller.client)
            if event.is_out_of_time:
                event = await poll_at_the_deadline(self._watch, event, poller.client)
            settings = await self._hook.async_settings()
            return await self._finish(event, poller.client, settings.job_url)

    def _send(self, request: Request[Any]) -> Any:
        return self._hook.send(request, NO_RETRY)

    async def _finish(self, event: WaitEvent, channel: SharedClient, job_url: Callable[[str], str]) -> Work:
        """Return the work that has succeeded, or raise why it has not."""
        is_backfill = isinstance(self._subject, BackfillTarget)
        known: dict[str, str | None] = {"backfill_id" if is_backfill else "job_id": self._subject.id}
        if event.work:
            known = details_of(event.work) | known
        if job_id := first_job_of(event.work) if event.work else known.get("job_id"):
            known["job_url"] = job_url(job_id)
        try:
            if event.is_out_of_time:
                raise PlanasonixTimeoutError(
                    f"{self._subject.goal} within {format_duration(self._seconds or 0)}, the timeout. "
                    "It was not cancelled."
                )
            return await self._whole(event.work_or_error(), channel, job_url)
        except PlanasonixError as error:
            add_details(error, **known)
            raise

    async def _whole(self, work: Work, channel: SharedClient, job_url: Callable[[str], str]) -> Work:
        patience = ResultFetcher(channel.send, self._interval, self._hook.log.warning)
        error: PlanasonixError | None
        if isinstance(work, Backfill):
            error = (await explain(work, patience, job_url=job_url)).error if error_of_work(work, None) else None
        else:
            # A job that ended in a list has only some of its fields.
            work = work if work.finished_at else await patience.job(work.id)
            error = error_of_work(work, job_url(work.id))
        if error:
            raise error
        return work
