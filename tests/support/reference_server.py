"""A test double of the Planasonix Orchestration API, written from the published reference alone.

The project also ships a simulator. That one is built from the project's own models, so a field the
project has misread is misread on both sides and no test notices. This double exists to be the second
opinion: it shares no code with the client or with the simulator, imports nothing but the standard library
(and `cryptography`, only when TLS is asked for), spells every JSON body out as the reference's examples
do, and talks to real sockets, so that it can also break them the way a network does. Keep it that way:
when it and the client disagree, read the reference, and do not make one imitate the other.

Where the reference leaves a choice open, the choice is a parameter of `ReferenceServer`, or it is the
reading that is hardest on the client: bounds of `since` and `until` compare with `created_at` as shown
(whole seconds), a timestamp without an offset is refused, and so is a field of a request body that the
reference does not have, or a parameter or a state that it does not have for the list of backfills. What a
backfill says of itself is as little as the reference allows: see `ReferenceServer`.

Use it in a test:

    with ReferenceServer(api_key="plnx_test", running_seconds=0.5, read_faults=fourteen_faults()) as server:
        client = make_client(server.url, "plnx_test")

or from a shell, for tests of a whole Airflow:

    python tests/support/reference_server.py --port 8099 --faults 7 --ledger ledger.jsonl

Faults are tuples, consumed in order: one per GET below /api/v1 (`read_faults`), one per POST of a sync
or of a backfill (`start_faults`). Other requests meet none.

    ("status", 429, {"Retry-After": "1"})  an error envelope with that status and those headers
    ("reset",)                             a TCP RST before any byte of an answer
    ("cut",)                               the true answer: its whole Content-Length, half its body
    ("html", 502)                          a proxy's page
    ("empty",), ("empty", 502)             an answer without a body (200 if not said)
    ("ok",)                                no fault: the request of that turn is answered

A fault comes before any effect, so that a start that met it made nothing. Two things change that: "cut",
which sends half of the true answer and so must have one, and `after_effect(fault)`, which lets the
request do its work and then hides the answer (`start_faults_after_effect=True` does so for all starts).
"""

from __future__ import annotations

import argparse
import base64
import binascii
import copy
import hmac
import json
import os
import random
import signal
import socket
import socketserver
import ssl
import struct
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

Json = dict[str, Any]
FaultItem = tuple[Any, ...]

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
BACKFILL_TERMINAL = frozenset({"completed", "failed", "cancelled"})
BACKFILL_STATES = BACKFILL_TERMINAL | {"queued", "running"}
ROWS = 44802
SYNC_FIELDS: dict[str, type] = {"pipeline_id": str, "priority": str, "metadata": dict}
BACKFILL_FIELDS: dict[str, type] = {
    "start_at": str,
    "end_at": str,
    "tables": list,
    "priority": str,
    "metadata": dict,
}
HTML_PAGE = b"<!DOCTYPE html>\n<html><head><title>Bad gateway</title></head><body>Please try again.</body></html>\n"
ERROR_CODES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    429: "rate_limited",
    503: "service_unavailable",
}


# --- Faults -------------------------------------------------------------------------------------------


def fourteen_faults(seed: int = 0) -> list[FaultItem]:
    """Three 429 with Retry-After, three resets, two cut bodies, three HTML pages, three 500, shuffled."""
    faults: list[FaultItem] = [
        *[("status", 429, {"Retry-After": "1"}) for _ in range(3)],
        *[("reset",) for _ in range(3)],
        *[("cut",) for _ in range(2)],
        ("html", 200),
        ("html", 502),
        ("html", 502),
        *[("status", 500, {}) for _ in range(3)],
    ]
    random.Random(seed).shuffle(faults)
    return faults


def after_effect(fault: FaultItem) -> FaultItem:
    """The same fault, met once the request has done its work: the effect is real, its answer is lost."""
    return ("after", *fault)


@dataclass(frozen=True)
class _Fault:
    kind: str
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    after: bool = False

    @property
    def outcome(self) -> int | str:
        """What the list of requests says of it: the status that was sent, or the fault's name."""
        return self.status if self.kind == "status" else self.kind


def _parse_fault(item: FaultItem, *, after: bool = False) -> _Fault:
    match item:
        case ("after", *rest) if rest:
            return _parse_fault(tuple(rest), after=True)
        case ("status", int(status)):
            return _Fault("status", status, (), after)
        case ("status", int(status), dict(headers)):
            return _Fault("status", status, tuple((str(k), str(v)) for k, v in headers.items()), after)
        case ("html" | "empty" as kind, int(status)):
            return _Fault(kind, status, (), after)
        case ("empty",):
            return _Fault("empty", 200, (), after)
        case ("cut" | "ok" as kind,):
            return _Fault(kind, after=True)
        case ("reset",):
            return _Fault("reset", after=after)
    raise ValueError(f"not a fault: {item!r}")


# --- What goes in and out -----------------------------------------------------------------------------


class RequestRecord(NamedTuple):
    """A request that was served. Header names are in lower case; the value of Authorization is removed.

    `socket` is the caller's address: two requests that came over the same connection have the same.
    """

    method: str
    path: str
    headers: dict[str, str]
    outcome: int | str
    socket: str = ""


