"""What is installed is the package, and nothing else."""

from __future__ import annotations

import stat
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import entry_points, metadata
from pathlib import Path

import pytest

import planasonix_provider

ROOT = Path(__file__).parent.parent


NAME = f"airflow_provider_planasonix-{planasonix_provider.__version__}"


def build(source: Path, target: str, folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder], cwd=source, check=True)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    path = build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))
    assert path.name == f"{NAME}-py3-none-any.whl"
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def wheel_of_the_sdist(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    path = build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(path) as sdist:
        sdist.extractall(folder, filter="data")
    return zipfile.ZipFile(build(folder / NAME, "wheel", tmp_path_factory.mktemp("again")))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    info = f"{NAME}.dist-info"
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


def test_the_document_is_a_file_wherever_it_comes_from(
    wheel: zipfile.ZipFile, wheel_of_the_sdist: zipfile.ZipFile
) -> None:
    # In the sources it is a link into the docs, and nothing that is installed has those.
    document = "planasonix_provider/simulator/openapi.yaml"
    assert (ROOT / document).readlink() == Path("../../docs/openapi.yaml")
    for one in (wheel, wheel_of_the_sdist):
        assert stat.S_ISREG(one.getinfo(document).external_attr >> 16)
        assert one.read(document) == (ROOT / "docs" / "openapi.yaml").read_bytes()


def test_the_source_distribution_makes_the_same_wheel(
    wheel: zipfile.ZipFile, wheel_of_the_sdist: zipfile.ZipFile
) -> None:
    contents = [{name: one.read(name) for name in one.namelist()} for one in (wheel, wheel_of_the_sdist)]
    assert contents[0] == contents[1]


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
        "rich>=13.8",
        "tenacity>=8.3",
    }
