"""The commands of the control API and of the pages' forms."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from planasonix_provider.api.models import Job
from planasonix_provider.simulator.api.pipeline import RequestPipeline
from planasonix_provider.simulator.model.api_keys import SCOPES, ApiKey
from planasonix_provider.simulator.model.plans import BackfillPlan, Plan, Times
from planasonix_provider.simulator.model.settings import SimulatorSettings


class _Command(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PlanCommand(Plan):
    """Plan the next syncs of a connection."""

    connection_id: str
    times: Times = 1

    def execute(self, pipeline: RequestPipeline) -> Plan:
        changes = _set_fields(self, "connection_id", "times")
        return pipeline.workspace.plan(self.connection_id, times=self.times, **changes)


class PlanBackfillCommand(BackfillPlan):
    """Plan the next backfills of a connection."""

    connection_id: str
    times: Times = 1

    def execute(self, pipeline: RequestPipeline) -> BackfillPlan:
        changes = _set_fields(self, "connection_id", "times")
        return pipeline.workspace.plan_backfill(self.connection_id, times=self.times, **changes)


class FailJobCommand(_Command):
    """Make a job fail."""

    code: str | None = None
    message: str | None = None

    def execute(self, pipeline: RequestPipeline, job_id: str) -> Job:
        return pipeline.workspace.fail_job(job_id, code=self.code, message=self.message)


class SlowJobCommand(_Command):
    """Make a job run longer."""

    seconds: float

    def execute(self, pipeline: RequestPipeline, job_id: str) -> Job:
        return pipeline.workspace.slow_job(job_id, self.seconds)


class AddKeyCommand(_Command):
    """Create an API key."""

    key: str | None = None
    scopes: list[str] = sorted(SCOPES)

    def execute(self, pipeline: RequestPipeline) -> ApiKey:
        return pipeline.workspace.keys.add(self.key, self.scopes)


class AddConnectionCommand(_Command):
    """Create a connection."""

    connection_id: str

    def execute(self, pipeline: RequestPipeline) -> tuple[str, ...]:
        pipeline.workspace.add_connection(self.connection_id)
        return pipeline.workspace.connections


class ConfigureCommand(SimulatorSettings):
    """Change some settings."""

    rate_limit: Annotated[int, Field(ge=1)] | None = None

    def execute(self, pipeline: RequestPipeline) -> dict[str, Any]:
        pipeline.workspace.configure(**_set_fields(self, "rate_limit"))
        if self.rate_limit is not None:
            pipeline.rate_limit.configure(self.rate_limit)
        return settings_of(pipeline)


def settings_of(pipeline: RequestPipeline) -> dict[str, Any]:
    """Return the settings of the workspace and the rate limit."""
    return {**pipeline.workspace.settings.model_dump(), "rate_limit": pipeline.rate_limit.per_minute}


def _set_fields(command: BaseModel, *excluded: str) -> dict[str, Any]:
    return command.model_dump(exclude_unset=True, exclude=set(excluded))
