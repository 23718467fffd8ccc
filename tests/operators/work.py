"""The work that these tests run, and what the simulator was asked for it."""

from __future__ import annotations

from typing import Any

from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator, PlanasonixSyncOperator
from planasonix_provider.simulator import Simulator

CONNECTION = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"


def sync(**parameters: Any) -> PlanasonixSyncOperator:
    return PlanasonixSyncOperator(
        **{"task_id": "load", "connection_id": CONNECTION, "poll_interval": 0.03, **parameters}
    )


def backfill(**parameters: Any) -> PlanasonixBackfillOperator:
    return PlanasonixBackfillOperator(
        **{
            "task_id": "replay",
            "connection_id": CONNECTION,
            "start_at": "2025-01-01T00:00:00Z",
            "end_at": "2025-03-01T00:00:00Z",
            "poll_interval": 0.03,
            **parameters,
        }
    )


def routes_asked(planasonix: Simulator) -> list[str]:
    return [request.route for request in planasonix.requests]
