"""What the API sends and takes, as pydantic models that tolerate what the reference does not know yet.

Unknown fields are kept, so that an answer can be written back without loss; unknown states and types are
plain strings; times are always aware. Everything here follows the Orchestration API reference, v1.
"""

from __future__ import annotations

from planasonix_provider.api.models.backfills import (
    Backfill,
    BackfillBody,
    BackfillPage,
    BackfillReply,
    BackfillStarted,
    BackfillStartReply,
)
from planasonix_provider.api.models.base import Id, Moment, Priority, Resource, as_utc
from planasonix_provider.api.models.envelopes import DataReply, NoContent, Page, PageInfo, PageMeta, PlainText, Reply
from planasonix_provider.api.models.errors import ErrorBody, ErrorDetail, ErrorReply, WorkError
from planasonix_provider.api.models.jobs import (
    Job,
    JobPage,
    JobReply,
    JobResults,
    JobResultsReply,
    JobWarning,
    Metrics,
    SyncBody,
    SyncReply,
    SyncStarted,
    TableResult,
)
from planasonix_provider.api.models.webhooks import (
    Delivery,
    DeliveryPage,
    NewWebhook,
    NewWebhookReply,
    RotatedSecret,
    RotatedSecretReply,
    SecretResource,
    TestDelivery,
    TestDeliveryReply,
    Webhook,
    WebhookBody,
    WebhookChange,
    WebhookPage,
    WebhookReply,
    WebhookTestBody,
)

__all__ = [
    "Backfill",
    "BackfillBody",
    "BackfillPage",
    "BackfillReply",
    "BackfillStartReply",
    "BackfillStarted",
    "DataReply",
    "Delivery",
    "DeliveryPage",
    "ErrorBody",
    "ErrorDetail",
    "ErrorReply",
    "Id",
    "Job",
    "JobPage",
    "JobReply",
    "JobResults",
    "JobResultsReply",
    "JobWarning",
    "Metrics",
    "Moment",
    "NewWebhook",
    "NewWebhookReply",
    "NoContent",
    "Page",
    "PageInfo",
    "PageMeta",
    "PlainText",
    "Priority",
    "Reply",
    "Resource",
    "RotatedSecret",
    "RotatedSecretReply",
    "SecretResource",
    "SyncBody",
    "SyncReply",
    "SyncStarted",
    "TableResult",
    "TestDelivery",
    "TestDeliveryReply",
    "Webhook",
    "WebhookBody",
    "WebhookChange",
    "WebhookPage",
    "WebhookReply",
    "WebhookTestBody",
    "WorkError",
    "as_utc",
]
