"""The one event that ends a wait: what a trigger hands back to its task, and what a wait on a worker gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixLostTrackError,
    PlanasonixTimeoutError,
    error_of,
)
from planasonix_provider.api.json_bodies import storable
from planasonix_provider.api.models import Backfill, Job

if TYPE_CHECKING:
    from planasonix_provider.waiting.targets import WaitTarget, Work


#: The fields of a job or a backfill that no task needs of an event; Airflow stores each event, and these can be large.
_NOT_IN_A_PAYLOAD = ("metadata", "job_ids", "tables")


class InvalidWaitEventError(PlanasonixLostTrackError):
    """What a trigger handed back is no event of this package, or of another version of it."""


class WaitEvent(BaseModel):
    """How a wait ended. It holds all that its task needs: what a task passes to ``defer()`` may not come back.

    :param version: which shape of event this is, so that one of another version is refused and not misread.
    :param kind: what was waited for: a ``job``, a ``backfill``, or a connection's next ``sync``.
    :param id: its id; of a ``sync``, the connection's.
    :param outcome: ``over``: the job or backfill is in a state that was waited for; ``error``: the wait could not go
        on, or was out of time, and ``error`` and ``message`` say why.
    :param job: the job as it was last seen.
    :param backfill: the backfill as it was last seen.
    :param error: the ``kind`` of the error.
    :param message: the error's message.
    :param code: the API's own error code, if the error has one.
    :param deadline: until when the wait could have lasted, for a task that has more to do by then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    kind: Literal["job", "backfill", "sync"]
    id: str = Field(min_length=1)
    outcome: Literal["over", "error"]
    job: Job | None = None
    backfill: Backfill | None = None
    error: str | None = None
    message: str | None = None
    code: str | None = None
    deadline: AwareDatetime | None = None

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.outcome == "over" and (self.work is None or (self.kind != "sync" and self.work.id != self.id)):
            raise ValueError(f"an outcome of 'over' needs that very {self.kind}")
        if self.outcome == "error" and not (self.error and self.message):
            raise ValueError("an outcome of 'error' needs its kind and its message")
        return self

    @property
    def work(self) -> Work | None:
        """The job or backfill as it was last seen."""
        return self.backfill if self.kind == "backfill" else self.job

    @classmethod
    def over(cls, subject: WaitTarget, work: Work) -> Self:
        """Make the event of a wait that has come to its end.

        :param subject: what was waited for.
        :param work: the job or backfill, in a state that was waited for.
        :return: the event.
        """
        return cls(kind=subject.kind, id=subject.id, outcome="over", **_field_of(work))

    @classmethod
    def failed(cls, subject: WaitTarget, error: PlanasonixError, work: Work | None = None) -> Self:
        """Make the event of a wait that could not go on.

        :param subject: what was waited for.
        :param error: why the wait ended.
        :param work: the job or backfill as it was last seen, if it was.
        :return: the event.
        """
        return cls(
            kind=subject.kind,
            id=subject.id,
            outcome="error",
            error=error.kind,
            message=error.message,
            code=error.code,
            **_field_of(work),
        )

    @classmethod
    def from_payload(cls, payload: Any, *kinds: str) -> Self:
        """Read what a trigger handed back.

        :param payload: what Airflow gave to the task's resume method.
        :param kinds: what the task may wait for.
        :return: the event.
        :raises InvalidWaitEventError: if it is anything else than a whole event of this version, and of such a kind.
        """
        try:
            event = cls.model_validate(payload)
        except ValidationError as invalid:
            wrong = "; ".join(
                f"{'.'.join(str(step) for step in problem['loc']) or 'event'}: {problem['msg']}"
                for problem in invalid.errors(include_url=False, include_input=False)[:3]
            )
        else:
            if event.kind in kinds:
                return event
            wrong = f"kind: it is of a {event.kind}"
        kind = " or ".join(kinds)
        raise InvalidWaitEventError(
            f"The trigger handed back an event that this version of airflow-provider-planasonix cannot read ({wrong}), "
            f"so nobody knows how the {kind} ended. Check that workers and triggerer run the same version, look at the "
            f"{kind} in Planasonix, and clear the task."
        )

    @property
    def is_out_of_time(self) -> bool:
        """Whether the wait ended at its deadline."""
        return self.error == PlanasonixTimeoutError.kind

    def with_cancel_result(self, answer: Work | PlanasonixError, by_hand: str) -> Self:
        """Take in how the cancel went that followed on the deadline.

        :param answer: the job or backfill after the cancel, or why it could not be cancelled.
        :param by_hand: the command that ends it.
        :return: the event to report: work that ended just before the cancel came is over, and not out of time.
        """
        if isinstance(answer, PlanasonixError):
            note = f"It could not be cancelled and may still run: {answer} To end it: {by_hand}"
            return self.model_copy(update={"message": f"{self.message} {note}"})
        if answer.is_over and answer.status != "cancelled":
            return self._ended(answer)
        if isinstance(answer, Backfill) and not answer.is_over:
            # It has no cancel of its own: it goes on, and makes more jobs.
            words = (
                f"The jobs that it has made were asked to cancel; it is {answer.status}, and may make more. To end it: "
                f"{by_hand}"
            )
        else:
            words = "It was cancelled." if answer.is_over else "It was asked to cancel."
        return self.model_copy(update={"message": f"{self.message} {words}"})

    def without_cancel(self) -> Self:
        """Take in that whoever waited leaves the work alone at the deadline.

        :return: the event to report.
        """
        return self.model_copy(update={"message": f"{self.message} It was not cancelled, and runs on."})

    def _ended(self, work: Work) -> Self:
        return type(self)(kind=self.kind, id=self.id, outcome="over", **_field_of(work))

    def to_payload(self) -> dict[str, Any]:
        """Write the event as JSON types, which is all that survives the way to the task.

        :return: a plain dict, with those fields of the job or backfill that the task uses.
        """
        plain = self.model_dump(mode="json", exclude_none=True, exclude={"job", "backfill"})
        for name, work in (("job", self.job), ("backfill", self.backfill)):
            if work:
                # An event that cannot be stored ends the triggerer, with the waits of all tasks.
                fields = storable(work.known(*_NOT_IN_A_PAYLOAD))
                plain[name] = {field: value for field, value in fields.items() if value is not None}
        return plain

    def work_or_error(self) -> Work:
        """Give the work that was waited for, or raise what ended the wait before.

        :return: the job or backfill, in a state that was waited for.
        :raises PlanasonixError: of the kind that the wait met.
        """
        if self.outcome == "over" and self.work:
            return self.work
        raise error_of(self.error or "", self.message or "", self.code)


def _field_of(work: Work | None) -> dict[str, Any]:
    return {} if work is None else {"backfill" if isinstance(work, Backfill) else "job": work}
