"""The base of the operators that start work in Planasonix."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import BaseOperator, conf

from planasonix_provider import configuration, start_parameters, validators
from planasonix_provider.execution.short_traceback import with_short_traceback
from planasonix_provider.links.planasonix import PlanasonixJobLink
from planasonix_provider.validated import ValidatedParameters

# DAG files are parsed again and again, and pydantic's models and httpx are slow to import. So everything that calls the
# API is imported when a task runs.
if TYPE_CHECKING:
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

    from planasonix_provider.execution.start_task import StartTask
    from planasonix_provider.hooks.planasonix import PlanasonixHook
    from planasonix_provider.waiting.attempt import Attempt
    from planasonix_provider.waiting.targets import Work


class PlanasonixStartOperator(ValidatedParameters, BaseOperator):
    """Base of the operators that start work in Planasonix.

    :param connection_id: Planasonix's connection. (templated)
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
        (templated)
    :param priority: ``low``, ``normal`` or ``high``; default: the API's choice. (templated)
    :param metadata: a JSON object that Planasonix's run history shows and filters by. The task's ``dag_id``,
        ``task_id``, ``run_id``, ``try_number`` and ``map_index`` are added, and since Airflow 3.1 the version of the
        DAG; your own keys take precedence. (templated)
    :param wait_for_completion: whether to wait until the work is over; default yes. If not, the task succeeds once the
        work is started.
    :param deferrable: whether to wait in the triggerer, which takes no worker slot; default: Airflow's setting
        ``[operators] default_deferrable``.
    :param poll_interval: the seconds between two polls, at least 0.5; default: Airflow's setting
        ``[planasonix] poll_interval``, which is 10. (templated)
    :param timeout: how long to wait, in seconds or as a ``timedelta``; default: as long as ``execution_timeout``
        allows, if that is set. (templated)
    :param on_conflict: what to do if Planasonix refuses the start because the connection is already syncing (409):
        ``fail`` (default), ``attach`` to the running sync and never cancel it, ``wait`` until it is over and then
        start, or ``skip`` the task. (templated)
    :param on_cancelled: what to do if a person cancels the job or the backfill in Planasonix: ``retry`` (default) lets
        Airflow's retries start it again, ``fail`` fails the task without a retry. After a kill or a timeout, when the
        task cancels its own work, a retry always starts it again. (templated)
    :param cancel_on_kill: whether to cancel the work when the task is killed, on a worker or deferred, or reaches its
        timeout; default yes.
    :param ignore_empty_tables: whether to send no asset event for a table that got no rows; default no. A table among
        ``outlets`` gets an event if the results name it; through an ``AssetAlias``, every table that they name does.
    :raises ValueError: when the DAG is parsed, if a parameter without a template is invalid.
    """

    #: The kind of work; the XCom with its id is named after it.
    kind: ClassVar[Literal["job", "backfill"]]
    checks: ClassVar[Mapping[str, validators.Check]] = {
        "connection_id": validators.identifier,
        "planasonix_conn_id": validators.text,
        **start_parameters.common_checks(),
        "poll_interval": validators.poll_interval,
        "on_conflict": validators.one_of("fail", "attach", "wait", "skip"),
        "on_cancelled": validators.one_of("retry", "fail"),
        "timeout": validators.optional(validators.seconds),
    }

    flags = ("wait_for_completion", "deferrable", "cancel_on_kill", "ignore_empty_tables")
    template_fields: Sequence[str] = tuple(checks)
    template_fields_renderers: ClassVar[dict[str, str]] = {"metadata": "json"}
    operator_extra_links = (PlanasonixJobLink(),)
    ui_color = "#e6f0ff"

    def __init__(
        self,
        *,
        connection_id: str,
        planasonix_conn_id: str = "planasonix_default",
        priority: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | str = configuration.poll_interval(),
        timeout: float | timedelta | str | None = None,
        on_conflict: str = "fail",
        on_cancelled: str = "retry",
        cancel_on_kill: bool = configuration.cancel_on_kill(),
        ignore_empty_tables: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.connection_id = connection_id
        self.planasonix_conn_id = planasonix_conn_id
        self.priority = priority
        self.metadata = metadata
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.on_conflict = on_conflict
        self.on_cancelled = on_cancelled
        self.cancel_on_kill = cancel_on_kill
        self.ignore_empty_tables = ignore_empty_tables
        self._execution: StartTask | None = None
        self._is_killed = False

    @abstractmethod
    def submit_job(self, hook: PlanasonixHook, attempt: Attempt) -> Work:
        """Send the start request.

        :param hook: the open hook.
        :param attempt: the try that starts; it has the idempotency key.
        :return: the job or backfill that was started.
        """

    @abstractmethod
    def load_parameters(self) -> dict[str, Any]:
        """Return the rendered parameters that decide which data is loaded.

        A retry that continues work with other values logs a warning.
        """

    def _metadata(self, attempt: Attempt) -> dict[str, Any]:
        return {**attempt.metadata, **(self.metadata or {}), **attempt.key_metadata}

    def window(self) -> tuple[datetime, datetime] | None:
        """Return the start and end of a backfill, or ``None``."""
        return None

    def partition_keys(self) -> tuple[str, ...]:
        """Return the keys of the partitions that are loaded; asset events are sent once for each."""
        return ()

    @with_short_traceback
    def execute(self, context: Context) -> dict[str, Any]:
        """Start the work and wait until it is over, unless ``wait_for_completion`` is false.

        :param context: the task's context, from Airflow.
        :return: the result in JSON types; see :mod:`planasonix_provider.waiting.report`.
        :raises AirflowFailException: for errors that no retry can mend: invalid parameters, a 400, a 403 or a 404, and
            a lost start of which several jobs may be the result.
        :raises AirflowSkipException: if other work is in the way, and ``on_conflict`` is ``skip``.
        :raises PlanasonixError: for all other errors.
        """
        return self._new_execution(context).run()

    @with_short_traceback
    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Return the result after the trigger has sent its event.

        :param context: the task's context, from Airflow.
        :param event: the trigger's event.
        :return: as :meth:`execute`.
        """
        return self._new_execution(context).resume(event)

    @with_short_traceback
    def execute_after_conflict(self, context: Context, event: Any) -> dict[str, Any]:
        """Start the work when the conflicting work is over: with ``deferrable`` and ``on_conflict="wait"``.

        :param context: the task's context, from Airflow.
        :param event: the event of the trigger that has waited for the conflicting work.
        :return: as :meth:`execute`.
        """
        return self._new_execution(context).run_after_conflict(event)

    def on_kill(self) -> None:
        """Cancel the work, before anything else: there may be no more than a few seconds."""
        self._is_killed = True
        if self._execution:
            self._execution.on_kill()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return what was read and written, for Airflow's OpenLineage provider.

        :param task_instance: the task instance, from Airflow.
        :return: as :func:`planasonix_provider.lineage.lineage_of`.
        """
        from planasonix_provider.lineage import lineage_of

        return lineage_of(self._execution.summary if self._execution else None, self.task_id)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return what is known of the work that failed, for Airflow's OpenLineage provider.

        :param task_instance: the task instance, from Airflow.
        :return: as :func:`planasonix_provider.lineage.lineage_of`.
        """
        return self.get_openlineage_facets_on_complete(task_instance)

    def _new_execution(self, context: Context) -> StartTask:
        from planasonix_provider.execution.options import StartOptions, read_options
        from planasonix_provider.execution.start_task import StartTask

        self.validate_rendered()
        options = read_options(
            StartOptions,
            self,
            load_parameters=self.load_parameters(),
            window=self.window(),
            partition_keys=self.partition_keys(),
        )
        self._execution = StartTask(options, self, self.submit_job, context)
        if self._is_killed:
            self._execution.on_kill()
        return self._execution