@dataclass(frozen=True)
class _Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None
    socket: str = ""

    @property
    def segments(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.target).path.split("/")[1:]]

    @property
    def query(self) -> dict[str, str]:
        fields = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        return {name: values[-1] for name, values in fields.items()}

    @property
    def is_read(self) -> bool:
        return self.method == "GET" and self.segments[:2] == ["api", "v1"]

    @property
    def is_start(self) -> bool:
        match self.method, self.segments:
            case "POST", ["api", "v1", "connections", _, "sync" | "backfill"]:
                return True
        return False


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes = b""
    content_type: str | None = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    manner: str = "whole"


class _ApiError(Exception):
    def __init__(self, status: int, message: str, *, details: Sequence[Json] = (), **extra: Any) -> None:
        super().__init__(message)
        self.status = status
        self.error: Json = {"code": ERROR_CODES.get(status, "internal_error"), "message": message}
        if details:
            self.error["details"] = list(details)
        self.error.update(extra)


def _answer_json(status: int, payload: Json) -> _Answer:
    return _Answer(status, json.dumps(payload).encode())


def _invalid(name: str, issue: str) -> _ApiError:
    return _ApiError(400, f"{name}: {issue}", details=[{"field": name, "issue": issue}])


def _answer_fault(fault: _Fault, answer: _Answer | None) -> _Answer:
    """The answer that a fault leaves; `answer` is the true one, where the request has done its work."""
    if fault.kind == "ok" and answer is not None:
        return answer
    if fault.kind == "cut" and answer is not None:
        return _Answer(answer.status, answer.body, answer.content_type, answer.headers, "cut")
    if fault.kind == "reset":
        return _Answer(0, manner="reset")
    if fault.kind == "html":
        return _Answer(fault.status, HTML_PAGE, "text/html; charset=utf-8")
    if fault.kind == "empty" or fault.status in {204, 304}:
        return _Answer(fault.status, b"", None, fault.headers)
    error = _ApiError(fault.status, "This answer was planned by the test.").error
    return _Answer(fault.status, json.dumps({"error": error}).encode(), headers=fault.headers)


# --- Jobs ---------------------------------------------------------------------------------------------


def _now() -> datetime:
    return datetime.now(UTC)


def _stamp(moment: datetime | None) -> str | None:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


@dataclass
class _Job:
    id: str
    connection_id: str
    pipeline_id: str | None
    sent: Json
    created: datetime
    clock: float
    type: str = "connection_sync"
    tables: tuple[str, ...] = ("public.orders",)
    failure: str | None = None
    status: str = "queued"
    looks: int = 0
    started: datetime | None = None
    finished: datetime | None = None
    cancel_requested: datetime | None = None

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    def trigger_json(self) -> Json:
        return {
            "id": self.id,
            "type": self.type,
            "status": self.status,
            "connection_id": self.connection_id,
            "pipeline_id": self.pipeline_id,
            "created_at": _stamp(self.created),
            "queued_at": _stamp(self.created),
        }

    def row_json(self) -> Json:
        row = self.trigger_json()
        del row["queued_at"]
        return {**row, "started_at": _stamp(self.started)}

    def detail_json(self) -> Json:
        return {
            **self.trigger_json(),
            "started_at": _stamp(self.started),
            "finished_at": _stamp(self.finished),
            "duration_seconds": self._duration(),
            "metrics": self._metrics(),
            "error": self._error(),
        }

    def cancel_json(self) -> Json:
        return {"id": self.id, "status": self.status, "cancel_requested_at": _stamp(self.cancel_requested)}

    def results_json(self) -> Json:
        complete = self.status == "succeeded"
        return {
            "job_id": self.id,
            "status": self.status,
            "tables": [_table_json(name) for name in self.tables] if complete else [],
            "warnings": [_warning_json()] if complete else [],
        }

    def audit_json(self) -> Json:
        """All that is known of the job, what the caller sent with it included: never sent to a client."""
        return {**self.detail_json(), "cancel_requested_at": _stamp(self.cancel_requested), **copy.deepcopy(self.sent)}

    def _duration(self) -> int | None:
        if self.started is None or self.finished is None:
            return None
        return round((self.finished - self.started).total_seconds())

    def _metrics(self) -> Json:
        if self.started is None:
            return {"rows_extracted": 0, "rows_loaded": 0, "bytes_read": 0}
        return {"rows_extracted": 45210, "rows_loaded": ROWS, "bytes_read": 67108864}

    def _error(self) -> Json | None:
        if self.status != "failed":
            return None
        return {"code": "source_unavailable", "message": self.failure or "The source did not answer."}


def _table_json(name: str) -> Json:
    checksum = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    return {"name": name, "rows_loaded": ROWS, "checksum": checksum}


def _warning_json() -> Json:
    message = "Column discount_pct coerced from NUMERIC(5,2) to NUMERIC(8,4)"
    return {"code": "column_type_widened", "message": message}


