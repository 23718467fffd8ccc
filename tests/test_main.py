from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from planasonix_provider import __main__, __version__
from planasonix_provider.simulator import Simulator
from tests.support.scenarios import CONNECTION


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        __main__.main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"airflow-provider-planasonix {__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["webhooks"], ["nonsense"], ["sync", "conn_1", "--nonsense"]])
def test_an_invalid_command_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        __main__.main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m planasonix_provider")


def test_ctrl_c_during_the_import_of_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "_run", interrupt)
    assert __main__.main(["ping"]) == 130


@pytest.mark.parametrize(
    ("typed", "completions"),
    [
        ("ba", ["backfill", "backfills", "backfill-status"]),
        ("webhooks ro", ["rotate-secret"]),
        ("jobs --sta", ["--status"]),
        ("jobs --status can", ["cancelled", "cancelling"]),
    ],
)
def test_shell_completion(tmp_path: Path, typed: str, completions: list[str]) -> None:
    line = f"python -m planasonix_provider {typed}"
    environment = {
        **os.environ,
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        # The position of the program's name, from 1: after "python -m".
        "_ARGCOMPLETE": "3",
        "_ARGCOMPLETE_IFS": " ",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "completions"),
    }
    subprocess.run([sys.executable, "-m", "planasonix_provider"], check=True, timeout=250, env=environment)
    assert sorted((tmp_path / "completions").read_text().split()) == sorted(completions)


def test_argcomplete_finds_its_marker() -> None:
    subprocess.run([sys.executable, "-m", "argcomplete._check_module", "planasonix_provider"], check=True, timeout=250)


@pytest.mark.slow("starts processes")
def test_a_command_in_a_new_process_prints_only_its_result(simulator: Simulator) -> None:
    command = [sys.executable, "-m", "planasonix_provider", "sync", CONNECTION, "--wait", "-o", "json"]
    ran = subprocess.run(
        [*command, "--poll-interval", "0.5"], capture_output=True, text=True, timeout=250, env={**os.environ}
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["status"] == "succeeded"
    lines = [line for line in ran.stderr.splitlines() if "cryptography" not in line]
    assert lines[0].startswith("Started job ")
    assert lines[-1] == "Loaded 44,802 rows into 1 table."


@pytest.mark.slow("starts processes")
@pytest.mark.parametrize("form", ["json", "yaml", "plain", "table"])
def test_a_closed_stdout_causes_no_message(simulator: Simulator, form: str) -> None:
    command = f"{sys.executable} -m planasonix_provider jobs -o {form}; echo $? >&2"
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(["/bin/sh", "-c", command], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=250)
    os.close(writer)
    assert [line for line in ran.stderr.splitlines() if "cryptography" not in line] == ["141"]


@pytest.mark.slow("starts processes")
def test_the_result_is_printed_if_stderr_is_closed(simulator: Simulator) -> None:
    command = [sys.executable, "-m", "planasonix_provider", "sync", CONNECTION, "--wait", "-o", "json"]
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run([*command, "--poll-interval", "0.5"], stdout=subprocess.PIPE, stderr=writer, timeout=250)
    os.close(writer)
    assert (ran.returncode, json.loads(ran.stdout)["status"]) == (0, "succeeded")


@pytest.mark.slow("starts processes")
def test_the_job_id_is_printed_if_stdout_is_ascii(simulator: Simulator) -> None:
    simulator.workspace.add_connection("conn_\u00e9")
    command = [sys.executable, "-m", "planasonix_provider", "sync", "conn_\u00e9", "-o", "json"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run(command, capture_output=True, timeout=250, env=environment)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["job_id"] == simulator.jobs()[0].id
