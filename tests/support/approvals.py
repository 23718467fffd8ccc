"""A person who responds through Airflow's REST API to its requests for input."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import httpx

from tests.support.airflow_users import log_in

log = logging.getLogger(__name__)


@contextmanager
def person_who_chooses(option: str, dag_id: str, task_id: str) -> Iterator[None]:
    """Respond in a thread as soon as the task asks; the block must end after the response."""
    from airflow.api_fastapi.app import create_app

    app, is_over = create_app(apps="core"), Event()
    answers: list[str] = []

    async def try_to_respond(client: httpx.AsyncClient) -> None:
        runs = (await client.get(f"/api/v2/dags/{dag_id}/dagRuns")).json().get("dag_runs", [])
        for run in runs:
            path = f"/api/v2/dags/{dag_id}/dagRuns/{run['dag_run_id']}/taskInstances/{task_id}/-1/hitlDetails"
            response = await client.patch(path, json={"chosen_options": [option], "params_input": {}})
            if response.is_success:
                answers.append(option)
                return

    async def respond() -> None:
        while not answers and not is_over.is_set():
            try:
                async with log_in(app, "admin") as client:
                    await try_to_respond(client)
            except Exception:
                # A request can fail while dag.test() writes to the same SQLite. Without a response, it never ends.
                log.exception("A request to Airflow failed; the next one follows.")
            await asyncio.sleep(0.2)

    thread = Thread(target=asyncio.run, args=[respond()])
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert answers == [option], "Airflow has accepted no response"
