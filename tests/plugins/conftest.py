"""A receiver in its own app, with a real Airflow database."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS
from pydantic import SecretStr

from planasonix_provider.api.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from tests.support.task_rows import TaskRows

SECRET = "whsec_4b1d7a90c2"
ANOTHER_SECRET = "whsec_e83f05d6b7"

#: Sends a delivery; returns the response.
Deliver = Callable[..., Any]

collect_ignore = []
if not AIRFLOW_V_3_0_PLUS:
    collect_ignore += ["test_receiver.py", "test_delivery_store.py", "test_receiver_cache.py", "test_flood.py"]
    collect_ignore += ["test_refusals.py", "test_page_cache.py"]
if not AIRFLOW_V_3_1_PLUS:
    collect_ignore += ["test_page.py", "test_page_fab.py"]


def body(event_id: str | None = None, **fields: Any) -> bytes:
    """The body of a real delivery."""
    event = {
        "id": event_id or f"evt_{uuid.uuid4().hex}",
        "type": "job.succeeded",
        "timestamp": "2025-03-27T14:30:02Z",
        "job_id": "job_01jq8k3m9f0a1b2c3d4e5f6g7h",
        "data": {"status": "succeeded"},
    }
    return json.dumps({name: value for name, value in (event | fields).items() if value is not None}).encode()


def headers(content: bytes, secret: str = SECRET, *, at: float | None = None) -> dict[str, str]:
    """The headers of a signed delivery."""
    timestamp = int(time.time() if at is None else at)
    return {
        "Content-Type": "application/json",
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: sign(content, SecretStr(secret), timestamp),
    }


class Assets:
    """The assets of Airflow's database, and their events."""

    def add(self, name: str, uri: str | None = None, *, is_active: bool = True) -> None:
        from airflow.models.asset import AssetActive, AssetModel
        from airflow.utils.session import create_session

        with create_session() as session:
            session.add(AssetModel(name=name, uri=uri or name, group="asset", extra={}))
            session.flush()
            if is_active:
                session.add(AssetActive(name=name, uri=uri or name))

    def events(self, name: str = "orders_ready") -> list[dict[str, Any]]:
        """The extras of an asset's events, oldest first."""
        return [extra for extra, _ in self.events_with_keys(name)]

    def events_with_keys(self, name: str = "orders_ready") -> list[tuple[dict[str, Any], str | None]]:
        """The extras of an asset's events, oldest first, and their partition keys."""
        from airflow.models.asset import AssetEvent, AssetModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            query = select(AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            events = session.scalars(query.where(AssetModel.name == name).order_by(AssetEvent.id))
            return [(dict(event.extra), getattr(event, "partition_key", None)) for event in events]

    def forget(self) -> None:
        from airflow.models.asset import AssetActive, AssetEvent, AssetModel
        from airflow.utils.session import create_session
        from sqlalchemy import delete

        with create_session() as session:
            for model in (AssetEvent, AssetActive, AssetModel):
                session.execute(delete(model))


@pytest.fixture
def assets(airflow_db: None) -> Iterator[Assets]:
    """A database with the asset ``orders_ready`` and no deliveries."""
    assets = Assets()
    assets.forget()
    drop_the_table()
    assets.add("orders_ready", "s3://warehouse/orders")
    yield assets
    assets.forget()
    drop_the_table()


def drop_the_table() -> None:
    from airflow.utils.session import create_session

    from planasonix_provider.plugins import delivery_store

    with create_session() as session:
        delivery_store._table().drop(session.get_bind().engine, checkfirst=True)


def rows() -> int:
    """The number of stored deliveries."""
    from airflow.utils.session import create_session
    from sqlalchemy import func, inspect, select

    from planasonix_provider.plugins import delivery_store

    with create_session() as session:
        if not inspect(session.get_bind()).has_table(delivery_store.TABLE):
            return 0
        return int(session.scalar(select(func.count()).select_from(delivery_store._table())) or 0)


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Creates Airflow connections; creates the receiver ``orders`` at once."""

    def make(name: str = "orders", *, conn_type: str = "planasonix_webhook", **fields: Any) -> None:
        fields = {"password": SECRET, "extra": {"asset": "orders_ready"}} | fields
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps({"conn_type": conn_type, **fields}))

    make()
    return make


@asynccontextmanager
async def to(app: Any) -> AsyncIterator[Deliver]:
    """Return a function that delivers to an app."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://airflow/webhook/") as client:

        async def deliver(content: bytes | None = None, *, name: str = "orders", **given: Any) -> httpx.Response:
            content = body() if content is None else content
            return await client.post(name, content=content, headers=given.get("headers", headers(content)))

        yield deliver


@pytest.fixture
async def deliver(assets: Assets, connection: Callable[..., None]) -> AsyncIterator[Deliver]:
    from planasonix_provider.plugins.receiver import make_app

    async with to(make_app()) as deliver:
        yield deliver


@pytest.fixture
def task_rows(airflow_db: None) -> Iterator[TaskRows]:
    """Adds tasks to Airflow's database, which has none otherwise."""
    rows = TaskRows()
    rows.forget()
    yield rows
    rows.forget()
