"""The plugin loads on every Airflow, and its import is light."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest
from airflow.plugins_manager import AirflowPlugin
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS

from planasonix_provider.get_provider_info import get_provider_info
from planasonix_provider.plugins import planasonix
from planasonix_provider.plugins.planasonix import PlanasonixPlugin
from tests.support.other_process import result_of

IMPORT = """
import sys
from airflow.providers.common.compat.sdk import AirflowPlugin
before = set(sys.modules)
from planasonix_provider.plugins.planasonix import PlanasonixPlugin
result = sorted(set(sys.modules) - before)
"""


def test_airflow_finds_it_by_its_entry_point_alone() -> None:
    (entry,) = entry_points(group="airflow.plugins", name="planasonix")
    assert entry.load() is PlanasonixPlugin
    assert "plugins" not in get_provider_info()


@pytest.mark.slow("starts processes")
def test_its_import_is_light() -> None:
    added = set(result_of(IMPORT))
    assert {name for name in added if name.startswith("planasonix_provider.")} == {
        "planasonix_provider.plugins",
        "planasonix_provider.plugins.listener",
        "planasonix_provider.plugins.notices",
        "planasonix_provider.plugins.planasonix",
        "planasonix_provider.validators",
        "planasonix_provider.windows",
    }
    assert not {"fastapi", "httpx", "pydantic"} & added


@pytest.mark.skipif(AIRFLOW_V_3_0_PLUS, reason="Airflow 3 serves the app")
def test_airflow_2_serves_no_app() -> None:
    assert PlanasonixPlugin.fastapi_apps == []
    assert issubclass(PlanasonixPlugin, AirflowPlugin)


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no FastAPI apps")
def test_airflow_3_serves_one_app() -> None:
    (app,) = PlanasonixPlugin.fastapi_apps
    assert (app["name"], app["url_prefix"]) == ("Planasonix", "/planasonix")
    assert app["app"].url_path_for("receive", name="orders") == "/webhook/orders"
    assert PlanasonixPlugin.fastapi_apps[0]["app"] is app["app"]


@pytest.mark.skipif(AIRFLOW_V_3_1_PLUS, reason="Airflow 3.1 has the page")
def test_no_page_before_airflow_3_1() -> None:
    assert PlanasonixPlugin.react_apps == []


@pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="Airflow 3.0 has no React apps")
@pytest.mark.parametrize(
    ("base_url", "path"),
    [
        ("", ""),
        ("/", ""),
        ("http://localhost:8080", ""),
        ("https://airflow.example.com/team/", "/team"),
        ("/team", "/team"),
    ],
)
def test_the_path_of_the_bundle_contains_that_of_airflow(
    base_url: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    planasonix._react_apps.cache_clear()
    apps = PlanasonixPlugin.react_apps
    planasonix._react_apps.cache_clear()
    assert {app["bundle_url"] for app in apps} == {f"{path}/planasonix/static/planasonix.js"}


@pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="Airflow 3.0 has no React apps")
def test_airflow_shows_the_page_and_the_panel() -> None:
    from airflow.plugins_manager import get_plugin_info

    (plugin,) = (plugin for plugin in get_plugin_info() if plugin["name"] == "planasonix")
    assert [(app["name"], app["destination"]) for app in plugin["react_apps"]] == [
        ("Planasonix", "nav"),
        ("Planasonix panel", "dashboard"),
    ]
