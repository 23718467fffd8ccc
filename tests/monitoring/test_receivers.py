from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from airflow.models.asset import AssetActive, AssetEvent, AssetModel
from airflow.models.log import Log
from airflow.utils.session import create_session
from sqlalchemy import delete, select

from planasonix_provider.monitoring.receivers import REFUSED_EVENT, ReceiverRow, read_receivers, save_refusals

NOW = datetime.now(UTC)
SECRET = "whsec_0123456789abcdef"


@pytest.fixture(autouse=True)
def _database(airflow_db: None) -> Iterator[None]:
    _forget()
    yield
    _forget()


def _forget() -> None:
    with create_session() as session:
        for model in (AssetEvent, AssetActive, AssetModel):
            session.execute(delete(model))
        session.execute(delete(Log).where(Log.event == REFUSED_EVENT))


@pytest.fixture
def asset_id() -> int:
    with create_session() as session:
        asset = AssetModel(name="orders_ready", uri="s3://warehouse/orders", group="asset", extra={})
        session.add(asset)
        session.flush()
        session.add(AssetActive(name=asset.name, uri=asset.uri))
        return int(asset.id)


@pytest.fixture
def _receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/team/")
    monkeypatch.setenv(
        "AIRFLOW_CONN_ORDERS",
        f'{{"conn_type": "planasonix_webhook", "password": "{SECRET}", "extra": {{"asset": "orders_ready"}}}}',
    )


def deliver(asset_id: int, *ages: timedelta, receiver: str = "orders") -> None:
    with create_session() as session:
        for age in ages:
            event = AssetEvent(asset_id=asset_id, extra={"event": "job.succeeded", "receiver": receiver})
            event.timestamp = NOW - age
            session.add(event)


def only_row(**unsaved: int) -> ReceiverRow:
    (row,) = read_receivers(NOW, unsaved)
    return row


@pytest.mark.usefixtures("_receiver")
class TestReceiver:
    def test_one_without_deliveries(self, asset_id: int) -> None:
        assert only_row() == {
            "conn_id": "orders",
            "url": "https://airflow.example.com/team/planasonix/webhook/orders",
            "asset": "orders_ready",
            "has_secret": True,
            "problem": None,
            "last_delivery_at": None,
            "deliveries_24h": 0,
            "refusals_24h": 0,
        }

    def test_its_deliveries_are_counted(self, asset_id: int) -> None:
        deliver(asset_id, timedelta(minutes=5), timedelta(hours=23), timedelta(hours=25))
        deliver(asset_id, timedelta(minutes=1), receiver="other")
        # Airflow finds a connection of the environment by its name in any case.
        deliver(asset_id, timedelta(minutes=3), receiver="ORDERS")
        row = only_row()
        assert row["deliveries_24h"] == 3
        assert row["last_delivery_at"] == (NOW - timedelta(minutes=3)).isoformat().replace("+00:00", "Z")

    def test_the_last_delivery_may_be_older(self, asset_id: int) -> None:
        deliver(asset_id, timedelta(days=9), timedelta(days=10))
        row = only_row()
        assert (row["deliveries_24h"], (row["last_delivery_at"] or "")[:10]) == (
            0,
            f"{NOW - timedelta(days=9):%Y-%m-%d}",
        )

    def test_its_refusals_are_those_in_the_log_and_those_since(self, asset_id: int) -> None:
        save_refusals({"orders": 40, "other": 1_000})
        save_refusals({"orders": 2})
        with create_session() as session:
            old = Log(event=REFUSED_EVENT, extra='{"receiver": "orders", "count": 500}')
            old.dttm = NOW - timedelta(days=2)
            session.add(old)
        assert only_row(orders=3)["refusals_24h"] == 45

    def test_an_asset_that_no_dag_knows_is_a_problem(self) -> None:
        row = only_row()
        assert (row["asset"], row["has_secret"]) == ("orders_ready", True)
        assert "No DAG knows the asset 'orders_ready'" in (row["problem"] or "")


@pytest.mark.parametrize(
    ("connection", "asset", "has_secret", "problem"),
    [
        ('"extra": {"asset": "orders_ready"}', "orders_ready", False, "has no signing secret"),
        (f'"password": "{SECRET}"', None, True, "extra 'asset'"),
        (f'"password": "{SECRET}", "extra": {{"asset": "a", "events": [1]}}', "a", True, "events"),
        ('"extra": {"asset": "a", "kept_in": "variable:nothing"}', "a", False, "has no signing secret"),
    ],
)
def test_a_problem_is_named_without_the_secret(
    connection: str, asset: str | None, has_secret: bool, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ORDERS", f'{{"conn_type": "planasonix_webhook", {connection}}}')
    row = only_row()
    assert (row["asset"], row["has_secret"]) == (asset, has_secret)
    assert problem in (row["problem"] or "")
    assert SECRET not in str(row)


def test_refusals_are_one_entry_of_the_audit_log_for_each_receiver() -> None:
    save_refusals({"orders": 40, "other": 1})
    with create_session() as session:
        entries = session.scalars(select(Log.extra).where(Log.event == REFUSED_EVENT).order_by(Log.id)).all()
    assert entries == ['{"receiver": "orders", "count": 40}', '{"receiver": "other", "count": 1}']
