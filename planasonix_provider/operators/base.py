"""What the operators that start Planasonix work have in common: their parameters, and how Airflow runs them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import BaseOperator, conf

from planasonix_provider import configuration, start_parameters, validators
from planasonix_provider.links.planasonix import PlanasonixJobLink
from planasonix_provider.validated import ValidatedParameters

# What talks to the API is imported where a task runs, and not here: a DAG file is parsed again and again, and
# pydantic's models and httpx cost more than all the rest of it.
if TYPE_CHECKING:
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

    from planasonix_provider.execution.start_task import StartTask
    from planasonix_provider.execution.summary import ExecutionSummary
    from planasonix_provider.hooks.planasonix import PlanasonixHook
    from planasonix_provider.waiting.attempt import Attempt
    from planasonix_provider.waiting.targets import Work


class PlanasonixStartOperator(ValidatedParameters, BaseOperator):
    """Base of the operators that start Planasonix work; a subclass says what it starts.

    :param connection_id: Planasonix's connection. (templated)
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
        (templated)
    :param priority: ``low``, ``normal`` or ``high``; default: the API's choice. (templated)
    :param metadata: what Planasonix's run history is to show and filter by, as a JSON object. The task's own
        ``dag_id``, ``task_id``, ``run_id``, ``try_number`` and ``map_index`` are sent with it; a key of yours wins over
        one of these. (templated)
    :param wait_for_completion: whether to wait until the work is over; default yes. If not, the task succeeds once the
        work is started.
    :param deferrable: whether to wait in the triggerer, which takes no worker slot; default: Airflow's setting
        ``[operators] default_deferrable``.
    :param poll_interval: the seconds between two polls, at least 0.5; default: Airflow's setting
        ``[planasonix] poll_interval``, which is 10. (templated)
    :param timeout: for how long to wait, in seconds or as a ``timedelta``; default: as long as ``execution_timeout``
        allows, if that is set. (templated)
    :param on_conflict: what to do where Planasonix refuses the start since another sync of the connection runs (409):
        ``fail`` (default), ``attach`` (wait for that one, and never cancel it), ``wait`` (until it is over, then start)
        or ``skip`` the task. (templated)
    :param on_cancelled: what to do if a person cancels the job or the backfill in Planasonix: ``retry`` (default) lets
        Airflow's retries start it again, ``fail`` fails the task without a retry. After a kill or a timeout, when the
        task cancels its own work, a retry always starts it again. (templated)
    :param cancel_on_kill: whether to cancel the work when the task is killed, on a worker or deferred, or out of time;
        default yes.
    :param ignore_empty_tables: whether to send no asset event for a table that was loaded with no row; default no. For
        a table of Planasonix's among ``outlets``, an event is sent if the results name it, and through an
        ``AssetAlias`` for every table that they name.
    :raises ValueError: when the DAG is parsed, if a parameter without a template makes no sense.
    """

    #: What kind of work it is; the XCom with its id is named after it.
    starts: ClassVar[Literal["job", "backfill"]]
    checks: ClassVar[Mapping[str, validators.Check]] = {
        "connection_id": validators.identifier,
        "planasonix_conn_id": validators.text,
        **start_parameters.checks_of("sync", "backfill"),
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
        self._road: StartTask | None = None
        self._killed = False
        # What the road has found out, for whoever asks when the task is over.
        self._accounted: ExecutionSummary | None = None

    @abstractmethod
    def submit_job(self, hook: PlanasonixHook, attempt: Attempt) -> Work:
        """Start the work.

        :param hook: calls the API.
        :param attempt: the try that is running; its key goes with the start.
        :return: the job or backfill that was started.
        """

    @abstractmethod
    def load_parameters(self) -> dict[str, Any]:
        """Say what decides what is loaded; a retry with other parameters than the try before notices.

        :return: the parameters, in their final form.
        """

    def window(self) -> tuple[datetime, datetime] | None:
        """Say which window of time is loaded.

        :return: where it begins and ends, or ``None`` where there is none.
        """
        return None

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the work and, unless told otherwise, wait until it is over.

        :param context: the task's context, from Airflow.
        :return: an account of the work in JSON types; see :mod:`planasonix_provider.waiting.report`.
        :raises AirflowFailException: for what no retry can mend: bad parameters, a 400, a 403 or a 404, several pieces
            of work of which none says whether it is what a lost start has made.
        :raises AirflowSkipException: if another sync is in the way, and ``on_conflict`` is ``skip``.
        :raises PlanasonixError: of another kind, for what a retry can.
        """
        return self._new_execution(context).run()

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Go on when the trigger has handed back its event.

        :param context: the task's context, from Airflow.
        :param event: how the wait ended.
        :return: as :meth:`execute`.
        """
        return self._new_execution(context).resume(event)

    def execute_after_conflict(self, context: Context, event: Any) -> dict[str, Any]:
        """Start when what was in the way is over; a deferrable task whose ``on_conflict`` is ``wait`` goes on here.

        :param context: the task's context, from Airflow.
        :param event: how the wait for what was in the way ended.
        :return: as :meth:`execute`.
        """
        return self._new_execution(context).run_after_conflict(event)

    def on_kill(self) -> None:
        """Cancel the work, before anything else: there may be no more than a few seconds."""
        self._killed = True
        if self._road:
            self._road.kill.on_kill()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Tell Airflow's OpenLineage provider what was read and written.

        :param task_instance: the task's instance, from Airflow.
        :return: as :func:`planasonix_provider.lineage.lineage_of`.
        """
        from planasonix_provider.lineage import lineage_of

        return lineage_of(self._accounted, self.task_id)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Tell Airflow's OpenLineage provider of the work that failed, as far as it is known.

        :param task_instance: the task's instance, from Airflow.
        :return: as :func:`planasonix_provider.lineage.lineage_of`.
        """
        return self.get_openlineage_facets_on_complete(task_instance)

    def _new_execution(self, context: Context) -> StartTask:
        from planasonix_provider.execution.start_task import StartTask

        self.validate_rendered()
        self._road = StartTask(self, context)
        if self._killed:
            self._road.kill.on_kill()
        return self._road
