"""The envelopes around the contents of responses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, Self, TypeVar, get_args

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, ValidationInfo, model_validator

from planasonix_provider.api.json_bodies import read_json
from planasonix_provider.api.models.base import WITHOUT, Id, Lenient, Resource

__all__ = [
    "DataEnvelope",
    "Envelope",
    "NoContent",
    "Page",
    "PageInfo",
    "PageMeta",
    "PlainText",
    "UnreadableRow",
]

T = TypeVar("T")

_ID = TypeAdapter(Id)

#: The maximum number of unreadable rows. Pages of the reference have at most 100 rows.
MAX_UNREADABLE = 1_000


class Envelope(Resource, Generic[T]):
    """Base of all envelopes."""

    #: The ``Accept`` header.
    accepts: ClassVar[str] = "application/json"
    #: The maximum size of a body, decompressed, and its maximum number of values: about a hundred times the usual.
    max_bytes: ClassVar[int] = 8_000_000
    max_values: ClassVar[int] = 50_000

    @classmethod
    def parse(cls, content: bytes, without: Collection[str] | None = None) -> Self:
        """Return the envelope of a body.

        :param content: the body, decompressed.
        :param without: known fields to drop, together with all unknown fields; ``None`` keeps all.
        :raises ValueError: if the body is not JSON or not such an envelope.
        """
        return cls.model_validate(read_json(content, cls.max_values), context={WITHOUT: without})

    @property
    @abstractmethod
    def content(self) -> T:
        """The model that the caller asked for."""


class DataEnvelope(Envelope[T], Generic[T]):
    """``{"data": …}``."""

    data: T

    @property
    def content(self) -> T:
        """Return the content of the envelope."""
        return self.data


def _read_row(model: type[Any], row: Any, context: Any) -> Any:
    """Return a row without its invalid fields. A valid id and state are enough."""
    try:
        return model.model_validate(row, context=context)
    except ValidationError as invalid:
        problems = invalid.errors(include_url=False, include_input=False, include_context=False)
        odd = {problem["loc"][0] for problem in problems if problem["loc"]} - {"id", "status"}
        if not odd or not isinstance(row, dict):
            raise
    return model.model_validate({name: value for name, value in row.items() if name not in odd}, context=context)


def _id_of(row: Any) -> str | None:
    try:
        return _ID.validate_python(row.get("id")) if isinstance(row, dict) else None
    except ValidationError:
        return None


def _problem_of(invalid: ValidationError) -> str:
    first = invalid.errors(include_url=False, include_input=False, include_context=False)[0]
    if not first["loc"]:
        return "it is not an object"
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


class NoContent(DataEnvelope[None]):
    """A 204, which has no body. Any body is ignored."""

    data: None = None

    @classmethod
    def parse(cls, content: bytes, without: Collection[str] | None = None) -> Self:
        """Return the envelope of a body."""
        return cls()


class PlainText(Envelope[str]):
    """The OpenAPI document, which is not JSON."""

    accepts = "application/yaml"

    text: str

    @classmethod
    def parse(cls, content: bytes, without: Collection[str] | None = None) -> Self:
        """Return the envelope of a body."""
        return cls(text=content.decode(errors="replace"))

    @property
    def content(self) -> str:
        """Return the content of the envelope."""
        return self.text


def _cursor(value: Any) -> Any:
    return str(value) if type(value) is int else value


class PageInfo(Resource):
    """The cursor to the next page, which is ``None`` on the last page.

    A cursor that is neither text nor number makes the page unreadable; otherwise the rest of the list would be missed.
    """

    limit: Lenient[int] = None
    cursor: Annotated[str | None, BeforeValidator(_cursor)] = None


class PageMeta(Resource):
    """The metadata of a page."""

    page: PageInfo = Field(default_factory=PageInfo)


class UnreadableRow(NamedTuple):
    """An unreadable row of a list: its position on the page, its id if that is readable, and the first error."""

    position: int
    id: str | None
    problem: str


class Page(Envelope["Page[T]"], Generic[T]):
    """One page of a list, which is its own envelope.

    An unreadable row is left out and does not affect the others. ``unreadable`` has its id.
    """

    max_bytes = 16_000_000
    max_values = 200_000

    data: list[T]
    meta: PageMeta = Field(default_factory=PageMeta)
    unreadable: tuple[UnreadableRow, ...] = Field(default=(), exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _row_by_row(cls, page: Any, info: ValidationInfo) -> Any:
        if not isinstance(page, dict) or not isinstance(page.get("data"), list):
            return page
        (model,) = get_args(cls.model_fields["data"].annotation)
        if not isinstance(model, type):
            # Page without a type argument.
            return page
        rows: list[Any] = []
        unreadable: list[UnreadableRow] = []
        for position, row in enumerate(page["data"]):
            try:
                rows.append(row if isinstance(row, model) else _read_row(model, row, info.context))
            except ValidationError as invalid:
                unreadable.append(UnreadableRow(position, _id_of(row), _problem_of(invalid)))
                if len(unreadable) > MAX_UNREADABLE:
                    raise ValueError(f"more than {MAX_UNREADABLE:,} rows cannot be read") from None
        return {**page, "data": rows, "unreadable": tuple(unreadable)}

    @property
    def cursor(self) -> str | None:
        """The cursor to the next page, or ``None`` on the last page."""
        return self.meta.page.cursor or None

    @property
    def content(self) -> Self:
        """Return the content of the envelope."""
        return self
