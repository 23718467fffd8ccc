"""One call of the API, as a value: what is asked, what the answer holds, and what repeating it does."""

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

#: Where the routes live below the base URL.
PREFIX = "/api/v1"
#: The most that one page of a list holds.
PAGE_SIZE = 100


class Idempotency(Enum):
    """What repeating a request does, which decides what may be tried again."""

    SAFE = "safe"
    """A read, or a cancel: the second time changes nothing."""
    NOT_IDEMPOTENT = "starts work"
    """A start: the second one may start the work twice, so it is repeated only where the first surely did nothing."""


@dataclass(frozen=True)
class Request(Generic[T]):
    """One call of the API, as a value.

    :param method: the HTTP method.
    :param path: the route as the reference writes it, below ``/api/v1``, with its parameters in braces.
    :param reply: the envelope of the answer.
    :param repeat: what repeating it does; by default it is safe.
    :param ids: the values of the parameters in ``path``.
    :param query: the query parameters; ``None`` is left out.
    :param body: what is sent as JSON, or ``None`` for no body.
    :param idempotency_key: for a start, what makes a second delivery of it recognisable.
    :param at_most: for a list, how many items the caller wants in all; ``None`` is all.
    :param dropped: known fields of the answer that are dropped, and with them all unknown fields; ``None`` keeps all.
    :raises ValueError: if one of ``ids`` can be no id.
    """

    method: str
    path: str
    envelope: type[Envelope[T]]
    idempotency: Idempotency = Idempotency.SAFE
    ids: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str | int | None] = field(default_factory=dict)
    # In no repr: there may be a secret in it.
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    idempotency_key: str | None = None
    max_items: int | None = None
    # Not in the repr, because the request that is sent is the same.
    excluded_fields: frozenset[str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, value in self.ids.items():
            validators.identifier(name, value)

    @property
    def url_path(self) -> str:
        """The path to ask for, each id percent-encoded as one segment."""
        return PREFIX + re.sub(r"\{(\w+)\}", lambda found: quote(self.ids[found[1]], safe=""), self.path)

    @property
    def can_wait(self) -> bool:
        """Whether nothing is lost if it is sent later: a start and a cancel are wanted now."""
        return self.method == "GET"

    @property
    def key(self) -> str:
        """What is equal for two requests that ask for the same."""
        return f"{self} {sorted((name, value) for name, value in self.query.items() if value is not None)}"

    def __str__(self) -> str:
        """The request as messages name it: method and path, without the query."""
        return f"{self.method} {self.url_path}"

    def without(self, *names: str) -> Request[T]:
        """Keep only what a wait needs: thousands of answers are held at a time, and unknown fields may hold anything.

        :param names: known fields of the answer that are not needed.
        :return: the same request, whose answer has neither these nor unknown fields.
        """
        return replace(self, excluded_fields=frozenset(names))

    def next_page(self, cursor: str) -> Request[T]:
        """Ask for the page behind a cursor.

        :param cursor: what the page before this one named.
        :return: the same request, for the next page.
        """
        return replace(self, query={**self.query, "cursor": cursor})
