"""Webhook subscriptions, their deliveries, and their signing secrets."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ConfigDict, Field, SecretStr, SerializationInfo, field_serializer, model_validator

from planasonix_provider.api.models.base import Count, Id, Lenient, Moment, Name, Resource, Text
from planasonix_provider.api.models.envelopes import DataEnvelope, Page

__all__ = [
    "Delivery",
    "DeliveryPage",
    "NewWebhook",
    "NewWebhookEnvelope",
    "RotatedSecret",
    "RotatedSecretEnvelope",
    "SecretResource",
    "TestDelivery",
    "TestDeliveryEnvelope",
    "Webhook",
    "WebhookBody",
    "WebhookEnvelope",
    "WebhookPage",
    "WebhookPatchBody",
    "WebhookTestBody",
]

W = TypeVar("W", bound=Resource)


class WebhookBody(Resource):
    """The body that creates a subscription. Without ``secret``, the server creates one."""

    model_config = ConfigDict(hide_input_in_errors=True)

    url: str
    events: list[str]
    secret: str | None = Field(default=None, repr=False)


class WebhookPatchBody(Resource):
    """The body that changes a subscription."""

    url: str | None = None
    events: list[str] | None = None
    enabled: bool | None = None


class WebhookTestBody(Resource):
    """The body that requests a test event."""

    event: str | None = None


def _forget(resource: W) -> W:
    """Remove a secret where the reference has none: a server may send back what it received.

    The reference says only that a secret *may* be omitted from later responses.
    """
    for name in {"secret", "signing_secret"} & set(resource.model_extra or ()):
        del (resource.model_extra or {})[name]
        resource.model_fields_set.discard(name)
    return resource


class Webhook(Resource):
    """A subscription to events, without its signing secret."""

    model_config = ConfigDict(hide_input_in_errors=True)

    id: Id
    url: str
    events: list[str] = Field(default_factory=list, fail_fast=True)
    enabled: bool | None = None
    created_at: Lenient[Moment] = None
    updated_at: Lenient[Moment] = None
    last_delivery_at: Lenient[Moment] = None
    failure_count_24h: Lenient[Count] = None

    _without_secret = model_validator(mode="after")(_forget)


class SecretResource(Resource):
    """Base of models with a signing secret, which is in no repr, no pickle, and no dump without ``reveal``."""

    model_config = ConfigDict(hide_input_in_errors=True)

    signing_secret: SecretStr

    @field_serializer("signing_secret", when_used="json")
    def _hide(self, secret: SecretStr, info: SerializationInfo) -> str:
        reveal = isinstance(info.context, dict) and info.context.get("reveal") is True
        return secret.get_secret_value() if reveal else str(secret)

    def __getstate__(self) -> dict[Any, Any]:
        raise TypeError(f"A {type(self).__name__} holds a secret, so it is not pickled: keep its other fields.")


class NewWebhook(Webhook, SecretResource):
    """A new subscription. Only this response contains the secret."""


class RotatedSecret(SecretResource):
    """A rotated signing secret."""

    id: Id
    rotated_at: Lenient[Moment] = None

    _without_secret = model_validator(mode="after")(_forget)


class TestDelivery(Resource):
    """A test event that was requested."""

    __test__ = False  # it is none of pytest's

    delivery_id: str = Field(min_length=1)
    status: str


class Delivery(Resource):
    """An event that was or will be sent to a subscription's URL."""

    id: Id
    event: Name
    status: Name
    http_status: Lenient[Count] = None
    attempt: Lenient[Count] = None
    last_error: Text = None
    delivered_at: Lenient[Moment] = None


class WebhookEnvelope(DataEnvelope[Webhook]):
    """``{"data": {webhook}}``."""


class NewWebhookEnvelope(DataEnvelope[NewWebhook]):
    """``{"data": {webhook with its secret}}``."""

    model_config = ConfigDict(hide_input_in_errors=True)


class RotatedSecretEnvelope(DataEnvelope[RotatedSecret]):
    """``{"data": {id and secret}}``."""

    model_config = ConfigDict(hide_input_in_errors=True)


class TestDeliveryEnvelope(DataEnvelope[TestDelivery]):
    """``{"data": {test delivery}}``."""

    __test__ = False  # it is none of pytest's


class WebhookPage(Page[Webhook]):
    """A page of subscriptions."""


class DeliveryPage(Page[Delivery]):
    """A page of deliveries."""
