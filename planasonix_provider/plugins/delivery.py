"""The body of a webhook delivery. It is parsed only after its signature was verified."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from planasonix_provider.api.event_types import JOB_END_EVENTS
from planasonix_provider.api.models.base import as_utc
from planasonix_provider.validators import YEARS, format_utc


def _printable(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("must be a text that can be printed")
    return text


def _in_valid_year(moment: datetime) -> datetime:
    # Not the last year: a partition ends after the time that it contains.
    if not YEARS[0] <= moment.year < YEARS[1]:
        raise ValueError("the time is out of range")
    return moment


#: An id or a name that every database can store.
Text = Annotated[str, Field(max_length=500), AfterValidator(_printable)]
#: A time in UTC that has a partition key.
Time = Annotated[AwareDatetime, AfterValidator(as_utc), AfterValidator(_in_valid_year)]


class DeliveryData(BaseModel):
    """The details of the job or backfill."""

    model_config = ConfigDict(hide_input_in_errors=True)

    status: Text | None = None
    connection_id: Text | None = None
    pipeline_id: Text | None = None


class DeliveryBody(BaseModel):
    """The body of a delivery. Unknown event types and unknown fields are accepted.

    The ``id`` of an event is the same in repeated deliveries. Its ``type`` is an event name such as ``job.succeeded``.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    id: Text
    type: Text
    timestamp: Time
    job_id: Text | None = None
    backfill_id: Text | None = None
    data: DeliveryData = DeliveryData()

    @property
    def is_partitionable(self) -> bool:
        """Return whether the time of the event tells which partition was loaded: a backfill loads older ones."""
        return self.type in JOB_END_EVENTS and self.job_id is not None and self.backfill_id is None

    def to_asset_extra(self, receiver: str) -> dict[str, Any]:
        """Return the extra of the asset event: a flat JSON object without empty fields."""
        fields = {
            "event": self.type,
            "event_id": self.id,
            "timestamp": format_utc(self.timestamp),
            "receiver": receiver,
            "job_id": self.job_id,
            "backfill_id": self.backfill_id,
            **self.data.model_dump(),
        }
        return {name: value for name, value in fields.items() if value is not None}


def describe_problems(error: ValidationError) -> str:
    """Return which fields of a body are invalid, and why, without any of its values."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    # A problem without a field is invalid JSON, and pydantic's message would quote it.
    return "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" if problem["loc"] else "it is not a JSON object"
        for problem in problems
    )
