"""Sends the requests of one execution: it tolerates outages, but not beyond the task's deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from tenacity import Retrying, retry_all, retry_if_exception

from planasonix_provider.api import routes
from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixNotFoundError,
    PlanasonixOutageError,
    PlanasonixTimeoutError,
)
from planasonix_provider.api.rate_limiter import rate_limiter_for
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import NO_RETRY, RetryPolicy
from planasonix_provider.clock import monotonic, utcnow
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.waiting import blocking_wait, outages
from planasonix_provider.waiting.formatting import format_duration, format_time
from planasonix_provider.waiting.interruptible_sleep import InterruptibleSleep
from planasonix_provider.waiting.lost_start_search import (
    SEARCH_DELAY_SECONDS,
    MatchCriteria,
    find_one,
    search_repeatedly,
)
from planasonix_provider.waiting.outages import (
    Contact,
    OutagePolicy,
    OutageTracker,
    Verdict,
    is_unreachable,
    never_reached,
    outage_retry_options,
    pause_after,
)
from planasonix_provider.waiting.report import first_job_of
from planasonix_provider.waiting.shared_client import AsyncSend, RequestPriority, run_requests
from planasonix_provider.waiting.targets import Work, WorkTarget, target_of
from planasonix_provider.waiting.wait_event import WaitEvent
from planasonix_provider.waiting.wait_state import WaitState

R = TypeVar("R")


@dataclass
class ApiSession:
    """The hook of one execution with its log, its sleep, its deadline and its tolerance of errors."""

    hook: PlanasonixHook
    log: Any
    sleeper: InterruptibleSleep
    #: The seconds between two polls.
    interval: float
    #: How the hook repeats requests.
    policy: RetryPolicy
    #: How long errors are tolerated.
    outages: OutagePolicy
    deadline: datetime | None
    #: The task's parameter that has set the deadline.
    limit: str | None
    #: Whether an earlier process of this try has reached the API.
    has_had_contact: bool

    def __post_init__(self) -> None:
        self._began, self._began_at = utcnow(), monotonic()

    @property
    def is_out_of_time(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and utcnow() >= self.deadline

    @property
    def clock_skew(self) -> timedelta | None:
        """By how much the server's clock is ahead; ``None`` before its first response."""
        config = self.hook.settings.client_config
        return rate_limiter_for(config.base_url, config.api_key).skew

    @property
    def has_no_contact(self) -> bool:
        """Whether the host has never answered."""
        return self.clock_skew is None and not self.has_had_contact

    @property
    def first_policy(self) -> RetryPolicy:
        """How to send the very first request, which must succeed before the first-contact limit."""
        end = self._began_at + self.outages.first_contact.total_seconds()
        return replace(self.policy, until=end if self.policy.until is None else min(self.policy.until, end))

    def is_first_contact_failure(self, error: PlanasonixError) -> bool:
        """Return whether an error means that the next request cannot get through either."""
        return self.has_no_contact and is_unreachable(error)

    def server_time(self) -> datetime:
        """Return the time by the server's clock, as far as that is known."""
        return utcnow() + (self.clock_skew or timedelta())

    def read(self, request: Request[Any], contact: Contact = Contact.API) -> Any:
        """Send a read request until it succeeds; ``contact`` is the best response so far."""
        return self.retry_through_outage(lambda: self.hook.send(request), contact)

    def poll(self, request: Request[Any]) -> Any:
        """Send a request once, and not beyond the deadline; the caller polls again."""
        return self.hook.send(request, replace(NO_RETRY, until=self.policy.until))

    def retry_through_outage(
        self,
        act: Callable[[], R],
        contact: Contact = Contact.API,
        may_be_repeated: Callable[[BaseException], bool] = lambda error: True,
    ) -> R:
        """Call ``act`` again while errors are tolerated: failing would cost the task one of its retries.

        :param contact: the best response so far, which decides the meaning of an error.
        :param may_be_repeated: whether ``act`` may be called again after an error at all.
        :raises PlanasonixTimeoutError: if the task's deadline comes first.
        :raises PlanasonixOutageError: if the outage takes too long.
        """
        # A first contact begins with the task, and not with a later step of its start.
        began = self._began if contact is Contact.NONE and self.has_no_contact else utcnow()
        outage = OutageTracker(self.outages, contact, since=began)

        def call() -> R:
            try:
                return act()
            finally:
                if not self.has_no_contact:
                    outage.record_contact(Contact.API)

        def pause(error: PlanasonixError) -> float:
            interval = outages.RETRY_INTERVAL_SECONDS
            return pause_after(error, min(self.interval, interval) if outage.is_short else interval)

        def warn(error: PlanasonixError) -> None:
            self._mute_retries(True)
            self.log.warning(f"Planasonix cannot be asked yet, still trying: {error}")

        options = outage_retry_options(outage, pause=pause, warn=warn)
        may_retry = options.pop("retry")
        retrying = Retrying(
            **options,
            retry=retry_all(retry_if_exception(may_be_repeated), may_retry),
            stop=lambda _: self.is_out_of_time,
            sleep=self.sleep,
        )
        try:
            return retrying(call)
        except PlanasonixError as error:
            if not may_be_repeated(error) or outage.verdict is Verdict.REFUSED:
                raise
            if outage.verdict is Verdict.NO_CONTACT:
                error.set_message(never_reached(error, self.outages))
                raise
            if self.is_out_of_time:
                raise self.timeout_error(error) from error
            raise PlanasonixOutageError(
                f"Planasonix could not be asked since {format_time(began)}, for more than "
                f"{format_duration(outage.policy.outage.total_seconds())}. A retry of the task goes on from here. "
                f"The last try: {error}"
            ) from error
        finally:
            self._mute_retries(False)

    def _mute_retries(self, is_muted: bool) -> None:
        if self.policy.throttle:
            self.policy.throttle.is_muted = is_muted

    def timeout_error(self, error: PlanasonixError) -> PlanasonixTimeoutError:
        """Return the error for a deadline that came before another error was over."""
        return PlanasonixTimeoutError(f"{error.message} The task's {self.limit} is up.")

    def sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the deadline."""
        left = (self.deadline - utcnow()).total_seconds() if self.deadline else seconds
        self.sleeper.sleep(min(seconds, max(0.0, left)))

    def run_async(
        self, act: Callable[[AsyncSend], Awaitable[R]], priority: RequestPriority = RequestPriority.FIRST
    ) -> R:
        """Run a coroutine that sends many requests, and return its result."""
        return run_requests(self.hook.config_source(), act, self.sleeper.async_sleep, priority)

    def get_work(self, kind: str, work_id: str, contact: Contact = Contact.API) -> Work:
        """Return a job or backfill.

        With ``Contact.WORK``, an earlier try has started it or attached to it. Then only a 404 of the API itself that
        persists for a minute means that it is gone: a task that trusts a proxy's 404 starts the same work again.
        """
        get: Callable[[str], Request[Any]] = routes.get_backfill if kind == "backfill" else routes.get_job
        work: Work = self.read(get(work_id), contact)
        return work

    def page_of(self, work: Work) -> str | None:
        """Return the URL of the page that shows the work, if there is one."""
        job_id = first_job_of(work)
        return self.hook.job_url(job_id) if job_id else None

    @property
    def search_duration(self) -> str:
        """How long a search for the work of a start takes, in words."""
        return format_duration(sum(SEARCH_DELAY_SECONDS))

    def find(self, criteria: MatchCriteria) -> Work | None:
        """Search for the work of a start until there is almost certainly none; raise if several pieces match."""
        return self.run_async(lambda send: find_one(send, criteria, **self._search_options()))

    def find_all(self, criteria: MatchCriteria) -> list[Work]:
        """Search for all work that a start may have made."""
        return self.run_async(lambda send: search_repeatedly(send, criteria, **self._search_options()))

    def _search_options(self) -> dict[str, Any]:
        # A search skips the rate limiter: until the work is found, nothing enforces its deadline.
        return {
            "warn": self.log.warning,
            "sleep": self.sleeper.async_sleep,
            "pauses": SEARCH_DELAY_SECONDS,
            "deadline": self.deadline,
            "policy": self.outages,
        }

    def wait_state(self, target: WorkTarget, *, is_own: bool, status: str | None = None) -> WaitState:
        """Return the state of a wait that begins now."""
        return WaitState(
            target,
            now=utcnow(),
            info=self.log.info,
            warn=self.log.warning,
            deadline=self.deadline,
            limit=self.limit,
            status=status,
            is_owned=is_own,
            policy=self.outages,
        )

    def poll_until_complete(self, state: WaitState, poll: Callable[[Request[Any]], Any]) -> WaitEvent:
        """Wait on this worker."""
        return blocking_wait.wait(
            state, poll, interval=self.interval, rate_limit_delay=self.hook.delay, sleep=self.sleeper.sleep
        )

    def wait_until_over(self, work: Work, poll: Callable[[Request[Any]], Any] | None = None) -> Work | None:
        """Return the finished work, or ``None`` if it no longer exists. The work is not cancelled at the deadline."""
        state = self.wait_state(target_of(work), status=work.status, is_own=False)
        event = self.poll_until_complete(state, poll or self.poll)
        try:
            return event.work_or_error()
        except PlanasonixNotFoundError:
            return None
