"""Settings in which Planasonix deployments differ."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SimulatorSettings(BaseModel):
    """How the deployment behaves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: The response to a second sync of a connection while the first is active: a 409 with or without the id of the
    #: active job, or 202. Backfills never conflict.
    conflict: Literal["named", "unnamed", "allowed"] = "named"
    #: Whether a repeated ``Idempotency-Key`` returns the job or backfill of the first request.
    honour_idempotency: bool = True
    #: Whether jobs and backfills are returned with their metadata. The API reference shows none.
    show_metadata: bool = True
    #: The response to a request for the results of an active job: a 409, or results without tables.
    results_policy: Literal["conflict", "partial"] = "conflict"
    #: ``shuffled`` swaps each two events for a subscription.
    webhook_delivery: Literal["once", "twice", "shuffled"] = "once"
    webhook_attempts: int = Field(5, ge=1, le=20)
    #: Divides the durations of all syncs and backfills that start from now on, and the pauses between deliveries.
    speed: float = Field(1.0, ge=0.001, le=1_000_000)