@dataclass(frozen=True)
class _Lifecycle:
    """How a job gets from queued to its end: by the clock, or, with `looks`, by how often it was read."""

    queued_seconds: float
    running_seconds: float
    cancelling_seconds: float
    looks: int | None
    outcome: str

    def advance(self, job: _Job, *, looked: bool) -> bool:
        """Bring the job to where it stands now; says whether its state changed."""
        before = job.status
        if not job.terminal:
            job.looks += looked
            if job.status == "cancelling":
                self._advance_cancel(job)
            elif self.looks is None:
                self._advance_by_clock(job)
            elif looked:
                self._advance_by_looks(job, self.looks)
        return job.status != before

    def cancel(self, job: _Job) -> None:
        job.status, job.cancel_requested = "cancelling", _now()
        job.clock, job.looks = time.monotonic(), 0

    def finish(self, job: _Job) -> None:
        """End the job, however much time it still had."""
        job.started = job.started or _now()
        job.status, job.finished = self._end_of(job), _now()

    def _advance_cancel(self, job: _Job) -> None:
        passed = time.monotonic() - job.clock >= self.cancelling_seconds
        if job.looks > 1 if self.looks is not None else passed:
            job.status, job.finished = "cancelled", _now()

    def _advance_by_clock(self, job: _Job) -> None:
        passed = time.monotonic() - job.clock
        if passed >= self.queued_seconds and job.started is None:
            job.status, job.started = "running", job.created + timedelta(seconds=self.queued_seconds)
        if passed >= self.queued_seconds + self.running_seconds:
            job.status = self._end_of(job)
            job.finished = job.created + timedelta(seconds=self.queued_seconds + self.running_seconds)

    def _advance_by_looks(self, job: _Job, looks: int) -> None:
        if (job.looks > 1 or job.looks > looks) and job.started is None:
            job.status, job.started = "running", _now()
        if job.looks > looks:
            self.finish(job)

    def _end_of(self, job: _Job) -> str:
        return "failed" if job.failure else self.outcome


# --- Backfills ----------------------------------------------------------------------------------------


