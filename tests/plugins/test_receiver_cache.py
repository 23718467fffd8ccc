from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from pydantic import SecretStr

from planasonix_provider.api.errors import PlanasonixConfigurationError
from planasonix_provider.hooks.webhook_receiver import ReceiverConfig, ReceiverNames
from planasonix_provider.plugins import receiver_cache as directory_module
from planasonix_provider.plugins.receiver_cache import (
    BUCKET_SIZE,
    CACHE_TTL,
    MAX_STALE_SECONDS,
    MAX_UNKNOWN,
    MAX_WAITING,
    REFILL_PER_SECOND,
    SECRETS_BACKEND_THREADS,
    ReceiverCache,
)


class Connections:
    """The Airflow connections, and who was asked for."""

    def __init__(self) -> None:
        #: Names that were read because they are configured, and names that secrets backends were asked for.
        self.asked: list[str] = []
        self.guessed: list[str] = []
        self.listed = 0
        self.receivers: dict[str, Any] = {}
        self.in_secrets_backend: dict[str, Any] = {}
        self.has_secrets_backend = False
        self.cannot_list: Exception | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.secrets_backend_may_answer = threading.Event()
        self.secrets_backend_may_answer.set()
        self.secrets_backend_was_asked = threading.Event()

    def add(self, name: str, secret: str = "whsec_1") -> None:
        self.receivers[name] = ReceiverConfig(name, (SecretStr(secret),), "orders_ready")

    def add_to_secrets_backend(self, name: str, secret: str = "whsec_1") -> None:
        self.has_secrets_backend = True
        self.in_secrets_backend[name] = ReceiverConfig(name, (SecretStr(secret),), "orders_ready")

    def list_names(self) -> ReceiverNames:
        self.listed += 1
        if self.cannot_list:
            raise self.cannot_list
        return ReceiverNames(frozenset(self.receivers), self.has_secrets_backend)

    def read(self, name: str) -> ReceiverConfig | None:
        self.asked.append(name)
        assert self.may_answer.wait(120)
        return _given(self.receivers.get(name) or self.in_secrets_backend.get(name))

    def read_from_secrets_backends(self, name: str) -> ReceiverConfig | None:
        self.guessed.append(name)
        self.secrets_backend_was_asked.set()
        assert self.secrets_backend_may_answer.wait(120)
        return _given(self.in_secrets_backend.get(name))


def _given(found: Any) -> ReceiverConfig | None:
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
    directory = ReceiverCache(connections, clock=now)
    connections.add("orders")
    for now.seconds in (0.0, 1.0, CACHE_TTL):
        assert (await directory.find("orders")).receiver == connections.receivers["orders"]
    assert connections.asked == ["orders"]
    connections.add("orders", "whsec_2")
    now.seconds += 0.1
    assert (await directory.find("orders")).receiver == connections.receivers["orders"]


async def test_who_must_know_it_better_has_it_read_again(connections: Connections, now: Now) -> None:
    directory = ReceiverCache(connections, clock=now)
    connections.add("orders")
    await directory.find("orders")
    now.seconds = 1.1
    for _ in range(3):
        await directory.find("orders", max_age=1.0)
    assert connections.asked == ["orders"] * 2


async def test_a_receiver_that_is_made_is_found_some_seconds_later(connections: Connections, now: Now) -> None:
    directory = ReceiverCache(connections, clock=now)
    assert (await directory.find("orders")).receiver is None
    connections.add("orders")
    assert (await directory.find("orders")).receiver is None
    now.seconds = CACHE_TTL + 0.1
    assert (await directory.find("orders")).receiver is not None


async def test_many_who_ask_at_once_have_it_read_once(connections: Connections) -> None:
    directory = ReceiverCache(connections)
    connections.add("orders")
    connections.may_answer.clear()
    asking = [asyncio.create_task(directory.find("orders")) for _ in range(50)]
    await asyncio.sleep(0)
    # The one who has begun it goes.
    asking.pop(0).cancel()
    connections.may_answer.set()
    assert {(await found).receiver for found in asking} == {connections.receivers["orders"]}
    assert connections.asked == ["orders"]


async def test_who_guesses_names_has_nobody_asked_where_there_is_no_secrets_backend(connections: Connections) -> None:
    directory = ReceiverCache(connections)
    for number in range(100):
        assert (await directory.find(f"guess_{number}")).receiver is None
    assert (connections.asked, connections.guessed, connections.listed) == ([], [], 1)


async def test_who_guesses_names_is_let_ask_secrets_backends_a_few_times_a_second(
    connections: Connections, now: Now
) -> None:
    directory = ReceiverCache(connections, clock=now)
    connections.has_secrets_backend = True
    for number in range(100):
        await directory.find(f"guess_{number}")
    assert len(connections.guessed) == BUCKET_SIZE
    now.seconds = 2.0
    for number in range(100):
        await directory.find(f"more_{number}")
    assert len(connections.guessed) == BUCKET_SIZE + 2 * REFILL_PER_SECOND
    assert connections.asked == []


