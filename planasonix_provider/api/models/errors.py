"""The errors in responses: of a request, and of a job or a backfill."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator

from planasonix_provider.api.models.base import Lenient, Resource, Text

__all__ = [
    "ErrorBody",
    "ErrorDetail",
    "ErrorEnvelope",
    "WorkError",
]

#: How many details of an error are kept.
_MAX_DETAILS = 20


def _objects(value: Any) -> Any:
    """Return the objects of a value that should be a list of objects."""
    if not isinstance(value, list):
        return None
    return list(islice((item for item in value if isinstance(item, (dict, BaseModel))), _MAX_DETAILS))


class ErrorDetail(Resource):
    """An invalid field of a request."""

    field: Text = None
    issue: Text = None


class ErrorBody(Resource):
    """The error of a response. Lenient, because a person has to read it."""

    code: Text = None
    message: Text = None
    details: Annotated[list[ErrorDetail] | None, BeforeValidator(_objects)] = None
    existing_job_id: Text = None


class ErrorEnvelope(Resource):
    """The envelope of an error: ``{"error": {...}}``."""

    error: ErrorBody
    existing_job_id: Text = None


class WorkError(Resource):
    """Why a job or a backfill failed."""

    code: Text = None
    message: Text = None


def _error_from_text(value: Any) -> Any:
    """Return an error that is not an object as a message: the reference shows only ``null``, so any shape can come."""
    return {"message": str(value)} if isinstance(value, (str, int, float, list)) else value


OddError = Annotated[Lenient[WorkError], BeforeValidator(_error_from_text)]
