"""Deliveries to a real server during a flood of requests with invented names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import pytest
from airflow.models.connection import Connection
from airflow.utils.session import create_session
from sqlalchemy import delete, update

from planasonix_provider.plugins.receiver import make_app
from tests.plugins.conftest import SECRET, Assets, body, headers
from tests.support.flood import add_receiver, flood, server
from tests.support.slow_secrets import SlowBackend

floods = pytest.mark.slow("sends hundreds of requests in real time")


@pytest.fixture(autouse=True)
def _receivers(assets: Assets, connection: Callable[..., None]) -> Iterator[None]:
    """A receiver in Airflow's database, and one in the environment."""
    add_receiver("of_database")
    connection("of_environment")
    yield
    with create_session() as session:
        session.execute(delete(Connection).where(Connection.conn_type.in_(["planasonix_webhook", "postgres"])))


def post(url: str, name: str, secret: str = SECRET) -> int:
    content = body()
    return httpx.post(url + name, content=content, headers=headers(content, secret), trust_env=False).status_code


@floods
async def test_every_signed_delivery_is_accepted_during_a_flood_after_a_restart() -> None:
    receivers = ["of_database", "of_environment"]
    with server(make_app()) as url:
        signed, invented, _ = await flood(url, receivers, per_second=107, seconds=1.5, deliveries=20)
    assert signed == Counter({204: 20})
    assert invented == Counter({503: 160})


@floods
async def test_no_signed_delivery_waits_for_a_slow_secrets_backend_during_a_flood(
    secrets_backend: Callable[..., None],
) -> None:
    secrets_backend(seconds=0.5)
    receivers = ["of_database", "of_environment"]
    with server(make_app()) as url:
        signed, invented, _ = await flood(url, receivers, per_second=107, seconds=1.5, deliveries=20)
    assert signed == Counter({204: 20})
    assert invented == Counter({503: 160})
    guesses = [name for name in SlowBackend.requested if name.startswith("guess_")]
    assert 1 <= len(guesses) < 80


def test_receivers_of_all_sources_are_found(
    secrets_backend: Callable[..., None],
) -> None:
    vaulted = {"conn_type": "planasonix_webhook", "password": SECRET, "extra": {"asset": "orders_ready"}}
    secrets_backend(vaulted=vaulted, of_others={**vaulted, "conn_type": "http"})
    with server(make_app()) as url:
        assert [post(url, name) for name in ("of_database", "of_environment", "vaulted")] == [204] * 3
        assert [post(url, name) for name in ("of_others", "nobody")] == [503] * 2


def test_a_receiver_in_a_secrets_backend_is_not_limited_if_the_database_lists_it(
    secrets_backend: Callable[..., None],
) -> None:
    secrets_backend(vaulted={"conn_type": "planasonix_webhook", "password": SECRET, "extra": {"asset": "orders_ready"}})
    # Only the name matters, because Airflow searches the secrets backend first.
    add_receiver("vaulted", "whsec_of_nobody", extra=None)
    with server(make_app()) as url:
        assert {post(url, f"guess_{number}", "whsec_of_a_stranger") for number in range(40)} == {503}
        assert post(url, "vaulted") == 204


def test_a_connection_of_another_type_is_not_decrypted(caplog: pytest.LogCaptureFixture) -> None:
    add_receiver("warehouse", conn_type="postgres")
    with create_session() as session:
        # Decrypting it fails: it is not encrypted with this Airflow's key.
        others = update(Connection).where(Connection.conn_id == "warehouse")
        session.execute(others.values({"password": "gAAAAABnot_by_this_key"}))
    with server(make_app()) as url:
        assert post(url, "warehouse") == 503
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []
