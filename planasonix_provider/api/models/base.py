"""Base of the models: unknown fields are kept, ids are valid, times are aware, texts have a limit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    model_validator,
)

from planasonix_provider.api.json_bodies import shorten
from planasonix_provider.validators import YEARS, identifier

__all__ = [
    "Id",
    "Moment",
    "Priority",
    "Resource",
    "as_utc",
]

T = TypeVar("T")

#: The values of ``priority``.
Priority = Literal["low", "normal", "high"]
#: The key of the fields to drop, in the context of a validation.
WITHOUT = "without"
MAX_ID = 500
_MAX_NUMBER = 2**63 - 1


def as_utc(moment: datetime) -> datetime:
    """Return a time in UTC; a time without an offset is UTC already."""
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("the time is out of range") from None


def _text(value: Any) -> Any:
    """Return a text or a number as a text, and None for anything else: an odd code must not hide its message."""
    return shorten(str(value)) if isinstance(value, (str, int, float)) else None


def _none_if_invalid(value: Any, validate: Callable[[Any], Any]) -> Any:
    try:
        return validate(value)
    except ValidationError:
        return None


def _moment(value: datetime) -> datetime:
    moment = as_utc(value)
    if not YEARS[0] <= moment.year <= YEARS[1]:
        # Sums and differences with it would be out of range.
        raise ValueError(f"the year is not between {YEARS[0]} and {YEARS[1]}")
    return moment


def _identifier(value: str) -> str:
    if len(value) > MAX_ID:
        raise ValueError(f"an id has at most {MAX_ID} characters")
    return identifier("id", value)


#: An id that is valid in a URL path, so that an invalid one fails when the response is parsed and not when it is used.
Id = Annotated[str, AfterValidator(_identifier)]
#: A time in UTC, always aware.
Moment = Annotated[datetime, AfterValidator(_moment)]
#: A text that is required.
Name = Annotated[str, AfterValidator(lambda value: shorten(value))]
#: A text that may be missing, or may be a number; ``None`` if it is neither.
Text = Annotated[str | None, BeforeValidator(_text)]
#: A field that nothing depends on: ``None`` if it cannot be read, so that it fails no answer.
Lenient = Annotated[T | None, WrapValidator(_none_if_invalid)]
#: A whole number that a database can store.
Count = Annotated[int, Field(ge=-_MAX_NUMBER, le=_MAX_NUMBER)]
#: A number that is finite, and small enough to be counted in seconds or percent.
Number = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]


class Resource(BaseModel):
    """Base of all models: immutable. Unknown fields are kept.

    Lists fail fast: an error for each invalid item takes a kilobyte, and a response has room for millions of items.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop(cls, value: Any, info: ValidationInfo) -> Any:
        without = info.context.get(WITHOUT) if info.context else None
        if without is None or not isinstance(value, dict):
            return value
        return {name: value[name] for name in cls.model_fields if name in value and name not in without}

    def known_fields(self, *left_out: str) -> dict[str, Any]:
        """Return the known fields in JSON types, for Airflow to store. Unknown fields may be anything."""
        names = type(self).model_fields.keys() - set(left_out)
        plain = self.model_dump(mode="json", include=names)
        return plain | {
            name: value.known_fields() for name in names if isinstance(value := getattr(self, name), Resource)
        }