async def test_a_configured_receiver_is_found_at_once_however_many_guesses_were_made_before(
    connections: Connections, now: Now
) -> None:
    directory = ReceiverCache(connections, clock=now)
    connections.has_secrets_backend = True
    connections.add("orders")
    for number in range(1_000):
        await directory.find(f"guess_{number}")
    assert (await directory.find("orders")).receiver == connections.receivers["orders"]
    assert connections.asked == ["orders"]


async def test_a_configured_receiver_never_waits_for_a_secrets_backend_that_is_asked_for_guesses(
    connections: Connections,
) -> None:
    directory = ReceiverCache(connections)
    connections.has_secrets_backend = True
    connections.add("orders")
    connections.secrets_backend_may_answer.clear()
    guesses = [asyncio.create_task(directory.find(f"guess_{number}")) for number in range(200)]
    assert await asyncio.to_thread(connections.secrets_backend_was_asked.wait, 60)
    assert (await directory.find("orders")).receiver is not None
    assert len(connections.guessed) <= SECRETS_BACKEND_THREADS
    assert sum(not guess.done() for guess in guesses) == BUCKET_SIZE
    connections.secrets_backend_may_answer.set()
    await asyncio.gather(*guesses)
    assert len(connections.guessed) == BUCKET_SIZE


async def test_only_so_many_deliveries_wait_for_a_secrets_backend(connections: Connections) -> None:
    directory = ReceiverCache(connections)
    connections.add_to_secrets_backend("vaulted")
    connections.secrets_backend_may_answer.clear()
    asking = [asyncio.create_task(directory.find("vaulted")) for _ in range(MAX_WAITING + 50)]
    assert await asyncio.to_thread(connections.secrets_backend_was_asked.wait, 60)
    assert sum(one.done() for one in asking) == 50
    connections.secrets_backend_may_answer.set()
    found = await asyncio.gather(*asking)
    assert sum(one.receiver is not None for one in found) == MAX_WAITING
    assert connections.guessed == ["vaulted"]


async def test_a_receiver_of_a_secrets_backend_is_no_guess_any_more_once_it_was_found(
    connections: Connections, now: Now
) -> None:
    directory = ReceiverCache(connections, clock=now)
    connections.add_to_secrets_backend("vaulted")
    assert (await directory.find("vaulted")).receiver == connections.in_secrets_backend["vaulted"]
    now.seconds = CACHE_TTL + 1
    for number in range(100):
        await directory.find(f"guess_{number}")
    connections.secrets_backend_may_answer.clear()
    assert (await directory.find("vaulted")).receiver == connections.in_secrets_backend["vaulted"]
    assert connections.asked == ["vaulted"]


async def test_a_receiver_that_was_made_while_a_secrets_backend_was_asked_for_it_stays_known(
    connections: Connections, now: Now
) -> None:
    directory = ReceiverCache(connections, clock=now)
    connections.has_secrets_backend = True
    connections.secrets_backend_may_answer.clear()
    guess = asyncio.create_task(directory.find("orders"))
    assert await asyncio.to_thread(connections.secrets_backend_was_asked.wait, 60)
    connections.add("orders")
    now.seconds = CACHE_TTL + 1
    assert (await directory.find("orders")).receiver is not None
    connections.secrets_backend_may_answer.set()
    await guess
    assert (await directory.find("orders")).receiver is not None


async def test_a_known_receiver_goes_on_by_what_was_read_before_while_a_slow_airflow_is_asked_again(
    connections: Connections, now: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "REFRESH_SECONDS", 0.01)
    directory = ReceiverCache(connections, clock=now)
    connections.add("orders")
    before = (await directory.find("orders")).receiver
    connections.add("orders", "whsec_2")
    connections.may_answer.clear()
    now.seconds = CACHE_TTL + 1
    for _ in range(3):
        assert (await directory.find("orders")).receiver == before
    assert connections.asked == ["orders"] * 2
    # What was read over a minute ago does not count.
    now.seconds = MAX_STALE_SECONDS + 1
    asking = asyncio.create_task(directory.find("orders"))
    await asyncio.sleep(0.05)
    assert not asking.done()
    connections.may_answer.set()
    assert (await asking).receiver == connections.receivers["orders"]


async def test_no_delivery_waits_for_long_and_the_next_one_finds_what_was_read(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "MAX_WAIT_SECONDS", 0.01)
    directory = ReceiverCache(connections)
    connections.add("orders")
    connections.may_answer.clear()
    found = await directory.find("orders")
    assert found.receiver is None
    assert found.problem is not None
    assert found.problem.startswith("The lookup of a webhook receiver takes more than 0 s, so its delivery")
    connections.may_answer.set()
    await asyncio.gather(*directory._read_tasks.values())
    assert (await directory.find("orders")).receiver == connections.receivers["orders"]
    assert connections.asked == ["orders"]


