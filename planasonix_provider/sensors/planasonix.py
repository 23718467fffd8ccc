"""Sensors that wait for Planasonix work which another task, another DAG or a person has started."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from planasonix_provider import validators
from planasonix_provider.api.states import BACKFILL_OVER, BACKFILL_STATES, JOB_OVER, JOB_STATES
from planasonix_provider.sensors.base import PlanasonixSensor

if TYPE_CHECKING:
    from datetime import datetime

    from planasonix_provider.waiting.sync_target import SyncTarget
    from planasonix_provider.waiting.targets import BackfillTarget, JobTarget


class _WorkSensor(PlanasonixSensor):
    """Waits for a job or a backfill by its id, until it is in one of some states."""

    #: The final states of this kind of work, which end the wait in any case.
    final_states: ClassVar[frozenset[str]]

    def __init__(
        self, *, allowed_states: Collection[str], failed_states: Collection[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.allowed_states = _sorted_set(allowed_states)
        self.failed_states = _sorted_set(failed_states)

    def validate_combination(self) -> None:
        """Reject a state that is in both lists."""
        if validators.is_templated(self.allowed_states) or validators.is_templated(self.failed_states):
            return
        if both := sorted(set(self.allowed_states).intersection(self.failed_states or ())):
            raise ValueError(f"failed_states: got {', '.join(both)}, allowed is what is not among allowed_states.")

    @property
    def until(self) -> frozenset[str]:
        """The states that end the wait besides the final ones."""
        return frozenset({*self.allowed_states, *(self.failed_states or ())}) - self.final_states


def _sorted_set(states: Any) -> Any:
    """Sort a set, because otherwise each parse could serialize another DAG."""
    return sorted(states, key=str) if isinstance(states, (set, frozenset)) else states


class PlanasonixJobSensor(_WorkSensor):
    """Waits until a job is over that something else has started.

    .. code-block:: python

        wait = PlanasonixJobSensor(
            task_id="wait",
            job_id="{{ ti.xcom_pull(task_ids='start', key='job_id') }}",
            deferrable=True,
        )

    The return value is a plain dict with the job, its times and its metrics.

    :param job_id: the job. (templated)
    :param allowed_states: the states with which the task succeeds, of ``queued``, ``running``, ``succeeded``,
        ``failed``, ``cancelled`` and ``cancelling``; default ``["succeeded"]``. (templated)
    :param failed_states: the states with which the task fails; default: every other final state, which fails it in any
        case. (templated)

    All other parameters are those of :class:`~planasonix_provider.sensors.base.PlanasonixSensor`.
    """

    final_states = JOB_OVER
    checks: ClassVar[Mapping[str, validators.Check]] = {
        **PlanasonixSensor.checks,
        "job_id": validators.identifier,
        "allowed_states": validators.list_of(JOB_STATES),
        "failed_states": validators.optional(validators.list_of(JOB_STATES)),
    }
    template_fields: Sequence[str] = tuple(checks)

    def __init__(self, *, job_id: str, allowed_states: Collection[str] = ("succeeded",), **kwargs: Any) -> None:
        super().__init__(allowed_states=allowed_states, **kwargs)
        self.job_id = job_id
        self.validate_literals()

    def target(self) -> JobTarget:
        """Return the job."""
        from planasonix_provider.waiting.targets import JobTarget

        return JobTarget(self.job_id, self.until)


class PlanasonixBackfillSensor(_WorkSensor):
    """Waits until a backfill is over that something else has started.

    .. code-block:: python

        wait = PlanasonixBackfillSensor(task_id="wait", backfill_id="bf_01jq8bfill01", deferrable=True)

    The return value is a plain dict with the backfill, its window and its progress.

    :param backfill_id: the backfill. (templated)
    :param allowed_states: the states with which the task succeeds, of ``queued``, ``running``, ``completed``,
        ``failed`` and ``cancelled``; default ``["completed"]``. (templated)
    :param failed_states: the states with which the task fails; default: every other final state, which fails it in any
        case. (templated)

    All other parameters are those of :class:`~planasonix_provider.sensors.base.PlanasonixSensor`.
    """

    final_states = BACKFILL_OVER
    checks: ClassVar[Mapping[str, validators.Check]] = {
        **PlanasonixSensor.checks,
        "backfill_id": validators.identifier,
        "allowed_states": validators.list_of(BACKFILL_STATES),
        "failed_states": validators.optional(validators.list_of(BACKFILL_STATES)),
    }
    template_fields: Sequence[str] = tuple(checks)

    def __init__(self, *, backfill_id: str, allowed_states: Collection[str] = ("completed",), **kwargs: Any) -> None:
        super().__init__(allowed_states=allowed_states, **kwargs)
        self.backfill_id = backfill_id
        self.validate_literals()

    def target(self) -> BackfillTarget:
        """Return the backfill."""
        from planasonix_provider.waiting.targets import BackfillTarget

        return BackfillTarget(self.backfill_id, self.until)


class PlanasonixSyncSensor(PlanasonixSensor):
    """Waits until any sync of a connection has succeeded: for DAGs that do not own the sync.

    .. code-block:: python

        fresh = PlanasonixSyncSensor(
            task_id="fresh",
            connection_id="conn_01jq8k2m3n4p5q6r7s8t9u0v1",
            since="{{ data_interval_start }}",
            deferrable=True,
        )

    It searches Planasonix's list of jobs, so it does not miss a sync that ends between two polls. The return value is a
    plain dict with the job, its times and its metrics.

    :param connection_id: Planasonix's connection. (templated)
    :param since: only syncs since this time count, as a ``datetime`` or as ISO 8601 text; a time without an offset is
        UTC. (templated)
    :param by: whether a sync counts that was ``created`` since then, or one that has ``finished`` since then and was
        created up to a day before; default ``created``. (templated)
    :param on_failure: the effect of a failed or cancelled sync: ``fail`` fails the task, unless another sync has
        succeeded by then; ``wait`` waits for the next one; default ``fail``. (templated)

    All other parameters are those of :class:`~planasonix_provider.sensors.base.PlanasonixSensor`.
    """

    allowed_states = ("succeeded",)
    checks: ClassVar[Mapping[str, validators.Check]] = {
        **PlanasonixSensor.checks,
        "connection_id": validators.identifier,
        "since": validators.utc,
        "by": validators.one_of("created", "finished"),
        "on_failure": validators.one_of("fail", "wait"),
    }
    template_fields: Sequence[str] = tuple(checks)

    def __init__(
        self,
        *,
        connection_id: str,
        since: datetime | str,
        by: str = "created",
        on_failure: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.connection_id = connection_id
        self.since = since
        self.by = by
        self.on_failure = on_failure
        self.validate_literals()

    def target(self) -> SyncTarget:
        """Return the connection's next sync."""
        from planasonix_provider.waiting.sync_target import SyncTarget

        return SyncTarget(self.connection_id, validators.utc("since", self.since), self.by, self.on_failure)
