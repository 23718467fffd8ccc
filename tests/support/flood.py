"""Sends deliveries to a receiver on a real server during a flood of invented names, and counts the responses.

Run with ``python -m tests.support.flood``. All limits are fixed, and only the loopback interface is used.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from tests.plugins.conftest import SECRET, Assets, body, headers


@contextmanager
def server(app: Any) -> Iterator[str]:
    """Serve an app on a free port of the loopback interface; return the URL that precedes a receiver's name."""
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        running = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [line]}, daemon=True)
        thread.start()
        while not running.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{line.getsockname()[1]}/webhook/"
        finally:
            running.should_exit = True
            thread.join(30)


async def flood(
    url: str, receivers: Sequence[str], *, per_second: int, seconds: float, deliveries: int
) -> tuple[Counter[int], Counter[int], float]:
    """Send requests for invented names, and signed deliveries among them.

    Return the statuses of the signed deliveries, those of the other requests, and the slowest delivery's seconds.
    """
    number_invented = int(per_second * seconds)
    limits = httpx.Limits(max_connections=1000)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits, trust_env=False) as client:
        started = time.monotonic()

        async def send(at: float, name: str, secret: str) -> tuple[int, float]:
            await asyncio.sleep(max(0.0, started + at - time.monotonic()))
            content = body()
            sent = time.monotonic()
            try:
                response = await client.post(name, content=content, headers=headers(content, secret))
            except httpx.HTTPError:
                return 0, time.monotonic() - sent
            return response.status_code, time.monotonic() - sent

        # The invented names are first: an API server that has just started knows no receiver.
        invented = [send(number / per_second, f"guess_{number}", "whsec_invented") for number in range(number_invented)]
        ours = [
            send(0.5 + number * (seconds - 0.5) / deliveries, receivers[number % len(receivers)], SECRET)
            for number in range(deliveries)
        ]
        responses = await asyncio.gather(*invented, *ours)
    signed = responses[number_invented:]
    return (
        Counter(status for status, _ in signed),
        Counter(status for status, _ in responses[:number_invented]),
        max(took for _, took in signed),
    )


def add_receiver(name: str, secret: str = SECRET, **fields: Any) -> None:
    """Add a receiver to Airflow's database."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    extra = json.dumps({"asset": "orders_ready"})
    given = {"conn_type": "planasonix_webhook", "password": secret, "extra": extra} | fields
    with create_session() as session:
        session.execute(delete(Connection).where(Connection.conn_id == name))
        session.add(Connection(conn_id=name, **given))


def main() -> None:
    """Print the responses at two rates of invented names, with and without a slow secrets backend."""
    import logging
    import os

    from airflow.utils.db import initdb

    from planasonix_provider.plugins.receiver import make_app

    logging.disable()
    initdb()
    assets = Assets()
    assets.forget()
    assets.add("orders_ready")
    add_receiver("of_database")
    os.environ["AIRFLOW_CONN_OF_ENVIRONMENT"] = json.dumps(
        {"conn_type": "planasonix_webhook", "password": SECRET, "extra": {"asset": "orders_ready"}}
    )
    for latency in (0.0, 0.5):
        if latency:
            os.environ["AIRFLOW__SECRETS__BACKEND"] = "tests.support.slow_secrets.SlowBackend"
            os.environ["AIRFLOW__SECRETS__BACKEND_KWARGS"] = json.dumps({"seconds": latency})
        for per_second in (44, 107):
            with server(make_app()) as url:
                signed, invented, slowest = asyncio.run(
                    flood(url, ["of_database", "of_environment"], per_second=per_second, seconds=6, deliveries=60)
                )
            print(
                f"{per_second} invented names/s, secrets backend of {latency} s: signed {dict(signed)}, "
                f"slowest {slowest:.1f} s, invented {dict(invented)}"
            )


if __name__ == "__main__":
    main()
