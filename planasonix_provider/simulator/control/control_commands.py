"""What whoever steers the simulator can order, and how it is carried out: over HTTP, or by a form of a page."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from planasonix_provider.api.models import Job
from planasonix_provider.simulator.api.pipeline import RequestPipeline
from planasonix_provider.simulator.model.api_keys import SCOPES, ApiKey
from planasonix_provider.simulator.model.backfill_plans import BackfillPlan
from planasonix_provider.simulator.model.plans import Times
from planasonix_provider.simulator.model.settings import SimulatorSettings
from planasonix_provider.simulator.model.simulated_jobs import Plan


class _Command(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PlanCommand(Plan):
    """What the next jobs of a connection do."""

    connection_id: str
    times: Times = 1

    def execute(self, gate: RequestPipeline) -> Plan:
        """Plan it.

        :param gate: what is steered.
        :return: the plan.
        :raises Refused: as ``not_found``, if there is no such connection.
        """
        return gate.workspace.plan(self.connection_id, times=self.times, **_changes(self, "connection_id", "times"))


class PlanBackfillCommand(BackfillPlan):
    """What the next backfills of a connection do."""

    connection_id: str
    times: Times = 1

    def execute(self, gate: RequestPipeline) -> BackfillPlan:
        """Plan it.

        :param gate: what is steered.
        :return: the plan.
        :raises Refused: as ``not_found``, if there is no such connection.
        """
        changes = _changes(self, "connection_id", "times")
        return gate.workspace.plan_backfill(self.connection_id, times=self.times, **changes)


class FailJobCommand(_Command):
    """How a job is to fail."""

    code: str | None = None
    message: str | None = None

    def execute(self, gate: RequestPipeline, job_id: str) -> Job:
        """Make it fail.

        :param gate: what is steered.
        :param job_id: the job's id.
        :return: the job as it is then.
        :raises Refused: as ``not_found`` or ``job_not_active``.
        """
        return gate.workspace.fail_job(job_id, code=self.code, message=self.message)


class SlowJobCommand(_Command):
    """How much longer a job is to take."""

    seconds: float

    def execute(self, gate: RequestPipeline, job_id: str) -> Job:
        """Let it take longer.

        :param gate: what is steered.
        :param job_id: the job's id.
        :return: the job as it is then.
        :raises ValueError: if the number is not allowed.
        :raises Refused: as ``not_found`` or ``job_not_active``.
        """
        return gate.workspace.slow_job(job_id, self.seconds)


class AddKeyCommand(_Command):
    """A key to create."""

    key: str | None = None
    scopes: list[str] = sorted(SCOPES)

    def execute(self, gate: RequestPipeline) -> ApiKey:
        """Create it.

        :param gate: what is steered.
        :return: the key.
        :raises ValueError: if the key or a scope is not allowed.
        """
        return gate.workspace.keys.add(self.key, self.scopes)


class AddConnectionCommand(_Command):
    """A connection to create."""

    connection_id: str

    def execute(self, gate: RequestPipeline) -> tuple[str, ...]:
        """Create it.

        :param gate: what is steered.
        :return: the connections that exist then.
        :raises ValueError: if the id is empty.
        """
        gate.workspace.add_connection(self.connection_id)
        return gate.workspace.connections


class ConfigureCommand(SimulatorSettings):
    """Settings to change; those that are not named stay as they are."""

    rate_limit: Annotated[int, Field(ge=1)] | None = None

    def execute(self, gate: RequestPipeline) -> dict[str, Any]:
        """Change them.

        :param gate: what is steered.
        :return: all settings that hold from now on.
        """
        gate.workspace.configure(**_changes(self, "rate_limit"))
        if self.rate_limit is not None:
            gate.rate_limit.configure(self.rate_limit)
        return settings_of(gate)


def settings_of(gate: RequestPipeline) -> dict[str, Any]:
    """Tell how the deployment behaves, its rate limit included.

    :param gate: the way in to it.
    :return: all settings by their names.
    """
    return {**gate.workspace.settings.model_dump(), "rate_limit": gate.rate_limit.per_minute}


def _changes(order: BaseModel, *others: str) -> dict[str, Any]:
    """Take what was named, which may be less than there is."""
    return order.model_dump(exclude_unset=True, exclude=set(others))
