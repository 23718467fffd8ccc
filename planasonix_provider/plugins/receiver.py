"""The webhook receiver: records the deliveries of Planasonix as asset events.

The endpoint is public, so the order of the checks matters. First come the signature headers, which cost nothing; then
the receiver's name; then the body, whose size, time and number are limited; then the signature of the raw body. The
body is parsed last. An error response contains no reason. All receivers that do not exist or do not work get the same
response.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple, TypedDict

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from pydantic import ValidationError

from planasonix_provider import metrics
from planasonix_provider.airflow_compat import NO_PARTITIONS_WARNING, has_partitions
from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.signature import (
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    InvalidSignatureError,
    check_headers,
    verify,
)
from planasonix_provider.hooks.webhook_receiver import (
    PlanasonixReceiverHook,
    ReceiverConfig,
    ReceiverNames,
    list_receiver_names,
    unknown_asset_message,
)
from planasonix_provider.plugins.delivery import DeliveryBody, describe_problems
from planasonix_provider.plugins.delivery_store import DeliveryStore, RecordResult
from planasonix_provider.plugins.rate_limited_log import RateLimitedLog
from planasonix_provider.plugins.receiver_cache import ReceiverCache, Source
from planasonix_provider.plugins.request_body import BodyReader, RefusedBodyError

log = logging.getLogger(__name__)

#: Threads that record deliveries. They are separate from the API server's threads, which serve Airflow.
THREADS = 4
#: How many verified deliveries may wait for one of these threads.
MAX_WAITING = 500
#: If a signature matches no secret, the receiver is read again if it was read more than this many seconds ago.
RECHECK_MAX_AGE_SECONDS = 1.0
#: How many deliveries, each with its body, may wait for that at once.
MAX_RECHECKS = 100


class AirflowConnections:
    """Reads receivers from Airflow's connections. Its methods block."""

    def list_names(self) -> ReceiverNames:
        """List the receivers that are not in a secrets backend."""
        return list_receiver_names()

    def read(self, name: str) -> ReceiverConfig | None:
        """Read a receiver from any source."""
        return PlanasonixReceiverHook(name).get_receiver()

    def read_from_secrets_backends(self, name: str) -> ReceiverConfig | None:
        """Read a receiver from secrets backends alone."""
        return PlanasonixReceiverHook(name).get_receiver_from_secrets_backends()


class _Result(NamedTuple):
    """The status of the response to a delivery, and how its metric counts it."""

    status: int
    outcome: str
    reason: str | None = None
    has_read_body: bool = True


