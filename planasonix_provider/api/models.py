"""What the API sends and takes, as pydantic models that tolerate what the reference does not know yet.

Unknown fields are kept, so that an answer can be written back without loss; unknown states and types are
plain strings; times are always aware. Everything here follows the Orchestration API reference, v1.
"""

from __future__ import annotations

from abc import abstractmethod
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    SerializationInfo,
    field_serializer,
    model_validator,
)

from planasonix_provider.api.states import BACKFILL_OVER, JOB_OVER
from planasonix_provider.parameters import identifier

T = TypeVar("T")

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


#: How much of an error is kept; whatever a server sends, a message is to be read, and goes to logs and databases.
_LONGEST_TEXT = 2_000
_MOST_DETAILS = 20


def _text(value: Any) -> Any:
    """Take what should be a text as far as it is one: an odd code must not hide the message beside it."""
    return str(value)[:_LONGEST_TEXT] if isinstance(value, (str, int, float)) else None


def _objects(value: Any) -> Any:
    """Take what should be a list of objects as far as it is one."""
    if not isinstance(value, list):
        return None
    return list(islice((item for item in value if isinstance(item, (dict, BaseModel))), _MOST_DETAILS))


OddText = Annotated[str | None, BeforeValidator(_text)]


class ErrorDetail(Resource):
    """One complaint of a 400: which field, and what is wrong with it."""

    field: OddText = None
    issue: OddText = None


class ErrorBody(Resource):
    """The error of an answer that is no success. Lenient, for what is left of it is all that a person gets to read."""

    code: OddText = None
    message: OddText = None
    details: Annotated[list[ErrorDetail] | None, BeforeValidator(_objects)] = None
    existing_job_id: OddText = None


class ErrorReply(Resource):
    """The envelope of an error: ``{"error": {...}}``."""

    error: ErrorBody
    existing_job_id: OddText = None


class Metrics(Resource):
    """How far a job has come."""

    rows_extracted: int | None = None
    rows_loaded: int | None = None
    bytes_read: int | None = None


class WorkError(Resource):
    """Why a job or a backfill failed."""

    code: str | None = None
    message: str | None = None


def _error_from_text(value: Any) -> Any:
    """Take an error that comes as bare text: the reference shows only ``null``, so its shape is not settled."""
    return {"message": value} if isinstance(value, str) else value


OddError = Annotated[WorkError | None, BeforeValidator(_error_from_text)]


