"""What the sensors have in common: how Airflow runs them, in its three modes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue, conf

from planasonix_provider import validators
from planasonix_provider.links.planasonix import PlanasonixJobLink
from planasonix_provider.validated import ValidatedParameters

# What talks to the API is imported where a task runs, and not here, as in the operators.
if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.execution.sensor_task import SensorTask
    from planasonix_provider.triggers.base import PlanasonixWaitTrigger
    from planasonix_provider.waiting.targets import WaitTarget


class PlanasonixSensor(ValidatedParameters, BaseSensorOperator):
    """Base of the sensors; a subclass says what it waits for.

    A sensor has started nothing, and cancels nothing. ``mode`` (``poke`` or ``reschedule``), ``poke_interval`` (seconds
    or a ``timedelta``, at least 0.5 s, default 60 s), ``timeout`` (default: Airflow's setting), ``soft_fail``,
    ``silent_fail`` and ``never_fail`` are Airflow's own, and mean the same in both modes and deferred;
    ``exponential_backoff`` and ``max_wait`` are for the two modes only.

    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
        (templated)
    :param deferrable: whether to wait in the triggerer, which takes no worker slot; default: Airflow's setting
        ``[operators] default_deferrable``.
    :raises ValueError: when the DAG is parsed, if a parameter without a template makes no sense.
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
        self._lookout: SensorTask | None = None

    #: The states that end the wait well, as far as they depend on the task.
    allowed_states: Collection[str]

    @abstractmethod
    def subject(self) -> WaitTarget:
        """Say what to wait for; the parameters are in their final form."""

    @abstractmethod
    def trigger(self, **how: Any) -> PlanasonixWaitTrigger:
        """Make the trigger that waits for the same.

        :param how: what all triggers take.
        :return: the trigger.
        """

    def execute(self, context: Context) -> Any:
        """Wait, in the way that the task is told to.

        :param context: the task's context, from Airflow.
        :return: an account of what was waited for, in JSON types.
        :raises AirflowFailException: for what no retry can mend: bad parameters, a 400, a 403 or a 404, and work that
            has ended otherwise than wanted.
        :raises AirflowSensorTimeout: if the time is up.
        :raises AirflowSkipException: instead, where ``soft_fail`` or ``never_fail`` says so.
        """
        with self._look_out(context) as lookout:
            if not self.deferrable:
                # Airflow's guard against a task that executes another one would take this for such a one.
                poke_until_done = BaseSensorOperator.execute
                return getattr(poke_until_done, "__wrapped__", poke_until_done)(self, context)
            if (found := lookout.poke()) is None:
                lookout.defer()
            return found

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Look once.

        :param context: the task's context, from Airflow.
        :return: whether the wait is over, with the account for the XCom.
        """
        if self._lookout:
            found = self._lookout.poke()
        else:
            with self._look_out(context) as lookout:
                found = lookout.poke()
        return False if found is None else PokeReturnValue(is_done=True, xcom_value=found)

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Go on when the trigger has handed back its event.

        :param context: the task's context, from Airflow.
        :param event: how the wait ended.
        :return: as :meth:`execute`.
        """
        with self._look_out(context) as lookout:
            return lookout.resume(event)

    def _get_next_poke_interval(self, *arguments: Any, **more: Any) -> float:
        """Let a rescheduled sensor rest for as long as Airflow may take to notice that its process has ended.

        :param arguments: as Airflow gives them.
        :param more: as Airflow gives them.
        :return: the seconds until the next look.
        """
        interval: float = super()._get_next_poke_interval(*arguments, **more)
        if not self.reschedule:
            return interval
        from planasonix_provider.triggers.deferral import DEFER_SETTLE_TIME

        return max(interval, DEFER_SETTLE_TIME.total_seconds())

    def _look_out(self, context: Context) -> SensorTask:
        from planasonix_provider.execution.sensor_task import SensorTask

        self.validate_rendered()
        return SensorTask(self, context)
