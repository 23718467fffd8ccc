from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest

from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.__main__ import main


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    arguments = ["--port", "0", "--api-key", "it's", "--connection", "conn_a", "--connection", "conn_b"]
    arguments += ["--keep", "1", "--queued-seconds", "0", "--job-seconds", "0"]
    command = [sys.executable, "-m", "planasonix_provider.simulator", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def read_welcome(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            break
    return "".join(lines)


@pytest.mark.slow("starts processes")
def test_prints_instructions_and_exits_cleanly(process):
    welcome = read_welcome(process)
    url = re.search(r"at (http://127\.0\.0\.1:\d+)", welcome)[1]
    export = next(line for line in welcome.splitlines() if "export " in line)
    name, _, value = shlex.split(export)[1].partition("=")
    assert name == "AIRFLOW_CONN_PLANASONIX_DEFAULT"
    assert json.loads(value)["password"] == "it's"
    assert {"conn_demo_01 to conn_demo_50", "conn_a", "conn_b"} <= {line.strip() for line in welcome.splitlines()}

    responses = []
    for command in (line for line in welcome.splitlines() if "curl" in line):
        _, _, body, address = shlex.split(command)
        assert address.startswith(url)
        with urllib.request.urlopen(address, body.encode(), timeout=60) as answer:
            responses.append(json.load(answer)["data"])
    sync, poll = responses
    assert sync["plan"]["outcome"] == "failed"
    assert poll["faults"][0]["route"] == "get_job"
    start = urllib.request.Request(f"{url}/api/v1/connections/{sync['connection_id']}/sync", b"{}")
    start.add_header("Authorization", "Bearer it's")
    urllib.request.urlopen(start, timeout=60).close()
    with urllib.request.urlopen(f"{url}/_simulator/state", timeout=60) as answer:
        assert [job["status"] for job in json.load(answer)["data"]["jobs"]] == ["failed"]

    process.terminate()
    rest, invalid_fields = process.communicate(timeout=60)
    assert (process.returncode, rest, invalid_fields) == (0, "", "")


@pytest.mark.slow("starts processes")
def test_keep_limits_the_jobs(process):
    url = re.search(r"at (http://127\.0\.0\.1:\d+)", read_welcome(process))[1]
    for connection in ("conn_a", "conn_b"):
        order = urllib.request.Request(f"{url}/api/v1/connections/{connection}/sync", b"{}")
        order.add_header("Authorization", "Bearer it's")
        urllib.request.urlopen(order, timeout=60).close()
    with urllib.request.urlopen(f"{url}/_simulator/state", timeout=60) as answer:
        assert [job["connection_id"] for job in json.load(answer)["data"]["jobs"]] == ["conn_b"]


@pytest.fixture
def signals() -> Iterator[None]:
    """Restores the signal handlers."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_ctrl_c_exits_cleanly(capsys, monkeypatch):
    def interrupt_and_welcome(simulator: Simulator) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return f"welcome to {simulator.url}"

    monkeypatch.setattr("planasonix_provider.simulator.__main__._welcome", interrupt_and_welcome)
    assert main(["--port", "0"]) == 0
    output = capsys.readouterr()
    assert "welcome to http://127.0.0.1:" in output.out
    assert output.err == ""


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(("options", "shows"), [((), True), (("--hide-metadata",), False)])
def test_hide_metadata(options, shows, monkeypatch):
    seen = []

    def note_and_interrupt(simulator: Simulator) -> str:
        seen.append(simulator.workspace.settings.show_metadata)
        simulator.reset()
        seen.append(simulator.workspace.settings.show_metadata)
        os.kill(os.getpid(), signal.SIGINT)
        return ""

    monkeypatch.setattr("planasonix_provider.simulator.__main__._welcome", note_and_interrupt)
    assert main(["--port", "0", *options]) == 0
    assert seen == [shows, shows]


@pytest.mark.usefixtures("signals")
def test_port_in_use(capsys):
    with Simulator() as other:
        port = other.url.rsplit(":", 1)[1]
        assert main(["--port", port]) == 1
    assert capsys.readouterr().err == (
        f"Cannot listen on 127.0.0.1:{port}: Address already in use. Name another address with --host, or port with "
        "--port; 0 takes a free one.\n"
    )


@pytest.mark.slow("starts processes")
def test_missing_extra_is_reported():
    code = (
        "import sys; sys.modules['fastapi'] = None; from planasonix_provider.simulator.__main__ import main; "
        "sys.exit(main([]))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert ended.returncode == 1
    assert ended.stderr == (
        "The simulator needs fastapi, which is not installed: pip install 'airflow-provider-planasonix[simulator]'.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "70000"], "--port: got 70000, allowed is 0 to 65535"),
        (["--port", "x"], "--port: invalid port value: 'x'"),
        (["--job-seconds", "-1"], "--job-seconds: got -1.0, allowed is 0 to 31536000"),
        (["--queued-seconds", "nan"], "--queued-seconds: got nan, allowed is 0 to 31536000"),
        (["--keep", "0"], "--keep: got 0, allowed is 1 to"),
        (["--rate-limit", "0"], "--rate-limit: got 0, allowed is 1 to"),
        (["--api-key", "two words"], "allowed is one word"),
        (["--connection", ""], "connection_id: got ''"),
        (["--airflow-url", "localhost:8080"], "airflow_url: got 'localhost:8080', allowed is an http or https URL."),
        (["--allow-host", "http://a:80"], "--allow-host: got 'http://a:80', allowed is a host name or"),
        (
            ["--webhook-host", "a b"],
            "--webhook-host: got 'a b', allowed is a host name or",
        ),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_arguments(capsys, arguments, said):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err