@dataclass
class _Backfill:
    id: str
    connection_id: str
    start: datetime
    end: datetime
    tables: list[str] | None
    sent: Json
    created: datetime
    clock: float
    planned: int
    late: int
    status: str = "queued"
    looks: int = 0
    jobs: list[_Job] = field(default_factory=list)
    updated: datetime | None = None

    @property
    def terminal(self) -> bool:
        return self.status in BACKFILL_TERMINAL

    @property
    def cancelled(self) -> bool:
        """Whether a cancel met one of its shards before it was over."""
        return any(job.cancel_requested for job in self.jobs)

    def trigger_json(self) -> Json:
        answer = self.row_json()
        del answer["updated_at"]
        return {**answer, "tables": self.tables}

    def row_json(self) -> Json:
        return {
            "id": self.id,
            "connection_id": self.connection_id,
            "status": self.status,
            "start_at": _stamp(self.start),
            "end_at": _stamp(self.end),
            "progress_percent": self._progress(),
            "created_at": _stamp(self.created),
            "updated_at": _stamp(self.updated or self.created),
            "lane": {"name": "bulk", "weight": 0.25},  # not in the reference: a reader has to bear with it
        }

    def detail_json(self) -> Json:
        detail = {
            **self.row_json(),
            "tables": self.tables,
            "rows_processed": self._count("succeeded") * ROWS or None,
            "error": self._error(),
            "job_ids": [job.id for job in self.jobs] or None,
        }
        if self.status == "queued":
            del detail["job_ids"]
        return detail

    def audit_json(self) -> Json:
        """All that is known of the backfill, what the caller sent with it included: never sent to a client."""
        job_ids = [job.id for job in self.jobs]
        return copy.deepcopy({**self.detail_json(), "job_ids": job_ids, **self.sent})

    def _count(self, status: str) -> int:
        return sum(job.status == status for job in self.jobs)

    def _progress(self) -> int:
        """In whole percents, by whole shards; only what is completed is at 100."""
        if self.status == "completed":
            return 100
        return min(100 * self._count("succeeded") // max(self.planned, 1), 99)

    def _error(self) -> str | None:
        """A bare text, which leaves it to the shards to say what went wrong."""
        if self.status != "failed":
            return None
        return f"{self._count('failed')} of {len(self.jobs)} shards failed."


@dataclass(frozen=True)
class _Sharding:
    """How a backfill gets from queued to its end, and when its shards appear; `life` is that of each shard."""

    life: _Lifecycle
    looks: int | None
    jobs: int
    failing: frozenset[int]
    jobs_after_cancel: int

    def take_due(self, backfill: _Backfill, *, looked: bool) -> int:
        """How many shards appear now."""
        if not backfill.cancelled:
            return self._count_due(backfill) - len(backfill.jobs)
        due = min(backfill.late, int(looked))
        backfill.late -= due
        return due

    def make_shard(self, backfill: _Backfill) -> _Job:
        place = len(backfill.jobs)
        job = _Job(
            id=f"job_{uuid.uuid4().hex[:20]}",
            connection_id=backfill.connection_id,
            pipeline_id=None,
            sent={**backfill.sent, "backfill_id": backfill.id},
            created=_now(),
            clock=time.monotonic(),
            type="backfill",
            tables=tuple(backfill.tables or ["public.orders"]),
            failure=f"The source did not answer shard {place}." if place in self.failing else None,
        )
        backfill.jobs.append(job)
        return job

    def is_over(self, backfill: _Backfill) -> bool:
        if backfill.cancelled:
            return not backfill.late and all(job.terminal for job in backfill.jobs)
        if self.looks is not None:
            return backfill.looks > self.looks
        return _age(backfill) >= self.life.queued_seconds + self.life.running_seconds

    def has_begun(self, backfill: _Backfill) -> bool:
        if self.looks is not None:
            return backfill.looks > 1
        return _age(backfill) >= self.life.queued_seconds

    def end_of(self, backfill: _Backfill) -> str:
        if backfill.cancelled:
            return "cancelled"
        failed = self.life.outcome == "failed" or any(job.status == "failed" for job in backfill.jobs)
        return "failed" if failed else "completed"

    def _count_due(self, backfill: _Backfill) -> int:
        if self.is_over(backfill):
            return self.jobs
        if self.looks is None:
            return self.jobs if self.has_begun(backfill) else 0
        return self.jobs * (backfill.looks - 1) // max(self.looks - 1, 1)


def _age(backfill: _Backfill) -> float:
    return time.monotonic() - backfill.clock


_Retelling = Callable[[dict[str, str], list[Json]], list[Json]]


# --- The routes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Policy:
    """What the reference leaves to the deployment."""

    honour_idempotency_key: bool
    conflict_on_active: bool
    name_existing_job: bool
    partial_results: bool
    newest_first: bool
    connections: frozenset[str] | None
    retell: _Retelling


_Start = Callable[[str, Json, str | None], _Answer]


@dataclass
class _Api:
    """The API itself: requests in, answers out. Not thread-safe: the server holds its lock around it."""

    keys: frozenset[str]
    lifecycle: _Lifecycle
    sharding: _Sharding
    policy: _Policy
    on_change: Callable[[str, str, Json], None]
    jobs: dict[str, _Job] = field(default_factory=dict)
    backfills: dict[str, _Backfill] = field(default_factory=dict)
    replays: dict[tuple[str, str], tuple[bytes | None, _Answer]] = field(default_factory=dict)

    def handle(self, request: _Request) -> _Answer:
        try:
            self._authenticate(request)
            self.catch_up()
            return self._route(request)
        except _ApiError as problem:
            return _answer_json(problem.status, {"error": problem.error})

    def advance(self, job: _Job, *, looked: bool) -> _Job:
        if self._life_of(job).advance(job, looked=looked):
            self.on_change("job", "changed", job.audit_json())
        return job

    def catch_up(self) -> None:
        """Bring all backfills, and their shards with them, to where the clock has them."""
        if self.sharding.looks is None:
            for backfill in self.backfills.values():
                self._move(backfill, looked=False)

    def _life_of(self, job: _Job) -> _Lifecycle:
        return self.sharding.life if job.type == "backfill" else self.lifecycle

    def _move(self, backfill: _Backfill, *, looked: bool) -> _Backfill:
        """The like of `advance` for a backfill: a look at it is a look at each of its shards."""
        if backfill.terminal:
            return backfill
        before = backfill.audit_json()
        backfill.looks += looked
        for job in backfill.jobs:
            self.advance(job, looked=looked)
        for _ in range(self.sharding.take_due(backfill, looked=looked)):
            self._add(self.sharding.make_shard(backfill))
        if self.sharding.is_over(backfill):
            self._end(backfill)
        elif self.sharding.has_begun(backfill):
            backfill.status = "running"
        if backfill.audit_json() != before:
            backfill.updated = _now()
            self.on_change("backfill", "changed", backfill.audit_json())
        return backfill

    def _end(self, backfill: _Backfill) -> None:
        for job in backfill.jobs:
            if not job.terminal:
                self.sharding.life.finish(job)
                self.on_change("job", "changed", job.audit_json())
        backfill.status = self.sharding.end_of(backfill)

    def _add(self, job: _Job) -> None:
        self.jobs[job.id] = job
        self.on_change("job", "created", job.audit_json())

    def _authenticate(self, request: _Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        known = [hmac.compare_digest(key.encode(), accepted.encode()) for accepted in self.keys]
        if scheme.lower() != "bearer" or not any(known):
            raise _ApiError(401, "The API key is missing, malformed or revoked.")

    def _route(self, request: _Request) -> _Answer:
        match request.method, request.segments:
            case "POST", ["api", "v1", "connections", connection_id, "sync"]:
                sent = _trigger_body(request.body, SYNC_FIELDS)
                return self._trigger(request, connection_id, sent, self._start_sync)
            case "POST", ["api", "v1", "connections", connection_id, "backfill"]:
                sent = _backfill_body(request.body)
                return self._trigger(request, connection_id, sent, self._start_backfill)
            case "GET", ["api", "v1", "backfills"]:
                return self._list_backfills(request.query)
            case "GET", ["api", "v1", "backfills", backfill_id]:
                return self._show_backfill(backfill_id)
            case "GET", ["api", "v1", "jobs"]:
                return self._list_jobs(request.query)
            case "GET", ["api", "v1", "jobs", job_id]:
                return _answer_json(200, {"data": self._look(job_id).detail_json()})
            case "GET", ["api", "v1", "jobs", job_id, "results"]:
                return self._results(self._look(job_id))
            case "POST", ["api", "v1", "jobs", job_id, "cancel"]:
                return self._cancel(self._find(job_id))
        raise _ApiError(404, f"There is no {request.method} {urlsplit(request.target).path}.")

    def _find(self, job_id: str) -> _Job:
        if job_id not in self.jobs:
            raise _ApiError(404, f"There is no job {job_id}.")
        return self.jobs[job_id]

    def _look(self, job_id: str) -> _Job:
        return self.advance(self._find(job_id), looked=True)

    def _trigger(self, request: _Request, connection_id: str, sent: Json, start: _Start) -> _Answer:
        if not connection_id or (self.policy.connections is not None and connection_id not in self.policy.connections):
            raise _ApiError(404, f"There is no connection {connection_id}.")
        key = request.headers.get("idempotency-key")
        if key is None or not self.policy.honour_idempotency_key:
            return start(connection_id, sent, key)
        known = self.replays.get((request.target, key))
        if known is None:
            answer = start(connection_id, sent, key)
            self.replays[request.target, key] = (request.body, answer)
            return answer
        if known[0] != request.body:
            raise _invalid("Idempotency-Key", "was used before, with another body")
        return known[1]

    def _start_sync(self, connection_id: str, sent: Json, key: str | None) -> _Answer:
        self._refuse_second(connection_id)
        job = _Job(
            id=f"job_{uuid.uuid4().hex[:20]}",
            connection_id=connection_id,
            pipeline_id=sent.get("pipeline_id"),
            sent=_kept(sent, key),
            created=_now(),
            clock=time.monotonic(),
        )
        self._add(job)
        return _answer_json(202, {"data": {"job": job.trigger_json()}})

    def _start_backfill(self, connection_id: str, sent: Json, key: str | None) -> _Answer:
        backfill = _Backfill(
            id=f"bf_{uuid.uuid4().hex[:20]}",
            connection_id=connection_id,
            start=_moment("start_at", sent["start_at"]),
            end=_moment("end_at", sent["end_at"]),
            tables=sent.get("tables"),
            sent=_kept(sent, key),
            created=_now(),
            clock=time.monotonic(),
            planned=self.sharding.jobs,
            late=self.sharding.jobs_after_cancel,
        )
        self.backfills[backfill.id] = backfill
        self.on_change("backfill", "created", backfill.audit_json())
        return _answer_json(202, {"data": {"backfill": backfill.trigger_json()}})

    def _refuse_second(self, connection_id: str) -> None:
        if not self.policy.conflict_on_active:
            return
        for job in self.jobs.values():
            known = job.type == "connection_sync" and job.connection_id == connection_id
            if known and not self.advance(job, looked=False).terminal:
                extra: Json = {"existing_job_id": job.id} if self.policy.name_existing_job else {}
                raise _ApiError(409, "A sync of this connection is already in progress.", **extra)

    def _show_backfill(self, backfill_id: str) -> _Answer:
        if backfill_id not in self.backfills:
            raise _ApiError(404, f"There is no backfill {backfill_id}.")
        return _answer_json(200, {"data": self._move(self.backfills[backfill_id], looked=True).detail_json()})

    def _list_jobs(self, query: dict[str, str]) -> _Answer:
        limit, after = _limit(query.get("limit", "50")), _read_cursor(query.get("cursor"), "jb")
        answer = self._page(self._matching(query), limit, after, "jb")
        page = json.loads(answer.body)
        return _answer_json(200, {**page, "data": self.policy.retell(query, page["data"])})

    def _list_backfills(self, query: dict[str, str]) -> _Answer:
        for name in query:
            if name not in {"connection_id", "status", "limit", "cursor"}:
                raise _invalid(name, "is unknown")
        if query.get("status", "queued") not in BACKFILL_STATES:
            raise _invalid("status", "is not a state of a backfill")
        limit, after = _limit(query.get("limit", "50")), _read_cursor(query.get("cursor"), "bf")
        found = []
        for place, backfill in enumerate(self.backfills.values()):
            if query.get("connection_id") not in {None, backfill.connection_id}:
                continue
            if query.get("status") in {None, self._move(backfill, looked=True).status}:
                found.append((place, backfill))
        return self._page(found, limit, after, "bf")

    def _page(self, found: Sequence[tuple[int, _Job | _Backfill]], limit: int, after: int | None, kind: str) -> _Answer:
        ordered = found[::-1] if self.policy.newest_first else found
        page = [(place, item) for place, item in ordered if self._is_beyond(place, after)]
        more = len(page) > limit
        page = page[:limit]
        cursor = _write_cursor(page[-1][0], kind) if more else None
        rows = [item.row_json() for _, item in page]
        return _answer_json(200, {"data": rows, "meta": {"page": {"limit": limit, "cursor": cursor}}})

    def _is_beyond(self, place: int, after: int | None) -> bool:
        if after is None:
            return True
        return place < after if self.policy.newest_first else place > after

    def _matching(self, query: dict[str, str]) -> list[tuple[int, _Job]]:
        since, until = _bound(query, "since"), _bound(query, "until")
        found = []
        for place, job in enumerate(self.jobs.values()):
            created = job.created.replace(microsecond=0)
            if (since and created < since) or (until and created > until) or not _fits(job, query):
                continue
            if query.get("status") in {None, self.advance(job, looked=True).status}:
                found.append((place, job))
        return found

    def _results(self, job: _Job) -> _Answer:
        if not job.terminal and not self.policy.partial_results:
            raise _ApiError(409, f"The job is {job.status}: its results are not there yet.")
        return _answer_json(200, {"data": job.results_json()})

    def _cancel(self, job: _Job) -> _Answer:
        self.advance(job, looked=False)
        if not job.terminal and job.status != "cancelling":
            self._life_of(job).cancel(job)
            self.on_change("job", "changed", job.audit_json())
        return _answer_json(200, {"data": job.cancel_json()})


def _kept(sent: Json, key: str | None) -> Json:
    return {"priority": sent.get("priority"), "metadata": sent.get("metadata"), "idempotency_key": key}


def _trigger_body(body: bytes | None, kinds: dict[str, type]) -> Json:
    if body is None:
        raise _invalid("Content-Length", "is needed")
    if not body:
        return {}
    try:
        sent = json.loads(body)
    except ValueError:
        raise _invalid("body", "is not JSON") from None
    if not isinstance(sent, dict):
        raise _invalid("body", "is not an object")
    for name, value in sent.items():
        if name not in kinds:
            raise _invalid(name, "is unknown")
        if not isinstance(value, kinds[name]):
            raise _invalid(name, "has the wrong type")
    return sent


def _backfill_body(body: bytes | None) -> Json:
    sent = _trigger_body(body, BACKFILL_FIELDS)
    for name in ("start_at", "end_at"):
        if name not in sent:
            raise _invalid(name, "is missing")
    if _moment("start_at", sent["start_at"]) >= _moment("end_at", sent["end_at"]):
        raise _invalid("end_at", "is not after start_at")
    tables = sent.get("tables", ["any"])
    if not tables or not all(isinstance(name, str) and name.strip() for name in tables):
        raise _invalid("tables", "is not a list of names")
    return sent


def _fits(job: _Job, query: dict[str, str]) -> bool:
    shown = {"connection_id": job.connection_id, "pipeline_id": job.pipeline_id, "type": job.type}
    return all(query.get(name, value) == value for name, value in shown.items())


def _bound(query: dict[str, str], name: str) -> datetime | None:
    return _moment(name, query[name]) if name in query else None


def _moment(name: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise _invalid(name, "has no offset")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _invalid(name, "is not an ISO 8601 timestamp") from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100):
        raise _invalid("limit", "is not a number from 1 to 100")
    return int(text)


def _write_cursor(place: int, kind: str) -> str:
    return base64.b64encode(json.dumps({kind: place}).encode()).decode()


def _read_cursor(text: str | None, kind: str) -> int | None:
    if text is None:
        return None
    try:
        return int(json.loads(base64.b64decode(text, validate=True))[kind])
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise _invalid("cursor", "is not a cursor of this list") from None


# --- Sockets ------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    server: _HttpServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together

    def setup(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        super().setup()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Stay quiet: what was served is in `ReferenceServer.requests`."""

    def _serve(self) -> None:
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            known = headers.get(name.lower())
            headers[name.lower()] = value if known is None else f"{known}, {value}"
        caller = "{}:{}".format(*self.client_address[:2])
        answer = self.server.respond(_Request(self.command, self.path, headers, self._read_body(), caller))
        if answer.manner == "reset":
            self._reset()
        else:
            self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815

    def _read_body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdigit():
            self.close_connection = True
            return None
        return self.rfile.read(int(length))

    def _send(self, answer: _Answer) -> None:
        self.send_response(answer.status)
        if answer.content_type:
            self.send_header("Content-Type", answer.content_type)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.status not in {204, 304}:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        cut = answer.manner == "cut"
        if self.command != "HEAD":
            self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
        self.close_connection = self.close_connection or cut

    def _reset(self) -> None:
        """Close with SO_LINGER 0, past every buffer and `shutdown`, so that the peer sees a RST."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, respond: Callable[[_Request], _Answer], context: ssl.SSLContext | None) -> None:
        self.respond = respond
        self._context = context
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        """Bind without the base class's look-up of the host's name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; the TLS handshake is left to the connection's own thread."""
        connection, address = super().get_request()
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._open_lock:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def drop_connections(self) -> None:
        """End what is kept alive: a server that was stopped answers nobody."""
        with self._open_lock:
            for connection in self._open:
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that goes away is no error; anything else is a bug of this file, and is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


# --- TLS ----------------------------------------------------------------------------------------------


def _self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and localhost that nobody trusts, and its key, as PEM files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(_now() - timedelta(days=1)).not_valid_after(_now() + timedelta(days=1))
    for extension, critical in _extensions(key.public_key()):
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(key, hashes.SHA256())
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(key.private_bytes(*plain))
    return certificate_file, key_file


def _extensions(public_key: Any) -> list[tuple[Any, bool]]:
    from ipaddress import ip_address

    from cryptography import x509

    uses = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
    )
    usage = x509.KeyUsage(digital_signature=True, key_cert_sign=True, encipher_only=False, decipher_only=False, **uses)
    return [
        (x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]), False),
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (usage, True),
        (x509.SubjectKeyIdentifier.from_public_key(public_key), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key), False),
    ]


