"""The one event that ends a wait: what a trigger hands back to its task, and what a wait on a worker gives."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixLostTrackError,
    PlanasonixTimeoutError,
    error_of,
)
from planasonix_provider.api.models import Job


class InvalidEventError(PlanasonixLostTrackError):
    """What a trigger handed back is no event of this package, or of another version of it."""


class WaitEvent(BaseModel):
    """How a wait ended. It holds all that its task needs: what a task passes to ``defer()`` may not come back.

    :param version: which shape of event this is, so that one of another version is refused and not misread.
    :param job_id: the job that was waited for.
    :param outcome: ``over``: the job has ended, and ``job`` says how; ``error``: the wait could not go on, or was out
        of time, and ``error`` and ``message`` say why.
    :param job: the job as it was last seen.
    :param error: the ``kind`` of the error.
    :param message: the error's message.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    job_id: str = Field(min_length=1)
    outcome: Literal["over", "error"]
    job: Job | None = None
    error: str | None = None
    message: str | None = None

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.outcome == "over" and not (self.job and self.job.is_over and self.job.id == self.job_id):
            raise ValueError("an outcome of 'over' needs that very job, in a state that is over")
        if self.outcome == "error" and not (self.error and self.message):
            raise ValueError("an outcome of 'error' needs its kind and its message")
        return self

    @classmethod
    def over(cls, job: Job) -> Self:
        """Make the event of a job that has ended.

        :param job: the job, in a state that is over.
        :return: the event.
        """
        return cls(job_id=job.id, outcome="over", job=job)

    @classmethod
    def failed(cls, job_id: str, error: PlanasonixError, job: Job | None = None) -> Self:
        """Make the event of a wait that could not go on.

        :param job_id: the job that was waited for.
        :param error: why the wait ended.
        :param job: the job as it was last seen, if it was.
        :return: the event.
        """
        return cls(job_id=job_id, outcome="error", error=error.kind, message=error.message, job=job)

    @classmethod
    def from_payload(cls, payload: Any) -> Self:
        """Read what a trigger handed back.

        :param payload: what Airflow gave to the task's resume method.
        :return: the event.
        :raises InvalidEventError: if it is anything else than a whole event of this version.
        """
        try:
            return cls.model_validate(payload)
        except ValidationError as invalid:
            wrong = "; ".join(
                f"{'.'.join(str(step) for step in problem['loc']) or 'event'}: {problem['msg']}"
                for problem in invalid.errors(include_url=False, include_input=False)[:3]
            )
            raise InvalidEventError(
                f"The trigger handed back an event that this version of airflow-provider-planasonix cannot read "
                f"({wrong}), so nobody knows how the job ended. Check that workers and triggerer run the same version, "
                "look at the job in Planasonix, and clear the task."
            ) from None

    @property
    def is_out_of_time(self) -> bool:
        """Whether the wait ended at its deadline."""
        return self.error == PlanasonixTimeoutError.kind

    def after_cancel(self, answer: Job | PlanasonixError) -> Self:
        """Take in how the cancel went that followed on the deadline.

        :param answer: the job after the cancel, or why it could not be cancelled.
        :return: the event to report: a job that ended just before the cancel came is over, and not out of time.
        """
        if isinstance(answer, PlanasonixError):
            note = (
                f"It could not be cancelled and may still run: end it in Planasonix before you clear the task. {answer}"
            )
            return self.failed(self.job_id, PlanasonixLostTrackError(f"{self.message} {note}"), self.job)
        if answer.status in ("succeeded", "failed"):
            return self.over(answer)
        return self.model_copy(update={"message": f"{self.message} It was asked to cancel."})

    def after_no_cancel(self) -> Self:
        """Take in that whoever waited leaves the job alone at the deadline.

        :return: the event to report.
        """
        return self.model_copy(update={"message": f"{self.message} It was not cancelled, and runs on."})

    def to_payload(self) -> dict[str, Any]:
        """Write the event as JSON types, which is all that survives the way to the task.

        :return: a plain dict.
        """
        return self.model_dump(mode="json", exclude_none=True)

    def job_or_error(self) -> Job:
        """Give the job that is over, or raise what ended the wait before it was.

        :return: the job, in a state that is over.
        :raises PlanasonixError: of the kind that the wait met.
        """
        if self.outcome == "over" and self.job:
            return self.job
        raise error_of(self.error or "", self.message or "")
