from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.models import Connection
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from pytest_mock import MockerFixture

from dev.certificates import tls_context
from planasonix_provider.api import routes
from planasonix_provider.api.client import AsyncClient, Client
from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixConfigurationError,
    PlanasonixNotFoundError,
    PlanasonixServerError,
    PlanasonixTransportError,
)
from planasonix_provider.api.operations import Operations
from planasonix_provider.api.retry import NO_RETRY
from planasonix_provider.hooks.connection_lookup import missing_connection_hint
from planasonix_provider.hooks.connection_settings import ConnectionSettings
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.simulator import Simulator
from tests.hooks.conftest import KEY, Connect
from tests.support.raw_server import RawServer, response


@pytest.fixture(scope="module")
def _server() -> Iterator[Simulator]:
    with Simulator(api_key=KEY, connections=["conn_1"], queued_seconds=60, cancelling_seconds=0) as server:
        yield server


@pytest.fixture
def server(_server: Simulator) -> Simulator:
    _server.reset()
    return _server


def rotate(server: Simulator, connect: Connect) -> None:
    """Replace the API key of the server, and that of the Airflow connection."""
    server.workspace.keys.revoke(KEY)
    server.workspace.keys.add("plnx_test_rotated")
    connect(host=server.url, password="plnx_test_rotated")


@pytest.fixture
def hook(server: Simulator, connect: Connect) -> Iterator[PlanasonixHook]:
    with PlanasonixHook(connect(host=server.url)) as hook:
        yield hook


async def read_settings(hook: PlanasonixHook, *, blocking: bool) -> ConnectionSettings:
    return hook.settings if blocking else await hook.async_settings()


both_modes = pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "awaited"])


class TestMethods:
    def test_each_route_is_a_blocking_method(self, hook: PlanasonixHook) -> None:
        job = hook.trigger_sync("conn_1", pipeline_id="pl_1", metadata={"dag_id": "d"})
        assert [listed.id for listed in hook.list_jobs(connection_id="conn_1")] == [job.id]
        assert hook.cancel_job(job.id).status == "cancelled"
        assert hook.get_job(job_id=job.id).status == "cancelled"
        assert hook.get_job_results(job.id).status == "cancelled"

    async def test_each_route_is_an_awaited_method(self, hook: PlanasonixHook) -> None:
        job = await hook.aio.trigger_sync("conn_1", pipeline_id="pl_1", metadata={"dag_id": "d"})
        assert [listed.id async for listed in hook.aio.list_jobs(connection_id="conn_1")] == [job.id]
        assert (await hook.aio.cancel_job(job.id)).status == "cancelled"
        assert (await hook.aio.get_job(job_id=job.id)).status == "cancelled"
        assert (await hook.aio.get_job_results(job.id)).status == "cancelled"

    def test_the_methods_are_the_same_everywhere(self) -> None:
        for kind in (PlanasonixHook, type(PlanasonixHook().aio), Client, AsyncClient):
            assert all(getattr(kind, name) is vars(Operations)[name] for name in vars(Operations) if name[0] != "_")

    @both_modes
    async def test_a_method_raises_the_error_of_the_api(self, hook: PlanasonixHook, blocking: bool) -> None:
        with pytest.raises(PlanasonixNotFoundError, match="no job 'job_of_nobody'"):
            _ = hook.get_job("job_of_nobody") if blocking else await hook.aio.get_job("job_of_nobody")

    def test_the_user_agent_names_airflow(self, hook: PlanasonixHook, server: Simulator) -> None:
        list(hook.list_jobs())
        assert " Airflow/" in server.requests[0].headers["user-agent"]

    def test_a_closed_hook_opens_again(self, hook: PlanasonixHook) -> None:
        list(hook.list_jobs())
        hook.close()
        hook.close()
        assert list(hook.list_jobs()) == []

    def test_a_request_may_have_its_own_retry_policy(self, hook: PlanasonixHook, server: Simulator) -> None:
        server.fail("status")
        with pytest.raises(PlanasonixServerError):
            hook.send(routes.list_jobs(), NO_RETRY)
        assert len(server.requests) == 1

    async def test_clients_send_any_request(self, hook: PlanasonixHook) -> None:
        with hook.client() as client, hook.get_conn() as conn:
            assert type(client) is type(conn) is Client
            assert list(client.list_jobs()) == list(conn.list_jobs()) == []
        async with await hook.async_client(NO_RETRY) as async_client:
            assert (type(async_client), async_client.policy) == (AsyncClient, NO_RETRY)


