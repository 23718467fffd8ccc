"""The README and the docs match the code."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import planasonix_provider
from planasonix_provider.api.operations import Operations, operation, paginated_operation
from planasonix_provider.cli.commands import SHELL, Group
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.operators import planasonix as operators
from planasonix_provider.plugins.delivery import DeliveryBody
from planasonix_provider.sensors import planasonix as sensors
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.support.dags_folder import load_dags, run_dag
from tests.support.example_tasks import SENSORS, public_classes

ROOT = Path(__file__).parent.parent
PACKAGE = Path(planasonix_provider.__file__).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow("runs a whole DAG")
@pytest.mark.dag
@pytest.mark.usefixtures("dags_folder")
def test_the_dag_in_the_readme_runs(simulator: Simulator) -> None:
    (block,) = python_blocks(ROOT / "README.md")
    simulator.plan("conn_01jq8k2m3n4p5q6r7s8t9u0v1", queued_seconds=0, running_seconds=0)
    assert run_dag(load_dags("readme", block)["dag"]) == "success"
    (job,) = simulator.jobs()
    assert (job.connection_id, job.status) == ("conn_01jq8k2m3n4p5q6r7s8t9u0v1", "succeeded")


@pytest.mark.parametrize("page", [page for page in PAGES[1:] if python_blocks(page)], ids=lambda page: page.name)
def test_the_python_in_the_docs_runs(page: Path, simulator: Simulator) -> None:
    for block in python_blocks(page):
        if example := re.match(r"# (example_(?:dags|tests)/\w+\.py)\n", block):
            assert block.removeprefix(example[0]) in (ROOT / example[1]).read_text()
        else:
            exec(compile(block, page.name, "exec"), {})


def test_the_example_on_the_page_of_partitions_reads_the_days_of_a_delivery(simulator: Simulator) -> None:
    (block,) = (block for block in python_blocks(ROOT / "docs" / "asset-partitions.md") if "def days_of(extra" in block)
    names: dict[str, Any] = {}
    exec(compile(block, "asset-partitions.md", "exec"), names)
    with PlanasonixHook() as hook:
        backfill = hook.trigger_backfill("conn_demo_01", start_at="2024-03-09T12:00:00Z", end_at="2024-03-11")
    sent = {"id": "evt_1", "timestamp": "2024-04-01T23:59:59Z"}
    completed = DeliveryBody(type="backfill.completed", backfill_id=backfill.id, **sent)
    succeeded = DeliveryBody(type="job.succeeded", job_id="job_1", **sent)
    assert names["days_of"](completed.to_asset_extra("orders")) == ["2024-03-09T00:00:00", "2024-03-10T00:00:00"]
    assert names["days_of"](succeeded.to_asset_extra("orders")) == ["2024-04-01T00:00:00"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_targets(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def commands(group: Group) -> Iterator[str]:
    for command in group.commands:
        if isinstance(command, Group):
            yield from (f"{command.name} {name}" for name in commands(command))
        else:
            yield command.name


def test_each_route_has_its_method_operator_and_command() -> None:
    page = (ROOT / "docs" / "python-api.md").read_text()
    rows = re.findall(r"^\| `([A-Z]+) (/\S+)` \| `(\w+)` \| (.*?) ?\| `([\w -]+)` \|$", page, re.MULTILINE)
    document = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
    assert {(verb.lower(), f"/api/v1{path}", method) for verb, path, method, *_ in rows} == {
        (verb, path, described["operationId"])
        for path, methods in document["paths"].items()
        for verb, described in methods.items()
        if verb != "parameters"
    }
    assert {method for _, _, method, *_ in rows} == {
        name for name, member in vars(Operations).items() if isinstance(member, (operation, paginated_operation))
    }
    for name in re.findall(r"`(\w+)`", " ".join(in_a_dag for *_, in_a_dag, _ in rows)):
        assert hasattr(sensors if name.endswith("Sensor") else operators, name), name
    assert {command for *_, command in rows} == set(commands(SHELL)) - {"ping", "watch", "status", "waits", "orphans"}


@pytest.mark.parametrize(
    "place", ["CHANGELOG.md", "docs/sensors.md", "example_dags/*.py", "tests/sensors/test_planasonix.py"]
)
def test_each_sensor_is_documented_and_tested(place: str) -> None:
    text = "\n".join(path.read_text() for path in ROOT.glob(place))
    missing = [sensor.__name__ for sensor in SENSORS if sensor.__name__ not in text]
    assert not missing, f"{place} does not mention {', '.join(missing)}"


@pytest.mark.parametrize(
    "place", ["CHANGELOG.md", "docs/features.md", "docs/python-api.md", "example_dags/*.py", "tests/**/*.py"]
)
def test_each_operator_is_documented_and_tested(place: str) -> None:
    paths = (path for path in ROOT.glob(place) if path != Path(__file__))
    text = "\n".join(path.read_text() for path in paths)
    missing = [operator.__name__ for operator in public_classes(operators) if operator.__name__ not in text]
    assert not missing, f"{place} does not mention {', '.join(missing)}"


def test_the_receiver_accepts_bodies_as_large_as_its_page_says() -> None:
    # Not imported: its package needs the API server of Airflow 3.
    source = (PACKAGE / "plugins" / "request_body.py").read_text()
    kilobytes = re.search(r"^MAX_BODY_BYTES = (\d+) \* 1024$", source, re.MULTILINE)
    assert kilobytes is not None
    page = (ROOT / "docs" / "webhook-receiver.md").read_text()
    assert f"more than {int(kilobytes[1]) * 1024:,} bytes" in page
    assert f"client_max_body_size {kilobytes[1]}k;" in page


def test_the_diagrams_are_those_of_their_source() -> None:
    source = runpy.run_path(str(ROOT / "docs" / "diagrams.py"))
    for name, (title, steps) in source["DIAGRAMS"].items():
        picture = ROOT / "docs" / "images" / f"{name}.svg"
        assert picture.read_text() == source["draw"](title, steps), "run python docs/diagrams.py"


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", "\n".join(page.read_text() for page in PAGES), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_troubleshooting_quotes_messages_that_exist() -> None:
    sources = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    # Join messages that span lines, and fill in the status, which comes from a field.
    texts = re.sub(r'"\n\s*f?"', "", sources)
    texts, messages = re.subn(r"answered \{_status\(\w+\.status\)\}", "answered 401 answered 403 answered 409", texts)
    assert messages, "no message has 'answered {_status(response.status)}' any more: adapt this test"
    sections = (ROOT / "docs" / "troubleshooting.md").read_text().split("\n## ")[1:-1]
    quoted = [
        quote
        for section in sections
        for row in section.split("\n| ")[3:]
        for quote in re.findall(r"`([^`]+)`", row.split(" | ")[0])
    ]
    assert len(quoted) > 20
    of_python_and_airflow = {"No module named 'planasonix_provider'", "deferred"}
    missing = [quote for quote in quoted if quote not in texts and quote not in of_python_and_airflow]
    assert not missing, f"docs/troubleshooting.md quotes texts that no message in planasonix_provider/ has: {missing}"


PUBLIC = [
    "api.client",
    "api.errors",
    "api.models",
    "api.routes",
    "api.signature",
    "assets.planasonix",
    "hooks.planasonix",
    "operators.planasonix",
    "sensors.planasonix",
    "testing.planasonix",
    "triggers.events",
    "triggers.planasonix",
    "windows",
]


@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_has_every_public_module(module: str) -> None:
    pages = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    assert f"planasonix_provider.{module}" in pages


def test_no_page_or_message_puts_a_secret_on_a_command_line() -> None:
    # Every user of the machine can read it in the list of processes.
    paths = [ROOT / "README.md", ROOT / "Makefile"]
    folders = [ROOT / name for name in ("docs", "example_dags", "example_plugins", "example_tests", "dev")]
    for folder in (PACKAGE, *folders):
        paths += [path for path in folder.rglob("*") if path.suffix in (".md", ".py")]
    assert len(paths) > 200
    on_a_command_line = re.compile(r"--(conn-)?(password|uri|json)\b|export AIRFLOW_CONN_\w+='.*(plnx_live|flx)_")
    assert [str(path) for path in paths if on_a_command_line.search(path.read_text())] == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are for a shell")
def test_the_commands_of_the_connection_page_create_a_connection(tmp_path: Path) -> None:
    section = (ROOT / "docs" / "connection.md").read_text().split("\n## Without the form\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    # Print the file that Airflow would import.
    script = 'airflow() { stat -c %a "$3"; cat "$3"; }\n'
    printed = [
        subprocess.run(
            ["bash", "-c", f"{script}{block}\necho; echo $AIRFLOW_CONN_PLANASONIX_DEFAULT; ls; echo $KEY"],
            input=f"{API_KEY}\n",
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"]},
            check=True,
        ).stdout.splitlines()
        for block in blocks
    ]
    (in_environment, in_file) = printed
    connection = {"conn_type": "planasonix", "password": API_KEY}
    # Neither a file nor a variable keeps the key.
    assert [json.loads(in_environment[1]), *in_environment[2:]] == [connection, ""]
    assert in_file[0] == "API key: 600"
    assert [json.loads(in_file[1]), *in_file[2:]] == [{"planasonix_default": connection}, "", ""]
