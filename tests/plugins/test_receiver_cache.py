from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from pydantic import SecretStr

from planasonix_provider.api.errors import PlanasonixConfigurationError
from planasonix_provider.hooks.webhook_receiver import ReceiverConfig, ReceiverNames
from planasonix_provider.plugins import receiver_cache
from planasonix_provider.plugins.receiver_cache import (
    BUCKET_SIZE,
    CACHE_TTL_SECONDS,
    MAX_STALE_SECONDS,
    MAX_UNKNOWN,
    MAX_WAITING,
    REFILL_PER_SECOND,
    SECRETS_BACKEND_THREADS,
    ReceiverCache,
)


class Connections:
    """A source of receivers that records which names are read."""

    def __init__(self) -> None:
        #: The names that were read because they are listed, and those that secrets backends were searched for.
        self.read_names: list[str] = []
        self.guessed: list[str] = []
        self.listed = 0
        self.receivers: dict[str, Any] = {}
        self.in_secrets_backend: dict[str, Any] = {}
        self.has_secrets_backend = False
        self.list_error: Exception | None = None
        self.may_respond = threading.Event()
        self.may_respond.set()
        self.backend_may_respond = threading.Event()
        self.backend_may_respond.set()
        self.backend_was_called = threading.Event()

    def add(self, name: str, secret: str = "whsec_1") -> None:
        self.receivers[name] = ReceiverConfig(name, (SecretStr(secret),), "orders_ready")

    def add_to_secrets_backend(self, name: str, secret: str = "whsec_1") -> None:
        self.has_secrets_backend = True
        self.in_secrets_backend[name] = ReceiverConfig(name, (SecretStr(secret),), "orders_ready")

    def list_names(self) -> ReceiverNames:
        self.listed += 1
        if self.list_error:
            raise self.list_error
        return ReceiverNames(frozenset(self.receivers), self.has_secrets_backend)

    def read(self, name: str) -> ReceiverConfig | None:
        self.read_names.append(name)
        assert self.may_respond.wait(120)
        return _return_or_raise(self.receivers.get(name) or self.in_secrets_backend.get(name))

    def read_from_secrets_backends(self, name: str) -> ReceiverConfig | None:
        self.guessed.append(name)
        self.backend_was_called.set()
        assert self.backend_may_respond.wait(120)
        return _return_or_raise(self.in_secrets_backend.get(name))


def _return_or_raise(found: Any) -> ReceiverConfig | None:
    if isinstance(found, Exception):
        raise found
    return found  # type: ignore[no-any-return]


