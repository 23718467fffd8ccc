"""A person who responds through Airflow's REST API to its requests for input."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.airflow_users import log_in

#: The module of ``dag.test()``.
DAG_TEST = "airflow.sdk.definitions.dag"


@contextmanager
def person_who_chooses(option: str, dag_id: str, task_id: str) -> Iterator[None]:
    """Respond when ``dag.test()`` first sleeps. Airflow 3.3.2 loses earlier responses: it stores the state again."""
    from airflow.api_fastapi.app import create_app

    app = create_app(apps="core")
    sleep = time.sleep
    has_responded = False

    async def respond() -> None:
        async with log_in(app, "admin") as client:
            found = await client.get(f"/api/v2/dags/{dag_id}/dagRuns", params={"order_by": "-id", "limit": 1})
            (run,) = found.json()["dag_runs"]
            path = f"/api/v2/dags/{dag_id}/dagRuns/{run['dag_run_id']}/taskInstances/{task_id}/-1/hitlDetails"
            response = await client.patch(path, json={"chosen_options": [option], "params_input": {}})
            assert response.status_code == 200, response.text

    def sleep_or_respond(seconds: float) -> None:
        nonlocal has_responded
        # The caller, and its caller: the fixture planasonix, too, replaces time.sleep.
        callers = sys._getframe(1), sys._getframe(2)
        if has_responded or DAG_TEST not in [caller.f_globals["__name__"] for caller in callers]:
            sleep(seconds)
        else:
            has_responded = True
            asyncio.run(respond())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", sleep_or_respond)
        yield
    assert has_responded, "dag.test() has not waited for a person"
