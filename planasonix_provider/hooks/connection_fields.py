"""Reads the fields of an Airflow connection, and names the field in each error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from planasonix_provider.api.errors import PlanasonixConfigurationError


class ConnectionFields:
    """The fields of one Airflow connection."""

    def __init__(self, conn_id: str, extra: Mapping[str, Any] | None) -> None:
        self.conn_id = conn_id
        if not isinstance(extra or {}, Mapping):
            # Not the value, because it may contain a secret.
            self.error_with_text("extra", f"a {type(extra).__name__}", "a JSON object")
        # The connection form sends an empty text for each empty field.
        self.extra = {name: value for name, value in (extra or {}).items() if value is not None and str(value).strip()}

    def field(self, name: str) -> str:
        """Return the name of a field as errors show it."""
        return f"Airflow connection {self.conn_id!r}, {name}"

    def error(self, field: str, value: object, allowed: str) -> NoReturn:
        """Raise the error for an invalid field."""
        self.error_with_text(field, repr(value), allowed)

    def extra_error(self, name: str, value: object, allowed: str) -> NoReturn:
        """Raise the error for an invalid field of the extra."""
        self.error(f"extra {name!r}", value, allowed)

    def error_with_text(self, field: str, shown: str, allowed: str) -> NoReturn:
        """Raise the error for an invalid field, with a text in place of the value's repr."""
        raise PlanasonixConfigurationError(f"{self.field(field)}: got {shown}, allowed is {allowed}.") from None
