"""The Airflow plugin. Every component of Airflow imports it, so FastAPI comes only where somebody asks for the app."""

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
    """The apps, made when they are first looked at: by the API server, or by whoever lists plugins."""

    def __get__(self, instance: object, owner: type | None = None) -> list[dict[str, Any]]:
        return _fastapi_apps()


class PlanasonixPlugin(AirflowPlugin):
    """Puts the webhook receiver at ``POST /planasonix/webhook/{name}`` of the API server, from Airflow 3.0 on."""

    name = "planasonix"
    fastapi_apps = _FastAPIApps()
