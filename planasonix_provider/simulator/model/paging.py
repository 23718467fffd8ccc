"""What a list can be asked for, and the cursors between its pages."""

from __future__ import annotations

import base64
from datetime import datetime
from hashlib import sha256
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from planasonix_provider.simulator.model.api_errors import invalid
from planasonix_provider.simulator.model.simulated_backfills import SimulatedBackfill
from planasonix_provider.simulator.model.simulated_jobs import SimulatedJob
from planasonix_provider.simulator.model.timestamps import IsoTime


class _Cursor(BaseModel):
    """What a cursor holds: where its page ended, and of which list it is."""

    model_config = ConfigDict(strict=True, extra="forbid")

    before: Annotated[int, Field(ge=0)]
    of: str


class PageQuery(BaseModel):
    """The query of any list.

    :param limit: how many things a page holds.
    :param cursor: where the page before ended.
    """

    limit: Annotated[int, Field(ge=1, le=100)] = 50
    cursor: str | None = None

    @property
    def before(self) -> int | None:
        """Where the page before this one ended, or ``None`` for the first page.

        :raises Refused: as ``invalid_request``, if the cursor is not one of this list.
        """
        if self.cursor is None:
            return None
        try:
            cursor = _Cursor.model_validate_json(base64.urlsafe_b64decode(self.cursor))
        except ValueError:
            raise invalid("cursor", "is not a cursor") from None
        if cursor.of != self._digest:
            raise invalid("cursor", "belongs to a list with other filters")
        return cursor.before

    def cursor_after(self, position: int | None) -> str | None:
        """Make the cursor of the next page.

        :param position: where this page ended; ``None`` if no more follow.
        :return: the cursor, or ``None`` on the last page.
        """
        if position is None:
            return None
        return base64.urlsafe_b64encode(_Cursor(before=position, of=self._digest).model_dump_json().encode()).decode()

    @property
    def _digest(self) -> str:
        filters = self.model_dump_json(exclude={"limit", "cursor"})
        return sha256(filters.encode()).hexdigest()[:16]


class JobQuery(PageQuery):
    """The query of a list of jobs. States and types are open sets: one that nobody knows finds nothing.

    :param connection_id: only jobs of this connection.
    :param pipeline_id: only jobs of this pipeline.
    :param type: only jobs of this type.
    :param status: only jobs in this state.
    :param since: only jobs created then or later.
    :param until: only jobs created then or earlier.
    :param limit: how many jobs a page holds.
    :param cursor: where the page before ended.
    """

    connection_id: str | None = None
    pipeline_id: str | None = None
    type: str | None = None
    status: str | None = None
    since: IsoTime | None = None
    until: IsoTime | None = None

    @field_validator("until")
    @classmethod
    def _until_after_since(cls, until: datetime | None, others: ValidationInfo) -> datetime | None:
        since = others.data.get("since")
        if since and until and until < since:
            raise ValueError("must not be before since")
        return until

    def matches(self, job: SimulatedJob, now: datetime) -> bool:
        """Tell whether a job belongs to the list.

        :param job: the job.
        :param now: at which moment.
        :return: whether it passes all filters.
        """
        return (
            self.connection_id in (None, job.connection_id)
            and self.pipeline_id in (None, job.body.pipeline_id)
            and self.type in (None, job.type)
            and (self.since is None or job.created_at >= self.since)
            and (self.until is None or job.created_at <= self.until)
            and (self.status is None or job.status_at(now) == self.status)
        )


class BackfillQuery(PageQuery):
    """The query of a list of backfills.

    :param connection_id: only backfills of this connection.
    :param status: only backfills in this state.
    :param limit: how many backfills a page holds.
    :param cursor: where the page before ended.
    """

    connection_id: str | None = None
    status: str | None = None

    def matches(self, backfill: SimulatedBackfill, now: datetime) -> bool:
        """Tell whether a backfill belongs to the list.

        :param backfill: the backfill.
        :param now: at which moment.
        :return: whether it passes all filters.
        """
        return self.connection_id in (None, backfill.connection_id) and self.status in (None, backfill.status_at(now))
