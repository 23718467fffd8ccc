"""The query parameters of lists, and the cursors of their pages."""

from __future__ import annotations

import base64
from datetime import datetime
from hashlib import sha256
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from planasonix_provider.simulator.model.api_errors import invalid_field
from planasonix_provider.simulator.model.request_bodies import IsoTime
from planasonix_provider.simulator.model.simulated_backfills import SimulatedBackfill
from planasonix_provider.simulator.model.simulated_jobs import SimulatedJob


class _Cursor(BaseModel):
    """The position of a page's last item, and a digest of the list's filters."""

    model_config = ConfigDict(strict=True, extra="forbid")

    before: Annotated[int, Field(ge=0)]
    of: str


class PageQuery(BaseModel):
    """The query of any list."""

    limit: Annotated[int, Field(ge=1, le=100)] = 50
    cursor: str | None = None

    @property
    def before(self) -> int | None:
        """The position at which the previous page ended; ``None`` for the first page."""
        if self.cursor is None:
            return None
        try:
            cursor = _Cursor.model_validate_json(base64.urlsafe_b64decode(self.cursor))
        except ValueError:
            raise invalid_field("cursor", "is not a cursor") from None
        if cursor.of != self._digest:
            raise invalid_field("cursor", "belongs to a list with other filters")
        return cursor.before

    def cursor_after(self, position: int | None) -> str | None:
        """Return the cursor of the next page; ``None`` if this page, which ended at ``position``, was the last."""
        if position is None:
            return None
        return base64.urlsafe_b64encode(_Cursor(before=position, of=self._digest).model_dump_json().encode()).decode()

    @property
    def _digest(self) -> str:
        filters = self.model_dump_json(exclude={"limit", "cursor"})
        return sha256(filters.encode()).hexdigest()[:16]


class JobQuery(PageQuery):
    """The query of a list of jobs. States and types are open sets: an unknown one matches nothing."""

    connection_id: str | None = None
    pipeline_id: str | None = None
    type: str | None = None
    status: str | None = None
    since: IsoTime | None = None
    until: IsoTime | None = None

    @field_validator("until")
    @classmethod
    def _is_not_before_since(cls, until: datetime | None, info: ValidationInfo) -> datetime | None:
        since = info.data.get("since")
        if since and until and until < since:
            raise ValueError("must not be before since")
        return until

    def matches(self, job: SimulatedJob, now: datetime) -> bool:
        return (
            self.connection_id in (None, job.connection_id)
            and self.pipeline_id in (None, job.body.pipeline_id)
            and self.type in (None, job.type)
            and (self.since is None or job.created_at >= self.since)
            and (self.until is None or job.created_at <= self.until)
            and (self.status is None or job.status_at(now) == self.status)
        )


class BackfillQuery(PageQuery):
    """The query of a list of backfills."""

    connection_id: str | None = None
    status: str | None = None

    def matches(self, backfill: SimulatedBackfill, now: datetime) -> bool:
        return self.connection_id in (None, backfill.connection_id) and self.status in (None, backfill.status_at(now))
