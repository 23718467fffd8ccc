"""A server with the routes of the three APIs that waits use. It counts requests and connections.

It favours none of them: each response takes the same time, idle connections stay open for more than a minute, and all
routes read the same list of jobs.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Self
from urllib.parse import parse_qsl

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

#: The seconds that each response is delayed.
LATENCY = 0.005
#: The seconds for which a connection may be idle; a common default of web servers.
KEEP_ALIVE = 75
KEY = "plnx_benchmark"
#: The number of a job that is over from the start.
WARM_UP = 0
STATES = ("queued", "running", "succeeded", "failed", "cancelled")
MOST_IN_A_PAGE = 100

Json = dict[str, Any]


@dataclass
class Jobs:
    """Jobs with numbers from 1. Each runs until its end.

    :param ends: the end of each job, by this machine's monotonic clock.
    :param created_at: when all jobs were created.
    """

    ends: Sequence[float] = ()
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def knows(self, number: int) -> bool:
        return 0 <= number <= len(self.ends)

    def is_over(self, number: int) -> bool:
        return number == WARM_UP or self.ends[number - 1] <= time.monotonic()


@dataclass
class Server:
    """The server. As a context manager, it runs in a thread inside the block."""

    jobs: Jobs = field(default_factory=Jobs)
    requests: int = 0
    sockets: int = 0

    def __enter__(self) -> Self:
        # asyncio switches Nagle's algorithm off only for sockets with the protocol IPPROTO_TCP.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        self.address = "{}:{}".format(*listener.getsockname())
        config = uvicorn.Config(
            self._answer,
            http=self._counting_protocol(),
            interface="asgi3",
            proxy_headers=False,
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE,
            backlog=4096,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()

    def begin(self, ends: Sequence[float]) -> None:
        """Replace the jobs, and reset the counters.

        :param ends: the end of each job, by this machine's monotonic clock.
        """
        self.jobs = Jobs(ends)
        self.requests = self.sockets = 0

    def _counting_protocol(self) -> type[asyncio.Protocol]:
        server = self

        class CountingProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
            def connection_made(self, transport: Any) -> None:
                server.sockets += 1
                super().connection_made(transport)

        return CountingProtocol

    async def _answer(
        self,
        scope: Json,
        receive: Callable[[], Awaitable[Json]],
        send: Callable[[Json], Awaitable[None]],
    ) -> None:
        self.requests += 1
        await asyncio.sleep(LATENCY)
        status, body = self._respond(
            scope["path"].strip("/").split("/"),
            dict(parse_qsl(scope["query_string"].decode())),
            dict(scope["headers"]).get(b"authorization", b"").decode(),
        )
        payload = json.dumps(body).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(payload))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": payload})

    def _respond(self, path: list[str], query: Mapping[str, str], authorization: str) -> tuple[int, Json]:
        match path:
            case ["api", "public", "v1", "applications", "token"]:
                return 200, {"access_token": KEY, "token_type": "Bearer", "expires_in": 900}
            case _ if KEY not in authorization:
                return 401, {"error": {"code": "unauthorized", "message": "The key is not valid."}}
            case ["api", "v1", "jobs"]:
                return planasonix_jobs(self.jobs, query)
            case ["api", "v1", "jobs", name] if self.jobs.knows(number := int(name.removeprefix("job_"))):
                return 200, {"data": planasonix_job(self.jobs, number)}
            case ["api", "v2", "accounts", _, "runs", name] if self.jobs.knows(number := int(name)):
                return 200, dbt_cloud_run(self.jobs, number)
            case ["api", "public", "v1", "jobs", name] if self.jobs.knows(number := int(name)):
                return 200, airbyte_job(self.jobs, number)
        return 404, {"error": {"code": "not_found", "message": "There is no such thing."}}


def allow_many_sockets() -> None:
    """Raise the limit of open sockets for this process and its children to the system's maximum."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def planasonix_jobs(jobs: Jobs, query: Mapping[str, str]) -> tuple[int, Json]:
    """Return a page of the list of jobs, newest first. The cursor is the last job of the previous page."""
    limit, status = int(query.get("limit", 50)), query.get("status")
    since = datetime.fromisoformat(query["since"]) if "since" in query else jobs.created_at
    if not 1 <= limit <= MOST_IN_A_PAGE or (status is not None and status not in STATES):
        return 400, {"error": {"code": "invalid_request", "message": "The limit or the status is not allowed."}}
    first = int(query.get("cursor", len(jobs.ends) + 1)) - 1
    numbers = range(first, 0, -1) if since <= jobs.created_at else range(0)
    listed = (number for number in numbers if status in (None, _planasonix_status(jobs, number)))
    page = list(islice(listed, limit))
    more = next(listed, None) is not None
    return 200, {
        "data": [_planasonix_row(jobs, number) for number in page],
        "meta": {"page": {"limit": limit, "cursor": str(page[-1]) if more else None}},
    }


def planasonix_job(jobs: Jobs, number: int) -> Json:
    """Return a job with all its details."""
    over = jobs.is_over(number)
    row = _planasonix_row(jobs, number)
    return {
        **row,
        "queued_at": row["created_at"],
        "finished_at": _stamp(datetime.now(UTC)) if over else None,
        "duration_seconds": 20 if over else None,
        "metrics": {"rows_extracted": 45210, "rows_loaded": 44802, "bytes_read": 67108864},
        "error": None,
    }


def _planasonix_row(jobs: Jobs, number: int) -> Json:
    created_at = _stamp(jobs.created_at)
    return {
        "id": f"job_{number:08}",
        "type": "connection_sync",
        "status": _planasonix_status(jobs, number),
        "connection_id": f"conn_{number:08}",
        "pipeline_id": "pl_benchmark",
        "created_at": created_at,
        "started_at": created_at,
    }


def _planasonix_status(jobs: Jobs, number: int) -> str:
    return "succeeded" if jobs.is_over(number) else "running"


def dbt_cloud_run(jobs: Jobs, number: int) -> Json:
    """Return a run with the fields that its trigger or a reader uses."""
    over = jobs.is_over(number)
    created_at = _stamp(jobs.created_at)
    return {
        "status": {"code": 200, "is_success": True, "user_message": "Success!", "developer_message": ""},
        "data": {
            "id": number,
            "trigger_id": number,
            "account_id": 1,
            "environment_id": 1,
            "project_id": 1,
            "job_definition_id": 1,
            "status": 10 if over else 3,
            "status_humanized": "Success" if over else "Running",
            "status_message": None,
            "dbt_version": "1.9.0",
            "git_branch": "main",
            "created_at": created_at,
            "started_at": created_at,
            "finished_at": _stamp(datetime.now(UTC)) if over else None,
            "in_progress": not over,
            "is_complete": over,
            "is_success": over,
            "is_error": False,
            "is_cancelled": False,
        },
    }


def airbyte_job(jobs: Jobs, number: int) -> Json:
    """Return a job with all the fields that the API documents."""
    created_at = _stamp(jobs.created_at)
    return {
        "jobId": number,
        "status": "succeeded" if jobs.is_over(number) else "running",
        "jobType": "sync",
        "startTime": created_at,
        "lastUpdatedAt": created_at,
        "connectionId": "9924bcd0-99be-453d-ba47-c2c9766f7da5",
        "duration": "PT20S",
        "bytesSynced": 67108864,
        "rowsSynced": 44802,
    }


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
