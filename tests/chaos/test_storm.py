"""The storm records when a disturbance began. The auditor relies on this time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.chaos.environment import Planasonix, wait_until
from tests.chaos.plan import Action, Plan
from tests.chaos.storm import PerformedAction, Storm

pytestmark = pytest.mark.slow("starts processes")


@pytest.fixture
def planasonix(tmp_path: Path) -> Iterator[Planasonix]:
    planasonix = Planasonix(tmp_path / "planasonix")
    planasonix.start()
    wait_until(lambda: planasonix.is_up, "the simulator is up", patience=60)
    yield planasonix
    assert planasonix.process
    planasonix.process.kill()
    planasonix.process.wait()
    planasonix.proxy.close()


def run_storm(
    planasonix: Planasonix, home: Path, *actions: Action
) -> tuple[list[PerformedAction], list[httpx.Response]]:
    """Run a storm while a thread lists jobs all the time. Return the recorded actions and the responses."""
    airflow = SimpleNamespace(processes={})
    plan = Plan(seed=1, distributed=False, size="short", settings={}, seconds={}, oddities={}, actions=actions)
    environment: Any = SimpleNamespace(home=home, airflow=airflow, planasonix=planasonix)
    storm = Storm(plan, environment, lambda text: None)
    answers: list[httpx.Response] = []
    is_over = Event()

    def ask() -> None:
        with httpx.Client(headers={"Authorization": f"Bearer {planasonix.key}"}) as client:
            while not is_over.wait(0.05):
                answers.append(client.get(f"{planasonix.proxy.url}/api/v1/jobs"))

    caller = Thread(target=ask)
    caller.start()
    try:
        storm.run_storm()
        wait_until(lambda: answers and answers[-1].is_success, "the refusal is over", patience=60)
    finally:
        is_over.set()
        caller.join()
    return storm.done, answers


def test_a_refusal_is_recorded_from_its_first_request(planasonix: Planasonix, tmp_path: Path) -> None:
    how = {"which": "reads", "how": "403 html", "seconds": 1.0}
    (done,), answers = run_storm(planasonix, tmp_path, Action(0.0, "refuse", None, how))
    refused = [answer for answer in answers if answer.status_code == 403]
    assert len(refused) == planasonix.proxy.counts["reads refused: 403 html"] > 1
    assert (done.kind, done.facts) == ("refuse", how)
    assert done.at == planasonix.proxy.began("reads")


def test_spoilt_lists_are_recorded_from_the_first_list(planasonix: Planasonix, tmp_path: Path) -> None:
    (done,), answers = run_storm(planasonix, tmp_path, Action(0.0, "spoil_lists", None, {"seconds": 1.0}))
    assert any(row["id"] is None for answer in answers for row in answer.json()["data"])
    assert (done.kind, done.at) == ("spoil_lists", planasonix.proxy.began("lists"))


def test_a_crashed_component_is_recorded_and_restarted(planasonix: Planasonix, tmp_path: Path) -> None:
    assert planasonix.process
    planasonix.process.kill()
    planasonix.process.wait()
    how = {"which": "reads", "how": "302", "seconds": 0.5}
    done, _ = run_storm(planasonix, tmp_path, Action(0.0, "refuse", None, how))
    assert [each.kind for each in done] == ["crash", "refuse"]
    assert done[0].facts == {"component": "simulator"}
    assert planasonix.is_up
