"""Plans for the next syncs and backfills of each connection."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from typing_extensions import TypedDict  # pydantic requires this one before Python 3.12

from planasonix_provider.api.models import JobWarning

MAX_SECONDS = 31_536_000  # a year
MAX_JOBS = 10_000
#: How many starts one call may plan. Each takes memory until it is used.
MAX_TIMES = 10_000
#: The rows of a table that a backfill request names and the plan does not.
UNPLANNED_ROWS = 1_000_000

Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
Rows = Annotated[int, Field(ge=0, le=10**15)]
Times: TypeAlias = Annotated[int, Field(ge=1, le=MAX_TIMES)] | None

P = TypeVar("P", bound=BaseModel)


class _TimedPlan(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def faster(self, speed: float) -> Self:
        """Divide the durations by ``speed``. At speed 1, return the same object, which thousands of jobs share."""
        if speed == 1:
            return self
        durations = {name: value for name, value in self if name.endswith("_seconds") and value is not None}
        return self.model_copy(update={name: seconds / speed for name, seconds in durations.items()})


class Plan(_TimedPlan):
    """The plan of a job.

    :param outcome: how the job ends unless it is cancelled: ``succeeded`` (default) or ``failed``.
    :param code: the error code of a failed job; default ``sync_failed``.
    :param message: the error message of a failed job; by default it says that the failure was planned.
    :param queued_seconds: how long the job is queued; default 2.
    :param running_seconds: how long the job runs; default 20.
    :param cancelling_seconds: how long a cancelled job takes to end; default 1.
    :param tables: the rows that the job loads into each table; default 44,802 rows into ``public.orders``. A job that
        does not succeed loads a part of them.
    :param warnings: the warnings in the job's results, each with a ``code`` and a ``message``; default none.
    """

    outcome: Literal["succeeded", "failed"] = "succeeded"
    code: str = "sync_failed"
    message: str = "The sync failed as planned."
    queued_seconds: Seconds = 2.0
    running_seconds: Seconds = 20.0
    cancelling_seconds: Seconds = 1.0
    tables: dict[str, Rows] = {"public.orders": 44802}
    warnings: tuple[JobWarning, ...] = ()


class PlanChanges(TypedDict, total=False):
    """The fields of a :class:`Plan`, all optional."""

    outcome: Literal["succeeded", "failed"]
    code: str
    message: str
    queued_seconds: float
    running_seconds: float
    cancelling_seconds: float
    tables: Mapping[str, int]
    warnings: Sequence[Mapping[str, str]]


class BackfillPlan(_TimedPlan):
    """The plan of a backfill.

    It creates its jobs in waves: the first ``parallel`` jobs when it leaves the queue, the next ones when those end.

    :param jobs: how many jobs it creates; default 3.
    :param parallel: how many of them run at a time; default 4.
    :param failing_jobs: the numbers, from 0, of the jobs that fail; default none. If any fails, the backfill fails once
        all jobs have ended.
    :param code: the error code of a failed job; default ``load_failed``.
    :param message: the error message of a failed job; by default it says that the failure was planned.
    :param queued_seconds: how long the backfill is queued before it creates its first jobs; default 2.
    :param job_seconds: how long each job runs; default 20.
    :param running_seconds: how long all jobs together run, from the start of the first to the end of the last. If
        given, it replaces ``job_seconds``.
    :param cancelling_seconds: how long a cancelled job takes to end; default 1.
    :param jobs_after_cancel: how many more jobs are created after the first cancel of a job, within
        ``cancelling_seconds`` and regardless of ``parallel``; default none.
    :param tables: the rows that all jobs together load into each table; default 5,000,000 rows into two tables. A
        backfill that is requested for certain tables loads only these.
    :param warnings: the warnings in the results of each job, each with a ``code`` and a ``message``; default none.
    """

    jobs: Annotated[int, Field(ge=1, le=MAX_JOBS)] = 3
    parallel: Annotated[int, Field(ge=1, le=MAX_JOBS)] = 4
    failing_jobs: frozenset[int] = frozenset()
    code: str = "load_failed"
    message: str = "The load failed as planned."
    queued_seconds: Seconds = 2.0
    job_seconds: Seconds = 20.0
    running_seconds: Seconds | None = None
    cancelling_seconds: Seconds = 1.0
    jobs_after_cancel: Annotated[int, Field(ge=0, le=MAX_JOBS)] = 0
    tables: dict[str, Rows] = {"public.orders": 3_000_000, "public.order_items": 2_000_000}
    warnings: tuple[JobWarning, ...] = ()

    @field_validator("failing_jobs")
    @classmethod
    def _check_failing_jobs(cls, failing: frozenset[int], info: ValidationInfo) -> frozenset[int]:
        jobs = info.data.get("jobs", MAX_JOBS)
        if unknown := sorted(number for number in failing if not 0 <= number < jobs):
            raise ValueError(f"got {unknown}, allowed are 0 to {jobs - 1}")
        return failing

    @classmethod
    def like(cls, plan: Plan) -> BackfillPlan:
        """Return the plan of a backfill whose durations are those of a sync's plan."""
        return cls(
            queued_seconds=plan.queued_seconds,
            job_seconds=plan.running_seconds,
            cancelling_seconds=plan.cancelling_seconds,
        )

    def rows(self, tables: Iterable[str] | None) -> dict[str, int]:
        """Return the rows that all jobs together load into each of these tables; ``None`` means all planned tables."""
        return {name: self.tables.get(name, UNPLANNED_ROWS) for name in (self.tables if tables is None else tables)}

    def job_plan(self, rows: Mapping[str, int], *, fails: bool) -> Plan:
        """Return the plan of one job that loads these rows."""
        running = self.running_seconds
        return Plan(
            outcome="failed" if fails else "succeeded",
            code=self.code,
            message=self.message,
            queued_seconds=0,
            running_seconds=self.job_seconds if running is None else running / math.ceil(self.jobs / self.parallel),
            cancelling_seconds=self.cancelling_seconds,
            tables=dict(rows),
            warnings=self.warnings,
        )


class BackfillPlanChanges(TypedDict, total=False):
    """The fields of a :class:`BackfillPlan`, all optional."""

    jobs: int
    parallel: int
    failing_jobs: Iterable[int]
    code: str
    message: str
    queued_seconds: float
    job_seconds: float
    running_seconds: float | None
    cancelling_seconds: float
    jobs_after_cancel: int
    tables: Mapping[str, int]
    warnings: Sequence[Mapping[str, str]]


class Plans(Generic[P]):
    """The plans of one kind, by connection. They are used in the order in which they were added."""

    def __init__(self, default: P) -> None:
        self._default = default
        self._queues: dict[str, deque[P]] = {}
        self._fallbacks: dict[str, P] = {}

    def add(self, connection_id: str, times: int | None, changes: Mapping[str, Any]) -> P:
        """Plan the next ``times`` starts of a connection, or with ``None`` all starts without another plan."""
        if times is not None and not 1 <= times <= MAX_TIMES:
            raise ValueError(f"times: got {times!r}, allowed is 1 to {MAX_TIMES:,}, or None for all that follow.")
        plan = self._default.model_validate({**dict(self._default), **changes})
        if times is None:
            self._fallbacks[connection_id] = plan
        else:
            self._queues.setdefault(connection_id, deque()).extend([plan] * times)
        return plan

    def next_plan(self, connection_id: str) -> P:
        """Return the plan for the next start of a connection, and remove it from the queue."""
        queue = self._queues.get(connection_id)
        return queue.popleft() if queue else self._fallbacks.get(connection_id, self._default)
