"""The distributions that are built from the sources contain the package, and nothing else."""

from __future__ import annotations

import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import planasonix_provider

ROOT = Path(__file__).parents[2]
#: The module that Airflow imports by the distribution's name.
FOR_AIRFLOW = "airflow_provider_planasonix.py"
NAME = f"airflow_provider_planasonix-{planasonix_provider.__version__}"


def build(source: Path, target: str, folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder], cwd=source, check=True)
    (path,) = folder.iterdir()
    return path


pytestmark = pytest.mark.slow("builds the distributions")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    path = build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))
    assert path.name == f"{NAME}-py3-none-any.whl"
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel_of_the_sdist(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return zipfile.ZipFile(build(folder / NAME, "wheel", tmp_path_factory.mktemp("again")))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    info = f"{NAME}.dist-info"
    assert {name.split("/")[0] for name in wheel.namelist()} == {"planasonix_provider", FOR_AIRFLOW, info}
    packed = {name for name in wheel.namelist() if name.startswith("planasonix_provider/")}
    tracked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "planasonix_provider").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert packed == tracked
    assert {"planasonix_provider/py.typed", "planasonix_provider/plugins/static/planasonix.js"} <= packed
    assert f"{info}/licenses/LICENSE" in wheel.namelist()


def test_the_openapi_document_is_a_regular_file(wheel: zipfile.ZipFile, wheel_of_the_sdist: zipfile.ZipFile) -> None:
    # In the sources it is a symbolic link into docs/, which is not installed.
    document = "planasonix_provider/simulator/openapi.yaml"
    assert (ROOT / document).readlink() == Path("../../docs/openapi.yaml")
    for one in (wheel, wheel_of_the_sdist):
        assert stat.S_ISREG(one.getinfo(document).external_attr >> 16)
        assert one.read(document) == (ROOT / "docs" / "openapi.yaml").read_bytes()


def test_the_source_distribution_builds_the_same_wheel(
    wheel: zipfile.ZipFile, wheel_of_the_sdist: zipfile.ZipFile
) -> None:
    assert wheel.namelist() == wheel_of_the_sdist.namelist()
    one, other = (Path(str(archive.filename)).read_bytes() for archive in (wheel, wheel_of_the_sdist))
    assert one == other


def test_the_tests_are_in_the_source_distribution_and_not_in_the_wheel(wheel: zipfile.ZipFile, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        packed = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    # The source distribution also has the files that the tests read, so that they can run from it.
    assert {
        "tests/conftest.py",
        "pyproject.toml",
        "Makefile",
        "docs/openapi.yaml",
        ".ci/run",
        ".github/workflows/ci.yml",
        "example_dags/planasonix_nightly_sync.py",
    } <= packed
    assert {"LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"} <= packed
    assert not [name for name in wheel.namelist() if Path(name).name.startswith(("test_", "conftest"))]
