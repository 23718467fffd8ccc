from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from planasonix_provider import configuration, validators
from planasonix_provider.api.errors import PlanasonixConfigurationError, PlanasonixOutageError, PlanasonixTransportError
from planasonix_provider.get_provider_info import CONFIG
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from planasonix_provider.sensors.planasonix import PlanasonixJobSensor
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.support.outages import MINUTE, outage
from tests.support.task_runs import drive, no_variables
from tests.support.time_travel import TravelledClock, simulated_time

OPTIONS = CONFIG["planasonix"]["options"]
PAGE = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()
CONNECTION = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"
MAKE = f"""
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator, PlanasonixCancelJobOperator
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
sync = PlanasonixSyncOperator(task_id="load", connection_id="{CONNECTION}")
own = PlanasonixSyncOperator(task_id="own", connection_id="{CONNECTION}", poll_interval=7, cancel_on_kill=True)
cancel = PlanasonixCancelJobOperator(task_id="cancel", job_id="job_1")
print([sync.poll_interval, sync.cancel_on_kill, own.poll_interval, own.cancel_on_kill, cancel.poll_interval])
"""


def set_option(monkeypatch: pytest.MonkeyPatch, option: str, value: str) -> None:
    monkeypatch.setenv(f"AIRFLOW__PLANASONIX__{option.upper()}", value)


def python(code: str, **options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {f"AIRFLOW__PLANASONIX__{name.upper()}": value for name, value in options.items()}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_every_option_has_its_default() -> None:
    assert {option: getattr(configuration, option)() for option in OPTIONS} == {
        "outage_patience": 3600.0,
        "first_contact_patience": 120.0,
        "poll_interval": 10.0,
        "cancel_on_kill": True,
    }


@pytest.mark.parametrize(
    ("option", "given", "value"),
    [
        ("outage_patience", "7200", 7200.0),
        ("outage_patience", "60", 60.0),
        ("first_contact_patience", " 1 ", 1.0),
        ("poll_interval", "0.5", 0.5),
        ("poll_interval", "86400", 86_400.0),
        ("cancel_on_kill", "false", False),
        ("cancel_on_kill", "TRUE", True),
        ("cancel_on_kill", "1", True),
        ("cancel_on_kill", "f  # for the nightly loads", False),
    ],
)
def test_a_value_is_read(monkeypatch: pytest.MonkeyPatch, option: str, given: str, value: Any) -> None:
    set_option(monkeypatch, option, given)
    assert getattr(configuration, option)() == value


@pytest.mark.parametrize(
    ("option", "given", "allowed"),
    [
        ("outage_patience", "an hour", "a number of seconds from 60 to 604,800"),
        ("outage_patience", "59", "a number of seconds from 60 to 604,800"),
        ("outage_patience", "nan", "a number of seconds from 60 to 604,800"),
        ("first_contact_patience", "3601", "a number of seconds from 1 to 3,600"),
        ("poll_interval", "0.4", "a number of seconds from 0.5 to 86,400"),
        ("poll_interval", "", "a number of seconds from 0.5 to 86,400"),
        ("cancel_on_kill", "perhaps", "True or False"),
    ],
)
def test_an_error_names_the_option_the_value_and_the_allowed_values(
    monkeypatch: pytest.MonkeyPatch, min_poll_seconds: float, option: str, given: str, allowed: str
) -> None:
    set_option(monkeypatch, option, given)
    with pytest.raises(ValueError, match="allowed") as refused:
        getattr(configuration, option)()
    assert str(refused.value) == (
        f"[planasonix] {option} in Airflow's configuration: got {given!r}, allowed is {allowed}."
    )


@pytest.mark.parametrize("option", OPTIONS)
def test_the_page_has_each_option_with_its_default(option: str) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{option}` |")]
    assert row.split(" | ")[2] == OPTIONS[option]["default"]


@pytest.mark.slow("starts processes")
def test_airflow_lists_the_section() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "airflow", "config", "list", "--section", "planasonix", "--include-descriptions"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "[planasonix]" in listed
    # Only some versions of Airflow show the values.
    assert all(f"{option} = " in listed for option in OPTIONS)
    assert "Defaults of all tasks that use the Planasonix provider." in listed


@pytest.mark.slow("starts processes")
def test_the_options_are_defaults_that_a_task_can_override() -> None:
    made = python(MAKE, poll_interval="30", cancel_on_kill="False")
    assert made.stdout.splitlines()[-1] == "[30.0, False, 7, True, 30.0]"
    assert python(MAKE).stdout.splitlines()[-1] == "[10.0, True, 7, True, 10.0]"


@pytest.mark.slow("starts processes")
def test_an_invalid_default_is_an_error_when_the_dag_is_parsed() -> None:
    parsed = python(MAKE, poll_interval="fast")
    assert parsed.stderr.splitlines()[-1] == (
        "ValueError: [planasonix] poll_interval in Airflow's configuration: got 'fast', allowed is a number of seconds "
        "from 0.5 to 86,400."
    )


class TestMaxOutage:
    @pytest.fixture
    def travel(self, monkeypatch: pytest.MonkeyPatch, simulator: Simulator) -> Iterator[TravelledClock]:
        no_variables(monkeypatch)
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=3 * 3600)
        with simulated_time() as travel:
            yield travel

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_is_configurable(self, travel: TravelledClock, monkeypatch: pytest.MonkeyPatch, deferrable: bool) -> None:
        set_option(monkeypatch, "outage_patience", "1200")
        with outage(travel, "503", after=5 * MINUTE, seconds=10 * 3600):
            run = drive(
                lambda: PlanasonixSyncOperator(
                    task_id="load", connection_id=CONNECTION, poll_interval=60, deferrable=deferrable
                )
            )
        assert isinstance(run.error, PlanasonixOutageError)
        assert "for more than 20 min 0 s" in str(run.error)
        assert 25 * MINUTE <= travel.passed < 28 * MINUTE

    @pytest.mark.parametrize(
        "make",
        [
            lambda: PlanasonixSyncOperator(task_id="load", connection_id=CONNECTION),
            lambda: PlanasonixJobSensor(task_id="wait", job_id="job_1"),
        ],
        ids=["operator", "sensor"],
    )
    def test_of_the_first_request_is_configurable(
        self, travel: TravelledClock, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any]
    ) -> None:
        set_option(monkeypatch, "first_contact_patience", "30")
        unreachable = {"conn_type": "planasonix", "host": "http://127.0.0.1:9", "password": API_KEY}
        monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_DEFAULT", json.dumps(unreachable))
        with outage(travel, "refused", seconds=0):
            run = drive(make)
        assert isinstance(run.error, PlanasonixTransportError)
        assert travel.passed <= 30

    def test_that_is_invalid_starts_nothing(
        self, simulator: Simulator, travel: TravelledClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_option(monkeypatch, "outage_patience", "long")
        run = drive(lambda: PlanasonixSyncOperator(task_id="load", connection_id=CONNECTION))
        assert isinstance(run.error, PlanasonixConfigurationError)
        assert "[planasonix] outage_patience in Airflow's configuration: got 'long'" in str(run.error)
        assert simulator.jobs() == []


def test_the_default_interval_is_valid_for_a_task() -> None:
    assert validators.poll_interval("poll_interval", configuration.poll_interval()) == 10
