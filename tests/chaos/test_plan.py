"""A seed is the same storm each time."""

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


def test_another_seed_is_another_plan() -> None:
    plans = [str(make(seed, distributed=False).deeds) for seed in range(20)]
    assert len(set(plans)) == 20


def test_the_settings_of_the_simulator_vary_with_the_seed() -> None:
    assert len({str(make(seed).settings) for seed in range(40)}) == 8


def test_half_of_the_seeds_are_distributed() -> None:
    assert [make(seed).distributed for seed in range(4)] == [False, True, False, True]
    assert make(2, distributed=True).distributed


@pytest.mark.parametrize("seed", range(10))
def test_a_full_storm_has_every_kind_of_deed(seed: int) -> None:
    plan = make(seed)
    kinds = {deed.kind for deed in plan.deeds}
    assert kinds == {*COUNTS} - {"lose_start"} - (set() if plan.distributed else {"freeze"})
    killed = {deed.target for deed in plan.deeds if deed.kind == "kill"}
    assert killed >= {"triggerer", "scheduler", "api-server", "simulator"}
    assert plan.distributed == ("celery-worker" in killed)
    refused = [deed.how for deed in plan.deeds if deed.kind == "refuse"]
    assert {how["which"] for how in refused} == {"reads", "writes"}
    assert {how["how"] for how in refused} == {*REFUSALS}
    losses = [deed.how for deed in plan.deeds if deed.how.get("route", "").startswith("trigger_")]
    assert {how["when"] for how in losses} == {"before", "after"}


@pytest.mark.parametrize("seed", range(10))
def test_deeds_come_in_order_within_the_storm(seed: int) -> None:
    times = [deed.at for deed in make(seed).deeds]
    assert times == sorted(times)
    assert times[0] >= 5
    assert times[-1] <= 5 + STORM["full"]


@pytest.mark.parametrize("seed", range(10))
def test_the_api_server_is_away_for_longer_than_a_task_lives_without_it(seed: int) -> None:
    deeds = make(seed).deeds
    (away,) = (deed for deed in deeds if deed.kind == "api_server_away")
    assert away.how["down"] > 37
    assert {deed.kind for deed in deeds if deed.at > away.at} >= {"kill", "kill_task", "fault", "clear"}


@pytest.mark.parametrize("seed", range(10))
def test_answers_about_some_work_are_odd_in_each_way(seed: int) -> None:
    assert {*make(seed).oddities.values()} == {*get_args(Oddity)}
    failing = [connection_id for spec in catalogue("full") if spec.fails_once for connection_id in spec.connections]
    assert {make(seed).oddities[connection_id] for connection_id in failing} == {*get_args(Oddity)}


def test_the_short_storm_has_each_new_disturbance_but_for_the_long_one() -> None:
    plan = make(1904, distributed=False, size="short")
    kinds = {deed.kind for deed in plan.deeds}
    assert kinds >= {"refuse", "spoil_lists", "delete_connection"}
    assert "api_server_away" not in kinds
    assert plan.oddities["conn_sync_deferred_fails_once_01"] == "nul"


def test_a_key_is_never_used_twice() -> None:
    keys = [deed.how["key"] for seed in range(20) for deed in make(seed).deeds if deed.kind == "rotate"]
    assert len(set(keys)) == len(keys) > 20


@pytest.mark.parametrize("size", ["full", "short"])
def test_every_connection_has_its_seconds(size: str) -> None:
    connections = {connection_id for spec in catalogue(size) for _, _, connection_id in spec.names()}
    assert set(make(1, size=size).seconds) == connections


def test_sixty_tasks_have_a_connection_each_but_for_two_pairs() -> None:
    connections = [connection_id for spec in catalogue("full") for _, _, connection_id in spec.names()]
    assert len(connections) >= 60
    assert len(connections) - len(set(connections)) == 2
