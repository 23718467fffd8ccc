"""The Planasonix that is simulated: its keys, connections and jobs, and the rules among them. No HTTP."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from threading import RLock
from typing import Any, Literal, TypeAlias, Unpack

from pydantic import BaseModel, ConfigDict, Field

from planasonix_provider.api.models import Job, JobResults, SyncBody
from planasonix_provider.simulator.access import Keys
from planasonix_provider.simulator.jobs import Plan, PlanChanges, PlannedJob
from planasonix_provider.simulator.refusals import Refused

#: Tells the time, in UTC.
Clock: TypeAlias = Callable[[], datetime]
#: Makes an id of a prefix, as ``job``.
Ids: TypeAlias = Callable[[str], str]

#: The key that every simulator starts with, unless it is told another.
API_KEY = "plnx_sim_local_key"
#: The connections that every simulator knows: the reference's own, and ten to play with.
CONNECTIONS = ("conn_01jq8k2m3n4p5q6r7s8t9u0v1", *(f"conn_demo_{number:02}" for number in range(1, 11)))


def utc_now() -> datetime:
    """Tell the time.

    :return: the time of this machine, in UTC.
    """
    return datetime.now(UTC)


def random_id(prefix: str) -> str:
    """Make an id.

    :param prefix: what kind of thing it names, as ``job``.
    :return: an id that no other thing has.
    """
    return f"{prefix}_{uuid.uuid4().hex}"


class Settings(BaseModel):
    """What differs from one Planasonix deployment to the next.

    :param conflict: what a second sync of a connection meets while the first is active: ``named`` is a 409 with the id
        of the job in the way, ``unnamed`` a 409 without, ``allowed`` runs both.
    :param honour_idempotency: whether a repeated ``Idempotency-Key`` gives the job that it gave first.
    :param results_policy: what asking for results before the end gives: ``conflict`` is a 409, ``partial`` a stub.
    :param speed: by which factor jobs run faster than planned; holds for the jobs that start from then on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    conflict: Literal["named", "unnamed", "allowed"] = "named"
    honour_idempotency: bool = True
    results_policy: Literal["conflict", "partial"] = "conflict"
    speed: float = Field(1.0, ge=0.001, le=1_000_000)


class World:
    """One Planasonix workspace. Every method may be called from any thread.

    :param clock: tells the time, in UTC.
    :param ids: makes ids.
    :param api_key: the key that exists from the start, with all scopes.
    :param connections: connections that exist from the start, besides :data:`CONNECTIONS`.
    :param default_plan: what a job does that nothing else was planned for.
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
        self.reset()

    def reset(self) -> None:
        """Forget all that happened, and all that was planned or set."""
        with self._lock:
            self.settings = Settings()
            self.keys = Keys()
            self.keys.add(self.api_key)
            self._connections: dict[str, Plan] = {}
            for connection_id in self._first_connections:
                self.add_connection(connection_id)
            self._next_plans: dict[str, deque[Plan]] = {}
            self._jobs: dict[str, PlannedJob] = {}
            self._order: list[str] = []
            self._last_active: dict[str, list[str]] = {}
            self._starts: dict[str, tuple[str, SyncBody, str]] = {}

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
            self._connections.setdefault(connection_id, self.default_plan)

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
        """Plan what the next jobs of a connection do. Plans are used up in the order in which they were made.

        :param connection_id: the connection.
        :param times: for how many jobs; ``None`` is for all that nothing else is planned for.
        :param changes: fields of :class:`~planasonix_provider.simulator.jobs.Plan`; those that are not named are as in
            ``default_plan``.
        :return: the plan.
        :raises ValueError: if a name or a value is not allowed.
        :raises Refused: as ``not_found``, if there is no such connection.
        """
        if times is not None and times < 1:
            raise ValueError(f"times: got {times!r}, allowed is a number from 1, or None for all that follow.")
        plan = Plan.model_validate({**dict(self.default_plan), **changes})
        with self._lock:
            self._require_connection(connection_id)
            if times is None:
                self._connections[connection_id] = plan
            else:
                self._next_plans.setdefault(connection_id, deque()).extend([plan] * times)
        return plan

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
            self._require_connection(connection_id)
            key = idempotency_key if self.settings.honour_idempotency else None
            job = self._delivered_before(connection_id, body, key) if key else None
            if job is None:
                self._require_idle(connection_id)
                job = self._start(connection_id, body)
                if key:
                    self._starts[key] = (connection_id, body, job.id)
            return job.at(self.clock())

    def job(self, job_id: str) -> Job:
        """Look at a job.

        :param job_id: its id.
        :return: the job as it is now.
        :raises Refused: as ``not_found``, if there is no such job.
        """
        return self._job(job_id).at(self.clock())

    def jobs(self) -> list[Job]:
        """Look at all jobs.

        :return: the jobs as they are now, newest first.
        """
        with self._lock:
            now = self.clock()
            return [self._jobs[job_id].at(now) for job_id in reversed(self._order)]

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
            now = self.clock()
            end = len(self._order) if before is None else min(before, len(self._order))
            older = (self._jobs[self._order[position]] for position in range(end - 1, -1, -1))
            found = list(islice((job for job in older if wanted(job, now)), limit + 1))
            shown = found[:limit]
            return [job.at(now) for job in shown], shown[-1].position if len(found) > limit else None

    def results(self, job_id: str) -> JobResults:
        """Look at what a job loaded.

        :param job_id: its id.
        :return: the results; a stub while the job is not over, where the settings say so.
        :raises Refused: as ``not_found``, or as ``job_not_finished``, where the settings say so.
        """
        job = self._job(job_id)
        now = self.clock()
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
            job = self._job(job_id)
            now = self.clock()
            if job.cancel_requested_at is None and now < job.ends_at:
                job = self._jobs[job_id] = replace(job, cancel_requested_at=now)
            return job.at(now)

    def _job(self, job_id: str) -> PlannedJob:
        job = self._jobs.get(job_id)
        if job is None:
            raise Refused("not_found", f"no job {job_id!r}")
        return job

    def _require_connection(self, connection_id: str) -> None:
        if connection_id not in self._connections:
            raise Refused("not_found", f"no connection {connection_id!r}")

    def _require_idle(self, connection_id: str) -> None:
        """Refuse a sync while another one of the same connection is active."""
        now = self.clock()
        active = [job_id for job_id in self._last_active.get(connection_id, ()) if now < self._jobs[job_id].ends_at]
        self._last_active[connection_id] = active
        if active and self.settings.conflict != "allowed":
            named = active[-1] if self.settings.conflict == "named" else None
            message = f"a sync of connection {connection_id!r} is already in progress"
            raise Refused("sync_in_progress", message, existing_job_id=named)

    def _delivered_before(self, connection_id: str, body: SyncBody, key: str) -> PlannedJob | None:
        """Find the job that an earlier delivery of the same start made."""
        if key not in self._starts:
            return None
        *first, job_id = self._starts[key]
        if first != [connection_id, body]:
            raise Refused("idempotency_key_reused", "this Idempotency-Key came with another connection or body before")
        return self._jobs[job_id]

    def _start(self, connection_id: str, body: SyncBody) -> PlannedJob:
        planned = self._next_plans.get(connection_id)
        plan = planned.popleft() if planned else self._connections[connection_id]
        job = PlannedJob(
            id=self.ids("job"),
            position=len(self._order),
            connection_id=connection_id,
            body=body,
            created_at=self.clock(),
            plan=plan.faster(self.settings.speed),
        )
        self._jobs[job.id] = job
        self._order.append(job.id)
        self._last_active.setdefault(connection_id, []).append(job.id)
        return job
