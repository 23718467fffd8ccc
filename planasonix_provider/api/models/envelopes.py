"""What answers wrap their contents in, whatever these are."""

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

#: How many rows of a page may be unreadable; pages of the reference have at most 100 rows.
MAX_UNREADABLE = 1_000


class Envelope(Resource, Generic[T]):
    """An envelope, and how to take out what a caller asked for."""

    #: What a caller says that it takes.
    accepts: ClassVar[str] = "application/json"
    #: How many bytes a body may have, unpacked, and how many values: some hundred times what the route returns.
    max_bytes: ClassVar[int] = 8_000_000
    max_values: ClassVar[int] = 50_000

    @classmethod
    def parse(cls, content: bytes, without: Collection[str] | None = None) -> Self:
        """Read a body.

        :param content: the body, as it came over the wire.
        :param without: known fields to drop, and with them all unknown fields; ``None`` keeps everything.
        :return: the envelope.
        :raises ValueError: if it is not JSON.
        :raises pydantic.ValidationError: if it is no such envelope.
        """
        return cls.model_validate(read_json(content, cls.max_values), context={WITHOUT: without})

    @property
    @abstractmethod
    def content(self) -> T:
        """What the envelope holds."""


class DataEnvelope(Envelope[T], Generic[T]):
    """``{"data": …}``."""

    data: T

    @property
    def content(self) -> T:
        """What was asked for."""
        return self.data


def _read_row(model: type[Any], row: Any, context: Any) -> Any:
    """Read a row, if need be without what is wrong with it: an id and a state are enough."""
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


class NoContent(Envelope[None]):
    """A 204, which has no body; whatever comes instead says nothing."""

    @classmethod
    def parse(cls, content: bytes, without: Collection[str] | None = None) -> Self:
        """Take any body for none."""
        return cls()

    @property
    def content(self) -> None:
        """Nothing."""
        return


class PlainText(Envelope[str]):
    """A body that is no JSON: the OpenAPI document."""

    accepts = "application/yaml"

    text: str

    @classmethod
    def parse(cls, content: bytes, without: Collection[str] | None = None) -> Self:
        """Read a body as UTF-8."""
        return cls(text=content.decode(errors="replace"))

    @property
    def content(self) -> str:
        """The text."""
        return self.text


def _cursor(value: Any) -> Any:
    return str(value) if type(value) is int else value


class PageInfo(Resource):
    """The end of a page; the ``cursor`` of the last page is null.

    Any other cursor that is no text and no number makes the page unreadable, or the rest of the list would be missed.
    """

    limit: Lenient[int] = None
    cursor: Annotated[str | None, BeforeValidator(_cursor)] = None


class PageMeta(Resource):
    """What a page says about itself."""

    page: PageInfo = Field(default_factory=PageInfo)


class UnreadableRow(NamedTuple):
    """A row of a list that cannot be read.

    :param position: its place among the rows of its page, from 0.
    :param id: its id, if that can be read.
    :param problem: the first validation error, without its values.
    """

    position: int
    id: str | None
    problem: str


class Page(Envelope["Page[T]"], Generic[T]):
    """One page of a list, which is its own envelope.

    A row that cannot be read is left out and does not affect the others. Its id is in ``unreadable``.
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
        """What asks for the next page, or ``None`` on the last one."""
        return self.meta.page.cursor or None

    @property
    def content(self) -> Self:
        """The page itself."""
        return self
