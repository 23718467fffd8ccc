from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Engine
from sqlalchemy.event import listen, remove
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateIndex, CreateTable

from planasonix_provider.hooks.webhook_receiver import ReceiverConfig
from planasonix_provider.plugins import delivery_store as module
from planasonix_provider.plugins.delivery import DeliveryBody
from planasonix_provider.plugins.delivery_store import (
    PURGE_INTERVAL,
    RETENTION,
    WRITE_ATTEMPTS,
    DeliveryStore,
    PlanasonixDeliveryStoreError,
    RecordResult,
)
from tests.plugins.conftest import Assets, body, drop_the_table, rows

ORDERS = ReceiverConfig("orders", (SecretStr("whsec_4b1d7a90c2"),), "orders_ready")


def event(event_id: str) -> DeliveryBody:
    return DeliveryBody.model_validate_json(body(event_id))


class Now:
    """A clock that is set by hand."""

    seconds = 1_700_000_000.0

    def __call__(self) -> float:
        return self.seconds


class TestTheTable:
    def test_it_is_made_when_the_first_delivery_comes(self, assets: Assets) -> None:
        assert DeliveryStore().record(ORDERS, event("evt_1")) is RecordResult.RECORDED
        assert rows() == 1

    def test_what_one_api_server_has_seen_the_others_know(self, assets: Assets) -> None:
        assert [DeliveryStore().record(ORDERS, event("evt_1")) for _ in range(3)] == [
            RecordResult.RECORDED,
            RecordResult.REPEATED,
            RecordResult.REPEATED,
        ]

    def test_it_is_made_again_after_the_database_was(self, assets: Assets) -> None:
        register = DeliveryStore()
        register.record(ORDERS, event("evt_1"))
        drop_the_table()
        with pytest.raises(PlanasonixDeliveryStoreError, match=r"could not take a delivery \(OperationalError"):
            register.record(ORDERS, event("evt_2"))
        assert register.record(ORDERS, event("evt_2")) is RecordResult.RECORDED

    def test_api_servers_that_make_it_at_the_same_moment_do_not_disturb_each_other(
        self, assets: Assets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Each looks whether it is there before any of them makes it.
        create, together = type(module._table()).create, Barrier(3)

        def create_together(self: Any, bind: Engine, **_: Any) -> None:
            together.wait(120)
            create(self, bind, checkfirst=False)

        monkeypatch.setattr(type(module._table()), "create", create_together)
        registers = [DeliveryStore() for _ in range(3)]
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(DeliveryStore._ensure_table, registers))
        assert all(register._has_table for register in registers)

    def test_a_database_user_who_may_not_make_it_is_told_how_it_is_made(
        self, assets: Assets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise OperationalError("CREATE TABLE …", {}, Exception("permission denied for schema public\nLINE 1"))

        monkeypatch.setattr(type(module._table()), "create", refuse)
        with pytest.raises(PlanasonixDeliveryStoreError) as refused:
            DeliveryStore().record(ORDERS, event("evt_1"))
        assert "cannot be made (OperationalError: permission denied for schema public)" in refused.value.message
        assert "CREATE TABLE planasonix_webhook_delivery ( id VARCHAR(64) NOT NULL" in refused.value.message
        assert "CREATE INDEX " in refused.value.message
        assert assets.events() == []
        assert refused.value.__cause__ is None

    @pytest.mark.parametrize("dialect", [postgresql.dialect(), mysql.dialect(), sqlite.dialect()])
    def test_every_database_of_airflows_can_have_it(self, dialect: Any) -> None:
        table = module._table()
        assert "PRIMARY KEY (id)" in str(CreateTable(table).compile(dialect=dialect))
        assert [str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes]

    def test_airflows_migrations_do_not_know_it(self) -> None:
        from airflow.models.base import metadata

        assert module.TABLE not in metadata.tables


class TestTransaction:
    def test_an_event_that_cannot_be_recorded_is_not_remembered(
        self, assets: Assets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow.assets.manager import asset_manager

        def fail(**_: Any) -> None:
            raise RuntimeError

        register = DeliveryStore()
        with monkeypatch.context() as broken:
            broken.setattr(asset_manager, "register_asset_change", fail)
            with pytest.raises(RuntimeError):
                register.record(ORDERS, event("evt_1"))
        assert (rows(), assets.events()) == (0, [])
        assert register.record(ORDERS, event("evt_1")) is RecordResult.RECORDED

    def test_events_of_one_asset_are_written_one_after_another(
        self, assets: Assets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow.assets.manager import asset_manager

        locks: list[Any] = []

        def see(asked: Any) -> None:
            locks.append(getattr(asked.statement, "_for_update_arg", None))

        register = asset_manager.register_asset_change

        def look(**given: Any) -> Any:
            # By then the asset's row is locked, in a way that lets others refer to it.
            assert [lock.key_share for lock in locks if lock is not None] == [True]
            return register(**given)

        monkeypatch.setattr(asset_manager, "register_asset_change", look)
        listen(Session, "do_orm_execute", see)
        try:
            assert DeliveryStore().record(ORDERS, event("evt_1")) is RecordResult.RECORDED
        finally:
            remove(Session, "do_orm_execute", see)

    def test_a_deadlock_is_tried_again_and_the_event_counts_once(
        self, assets: Assets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow.assets.manager import asset_manager

        register, tries = asset_manager.register_asset_change, []

        def lose(**given: Any) -> Any:
            recorded = register(**given)
            tries.append(recorded)
            if len(tries) < WRITE_ATTEMPTS:
                raise OperationalError("INSERT …", {}, Exception("deadlock detected"))
            return recorded

        monkeypatch.setattr(asset_manager, "register_asset_change", lose)
        assert DeliveryStore().record(ORDERS, event("evt_1")) is RecordResult.RECORDED
        assert (len(tries), len(assets.events()), rows()) == (WRITE_ATTEMPTS, 1, 1)

    def test_a_database_that_cannot_be_reached_is_asked_once(
        self, assets: Assets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def refuse() -> None:
            asked.append(1)
            raise OperationalError(None, None, Exception("connection refused"))

        register = DeliveryStore()
        register.record(ORDERS, event("evt_1"))
        monkeypatch.setattr(module, "create_session", lambda **_: refuse())
        with pytest.raises(PlanasonixDeliveryStoreError):
            register.record(ORDERS, event("evt_2"))
        assert len(asked) == 1

    def test_an_asset_that_nobody_knows_leaves_nothing_behind(self, assets: Assets) -> None:
        nowhere = ReceiverConfig("orders", ORDERS.secrets, "nothing_of_the_kind")
        assert DeliveryStore().record(nowhere, event("evt_1")) is RecordResult.NO_ASSET
        assert rows() == 0

    @pytest.mark.parametrize("event_id", ["evt_é", "evt_E", "evt_e", "evt_\N{PILE OF POO}", "x" * 500])
    def test_ids_that_a_database_might_take_for_others_are_told_apart(self, assets: Assets, event_id: str) -> None:
        register = DeliveryStore()
        assert register.record(ORDERS, event("evt_e\N{COMBINING ACUTE ACCENT}")) is RecordResult.RECORDED
        assert register.record(ORDERS, event(event_id)) is RecordResult.RECORDED
        assert register.record(ORDERS, event(event_id)) is RecordResult.REPEATED


class TestTheAsset:
    def test_is_found_by_a_uri_that_is_written_otherwise(self, assets: Assets) -> None:
        assets.add("orders_table", "planasonix://api.planasonix.com/connections/conn_1/tables/public.orders")
        asset = "planasonix://API.Planasonix.com:443/connections/conn_1/tables/public.orders"
        assert (
            DeliveryStore().record(ReceiverConfig("orders", ORDERS.secrets, asset), event("evt_1"))
            is RecordResult.RECORDED
        )
        assert len(assets.events("orders_table")) == 1

    def test_is_that_of_the_name_where_another_has_the_same_text_as_its_uri(self, assets: Assets) -> None:
        for name, uri in (("one", "both"), ("both", "s3://both"), ("another", "x")):
            assets.add(name, uri)
        assert (
            DeliveryStore().record(ReceiverConfig("orders", ORDERS.secrets, "both"), event("evt_1"))
            is RecordResult.RECORDED
        )
        assert [len(assets.events(name)) for name in ("one", "both", "another")] == [0, 1, 0]


class TestForgetting:
    @pytest.fixture
    def now(self) -> Now:
        return Now()

    def test_deliveries_are_forgotten_once_nobody_sends_them_again(self, assets: Assets, now: Now) -> None:
        register = DeliveryStore(clock=now)
        for number in range(5):
            register.record(ORDERS, event(f"evt_{number}"))
        now.seconds += RETENTION
        assert register.record(ORDERS, event("evt_0")) is RecordResult.REPEATED
        now.seconds += PURGE_INTERVAL + 1
        register.record(ORDERS, event("evt_5"))
        assert rows() == 1

    def test_it_is_looked_for_them_once_an_hour(self, assets: Assets, now: Now) -> None:
        register = DeliveryStore(clock=now)
        register.record(ORDERS, event("evt_1"))
        now.seconds += PURGE_INTERVAL - 1
        forgotten = register._purged_at
        register.record(ORDERS, event("evt_2"))
        assert register._purged_at == forgotten
