"""What is installed is the package, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import entry_points, metadata
from pathlib import Path

import pytest

import planasonix_provider

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (path,) = folder.glob("*.whl")
    assert path.name == f"airflow_provider_planasonix-{planasonix_provider.__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    info = f"airflow_provider_planasonix-{planasonix_provider.__version__}.dist-info"
    assert {name.split("/")[0] for name in wheel.namelist()} == {"planasonix_provider", info}
    packed = {name for name in wheel.namelist() if name.startswith("planasonix_provider/")}
    tracked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "planasonix_provider").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert packed == tracked
    assert "planasonix_provider/py.typed" in packed
    assert f"{info}/licenses/LICENSE" in wheel.namelist()


def test_airflow_finds_the_provider_by_its_entry_point() -> None:
    (point,) = [
        point
        for point in entry_points(group="apache_airflow_provider")
        if point.value.startswith("planasonix_provider.")
    ]
    assert point.load()()["package-name"] == "airflow-provider-planasonix"


def test_it_asks_for_what_it_uses() -> None:
    wanted = metadata("airflow-provider-planasonix")
    assert wanted["Requires-Python"] == ">=3.11"
    assert wanted["License-Expression"] == "Apache-2.0"
    required = {line for line in wanted.get_all("Requires-Dist") or [] if "extra ==" not in line}
    assert required == {
        "apache-airflow>=2.11",
        "apache-airflow-providers-common-compat>=1.23",
        "httpx<1,>=0.28.1",
        "pydantic>=2.8",
        "tenacity>=8.3",
    }
