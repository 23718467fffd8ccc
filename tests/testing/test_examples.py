"""The example tests of the docs pass in their own pytest, which loads the plugin by its entry point."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from planasonix_provider.triggers.deferral import HAS_STALE_EVENTS

pytestmark = pytest.mark.slow("starts pytest")

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "example_tests"
#: Without other plugins, because they import many modules.
ALONE = ("-p", "no:schemathesis", "-p", "no:time_machine")
#: The examples that retry a deferred task. In dag.test() of Airflow 3.0, the retry gets the event of the previous try.
WITH_A_RETRY = {"test_retries_when_the_source_was_unreachable", "test_cancels_a_sync_that_takes_longer_than_two_hours"}


def run_pytest(folder: Path, *options: str, code: str = "import pytest, sys; sys.exit(pytest.main())") -> str:
    """Run pytest in a new process; return its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST"))}
    ran = subprocess.run(
        [sys.executable, "-c", code, "-q", "-c", os.devnull, "--rootdir", folder, "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-5000:]
    return ran.stdout


def test_the_examples_pass_in_two_processes() -> None:
    code = "".join(file.read_text() for file in EXAMPLES.glob("test_*.py"))
    examples = set(re.findall(r"def (test_\w+)", code))
    assert examples > WITH_A_RETRY
    expected = examples - WITH_A_RETRY if HAS_STALE_EVENTS else examples
    choice = ("-n", "2", "-k", " or ".join(expected))
    told = run_pytest(EXAMPLES, "-o", f"pythonpath={ROOT / 'example_dags'}", *choice)
    assert f"{len(expected)} passed" in told


def test_an_unused_plugin_imports_no_large_package(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    loaded = (
        "import pytest, sys; code = pytest.main();"
        "print('LOADED', *(name for name in sys.modules if name.split('.')[0] in "
        "('airflow', 'httpx', 'pydantic', 'fastapi', 'uvicorn', 'time_machine', 'planasonix_provider')));"
        "sys.exit(code)"
    )
    told = run_pytest(tmp_path, *ALONE, code=loaded)
    (line,) = (line for line in told.splitlines() if line.startswith("LOADED"))
    assert set(line.split()[1:]) == {
        "planasonix_provider",
        "planasonix_provider.testing",
        "planasonix_provider.testing.plugin",
    }


@pytest.mark.parametrize(
    ("module", "extra"), [("time_machine", "testing"), ("fastapi", "simulator")], ids=["time-machine", "fastapi"]
)
def test_the_plugin_names_the_missing_extra(tmp_path: Path, module: str, extra: str) -> None:
    (tmp_path / "conftest.py").write_text(f"import sys\nsys.modules[{module!r}] = None\n")
    (tmp_path / "test_it.py").write_text("def test_it(planasonix):\n    pass\n")
    told = run_pytest(tmp_path, *ALONE, code="import pytest, sys; sys.exit(pytest.main() != 1)")
    assert f"pip install 'airflow-provider-planasonix[{extra}]'" in told