class Job(Resource):
    """One run of Planasonix work; lists and the answer to a cancel name only some of its fields."""

    id: Id
    status: str
    type: str | None = None
    connection_id: str | None = None
    pipeline_id: str | None = None
    created_at: Moment | None = None
    queued_at: Moment | None = None
    started_at: Moment | None = None
    finished_at: Moment | None = None
    duration_seconds: float | None = None
    cancel_requested_at: Moment | None = None
    metrics: Metrics | None = None
    error: OddError = None
    metadata: dict[str, Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the job has ended. A state that nobody knows is not an end."""
        return self.status in JOB_OVER


class Backfill(Resource):
    """A historical load over a window of time, which the API shards into jobs as it goes on.

    Lists and the answer to a start name only some of its fields; ``job_ids`` grows while it runs.
    """

    id: Id
    status: str
    connection_id: str | None = None
    start_at: Moment | None = None
    end_at: Moment | None = None
    tables: list[str] | None = Field(default=None, fail_fast=True)
    progress_percent: int | float | None = None
    rows_processed: int | None = None
    error: OddError = None
    job_ids: list[Id] | None = Field(default=None, fail_fast=True)
    created_at: Moment | None = None
    updated_at: Moment | None = None
    metadata: dict[str, Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the backfill has ended. A state that nobody knows is not an end."""
        return self.status in BACKFILL_OVER


class TableResult(Resource):
    """What a job loaded into one table."""

    name: str
    rows_loaded: int | None = None
    checksum: str | None = None


class JobWarning(Resource):
    """Something that a job did and its owner should know of."""

    code: str | None = None
    message: str | None = None


class JobResults(Resource):
    """The summary of a job; a stub while the job runs, on some deployments."""

    job_id: str
    status: str
    tables: list[TableResult] = Field(default_factory=list, fail_fast=True)
    warnings: list[JobWarning] = Field(default_factory=list, fail_fast=True)


class SyncBody(Resource):
    """The body that starts a sync."""

    pipeline_id: str | None = None
    priority: Priority | None = None
    metadata: dict[str, Any] | None = None


class BackfillBody(Resource):
    """The body that starts a backfill; without ``tables`` it is one of all tables."""

    start_at: Moment
    end_at: Moment
    tables: list[str] | None = None
    priority: Priority | None = None
    metadata: dict[str, Any] | None = None


W = TypeVar("W", bound=Resource)


def _forget(resource: W) -> W:
    """Drop a secret where the reference has none: it says that a secret *may* not be returned later, which is no must.

    A server may also send back what it was sent.
    """
    for name in {"secret", "signing_secret"} & set(resource.model_extra or ()):
        del (resource.model_extra or {})[name]
        resource.model_fields_set.discard(name)
    return resource


class Webhook(Resource):
    """A subscription to events, without the secret that its deliveries are signed with."""

    model_config = ConfigDict(hide_input_in_errors=True)

    id: Id
    url: str
    events: list[str] = Field(default_factory=list, fail_fast=True)
    enabled: bool | None = None
    created_at: Moment | None = None
    updated_at: Moment | None = None
    last_delivery_at: Moment | None = None
    failure_count_24h: int | None = None

    _without_secret = model_validator(mode="after")(_forget)


class SecretResource(Resource):
    """What holds a signing secret: in no repr, no pickle and no dump, unless the dump is told to ``reveal`` it."""

    model_config = ConfigDict(hide_input_in_errors=True)

    signing_secret: SecretStr

    @field_serializer("signing_secret", when_used="json")
    def _hide(self, secret: SecretStr, info: SerializationInfo) -> str:
        reveal = isinstance(info.context, dict) and info.context.get("reveal") is True
        return secret.get_secret_value() if reveal else str(secret)

    def __getstate__(self) -> dict[Any, Any]:
        raise TypeError(f"A {type(self).__name__} holds a secret, so it is not pickled: keep its other fields.")


class NewWebhook(Webhook, SecretResource):
    """A subscription as its creation answers: the only time that it comes with its secret."""


class RotatedSecret(SecretResource):
    """The secret that a subscription's deliveries are signed with from now on."""

    id: Id
    rotated_at: Moment | None = None

    _without_secret = model_validator(mode="after")(_forget)


class TestDelivery(Resource):
    """A test event that is on its way."""

    __test__ = False  # it is none of pytest's

    delivery_id: str = Field(min_length=1)
    status: str


class Delivery(Resource):
    """One event that was sent, or is to be sent, to a subscription's URL."""

    id: Id
    event: str
    status: str
    http_status: int | None = None
    attempt: int | None = None
    last_error: str | None = None
    delivered_at: Moment | None = None


class WebhookBody(Resource):
    """The body that creates a subscription; without ``secret`` the server makes one."""

    model_config = ConfigDict(hide_input_in_errors=True)

    url: str
    events: list[str]
    secret: str | None = Field(default=None, repr=False)


class WebhookChange(Resource):
    """The body that changes a subscription."""

    url: str | None = None
    events: list[str] | None = None
    enabled: bool | None = None


class WebhookTestBody(Resource):
    """The body that orders a test event."""

    event: str | None = None


class Reply(Resource, Generic[T]):
    """An envelope, and how to take out what a caller asked for."""

    #: What a caller says that it takes.
    accepts: ClassVar[str] = "application/json"

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a body.

        :param content: the body, as it came over the wire.
        :return: the envelope.
        :raises pydantic.ValidationError: if it is none.
        """
        return cls.model_validate_json(content)

    @property
    @abstractmethod
    def value(self) -> T:
        """What the envelope holds."""


class JobReply(Reply[Job]):
    """``{"data": {job}}``."""

    data: Job

    @property
    def value(self) -> Job:
        """The job."""
        return self.data


class JobResultsReply(Reply[JobResults]):
    """``{"data": {results}}``."""

    data: JobResults

    @property
    def value(self) -> JobResults:
        """The results."""
        return self.data


class SyncStarted(Resource):
    """What a start wraps its job in."""

    job: Job


class SyncReply(Reply[Job]):
    """``{"data": {"job": {job}}}``."""

    data: SyncStarted

    @property
    def value(self) -> Job:
        """The job that was started."""
        return self.data.job


class BackfillReply(Reply[Backfill]):
    """``{"data": {backfill}}``."""

    data: Backfill

    @property
    def value(self) -> Backfill:
        """The backfill."""
        return self.data


class BackfillStarted(Resource):
    """What a start wraps its backfill in."""

    backfill: Backfill


class BackfillStartReply(Reply[Backfill]):
    """``{"data": {"backfill": {backfill}}}``."""

    data: BackfillStarted

    @property
    def value(self) -> Backfill:
        """The backfill that was started."""
        return self.data.backfill


class WebhookReply(Reply[Webhook]):
    """``{"data": {webhook}}``."""

    data: Webhook

    @property
    def value(self) -> Webhook:
        """The subscription."""
        return self.data


class NewWebhookReply(Reply[NewWebhook]):
    """``{"data": {webhook with its secret}}``."""

    model_config = ConfigDict(hide_input_in_errors=True)

    data: NewWebhook

    @property
    def value(self) -> NewWebhook:
        """The subscription that was created."""
        return self.data


class RotatedSecretReply(Reply[RotatedSecret]):
    """``{"data": {id and secret}}``."""

    model_config = ConfigDict(hide_input_in_errors=True)

    data: RotatedSecret

    @property
    def value(self) -> RotatedSecret:
        """The new secret."""
        return self.data


class TestDeliveryReply(Reply[TestDelivery]):
    """``{"data": {test delivery}}``."""

    __test__ = False  # it is none of pytest's

    data: TestDelivery

    @property
    def value(self) -> TestDelivery:
        """The delivery that was ordered."""
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


class Page(Resource, Generic[T]):
    """One page of a list."""

    data: list[T] = Field(fail_fast=True)
    meta: PageMeta = Field(default_factory=PageMeta)

    @property
    def cursor(self) -> str | None:
        """What asks for the next page, or ``None`` on the last one."""
        return self.meta.page.cursor or None


class JobPage(Page[Job], Reply[Page[Job]]):
    """A page of jobs, which is its own envelope."""

    @property
    def value(self) -> Page[Job]:
        """The page itself."""
        return self


class BackfillPage(Page[Backfill], Reply[Page[Backfill]]):
    """A page of backfills, which is its own envelope."""

    @property
    def value(self) -> Page[Backfill]:
        """The page itself."""
        return self


class WebhookPage(Page[Webhook], Reply[Page[Webhook]]):
    """A page of subscriptions, which is its own envelope."""

    @property
    def value(self) -> Page[Webhook]:
        """The page itself."""
        return self


class DeliveryPage(Page[Delivery], Reply[Page[Delivery]]):
    """A page of deliveries, which is its own envelope."""

    @property
    def value(self) -> Page[Delivery]:
        """The page itself."""
        return self
