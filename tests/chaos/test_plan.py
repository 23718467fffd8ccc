"""A seed is the same storm each time."""

from __future__ import annotations

import pytest

from tests.chaos.catalogue import catalogue
from tests.chaos.plan import COUNTS, STORM, make


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
    losses = [deed.how for deed in plan.deeds if deed.how.get("route", "").startswith("trigger_")]
    assert {how["when"] for how in losses} == {"before", "after"}


@pytest.mark.parametrize("seed", range(10))
def test_deeds_come_in_order_within_the_storm(seed: int) -> None:
    times = [deed.at for deed in make(seed).deeds]
    assert times == sorted(times)
    assert times[0] >= 5
    assert times[-1] <= 5 + STORM["full"]


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
