"""The hook's waits until a job or a backfill is over: blocking, and awaited."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Protocol

from planasonix_provider import validators
from planasonix_provider.api.client import AsyncClient
from planasonix_provider.api.client_config import ClientConfig
from planasonix_provider.api.errors import PlanasonixError, PlanasonixTimeoutError, add_details
from planasonix_provider.api.models import Backfill
from planasonix_provider.api.rate_limiter import rate_limiter_for
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import FINAL_POLL, NO_RETRY, RetryPolicy
from planasonix_provider.clock import utcnow
from planasonix_provider.hooks.connection_settings import ConnectionSettings
from planasonix_provider.hooks.outage_settings import outage_policy
from planasonix_provider.waiting import blocking_wait
from planasonix_provider.waiting.async_wait import poll_at_the_deadline, until_event
from planasonix_provider.waiting.formatting import format_duration
from planasonix_provider.waiting.poller import POLLERS, Poller
from planasonix_provider.waiting.report import details_of, error_of_work, first_job_of
from planasonix_provider.waiting.result import explain
from planasonix_provider.waiting.result_fetcher import ResultFetcher
from planasonix_provider.waiting.shared_client import AsyncSend, run_requests
from planasonix_provider.waiting.targets import BackfillTarget, Work, WorkTarget
from planasonix_provider.waiting.wait_event import WaitEvent
from planasonix_provider.waiting.wait_state import WaitState


class _Hook(Protocol):
    """The part of the hook that a wait uses; the hook imports this module."""

    planasonix_conn_id: str

    @property
    def log(self) -> Any: ...
    @property
    def settings(self) -> ConnectionSettings: ...
    def send(self, request: Request[Any], policy: RetryPolicy | None = None) -> Any: ...
    def delay(self) -> float: ...
    def job_url(self, job_id: str) -> str: ...
    def config_source(self) -> Callable[[], ClientConfig]: ...
    async def async_settings(self) -> ConnectionSettings: ...
    async def async_client(self) -> AsyncClient: ...


class HookWait:
    """One wait of a hook.

    :param poll_interval: the seconds between two polls.
    :param timeout: how long to wait, in seconds or as a ``timedelta``; ``None`` for no limit.
    :raises ValueError: if a parameter is invalid.
    """

    def __init__(
        self, hook: _Hook, target: WorkTarget, poll_interval: float | timedelta, timeout: float | timedelta | None
    ) -> None:
        self._hook = hook
        self._target = target
        self._interval = validators.poll_interval("poll_interval", poll_interval)
        self._timeout = validators.optional(validators.seconds)("timeout", timeout)
        self._policy = outage_policy()
        self._deadline = None if self._timeout is None else utcnow() + timedelta(seconds=self._timeout)

    def block(self, sleep: Callable[[float], None]) -> Work:
        """Block until the work has succeeded, and return it; raise a ``PlanasonixError`` if it has not."""
        settings: ConnectionSettings | None = None
        # The first poll meets this error again.
        with suppress(PlanasonixError):
            settings = self._hook.settings
        state = self._new_state(settings)
        event = state.update(blocking_wait.poll(state, self._send), utcnow()) or blocking_wait.wait(
            state, self._send, interval=self._interval, rate_limit_delay=self._hook.delay, sleep=sleep
        )
        if event.is_out_of_time:
            answer = blocking_wait.poll(state, lambda request: self._hook.send(request, FINAL_POLL))
            event = state.on_final_poll(answer, event)
        return run_requests(self._hook.config_source(), lambda send: self._finish(event, send, self._hook.job_url))

    async def wait(self) -> Work:
        """Do the same without blocking, on the poller that all waits of the Airflow connection share."""
        settings: ConnectionSettings | None = None
        with suppress(PlanasonixError):
            settings = await self._hook.async_settings()
        state = self._new_state(settings)
        conn_id = self._hook.planasonix_conn_id
        poller = POLLERS.get(conn_id, lambda: Poller(self._hook.async_client, conn_id))
        async with poller.wait(self._target.request, self._interval) as wait:
            event = await until_event(state, wait, poller.client)
            if event.is_out_of_time:
                event = await poll_at_the_deadline(state, event, poller.client)
            settings = settings or await self._hook.async_settings()
            return await self._finish(event, poller.client.send, settings.job_url)

    def _new_state(self, settings: ConnectionSettings | None) -> WaitState:
        config = settings.client_config if settings else None
        return WaitState(
            self._target,
            now=utcnow(),
            info=self._hook.log.info,
            warn=self._hook.log.warning,
            deadline=self._deadline,
            is_owned=False,
            # The caller knows the id, so a first 404 may come from a server that lags behind.
            is_known=True,
            has_contact=config is not None and rate_limiter_for(config.base_url, config.api_key).skew is not None,
            policy=self._policy,
        )

    def _send(self, request: Request[Any]) -> Any:
        return self._hook.send(request, NO_RETRY)

    async def _finish(self, event: WaitEvent, send: AsyncSend, job_url: Callable[[str], str]) -> Work:
        """Return the work that has succeeded, or raise the error that it or the wait has met."""
        is_backfill = isinstance(self._target, BackfillTarget)
        details: dict[str, str | None] = {"backfill_id" if is_backfill else "job_id": self._target.id}
        if event.work:
            details = details_of(event.work) | details
        if job_id := first_job_of(event.work) if event.work else details.get("job_id"):
            details["job_url"] = job_url(job_id)
        try:
            if event.is_out_of_time:
                raise PlanasonixTimeoutError(
                    f"{self._target.goal} within {format_duration(self._timeout or 0)}, the timeout. "
                    "It was not cancelled."
                )
            return await self._complete(event.work_or_error(), send, job_url)
        except PlanasonixError as error:
            add_details(error, **details)
            raise

    async def _complete(self, work: Work, send: AsyncSend, job_url: Callable[[str], str]) -> Work:
        """Return the work with all its fields, or raise its error."""
        fetcher = ResultFetcher(send, self._interval, self._hook.log.warning, policy=self._policy)
        error: PlanasonixError | None
        if isinstance(work, Backfill):
            error = (await explain(work, fetcher, job_url=job_url)).error if error_of_work(work, None) else None
        else:
            # A job that ended in a list has only some of its fields.
            work = work if work.finished_at else await fetcher.job(work.id)
            error = error_of_work(work, job_url(work.id))
        if error:
            raise error
        return work
