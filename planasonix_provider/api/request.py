"""An API request as a value. It does no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from planasonix_provider import validators
from planasonix_provider.api.models import Envelope

T = TypeVar("T")

#: The path of the API below the base URL.
PREFIX = "/api/v1"
#: The maximum number of items on a page.
PAGE_SIZE = 100


class Idempotency(Enum):
    """Whether a request may be repeated, which decides what is retried."""

    SAFE = "safe"
    """A read or a cancel: a second one changes nothing."""
    NOT_IDEMPOTENT = "not idempotent"
    """A start: it is repeated only if the first one certainly had no effect."""


@dataclass(frozen=True)
class Request(Generic[T]):
    """An API request as a value.

    :param method: the HTTP method.
    :param path: the path below ``/api/v1`` as the reference writes it, with its parameters in braces.
    :param envelope: the model of the response's body.
    :param idempotency: whether the request may be repeated.
    :param ids: the values of the parameters in ``path``.
    :param query: the query parameters; those that are ``None`` are not sent.
    :param body: the JSON body, or ``None`` for no body.
    :param idempotency_key: sent with a start, so that the server can recognize a repeated request.
    :param max_items: for a list, how many items the caller wants; ``None`` is all.
    :param excluded_fields: known fields of the response that are dropped, together with all unknown fields; ``None``
        keeps all fields.
    :param route: the name of the route's function, for metrics.
    :raises ValueError: if one of ``ids`` is not a valid id.
    """

    method: str
    path: str
    envelope: type[Envelope[T]]
    idempotency: Idempotency = Idempotency.SAFE
    ids: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str | int | None] = field(default_factory=dict)
    # Not in the repr, because it may contain a secret.
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    idempotency_key: str | None = None
    max_items: int | None = None
    # Not in the repr, because the request that is sent is the same.
    excluded_fields: frozenset[str] | None = field(default=None, repr=False)
    route: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, value in self.ids.items():
            validators.identifier(name, value)

    @property
    def url_path(self) -> str:
        """The path, with each id percent-encoded as one segment."""
        return PREFIX + re.sub(r"\{(\w+)\}", lambda found: quote(self.ids[found[1]], safe=""), self.path)

    @property
    def can_wait(self) -> bool:
        """Whether the request can be delayed. Starts and cancels cannot."""
        return self.method == "GET"

    @property
    def key(self) -> str:
        """A text that is equal for equal requests."""
        return f"{self} {sorted((name, value) for name, value in self.query.items() if value is not None)}"

    def __str__(self) -> str:
        """Return the method and the path without the query, as messages show them."""
        return f"{self.method} {self.url_path}"

    def without(self, *names: str) -> Request[T]:
        """Return the request with fields of its response dropped: a wait holds thousands of responses.

        :param names: known fields to drop. Unknown fields are dropped, too, because they may be large.
        """
        return replace(self, excluded_fields=frozenset(names))

    def next_page(self, cursor: str) -> Request[T]:
        """Return the request for the page after a cursor."""
        return replace(self, query={**self.query, "cursor": cursor})