def make_app(
    source: Source | None = None,
    deliveries: DeliveryStore | None = None,
    on_refusal: Callable[[str], object] = lambda receiver: None,
) -> FastAPI:
    """Return the app with the route ``POST /webhook/{name}``.

    :param on_refusal: gets the name of a receiver that has refused a delivery. It must be cheap: anybody can cause it.
    """
    app = FastAPI(title="Planasonix", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    endpoint = _WebhookEndpoint(source or AirflowConnections(), deliveries or DeliveryStore())

    async def receive(name: str, request: Request) -> Response:
        response = await endpoint.receive(name, request)
        if 400 <= response.status_code < 500 and (receiver := endpoint.known_name(name)):
            on_refusal(receiver)
        return response

    app.add_api_route("/webhook/{name}", receive, methods=["POST"])
    return app


class _WebhookEndpoint:
    def __init__(self, source: Source, deliveries: DeliveryStore) -> None:
        self._receivers = ReceiverCache(source)
        self._bodies = BodyReader()
        self._rechecks = 0
        self._deliveries = deliveries
        self._limiter = CapacityLimiter(THREADS)
        self._log = RateLimitedLog(log)
        self._warned: set[str] = set()

    def known_name(self, name: str) -> str | None:
        """Return the name of a receiver that exists; ``None`` for an invented name."""
        return self._receivers.known_name(name)

    async def receive(self, name: str, request: Request) -> Response:
        """Return 204 for a delivery that is accepted, repeated or ignored; 503 for one that should be sent again."""
        result, receiver = await self._receive(name, request)
        tags = {"receiver": receiver, "outcome": result.outcome, "reason": result.reason}
        metrics.WEBHOOK_DELIVERY.add(1, tags)
        # A response that does not wait for the body ends the HTTP connection.
        return Response(status_code=result.status, headers=None if result.has_read_body else {"Connection": "close"})

    async def _receive(self, name: str, request: Request) -> tuple[_Result, str | None]:
        """Return the result of a delivery, and the name of the receiver if there is such a receiver."""
        try:
            check_headers(**_signature(request))
        except InvalidSignatureError as refusal:
            # Without the name, which anybody can choose.
            self._log.log("headers", logging.WARNING, f"A delivery to the webhook receiver was refused. {refusal}")
            return _Result(HTTPStatus.UNAUTHORIZED, "refused", "headers", has_read_body=False), None
        entry = await self._receivers.find(name)
        if entry.problem:
            self._log.log(entry.problem, logging.WARNING, entry.problem)
        if entry.receiver is None:
            return _Result(HTTPStatus.SERVICE_UNAVAILABLE, "refused", "receiver", has_read_body=False), None
        try:
            body = await self._bodies.read(request)
        except RefusedBodyError as refusal:
            self._log.log("bodies", logging.WARNING, f"A delivery to the webhook receiver was refused: {refusal}.")
            return _Result(refusal.status, "refused", "body", has_read_body=False), entry.name
        try:
            receiver = await self._verify_with_recheck(entry.receiver, request, body)
        except InvalidSignatureError as refusal:
            # entry.name has one spelling, so that other spellings do not cause more lines.
            self._log.log(
                f"signature {entry.name}", logging.WARNING, f"Webhook receiver {name!r} refused a delivery. {refusal}"
            )
            return _Result(HTTPStatus.UNAUTHORIZED, "refused", "signature"), entry.name
        return await self._record(receiver, body), entry.name

    async def _verify_with_recheck(self, receiver: ReceiverConfig, request: Request, body: bytes) -> ReceiverConfig:
        """Verify the signature. If it matches no secret, read the receiver again: the secret may have been rotated."""
        try:
            _verify(receiver, request, body)
        except InvalidSignatureError:
            if self._rechecks >= MAX_RECHECKS:
                raise
            self._rechecks += 1
            try:
                reread = (await self._receivers.find(receiver.name, max_age=RECHECK_MAX_AGE_SECONDS)).receiver
            finally:
                self._rechecks -= 1
            if reread is None or reread.secrets == receiver.secrets:
                raise
            _verify(reread, request, body)
            return reread
        return receiver

    async def _record(self, receiver: ReceiverConfig, body: bytes) -> _Result:
        """Record a verified delivery."""
        try:
            event = DeliveryBody.model_validate_json(body)
        except ValidationError as error:
            self._log_error(
                receiver,
                "body",
                f"got a signed delivery that it cannot read, and does not count it: {describe_problems(error)}.",
            )
            return _Result(HTTPStatus.BAD_REQUEST, "refused", "content")
        if not receiver.accepts(event.type):
            return _Result(HTTPStatus.NO_CONTENT, "ignored")
        self._warn_of_missing_key(receiver, event)
        return await self._store(receiver, event)

    def _warn_of_missing_key(self, receiver: ReceiverConfig, event: DeliveryBody) -> None:
        if receiver.partition_by is None:
            return
        if not has_partitions():
            if receiver.name not in self._warned:
                self._warned.add(receiver.name)
                log.warning("Webhook receiver %r: %s", receiver.name, NO_PARTITIONS_WARNING)
        elif not event.is_partitionable:
            self._log.log(
                f"partition {receiver.name}",
                logging.WARNING,
                f"Webhook receiver {receiver.name!r} got an event that is not the end of a job. Its asset event "
                "has no partition key, because the delivery does not tell which partition was loaded. The extra "
                "'events' of the Airflow connection can leave out such events.",
            )

    async def _store(self, receiver: ReceiverConfig, event: DeliveryBody) -> _Result:
        """Store an event."""
        if self._limiter.statistics().tasks_waiting >= MAX_WAITING:
            return self._fail(
                receiver,
                "queue",
                f"could not accept a delivery, because {MAX_WAITING} others wait to be written down. Planasonix sends "
                "it again. If it stays, look at the health of Airflow's database.",
            )
        try:
            result = await to_thread.run_sync(self._deliveries.record, receiver, event, limiter=self._limiter)
        except PlanasonixError as error:
            return self._fail(receiver, "database", f"could not record a delivery. {error.message}")
        except Exception as fault:
            return self._fail(
                receiver,
                "database",
                f"could not record a delivery ({type(fault).__name__}), and asked Planasonix to send it again. If it "
                "stays, look at the health of Airflow's database.",
            )
        if result is RecordResult.NO_ASSET:
            text = f"could not record a delivery. {unknown_asset_message(receiver.asset)}"
            return self._fail(receiver, "asset", text)
        return _Result(HTTPStatus.NO_CONTENT, "repeated" if result is RecordResult.REPEATED else "accepted")

    def _fail(self, receiver: ReceiverConfig, reason: str, text: str) -> _Result:
        self._log_error(receiver, reason, text)
        return _Result(HTTPStatus.SERVICE_UNAVAILABLE, "failed", reason)

    def _log_error(self, receiver: ReceiverConfig, kind: str, text: str) -> None:
        self._log.log(f"{kind} {receiver.name}", logging.ERROR, f"Webhook receiver {receiver.name!r} {text}")


def _verify(receiver: ReceiverConfig, request: Request, body: bytes) -> None:
    verify(body, **_signature(request), secrets=receiver.secrets)


class _Signature(TypedDict):
    signature: str | None
    timestamp: str | None


def _signature(request: Request) -> _Signature:
    return {
        "signature": request.headers.get(SIGNATURE_HEADER),
        "timestamp": request.headers.get(TIMESTAMP_HEADER),
    }