class Now:
    """A clock that is set by hand."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def cache(connections: Connections, now: Now) -> ReceiverCache:
    return ReceiverCache(connections, clock=now)


async def guess_names(cache: ReceiverCache, number: int = 100, prefix: str = "guess") -> None:
    for index in range(number):
        assert (await cache.find(f"{prefix}_{index}")).receiver is None


class TestAListedReceiver:
    async def test_is_cached_for_some_seconds(self, cache: ReceiverCache, connections: Connections, now: Now) -> None:
        connections.add("orders")
        for now.seconds in (0.0, 1.0, CACHE_TTL_SECONDS):
            assert (await cache.find("orders")).receiver == connections.receivers["orders"]
        assert connections.read_names == ["orders"]
        connections.add("orders", "whsec_2")
        now.seconds += 0.1
        assert (await cache.find("orders")).receiver == connections.receivers["orders"]

    async def test_is_read_again_if_the_entry_is_too_old(
        self, cache: ReceiverCache, connections: Connections, now: Now
    ) -> None:
        connections.add("orders")
        await cache.find("orders")
        now.seconds = 1.1
        for _ in range(3):
            await cache.find("orders", max_age=1.0)
        assert connections.read_names == ["orders"] * 2

    async def test_is_found_some_seconds_after_it_was_created(
        self, cache: ReceiverCache, connections: Connections, now: Now
    ) -> None:
        assert (await cache.find("orders")).receiver is None
        connections.add("orders")
        assert (await cache.find("orders")).receiver is None
        now.seconds = CACHE_TTL_SECONDS + 0.1
        assert (await cache.find("orders")).receiver is not None

    async def test_is_read_once_for_concurrent_deliveries(self, cache: ReceiverCache, connections: Connections) -> None:
        connections.add("orders")
        connections.may_respond.clear()
        lookups = [asyncio.create_task(cache.find("orders")) for _ in range(50)]
        await asyncio.sleep(0)
        # The first delivery, which started the read, is cancelled.
        lookups.pop(0).cancel()
        connections.may_respond.set()
        assert {(await entry).receiver for entry in lookups} == {connections.receivers["orders"]}
        assert connections.read_names == ["orders"]

    async def test_uses_the_old_entry_while_airflow_is_slow(
        self, cache: ReceiverCache, connections: Connections, now: Now, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(receiver_cache, "REFRESH_SECONDS", 0.01)
        connections.add("orders")
        before = (await cache.find("orders")).receiver
        connections.add("orders", "whsec_2")
        connections.may_respond.clear()
        now.seconds = CACHE_TTL_SECONDS + 1
        for _ in range(3):
            assert (await cache.find("orders")).receiver == before
        assert connections.read_names == ["orders"] * 2
        # An entry that is older than a minute is not used.
        now.seconds = MAX_STALE_SECONDS + 1
        lookup = asyncio.create_task(cache.find("orders"))
        await asyncio.sleep(0.05)
        assert not lookup.done()
        connections.may_respond.set()
        assert (await lookup).receiver == connections.receivers["orders"]

    async def test_is_found_by_the_next_delivery_after_a_slow_lookup(
        self, cache: ReceiverCache, connections: Connections, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(receiver_cache, "MAX_WAIT_SECONDS", 0.01)
        connections.add("orders")
        connections.may_respond.clear()
        entry = await cache.find("orders")
        assert entry.receiver is None
        assert entry.problem is not None
        assert entry.problem.startswith("The lookup of a webhook receiver takes more than 0 s, so its delivery")
        connections.may_respond.set()
        await asyncio.gather(*cache._read_tasks.values())
        assert (await cache.find("orders")).receiver == connections.receivers["orders"]
        assert connections.read_names == ["orders"]

    async def test_is_one_receiver_in_any_case(self, cache: ReceiverCache, connections: Connections, now: Now) -> None:
        spellings = ["orders", "Orders", "oRDERS", "ORDERS"]
        for spelling in spellings:
            # A database may have a connection for each spelling.
            connections.add(spelling)
        for spelling in spellings:
            entry = await cache.find(spelling)
            assert (entry.name, entry.receiver) == ("ORDERS", connections.receivers[spelling])
        now.seconds += CACHE_TTL_SECONDS + 1
        await cache.find("orders")
        assert connections.read_names == ["ORDERS"] * 2
        assert len(cache._known) == 1

    async def test_is_found_although_another_spelling_does_not_exist(
        self, cache: ReceiverCache, connections: Connections, now: Now
    ) -> None:
        connections.add("Orders")
        connections.may_respond.clear()
        lookups = [asyncio.create_task(cache.find(name)) for name in ("Orders", "ORDERS", "orders")]
        await asyncio.sleep(0)
        connections.may_respond.set()
        await asyncio.gather(*lookups)
        assert (await cache.find("Orders")).receiver == connections.receivers["Orders"]
        # It is created again in another spelling.
        del connections.receivers["Orders"]
        connections.add("orders")
        now.seconds += CACHE_TTL_SECONDS + 1
        assert (await cache.find("orders")).receiver is None
        now.seconds += CACHE_TTL_SECONDS + 1
        assert (await cache.find("orders")).receiver == connections.receivers["orders"]

    async def test_is_still_known_after_an_outage_of_airflow(
        self, cache: ReceiverCache, connections: Connections, now: Now
    ) -> None:
        connections.add("orders")
        await cache.find("orders")
        receiver, connections.receivers["orders"] = connections.receivers["orders"], RuntimeError()
        now.seconds += CACHE_TTL_SECONDS + 1
        assert (await cache.find("orders")).receiver is None
        connections.receivers["orders"] = receiver
        now.seconds += CACHE_TTL_SECONDS + 1
        await guess_names(cache)
        assert (await cache.find("orders")).receiver == receiver


class TestInventedNames:
    @pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 201, "a\n"])
    async def test_that_are_invalid_are_not_looked_up(
        self, cache: ReceiverCache, connections: Connections, name: str
    ) -> None:
        assert (await cache.find(name)).receiver is None
        assert (connections.read_names, connections.listed) == ([], 0)

    async def test_cause_no_lookup_without_a_secrets_backend(
        self, cache: ReceiverCache, connections: Connections
    ) -> None:
        await guess_names(cache)
        assert (connections.read_names, connections.guessed, connections.listed) == ([], [], 1)

    async def test_cause_a_few_lookups_per_second_in_secrets_backends(
        self, cache: ReceiverCache, connections: Connections, now: Now
    ) -> None:
        connections.has_secrets_backend = True
        await guess_names(cache)
        assert len(connections.guessed) == BUCKET_SIZE
        now.seconds = 2.0
        await guess_names(cache, prefix="more")
        assert len(connections.guessed) == BUCKET_SIZE + 2 * REFILL_PER_SECOND
        assert connections.read_names == []

    async def test_do_not_use_up_the_lookups_of_listed_receivers(
        self, cache: ReceiverCache, connections: Connections, now: Now
    ) -> None:
        connections.has_secrets_backend = True
        connections.add("orders")
        for now.seconds in (0.0, CACHE_TTL_SECONDS + 1):
            await guess_names(cache, 1_000)
            assert (await cache.find("orders")).receiver == connections.receivers["orders"]
        assert connections.read_names == ["orders"] * 2

    async def test_do_not_block_listed_receivers_while_a_secrets_backend_is_slow(
        self, cache: ReceiverCache, connections: Connections
    ) -> None:
        connections.has_secrets_backend = True
        connections.add("orders")
        connections.backend_may_respond.clear()
        guesses = [asyncio.create_task(cache.find(f"guess_{number}")) for number in range(200)]
        assert await asyncio.to_thread(connections.backend_was_called.wait, 60)
        assert (await cache.find("orders")).receiver is not None
        assert len(connections.guessed) <= SECRETS_BACKEND_THREADS
        assert sum(not guess.done() for guess in guesses) == BUCKET_SIZE
        connections.backend_may_respond.set()
        await asyncio.gather(*guesses)
        assert len(connections.guessed) == BUCKET_SIZE

    async def test_are_cached_in_a_limited_number(
        self, cache: ReceiverCache, connections: Connections, now: Now
    ) -> None:
        connections.has_secrets_backend = True
        for number in range(MAX_UNKNOWN + 100):
            now.seconds += 1
            await cache.find(f"guess_{number}")
        assert len(cache._unknown) == MAX_UNKNOWN
        assert "guess_99" not in cache._unknown


class TestAReceiverInASecretsBackend:
    async def test_blocks_a_limited_number_of_deliveries(self, cache: ReceiverCache, connections: Connections) -> None:
        connections.add_to_secrets_backend("vaulted")
        connections.backend_may_respond.clear()
        lookups = [asyncio.create_task(cache.find("vaulted")) for _ in range(MAX_WAITING + 50)]
        assert await asyncio.to_thread(connections.backend_was_called.wait, 60)
        assert sum(one.done() for one in lookups) == 50
        connections.backend_may_respond.set()
        entries = await asyncio.gather(*lookups)
        assert sum(one.receiver is not None for one in entries) == MAX_WAITING
        assert connections.guessed == ["vaulted"]

    async def test_is_known_once_it_was_found(self, cache: ReceiverCache, connections: Connections, now: Now) -> None:
        connections.add_to_secrets_backend("vaulted")
        assert (await cache.find("vaulted")).receiver == connections.in_secrets_backend["vaulted"]
        now.seconds = CACHE_TTL_SECONDS + 1
        await guess_names(cache)
        connections.backend_may_respond.clear()
        assert (await cache.find("vaulted")).receiver == connections.in_secrets_backend["vaulted"]
        assert connections.read_names == ["vaulted"]

    async def test_stays_known_if_it_is_created_during_a_lookup(
        self, cache: ReceiverCache, connections: Connections, now: Now
    ) -> None:
        connections.has_secrets_backend = True
        connections.backend_may_respond.clear()
        guess = asyncio.create_task(cache.find("orders"))
        assert await asyncio.to_thread(connections.backend_was_called.wait, 60)
        connections.add("orders")
        now.seconds = CACHE_TTL_SECONDS + 1
        assert (await cache.find("orders")).receiver is not None
        connections.backend_may_respond.set()
        await guess
        assert (await cache.find("orders")).receiver is not None


class TestProblems:
    async def test_a_failed_list_of_receivers_is_repeated_some_seconds_later(
        self, cache: ReceiverCache, connections: Connections, now: Now
    ) -> None:
        connections.add("orders")
        connections.list_error = RuntimeError("whsec_1")
        for _ in range(10):
            entry = await cache.find("orders")
            assert entry.receiver is None
            assert entry.problem is not None
            assert entry.problem.startswith("Airflow cannot look up the Airflow connections of receivers (RuntimeError")
        assert connections.listed == 1
        connections.list_error = None
        now.seconds = CACHE_TTL_SECONDS + 1
        assert (await cache.find("orders")).receiver == connections.receivers["orders"]
        # The previous list stays if listing fails again.
        connections.add("others")
        now.seconds *= 2
        await cache.find("guess")
        connections.list_error = RuntimeError("whsec_1")
        now.seconds *= 2
        assert (await cache.find("others")).receiver == connections.receivers["others"]

    async def test_an_invalid_receiver_has_its_problem(self, cache: ReceiverCache, connections: Connections) -> None:
        connections.receivers["orders"] = PlanasonixConfigurationError("It has no signing secret.")
        assert (await cache.find("orders")).problem == "It has no signing secret."

    async def test_an_error_of_airflow_is_named_without_its_text(
        self, cache: ReceiverCache, connections: Connections
    ) -> None:
        problem = (
            "Airflow cannot look up the Airflow connections of receivers (RuntimeError). If it stays, look at the "
            "health of Airflow's database and secrets backend."
        )
        connections.has_secrets_backend = True
        connections.receivers["orders"] = connections.in_secrets_backend["guess"] = RuntimeError("whsec_1")
        for name in ("orders", "guess"):
            entry = await cache.find(name)
            assert (entry.receiver, entry.problem) == (None, problem)
        assert not cache._known
