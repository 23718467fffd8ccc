"""The control API below ``/_simulator``, which needs no key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic_core import to_json

from planasonix_provider.simulator.api.faults import Fault
from planasonix_provider.simulator.api.middleware import PathId
from planasonix_provider.simulator.api.pipeline import AppPipeline
from planasonix_provider.simulator.api.responses import invalid_value, read_body
from planasonix_provider.simulator.control.control_commands import (
    AddConnectionCommand,
    AddKeyCommand,
    ConfigureCommand,
    FailJobCommand,
    PlanBackfillCommand,
    PlanCommand,
    SlowJobCommand,
    settings_of,
)
from planasonix_provider.simulator.control.csrf import forbid_cross_site_requests

router = APIRouter(prefix="/_simulator", redirect_slashes=False, dependencies=[Depends(forbid_cross_site_requests)])


@router.get("/state")
async def state(pipeline: AppPipeline) -> Response:
    """Return all state except keys and secrets."""
    workspace = pipeline.workspace
    return _data_response(
        jobs=workspace.jobs(),
        backfills=workspace.backfills(),
        webhooks=workspace.webhooks.all(),
        deliveries=workspace.webhooks.outbox.all(),
        connections=workspace.connections,
        counts=pipeline.log.counts(),
        requests=pipeline.log.requests(),
        faults=pipeline.faults.pending(),
        settings=settings_of(pipeline),
    )


@router.post("/faults")
async def add_fault(request: Request, pipeline: AppPipeline) -> Response:
    pipeline.faults.add(await read_body(request, Fault))
    return _data_response(faults=pipeline.faults.pending())


@router.delete("/faults")
async def clear_faults(pipeline: AppPipeline) -> Response:
    pipeline.faults.clear()
    return _data_response(faults=[])


@router.post("/plans")
async def plan(request: Request, pipeline: AppPipeline) -> Response:
    command = await read_body(request, PlanCommand)
    plan = command.execute(pipeline)
    return _data_response(connection_id=command.connection_id, times=command.times, plan=plan)


@router.post("/backfill_plans")
async def plan_backfill(request: Request, pipeline: AppPipeline) -> Response:
    command = await read_body(request, PlanBackfillCommand)
    plan = command.execute(pipeline)
    return _data_response(connection_id=command.connection_id, times=command.times, plan=plan)


@router.post("/jobs/{job_id}/fail")
async def fail_job(job_id: PathId, request: Request, pipeline: AppPipeline) -> Response:
    command = await read_body(request, FailJobCommand)
    return _data_response(job=command.execute(pipeline, job_id))


@router.post("/jobs/{job_id}/slow")
async def slow_job(job_id: PathId, request: Request, pipeline: AppPipeline) -> Response:
    command = await read_body(request, SlowJobCommand)
    with _value_errors_as_api_errors():
        return _data_response(job=command.execute(pipeline, job_id))


@router.post("/keys")
async def add_key(request: Request, pipeline: AppPipeline) -> Response:
    command = await read_body(request, AddKeyCommand)
    with _value_errors_as_api_errors():
        key = command.execute(pipeline)
    return _data_response(key=key.value, name=key.name, scopes=sorted(key.scopes))


@router.post("/keys/{key}/revoke")
async def revoke_key(key: PathId, pipeline: AppPipeline) -> Response:
    pipeline.workspace.keys.revoke(key)
    return _data_response(revoked=True)


@router.post("/connections")
async def add_connection(request: Request, pipeline: AppPipeline) -> Response:
    command = await read_body(request, AddConnectionCommand)
    with _value_errors_as_api_errors():
        return _data_response(connections=command.execute(pipeline))


@router.post("/settings")
async def configure(request: Request, pipeline: AppPipeline) -> Response:
    command = await read_body(request, ConfigureCommand)
    return _data_response(settings=command.execute(pipeline))


@router.post("/reset")
async def reset(pipeline: AppPipeline) -> Response:
    pipeline.reset()
    return _data_response(reset=True)


def _data_response(**data: Any) -> Response:
    return Response(to_json({"data": data}), media_type="application/json")


@contextmanager
def _value_errors_as_api_errors() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise invalid_value(error) from None
