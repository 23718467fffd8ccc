"""The Airflow plugin. All components of Airflow import it, so it imports FastAPI only when the app is requested."""

from __future__ import annotations

from functools import cache
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS


@cache
def _fastapi_apps() -> list[dict[str, Any]]:
    if not AIRFLOW_V_3_0_PLUS:
        return []
    from planasonix_provider.plugins.receiver import make_app

    return [{"name": "Planasonix", "app": make_app(), "url_prefix": "/planasonix"}]


class _FastAPIApps:
    """A lazy attribute: the API server reads it, and commands that list plugins do."""

    def __get__(self, instance: object, owner: type | None = None) -> list[dict[str, Any]]:
        return _fastapi_apps()


class PlanasonixPlugin(AirflowPlugin):
    """Adds the webhook receiver to the API server: ``POST /planasonix/webhook/{name}``. Needs Airflow 3.0."""

    name = "planasonix"
    fastapi_apps = _FastAPIApps()
