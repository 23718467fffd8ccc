"""The messages of Test Connection."""

from __future__ import annotations

from planasonix_provider.api.errors import PlanasonixError, PlanasonixResponseError
from planasonix_provider.api.request import PREFIX
from planasonix_provider.hooks.connection_form import without_conn_id
from planasonix_provider.hooks.connection_settings import ConnectionSettings


def success_message(settings: ConnectionSettings, conn_id: str) -> str:
    """Return what a key may do that has listed jobs."""
    message = f"Connected to {settings.client_config.base_url}. The API key may read jobs."
    if warning := settings.unknown_keys_warning:
        message += f" {without_conn_id(warning, conn_id)}"
    return message


def failure_message(error: PlanasonixError, settings: ConnectionSettings | None, conn_id: str) -> str:
    """Return what is wrong and what to do; ``settings`` is ``None`` if they cannot be read."""
    if settings and isinstance(error, PlanasonixResponseError) and error.status == 404:
        return (
            f"{settings.client_config.base_url} answers, but has no Orchestration API at {PREFIX}: the host of the "
            "Airflow connection, or a path in it, is wrong. Put the API's address there (https://api.planasonix.com or "
            "your tenant's own), not the web app's, and without /api/v1."
        )
    return without_conn_id(error.message, conn_id)
