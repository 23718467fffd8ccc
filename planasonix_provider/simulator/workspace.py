"""The simulated Planasonix workspace: keys, connections, jobs, backfills and webhooks, without HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple, TypeVar, Unpack

from pydantic import BaseModel

from planasonix_provider.api.models import Backfill, BackfillBody, Job, JobResults, SyncBody
from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.model.api_keys import ApiKeys
from planasonix_provider.simulator.model.clock_and_ids import Clock, Ids, random_id, utc_now
from planasonix_provider.simulator.model.collection import take_page
from planasonix_provider.simulator.model.idempotency import IdempotencyKeys
from planasonix_provider.simulator.model.journal import Journal
from planasonix_provider.simulator.model.plans import BackfillPlan, BackfillPlanChanges, Plan, PlanChanges, Plans
from planasonix_provider.simulator.model.settings import SimulatorSettings
from planasonix_provider.simulator.model.simulated_backfills import SimulatedBackfill
from planasonix_provider.simulator.model.simulated_jobs import SimulatedJob
from planasonix_provider.simulator.model.workload import DEFAULT_KEEP, Work, Workload
from planasonix_provider.simulator.webhooks.deliveries import Outbox
from planasonix_provider.simulator.webhooks.registry import Webhooks

P = TypeVar("P", bound=BaseModel)
B = TypeVar("B", SyncBody, BackfillBody)

#: The key that exists from the start.
API_KEY = "plnx_sim_local_key"
#: The connections that exist from the start: that of the API reference, and those of the example DAGs.
CONNECTIONS = ("conn_01jq8k2m3n4p5q6r7s8t9u0v1", *(f"conn_demo_{number:02}" for number in range(1, 51)))


class JobSnapshot(NamedTuple):
    """A job at a time, with its plan and the id of its backfill, which is ``None`` for a sync."""

    job: SimulatedJob
    now: datetime
    backfill_id: str | None


class Workspace:
    """One Planasonix workspace. Every method may be called from any thread.

    Its methods raise :class:`.ApiError` as the API would, and ``ValueError`` for values that only tests can pass. The
    parameters are those of :class:`.Simulator`; a sync without another plan follows ``default_plan``, and so do the
    durations of backfills.
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
        #: Ids that the journal does not store, such as those of requests.
        self.ids = ids
        self.api_key = api_key
        self.default_plan = default_plan or Plan()
        self._initial_connections = (*CONNECTIONS, *connections)
        self.lock = RLock()
        self._keep = keep
        outbox = Outbox(self._journal, self.lock, self._current_settings, keep)
        self.webhooks = Webhooks(outbox, self._journal, self.lock, self.advance, self._current_settings)
        self.reset()
        self._journal.open(self, self._initial_state)

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self._journal.close()

    def reset(self) -> None:
        """Return to the initial state."""
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
        """The parameters that a replay of the journal depends on."""
        return {"connections": self._initial_connections, "default_plan": dict(self.default_plan), "keep": self._keep}

    def advance(self) -> datetime:
        """Apply all state changes that are due, and return the time."""
        with self.lock:
            now = self.clock()
            if changes := self._workload.advance(now):
                self.webhooks.publish(changes)
                state_changes = changes.to_json(self._workload.backfill_of)
                self._journal.write("advance", at=now, state_changes=state_changes)
                for work_id in self._workload.retire(changes):
                    self._idempotency_keys.remove(work_id)
            return now

    @contextmanager
    def _lock_and_advance(self) -> Iterator[datetime]:
        """Hold the lock, with all state changes applied that are due by the time that this yields."""
        with self.lock:
            yield self.advance()

    @property
    def connections(self) -> tuple[str, ...]:
        with self.lock:
            return tuple(self._connections)

    def add_connection(self, connection_id: str) -> None:
        """Create a connection, unless it exists."""
        if not connection_id.strip():
            raise ValueError(f"connection_id: got {connection_id!r}, allowed is a text that is not empty.")
        with self.lock:
            if connection_id not in self._connections:
                self._connections.append(connection_id)
                self._journal.write("add_connection", connection_id=connection_id)

    def configure(self, **changes: Any) -> SimulatorSettings:
        """Change some :class:`.SimulatorSettings`, and return all of them."""
        with self.lock:
            self.settings = SimulatorSettings.model_validate({**self.settings.model_dump(), **changes})
            self._journal.write("configure", **changes)
            return self.settings

    def plan(self, connection_id: str, *, times: int | None = 1, **changes: Unpack[PlanChanges]) -> Plan:
        """Plan the next syncs of a connection; ``times=None`` plans all syncs without another plan."""
        return self._add_plan("plan", self._plans, connection_id, times, changes)

    def plan_backfill(
        self, connection_id: str, *, times: int | None = 1, **changes: Unpack[BackfillPlanChanges]
    ) -> BackfillPlan:
        """Plan the next backfills of a connection; ``times=None`` plans all backfills without another plan."""
        return self._add_plan("plan_backfill", self._backfill_plans, connection_id, times, changes)

    def start_sync(
        self, connection_id: str, body: SyncBody | None = None, *, idempotency_key: str | None = None
    ) -> Job:
        """Start a sync, or return the job that the same request started before."""
        body = body or SyncBody()
        with self._lock_and_advance() as now:
            job_id = self._start("start_sync", self._create_sync, connection_id, body, idempotency_key, now)
            return self._workload.jobs.get(job_id).model_at(now)

    def start_backfill(self, connection_id: str, body: BackfillBody, *, idempotency_key: str | None = None) -> Backfill:
        """Start a backfill, or return the one that the same request started before."""
        with self._lock_and_advance() as now:
            backfill_id = self._start(
                "start_backfill", self._create_backfill, connection_id, body, idempotency_key, now
            )
            return self._workload.backfills.get(backfill_id).model_at(now)

    def job(self, job_id: str) -> Job:
        with self._lock_and_advance() as now:
            return self._workload.jobs.get(job_id).model_at(now)

    def job_snapshot(self, job_id: str) -> JobSnapshot:
        """Return a job with its plan and its backfill."""
        with self._lock_and_advance() as now:
            return self._snapshot(self._workload.jobs.get(job_id), now)

    def jobs(self) -> list[Job]:
        """Return all jobs, newest first."""
        with self._lock_and_advance() as now:
            return [job.model_at(now) for job in self._workload.jobs.newest_first()]

    def started_work(self) -> list[Work]:
        """Return the syncs and backfills, without the jobs of backfills, in the order of their starts."""
        with self._lock_and_advance():
            return self._workload.by_start_time()

    def next_change_at(self) -> datetime | None:
        """Return when a state changes next by itself; ``None`` if all work has ended."""
        with self._lock_and_advance():
            return self._workload.next_change_at

    def job_page(
        self,
        matches: Callable[[SimulatedJob, datetime], bool],
        *,
        limit: int,
        before: int | None = None,
        status: str | None = None,
    ) -> tuple[Sequence[Job], int | None]:
        """Return a page of jobs, newest first, with the fields that lists contain.

        ``before`` is the position at which the previous page ended. With ``status``, only jobs in this state are read.
        The second value is the position at which this page ended; ``None`` if no more jobs follow.
        """
        snapshots, end = self.job_snapshots(matches, limit=limit, before=before, status=status)
        return [snapshot.job.summary_at(snapshot.now) for snapshot in snapshots], end

    def job_snapshots(
        self,
        matches: Callable[[SimulatedJob, datetime], bool],
        *,
        limit: int,
        before: int | None = None,
        status: str | None = None,
    ) -> tuple[Sequence[JobSnapshot], int | None]:
        """Return a page of jobs, as :meth:`job_page`, with their plans and backfills."""
        with self._lock_and_advance() as now:
            index = self._workload.jobs
            jobs = index.newest_first(before) if status is None else index.in_state(status, before)
            page, end = take_page((job for job in jobs if matches(job, now)), limit)
            return [self._snapshot(job, now) for job in page], end

    def job_counts(self) -> dict[str, int]:
        with self._lock_and_advance():
            return self._workload.jobs.counts()

    def backfill(self, backfill_id: str) -> Backfill:
        with self._lock_and_advance() as now:
            return self._workload.backfills.get(backfill_id).model_at(now)

    def backfills(self) -> list[Backfill]:
        """Return all backfills, newest first."""
        with self._lock_and_advance() as now:
            return [backfill.model_at(now) for backfill in self._workload.backfills.newest_first()]

    def backfill_page(
        self, matches: Callable[[SimulatedBackfill, datetime], bool], *, limit: int, before: int | None = None
    ) -> tuple[Sequence[Backfill], int | None]:
        """Return a page of backfills, as :meth:`job_page`, without the ids of their jobs."""
        with self._lock_and_advance() as now:
            page, end = self._workload.backfills.page(
                lambda backfill: matches(backfill, now), limit=limit, before=before
            )
            return [backfill.model_at(now, with_jobs=False) for backfill in page], end

    def results(self, job_id: str) -> JobResults:
        """Return the results of a job. The settings decide about those of an active job."""
        with self._lock_and_advance() as now:
            job = self._workload.jobs.get(job_id)
            if now < job.ends_at and self.settings.results_policy == "conflict":
                raise ApiError("job_not_finished", f"job {job_id!r} is {job.status_at(now)}, it has no results yet")
            return job.results_at(now)

    def cancel(self, job_id: str) -> Job:
        """Cancel a job. A job that has ended or was cancelled before stays unchanged."""
        with self._lock_and_advance() as now:
            job = self._workload.jobs.get(job_id)
            if cancelled := self._workload.change(job, lambda job: replace(job, cancel_requested_at=now), now):
                self._journal.write("cancel", at=now, job_id=job_id)
            return (cancelled or job).model_at(now)

    def fail_job(self, job_id: str, *, code: str | None = None, message: str | None = None) -> Job:
        """Make an active job fail now, by default with the error code of its plan."""
        with self._lock_and_advance() as now:
            changed = self._change_active(job_id, lambda job: job.with_failure(code, message, now), now)
            self._journal.write("fail_job", at=now, job_id=job_id, code=code, message=message)
            return changed.model_at(now)

    def slow_job(self, job_id: str, seconds: float) -> Job:
        """Make an active job run longer, by real seconds at any speed. The rest of its work becomes slower."""
        with self._lock_and_advance() as now:
            changed = self._change_active(job_id, lambda job: job.with_slowdown(seconds, now), now)
            self._journal.write("slow_job", at=now, job_id=job_id, seconds=seconds)
            return changed.model_at(now)

    def _change_active(
        self, job_id: str, change: Callable[[SimulatedJob], SimulatedJob], now: datetime
    ) -> SimulatedJob:
        job = self._workload.jobs.get(job_id)
        changed = self._workload.change(job, change, now)
        if changed is None:
            raise ApiError("job_not_active", f"job {job_id!r} is {job.status_at(now)} and can no longer be changed")
        return changed

    def _snapshot(self, job: SimulatedJob, now: datetime) -> JobSnapshot:
        return JobSnapshot(job, now, self._workload.backfill_of(job))

    def _current_settings(self) -> SimulatorSettings:
        return self.settings

    def _require_connection(self, connection_id: str) -> None:
        if connection_id not in self._connections:
            raise ApiError("not_found", f"no connection {connection_id!r}")

    def _add_plan(
        self, method: str, plans: Plans[P], connection_id: str, times: int | None, changes: Mapping[str, Any]
    ) -> P:
        with self.lock:
            self._require_connection(connection_id)
            plan = plans.add(connection_id, times, changes)
            self._journal.write(method, connection_id=connection_id, times=times, **changes)
            return plan

    def _start(
        self,
        method: str,
        create: Callable[[str, B, datetime], str],
        connection_id: str,
        body: B,
        idempotency_key: str | None,
        now: datetime,
    ) -> str:
        """Return the id of what ``create`` creates, or of what the same request created before."""
        self._require_connection(connection_id)
        key = idempotency_key if self.settings.honour_idempotency else None
        created_id = self._idempotency_keys.find(key, connection_id, body)
        if created_id is None:
            created_id = create(connection_id, body, now)
            self._idempotency_keys.add(key, connection_id, body, created_id)
            self._journal.write(method, at=now, connection_id=connection_id, body=body, idempotency_key=idempotency_key)
        return created_id

    def _create_sync(self, connection_id: str, body: SyncBody, now: datetime) -> str:
        active = self._workload.active_sync_of(connection_id)
        if active and self.settings.conflict != "allowed":
            existing_job_id = active if self.settings.conflict == "named" else None
            message = f"a sync of connection {connection_id!r} is already in progress"
            raise ApiError("sync_in_progress", message, existing_job_id=existing_job_id)
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

    def _create_backfill(self, connection_id: str, body: BackfillBody, now: datetime) -> str:
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
