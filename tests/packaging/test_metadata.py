"""The metadata of the installed package, which provider pages, installers and Airflow read."""

from __future__ import annotations

import re
from importlib.metadata import distribution, entry_points
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__ as airflow_version
from packaging.version import Version

import planasonix_provider

DISTRIBUTION = distribution("airflow-provider-planasonix")
METADATA = DISTRIBUTION.metadata
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("group", "module"),
    [
        ("apache_airflow_provider", "planasonix_provider.get_provider_info"),
        ("airflow.plugins", "planasonix_provider.plugins.planasonix"),
        ("pytest11", "planasonix_provider.testing.plugin"),
    ],
)
def test_entry_points_lead_to_the_package(group: str, module: str) -> None:
    (point,) = [point for point in entry_points(group=group) if point.value.startswith("planasonix_provider.")]
    assert point.module == module
    assert point.load()


def test_there_are_no_other_entry_points() -> None:
    assert {point.group for point in DISTRIBUTION.entry_points} == {
        "apache_airflow_provider",
        "airflow.plugins",
        "pytest11",
    }


def test_the_classifiers_name_a_provider() -> None:
    classifiers = METADATA.get_all("Classifier")
    assert {
        "Environment :: Console",
        "Environment :: Web Environment",
        "Framework :: Apache Airflow",
        "Framework :: Apache Airflow :: Provider",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Topic :: System :: Monitoring",
        "Typing :: Typed",
    } <= set(classifiers)
    assert [one for one in classifiers if one.startswith("Programming Language")] == [
        f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)
    ]
    # The licence is an expression; a package index refuses a licence classifier beside it.
    assert not [one for one in classifiers if one.startswith("License")]
    assert {"airflow-provider", "airflow", "integration"} <= set(METADATA["Keywords"].split(","))


def test_the_metadata_names_author_and_licence() -> None:
    assert METADATA["License-Expression"] == "Apache-2.0"
    assert METADATA.get_all("License-File") == ["LICENSE"]
    assert METADATA["Author-Email"] == "Planasonix <support@planasonix.com>"
    # Airflow's page of providers links to the documentation.
    assert METADATA.get_all("Project-URL") == [
        "Homepage, https://planasonix.com",
        "Documentation, https://docs.planasonix.com/airflow/",
        "Changelog, https://docs.planasonix.com/airflow/changelog.html",
    ]
    assert METADATA["Description-Content-Type"] == "text/markdown"


def test_the_links_of_the_readme_lead_to_the_documentation() -> None:
    readme = METADATA["Description"]
    links = re.findall(r"\]\((.*?)\)", readme)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    for page in re.findall(r"\]\(https://docs\.planasonix\.com/airflow/([\w-]+)\.html", readme):
        assert (ROOT / "docs" / f"{page}.md").is_file(), page


def test_runtime_files_are_in_the_package() -> None:
    package = Path(planasonix_provider.__file__).parent
    assert (package / "py.typed").is_file()
    assert (package / "simulator" / "openapi.yaml").is_file()
    assert list((package / "simulator" / "web" / "templates").glob("*.html"))
    assert not list(package.rglob("test_*.py"))


def test_dependencies_cover_all_imports() -> None:
    assert METADATA["Requires-Python"] == ">=3.11"
    assert METADATA.get_all("Provides-Extra") == ["openlineage", "simulator", "testing"]
    required = {line for line in METADATA.get_all("Requires-Dist") if "extra ==" not in line}
    assert required == {
        "apache-airflow>=2.11",
        "apache-airflow-providers-common-compat>=1.23",
        "httpx<1,>=0.28.1",
        "pydantic>=2.11",
        "rich>=13.8",
        "tenacity>=8.3",
    }


@pytest.mark.skipif(
    Version(airflow_version) < Version("3.3"), reason="Airflow before 3.3 does not search for examples of providers"
)
def test_airflow_can_search_for_example_dags(caplog: pytest.LogCaptureFixture) -> None:
    from airflow.dag_processing.bundles import manager

    found: list[Any] = []
    manager._add_provider_example_dags_to_bundle(found)
    assert "airflow_provider_planasonix" not in caplog.text
    assert not [bundle for bundle in found if "planasonix" in bundle.name]
