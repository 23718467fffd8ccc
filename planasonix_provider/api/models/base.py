"""What all models share: unknown fields are kept, ids can be asked for, times are aware."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from planasonix_provider.parameters import identifier

#: What a start accepts as its ``priority``.
Priority = Literal["low", "normal", "high"]


def as_utc(moment: datetime) -> datetime:
    """Put a time into UTC.

    :param moment: any time; one without an offset is taken as UTC, which is what the reference's times are.
    :return: the same moment in UTC.
    :raises ValueError: if it lies before the year 1 or after the year 9999 there.
    """
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("the time is out of range") from None


#: An id that can be asked for: an answer with another is found out here, and not where somebody goes on from it.
Id = Annotated[str, AfterValidator(lambda value: identifier("id", value))]
#: A time in UTC, always aware.
Moment = Annotated[datetime, AfterValidator(as_utc)]


class Resource(BaseModel):
    """Base of all that the API sends: immutable, and keeping the fields that it does not know.

    Its lists fail fast: a complaint of each wrong item takes a kilobyte, and an answer has room for millions of items.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
