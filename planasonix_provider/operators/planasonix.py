"""Operators that sync, backfill, cancel, and subscribe webhooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.providers.common.compat.sdk import AssetAlias, BaseOperator

from planasonix_provider import configuration, start_parameters, validators, windows
from planasonix_provider.api.event_types import event_names
from planasonix_provider.clock import utcnow
from planasonix_provider.execution.short_traceback import with_short_traceback
from planasonix_provider.links.planasonix import PlanasonixJobLink
from planasonix_provider.operators.base import PlanasonixStartOperator
from planasonix_provider.validated import ValidatedParameters
from planasonix_provider.waiting.formatting import format_time

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from airflow.providers.common.compat.sdk import Context
    from pydantic import SecretStr

    from planasonix_provider.api.models import Backfill, Job, Priority
    from planasonix_provider.execution.cancel_task import CancelTask
    from planasonix_provider.hooks.planasonix import PlanasonixHook
    from planasonix_provider.secret_stores import SecretStore
    from planasonix_provider.waiting.attempt import Attempt

# The parameters of windows.partitions(), and those of the operator from which they come.
_PARTITION_PARAMETERS = {
    "start": "start_at",
    "end": "end_at",
    "every": "partition_by",
    "timezone": "partition_timezone",
    "key_format": "partition_key_format",
    "partial": "partial_partitions",
}


def _time_zone_name(name: str, value: Any) -> str:
    return windows.time_zone(name, value).key


def _secret_store(name: str, to: Any) -> SecretStore:
    # Only DAGs with a webhook operator pay for this import.
    from planasonix_provider.secret_stores import secret_store

    return secret_store(to)


class PlanasonixSyncOperator(PlanasonixStartOperator):
    """Starts an incremental sync of a connection, waits for it, and returns its result.

    Reference: "Trigger a sync job". The XComs ``job_id`` and ``job_url`` are set as soon as the job exists. The return
    value is a plain dict with the job, its times and metrics, the tables that it loaded, and its warnings.

    .. code-block:: python

        load_orders = PlanasonixSyncOperator(
            task_id="load_orders",
            connection_id="conn_01jq8k2m3n4p5q6r7s8t9u0v1",
            deferrable=True,
        )

    :param pipeline_id: the pipeline to run; default: the connection's own. (templated)

    All other parameters are those of :class:`~planasonix_provider.operators.base.PlanasonixStartOperator`.
    """

    kind = "job"
    checks: ClassVar[Mapping[str, validators.Check]] = {
        **PlanasonixStartOperator.checks,
        **start_parameters.checks_of("sync"),
    }
    template_fields: Sequence[str] = tuple(checks)

    def __init__(self, *, pipeline_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline_id = pipeline_id
        self.validate_literals()

    def load_parameters(self) -> dict[str, Any]:
        """Return the parameters that decide which data is loaded."""
        return {"connection_id": self.connection_id, "pipeline_id": self.pipeline_id}

    def submit_job(self, hook: PlanasonixHook, attempt: Attempt) -> Job:
        """Start the sync."""
        return hook.trigger_sync(
            self.connection_id,
            pipeline_id=self.pipeline_id,
            priority=cast("Priority | None", self.priority),
            metadata=self._metadata(attempt),
            idempotency_key=attempt.idempotency_key,
        )


class PlanasonixBackfillOperator(PlanasonixStartOperator):
    """Loads a window of the past, waits for all jobs of the backfill, and returns their results.

    Reference: "Trigger a backfill". The XCom ``backfill_id`` is set as soon as the backfill exists. The return value is
    a plain dict with the backfill, the rows that it loaded, its jobs and tables, and their warnings.

    .. code-block:: python

        replay = PlanasonixBackfillOperator(
            task_id="replay",
            connection_id="conn_01jq8k2m3n4p5q6r7s8t9u0v1",
            start_at="2025-01-01T00:00:00Z",
            end_at="{{ data_interval_end }}",
            tables=["public.orders", "public.order_items"],
            deferrable=True,
        )

    :param start_at: the start of the window, a ``datetime`` or an ISO 8601 text; UTC if it has no offset. (templated)
    :param end_at: the end of the window, not included; as ``start_at``. (templated)
    :param tables: the names of the tables to load; default: all of them. (templated)
    :param partition_by: whether to send the asset event of each loaded table once per ``hour``, ``day``, ``week``,
        ``month``, ``quarter`` or ``year`` of the window, with a partition key; default: one event without a key. Only
        DAGs whose schedule is partitioned run for an event with a key. Before Airflow 3.3, the events have no keys.
        (templated)
    :param partition_timezone: the name of the zone in which partitions start and end, and of the keys; default ``UTC``.
        (templated)
    :param partition_key_format: the format of the keys as for ``strftime``, with ``{quarter}`` for the number of the
        quarter; default ``%Y-%m-%dT%H:%M:%S``, which Airflow's temporal mappers read. (templated)
    :param partial_partitions: what to do if the window starts or ends inside of a partition: ``error`` (default) fails
        before anything is started, ``include`` sends an event for that partition, too. (templated)

    All other parameters are those of :class:`~planasonix_provider.operators.base.PlanasonixStartOperator`. Planasonix
    cannot cancel a backfill, so its jobs are cancelled, also those that it makes meanwhile, until it is over.
    """

    kind = "backfill"
    checks: ClassVar[Mapping[str, validators.Check]] = {
        **PlanasonixStartOperator.checks,
        **start_parameters.checks_of("backfill"),
        "partition_by": validators.optional(validators.one_of(*windows.UNITS)),
        "partition_timezone": _time_zone_name,
        "partition_key_format": windows.partition_key_format,
        "partial_partitions": validators.one_of("error", "include"),
    }
    template_fields: Sequence[str] = tuple(checks)

    def __init__(
        self,
        *,
        start_at: datetime | str,
        end_at: datetime | str,
        tables: Sequence[str] | None = None,
        partition_by: str | None = None,
        partition_timezone: str = "UTC",
        partition_key_format: str | None = None,
        partial_partitions: str = "error",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.start_at = start_at
        self.end_at = end_at
        self.tables = tables
        self.partition_by = partition_by
        self.partition_timezone = partition_timezone
        self.partition_key_format = partition_key_format
        self.partial_partitions = partial_partitions
        self.validate_literals()

    def validate_combination(self) -> None:
        """Raise ``ValueError`` if the window ends before it begins, or cannot be partitioned as the parameters say."""
        if self.partition_by is not None and any(isinstance(outlet, AssetAlias) for outlet in self.outlets):
            raise ValueError(
                f"partition_by: got {self.partition_by!r}, allowed is None, because there is an AssetAlias among the "
                "outlets: Airflow sends no partition keys through it. Name the tables with planasonix_asset() instead."
            )
        if not validators.is_templated([self.start_at, self.end_at]):
            validators.window(self.start_at, self.end_at)
            if not validators.is_templated([getattr(self, name) for name in _PARTITION_PARAMETERS.values()]):
                self.partition_keys()

    def partition_keys(self) -> tuple[str, ...]:
        """Return the keys of the partitions that the window covers; none without ``partition_by``."""
        if self.partition_by is None:
            return ()
        start_at, end_at = self.window()
        try:
            partitions = windows.partitions(
                start_at,
                end_at,
                every=self.partition_by,
                timezone=self.partition_timezone,
                key_format=self.partition_key_format,
                partial=self.partial_partitions,
            )
        except ValueError as error:
            name, _, problem = str(error).partition(":")
            raise ValueError(f"{_PARTITION_PARAMETERS[name]}:{problem}") from None
        return tuple(partition["partition_key"] for partition in partitions)

    def load_parameters(self) -> dict[str, Any]:
        """Return the parameters that decide which data is loaded."""
        return {"connection_id": self.connection_id, "window": self.window(), "tables": sorted(self.tables or ())}

    def window(self) -> tuple[datetime, datetime]:
        """Return the start and end of the window."""
        return validators.utc("start_at", self.start_at), validators.utc("end_at", self.end_at)

    def submit_job(self, hook: PlanasonixHook, attempt: Attempt) -> Backfill:
        """Start the backfill."""
        if (end := validators.utc("end_at", self.end_at)) > utcnow():
            self.log.warning("end_at is in the future (%s): the data after now does not exist yet.", format_time(end))
        return hook.trigger_backfill(
            self.connection_id,
            start_at=self.start_at,
            end_at=end,
            tables=self.tables,
            priority=cast("Priority | None", self.priority),
            metadata=self._metadata(attempt),
            idempotency_key=attempt.idempotency_key,
        )


class PlanasonixCancelJobOperator(ValidatedParameters, BaseOperator):
    """Cancels a job, or all jobs of a backfill, and waits until it is over.

    Reference: "Cancel a running job". If the job is over already, the task succeeds. The return value is a plain dict
    with the job or the backfill.

    .. code-block:: python

        stop = PlanasonixCancelJobOperator(
            task_id="stop",
            job_id="{{ ti.xcom_pull(task_ids='start', key='job_id') }}",
        ).as_teardown(setups=start)
        start >> wait >> stop

    A teardown task also runs if the wait fails, and the DAG run then fails. With a last task that has
    ``trigger_rule="one_failed"``, the DAG run would succeed.

    :param job_id: the job. (templated)
    :param backfill_id: instead of a job, the backfill whose jobs are cancelled, also those that it makes meanwhile.
        (templated)
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
        (templated)
    :param wait_for_completion: whether to wait until it is over; default yes. If not, the task succeeds once the cancel
        was requested.
    :param poll_interval: the seconds between two polls, at least 0.5; default: Airflow's setting
        ``[planasonix] poll_interval``, which is 10. (templated)
    :param timeout: how long to wait, in seconds or as a ``timedelta``; default: as long as ``execution_timeout``
        allows, if that is set. (templated)
    :raises ValueError: when the DAG is parsed, if a parameter without a template is invalid, or unless exactly one of
        ``job_id`` and ``backfill_id`` is given.
    """

    checks: ClassVar[Mapping[str, validators.Check]] = {
        "job_id": validators.optional(validators.identifier),
        "backfill_id": validators.optional(validators.identifier),
        "planasonix_conn_id": validators.text,
        "poll_interval": validators.poll_interval,
        "timeout": validators.optional(validators.seconds),
    }
    flags = ("wait_for_completion",)
    template_fields: Sequence[str] = tuple(checks)
    operator_extra_links = (PlanasonixJobLink(),)
    ui_color = "#e6f0ff"

    def __init__(
        self,
        *,
        job_id: str | None = None,
        backfill_id: str | None = None,
        planasonix_conn_id: str = "planasonix_default",
        wait_for_completion: bool = True,
        poll_interval: float | str = configuration.poll_interval(),
        timeout: float | timedelta | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.backfill_id = backfill_id
        self.planasonix_conn_id = planasonix_conn_id
        self.wait_for_completion = wait_for_completion
        self.poll_interval = poll_interval
        self.timeout = timeout
        self._execution: CancelTask | None = None
        self._is_killed = False
        self.validate_literals()

    def validate_combination(self) -> None:
        """Raise ``ValueError`` unless exactly one of ``job_id`` and ``backfill_id`` is given."""
        if (self.job_id is None) == (self.backfill_id is None):
            raise ValueError(
                f"job_id, backfill_id: got {self.job_id!r} and {self.backfill_id!r}, allowed is one of the two."
                + (f" {validators.EMPTY_TEMPLATE_HINT}." if self.job_id is None else "")
            )

    @with_short_traceback
    def execute(self, context: Context) -> dict[str, Any]:
        """Cancel the work, and wait until it is over unless ``wait_for_completion`` is false.

        :param context: the task's context, from Airflow.
        :return: the job or backfill in JSON types; see :mod:`planasonix_provider.waiting.report`.
        :raises AirflowFailException: for errors that no retry can mend: invalid parameters, a 400, a 403 or a 404.
        :raises PlanasonixError: for all other errors.
        """
        from planasonix_provider.execution.cancel_task import CancelTask
        from planasonix_provider.waiting.targets import BackfillTarget, JobTarget

        self.validate_rendered()
        self._execution = CancelTask(
            JobTarget(self.job_id) if self.job_id is not None else BackfillTarget(str(self.backfill_id)),
            self,
            context,
            conn_id=self.planasonix_conn_id,
            poll_interval=validators.poll_interval("poll_interval", self.poll_interval),
            wait_for_completion=self.wait_for_completion,
        )
        if self._is_killed:
            self._execution.on_kill()
        return self._execution.run()

    def on_kill(self) -> None:
        """Stop waiting; the cancel continues in Planasonix."""
        self._is_killed = True
        if self._execution:
            self._execution.on_kill()


class PlanasonixWebhookOperator(ValidatedParameters, BaseOperator):
    """Subscribes a URL to events, and stores the secret that signs the deliveries.

    Reference: "Webhooks". The task is idempotent: it creates a webhook only if there is none for this URL, changes its
    events if they differ, and enables it if it is disabled. The secret goes to ``secret_to`` and nowhere else. If it is
    not there, as after a lost response, it is rotated. ``ensure="absent"`` deletes the URL's webhook. The return value
    is a plain dict: ``webhook_id``, ``url``, ``events``, ``enabled``, ``action`` (``created``, ``updated``, ``deleted``
    or ``unchanged``) and ``secret_is_new``.

    .. code-block:: python

        subscribe = PlanasonixWebhookOperator(
            task_id="subscribe",
            url="https://api.internal.example.com/planasonix/webhook",
            events=["job.succeeded", "job.failed"],
            secret_to="variable:planasonix_webhook_secret",
        )

    :param url: the URL for deliveries: https, or http to this machine. It identifies the webhook: for another URL,
        another webhook is created, and the old one stays. (templated)
    :param events: the events, such as ``job.succeeded``. An event that this version does not know is sent, with a
        warning in the log. (templated)
    :param secret_to: the store for the secret: ``variable:NAME`` (not in a task of Airflow 3.0),
        ``connection:CONN_ID`` (not in a task of Airflow 3), ``file:/absolute/path`` on the worker, or a function that
        takes it. A function cannot be asked which secret it has. So the task notes in an Airflow variable,
        ``planasonix_secret_handed_over_…``, which webhook's secret it has handed to which function. Without such a
        note the secret is rotated, and the function is called. (templated)
    :param ensure: ``present``, or ``absent``, which needs no ``events`` and ``secret_to``; default ``present``.
        (templated)
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
        (templated)
    :raises ValueError: when the DAG is parsed, if a parameter without a template is invalid.
    """

    checks: ClassVar[Mapping[str, validators.Check]] = {
        "url": validators.webhook_url,
        "events": validators.optional(event_names),
        "secret_to": validators.optional(_secret_store),
        "ensure": validators.one_of("present", "absent"),
        "planasonix_conn_id": validators.text,
    }
    template_fields: Sequence[str] = tuple(checks)
    ui_color = "#e6f0ff"

    def __init__(
        self,
        *,
        url: str,
        events: Sequence[str] | None = None,
        secret_to: str | Callable[[SecretStr], object] | SecretStore | None = None,
        ensure: str = "present",
        planasonix_conn_id: str = "planasonix_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.url = url
        self.events = events
        self.secret_to = secret_to
        self.ensure = ensure
        self.planasonix_conn_id = planasonix_conn_id
        self.validate_literals()
        if callable(secret_to):
            # Airflow shows a task's parameters, and a function's repr may contain secrets.
            self.secret_to = _secret_store("secret_to", secret_to)

    def validate_combination(self) -> None:
        """Raise ``ValueError`` if ``ensure="present"`` lacks ``events`` or ``secret_to``."""
        if self.ensure == "present":
            for name in ("events", "secret_to"):
                if getattr(self, name) is None:
                    raise ValueError(f"{name}: got None, which is allowed only with ensure='absent'.")

    @with_short_traceback
    def execute(self, context: Context) -> dict[str, Any]:
        """Create, update or delete the webhook.

        :param context: the task's context, from Airflow.
        :return: the webhook and the action, in JSON types.
        :raises AirflowFailException: for errors that no retry can mend: invalid parameters, a 400, a 403 or a 404.
        :raises PlanasonixError: for all other errors.
        """
        from planasonix_provider.execution.webhook_task import ensure_absent, ensure_present

        self.validate_rendered()
        if self.ensure == "absent":
            return ensure_absent(self.url, conn_id=self.planasonix_conn_id, log=self.log)
        return ensure_present(
            self.url,
            self.events or (),
            _secret_store("secret_to", self.secret_to or ""),
            conn_id=self.planasonix_conn_id,
            context=context,
            log=self.log,
        )
