from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any

import airflow
import jsonschema
import pytest

import planasonix_provider
from planasonix_provider import __version__
from planasonix_provider.get_provider_info import CONN_FIELDS, RECEIVER_CONN_FIELDS, get_provider_info
from tests.support.other_process import result_of

DOCS = Path(__file__).parents[1] / "docs"
DISTRIBUTION = distribution("airflow-provider-planasonix")

#: The keys that name a function; all others name a class.
FUNCTIONS = ("cli", "handler", "factory", "to_openlineage_converter")


def names(value: Any, key: str | None = None) -> Iterator[tuple[str | None, str]]:
    """Yield all import paths in the provider info, with their keys."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from names(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from names(item, key)
    elif isinstance(value, str) and value.startswith("planasonix_provider."):
        yield key, value


def test_it_matches_the_schema_of_airflow() -> None:
    schema = json.loads((Path(airflow.__path__[0]) / "provider_info.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(get_provider_info())


def test_the_receiver_form_shows_the_path_of_the_receiver() -> None:
    # Not imported: the plugin needs the API server of Airflow 3.
    plugin = (Path(planasonix_provider.__file__).parent / "plugins" / "planasonix.py").read_text()
    assert "/planasonix/webhook" in plugin
    assert "/planasonix/webhook/" in RECEIVER_CONN_FIELDS["asset"]["description"]


@pytest.mark.parametrize("hook", get_provider_info()["connection-types"], ids=lambda hook: hook["connection-type"])
def test_the_form_asks_for_a_port_if_the_test_button_needs_one(hook: dict[str, Any]) -> None:
    form = hook["ui-field-behaviour"]
    is_needed = airflow.__version__ in ("3.3.1", "3.3.2")
    assert ("443" in form["relabeling"].get("port", "")) == is_needed
    assert not (is_needed and "port" in form["hidden-fields"])


def test_it_can_be_imported_before_airflow() -> None:
    # Registries of providers read it without starting Airflow.
    script = "from planasonix_provider.get_provider_info import get_provider_info\nresult = get_provider_info()['name']"
    assert result_of(script) == "Planasonix"


@pytest.mark.parametrize(
    ("installed", "is_needed"),
    [
        ({}, False),
        ({"apache_airflow_core": "3.3.0"}, False),
        ({"apache_airflow_core": "3.3.2"}, True),
        ({"apache_airflow_core": "3.3.0", "apache_airflow": "3.3.2"}, True),
    ],
    ids=["no Airflow", "core without the defect", "only core", "both"],
)
def test_it_can_be_imported_without_the_distribution_of_airflow(
    tmp_path: Path, installed: dict[str, str], is_needed: bool
) -> None:
    (tmp_path / "planasonix_provider").symlink_to(planasonix_provider.__path__[0])
    for name, version in installed.items():
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    script = f"""
import sys
sys.path = [{str(tmp_path)!r}, *(path for path in sys.path if not path.endswith("-packages"))]
from planasonix_provider.get_provider_info import get_provider_info
result = [form["ui-field-behaviour"]["relabeling"].get("port") for form in get_provider_info()["connection-types"]]
"""
    ports = result_of(script)
    assert ports
    assert any("443" in (port or "") for port in ports) == is_needed


def test_it_is_json() -> None:
    assert json.loads(json.dumps(get_provider_info())) == get_provider_info()


def test_its_entry_point_and_its_distribution() -> None:
    (entry,) = DISTRIBUTION.entry_points.select(group="apache_airflow_provider")
    assert entry.load() is get_provider_info
    assert get_provider_info()["package-name"] == DISTRIBUTION.name


def test_the_version_is_that_of_the_distribution() -> None:
    assert DISTRIBUTION.version == __version__
    assert get_provider_info()["versions"] == [__version__]


def test_the_logo_is_a_file_of_the_documentation() -> None:
    (integration,) = get_provider_info()["integrations"]
    assert (DOCS / integration["logo"].removeprefix(integration["external-doc-url"])).is_file()


@pytest.mark.parametrize(("key", "path"), sorted(set(names(get_provider_info())), key=str))
def test_all_paths_can_be_imported(key: str, path: str) -> None:
    if key == "python-modules":
        assert import_module(path)
    else:
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(import_module(module), name), FunctionType if key in FUNCTIONS else type)


def test_it_names_every_kind_of_extension() -> None:
    packages = {path.split(".")[1] for _, path in names(get_provider_info())}
    assert {"hooks", "operators", "triggers", "links", "assets", "cli"} <= packages


#: Asks Airflow for the output of its commands ``airflow providers …``.
ASK_AIRFLOW = """
from airflow.providers_manager import ProvidersManager

manager = ProvidersManager()
provider = manager.providers["airflow-provider-planasonix"]
result = {
    "list": [provider.version, provider.data["name"]],
    "hooks": {name: hook.hook_class_name for name, hook in manager.hooks.items() if hook},
    "links": list(manager.extra_links_class_names),
    "triggers": [trigger.trigger_class_name for trigger in manager.trigger],
    "widgets": list(manager.connection_form_widgets),
    "behaviours": list(manager.field_behaviours),
}
"""


@pytest.fixture(scope="module")
def listed() -> Any:
    return result_of(ASK_AIRFLOW)


@pytest.mark.slow("starts processes")
def test_airflow_lists_the_provider_with_hooks_links_and_triggers(listed: dict[str, Any]) -> None:
    assert listed["list"] == [__version__, "Planasonix"]
    assert {name: hook for name, hook in listed["hooks"].items() if name.startswith("planasonix")} == {
        "planasonix": "planasonix_provider.hooks.planasonix.PlanasonixHook",
        "planasonix_webhook": "planasonix_provider.hooks.webhook_receiver.PlanasonixReceiverHook",
    }
    assert "planasonix_provider.links.planasonix.PlanasonixJobLink" in listed["links"]
    assert "planasonix_provider.triggers.planasonix" in listed["triggers"]


@pytest.mark.slow("reads all installed providers")
def test_airflow_lists_the_fields_of_the_connection_forms(listed: dict[str, Any]) -> None:
    if airflow.__version__.startswith(("3.0.", "3.1.")) and not find_spec("flask_appbuilder"):
        # Both commands list nothing then, but the form itself works.
        assert not listed["behaviours"]
        return
    assert {name for name in listed["behaviours"] if name.startswith("planasonix")} == {
        "planasonix",
        "planasonix_webhook",
    }
    assert {name for name in listed["widgets"] if name.startswith("extra__planasonix")} == {
        *(f"extra__planasonix__{name}" for name in CONN_FIELDS),
        *(f"extra__planasonix_webhook__{name}" for name in RECEIVER_CONN_FIELDS),
    }
