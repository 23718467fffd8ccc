"""The Airflow plugin. All components of Airflow import it, so it imports FastAPI only when the app is requested."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowPlugin, conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS

from planasonix_provider.plugins.listener import LISTENER
from planasonix_provider.windows import of_partition

#: The path of the app in Airflow's API server.
URL_PREFIX = "/planasonix"


@cache
def _fastapi_apps() -> list[dict[str, Any]]:
    if not AIRFLOW_V_3_0_PLUS:
        return []
    from planasonix_provider.plugins.fastapi_app import make_app

    LISTENER.enable()

    return [{"name": "Planasonix", "app": make_app(has_page=AIRFLOW_V_3_1_PLUS), "url_prefix": URL_PREFIX}]


@cache
def _react_apps() -> list[dict[str, Any]]:
    if not AIRFLOW_V_3_1_PLUS:
        return []
    # A path, because users may reach Airflow by several names. 3.1 resolves it against its own script, 3.3 against the
    # page, so it contains the path of Airflow itself.
    base_path = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
    app = {"bundle_url": f"{base_path}{URL_PREFIX}/static/planasonix.js"}
    return [
        app | {"name": "Planasonix", "destination": "nav", "category": "browse", "url_route": "planasonix"},
        app | {"name": "Planasonix panel", "destination": "dashboard", "url_route": "planasonix-panel"},
    ]


class _Lazy:
    """A lazy attribute: the API server reads it, and commands that list plugins do."""

    def __init__(self, make: Callable[[], list[dict[str, Any]]]) -> None:
        self._make = make

    def __get__(self, instance: object, owner: type | None = None) -> list[dict[str, Any]]:
        return self._make()


class PlanasonixPlugin(AirflowPlugin):
    """Adds what this package has besides operators, sensors and hooks.

    - to the API server, the webhook receiver ``POST /planasonix/webhook/{name}``; it needs Airflow 3.0;
    - to Airflow's UI, a page; it needs Airflow 3.1;
    - to the API server, a listener that cancels the jobs of deferred tasks that a person ends; it needs Airflow 3.0;
    - to templates, the macro ``planasonix.of_partition``.
    """

    name = "planasonix"
    fastapi_apps = _Lazy(_fastapi_apps)
    react_apps = _Lazy(_react_apps)
    macros = [of_partition]  # noqa: RUF012 - Airflow's own attribute
    listeners = [LISTENER] if AIRFLOW_V_3_0_PLUS else []
