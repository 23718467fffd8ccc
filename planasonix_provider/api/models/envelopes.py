"""What answers wrap their contents in, whatever these are."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Generic, Self, TypeVar

from pydantic import Field

from planasonix_provider.api.json_bodies import read_json
from planasonix_provider.api.models.base import Resource

T = TypeVar("T")


class Reply(Resource, Generic[T]):
    """An envelope, and how to take out what a caller asked for."""

    #: What a caller says that it takes.
    accepts: ClassVar[str] = "application/json"

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a body.

        :param content: the body, as it came over the wire.
        :return: the envelope.
        :raises ValueError: if it is not JSON.
        :raises pydantic.ValidationError: if it is no such envelope.
        """
        return cls.model_validate(read_json(content))

    @property
    @abstractmethod
    def value(self) -> T:
        """What the envelope holds."""


class DataReply(Reply[T], Generic[T]):
    """``{"data": …}``."""

    data: T

    @property
    def value(self) -> T:
        """What was asked for."""
        return self.data


class NoContent(Reply[None]):
    """A 204, which has no body; whatever comes instead says nothing."""

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Take any body for none."""
        return cls()

    @property
    def value(self) -> None:
        """Nothing."""
        return


class PlainText(Reply[str]):
    """A body that is no JSON: the OpenAPI document."""

    accepts = "application/yaml"

    text: str

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a body as UTF-8."""
        return cls(text=content.decode(errors="replace"))

    @property
    def value(self) -> str:
        """The text."""
        return self.text


class PageInfo(Resource):
    """Where a page ends; a ``cursor`` of null is the last page."""

    limit: int | None = None
    cursor: str | None = None


class PageMeta(Resource):
    """What a page says about itself."""

    page: PageInfo = Field(default_factory=PageInfo)


class Page(Reply["Page[T]"], Generic[T]):
    """One page of a list, which is its own envelope."""

    data: list[T] = Field(fail_fast=True)
    meta: PageMeta = Field(default_factory=PageMeta)

    @property
    def cursor(self) -> str | None:
        """What asks for the next page, or ``None`` on the last one."""
        return self.meta.page.cursor or None

    @property
    def value(self) -> Self:
        """The page itself."""
        return self