# --- The server ---------------------------------------------------------------------------------------


class ReferenceServer:
    """The double on a real port of 127.0.0.1; a context manager, and safe to use from many threads.

    `api_key`: the key it accepts (`accept_keys` replaces it while it runs). `port`: 0 takes a free one, and
    a server that is stopped and started again keeps its port and its jobs.

    Life of a job: queued for `queued_seconds`, running for `running_seconds` (`math.inf`: never ends), then
    `outcome` ("succeeded" or "failed"). With `looks=n` the clock does not count: the first n GETs that
    concern the job (itself, its results, a list) find it unfinished, first queued and then running, and the
    next one finds it at its end. A cancelled job is `cancelling` for `cancelling_seconds`, or for one look.

    Life of a backfill: as that of a job, and it begins as queued. It goes by `backfill_looks`, which is
    `looks` if not said: the first n GETs of it, or of a list it fits in, find it unfinished and the next one
    finds it at its end. It makes `backfill_jobs` jobs of type `backfill`, its shards: by looks they appear
    over the looks after the first one, by the clock all at once as it begins to run. A shard lives like any
    job (by `backfill_looks`, if `looks` is not said), a look at its backfill is a look at it too, and the end
    of its backfill ends it. Shards whose index, from 0, is in `failing_jobs` fail, each with a message of its
    own (with `outcome="failed"` all do), and then the backfill is `failed` in the end.

    The first cancel of an unfinished shard changes all that: shards that were still to come do not,
    `jobs_after_cancel` others do, one with each further look at the backfill, whatever is not cancelled lives
    on for its own time, and once all are over the backfill is `cancelled`.

    What a backfill says of itself: no `job_ids` while queued, `null` before there is a shard;
    `rows_processed` is `null` before a shard succeeded; `progress_percent` counts whole shards and so stays
    at 0 for long; `error` is a text that names no shard; `tables` is `null` where none were sent; the window
    comes back in UTC, in whole seconds; and there is a `lane`, which the reference does not know.

    What deployments differ in: `honour_idempotency_key`; `conflict_on_active` (409 for a second sync of a
    connection; backfills neither meet nor make one) and `name_existing_job` (its `error.existing_job_id`);
    `partial_results` (a stub while the job runs, not a 409); `newest_first` in lists; `connections` (the
    known ids; others get 404).

    Faults: `read_faults`, `start_faults`, `start_faults_after_effect`: see the top of this file. `retell` makes
    lists of jobs lie: it gets the parameters of the query and the entries of the page, and says which entries
    are sent in their place.

    `tls`: serve https with a certificate made for the occasion; `ca_file` names it for who wants to trust
    it. `ledger`: a file that gets one JSON line for each job or backfill made or changed and each request
    served.
    """

    def __init__(
        self,
        *,
        api_key: str = "plnx_test_reference",
        port: int = 0,
        queued_seconds: float = 0.1,
        running_seconds: float = 0.5,
        cancelling_seconds: float = 0.1,
        looks: int | None = None,
        outcome: str = "succeeded",
        backfill_jobs: int = 3,
        backfill_looks: int | None = None,
        failing_jobs: Collection[int] = (),
        jobs_after_cancel: int = 0,
        read_faults: Iterable[FaultItem] = (),
        start_faults: Iterable[FaultItem] = (),
        start_faults_after_effect: bool = False,
        honour_idempotency_key: bool = False,
        conflict_on_active: bool = True,
        name_existing_job: bool = True,
        partial_results: bool = False,
        newest_first: bool = True,
        connections: Collection[str] | None = None,
        retell: _Retelling = lambda query, page: page,
        tls: bool = False,
        ledger: Path | str | None = None,
    ) -> None:
        self.url = ""
        self.ca_file: Path | None = None
        self._port = port
        self._tls = tls
        self._ledger = Path(ledger) if ledger is not None else None
        self._lock = threading.RLock()
        self._requests: list[RequestRecord] = []
        self._read_faults = [_parse_fault(item) for item in read_faults]
        self._start_faults = [_parse_fault(item, after=start_faults_after_effect) for item in start_faults]
        self._server: _HttpServer | None = None
        self._thread: threading.Thread | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if not all(0 <= place < backfill_jobs + jobs_after_cancel for place in failing_jobs):
            raise ValueError(f"not all of these are shards: {failing_jobs!r}")
        lifecycle = _Lifecycle(queued_seconds, running_seconds, cancelling_seconds, looks, outcome)
        self._api = _Api(
            keys=frozenset({api_key}),
            lifecycle=lifecycle,
            sharding=_Sharding(
                life=lifecycle if looks is not None else replace(lifecycle, looks=backfill_looks),
                looks=looks if backfill_looks is None else backfill_looks,
                jobs=backfill_jobs,
                failing=frozenset(failing_jobs),
                jobs_after_cancel=jobs_after_cancel,
            ),
            policy=_Policy(
                honour_idempotency_key=honour_idempotency_key,
                conflict_on_active=conflict_on_active,
                name_existing_job=name_existing_job,
                partial_results=partial_results,
                newest_first=newest_first,
                connections=frozenset(connections) if connections is not None else None,
                retell=retell,
            ),
            on_change=lambda kind, event, thing: self._write(kind, event=event, **{kind: thing}),
        )

    @property
    def jobs(self) -> dict[str, Json]:
        """A copy of all jobs, oldest first: the detail of the API, and what the caller sent with the start."""
        with self._lock:
            self._api.catch_up()
            return {job.id: self._api.advance(job, looked=False).audit_json() for job in self._api.jobs.values()}

    @property
    def backfills(self) -> dict[str, Json]:
        """A copy of all backfills, oldest first: the detail of the API, and what the caller sent with the start."""
        with self._lock:
            self._api.catch_up()
            return {backfill.id: backfill.audit_json() for backfill in self._api.backfills.values()}

    @property
    def requests(self) -> list[RequestRecord]:
        """A copy of the list of requests, in the order in which they were decided."""
        with self._lock:
            return copy.deepcopy(self._requests)

    @property
    def faults_left(self) -> tuple[int, int]:
        """How many faults of reads and of starts nobody has met yet."""
        with self._lock:
            return len(self._read_faults), len(self._start_faults)

    def accept_keys(self, *keys: str) -> None:
        """Accept these keys and no others from now on, as after a rotation."""
        with self._lock:
            self._api.keys = frozenset(keys)

    def start(self) -> None:
        """Listen, and serve from a thread."""
        self._server = _HttpServer(self._port, self._respond, self._context())
        self._port = self._server.server_port
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and drop every connection; what was recorded stays readable."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.drop_connections()
            self._server.server_close()
        if self._folder is not None:
            self._folder.cleanup()
        self._server = self._thread = self._folder = self.ca_file = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _context(self) -> ssl.SSLContext | None:
        if not self._tls:
            return None
        self._folder = tempfile.TemporaryDirectory(prefix="reference-server-")
        self.ca_file, key_file = _self_signed(Path(self._folder.name))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca_file, key_file)
        return context

    def _respond(self, request: _Request) -> _Answer:
        """Decide and record one answer, all at once; the bytes are sent by the caller, outside the lock."""
        with self._lock:
            fault = self._next_fault(request)
            answer = self._api.handle(request) if fault is None or fault.after else None
            if fault is not None:
                answer = _answer_fault(fault, answer)
            assert answer is not None  # where there is no fault, there is the true answer
            self._record(request, fault.outcome if fault and fault.kind != "ok" else answer.status)
            return answer

    def _next_fault(self, request: _Request) -> _Fault | None:
        if request.is_read and self._read_faults:
            return self._read_faults.pop(0)
        if request.is_start and self._start_faults:
            return self._start_faults.pop(0)
        return None

    def _record(self, request: _Request, outcome: int | str) -> None:
        headers = {k: "[removed]" if k == "authorization" else v for k, v in request.headers.items()}
        record = RequestRecord(request.method, request.target, headers, outcome, request.socket)
        self._requests.append(record)
        self._write("request", **record._asdict())

    def _write(self, kind: str, **fields: Any) -> None:
        if self._ledger is not None:
            line = json.dumps({"kind": kind, "at": _now().isoformat(), **fields})
            with self._lock, self._ledger.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


