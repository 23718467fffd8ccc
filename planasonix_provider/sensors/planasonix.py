"""Sensors that wait for Planasonix work which another task, another DAG or a person has started."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from planasonix_provider import validators
from planasonix_provider.api.states import BACKFILL_OVER, BACKFILL_STATES, JOB_OVER, JOB_STATES
from planasonix_provider.sensors.base import PlanasonixSensor

if TYPE_CHECKING:
    from datetime import datetime

    from planasonix_provider.triggers.planasonix import (
        PlanasonixBackfillTrigger,
        PlanasonixJobTrigger,
        PlanasonixSyncTrigger,
    )
    from planasonix_provider.waiting.sync_target import SyncTarget
    from planasonix_provider.waiting.targets import BackfillTarget, JobTarget


class _WorkSensor(PlanasonixSensor):
    """What the sensors of a job and of a backfill have in common: the states that end the wait.

    :param allowed_states: the states that end the wait well.
    :param failed_states: the states that fail the task.
    """

    #: States from which what is waited for never moves on.
    over: ClassVar[frozenset[str]]

    def __init__(
        self, *, allowed_states: Collection[str], failed_states: Collection[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.allowed_states = _in_order(allowed_states)
        self.failed_states = _in_order(failed_states)

    def validate_combination(self) -> None:
        """Refuse a state that is to end the wait both well and badly.

        :raises ValueError: if there is one.
        """
        if validators.is_templated(self.allowed_states) or validators.is_templated(self.failed_states):
            return
        if both := sorted(set(self.allowed_states).intersection(self.failed_states or ())):
            raise ValueError(f"failed_states: got {', '.join(both)}, allowed is what is not among allowed_states.")

    @property
    def until(self) -> frozenset[str]:
        """The states that end the wait, besides those from which what is waited for never moves on."""
        return frozenset({*self.allowed_states, *(self.failed_states or ())}) - self.over


def _in_order(states: Any) -> Any:
    """Put a set in order, or the serialized DAG would be another one at each parse."""
    return sorted(states, key=str) if isinstance(states, (set, frozenset)) else states


class PlanasonixJobSensor(_WorkSensor):
    """Waits until a job that somebody else has started is over.

    .. code-block:: python

        wait = PlanasonixJobSensor(
            task_id="wait",
            job_id="{{ ti.xcom_pull(task_ids='start', key='job_id') }}",
            deferrable=True,
        )

    The return value is a plain dict with the job, its times and its metrics.

    :param job_id: the job. (templated)
    :param allowed_states: the states that end the wait well, of ``queued``, ``running``, ``succeeded``, ``failed``,
        ``cancelled`` and ``cancelling``; default ``["succeeded"]``. (templated)
    :param failed_states: the states that fail the task; default: every other state from which a job never moves on,
        which fail it in any case. (templated)

    All other parameters are those of :class:`~planasonix_provider.sensors.base.PlanasonixSensor`.
    """

    over = JOB_OVER
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

    def subject(self) -> JobTarget:
        """Wait for the job."""
        from planasonix_provider.waiting.targets import JobTarget

        return JobTarget(self.job_id, self.until)

    def trigger(self, **how: Any) -> PlanasonixJobTrigger:
        """Make the trigger that waits for the job.

        :param how: what all triggers take.
        :return: the trigger.
        """
        from planasonix_provider.triggers.planasonix import PlanasonixJobTrigger

        return PlanasonixJobTrigger(self.job_id, states=self.until, **how)


class PlanasonixBackfillSensor(_WorkSensor):
    """Waits until a backfill that somebody else has started is over.

    .. code-block:: python

        wait = PlanasonixBackfillSensor(task_id="wait", backfill_id="bf_01jq8bfill01", deferrable=True)

    The return value is a plain dict with the backfill, its window and its progress.

    :param backfill_id: the backfill. (templated)
    :param allowed_states: the states that end the wait well, of ``queued``, ``running``, ``completed``, ``failed`` and
        ``cancelled``; default ``["completed"]``. (templated)
    :param failed_states: the states that fail the task; default: every other state from which a backfill never moves
        on, which fail it in any case. (templated)

    All other parameters are those of :class:`~planasonix_provider.sensors.base.PlanasonixSensor`.
    """

    over = BACKFILL_OVER
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

    def subject(self) -> BackfillTarget:
        """Wait for the backfill."""
        from planasonix_provider.waiting.targets import BackfillTarget

        return BackfillTarget(self.backfill_id, self.until)

    def trigger(self, **how: Any) -> PlanasonixBackfillTrigger:
        """Make the trigger that waits for the backfill.

        :param how: what all triggers take.
        :return: the trigger.
        """
        from planasonix_provider.triggers.planasonix import PlanasonixBackfillTrigger

        return PlanasonixBackfillTrigger(self.backfill_id, states=self.until, **how)


class PlanasonixSyncSensor(PlanasonixSensor):
    """Waits until a sync of a connection has succeeded, whoever starts it: for DAGs that do not own the sync.

    .. code-block:: python

        fresh = PlanasonixSyncSensor(
            task_id="fresh",
            connection_id="conn_01jq8k2m3n4p5q6r7s8t9u0v1",
            since="{{ data_interval_start }}",
            deferrable=True,
        )

    It looks into Planasonix's list of jobs, so a sync that ends while nobody looks is not missed. The return value is a
    plain dict with the job, its times and its metrics.

    :param connection_id: Planasonix's connection. (templated)
    :param since: only syncs since this moment count, as a ``datetime`` or as ISO 8601 text; one without an offset is
        UTC. (templated)
    :param by: whether a sync counts that was ``created`` since, or one that has ``finished`` since, though it was
        created up to a day before; default ``created``. (templated)
    :param on_failure: what a sync that fails or is cancelled does: ``fail`` fails the task, unless another one has
        succeeded by then; with ``wait`` the next one is waited for; default ``fail``. (templated)

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

    def subject(self) -> SyncTarget:
        """Wait for the connection's next sync."""
        from planasonix_provider.waiting.sync_target import SyncTarget

        return SyncTarget(self.connection_id, validators.utc("since", self.since), self.by, self.on_failure)

    def trigger(self, **how: Any) -> PlanasonixSyncTrigger:
        """Make the trigger that waits for the connection's next sync; the moment goes with it, as it was rendered.

        :param how: what all triggers take.
        :return: the trigger.
        """
        from planasonix_provider.triggers.planasonix import PlanasonixSyncTrigger

        return PlanasonixSyncTrigger(self.connection_id, self.since, self.by, self.on_failure, **how)