class TestConnection:
    def test_the_default_connection_has_the_documented_name(self) -> None:
        hook = PlanasonixHook()
        assert hook.planasonix_conn_id == "planasonix_default"
        assert (hook.conn_name_attr, hook.conn_type, hook.hook_name) == (
            "planasonix_conn_id",
            "planasonix",
            "Planasonix",
        )
        assert PlanasonixHook(**{hook.conn_name_attr: "mine"}).planasonix_conn_id == "mine"

    @both_modes
    async def test_the_error_of_a_missing_connection_explains_how_to_create_it(self, blocking: bool) -> None:
        with pytest.raises(PlanasonixConfigurationError) as refused:
            await read_settings(PlanasonixHook("planasonix_of_nobody"), blocking=blocking)
        assert refused.value.message.partition(" But Airflow")[0] == (
            "There is no Airflow connection 'planasonix_of_nobody', or none that can be read. Make it under Admin > "
            "Connections (type Planasonix, with the API key), or set AIRFLOW_CONN_PLANASONIX_OF_NOBODY for every "
            'process of Airflow to {"conn_type": "planasonix", "password": "<the API key>"}, or write it into a file '
            "for `airflow connections import`."
        )

    def test_an_error_names_no_environment_variable_that_a_shell_cannot_set(self) -> None:
        with pytest.raises(PlanasonixConfigurationError, match=r"with the API key\), or write it into a file for"):
            _ = PlanasonixHook("planasonix-of.nobody").settings

    @pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 reads its database in every process")
    @both_modes
    async def test_an_error_names_the_searched_sources_in_a_process_of_the_user(
        self, monkeypatch: pytest.MonkeyPatch, blocking: bool
    ) -> None:
        hint = (
            " But Airflow has not started this process, so Airflow 3 looks only in environment variables and in the "
            "secrets backend, and not in its metadata database. If the connection is in the database, run this code in "
            "a task, or set the environment variable."
        )
        with pytest.raises(PlanasonixConfigurationError) as refused:
            await read_settings(PlanasonixHook("planasonix_of_nobody"), blocking=blocking)
        assert refused.value.message.endswith(hint)
        monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
        assert missing_connection_hint() == ""

    @both_modes
    async def test_an_unknown_key_of_the_extra_is_logged_once(
        self, connect: Connect, caplog: pytest.LogCaptureFixture, blocking: bool
    ) -> None:
        key = f"unknown_{blocking}"
        for _ in range(3):
            await read_settings(PlanasonixHook(connect(extra={key: "a1b2c3d4"})), blocking=blocking)
        (line,) = [record.getMessage() for record in caplog.records if key in record.getMessage()]
        assert line.startswith(f"The extra of Airflow connection 'planasonix_x' has '{key}': nothing reads that key.")
        assert "a1b2c3d4" not in caplog.text

    @both_modes
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"password": ""}, "'planasonix_x' has no API key"),
            ({"extra": {"timeout": "soon"}}, "'planasonix_x', extra 'timeout': got 'soon'"),
        ],
    )
    async def test_an_error_names_the_connection_and_the_invalid_field(
        self, connect: Connect, blocking: bool, fields: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(PlanasonixConfigurationError, match=words) as refused:
            await read_settings(PlanasonixHook(connect(**fields)), blocking=blocking)
        assert KEY not in "".join(traceback.format_exception(refused.value))

    @both_modes
    async def test_an_airflow_that_does_not_respond_is_no_missing_connection(
        self, connect: Connect, mocker: MockerFixture, blocking: bool
    ) -> None:
        # A failing secrets backend behaves differently on each version of Airflow.
        fault = ConnectionError("The API server is away.")
        mocker.patch.object(PlanasonixHook, "get_connection", side_effect=fault)
        mocker.patch("planasonix_provider.hooks.planasonix.get_async_connection", side_effect=fault)
        with pytest.raises(
            PlanasonixTransportError, match=r"'planasonix_x' \(ConnectionError: The API server is away"
        ) as failed:
            await read_settings(PlanasonixHook(connect()), blocking=blocking)
        assert not failed.value.sent

    @pytest.mark.parametrize("fault", [None, ConnectionError("The API server is away.")], ids=["read", "not read"])
    async def test_a_cancelled_read_finishes_and_logs_nothing(
        self, connect: Connect, mocker: MockerFixture, caplog: pytest.LogCaptureFixture, fault: Exception | None
    ) -> None:
        called, may_respond, exceptions = asyncio.Event(), asyncio.Event(), []

        async def get_slowly(_: str) -> Connection:
            called.set()
            try:
                await may_respond.wait()
            finally:
                exceptions.append(sys.exc_info()[0])
            if fault:
                raise fault
            return Connection(conn_type="planasonix", password=KEY)

        mocker.patch("planasonix_provider.hooks.planasonix.get_async_connection", get_slowly)
        read = asyncio.create_task(PlanasonixHook(connect()).async_settings())
        await called.wait()
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read
        may_respond.set()
        await asyncio.sleep(0.01)
        gc.collect()
        assert exceptions == [None]
        assert [record for record in caplog.records if record.name == "asyncio"] == []

    def test_a_rotated_key_is_read_again(self, hook: PlanasonixHook, server: Simulator, connect: Connect) -> None:
        list(hook.list_jobs())
        rotate(server, connect)
        assert list(hook.list_jobs()) == []
        assert [request.status for request in server.requests] == [200, 401, 200]

    def test_a_refused_key_is_not_sent_twice(self, hook: PlanasonixHook, server: Simulator) -> None:
        list(hook.list_jobs())
        server.workspace.keys.revoke(KEY)
        with pytest.raises(PlanasonixAuthenticationError):
            list(hook.list_jobs())
        assert [request.status for request in server.requests] == [200, 401]

    async def test_an_awaited_method_reads_the_connection_at_each_call(
        self, hook: PlanasonixHook, server: Simulator, connect: Connect
    ) -> None:
        assert [job async for job in hook.aio.list_jobs()] == []
        rotate(server, connect)
        assert [job async for job in hook.aio.list_jobs()] == []

    def test_a_hook_does_not_show_the_key(self, hook: PlanasonixHook) -> None:
        list(hook.list_jobs())
        assert KEY not in repr(hook) + repr(vars(hook)) + repr(hook.settings)


def result_of_test(conn_id: str) -> tuple[bool, str]:
    works, message = PlanasonixHook(conn_id).test_connection()
    assert KEY not in message
    return works, message


def test_a_refused_key_is_named_by_its_connection(connect: Connect, server: Simulator) -> None:
    server.workspace.keys.revoke(KEY)
    with (
        PlanasonixHook(connect(host=server.url)) as hook,
        pytest.raises(
            PlanasonixAuthenticationError,
            match="The API key of Airflow connection 'planasonix_x', which is its password, is missing",
        ),
    ):
        hook.get_job("job_1")


class TestTestConnection:
    def test_success(self, connect: Connect, server: Simulator) -> None:
        works, message = result_of_test(connect(host=server.url))
        assert (works, message) == (True, f"Connected to {server.url}. The API key may read jobs.")
        assert [(seen.path, seen.query) for seen in server.requests] == [("/api/v1/jobs", "limit=1")]

    def test_an_unknown_key_of_the_extra(self, connect: Connect, server: Simulator) -> None:
        hook = PlanasonixHook(connect(host=server.url, extra={"orgnization_id": "org_secret"}))
        assert hook.test_connection() == (
            True,
            f"Connected to {server.url}. The API key may read jobs. The extra of the Airflow connection has "
            "'orgnization_id' (did you mean 'organization_id'?): nothing reads that key. Known keys are "
            "organization_id, web_url, timeout, verify, allow_http.",
        )

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            (
                {"host": "nope.invalid"},
                "no such host at https://nope.invalid. Check the host of the Airflow connection",
            ),
            ({"host": "ftp://a.example.com"}, "The Airflow connection, host: got 'ftp://a.example.com'"),
            ({"extra": {"verify": "/nowhere/ca.pem"}}, "ca.pem' cannot be read (No such file or directory)"),
        ],
    )
    def test_a_field_that_cannot_work(self, connect: Connect, fields: dict[str, Any], words: str) -> None:
        works, message = result_of_test(connect(**fields))
        assert not works
        assert words in message

    def test_a_refused_connection(self, connect: Connect) -> None:
        with Simulator() as stopped:
            url = stopped.url
        works, message = result_of_test(connect(host=url))
        assert not works
        assert f"connection refused at {url}. Check the host and port of the Airflow connection," in message

    def test_an_airflow_that_does_not_respond(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def down(_: str) -> None:
            raise OSError("the database is down")

        monkeypatch.setattr(PlanasonixHook, "get_connection", staticmethod(down))
        assert result_of_test("planasonix_x") == (
            False,
            "Airflow could not give the Airflow connection (OSError: the database is down). If it stays, look at the "
            "health of Airflow's API server, database or secrets backend.",
        )

    def test_an_untrusted_certificate(self, connect: Connect, tmp_path: Path) -> None:
        context, certificate = tls_context(tmp_path)
        with RawServer(context).respond_with(response(200, {"data": [], "meta": {"page": {"cursor": None}}})) as tls:
            works, message = result_of_test(connect(host=tls.url))
            assert not works
            assert "no trusted TLS connection (self-signed certificate)" in message
            assert '"verify" in its extra may name your own CA bundle' in message
            assert result_of_test(connect(host=tls.url, extra={"verify": str(certificate)}))[0]

    @pytest.mark.parametrize(
        ("fault", "words"),
        [
            (
                {"kind": "html", "status": 200},
                "with an HTML page, as a proxy or a login page between here and the API",
            ),
            ({"kind": "html", "status": 502}, "502 Bad Gateway with an HTML page"),
            ({"kind": "empty"}, "with an empty body"),
            ({"kind": "cut", "when": "after"}, "the connection broke"),
            ({"kind": "status", "status": 403}, "The API key of the Airflow connection lacks the scope"),
            ({"kind": "status", "status": 429}, "429 Too Many Requests"),
        ],
    )
    def test_an_unexpected_response(self, connect: Connect, server: Simulator, fault: Any, words: str) -> None:
        server.fail(**fault)
        works, message = result_of_test(connect(host=server.url))
        assert (works, len(server.requests)) == (False, 1)
        assert words in message

    def test_an_unknown_key(self, connect: Connect, server: Simulator) -> None:
        server.workspace.keys.revoke(KEY)
        works, message = result_of_test(connect(host=server.url))
        assert not works
        assert "401 Unauthorized (unauthorized: " in message
        assert "The API key of the Airflow connection, which is its password, is missing" in message

    @pytest.mark.parametrize("path", ["/app", "/api", "/api/v2"])
    def test_a_wrong_path(self, connect: Connect, server: Simulator, path: str) -> None:
        works, message = result_of_test(connect(host=server.url + path))
        assert not works
        assert message.startswith(f"{server.url}{path} answers, but has no Orchestration API at /api/v1: ")
        assert "not the web app's" in message

    def test_the_path_in_the_api_reference_is_accepted(self, connect: Connect, server: Simulator) -> None:
        assert result_of_test(connect(host=f"{server.url}/api/v1/"))[0]

    def test_a_missing_connection(self) -> None:
        works, message = result_of_test("planasonix_of_nobody")
        assert not works
        assert message.startswith("There is no Airflow connection 'planasonix_of_nobody'")

    def test_airflow_finds_it_by_the_connection_type(self, connect: Connect, server: Simulator) -> None:
        connection = Connection(conn_id=connect(host=server.url), conn_type="planasonix")
        assert connection.test_connection() == (True, f"Connected to {server.url}. The API key may read jobs.")


def test_httpx_does_not_log_each_request() -> None:
    assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)


class TestCopies:
    def test_a_pickled_hook_has_no_key_and_reads_its_connection_again(self, hook: PlanasonixHook) -> None:
        assert list(hook.list_jobs()) == []
        hook.log.debug("Loggers are part of a hook, too.")
        assert KEY in hook.settings.client_config.headers["Authorization"]
        pickled = pickle.dumps(hook)
        assert KEY.encode() not in pickled
        with pickle.loads(pickled) as again:
            assert list(again.list_jobs()) == []
            assert again.planasonix_conn_id == hook.planasonix_conn_id

    def test_a_hook_can_be_deep_copied_as_airflow_copies_operators(self, hook: PlanasonixHook) -> None:
        assert list(hook.list_jobs()) == []
        hook.log.debug("Loggers are part of a hook, too.")
        with copy.deepcopy({"hook": hook})["hook"] as again:
            assert again is not hook
            assert again._client is None
            assert list(again.list_jobs()) == []

    def test_settings_are_not_pickled(self, hook: PlanasonixHook) -> None:
        with pytest.raises(TypeError, match="A ClientConfig holds the API key, so it is not pickled"):
            pickle.dumps(hook.settings)
        assert copy.deepcopy(hook.settings) == hook.settings
