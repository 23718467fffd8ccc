"""Operators that start Planasonix work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from planasonix_provider import parameters
from planasonix_provider.operators.base import PlanasonixStartOperator

if TYPE_CHECKING:
    from planasonix_provider.api.models import Job, Priority
    from planasonix_provider.hooks.planasonix import PlanasonixHook
    from planasonix_provider.waiting.attempt import Attempt


class PlanasonixSyncOperator(PlanasonixStartOperator):
    """Starts an incremental sync of a connection, waits for it, and accounts for it.

    Reference: "Trigger a sync job". The XComs ``job_id`` and ``job_url`` are there the moment that the job is; the
    return value is a plain dict with the job, its times and metrics, the tables that it loaded, and its warnings.

    .. code-block:: python

        load_orders = PlanasonixSyncOperator(
            task_id="load_orders",
            connection_id="conn_01jq8k2m3n4p5q6r7s8t9u0v1",
            deferrable=True,
        )

    :param pipeline_id: the pipeline to run; default: the connection's own. (templated)

    All other parameters are those of :class:`~planasonix_provider.operators.base.PlanasonixStartOperator`.
    """

    # Its own apart from its base's, for the base checks those before this class has set its own.
    own_checks: ClassVar[Mapping[str, parameters.Check]] = {"pipeline_id": parameters.optional(parameters.text)}
    checks: ClassVar[Mapping[str, parameters.Check]] = {**PlanasonixStartOperator.checks, **own_checks}
    template_fields: Sequence[str] = (*PlanasonixStartOperator.template_fields, "pipeline_id")

    def __init__(self, *, pipeline_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline_id = pipeline_id
        self.check(self.own_checks)

    def start(self, hook: PlanasonixHook, attempt: Attempt) -> Job:
        """Start the sync.

        :param hook: calls the API.
        :param attempt: the try that is running.
        :return: the job.
        """
        return hook.trigger_sync(
            self.connection_id,
            pipeline_id=self.pipeline_id,
            priority=cast("Priority | None", self.priority),
            metadata={**attempt.metadata, **(self.metadata or {})},
            idempotency_key=attempt.idempotency_key,
        )
