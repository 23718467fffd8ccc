"""Waits in the triggerer: for a job, for a backfill, for a connection's next sync; and watches for all that ends."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from planasonix_provider.triggers.base import PlanasonixWaitTrigger, PlanasonixWorkTrigger
from planasonix_provider.triggers.events import PlanasonixEventTrigger
from planasonix_provider.validators import identifier, one_of, utc
from planasonix_provider.waiting.sync_target import SyncTarget
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget

__all__ = ["PlanasonixBackfillTrigger", "PlanasonixEventTrigger", "PlanasonixJobTrigger", "PlanasonixSyncTrigger"]


class PlanasonixJobTrigger(PlanasonixWorkTrigger):
    """Waits until a job is over, and hands back one event that says how it ended.

    :param job_id: the job.
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
    :param kwargs: as :class:`~planasonix_provider.triggers.base.PlanasonixWorkTrigger`; among them ``poll_interval``,
        the seconds between two looks (default 10), and ``deadline``, when to give up (default never).
    :raises ValueError: if a parameter makes no sense.
    """

    own_arguments = ("job_id", "states", "cancel_on_kill")

    def __init__(self, job_id: str, planasonix_conn_id: str = "planasonix_default", **kwargs: Any) -> None:
        super().__init__(planasonix_conn_id=planasonix_conn_id, **kwargs)
        self.job_id = identifier("job_id", job_id)

    @property
    def subject(self) -> JobTarget:
        """The job."""
        return JobTarget(self.job_id, self.states)


class PlanasonixBackfillTrigger(PlanasonixWorkTrigger):
    """Waits until a backfill is over, and hands back one event that says how it ended.

    :param backfill_id: the backfill.
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
    :param kwargs: as :class:`~planasonix_provider.triggers.base.PlanasonixWorkTrigger`; among them ``poll_interval``,
        the seconds between two looks (default 10), and ``deadline``, when to give up (default never).
    :raises ValueError: if a parameter makes no sense.
    """

    own_arguments = ("backfill_id", "states", "cancel_on_kill")

    def __init__(self, backfill_id: str, planasonix_conn_id: str = "planasonix_default", **kwargs: Any) -> None:
        super().__init__(planasonix_conn_id=planasonix_conn_id, **kwargs)
        self.backfill_id = identifier("backfill_id", backfill_id)

    @property
    def subject(self) -> BackfillTarget:
        """The backfill."""
        return BackfillTarget(self.backfill_id, self.states)


class PlanasonixSyncTrigger(PlanasonixWaitTrigger):
    """Waits until a sync of a connection has succeeded, whoever started it.

    :param connection_id: Planasonix's connection.
    :param since: only syncs since this moment count, as a time or as ISO 8601 text; one without an offset is UTC.
    :param by: whether a sync counts that was ``created``, or one that has ``finished`` since; default ``created``.
    :param on_failure: whether a sync that fails or is cancelled ends the wait (``fail``), or the next one is waited for
        (``wait``); default ``fail``.
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
    :param kwargs: as :class:`~planasonix_provider.triggers.base.PlanasonixWaitTrigger`.
    :raises ValueError: if a parameter makes no sense.
    """

    own_arguments = ("connection_id", "since", "by", "on_failure")

    def __init__(
        self,
        connection_id: str,
        since: datetime | str,
        by: str = "created",
        on_failure: str = "fail",
        planasonix_conn_id: str = "planasonix_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(planasonix_conn_id=planasonix_conn_id, **kwargs)
        self.connection_id = identifier("connection_id", connection_id)
        self.since = utc("since", since)
        self.by = one_of("created", "finished")("by", by)
        self.on_failure = one_of("fail", "wait")("on_failure", on_failure)

    @property
    def subject(self) -> SyncTarget:
        """The next sync of the connection."""
        return SyncTarget(self.connection_id, self.since, self.by, self.on_failure)
