"""The next sync of a connection as a wait target: it must be found among the connection's jobs first."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Self

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixError, PlanasonixNotFoundError
from planasonix_provider.api.models import Job, Page
from planasonix_provider.api.operations import Paginator
from planasonix_provider.api.request import PAGE_SIZE, Request
from planasonix_provider.waiting.request_flow import Steps
from planasonix_provider.waiting.targets import Snapshot, WaitTarget

#: How long before ``since`` a sync may have been created to be found if it finishes after it.
MAX_SYNC_DURATION = timedelta(days=1)
#: After this many syncs that ended before ``since``, newest first, older ones are not requested any more.
MAX_TOO_EARLY = 5
#: How many unreadable rows of a list are requested by themselves.
MAX_UNREADABLE = 5
#: How late a list may show a job.
MAX_LIST_DELAY = timedelta(minutes=5)


class SyncTarget(WaitTarget):
    """The first sync of a connection that has succeeded since a time, of any client.

    :param by: whether a sync counts that was ``created``, or one that has ``finished`` since.
    :param on_failure: whether a failed sync ends the wait (``fail``) or not (``wait``).
    """

    kind = "sync"
    id_name = "connection_id"

    def __init__(self, id: str, since: datetime, by: str = "created", on_failure: str = "fail") -> None:  # noqa: A002
        super().__init__(id)
        self.since = since
        self.by = by
        self.on_failure = on_failure
        self._has_looked_before = False
        self._undecided: list[Job] = []
        self._still_running: set[str] = set()
        self._finished_since: list[Job] = []
        self._ended_before: set[str] = set()
        self._newest_words: tuple[str, ...] = ()

    def serialize(self) -> dict[str, Any]:
        """Return the target in JSON types."""
        fields = {"since": self.since.isoformat(), "by": self.by, "on_failure": self.on_failure}
        return super().serialize() | fields

    @classmethod
    def deserialize(cls, fields: dict[str, Any]) -> Self:
        """Return the target that :meth:`serialize` has made these fields of."""
        return cls(**fields | {"since": datetime.fromisoformat(fields["since"])})

    @property
    def name(self) -> str:
        """The name in messages."""
        return f"a sync of connection {self.id}"

    @property
    def goal(self) -> str:
        """The awaited event in a negative sentence, for messages."""
        return f"No sync of connection {self.id} that was {self.by} since {self.since:%Y-%m-%d %H:%M:%S} UTC succeeded"

    @property
    def request(self) -> Request[Page[Job]]:
        """The request for the newest sync that was created since the time and has succeeded."""
        return self._list("succeeded", since=self.since, limit=PAGE_SIZE)

    def poll(self, now: datetime, *, detailed: bool) -> Steps[Snapshot]:
        """Poll for a sync that has succeeded, then for one that has not."""
        states = ("succeeded", "failed", "cancelled") if self.on_failure == "fail" else ("succeeded",)
        for status in states:
            page: Page[Job] = yield self._list(status, since=self.since, limit=PAGE_SIZE)
            # An unreadable row may be the job that this waits for.
            unreadable = [Job(id=row.id, status=status) for row in page.unreadable if row.id][:MAX_UNREADABLE]
            for listed in [*page.data, *unreadable]:
                if self._is_ours(listed) and listed.status == status and self._is_since(listed.created_at):
                    job = yield from self._get_finished(listed)
                    if job and job.status == status and self._is_ours(job) and self._is_since(job.created_at):
                        return self._over(job)
            if self.by == "finished" and status == "succeeded":
                yield from self._poll_earlier(now)
            if job := next((job for job in self._finished_since if job.status == status), None):
                return self._over(job)
        if detailed and (newest := (yield from self._newest())):
            self._newest_words = (f"the newest, {newest.id}, is {newest.status}",)
        return Snapshot("awaited", False, f"{self.goal} yet", progress=self._newest_words)

    def _over(self, job: Job) -> Snapshot:
        says = f"Job {job.id} {'was ' if job.status == 'cancelled' else ''}{job.status}"
        return Snapshot(job.status, True, says, job, began=job.started_at or job.created_at, took=job.duration_seconds)

    @staticmethod
    def _get_finished(listed: Job) -> Steps[Job | None]:
        """Request a job by itself: a list has only some of its fields, and may be newer or older than the job."""
        try:
            job: Job = yield routes.get_job(listed.id).without("metadata")
        except PlanasonixNotFoundError:
            return None
        return job if job.is_over else None

    def _poll_earlier(self, now: datetime) -> Steps[None]:
        """Poll syncs that were created before the time and may end after it; lists have no filter for them."""
        if not self._has_looked_before:
            paginator = Paginator(self._list(None, since=self.since - MAX_SYNC_DURATION, until=self.since))
            jobs: list[Job] = []
            while True:
                page: Page[Job] = yield paginator.request
                jobs.extend(job for job in page.data if self._is_ours(job))
                if not paginator.advance(page):
                    break
            jobs.sort(key=lambda job: job.created_at or self.since, reverse=True)
            self._undecided = jobs
        yield from self._decide()
        # A job of that time may appear in the list a little later.
        self._has_looked_before = now > self.since + MAX_LIST_DELAY

    def _decide(self) -> Steps[None]:
        """Find out which of these syncs have ended since the time; most end in the order of their start."""
        left: list[Job] = []
        for listed in self._undecided:
            job = listed
            if job.finished_at is None and job.id not in self._ended_before:
                is_too_old = len(self._ended_before) >= MAX_TOO_EARLY and job.id not in self._still_running
                if job.is_over and is_too_old:
                    continue
                job = (yield from self._get_finished(listed)) or listed
            if job.finished_at and self._is_since(job.finished_at):
                self._finished_since.append(job)
            elif job.finished_at:
                self._ended_before.add(job.id)
            elif job.id not in self._ended_before:
                left.append(listed)
        self._undecided, self._still_running = left, {job.id for job in left}

    def _newest(self) -> Steps[Job | None]:
        try:
            page: Page[Job] = yield self._list(None, since=self.since, limit=1)
        except PlanasonixError:
            # This is only for the log, so the poll has not failed.
            return None
        return next((job for job in page.data if self._is_ours(job) and self._is_since(job.created_at)), None)

    def _is_since(self, moment: datetime | None) -> bool:
        return moment is None or moment >= self.since

    def _is_ours(self, job: Job) -> bool:
        """Return whether a listed job counts; checked, because not every server knows every filter."""
        return job.connection_id in (None, self.id) and job.type in (None, "connection_sync")

    def _list(self, status: str | None, **bounds: Any) -> Request[Page[Job]]:
        jobs = routes.list_jobs(connection_id=self.id, type="connection_sync", status=status, **bounds)
        return jobs.without("metadata")
