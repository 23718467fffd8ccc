from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.version import Version
from pytest_mock import MockerFixture

from planasonix_provider.triggers import task_state
from planasonix_provider.triggers.task_state import (
    HAS_ON_KILL,
    ApiServerHealth,
    is_interrupted,
    is_shutdown,
    kill_reason,
    runs_elsewhere,
)
from tests.support.airflow_health import PATH, ApiServer, health, serving
from tests.support.webhook_target import until

AIRFLOW = Version(version("apache-airflow"))
TI: Any = SimpleNamespace(dag_id="nightly", task_id="load", run_id="r", map_index=-1)
MAPPED: Any = SimpleNamespace(dag_id="nightly", task_id="load", run_id="r", map_index=2)


def test_airflow_calls_on_kill_from_3_3_on() -> None:
    assert (Version("3.3") <= AIRFLOW) == HAS_ON_KILL


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("failed", "The task was marked failed, by hand or with its DAG run"),
        ("success", "The task was marked success by hand"),
        ("skipped", "The task was marked skipped, by hand or because its DAG run ran out of time"),
        ("removed", "The task was removed from its DAG"),
        ("upstream_failed", "The task was ended (its state is upstream_failed)"),
        (None, "The task was cleared"),
        ("scheduled", "The task was cleared"),
        ("queued", "The task was cleared"),
        ("deferred", None),
        ("running", None),
        ("up_for_retry", None),
    ],
)
class TestKillReason:
    @pytest.mark.skipif(AIRFLOW.major < 3, reason="Airflow 2 reads the database")
    @pytest.mark.parametrize("ti", [TI, MAPPED], ids=["plain", "mapped"])
    def test_is_requested_from_the_supervisor(
        self, mocker: MockerFixture, ti: Any, state: str | None, reason: str | None
    ) -> None:
        """No supervisor runs here that could answer."""
        name = "load_2" if ti is MAPPED else "load"
        ask = mocker.patch(
            "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states",
            return_value={"r": {name: state}} if state else {},
        )
        assert asyncio.run(kill_reason(ti)) == reason
        ask.assert_called_once_with(dag_id="nightly", task_ids=["load"], run_ids=["r"], map_index=ti.map_index)

    @pytest.mark.skipif(AIRFLOW.major >= 3, reason="from Airflow 3 on, no trigger reads the database")
    def test_is_read_from_the_database_in_airflow_2(
        self, mocker: MockerFixture, state: str | None, reason: str | None
    ) -> None:
        """The database of these tests is empty."""
        session = mocker.patch("airflow.utils.session.create_session").return_value.__enter__.return_value
        session.scalar.return_value = state
        assert asyncio.run(kill_reason(TI)) == reason
        (select,) = session.scalar.call_args.args
        where = str(select.compile(compile_kwargs={"literal_binds": True}))
        assert "task_instance.dag_id = 'nightly' AND task_instance.task_id = 'load'" in where


def test_without_a_task_there_is_no_kill_reason() -> None:
    assert asyncio.run(kill_reason(None)) is None


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


def test_only_the_main_task_of_an_event_loop_is_interrupted() -> None:
    async def check() -> bool:
        return is_interrupted()

    async def main() -> tuple[bool, bool]:
        return is_interrupted(), await asyncio.create_task(check())

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert asyncio.run(main()) == (True, False)
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_state_is_unknown_if_airflow_does_not_answer() -> None:
    """No supervisor runs here that could answer."""
    assert runs_elsewhere(SimpleNamespace()) is None


def hang(server: ApiServer) -> None:
    server.answers.clear()


def answer_with(status: int = 200, body: object = None) -> Callable[[ApiServer], None]:
    def change(server: ApiServer) -> None:
        server.status, server.body = status, json.dumps(health() if body is None else body)

    return change


@pytest.mark.skipif(AIRFLOW.major < 3, reason="Airflow 2 has no API server that tasks depend on")
class TestTheHealthOfTheApiServer:
    @pytest.fixture
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
        with serving() as server:
            monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", server.execution_url)
            yield server

    @pytest.mark.parametrize(
        ("change", "is_lost"),
        [
            pytest.param(lambda _: None, False, id="healthy"),
            pytest.param(hang, True, id="hangs"),
            pytest.param(answer_with(503), True, id="503"),
            pytest.param(answer_with(404), False, id="serves only tasks"),
            pytest.param(answer_with(body=health("unhealthy")), True, id="its database is down"),
            pytest.param(answer_with(body=["unknown"]), False, id="another body"),
        ],
    )
    def test_is_compared_with_its_state_at_the_start(
        self, server: ApiServer, monkeypatch: pytest.MonkeyPatch, change: Callable[[ApiServer], None], is_lost: bool
    ) -> None:
        # A slow machine may need more than a second for an answer.
        monkeypatch.setattr(task_state, "MAX_HEALTH_SECONDS", 0.3 if change is hang else 30)
        known = ApiServerHealth()
        known._store_answer()
        change(server)
        assert known.is_lost() == is_lost
        assert set(server.paths) == {PATH}

    def test_is_lost_when_the_server_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(task_state, "MAX_HEALTH_SECONDS", 30)
        with serving() as server:
            monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", server.execution_url)
            known = ApiServerHealth()
            known.remember()
            until(lambda: known._has_answered)
            assert not known.is_lost()
        assert known.is_lost()

    @pytest.mark.parametrize("change", [hang, answer_with(503)], ids=["hangs", "503"])
    def test_is_unknown_if_it_has_never_answered(self, server: ApiServer, change: Callable[[ApiServer], None]) -> None:
        change(server)
        known = ApiServerHealth()
        began = time.monotonic()
        known.remember()
        assert not known.is_lost()
        assert time.monotonic() - began < 5

    def test_is_unknown_if_the_port_does_not_speak_http(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
            url = f"http://127.0.0.1:{server.getsockname()[1]}/execution/"
            monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", url)

            def answer() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"220 mail.example.com ESMTP\r\n")

            answered = pool.submit(answer)
            known = ApiServerHealth()
            known._store_answer()
            answered.result()
        assert not known.is_lost()

    @pytest.mark.parametrize(
        ("settings", "url"),
        [
            ({}, "http://localhost:8080/api/v2/monitor/health"),
            ({"API__BASE_URL": "https://airflow.example.com/team/"}, "https://airflow.example.com/team" + PATH),
            (
                {"API__BASE_URL": "https://outside", "CORE__EXECUTION_API_SERVER_URL": "http://inside:9000/execution"},
                "http://inside:9000" + PATH,
            ),
            ({"CORE__EXECUTION_API_SERVER_URL": "http://inside/elsewhere/"}, ""),
            ({"CORE__EXECUTION_API_SERVER_URL": "in-process://execution/"}, ""),
        ],
    )
    def test_is_requested_at_the_url_of_the_supervisor(
        self, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], url: str
    ) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(f"AIRFLOW__{name}", value)
        assert ApiServerHealth()._url == url


@pytest.mark.skipif(AIRFLOW.major >= 3, reason="Airflow 3 has an API server")
def test_airflow_2_has_no_api_server_to_ask() -> None:
    assert ApiServerHealth()._url == ""
