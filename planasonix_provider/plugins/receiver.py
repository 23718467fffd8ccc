"""The webhook receiver: what comes from Planasonix becomes events of an asset, and what comes from others nothing.

The order matters, since anybody may send. First come the headers of the signature, which cost nothing; then the
receiver's name; then the body, which is bounded in size, time and number; then the signature over the body as it came.
The body is parsed last. A refusal gives no reason, and every receiver that does not exist, or does not work, answers
alike.
"""

from __future__ import annotations

import logging
from typing import TypedDict

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from pydantic import ValidationError

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

#: How many threads write deliveries down. They are the receiver's own: those of the API server serve Airflow.
THREADS = 4
#: How many signed deliveries may wait to be written down.
MAX_WAITING = 500
#: How old, in seconds, what is known of a receiver may be where a signature fits none of its secrets.
RECHECK_MAX_AGE = 1.0
#: How many deliveries whose signature fits no secret may wait for the secret to be read again, each with its body.
MAX_RECHECKS = 100

_TAKEN, _NOT_NOW = 204, 503


class AirflowConnections:
    """The receivers of this Airflow. Its methods block."""

    def list_names(self) -> ReceiverNames:
        """List the receivers that need no secrets backend."""
        return list_receiver_names()

    def read(self, name: str) -> ReceiverConfig | None:
        """Read a receiver where Airflow looks."""
        return PlanasonixReceiverHook(name).get_receiver()

    def read_from_secrets_backends(self, name: str) -> ReceiverConfig | None:
        """Read a receiver from secrets backends alone."""
        return PlanasonixReceiverHook(name).get_receiver_from_secrets_backends()


def make_app(source: Source | None = None, deliveries: DeliveryStore | None = None) -> FastAPI:
    """Make the app with the receivers of one Airflow.

    :param source: reads the Airflow connections of receivers; default: this Airflow's.
    :param register: records deliveries.
    :return: the app, with ``POST /webhook/{name}``.
    """
    app = FastAPI(title="Planasonix", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    reception = _WebhookEndpoint(source or AirflowConnections(), deliveries or DeliveryStore())
    app.add_api_route("/webhook/{name}", reception.receive, methods=["POST"])
    return app


class _WebhookEndpoint:
    """Takes deliveries for all receivers."""

    def __init__(self, source: Source, register: DeliveryStore) -> None:
        self._receivers = ReceiverCache(source)
        self._bodies = BodyReader()
        self._rechecks = 0
        self._deliveries = register
        self._limiter = CapacityLimiter(THREADS)
        self._log = RateLimitedLog(log)

    async def receive(self, name: str, request: Request) -> Response:
        """Take a delivery: 204 once it counts, or has counted before; 503 where it may count later."""
        try:
            check_headers(**_signature(request))
        except InvalidSignatureError as refusal:
            # Without the name, which anybody may have made up.
            self._log.log("headers", logging.WARNING, f"A delivery to the webhook receiver was refused. {refusal}")
            return _reject(401)
        reading = await self._receivers.find(name)
        if reading.problem:
            self._log.log(reading.problem, logging.WARNING, reading.problem)
        if reading.receiver is None:
            return _reject(_NOT_NOW)
        try:
            body = await self._bodies.read(request)
        except RefusedBodyError as refusal:
            self._log.log("bodies", logging.WARNING, f"A delivery to the webhook receiver was refused: {refusal}.")
            return _reject(refusal.status)
        try:
            receiver = await self._verify_with_recheck(reading.receiver, request, body)
        except InvalidSignatureError as refusal:
            self._log.log(
                f"signature {reading.name}", logging.WARNING, f"Webhook receiver {name!r} refused a delivery. {refusal}"
            )
            return Response(status_code=401)
        return Response(status_code=await self._record(receiver, body))

    async def _verify_with_recheck(self, receiver: ReceiverConfig, request: Request, body: bytes) -> ReceiverConfig:
        """Give the receiver as it is once a signature fits: its secret may have been rotated a moment ago."""
        try:
            _verify(receiver, request, body)
        except InvalidSignatureError:
            if self._rechecks >= MAX_RECHECKS:
                raise
            self._rechecks += 1
            try:
                again = (await self._receivers.find(receiver.name, max_age=RECHECK_MAX_AGE)).receiver
            finally:
                self._rechecks -= 1
            if again is None or again.secrets == receiver.secrets:
                raise
            _verify(again, request, body)
            return again
        return receiver

    async def _record(self, receiver: ReceiverConfig, body: bytes) -> int:
        """Take what is surely Planasonix's."""
        try:
            event = DeliveryBody.model_validate_json(body)
        except ValidationError as error:
            problem = describe_problems(error)
            self._log_error(
                receiver, "body", f"got a signed delivery that it cannot read, and does not count it: {problem}."
            )
            return 400
        if not receiver.accepts(event.type):
            return _TAKEN
        if self._limiter.statistics().tasks_waiting >= MAX_WAITING:
            self._log_error(
                receiver,
                "queue",
                f"could not accept a delivery, because {MAX_WAITING} others wait to be written down. Planasonix sends "
                "it again. If it stays, look at the health of Airflow's database.",
            )
            return _NOT_NOW
        try:
            outcome = await to_thread.run_sync(self._deliveries.record, receiver, event, limiter=self._limiter)
        except PlanasonixError as error:
            self._log_error(receiver, "register", f"could not record a delivery. {error.message}")
            return _NOT_NOW
        except Exception as fault:
            self._log_error(
                receiver,
                "register",
                f"could not record a delivery ({type(fault).__name__}), and asked Planasonix to send it again. If it "
                "stays, look at the health of Airflow's database.",
            )
            return _NOT_NOW
        if outcome is RecordResult.NO_ASSET:
            self._log_error(receiver, "asset", f"could not record a delivery. {unknown_asset_message(receiver.asset)}")
            return _NOT_NOW
        return _TAKEN

    def _log_error(self, receiver: ReceiverConfig, kind: str, what: str) -> None:
        self._log.log(f"{kind} {receiver.name}", logging.ERROR, f"Webhook receiver {receiver.name!r} {what}")


def _reject(status: int) -> Response:
    """Refuse a delivery without waiting for its body."""
    return Response(status_code=status, headers={"Connection": "close"})


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
