"""A webhook subscription, and the request bodies of its routes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, StrictBool

from planasonix_provider.api.models import WebhookBody, WebhookPatchBody, WebhookTestBody
from planasonix_provider.api.validation import MIN_SECRET_LENGTH
from planasonix_provider.simulator.model.request_bodies import StrictBody
from planasonix_provider.validators import is_loopback


def _receiver_url(url: str) -> str:
    """Reject a URL that sends signed events unencrypted over a network. The errors do not contain the URL."""
    if not re.fullmatch(r"[\x21-\x7e]+", url):
        raise ValueError("must be a URL of ASCII characters without blanks")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("must be a URL") from None
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    if not parts.hostname or not is_safe:
        raise ValueError("must be an https URL, or an http one of this machine")
    return url


def _event_type(event: str) -> str:
    if not event.strip():
        raise ValueError("must not be blank")
    return event


ReceiverUrl = Annotated[str, AfterValidator(_receiver_url)]
#: The set of event types is open.
EventType = Annotated[str, AfterValidator(_event_type)]
EventTypes = Annotated[list[EventType], Field(min_length=1)]


class WebhookRequestBody(StrictBody, WebhookBody):
    """The body that creates a subscription."""

    # Neither the repr nor a validation error contains the secret.
    model_config = ConfigDict(hide_input_in_errors=True)

    url: ReceiverUrl
    events: EventTypes
    secret: Annotated[str, Field(min_length=MIN_SECRET_LENGTH)] | None = Field(default=None, repr=False)


class WebhookPatchRequestBody(StrictBody, WebhookPatchBody):
    """The body that changes a subscription. Missing fields stay unchanged."""

    url: ReceiverUrl | None = None
    events: EventTypes | None = None
    enabled: StrictBool | None = None


class WebhookTestRequestBody(StrictBody, WebhookTestBody):
    """The body that sends a test event."""

    event: EventType | None = None


@dataclass(eq=False)
class Subscription:
    """A URL that receives the events of some types."""

    id: str
    position: int
    url: str
    events: list[str]
    secret: SecretStr
    created_at: datetime
    updated_at: datetime | None = None
    enabled: bool = True
    is_deleted: bool = False
    last_delivered_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        """Whether deliveries are sent."""
        return self.enabled and not self.is_deleted
