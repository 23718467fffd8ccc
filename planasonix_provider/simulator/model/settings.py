"""What differs from one Planasonix deployment to the next."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SimulatorSettings(BaseModel):
    """How a deployment behaves.

    :param conflict: what a second sync of a connection meets while the first is active: ``named`` is a 409 with the id
        of the job in the way, ``unnamed`` a 409 without, ``allowed`` runs both. Backfills are in nobody's way.
    :param honour_idempotency: whether a repeated ``Idempotency-Key`` gives the job or backfill that it gave first.
    :param show_metadata: whether the details of a job or backfill hold the metadata that its start was sent with. The
        API's reference shows none, so a deployment may or may not.
    :param results_policy: what asking for results before the end gives: ``conflict`` is a 409, ``partial`` a stub.
    :param webhook_delivery: how often and in which order events are delivered: each ``once``, each ``twice``, or
        ``shuffled``, where of each two events for a subscription the second comes first.
    :param webhook_attempts: how often a delivery is tried before it is given up.
    :param speed: by which factor all runs faster than planned; holds for what starts from then on, and for the
        pauses before a delivery is tried again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    conflict: Literal["named", "unnamed", "allowed"] = "named"
    honour_idempotency: bool = True
    show_metadata: bool = True
    results_policy: Literal["conflict", "partial"] = "conflict"
    webhook_delivery: Literal["once", "twice", "shuffled"] = "once"
    webhook_attempts: int = Field(5, ge=1, le=20)
    speed: float = Field(1.0, ge=0.001, le=1_000_000)
