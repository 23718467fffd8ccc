"""What went wrong, as the API tells it: of a request, and of a job or a backfill."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator

from planasonix_provider.api.models.base import Resource

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


class WorkError(Resource):
    """Why a job or a backfill failed."""

    code: str | None = None
    message: str | None = None


def _error_from_text(value: Any) -> Any:
    """Take an error that comes as bare text: the reference shows only ``null``, so its shape is not settled."""
    return {"message": value} if isinstance(value, str) else value


OddError = Annotated[WorkError | None, BeforeValidator(_error_from_text)]
