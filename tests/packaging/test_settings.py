"""The settings of services (GitHub, Read the Docs, editors) agree with the Makefile and with each other.

``make lint-settings`` checks their syntax.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.MULTILINE))
WORKFLOW_FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS: dict[str, Any] = {path.name: yaml.safe_load(path.read_text()) for path in WORKFLOW_FILES}
SETTINGS = [
    *(path for path in sorted((ROOT / ".github").rglob("*")) if path.is_file()),
    ROOT / ".readthedocs.yaml",
    ROOT / ".devcontainer" / "devcontainer.json",
]
#: The only hosts that settings may name: tools find their package registry themselves.
HOSTS = {"cyclonedx.org", "docs.planasonix.com", "planasonix.com", "github.com"}


def run_make(recipe: str) -> subprocess.CompletedProcess[str]:
    """Run a recipe with the variables of the Makefile, without the arguments of a surrounding make."""
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", "--no-print-directory", "--eval", f"show:; @{recipe}", "show"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def make_variable(name: str) -> str:
    """Return the value of a variable of the Makefile."""
    run = run_make(f"echo '$({name})'")
    run.check_returncode()
    return run.stdout.strip()


def used_targets(script: str) -> set[str]:
    """Return the targets that the lines of a script make."""
    lines = re.findall(r"^\s*make((?: --\S+)*(?: [\w-]+(?!\S))+)", script, re.MULTILINE)
    return {word for line in lines for word in line.split() if not word.startswith("--")}


def scripts(workflow: Any) -> str:
    steps = [step for job in workflow["jobs"].values() for step in job.get("steps", ())]
    return "\n".join(step["run"] for step in steps if "run" in step)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_make_only_targets_that_exist(name: str) -> None:
    assert used_targets(scripts(WORKFLOWS[name])) <= TARGETS


def test_hooks_of_git_make_only_targets_that_exist_and_run_tools_that_are_installed() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repository["hooks"]:
        program = hook["entry"].split()[0]
        if program == "make":
            assert used_targets(hook["entry"]) <= TARGETS
            assert used_targets(hook["entry"])
        else:
            assert program.removeprefix(".venv/bin/") in lint_tools()


def lint_tools() -> list[str]:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    return [re.split(r"\W", requirement)[0] for requirement in groups["lint"]]


def test_jobs_of_ci_make_each_target_of_the_ci_script() -> None:
    targets = used_targets((ROOT / ".ci" / "run").read_text())
    assert "lint" in targets
    # On GitHub, each version has a job of its own, which runs all tests.
    assert targets - {"install", "install-browser", "test-all"} <= used_targets(scripts(WORKFLOWS["ci.yml"]))
    assert "test-versions" in used_targets(scripts(WORKFLOWS["ci.yml"]))


def test_the_last_job_of_ci_needs_all_others() -> None:
    jobs = WORKFLOWS["ci.yml"]["jobs"]
    assert set(jobs["passed"]["needs"]) == set(jobs) - {"passed"}


def test_ci_tests_every_airflow_on_every_python_that_it_supports() -> None:
    matrix = WORKFLOWS["ci.yml"]["jobs"]["test"]["strategy"]["matrix"]
    excluded = {(cell["airflow"], cell["python"]) for cell in matrix["exclude"]}
    tested = set(product(matrix["airflow"], matrix["python"])) - excluded

    def supports(airflow: str, minor: int) -> bool:
        too_new = make_variable(f"TOO_NEW_{airflow}") or make_variable("TOO_NEW")
        return (3, minor) < tuple(map(int, too_new.split(".")))

    versions = [*make_variable("OLDER").split(), make_variable("NEWEST")]
    assert tested == {
        (airflow, f"3.{minor}") for airflow in versions for minor in range(11, 20) if supports(airflow, minor)
    }


def test_every_airflow_runs_each_night() -> None:
    matrix = WORKFLOWS["nightly.yml"]["jobs"]["system"]["strategy"]["matrix"]
    assert matrix["airflow"] == [*make_variable("OLDER").split(), make_variable("NEWEST")]


def test_the_nightly_upgrade_test_has_the_tags_of_earlier_releases() -> None:
    checkout = WORKFLOWS["nightly.yml"]["jobs"]["system"]["steps"][0]
    assert checkout["uses"].startswith("actions/checkout@")
    assert checkout["with"]["fetch-depth"] == 0


@pytest.mark.slow("starts pytest")
@pytest.mark.parametrize(
    ("code", "is_fatal", "is_reported"),
    [
        ("def test(): pass", False, False),
        ("def test(): assert False", False, True),
        ("", True, False),
    ],
    ids=["passed", "failed", "no tests"],
)
def test_failed_tests_on_a_prerelease_are_not_fatal(
    tmp_path: Path, code: str, is_fatal: bool, is_reported: bool
) -> None:
    assert "$(call list-failures,$(PRERELEASE)/bin/python -m pytest" in MAKEFILE
    (tmp_path / "test_one.py").write_text(code)
    pytest_command = f"{sys.executable} -m pytest -q -c /dev/null --rootdir {tmp_path} {tmp_path}"
    run = run_make(f"$(call list-failures,{pytest_command})")
    assert (run.returncode != 0) == is_fatal, run.stdout
    assert ("not fatal" in run.stdout) == is_reported


def test_errors_of_nightly_jobs_are_shown() -> None:
    assert not any("continue-on-error" in job for job in WORKFLOWS["nightly.yml"]["jobs"].values())


def test_the_upload_and_the_announcement_of_a_release_can_be_repeated() -> None:
    jobs = WORKFLOWS["release.yml"]["jobs"]
    (upload,) = [step for step in jobs["publish"]["steps"] if step["uses"].startswith("pypa/gh-action-pypi-publish@")]
    assert upload["with"]["skip-existing"] is True
    (script,) = [step["run"] for step in jobs["announce"]["steps"] if "run" in step]
    assert re.findall(r"gh release (\w+)", script) == ["view", "create", "upload"]
    assert " --clobber " in script


def test_a_release_tests_the_wheel_on_each_released_version() -> None:
    matrix = WORKFLOWS["release.yml"]["jobs"]["wheel"]["strategy"]["matrix"]
    assert sorted(matrix["airflow"]) == sorted(make_variable("RELEASED").split())


def test_each_action_is_pinned_to_one_commit() -> None:
    pins = defaultdict(set)
    for path in WORKFLOW_FILES:
        for action, pin in re.findall(r"uses: ([\w-]+/[\w-]+)@(.*)", path.read_text()):
            pins[action].add(pin)
    assert pins
    for action, found in pins.items():
        assert len(found) == 1, action
        assert re.fullmatch(r"[0-9a-f]{40} # v\d+\.\d+\.\d+", found.pop()), action


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: path.name)
def test_settings_name_no_other_hosts(path: Path) -> None:
    text = path.read_text()
    hosts = set(re.findall(r"\b(?:[a-z0-9-]+\.)+(?:com|org|io|net|dev)\b", text))
    assert hosts <= HOSTS


def test_read_the_docs_installs_what_make_docs_installs() -> None:
    settings = yaml.safe_load((ROOT / ".readthedocs.yaml").read_text())
    (command,) = settings["build"]["jobs"]["install"]
    assert command == "pip install -c constraints/docs.txt -r docs/requirements.txt"
    assert "$(DOCS)/.installed: docs/requirements.txt constraints/docs.txt" in MAKEFILE


def test_the_dev_container_has_a_python_for_every_airflow_and_valid_targets() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    found = re.fullmatch(r"python:3\.(\d+)-[a-z]+", container["image"])
    assert found
    too_new = [make_variable(f"TOO_NEW_{version}") for version in make_variable("OLDER").split()]
    assert all((3, int(found[1])) < tuple(map(int, version.split("."))) for version in too_new if version)
    assert re.findall(r"make (\w+)", container["postCreateCommand"]) == ["dev"]
    assert "dev" in TARGETS
    assert str(container["forwardPorts"][0]) == make_variable("PORT")


def test_the_dev_container_installs_the_extensions_that_the_editor_recommends() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    recommended = json.loads((ROOT / ".vscode" / "extensions.json").read_text())["recommendations"]
    assert container["customizations"]["vscode"]["extensions"] == recommended
    json.loads((ROOT / ".vscode" / "settings.json").read_text())


def test_volumes_of_the_dev_container_hide_the_environments_of_the_host() -> None:
    # An environment of the host names the host's Python, but make would consider it installed.
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    targets = [mount["target"] for mount in container["mounts"] if mount["type"] == "volume"]
    assert targets == [f"${{containerWorkspaceFolder}}/{folder}" for folder in (".venv", ".venvs")]