async def test_a_database_that_cannot_list_receivers_is_told_of_and_asked_again_some_seconds_later(
    connections: Connections, now: Now
) -> None:
    directory = ReceiverCache(connections, clock=now)
    connections.add("orders")
    connections.cannot_list = RuntimeError("whsec_1")
    for _ in range(10):
        found = await directory.find("orders")
        assert found.receiver is None
        assert found.problem is not None
        assert found.problem.startswith("Airflow cannot look up the Airflow connections of receivers (RuntimeError).")
    assert connections.listed == 1
    connections.cannot_list = None
    now.seconds = CACHE_TTL + 1
    assert (await directory.find("orders")).receiver == connections.receivers["orders"]
    # What was listed before stays, if it cannot be listed again.
    connections.add("others")
    now.seconds *= 2
    await directory.find("guess")
    connections.cannot_list = RuntimeError("whsec_1")
    now.seconds *= 2
    assert (await directory.find("others")).receiver == connections.receivers["others"]


async def test_guesses_hold_up_no_receiver_that_is_known(connections: Connections, now: Now) -> None:
    directory = ReceiverCache(connections, clock=now)
    connections.add("orders")
    await directory.find("orders")
    now.seconds = CACHE_TTL + 1
    for number in range(100):
        await directory.find(f"guess_{number}")
    assert (await directory.find("orders")).receiver is not None
    assert connections.asked[-1] == "orders"


async def test_only_so_many_guesses_are_remembered(connections: Connections, now: Now) -> None:
    directory = ReceiverCache(connections, clock=now)
    connections.has_secrets_backend = True
    for number in range(MAX_UNKNOWN + 100):
        now.seconds += 1
        await directory.find(f"guess_{number}")
    assert len(directory._unknown) == MAX_UNKNOWN
    assert "guess_99" not in directory._unknown


async def test_a_name_in_upper_and_lower_case_is_one_receiver_and_takes_no_more_room_and_no_more_looks(
    connections: Connections, now: Now
) -> None:
    directory = ReceiverCache(connections, clock=now)
    spellings = ["orders", "Orders", "oRDERS", "ORDERS"]
    for spelling in spellings:
        # A database may have each of them as a connection of its own.
        connections.add(spelling)
    for spelling in spellings:
        found = await directory.find(spelling)
        assert (found.name, found.receiver) == ("ORDERS", connections.receivers[spelling])
    now.seconds += CACHE_TTL + 1
    await directory.find("orders")
    assert connections.asked == ["ORDERS"] * 2
    assert len(directory._known) == 1


async def test_a_spelling_that_leads_nowhere_hides_no_receiver(connections: Connections, now: Now) -> None:
    directory = ReceiverCache(connections, clock=now)
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
    now.seconds += CACHE_TTL + 1
    assert (await directory.find("orders")).receiver is None
    now.seconds += CACHE_TTL + 1
    assert (await directory.find("orders")).receiver == connections.receivers["orders"]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 201, "a\n"])
async def test_what_can_be_no_name_is_not_looked_up(connections: Connections, name: str) -> None:
    assert (await ReceiverCache(connections).find(name)).receiver is None
    assert connections.asked == []


async def test_what_is_wrong_with_a_receiver_is_told(connections: Connections) -> None:
    connections.receivers["orders"] = PlanasonixConfigurationError("It has no signing secret.")
    assert (await ReceiverCache(connections).find("orders")).problem == "It has no signing secret."


async def test_an_airflow_that_cannot_say_is_told_of_without_its_words_or_the_name(connections: Connections) -> None:
    directory = ReceiverCache(connections)
    problem = (
        "Airflow cannot look up the Airflow connections of receivers (RuntimeError). If it stays, look at the "
        "health of Airflow's database and secrets backend."
    )
    connections.has_secrets_backend = True
    connections.receivers["orders"] = connections.in_secrets_backend["guess"] = RuntimeError("whsec_1")
    for name in ("orders", "guess"):
        found = await directory.find(name)
        assert (found.receiver, found.problem) == (None, problem)
    assert not directory._known


async def test_a_receiver_is_still_known_after_an_outage_of_airflow(connections: Connections, now: Now) -> None:
    directory = ReceiverCache(connections, clock=now)
    connections.add("orders")
    await directory.find("orders")
    receiver, connections.receivers["orders"] = connections.receivers["orders"], RuntimeError()
    now.seconds += CACHE_TTL + 1
    assert (await directory.find("orders")).receiver is None
    connections.receivers["orders"] = receiver
    now.seconds += CACHE_TTL + 1
    for number in range(100):
        await directory.find(f"guess_{number}")
    assert (await directory.find("orders")).receiver == receiver
