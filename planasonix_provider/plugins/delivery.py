"""What a webhook delivery says. Its body is read only once its signature was found good."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from planasonix_provider.api.models.base import as_utc
from planasonix_provider.api.validation import timestamp


def _printable(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("must be a text that can be printed")
    return text


#: An id or a name, in a form that every database keeps.
Text = Annotated[str, Field(max_length=500), AfterValidator(_printable)]


class DeliveryData(BaseModel):
    """What a delivery says of its job or backfill."""

    model_config = ConfigDict(hide_input_in_errors=True)

    status: Text | None = None
    connection_id: Text | None = None
    pipeline_id: Text | None = None


class DeliveryBody(BaseModel):
    """The body of a delivery. The set of events is open, and so is what they tell.

    :param id: the event's id, the same however often it is delivered.
    :param type: what happened, as ``job.succeeded``.
    :param timestamp: when it happened, in UTC.
    :param job_id: the job that it is about.
    :param backfill_id: the backfill that it is about.
    :param data: what else is known.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    id: Text
    type: Text
    timestamp: Annotated[AwareDatetime, AfterValidator(as_utc)]
    job_id: Text | None = None
    backfill_id: Text | None = None
    data: DeliveryData = DeliveryData()

    def to_asset_extra(self, receiver: str) -> dict[str, Any]:
        """Tell it in the extra of an asset event.

        :param receiver: the receiver's name.
        :return: flat, in JSON types, without what the delivery does not say.
        """
        fields = {
            "event": self.type,
            "event_id": self.id,
            "timestamp": timestamp(self.timestamp),
            "receiver": receiver,
            "job_id": self.job_id,
            "backfill_id": self.backfill_id,
            **self.data.model_dump(),
        }
        return {name: value for name, value in fields.items() if value is not None}


def describe_problems(error: ValidationError) -> str:
    """Say what is wrong with a body, without a word of it.

    :param error: what the model says.
    :return: the fields and what each should be.
    """
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    # What can be wrong with no field is the JSON itself, and pydantic would cite it.
    return "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" if problem["loc"] else "it is not a JSON object"
        for problem in problems
    )
