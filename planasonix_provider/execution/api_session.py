"""Asks the API for one try of a task: with the patience of a wait, and until the task's time is up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from planasonix_provider.api import routes
from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixNotFoundError,
    PlanasonixOutageError,
    PlanasonixTimeoutError,
)
from planasonix_provider.api.rate_limiter import pace_of
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import RetryPolicy
from planasonix_provider.clock import monotonic, utcnow
from planasonix_provider.triggers.deferral import limit_behind
from planasonix_provider.waiting import blocking_wait
from planasonix_provider.waiting.formatting import format_duration, format_time
from planasonix_provider.waiting.lost_start_search import (
    RETRY_INTERVAL,
    SEARCH_DELAYS,
    MatchCriteria,
    find_the_one,
    look_for,
)
from planasonix_provider.waiting.outages import (
    Contact,
    OutageTracker,
    Verdict,
    is_unreachable,
    never_reached,
)
from planasonix_provider.waiting.report import first_job_of
from planasonix_provider.waiting.shared_client import Priority, SharedClient, run_aside
from planasonix_provider.waiting.targets import Work, subject_of
from planasonix_provider.waiting.wait_state import WaitState, pause_after

if TYPE_CHECKING:
    from planasonix_provider.execution.start_task import StartTask
    from planasonix_provider.hooks.planasonix import PlanasonixHook

R = TypeVar("R")


class ApiSession:
    """What the parts of a start have in common: how they ask, wait, and tell.

    :param road: the try.
    :param hook: calls the API.
    :param deadline: when to give up, or ``None`` for never.
    """

    def __init__(self, road: StartTask, hook: PlanasonixHook, deadline: datetime | None) -> None:
        self._road = road
        self._hook = hook
        self.deadline = deadline
        self._outages = road.outages
        self._began, self._began_at = utcnow(), monotonic()
        #: The task's parameter that has set it.
        self.limit = limit_behind(deadline, road.operator, road.context)

    def say(self, line: str) -> None:
        """Tell the task's log.

        :param line: what to tell.
        """
        self._road.log.info("%s", line)

    def warn(self, line: str) -> None:
        """Tell the task's log what deserves attention.

        :param line: what to tell.
        """
        self._road.log.warning("%s", line)

    @property
    def is_out_of_time(self) -> bool:
        """Whether the task's time is up."""
        return self.deadline is not None and utcnow() >= self.deadline

    @property
    def known_skew(self) -> timedelta | None:
        """By how much the server's clock is ahead; ``None`` before its first answer."""
        account = self._hook.settings.client_config
        return pace_of(account.base_url, account.api_key).skew

    @property
    def has_no_contact(self) -> bool:
        """Whether nothing has ever answered at the host."""
        return self.known_skew is None and not self._road.has_had_contact

    @property
    def first_policy(self) -> RetryPolicy:
        """How to send the first request of all: until the first contact must have succeeded."""
        end = self._began_at + self._outages.first_contact.total_seconds()
        policy = self._road.policy
        return replace(policy, until=end if policy.until is None else min(policy.until, end))

    def is_hopeless(self, error: PlanasonixError) -> bool:
        """Return whether an error means that the next request cannot get through either."""
        return self.has_no_contact and is_unreachable(error)

    def server_time(self) -> datetime:
        """Tell the time by the server's clock, as far as that is known.

        :return: the time, in UTC.
        """
        return utcnow() + (self.known_skew or timedelta())

    def ask(self, request: Request[Any], contact: Contact = Contact.API) -> Any:
        """Send what only reads, until there is an answer.

        :param request: one of :mod:`planasonix_provider.api.routes`.
        :param contact: the best response so far.
        :return: what the answer holds.
        :raises PlanasonixError: as :meth:`patiently`.
        """
        return self.retry_through_outage(lambda: self._hook.send(request), contact)

    def retry_through_outage(
        self,
        act: Callable[[], R],
        contact: Contact = Contact.API,
        may_be_done_again: Callable[[BaseException], bool] = lambda error: True,
    ) -> R:
        """Sit out an outage, with the patience of a wait: a try that fails meanwhile is one less for what comes.

        :param act: what to do.
        :param contact: the best response so far, which decides the meaning of an error.
        :param may_be_done_again: whether an error allows to repeat ``act`` at all; default yes.
        :return: what came of it.
        :raises PlanasonixTimeoutError: if the task's time is up first.
        :raises PlanasonixOutageError: if it takes longer than an outage may last.
        :raises PlanasonixError: what is not to be sat out.
        """
        try:
            return self._patiently(act, contact, may_be_done_again)
        finally:
            self._road.throttle.is_muted = False

    def _patiently(
        self, act: Callable[[], R], contact: Contact, may_be_done_again: Callable[[BaseException], bool]
    ) -> R:
        # A first contact begins with the task, and not with a later step of its start.
        began = self._began if contact is Contact.NONE and self.has_no_contact else utcnow()
        outage = OutageTracker(self._outages, contact, since=began)
        while True:
            try:
                return act()
            except PlanasonixError as error:
                if not may_be_done_again(error):
                    raise
                trouble = error
            if not self.has_no_contact:
                outage.contact = max(outage.contact, Contact.API)
            verdict = outage.fail(trouble, utcnow(), timedelta(seconds=RETRY_INTERVAL))
            if verdict is Verdict.NO_CONTACT:
                trouble.with_message(never_reached(trouble, self._outages))
            if verdict in (Verdict.REFUSED, Verdict.NO_CONTACT):
                raise trouble
            if self.is_out_of_time:
                raise out_of_time(trouble, self.limit) from trouble
            if verdict is Verdict.OUTAGE:
                raise PlanasonixOutageError(
                    f"Planasonix could not be asked since {format_time(began)}, for more than "
                    f"{format_duration(outage.policy.outage.total_seconds())}. A retry of the task goes on from here. "
                    f"The last try: {trouble}"
                ) from trouble
            if outage.is_news(utcnow()):
                self._road.throttle.is_muted = True
                self.warn(f"Planasonix cannot be asked yet, still trying: {trouble}")
            pause = min(self._road.interval, RETRY_INTERVAL) if outage.is_short else RETRY_INTERVAL
            self.delay(pause_after(trouble, pause))

    def delay(self, seconds: float) -> None:
        """Let time pass, but no more of it than the task has left.

        :param seconds: for how long.
        """
        left = (self.deadline - utcnow()).total_seconds() if self.deadline else seconds
        self._road.rest.sleep(min(seconds, max(0.0, left)))

    def run_async(self, act: Callable[[SharedClient], Awaitable[R]]) -> R:
        """Do what takes many requests, a few at a time.

        :param act: what to do, over a channel.
        :return: what came of it.
        """
        return run_aside(self._hook.config_source(), act, self._road.rest.sleep_aside)

    def look_at(self, kind: str, work_id: str, contact: Contact = Contact.API) -> Work:
        """Look at work.

        :param kind: ``job`` or ``backfill``.
        :param work_id: which one.
        :param contact: whether it was seen before.
        :return: the work, with all that is known of it.
        :raises PlanasonixNotFoundError: if it is not there.
        """
        get: Callable[[str], Request[Any]] = routes.get_backfill if kind == "backfill" else routes.get_job
        work: Work = self.ask(get(work_id), contact)
        return work

    def get_with_one_retry(self, kind: str, work_id: str) -> Work:
        """Return work that an earlier try has started or attached to.

        Only a 404 of the API itself that persists for a minute means that the work is gone. A task that trusts a
        proxy's 404 starts the same work a second time.

        :param kind: ``job`` or ``backfill``.
        :param work_id: which one.
        :return: the work, with all that is known of it.
        :raises PlanasonixNotFoundError: if it is not there any more.
        """
        return self.look_at(kind, work_id, Contact.WORK)

    def page_of(self, work: Work) -> str | None:
        """Return the address of the page that shows the work, if there is one."""
        job_id = first_job_of(work)
        return self._hook.job_url(job_id) if job_id else None

    @property
    def looks_for(self) -> str:
        """For how long what a start has made is looked for, in words."""
        return format_duration(sum(SEARCH_DELAYS))

    def find(self, traces: MatchCriteria) -> Work | None:
        """Look for what a start has made, until it is as good as sure that there is none.

        :param traces: what it is found by.
        :return: the work, or ``None``.
        :raises PlanasonixLostTrackError: if there is more than one that may be it.
        """
        return self.run_async(
            lambda channel: find_the_one(partial(channel.send, priority=Priority.FIRST), traces, **self._how_to_look())
        )

    def find_all(self, traces: MatchCriteria) -> list[Work]:
        """Look for all that a start may have made.

        :param traces: what it is found by.
        :return: the work.
        """
        return self.run_async(
            lambda channel: look_for(partial(channel.send, priority=Priority.FIRST), traces, **self._how_to_look())
        )

    def _how_to_look(self) -> dict[str, Any]:
        # None of these looks waits for its turn: until it is found, the work has nobody who minds its time.
        return {
            "warn": self.warn,
            "sleep": self._road.rest.sleep_aside,
            "pauses": SEARCH_DELAYS,
            "deadline": self.deadline,
            "policy": self._outages,
        }

    def look_once(self, request: Request[Any]) -> Any:
        """Ask once, for whoever asks again by himself.

        :param request: one of :mod:`planasonix_provider.api.routes`.
        :return: what the answer holds.
        :raises PlanasonixError: one of its kinds.
        """
        return self._hook.send(request, self._road.once)

    def wait_until_over(self, work: Work, look: Callable[[Request[Any]], Any] | None = None) -> Work | None:
        """Wait on this worker, for work that is not to be cancelled when the wait ends.

        :param work: the job or backfill.
        :param look: asks once, and does what else there is to do at each look; default: no more than that.
        :return: the same when it is over; ``None`` where it is not there any more, which is over, too.
        :raises PlanasonixError: if the wait ends otherwise.
        """
        watch = WaitState(
            subject_of(work),
            now=utcnow(),
            info=self.say,
            warn=self.warn,
            deadline=self.deadline,
            limit=self.limit,
            status=work.status,
            owned=False,
            policy=self._outages,
        )
        event = blocking_wait.wait(
            watch,
            look or self.look_once,
            interval=self._road.interval,
            rest=self._hook.delay,
            nap=self._road.rest.sleep,
        )
        try:
            return event.work_or_error()
        except PlanasonixNotFoundError:
            return None


def out_of_time(trouble: PlanasonixError, limit: str | None) -> PlanasonixTimeoutError:
    """Say that the task's time was up before some trouble was over.

    :param trouble: what was in the way.
    :param limit: the task's parameter that has set the end of the time.
    :return: the error, to be raised.
    """
    return PlanasonixTimeoutError(f"{trouble.message} The task's {limit} is up.")
