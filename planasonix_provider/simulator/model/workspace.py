"""The Planasonix that is simulated: its keys, connections, jobs and backfills, and the rules among them. No HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple, TypeVar, Unpack

from pydantic import BaseModel

from planasonix_provider.api.models import Backfill, BackfillBody, Job, JobResults, SyncBody
from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.model.api_keys import ApiKeys
from planasonix_provider.simulator.model.backfill_plans import BackfillPlan, BackfillPlanChanges
from planasonix_provider.simulator.model.clock_and_ids import Clock, Ids, random_id, utc_now
from planasonix_provider.simulator.model.collection import page_of
from planasonix_provider.simulator.model.idempotency import IdempotencyKeys
from planasonix_provider.simulator.model.journal import Journal
from planasonix_provider.simulator.model.plans import Plans
from planasonix_provider.simulator.model.retention import DEFAULT_KEEP, Work
from planasonix_provider.simulator.model.settings import SimulatorSettings
from planasonix_provider.simulator.model.simulated_backfills import SimulatedBackfill
from planasonix_provider.simulator.model.simulated_jobs import Plan, PlanChanges, SimulatedJob
from planasonix_provider.simulator.model.workload import Workload
from planasonix_provider.simulator.webhooks.deliveries import Outbox
from planasonix_provider.simulator.webhooks.registry import Webhooks

P = TypeVar("P", bound=BaseModel)
B = TypeVar("B", SyncBody, BackfillBody)

#: The key that every simulator starts with, unless it is told another.
API_KEY = "plnx_sim_local_key"
#: The connections that every simulator knows: the reference's own, and ten to play with.
CONNECTIONS = ("conn_01jq8k2m3n4p5q6r7s8t9u0v1", *(f"conn_demo_{number:02}" for number in range(1, 11)))


class JobSnapshot(NamedTuple):
    """A job as whoever looks at it sees it.

    :param job: the job, with all that it is going to do.
    :param now: when it was looked at.
    :param backfill_id: the backfill that has made it, or ``None`` if it is a sync.
    """

    job: SimulatedJob
    now: datetime
    backfill_id: str | None


class Workspace:
    """One Planasonix workspace. Every method may be called from any thread.

    :param clock: tells the time, in UTC.
    :param ids: makes ids.
    :param api_key: the key that exists from the start, with all scopes.
    :param connections: connections that exist from the start, besides :data:`CONNECTIONS`.
    :param default_plan: what a sync does that nothing else was planned for; a backfill's jobs take as long.
    :param keep: how many jobs that are over are kept, and how many deliveries; the oldest are forgotten first.
    :param state: the file in which all that happens is kept; what it tells has happened already. By default there is
        none, and a new world is empty.
    :param show_metadata: the setting of this name that holds until it is changed, and after a reset.
    :raises ValueError: if ``keep``, the key, a connection's id or the file is not allowed.
    :raises OSError: if the file cannot be read and written.
    """

    def __init__(
        self,
        *,
        clock: Clock = utc_now,
        ids: Ids = random_id,
        api_key: str = API_KEY,
        connections: Iterable[str] = (),
        default_plan: Plan | None = None,
        keep: int = DEFAULT_KEEP,
        state: Path | None = None,
        show_metadata: bool = True,
    ) -> None:
        self._initial_settings = SimulatorSettings(show_metadata=show_metadata)
        self._journal = Journal(state, clock, ids)
        self.clock = self._journal.clock
        #: Makes ids of what is not kept, as of a request.
        self.ids = ids
        self.api_key = api_key
        self.default_plan = default_plan or Plan()
        self._initial_connections = (*CONNECTIONS, *connections)
        self.lock = RLock()
        self._keep = keep
        outbox = Outbox(self._journal, self.lock, self._settings_now, keep)
        #: Who is told of what happens.
        self.webhooks = Webhooks(outbox, self._journal, self.lock, self.advance, self._settings_now)
        self.reset()
        self._journal.open(self, self._initial_state)

    def close(self) -> None:
        """Write nothing more to the file."""
        with self.lock:
            self._journal.close()

    def reset(self) -> None:
        """Forget all that happened, and all that was planned or set."""
        with self.lock:
            self.settings = self._initial_settings
            self.keys = ApiKeys(self._journal, self.lock)
            self.keys.add(self.api_key)
            self._connections: list[str] = []
            for connection_id in self._initial_connections:
                self.add_connection(connection_id)
            self._plans = Plans(self.default_plan)
            self._backfill_plans = Plans(BackfillPlan.like(self.default_plan))
            self._workload = Workload(self._journal.ids, self._keep)
            self._idempotency_keys = IdempotencyKeys()
            self.webhooks.reset()
            self._journal.start_over(self._initial_state)

    @property
    def _initial_state(self) -> dict[str, Any]:
        """What all that happens depends on, besides what is done."""
        return {"connections": self._initial_connections, "default_plan": dict(self.default_plan), "keep": self._keep}

    @property
    def connections(self) -> tuple[str, ...]:
        """The connections that exist."""
        with self.lock:
            return tuple(self._connections)

    def add_connection(self, connection_id: str) -> None:
        """Create a connection; one that exists stays as it is.

        :param connection_id: its id.
        :raises ValueError: if the id is empty.
        """
        if not connection_id.strip():
            raise ValueError(f"connection_id: got {connection_id!r}, allowed is a text that is not empty.")
        with self.lock:
            if connection_id not in self._connections:
                self._connections.append(connection_id)
                self._journal.write("add_connection", connection_id=connection_id)

    def configure(self, **changes: Any) -> SimulatorSettings:
        """Change how this deployment behaves.

        :param changes: fields of :class:`Settings`; those that are not named stay as they are.
        :return: the settings that hold from now on.
        :raises ValueError: if a name or a value is not allowed.
        """
        with self.lock:
            self.settings = SimulatorSettings.model_validate({**self.settings.model_dump(), **changes})
            self._journal.write("configure", **changes)
            return self.settings

    def plan(self, connection_id: str, *, times: int | None = 1, **changes: Unpack[PlanChanges]) -> Plan:
        """Plan what the next syncs of a connection do. Plans are used up in the order in which they were made.

        :param connection_id: the connection.
        :param times: for how many syncs; ``None`` is for all that nothing else is planned for.
        :param changes: fields of :class:`.Plan`; the others are those of ``default_plan``.
        :return: the plan.
        :raises ValueError: if a name or a value is not allowed.
        :raises Refused: as ``not_found``, if there is no such connection.
        """
        with self.lock:
            return self._add_plan("plan", self._plans, connection_id, times, changes)

    def plan_backfill(
        self, connection_id: str, *, times: int | None = 1, **changes: Unpack[BackfillPlanChanges]
    ) -> BackfillPlan:
        """Plan what the next backfills of a connection do. Plans are used up in the order in which they were made.

        :param connection_id: the connection.
        :param times: for how many backfills, at most 10,000; ``None`` is for all that nothing else is planned for.
        :param changes: fields of :class:`.BackfillPlan`; the others have their defaults, durations those of
            ``default_plan``.
        :return: the plan.
        :raises ValueError: if a name or a value is not allowed.
        :raises Refused: as ``not_found``, if there is no such connection.
        """
        with self.lock:
            return self._add_plan("plan_backfill", self._backfill_plans, connection_id, times, changes)

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
        with self.lock:
            now = self.advance()
            job_id = self._start("start_sync", self._make_sync, connection_id, body, idempotency_key, now)
            return self._workload.jobs.get(job_id).model_at(now)

    def start_backfill(self, connection_id: str, body: BackfillBody, *, idempotency_key: str | None = None) -> Backfill:
        """Start a backfill.

        :param connection_id: the connection to load from.
        :param body: what the backfill is started with.
        :param idempotency_key: what makes a second delivery of this start recognisable.
        :return: the backfill; the one from before, if this start was delivered already.
        :raises Refused: as ``not_found`` or ``idempotency_key_reused``.
        """
        with self.lock:
            now = self.advance()
            backfill_id = self._start("start_backfill", self._make_backfill, connection_id, body, idempotency_key, now)
            return self._workload.backfills.get(backfill_id).model_at(now)

    def job(self, job_id: str) -> Job:
        """Look at a job.

        :param job_id: its id.
        :return: the job as it is now.
        :raises Refused: as ``not_found``, if there is no such job.
        """
        with self.lock:
            now = self.advance()
            return self._workload.jobs.get(job_id).model_at(now)

    def job_snapshot(self, job_id: str) -> JobSnapshot:
        """Look at a job, and behind it: at its progress, its results and its backfill.

        :param job_id: its id.
        :return: the job, and the time.
        :raises Refused: as ``not_found``, if there is no such job.
        """
        with self.lock:
            now = self.advance()
            return self._snapshot(self._workload.jobs.get(job_id), now)

    def jobs(self) -> list[Job]:
        """Look at all jobs.

        :return: the jobs as they are now, newest first.
        """
        with self.lock:
            now = self.advance()
            return [job.model_at(now) for job in self._workload.jobs.newest_first()]

    def started_work(self) -> list[Work]:
        """Look at what was started, as it was asked for: syncs and backfills, and not the jobs that those have made.

        :return: what is known still, in the order of the starts.
        """
        with self.lock:
            self.advance()
            return self._workload.by_start_time()

    def next_change_at(self) -> datetime | None:
        """Tell when something changes next, unless somebody does something.

        :return: the time, or ``None`` if all that was started is over.
        """
        with self.lock:
            self.advance()
            return self._workload.next_change_at

    def job_page(
        self,
        matches: Callable[[SimulatedJob, datetime], bool],
        *,
        limit: int,
        before: int | None = None,
        status: str | None = None,
    ) -> tuple[Sequence[Job], int | None]:
        """Look at some of the jobs, newest first, with what lists show of them.

        :param wanted: whether a job belongs to the list, at the time that is handed in.
        :param limit: how many jobs to show.
        :param before: where the page before this one ended; ``None`` begins with the newest job.
        :param status: only jobs in this state; ``None`` is all.
        :return: the jobs, and where the page ends, which is ``None`` if no more follow.
        """
        sights, end = self.job_snapshots(matches, limit=limit, before=before, status=status)
        return [sight.job.summary_at(sight.now) for sight in sights], end

    def job_snapshots(
        self,
        wanted: Callable[[SimulatedJob, datetime], bool],
        *,
        limit: int,
        before: int | None = None,
        status: str | None = None,
    ) -> tuple[Sequence[JobSnapshot], int | None]:
        """Look at some of the jobs, newest first, and behind them; the parameters are those of :meth:`job_page`.

        :param wanted: whether a job belongs to the list, at the time that is handed in.
        :param limit: how many jobs to show.
        :param before: where the page before this one ended; ``None`` begins with the newest job.
        :param status: only jobs in this state; ``None`` is all.
        :return: the jobs, and where the page ends, which is ``None`` if no more follow.
        """
        with self.lock:
            now = self.advance()
            shelf = self._workload.jobs
            jobs = shelf.newest_first(before) if status is None else shelf.in_state(status, before)
            page, end = page_of((job for job in jobs if wanted(job, now)), limit)
            return [self._snapshot(job, now) for job in page], end

    def job_counts(self) -> dict[str, int]:
        """Count the jobs.

        :return: how many there are in each state that a job has been in.
        """
        with self.lock:
            self.advance()
            return self._workload.jobs.counts()

    def backfill(self, backfill_id: str) -> Backfill:
        """Look at a backfill.

        :param backfill_id: its id.
        :return: the backfill as it is now.
        :raises Refused: as ``not_found``, if there is no such backfill.
        """
        with self.lock:
            now = self.advance()
            return self._workload.backfills.get(backfill_id).model_at(now)

    def backfills(self) -> list[Backfill]:
        """Look at all backfills.

        :return: the backfills as they are now, newest first.
        """
        with self.lock:
            now = self.advance()
            return [backfill.model_at(now) for backfill in self._workload.backfills.newest_first()]

    def backfill_page(
        self, matches: Callable[[SimulatedBackfill, datetime], bool], *, limit: int, before: int | None = None
    ) -> tuple[Sequence[Backfill], int | None]:
        """Look at some of the backfills, newest first, without the jobs that they have made.

        :param wanted: whether a backfill belongs to the list, at the time that is handed in.
        :param limit: how many backfills to show.
        :param before: where the page before this one ended; ``None`` begins with the newest backfill.
        :return: the backfills, and where the page ends, which is ``None`` if no more follow.
        """
        with self.lock:
            now = self.advance()
            backfills, end = self._workload.backfills.page(lambda one: matches(one, now), limit=limit, before=before)
            return [backfill.model_at(now, with_jobs=False) for backfill in backfills], end

    def results(self, job_id: str) -> JobResults:
        """Look at what a job loaded.

        :param job_id: its id.
        :return: the results; a stub while the job is not over, where the settings say so.
        :raises Refused: as ``not_found``, or as ``job_not_finished``, where the settings say so.
        """
        with self.lock:
            now = self.advance()
            job = self._workload.jobs.get(job_id)
            if now < job.ends_at and self.settings.results_policy == "conflict":
                raise ApiError("job_not_finished", f"job {job_id!r} is {job.status_at(now)}, it has no results yet")
            return job.results_at(now)

    def cancel(self, job_id: str) -> Job:
        """Request a job's end. For a job that is over, or already asked to end, nothing changes.

        :param job_id: its id.
        :return: the job as it is now.
        :raises Refused: as ``not_found``, if there is no such job.
        """
        with self.lock:
            now = self.advance()
            job = self._workload.jobs.get(job_id)
            if cancelled := self._workload.cancel(job, now):
                self._journal.write("cancel", at=now, job_id=job_id)
            return (cancelled or job).model_at(now)

    def fail_job(self, job_id: str, *, code: str | None = None, message: str | None = None) -> Job:
        """Make a job fail at once, whatever was planned for it.

        :param job_id: its id.
        :param code: the error code; ``None`` is that of its plan, which is ``sync_failed`` for a sync and
            ``load_failed`` for a job of a backfill, unless another was planned.
        :param message: the error message; ``None`` says that it was told to fail.
        :return: the job as it is now.
        :raises Refused: as ``not_found``, or as ``job_not_active``, if it is over or its end was requested.
        """
        with self.lock:
            now = self.advance()
            job = self._workload.jobs.get(job_id)
            failed = self._active(self._workload.fail(job, code, message, now), job, now)
            self._journal.write("fail_job", at=now, job_id=job_id, code=code, message=message)
            return failed.model_at(now)

    def slow_job(self, job_id: str, seconds: float) -> Job:
        """Let a job take longer: from now on, it goes on with what is left to do, but slower.

        :param job_id: its id.
        :param seconds: how much longer it runs; whatever the speed of the deployment is, these are real seconds.
        :return: the job as it is now.
        :raises ValueError: if that is not above 0, or is more than a year with what it was given before.
        :raises Refused: as ``not_found``, or as ``job_not_active``, if it is over or its end was requested.
        """
        with self.lock:
            now = self.advance()
            job = self._workload.jobs.get(job_id)
            slowed = self._active(self._workload.slow(job, seconds, now), job, now)
            self._journal.write("slow_job", at=now, job_id=job_id, seconds=seconds)
            return slowed.model_at(now)

    def _active(self, changed: SimulatedJob | None, job: SimulatedJob, now: datetime) -> SimulatedJob:
        """Refuse what could not be changed."""
        if changed is None:
            raise ApiError("job_not_active", f"job {job.id!r} is {job.status_at(now)}, its end is settled")
        return changed

    def _snapshot(self, job: SimulatedJob, now: datetime) -> JobSnapshot:
        return JobSnapshot(job, now, self._workload.backfill_of(job))

    def _settings_now(self) -> SimulatorSettings:
        return self.settings

    def advance(self) -> datetime:
        """Apply all state changes that are due, and return the time."""
        with self.lock:
            now = self.clock()
            if changes := self._workload.advance(now):
                self.webhooks.publish(changes)
                self._journal.write("advance", at=now, happened=changes.told(self._workload.backfill_of))
                for work_id in self._workload.retire(changes):
                    self._idempotency_keys.remove(work_id)
            return now

    def _require_connection(self, connection_id: str) -> None:
        if connection_id not in self._connections:
            raise ApiError("not_found", f"no connection {connection_id!r}")

    def _add_plan(
        self, do: str, plans: Plans[P], connection_id: str, times: int | None, changes: Mapping[str, Any]
    ) -> P:
        """Plan what the next starts of a connection become.

        :param do: the method that does it, for the journal.
        """
        self._require_connection(connection_id)
        plan = plans.add(connection_id, times, changes)
        self._journal.write(do, connection_id=connection_id, times=times, **changes)
        return plan

    def _start(
        self,
        do: str,
        make: Callable[[str, B, datetime], str],
        connection_id: str,
        body: B,
        idempotency_key: str | None,
        now: datetime,
    ) -> str:
        """Start something, unless this start was delivered already.

        :param do: the method that does it, for the journal.
        :param make: starts it, and gives its id.
        :return: the id of what was started, now or before.
        """
        self._require_connection(connection_id)
        key = idempotency_key if self.settings.honour_idempotency else None
        made_id = self._idempotency_keys.find(key, connection_id, body)
        if made_id is None:
            made_id = make(connection_id, body, now)
            self._idempotency_keys.add(key, connection_id, body, made_id)
            self._journal.write(do, at=now, connection_id=connection_id, body=body, idempotency_key=idempotency_key)
        return made_id

    def _make_sync(self, connection_id: str, body: SyncBody, now: datetime) -> str:
        active = self._workload.active_sync_of(connection_id)
        if active and self.settings.conflict != "allowed":
            named = active if self.settings.conflict == "named" else None
            message = f"a sync of connection {connection_id!r} is already in progress"
            raise ApiError("sync_in_progress", message, existing_job_id=named)
        job = SimulatedJob(
            id=self._journal.ids("job"),
            position=self._workload.jobs.next_position,
            connection_id=connection_id,
            body=body,
            created_at=now,
            plan=self._plans.next_plan(connection_id).faster(self.settings.speed),
        )
        self._workload.start_sync(job)
        return job.id

    def _make_backfill(self, connection_id: str, body: BackfillBody, now: datetime) -> str:
        backfill = SimulatedBackfill(
            id=self._journal.ids("bf"),
            position=self._workload.backfills.next_position,
            connection_id=connection_id,
            body=body,
            created_at=now,
            plan=self._backfill_plans.next_plan(connection_id).faster(self.settings.speed),
        )
        self._workload.start_backfill(backfill)
        return backfill.id
