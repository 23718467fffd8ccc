"""The plans of storms."""

from __future__ import annotations

from typing import get_args

import pytest

from tests.chaos.catalogue import catalogue
from tests.chaos.plan import COUNTS, STORM, make
from tests.support.proxy import REFUSALS, Oddity


@pytest.mark.parametrize("size", ["full", "short"])
@pytest.mark.parametrize("seed", range(5))
def test_a_seed_repeats_its_plan_exactly(seed: int, size: str) -> None:
    assert make(seed, size=size) == make(seed, size=size)
    assert str(make(seed, size=size)) == str(make(seed, size=size))


def test_different_seeds_give_different_plans() -> None:
    plans = [str(make(seed, distributed=False).actions) for seed in range(20)]
    assert len(set(plans)) == 20


def test_the_seed_varies_the_simulator_settings() -> None:
    assert len({str(make(seed).settings) for seed in range(40)}) == 8


def test_half_of_the_seeds_are_distributed() -> None:
    assert [make(seed).distributed for seed in range(4)] == [False, True, False, True]
    assert make(2, distributed=True).distributed


@pytest.mark.parametrize("seed", range(10))
def test_a_full_storm_has_every_kind_of_action(seed: int) -> None:
    plan = make(seed)
    kinds = {action.kind for action in plan.actions}
    assert kinds == {*COUNTS} - {"lose_start"} - (set() if plan.distributed else {"freeze"})
    killed = {action.target for action in plan.actions if action.kind == "kill"}
    assert killed >= {"triggerer", "scheduler", "api-server", "simulator"}
    assert plan.distributed == ("celery-worker" in killed)
    refused = [action.how for action in plan.actions if action.kind == "refuse"]
    assert {how["which"] for how in refused} == {"reads", "writes"}
    assert {how["how"] for how in refused} == {*REFUSALS}
    losses = [action.how for action in plan.actions if action.how.get("route", "").startswith("trigger_")]
    assert {how["when"] for how in losses} == {"before", "after"}


@pytest.mark.parametrize("seed", range(10))
def test_actions_are_in_order_and_within_the_storm(seed: int) -> None:
    times = [action.at for action in make(seed).actions]
    assert times == sorted(times)
    assert times[0] >= 5
    assert times[-1] <= 5 + STORM["full"]


@pytest.mark.parametrize("seed", range(10))
def test_the_api_server_outage_outlasts_the_heartbeat_limit(seed: int) -> None:
    actions = make(seed).actions
    (away,) = (action for action in actions if action.kind == "api_server_away")
    assert away.how["down"] > 37
    assert {action.kind for action in actions if action.at > away.at} >= {"kill", "kill_task", "fault", "clear"}


@pytest.mark.parametrize("seed", range(10))
def test_each_kind_of_odd_response_is_planned(seed: int) -> None:
    assert {*make(seed).oddities.values()} == {*get_args(Oddity)}
    failing = [connection_id for spec in catalogue("full") if spec.fails_once for connection_id in spec.connections]
    assert {make(seed).oddities[connection_id] for connection_id in failing} == {*get_args(Oddity)}


def test_the_short_storm_has_every_disturbance_except_the_api_server_outage() -> None:
    plan = make(1904, distributed=False, size="short")
    kinds = {action.kind for action in plan.actions}
    assert kinds >= {"refuse", "spoil_lists", "delete_connection"}
    assert "api_server_away" not in kinds
    assert plan.oddities["conn_sync_deferred_fails_once_01"] == "nul"


def test_no_api_key_is_reused() -> None:
    keys = [action.how["key"] for seed in range(20) for action in make(seed).actions if action.kind == "rotate"]
    assert len(set(keys)) == len(keys) > 20


@pytest.mark.parametrize("size", ["full", "short"])
def test_each_connection_has_a_duration(size: str) -> None:
    connections = {connection_id for spec in catalogue(size) for _, _, connection_id in spec.names()}
    assert set(make(1, size=size).seconds) == connections


def test_every_task_but_two_pairs_has_its_own_connection() -> None:
    connections = [connection_id for spec in catalogue("full") for _, _, connection_id in spec.names()]
    assert len(connections) >= 60
    assert len(connections) - len(set(connections)) == 2
