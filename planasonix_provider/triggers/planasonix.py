"""The triggers that users type: they wait for a job, a backfill or a connection's next sync, or watch for events."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from planasonix_provider.triggers.base import PlanasonixWaitTrigger
from planasonix_provider.triggers.events import PlanasonixEventTrigger
from planasonix_provider.validators import identifier, one_of, utc
from planasonix_provider.waiting.sync_target import SyncTarget
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget

__all__ = ["PlanasonixBackfillTrigger", "PlanasonixEventTrigger", "PlanasonixJobTrigger", "PlanasonixSyncTrigger"]


class PlanasonixJobTrigger(PlanasonixWaitTrigger):
    """Waits until a job is over, and sends one event that says how it ended.

    :param job_id: the job.
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
    :param states: further states that end the wait, as ``["running"]``; default none.
    :param options: as :class:`~planasonix_provider.triggers.base.PlanasonixWaitTrigger`; among them ``poll_interval``,
        the seconds between two polls (default 10), ``deadline``, when to give up (default never), and
        ``cancel_on_kill`` (default not).
    :raises ValueError: if a parameter is invalid.
    """

    def __init__(
        self, job_id: str, planasonix_conn_id: str = "planasonix_default", *, states: Iterable[str] = (), **options: Any
    ) -> None:
        self.job_id = identifier("job_id", job_id)
        self.states = sorted(states)
        super().__init__(JobTarget(self.job_id, self.states), planasonix_conn_id, **options)

    def target_arguments(self) -> dict[str, Any]:
        """Return the arguments that describe the job."""
        return {"job_id": self.job_id, "states": self.states, "cancel_on_kill": self.cancel_on_kill}


class PlanasonixBackfillTrigger(PlanasonixWaitTrigger):
    """Waits until a backfill is over, and sends one event that says how it ended.

    :param backfill_id: the backfill.
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
    :param states: further states that end the wait, as ``["running"]``; default none.
    :param options: as :class:`~planasonix_provider.triggers.base.PlanasonixWaitTrigger`; among them ``poll_interval``,
        the seconds between two polls (default 10), ``deadline``, when to give up (default never), and
        ``cancel_on_kill`` (default not).
    :raises ValueError: if a parameter is invalid.
    """

    def __init__(
        self,
        backfill_id: str,
        planasonix_conn_id: str = "planasonix_default",
        *,
        states: Iterable[str] = (),
        **options: Any,
    ) -> None:
        self.backfill_id = identifier("backfill_id", backfill_id)
        self.states = sorted(states)
        super().__init__(BackfillTarget(self.backfill_id, self.states), planasonix_conn_id, **options)

    def target_arguments(self) -> dict[str, Any]:
        """Return the arguments that describe the backfill."""
        return {"backfill_id": self.backfill_id, "states": self.states, "cancel_on_kill": self.cancel_on_kill}


class PlanasonixSyncTrigger(PlanasonixWaitTrigger):
    """Waits until any sync of a connection has succeeded.

    :param connection_id: Planasonix's connection.
    :param since: only syncs since this moment count, as a time or as ISO 8601 text; one without an offset is UTC.
    :param by: whether a sync counts that was ``created``, or one that has ``finished`` since; default ``created``.
    :param on_failure: whether a sync that fails or is cancelled ends the wait (``fail``), or the wait goes on for the
        next one (``wait``); default ``fail``.
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
    :param options: as :class:`~planasonix_provider.triggers.base.PlanasonixWaitTrigger`, except ``cancel_on_kill``.
    :raises ValueError: if a parameter is invalid.
    """

    def __init__(
        self,
        connection_id: str,
        since: datetime | str,
        by: str = "created",
        on_failure: str = "fail",
        planasonix_conn_id: str = "planasonix_default",
        **options: Any,
    ) -> None:
        self.connection_id = identifier("connection_id", connection_id)
        self.since = utc("since", since)
        self.by = one_of("created", "finished")("by", by)
        self.on_failure = one_of("fail", "wait")("on_failure", on_failure)
        target = SyncTarget(self.connection_id, self.since, self.by, self.on_failure)
        super().__init__(target, planasonix_conn_id, **options)

    def target_arguments(self) -> dict[str, Any]:
        """Return the arguments that describe the sync."""
        return {name: getattr(self, name) for name in ("connection_id", "since", "by", "on_failure")}
