"""A webhook subscription, and the bodies that make and change one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, StrictBool

from planasonix_provider.api.models import WebhookBody, WebhookPatchBody, WebhookTestBody
from planasonix_provider.api.validation import MIN_SECRET_LENGTH
from planasonix_provider.simulator.model.request_bodies import RejectNullFields
from planasonix_provider.validators import is_loopback


def _receiver(url: str) -> str:
    """Refuse a URL that would send signed events over an open wire. What is refused is not repeated."""
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


def _name(event: str) -> str:
    if not event.strip():
        raise ValueError("must not be blank")
    return event


Receiver = Annotated[str, AfterValidator(_receiver)]
#: An event's type. The set is open.
EventName = Annotated[str, AfterValidator(_name)]
EventNames = Annotated[list[EventName], Field(min_length=1)]


class WebhookRequestBody(RejectNullFields, WebhookBody):
    """A body that the API takes for a subscription."""

    # Neither a repr nor a complaint tells the secret.
    model_config = ConfigDict(hide_input_in_errors=True)

    url: Receiver
    events: EventNames
    secret: Annotated[str, Field(min_length=MIN_SECRET_LENGTH)] | None = Field(default=None, repr=False)


class WebhookPatchRequestBody(RejectNullFields, WebhookPatchBody):
    """A body that the API takes for a change of a subscription; what is left out stays as it is."""

    url: Receiver | None = None
    events: EventNames | None = None
    enabled: StrictBool | None = None


class WebhookTestRequestBody(RejectNullFields, WebhookTestBody):
    """A body that the API takes for a test event."""

    event: EventName | None = None


@dataclass(eq=False)
class Subscription:
    """Who is told of which events.

    :param id: its id.
    :param position: how many subscriptions were created before it.
    :param url: where deliveries go.
    :param events: the types of the events.
    :param secret: what deliveries are signed with.
    :param created_at: when it was created.
    :param updated_at: when it was changed last, or ``None``.
    :param enabled: whether anything is delivered.
    :param is_deleted: whether it is gone.
    :param last_delivered_at: when it got its last event, or ``None``.
    """

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
    def is_live(self) -> bool:
        """Whether deliveries go out."""
        return self.enabled and not self.is_deleted
