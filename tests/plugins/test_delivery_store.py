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
from planasonix_provider.plugins import delivery_store
from planasonix_provider.plugins.delivery import DeliveryBody
from planasonix_provider.plugins.delivery_store import (
    PURGE_INTERVAL_SECONDS,
    RETENTION_SECONDS,
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
    def test_is_created_by_the_first_delivery(self, assets: Assets) -> None:
        assert DeliveryStore().record(ORDERS, event("evt_1")) is RecordResult.RECORDED
        assert rows() == 1

    def test_is_shared_by_all_api_servers(self, assets: Assets) -> None:
        assert [DeliveryStore().record(ORDERS, event("evt_1")) for _ in range(3)] == [
            RecordResult.RECORDED,
            RecordResult.REPEATED,
            RecordResult.REPEATED,
        ]

    def test_is_created_again_after_a_reset_of_the_database(self, assets: Assets) -> None:
        store = DeliveryStore()
        store.record(ORDERS, event("evt_1"))
        drop_the_table()
        with pytest.raises(PlanasonixDeliveryStoreError, match=r"could not take a delivery \(OperationalError"):
            store.record(ORDERS, event("evt_2"))
        assert store.record(ORDERS, event("evt_2")) is RecordResult.RECORDED

    def test_may_be_created_by_several_api_servers_at_the_same_time(
        self, assets: Assets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Each store checks for the table before any of them creates it.
        create, together = type(delivery_store._table()).create, Barrier(3)

        def create_together(self: Any, bind: Engine, **_: Any) -> None:
            together.wait(120)
            create(self, bind, checkfirst=False)

        monkeypatch.setattr(type(delivery_store._table()), "create", create_together)
        stores = [DeliveryStore() for _ in range(3)]
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(DeliveryStore._ensure_table, stores))
        assert all(store._has_table for store in stores)

    def test_that_the_user_may_not_create_is_shown_as_sql(
        self, assets: Assets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise OperationalError("CREATE TABLE …", {}, Exception("permission denied for schema public\nLINE 1"))

        monkeypatch.setattr(type(delivery_store._table()), "create", refuse)
        with pytest.raises(PlanasonixDeliveryStoreError) as refused:
            DeliveryStore().record(ORDERS, event("evt_1"))
        assert "cannot be made (OperationalError: permission denied for schema public)" in refused.value.message
        assert "CREATE TABLE planasonix_webhook_delivery ( id VARCHAR(64) NOT NULL" in refused.value.message
        assert "CREATE INDEX " in refused.value.message
        assert assets.events() == []
        assert refused.value.__cause__ is None

    @pytest.mark.parametrize("dialect", [postgresql.dialect(), mysql.dialect(), sqlite.dialect()])
    def test_works_in_every_database_of_airflow(self, dialect: Any) -> None:
        table = delivery_store._table()
        assert "PRIMARY KEY (id)" in str(CreateTable(table).compile(dialect=dialect))
        assert [str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes]

    def test_is_no_part_of_airflows_metadata(self) -> None:
        from airflow.models.base import metadata

        assert delivery_store.TABLE not in metadata.tables


class TestTransaction:
    def test_is_rolled_back_if_the_event_cannot_be_recorded(
        self, assets: Assets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow.assets.manager import asset_manager

        def fail(**_: Any) -> None:
            raise RuntimeError

        store = DeliveryStore()
        with monkeypatch.context() as broken:
            broken.setattr(asset_manager, "register_asset_change", fail)
            with pytest.raises(RuntimeError):
                store.record(ORDERS, event("evt_1"))
        assert (rows(), assets.events()) == (0, [])
        assert store.record(ORDERS, event("evt_1")) is RecordResult.RECORDED

    def test_locks_the_asset(self, assets: Assets, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow.assets.manager import asset_manager

        locks: list[Any] = []

        def collect(execution: Any) -> None:
            locks.append(getattr(execution.statement, "_for_update_arg", None))

        register = asset_manager.register_asset_change

        def check(**given: Any) -> Any:
            # The asset's row is locked, but other rows may still reference it.
            assert [lock.key_share for lock in locks if lock is not None] == [True]
            return register(**given)

        monkeypatch.setattr(asset_manager, "register_asset_change", check)
        listen(Session, "do_orm_execute", collect)
        try:
            assert DeliveryStore().record(ORDERS, event("evt_1")) is RecordResult.RECORDED
        finally:
            remove(Session, "do_orm_execute", collect)

    def test_is_retried_after_a_deadlock(self, assets: Assets, monkeypatch: pytest.MonkeyPatch) -> None:
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

    def test_is_not_retried_if_the_database_is_unreachable(
        self, assets: Assets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tries = []

        def refuse() -> None:
            tries.append(1)
            raise OperationalError(None, None, Exception("connection refused"))

        store = DeliveryStore()
        store.record(ORDERS, event("evt_1"))
        monkeypatch.setattr(delivery_store, "create_session", lambda **_: refuse())
        with pytest.raises(PlanasonixDeliveryStoreError):
            store.record(ORDERS, event("evt_2"))
        assert len(tries) == 1

    def test_is_rolled_back_if_the_asset_is_unknown(self, assets: Assets) -> None:
        nowhere = ReceiverConfig("orders", ORDERS.secrets, "nothing_of_the_kind")
        assert DeliveryStore().record(nowhere, event("evt_1")) is RecordResult.NO_ASSET
        assert rows() == 0

    @pytest.mark.parametrize("event_id", ["evt_é", "evt_E", "evt_e", "evt_\N{PILE OF POO}", "x" * 500])
    def test_distinguishes_ids_that_a_database_may_compare_as_equal(self, assets: Assets, event_id: str) -> None:
        store = DeliveryStore()
        assert store.record(ORDERS, event("evt_e\N{COMBINING ACUTE ACCENT}")) is RecordResult.RECORDED
        assert store.record(ORDERS, event(event_id)) is RecordResult.RECORDED
        assert store.record(ORDERS, event(event_id)) is RecordResult.REPEATED


class TestTheAsset:
    def test_is_found_by_a_uri_that_is_not_normalized(self, assets: Assets) -> None:
        assets.add("orders_table", "planasonix://api.planasonix.com/connections/conn_1/tables/public.orders")
        asset = "planasonix://API.Planasonix.com:443/connections/conn_1/tables/public.orders"
        receiver = ReceiverConfig("orders", ORDERS.secrets, asset)
        assert DeliveryStore().record(receiver, event("evt_1")) is RecordResult.RECORDED
        assert len(assets.events("orders_table")) == 1

    def test_is_found_by_its_name_before_its_uri(self, assets: Assets) -> None:
        for name, uri in (("one", "both"), ("both", "s3://both"), ("another", "x")):
            assets.add(name, uri)
        receiver = ReceiverConfig("orders", ORDERS.secrets, "both")
        assert DeliveryStore().record(receiver, event("evt_1")) is RecordResult.RECORDED
        assert [len(assets.events(name)) for name in ("one", "both", "another")] == [0, 1, 0]


def test_old_deliveries_are_purged_once_an_hour(assets: Assets) -> None:
    now = Now()
    store = DeliveryStore(clock=now)
    for number in range(5):
        store.record(ORDERS, event(f"evt_{number}"))
    now.seconds += RETENTION_SECONDS
    assert store.record(ORDERS, event("evt_0")) is RecordResult.REPEATED
    purged_at = store._purged_at
    now.seconds += PURGE_INTERVAL_SECONDS - 1
    store.record(ORDERS, event("evt_0"))
    assert (store._purged_at, rows()) == (purged_at, 5)
    now.seconds += 2
    store.record(ORDERS, event("evt_5"))
    assert rows() == 1
