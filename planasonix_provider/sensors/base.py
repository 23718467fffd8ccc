"""The base of the sensors: how Airflow runs them in its three modes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseSensorOperator, PokeReturnValue, conf

from planasonix_provider import validators
from planasonix_provider.execution.short_traceback import with_short_traceback
from planasonix_provider.links.planasonix import PlanasonixJobLink
from planasonix_provider.validated import ValidatedParameters

# Modules that talk to the API are imported when a task runs, as in the operators.
if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.execution.sensor_task import SensorTask
    from planasonix_provider.waiting.targets import WaitTarget


class PlanasonixSensor(ValidatedParameters, BaseSensorOperator):
    """Base of the sensors; a subclass defines what it waits for.

    A sensor has started nothing, and cancels nothing. ``mode`` (``poke`` or ``reschedule``), ``poke_interval`` (seconds
    or a ``timedelta``, at least 0.5 s, default 60 s), ``timeout`` (default: Airflow's setting), ``soft_fail``,
    ``silent_fail`` and ``never_fail`` are Airflow's own, and mean the same in both modes and deferred;
    ``exponential_backoff`` and ``max_wait`` are for the two modes only.

    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
        (templated)
    :param deferrable: whether to wait in the triggerer, which takes no worker slot; default: Airflow's setting
        ``[operators] default_deferrable``.
    :raises ValueError: when the DAG is parsed, if a parameter without a template is invalid.
    """

    checks: ClassVar[Mapping[str, validators.Check]] = {"planasonix_conn_id": validators.text}
    flags = ("deferrable",)
    template_fields: Sequence[str] = ("planasonix_conn_id",)
    operator_extra_links = (PlanasonixJobLink(),)
    ui_color = "#e6f0ff"

    def __init__(
        self,
        *,
        planasonix_conn_id: str = "planasonix_default",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.planasonix_conn_id = planasonix_conn_id
        self.deferrable = deferrable
        validators.poll_interval("poke_interval", self.poke_interval)
        if self.timeout:
            validators.seconds("timeout", self.timeout)
        self._execution: SensorTask | None = None

    #: The states with which the task succeeds.
    allowed_states: Collection[str]

    @abstractmethod
    def target(self) -> WaitTarget:
        """Return what to wait for; the parameters are rendered and validated."""

    @with_short_traceback
    def execute(self, context: Context) -> Any:
        """Wait in the sensor's mode.

        :param context: the task's context, from Airflow.
        :return: the job or backfill, in JSON types.
        :raises AirflowFailException: for errors that no retry can mend: invalid parameters, a 400, a 403 or a 404, and
            work that has ended in none of the allowed states.
        :raises AirflowSensorTimeout: at the timeout.
        :raises AirflowSkipException: instead, if ``soft_fail`` or ``never_fail`` says so.
        """
        with self._new_execution(context) as execution:
            if not self.deferrable:
                # Call the undecorated method: Airflow's guard against nested ``execute`` calls would reject this one.
                poke_until_done = BaseSensorOperator.execute
                return getattr(poke_until_done, "__wrapped__", poke_until_done)(self, context)
            return execution.poke_or_defer()

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Poll once.

        :param context: the task's context, from Airflow.
        :return: whether the wait is over, with the result for the XCom.
        """
        if self._execution:
            result = self._execution.poke()
        else:
            with self._new_execution(context) as execution:
                result = execution.poke()
        return False if result is None else PokeReturnValue(is_done=True, xcom_value=result)

    @with_short_traceback
    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Return the result after the trigger has sent its event.

        :param context: the task's context, from Airflow.
        :param event: the trigger's event.
        :return: as :meth:`execute`.
        """
        with self._new_execution(context) as execution:
            try:
                return execution.resume(event)
            except AirflowSkipException:
                # With these flags, Airflow would replace the message with its own.
                self.soft_fail = self.never_fail = False
                raise

    def _get_next_poke_interval(self, *args: Any, **kwargs: Any) -> float:
        """Return a time in which Airflow surely notices that the process of a rescheduled sensor has ended."""
        interval: float = super()._get_next_poke_interval(*args, **kwargs)
        if not self.reschedule:
            return interval
        from planasonix_provider.triggers.deferral import DEFER_SETTLE_TIME

        return max(interval, DEFER_SETTLE_TIME.total_seconds())

    @contextmanager
    def _new_execution(self, context: Context) -> Iterator[SensorTask]:
        from planasonix_provider.execution.options import SensorOptions, read_options
        from planasonix_provider.execution.sensor_task import SensorTask

        self.validate_rendered()
        with SensorTask(read_options(SensorOptions, self), self, self.target(), context) as self._execution:
            try:
                yield self._execution
            finally:
                self._execution = None
