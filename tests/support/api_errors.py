from __future__ import annotations

from typing import Any

from planasonix_provider.api.errors import PlanasonixError, error_for_status


def api_error(status: int, *, has_envelope: bool = True, **fields: Any) -> PlanasonixError:
    """Return the error of a response; without the API's envelope, a proxy has sent it. Its message is the status."""
    error = error_for_status(status, has_envelope=has_envelope)
    return error(str(status), status=status, has_envelope=has_envelope, **fields)
