from __future__ import annotations

import asyncio
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.version import Version
from pytest_mock import MockerFixture

from planasonix_provider.triggers.killed import IS_TOLD, is_really_killed, is_shutdown

AIRFLOW = Version(version("apache-airflow"))
TI: Any = SimpleNamespace(dag_id="nightly", task_id="load", run_id="r", map_index=-1)
MAPPED: Any = SimpleNamespace(dag_id="nightly", task_id="load", run_id="r", map_index=2)


def test_airflow_tells_of_kills_from_3_3_on() -> None:
    assert (Version("3.3") <= AIRFLOW) == IS_TOLD


@pytest.mark.parametrize(
    ("state", "is_killed"),
    [
        ("failed", True),
        ("success", True),
        ("skipped", True),
        (None, True),
        ("scheduled", True),
        ("deferred", False),
        ("running", False),
        ("up_for_retry", False),
    ],
)
class TestATask:
    @pytest.mark.skipif(AIRFLOW.major < 3, reason="Airflow 2 has another way to ask")
    @pytest.mark.parametrize("ti", [TI, MAPPED], ids=["plain", "mapped"])
    def test_is_asked_for(self, mocker: MockerFixture, ti: Any, state: str | None, is_killed: bool) -> None:
        """No supervisor is here to answer."""
        name = "load_2" if ti is MAPPED else "load"
        ask = mocker.patch(
            "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states",
            return_value={"r": {name: state}} if state else {},
        )
        assert asyncio.run(is_really_killed(ti)) == is_killed
        ask.assert_called_once_with(dag_id="nightly", task_ids=["load"], run_ids=["r"], map_index=ti.map_index)

    @pytest.mark.skipif(AIRFLOW.major >= 3, reason="from Airflow 3 on, no trigger reads the database")
    def test_is_looked_up_in_airflow_2(self, mocker: MockerFixture, state: str | None, is_killed: bool) -> None:
        """The database of these tests is empty."""
        session = mocker.patch("airflow.utils.session.create_session").return_value.__enter__.return_value
        session.scalar.return_value = state
        assert asyncio.run(is_really_killed(TI)) == is_killed
        (select,) = session.scalar.call_args.args
        where = str(select.compile(compile_kwargs={"literal_binds": True}))
        assert "task_instance.dag_id = 'nightly' AND task_instance.task_id = 'load'" in where


def test_nothing_is_known_without_a_task() -> None:
    assert not asyncio.run(is_really_killed(None))


def test_one_cancelled_task_is_no_shutdown() -> None:
    seen: list[bool] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append(is_shutdown())
            raise

    async def main() -> None:
        one = asyncio.create_task(wait())
        others = [asyncio.create_task(wait()) for _ in range(2)]
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.wait([one])
        assert not any(other.done() for other in others)

    asyncio.run(main())
    assert seen == [False, True, True]
