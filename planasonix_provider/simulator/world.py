"""The Planasonix that is simulated: its keys, connections, jobs and backfills, and the rules among them. No HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from threading import RLock
from typing import Any, Unpack

from planasonix_provider.api.models import Backfill, BackfillBody, Job, JobResults, SyncBody
from planasonix_provider.simulator.access import Keys
from planasonix_provider.simulator.backfill_plans import BackfillPlan, BackfillPlanChanges
from planasonix_provider.simulator.backfills import PlannedBackfill
from planasonix_provider.simulator.deliveries import Outbox
from planasonix_provider.simulator.events import Watch
from planasonix_provider.simulator.jobs import Plan, PlanChanges, PlannedJob
from planasonix_provider.simulator.plans import Plans
from planasonix_provider.simulator.refusals import Refused
from planasonix_provider.simulator.settings import Settings
from planasonix_provider.simulator.shards import Shards
from planasonix_provider.simulator.shelf import Shelf
from planasonix_provider.simulator.sources import Clock, Ids, random_id, utc_now
from planasonix_provider.simulator.starts import Starts
from planasonix_provider.simulator.webhooks import Webhooks

#: The key that every simulator starts with, unless it is told another.
API_KEY = "plnx_sim_local_key"
#: The connections that every simulator knows: the reference's own, and ten to play with.
CONNECTIONS = ("conn_01jq8k2m3n4p5q6r7s8t9u0v1", *(f"conn_demo_{number:02}" for number in range(1, 11)))


class World:
    """One Planasonix workspace. Every method may be called from any thread.

    :param clock: tells the time, in UTC.
    :param ids: makes ids.
    :param api_key: the key that exists from the start, with all scopes.
    :param connections: connections that exist from the start, besides :data:`CONNECTIONS`.
    :param default_plan: what a sync does that nothing else was planned for; a backfill's jobs take as long.
    :raises ValueError: if the key or a connection's id is not allowed.
    """

    def __init__(
        self,
        *,
        clock: Clock = utc_now,
        ids: Ids = random_id,
        api_key: str = API_KEY,
        connections: Iterable[str] = (),
        default_plan: Plan | None = None,
    ) -> None:
        self.clock = clock
        self.ids = ids
        self.api_key = api_key
        self.default_plan = default_plan or Plan()
        self._first_connections = (*CONNECTIONS, *connections)
        self._lock = RLock()
        outbox = Outbox(clock, ids, self._lock, self._settings_now)
        #: Who is told of what happens.
        self.webhooks = Webhooks(outbox, ids, self._lock, self._now, self._settings_now)
        self.reset()

    def reset(self) -> None:
        """Forget all that happened, and all that was planned or set."""
        with self._lock:
            self.settings = Settings()
            self.keys = Keys()
            self.keys.add(self.api_key)
            self._connections: list[str] = []
            for connection_id in self._first_connections:
                self.add_connection(connection_id)
            self._plans = Plans(self.default_plan)
            self._backfill_plans = Plans(BackfillPlan.like(self.default_plan))
            self._jobs = Shelf[PlannedJob]("job")
            self._backfills = Shelf[PlannedBackfill]("backfill")
            self._shards = Shards(self._jobs, self.ids)
            self._last_active: dict[str, list[str]] = {}
            self._starts = Starts()
            self.webhooks.reset(Watch(self._jobs, self._backfills, self.ids))

    @property
    def connections(self) -> tuple[str, ...]:
        """The connections that exist."""
        with self._lock:
            return tuple(self._connections)

    def add_connection(self, connection_id: str) -> None:
        """Create a connection; one that exists stays as it is.

        :param connection_id: its id.
        :raises ValueError: if the id is empty.
        """
        if not connection_id.strip():
            raise ValueError(f"connection_id: got {connection_id!r}, allowed is a text that is not empty.")
        with self._lock:
            if connection_id not in self._connections:
                self._connections.append(connection_id)

    def configure(self, **changes: Any) -> Settings:
        """Change how this deployment behaves.

        :param changes: fields of :class:`Settings`; those that are not named stay as they are.
        :return: the settings that hold from now on.
        :raises ValueError: if a name or a value is not allowed.
        """
        with self._lock:
            self.settings = Settings.model_validate({**self.settings.model_dump(), **changes})
            return self.settings

    def plan(self, connection_id: str, *, times: int | None = 1, **changes: Unpack[PlanChanges]) -> Plan:
        """Plan what the next syncs of a connection do. Plans are used up in the order in which they were made.

        :param connection_id: the connection.
        :param times: for how many syncs; ``None`` is for all that nothing else is planned for.
        :param changes: fields of :class:`~planasonix_provider.simulator.jobs.Plan`; those that are not named are as in
            ``default_plan``.
        :return: the plan.
        :raises ValueError: if a name or a value is not allowed.
        :raises Refused: as ``not_found``, if there is no such connection.
        """
        with self._lock:
            self._require_connection(connection_id)
            return self._plans.add(connection_id, times, changes)

    def plan_backfill(
        self, connection_id: str, *, times: int | None = 1, **changes: Unpack[BackfillPlanChanges]
    ) -> BackfillPlan:
        """Plan what the next backfills of a connection do. Plans are used up in the order in which they were made.

        :param connection_id: the connection.
        :param times: for how many backfills; ``None`` is for all that nothing else is planned for.
        :param changes: fields of :class:`~planasonix_provider.simulator.backfill_plans.BackfillPlan`; those that are
            not named have their defaults, and the durations are those of ``default_plan``.
        :return: the plan.
        :raises ValueError: if a name or a value is not allowed.
        :raises Refused: as ``not_found``, if there is no such connection.
        """
        with self._lock:
            self._require_connection(connection_id)
            return self._backfill_plans.add(connection_id, times, changes)

    def start_sync(
        self, connection_id: str, body: SyncBody | None = None, *, idempotency_key: str | None = None
    ) -> Job:
        """Start a sync.

        :param connection_id: the connection to sync.
        :param body: what the sync is started with.
        :param idempotency_key: what makes a second delivery of this start recognisable.
        :return: the job; the one from before, if this start was delivered already.
        :raises Refused: as ``not_found``, ``sync_in_progress`` or ``idempotency_key_reused``.
        """
        body = body or SyncBody()
        with self._lock:
            now = self._now()
            self._require_connection(connection_id)
            key = idempotency_key if self.settings.honour_idempotency else None
            job_id = self._starts.find(key, connection_id, body)
            if job_id is None:
                self._require_idle(connection_id, now)
                job_id = self._start_sync(connection_id, body, now)
                self._starts.remember(key, connection_id, body, job_id)
            return self._jobs.get(job_id).at(now)

    def start_backfill(self, connection_id: str, body: BackfillBody, *, idempotency_key: str | None = None) -> Backfill:
        """Start a backfill.

        :param connection_id: the connection to load from.
        :param body: what the backfill is started with.
        :param idempotency_key: what makes a second delivery of this start recognisable.
        :return: the backfill; the one from before, if this start was delivered already.
        :raises Refused: as ``not_found`` or ``idempotency_key_reused``.
        """
        with self._lock:
            now = self._now()
            self._require_connection(connection_id)
            key = idempotency_key if self.settings.honour_idempotency else None
            backfill_id = self._starts.find(key, connection_id, body)
            if backfill_id is None:
                backfill_id = self._start_backfill(connection_id, body, now)
                self._starts.remember(key, connection_id, body, backfill_id)
            return self._backfills.get(backfill_id).at(now)

    def job(self, job_id: str) -> Job:
        """Look at a job.

        :param job_id: its id.
        :return: the job as it is now.
        :raises Refused: as ``not_found``, if there is no such job.
        """
        with self._lock:
            now = self._now()
            return self._jobs.get(job_id).at(now)

    def jobs(self) -> list[Job]:
        """Look at all jobs.

        :return: the jobs as they are now, newest first.
        """
        with self._lock:
            now = self._now()
            return [job.at(now) for job in self._jobs.newest_first()]

    def page(
        self, wanted: Callable[[PlannedJob, datetime], bool], *, limit: int, before: int | None = None
    ) -> tuple[Sequence[Job], int | None]:
        """Look at some of the jobs, newest first.

        :param wanted: whether a job belongs to the list, at the time that is handed in.
        :param limit: how many jobs to show.
        :param before: where the page before this one ended; ``None`` begins with the newest job.
        :return: the jobs, and where the page ends, which is ``None`` if no more follow.
        """
        with self._lock:
            now = self._now()
            jobs, end = self._jobs.page(lambda job: wanted(job, now), limit=limit, before=before)
            return [job.at(now) for job in jobs], end

    def backfill(self, backfill_id: str) -> Backfill:
        """Look at a backfill.

        :param backfill_id: its id.
        :return: the backfill as it is now.
        :raises Refused: as ``not_found``, if there is no such backfill.
        """
        with self._lock:
            now = self._now()
            return self._backfills.get(backfill_id).at(now)

    def backfills(self) -> list[Backfill]:
        """Look at all backfills.

        :return: the backfills as they are now, newest first.
        """
        with self._lock:
            now = self._now()
            return [backfill.at(now) for backfill in self._backfills.newest_first()]

    def backfill_page(
        self, wanted: Callable[[PlannedBackfill, datetime], bool], *, limit: int, before: int | None = None
    ) -> tuple[Sequence[Backfill], int | None]:
        """Look at some of the backfills, newest first, without the jobs that they have made.

        :param wanted: whether a backfill belongs to the list, at the time that is handed in.
        :param limit: how many backfills to show.
        :param before: where the page before this one ended; ``None`` begins with the newest backfill.
        :return: the backfills, and where the page ends, which is ``None`` if no more follow.
        """
        with self._lock:
            now = self._now()
            backfills, end = self._backfills.page(lambda one: wanted(one, now), limit=limit, before=before)
            return [backfill.at(now, with_jobs=False) for backfill in backfills], end

    def results(self, job_id: str) -> JobResults:
        """Look at what a job loaded.

        :param job_id: its id.
        :return: the results; a stub while the job is not over, where the settings say so.
        :raises Refused: as ``not_found``, or as ``job_not_finished``, where the settings say so.
        """
        with self._lock:
            now = self._now()
            job = self._jobs.get(job_id)
            if now < job.ends_at and self.settings.results_policy == "conflict":
                raise Refused("job_not_finished", f"job {job_id!r} is {job.status_at(now)}, it has no results yet")
            return job.results_at(now)

    def cancel(self, job_id: str) -> Job:
        """Request a job's end. For a job that is over, or already asked to end, nothing changes.

        :param job_id: its id.
        :return: the job as it is now.
        :raises Refused: as ``not_found``, if there is no such job.
        """
        with self._lock:
            now = self._now()
            job = self._jobs.get(job_id)
            if job.cancel_requested_at is None and now < job.ends_at:
                job = replace(job, cancel_requested_at=now)
                self._jobs.replace(job)
                self._shards.cancel(job)
            return job.at(now)

    def _settings_now(self) -> Settings:
        return self.settings

    def _now(self) -> datetime:
        """Tell the time, once all jobs are there that backfills have made by then, and all events are on their way."""
        now = self.clock()
        self._shards.make(now)
        self.webhooks.notice(now)
        return now

    def _require_connection(self, connection_id: str) -> None:
        if connection_id not in self._connections:
            raise Refused("not_found", f"no connection {connection_id!r}")

    def _require_idle(self, connection_id: str, now: datetime) -> None:
        """Refuse a sync while another one of the same connection is active."""
        syncs = self._last_active.get(connection_id, ())
        active = [job_id for job_id in syncs if now < self._jobs.get(job_id).ends_at]
        self._last_active[connection_id] = active
        if active and self.settings.conflict != "allowed":
            named = active[-1] if self.settings.conflict == "named" else None
            message = f"a sync of connection {connection_id!r} is already in progress"
            raise Refused("sync_in_progress", message, existing_job_id=named)

    def _start_sync(self, connection_id: str, body: SyncBody, now: datetime) -> str:
        job = PlannedJob(
            id=self.ids("job"),
            position=len(self._jobs),
            connection_id=connection_id,
            body=body,
            created_at=now,
            plan=self._plans.take(connection_id).faster(self.settings.speed),
        )
        self._jobs.add(job)
        self._last_active.setdefault(connection_id, []).append(job.id)
        return job.id

    def _start_backfill(self, connection_id: str, body: BackfillBody, now: datetime) -> str:
        backfill = PlannedBackfill(
            id=self.ids("bf"),
            position=len(self._backfills),
            connection_id=connection_id,
            body=body,
            created_at=now,
            plan=self._backfill_plans.take(connection_id).faster(self.settings.speed),
        )
        self._backfills.add(backfill)
        self._shards.expect(backfill)
        self._shards.make(now)
        return backfill.id
