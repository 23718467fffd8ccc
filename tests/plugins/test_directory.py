from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from pydantic import SecretStr

from planasonix_provider.api.errors import PlanasonixConfigurationError
from planasonix_provider.hooks.receiver import Receiver
from planasonix_provider.plugins.directory import BURST, FRESH, MOST_UNKNOWN, PACE, Directory


class Connections:
    """The Airflow connections, and who was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.receivers: dict[str, Any] = {}
        self.may_answer = threading.Event()
        self.may_answer.set()

    def add(self, name: str, secret: str = "whsec_1") -> None:
        self.receivers[name] = Receiver(name, (SecretStr(secret),), "orders_ready")

    def read(self, name: str) -> Receiver | None:
        self.asked.append(name)
        assert self.may_answer.wait(120)
        found = self.receivers.get(name)
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]


@pytest.fixture
def connections() -> Connections:
    return Connections()


class Now:
    """A clock that is set by hand."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now() -> Now:
    return Now()


async def test_what_was_read_counts_for_some_seconds(connections: Connections, now: Now) -> None:
    directory = Directory(connections.read, clock=now)
    connections.add("orders")
    for now.seconds in (0.0, 1.0, FRESH):
        assert (await directory.find("orders")).receiver == connections.receivers["orders"]
    assert connections.asked == ["orders"]
    connections.add("orders", "whsec_2")
    now.seconds += 0.1
    assert (await directory.find("orders")).receiver == connections.receivers["orders"]


async def test_who_must_know_it_better_has_it_read_again(connections: Connections, now: Now) -> None:
    directory = Directory(connections.read, clock=now)
    connections.add("orders")
    await directory.find("orders")
    now.seconds = 1.1
    for _ in range(3):
        await directory.find("orders", max_age=1.0)
    assert connections.asked == ["orders"] * 2


async def test_a_receiver_that_is_made_is_found_some_seconds_later(connections: Connections, now: Now) -> None:
    directory = Directory(connections.read, clock=now)
    assert (await directory.find("orders")).receiver is None
    connections.add("orders")
    assert (await directory.find("orders")).receiver is None
    now.seconds = FRESH + 0.1
    assert (await directory.find("orders")).receiver is not None


async def test_many_who_ask_at_once_have_it_read_once(connections: Connections) -> None:
    directory = Directory(connections.read)
    connections.add("orders")
    connections.may_answer.clear()
    asking = [asyncio.create_task(directory.find("orders")) for _ in range(50)]
    await asyncio.sleep(0)
    # The one who has begun it goes.
    asking.pop(0).cancel()
    connections.may_answer.set()
    assert {(await found).receiver for found in asking} == {connections.receivers["orders"]}
    assert connections.asked == ["orders"]


async def test_who_guesses_names_is_let_ask_a_few_times_a_second(connections: Connections, now: Now) -> None:
    directory = Directory(connections.read, clock=now)
    for number in range(100):
        await directory.find(f"guess_{number}")
    assert len(connections.asked) == BURST
    now.seconds = 2.0
    for number in range(100):
        await directory.find(f"more_{number}")
    assert len(connections.asked) == BURST + 2 * PACE


async def test_guesses_hold_up_no_receiver_that_is_known(connections: Connections, now: Now) -> None:
    directory = Directory(connections.read, clock=now)
    connections.add("orders")
    await directory.find("orders")
    now.seconds = FRESH + 1
    for number in range(100):
        await directory.find(f"guess_{number}")
    assert (await directory.find("orders")).receiver is not None
    assert connections.asked[-1] == "orders"


async def test_only_so_many_guesses_are_remembered(connections: Connections, now: Now) -> None:
    directory = Directory(connections.read, clock=now)
    for number in range(MOST_UNKNOWN + 100):
        now.seconds += 1
        await directory.find(f"guess_{number}")
    assert len(directory._unknown) == MOST_UNKNOWN
    assert "guess_99" not in directory._unknown


async def test_a_name_in_upper_and_lower_case_is_one_receiver_and_takes_no_more_room_and_no_more_looks(
    connections: Connections, now: Now
) -> None:
    directory = Directory(connections.read, clock=now)
    spellings = ["orders", "Orders", "oRDERS", "ORDERS"]
    for spelling in spellings:
        # As a connection of the environment, which Airflow finds in upper case.
        connections.add(spelling)
    for spelling in spellings:
        found = await directory.find(spelling)
        assert (found.name, found.receiver) == ("orders", connections.receivers[spelling])
    now.seconds += FRESH + 1
    await directory.find("ORDERS")
    assert connections.asked == ["orders"] * 2
    assert len(directory._known) == 1


async def test_a_spelling_that_leads_nowhere_hides_no_receiver(connections: Connections, now: Now) -> None:
    directory = Directory(connections.read, clock=now)
    connections.add("Orders")
    connections.may_answer.clear()
    asking = [asyncio.create_task(directory.find(name)) for name in ("Orders", "ORDERS", "orders")]
    await asyncio.sleep(0)
    connections.may_answer.set()
    await asyncio.gather(*asking)
    assert (await directory.find("Orders")).receiver == connections.receivers["Orders"]
    # It is made anew in another spelling.
    del connections.receivers["Orders"]
    connections.add("orders")
    now.seconds += FRESH + 1
    assert (await directory.find("orders")).receiver is None
    now.seconds += FRESH + 1
    assert (await directory.find("orders")).receiver == connections.receivers["orders"]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 201, "a\n"])
async def test_what_can_be_no_name_is_not_looked_up(connections: Connections, name: str) -> None:
    assert (await Directory(connections.read).find(name)).receiver is None
    assert connections.asked == []


async def test_what_is_wrong_with_a_receiver_is_told(connections: Connections) -> None:
    connections.receivers["orders"] = PlanasonixConfigurationError("It has no signing secret.")
    assert (await Directory(connections.read).find("orders")).problem == "It has no signing secret."


async def test_an_airflow_that_cannot_say_is_told_of_without_its_words_or_the_name(connections: Connections) -> None:
    directory = Directory(connections.read)
    problem = (
        "Airflow cannot look up the Airflow connections of receivers (RuntimeError). If it stays, look at the health "
        "of "
        "Airflow's database and secrets backend."
    )
    for name in ("orders", "guess"):
        connections.receivers[name] = RuntimeError("whsec_1")
        found = await directory.find(name)
        assert (found.receiver, found.problem) == (None, problem)
    assert not directory._known


async def test_a_receiver_is_still_known_after_an_outage_of_airflow(connections: Connections, now: Now) -> None:
    directory = Directory(connections.read, clock=now)
    connections.add("orders")
    await directory.find("orders")
    receiver, connections.receivers["orders"] = connections.receivers["orders"], RuntimeError()
    now.seconds += FRESH + 1
    assert (await directory.find("orders")).receiver is None
    connections.receivers["orders"] = receiver
    now.seconds += FRESH + 1
    for number in range(100):
        await directory.find(f"guess_{number}")
    assert (await directory.find("orders")).receiver == receiver