# --- The command --------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Serve a test double of the Planasonix Orchestration API.")
    parser.add_argument("--port", type=int, default=0, help="port of 127.0.0.1 (default: a free one)")
    parser.add_argument("--api-key", default="plnx_test_reference", help="the key to accept: never a real one")
    parser.add_argument("--faults", type=int, metavar="SEED", help="fourteen faults for reads, in this seed's order")
    parser.add_argument("--start-faults", type=int, metavar="SEED", help="the same for starts")
    parser.add_argument("--after-effect", action="store_true", help="faults of starts come after the job was made")
    parser.add_argument("--queued-seconds", type=float, default=0.1)
    parser.add_argument("--running-seconds", type=float, default=0.5)
    parser.add_argument("--outcome", choices=("succeeded", "failed"), default="succeeded")
    parser.add_argument("--honour-idempotency-key", action="store_true")
    parser.add_argument("--no-conflict", action="store_true", help="let a connection have two active syncs")
    parser.add_argument("--tls", action="store_true", help="https, and print the certificate's file as a second line")
    parser.add_argument("--ledger", type=Path, metavar="FILE", help="append jobs and requests as JSON lines")
    return parser


def _planned(seed: int | None) -> list[FaultItem]:
    return [] if seed is None else fourteen_faults(seed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    options = _parser().parse_args(arguments)
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    with ReferenceServer(
        api_key=options.api_key,
        port=options.port,
        queued_seconds=options.queued_seconds,
        running_seconds=options.running_seconds,
        outcome=options.outcome,
        read_faults=_planned(options.faults),
        start_faults=_planned(options.start_faults),
        start_faults_after_effect=options.after_effect,
        honour_idempotency_key=options.honour_idempotency_key,
        conflict_on_active=not options.no_conflict,
        tls=options.tls,
        ledger=options.ledger,
    ) as server:
        print(server.url, flush=True)
        if server.ca_file is not None:
            print(server.ca_file, flush=True)
        done.wait()


if __name__ == "__main__":
    main()
