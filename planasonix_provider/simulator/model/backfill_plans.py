"""What a backfill is going to do: how many jobs it makes and when, and what becomes of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from planasonix_provider.api.models import JobWarning
from planasonix_provider.simulator.model.simulated_jobs import Plan, Rows, Seconds

#: How many jobs a backfill may have.
MAX_JOBS = 10_000
#: How many rows a table has that a backfill is asked for and its plan does not know.
UNPLANNED_ROWS = 1_000_000


class BackfillPlan(BaseModel):
    """What a backfill is going to do.

    It makes its jobs in waves: the first ``parallel`` ones once it leaves its queue, and the next ones when those end.

    :param jobs: how many jobs it makes; default 3.
    :param parallel: how many of them run at a time; default 4.
    :param failing_jobs: which of them fail, by their numbers from 0, by default none; then the backfill fails once all
        jobs are over.
    :param code: the error code of a job that fails; default ``load_failed``.
    :param message: the error message of a job that fails; default: that it was planned to.
    :param queued_seconds: for how many seconds it waits before it makes its first jobs; default 2.
    :param job_seconds: for how many seconds each job runs; default 20.
    :param running_seconds: for how many seconds all jobs together run, from the start of the first to the end of the
        last; where given, it takes the place of ``job_seconds``.
    :param cancelling_seconds: how many seconds a job takes to end once a cancel is requested; default 1.
    :param jobs_after_cancel: how many of the jobs that are still to come are made although one was cancelled, by
        default none; they come within ``cancelling_seconds`` after the first cancel, however many run then.
    :param tables: how many rows it loads into each table, all jobs together; by default some into two tables. A
        backfill that is asked for certain tables loads only these.
    :param warnings: what the results of each job warn of, each with a ``code`` and a ``message``; default nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    jobs: Annotated[int, Field(ge=1, le=MAX_JOBS)] = 3
    parallel: Annotated[int, Field(ge=1, le=MAX_JOBS)] = 4
    failing_jobs: frozenset[int] = frozenset()
    code: str = "load_failed"
    message: str = "The load failed, as it was planned to."
    queued_seconds: Seconds = 2.0
    job_seconds: Seconds = 20.0
    running_seconds: Seconds | None = None
    cancelling_seconds: Seconds = 1.0
    jobs_after_cancel: Annotated[int, Field(ge=0, le=MAX_JOBS)] = 0
    tables: dict[str, Rows] = {"public.orders": 3_000_000, "public.order_items": 2_000_000}
    warnings: tuple[JobWarning, ...] = ()

    @field_validator("failing_jobs")
    @classmethod
    def _failing_jobs_exist(cls, failing: frozenset[int], others: ValidationInfo) -> frozenset[int]:
        jobs = others.data.get("jobs", MAX_JOBS)
        if unknown := sorted(number for number in failing if not 0 <= number < jobs):
            raise ValueError(f"got {unknown}, allowed are 0 to {jobs - 1}")
        return failing

    @classmethod
    def like(cls, plan: Plan) -> BackfillPlan:
        """Plan a backfill whose jobs take as long as others.

        :param plan: what other jobs do.
        :return: the plan.
        """
        return cls(
            queued_seconds=plan.queued_seconds,
            job_seconds=plan.running_seconds,
            cancelling_seconds=plan.cancelling_seconds,
        )

    def faster(self, speed: float) -> BackfillPlan:
        """Do the same in less time.

        :param speed: by which factor.
        :return: the faster plan.
        """
        running = self.running_seconds
        return self.model_copy(
            update={
                "queued_seconds": self.queued_seconds / speed,
                "job_seconds": self.job_seconds / speed,
                "running_seconds": None if running is None else running / speed,
                "cancelling_seconds": self.cancelling_seconds / speed,
            }
        )

    def rows(self, tables: Iterable[str] | None) -> dict[str, int]:
        """Tell how many rows all jobs together load.

        :param tables: which tables the backfill was asked for; ``None`` is all.
        :return: the rows of each table.
        """
        wanted = self.tables if tables is None else tables
        return {name: self.tables.get(name, UNPLANNED_ROWS) for name in wanted}

    def job(self, rows: Mapping[str, int], *, fails: bool) -> Plan:
        """Plan one of the jobs.

        :param rows: how many rows it loads into each table.
        :param fails: whether it fails.
        :return: the plan.
        """
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
    """The fields of a :class:`BackfillPlan`, each of which may be left out."""

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
