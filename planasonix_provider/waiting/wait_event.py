"""The event that ends a wait. A trigger sends it to its task, and a wait on a worker returns it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from planasonix_provider.api.errors import PlanasonixError, PlanasonixLostTrackError, PlanasonixTimeoutError, error_of
from planasonix_provider.api.json_bodies import make_storable
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.waiting.target_registry import TARGETS
from planasonix_provider.waiting.targets import WaitTarget, Work, WorkTarget

#: Fields of a job or backfill that no task reads from an event. They can be large, and Airflow stores each event.
_EXCLUDED_FIELDS = ("metadata", "job_ids", "tables")


class InvalidWaitEventError(PlanasonixLostTrackError):
    """The payload is not an event of this version of the package."""


def _known_kind(kind: str) -> str:
    if kind not in TARGETS:
        raise ValueError(f"{kind!r} is not one of {', '.join(TARGETS)}")
    return kind


class WaitEvent(BaseModel):
    """How a wait ended. The event has all that its task needs, because arguments of ``defer()`` may get lost."""

    # Fields that a later release adds are ignored: the triggerer may be upgraded before the workers.
    model_config = ConfigDict(frozen=True)

    #: The format of the event. A payload of another version is rejected.
    version: Literal[1] = 1
    #: The kind of the wait's target.
    kind: Annotated[str, AfterValidator(_known_kind)]
    #: The target's id; which id it is, its ``id_name`` says.
    id: str = Field(min_length=1)
    #: ``over``: the work is in a state that was waited for. ``error``: the wait failed or reached its deadline.
    outcome: Literal["over", "error"]
    #: The job or backfill as it was last seen.
    job: Job | None = None
    backfill: Backfill | None = None
    #: The error's ``kind``, its message, and the API's own error code if there is one.
    error: str | None = None
    message: str | None = None
    code: str | None = None
    #: The deadline of the wait, for a task that has more to do before it.
    deadline: AwareDatetime | None = None
    #: When the trigger sent the event, by its clock.
    sent_at: AwareDatetime | None = None
    #: The try of the task that deferred, on an Airflow that keeps events for retries.
    try_number: int | None = None

    @model_validator(mode="after")
    def _check_outcome(self) -> Self:
        has_id = issubclass(TARGETS[self.kind], WorkTarget)
        if self.outcome == "over" and (self.work is None or (has_id and self.work.id != self.id)):
            raise ValueError(f"an outcome of 'over' needs that very {self.kind}")
        if self.outcome == "error" and not (self.error and self.message):
            raise ValueError("an outcome of 'error' needs its kind and its message")
        return self

    @property
    def work(self) -> Work | None:
        """The job or backfill as it was last seen."""
        return self.backfill if TARGETS[self.kind].work_type is Backfill else self.job

    @classmethod
    def over(cls, target: WaitTarget, work: Work) -> Self:
        """Return the event of a wait that has reached its goal."""
        return cls(kind=target.kind, id=target.id, outcome="over", **_field_of(work))

    @classmethod
    def failed(cls, target: WaitTarget, error: PlanasonixError, work: Work | None = None) -> Self:
        """Return the event of a wait that an error ended; ``work`` is the job or backfill as it was last seen."""
        return cls(
            kind=target.kind,
            id=target.id,
            outcome="error",
            error=error.kind,
            message=error.message,
            code=error.code,
            **_field_of(work),
        )

    @classmethod
    def from_payload(cls, payload: Any, *kinds: str) -> Self:
        """Return the event of a payload that Airflow passed to a task.

        ``kinds`` are the kinds of target that the task may wait for. Anything but a complete event of this version and
        of one of these kinds raises ``InvalidWaitEventError``.
        """
        try:
            event = cls.model_validate(payload)
        except ValidationError as invalid:
            problems = "; ".join(
                f"{'.'.join(str(step) for step in problem['loc']) or 'event'}: {problem['msg']}"
                for problem in invalid.errors(include_url=False, include_input=False)[:3]
            )
        else:
            if event.kind in kinds:
                return event
            problems = f"kind: it is of a {event.kind}"
        kind = " or ".join(kinds)
        raise InvalidWaitEventError(
            f"The trigger handed back an event that this version of airflow-provider-planasonix cannot read "
            f"({problems}), so it is unknown how the {kind} ended. Check that workers and triggerer run the same "
            f"version, look at the {kind} in Planasonix, and clear the task."
        )

    @property
    def is_out_of_time(self) -> bool:
        """Whether the wait ended at its deadline."""
        return self.error == PlanasonixTimeoutError.kind

    def with_cancel_result(self, result: Work | PlanasonixError, cancel_hint: str) -> Self:
        """Return this event of a deadline, with the result of the cancel that followed.

        ``cancel_hint`` is the command by which a person ends the work. Work that ended just before the cancel arrived
        is over, and its wait not out of time.
        """
        if isinstance(result, PlanasonixError):
            return self._with_note(f"It could not be cancelled and may still run: {result} To end it: {cancel_hint}")
        if result.is_over and result.status != "cancelled":
            return type(self)(kind=self.kind, id=self.id, outcome="over", **_field_of(result))
        if isinstance(result, Backfill) and not result.is_over:
            # A backfill has no cancel route of its own: it runs on, and creates more jobs.
            return self._with_note(
                f"The jobs that it has made were asked to cancel; it is {result.status}, and may make more. To end it: "
                f"{cancel_hint}"
            )
        return self._with_note("It was cancelled." if result.is_over else "It was asked to cancel.")

    def without_cancel(self) -> Self:
        """Return this event of a deadline, with a note that the work was not cancelled."""
        return self._with_note("It was not cancelled, and runs on.")

    def _with_note(self, note: str) -> Self:
        return self.model_copy(update={"message": f"{self.message} {note}"})

    def to_payload(self) -> dict[str, Any]:
        """Return the event in JSON types, with those fields of the job or backfill that a task reads."""
        payload = self.model_dump(mode="json", exclude_none=True, exclude={"job", "backfill"})
        for name, work in (("job", self.job), ("backfill", self.backfill)):
            if work:
                # An event that Airflow cannot store ends the triggerer, and with it the waits of all tasks.
                fields = make_storable(work.known_fields(*_EXCLUDED_FIELDS))
                payload[name] = {field: value for field, value in fields.items() if value is not None}
        return payload

    def work_or_error(self) -> Work:
        """Return the job or backfill that has reached the goal, or raise the error that ended the wait."""
        if self.outcome == "over" and self.work:
            return self.work
        raise error_of(self.error or "", self.message or "", self.code)


def _field_of(work: Work | None) -> dict[str, Any]:
    return {} if work is None else {"backfill" if isinstance(work, Backfill) else "job": work}
