from __future__ import annotations

import asyncio
import copy
import gzip
import json
import pickle
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import certifi
import httpx
import pytest
from pydantic import SecretStr
from pytest_mock import MockerFixture

import planasonix_provider
from dev.certificates import tls_context
from planasonix_provider import __version__
from planasonix_provider.api import json_bodies, routes
from planasonix_provider.api.client import AsyncClient, Client, ClientConfig
from planasonix_provider.api.errors import (
    PlanasonixConfigurationError,
    PlanasonixError,
    PlanasonixResponseError,
    PlanasonixTransportError,
    PlanasonixUnreadableError,
    PlanasonixValidationError,
)
from planasonix_provider.api.models import JobEnvelope
from planasonix_provider.api.retry import NO_RETRY, ON_KILL
from planasonix_provider.api.transport_errors import translate_errors
from planasonix_provider.simulator import Simulator
from tests.support.api_clients import KEY, CallStyle, make_config, read, start
from tests.support.error_text import log_text
from tests.support.faults import order_fourteen_faults
from tests.support.raw_server import (
    JOB,
    ONE_JOB,
    RESET,
    SILENCE,
    STARTED,
    RawServer,
    Reaction,
    ReceivedRequest,
    error_response,
    response,
    truncate,
)

PACKAGE = Path(planasonix_provider.__file__).parent


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A local port that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RawServer, Path]]:
    """A TLS server with a self-signed certificate, and the path of the certificate."""
    context, certificate = tls_context(tmp_path_factory.mktemp("tls"))
    with RawServer(context) as raw_server:
        yield raw_server.respond_with(ONE_JOB), certificate


def failure(style: CallStyle, here: ClientConfig, operation: Callable[[Any], Any] = read) -> PlanasonixError:
    with pytest.raises(PlanasonixError) as failed:
        style.call(here, operation, NO_RETRY)
    return failed.value


def assert_never_sent(failed: PlanasonixError) -> None:
    assert isinstance(failed, PlanasonixTransportError)
    assert not failed.sent
    assert failed.is_unreachable


class TestHeaders:
    def test_a_request_has_the_key_the_organization_and_the_user_agent(
        self, style: CallStyle, raw_server: RawServer
    ) -> None:
        style.call(make_config(raw_server.url, organization_id="org_1"), read)
        headers = raw_server.requests[0].headers
        assert headers["authorization"] == f"Bearer {KEY}"
        assert headers["x-organization-id"] == "org_1"
        assert headers["accept"] == "application/json"
        assert re.fullmatch(
            rf"airflow-provider-planasonix/{re.escape(__version__)} Python/3\.\S+", headers["user-agent"]
        )

    def test_a_request_has_no_optional_headers_without_a_value(self, style: CallStyle, raw_server: RawServer) -> None:
        style.call(make_config(raw_server.url, user_agent="mine/1"), read)
        assert raw_server.requests[0].headers["user-agent"] == "mine/1"
        assert not {"x-organization-id", "idempotency-key", "content-type"} & set(raw_server.requests[0].headers)
        assert raw_server.requests[0].body == b""

    def test_a_start_is_json_with_an_idempotency_key(self, style: CallStyle, raw_server: RawServer) -> None:
        raw_server.respond_with(STARTED)
        style.call(make_config(raw_server.url), lambda client: client.trigger_sync("conn_1", metadata={"größe": 1}))
        seen = raw_server.requests[0]
        assert (seen.method, seen.headers["content-type"]) == ("POST", "application/json")
        assert seen.body.decode() == '{"metadata":{"größe":1}}'
        assert len(seen.headers["idempotency-key"]) >= 32

    def test_the_path_of_a_gateway_precedes_the_route(self, style: CallStyle, raw_server: RawServer) -> None:
        style.call(make_config(f"{raw_server.url}/gateway/planasonix"), lambda client: client.get_job("größe"))
        assert raw_server.requests[0].path == "/gateway/planasonix/api/v1/jobs/gr%C3%B6%C3%9Fe"

    async def test_an_async_client_reuses_its_connection(self, server: Simulator, mocker: MockerFixture) -> None:
        opened = mocker.spy(anyio, "connect_tcp")
        async with AsyncClient(make_config(server.url)) as client:
            for _ in range(3):
                assert [job async for job in client.list_jobs()] == []
        assert opened.call_count == 1

    def test_a_client_reuses_its_connection(self, server: Simulator, mocker: MockerFixture) -> None:
        opened = mocker.spy(socket, "create_connection")
        with Client(make_config(server.url)) as client:
            for _ in range(3):
                list(client.list_jobs())
        assert opened.call_count == 1


class TestClientConfig:
    def test_the_defaults_are_the_public_api_and_timeouts_of_5_and_30_seconds(self) -> None:
        default = ClientConfig(SecretStr(KEY))
        assert (default.base_url, default.verify) == ("https://api.planasonix.com", True)
        assert (default.connect_timeout, default.read_timeout) == (5.0, 30.0)

    @pytest.mark.parametrize(
        ("base_url", "host"),
        [
            ("https://api.planasonix.com", "api.planasonix.com"),
            ("https://API.Planasonix.com:443", "api.planasonix.com"),
            ("https://gateway.example.com:8443/planasonix", "gateway.example.com:8443"),
            ("http://127.0.0.1:80", "127.0.0.1"),
            ("http://[::1]:8080", "[::1]:8080"),
        ],
    )
    def test_the_host_has_its_port_unless_it_is_the_default_port(self, base_url: str, host: str) -> None:
        assert make_config(base_url).host == host

    @pytest.mark.parametrize("kind", [Client, AsyncClient])
    def test_the_http_client_gets_the_timeouts(self, kind: Any) -> None:
        assert kind(make_config("http://127.0.0.1:9"))._http.timeout == httpx.Timeout(30.0, connect=5.0)
        mine = make_config("http://127.0.0.1:9", connect_timeout=1.0, read_timeout=2.0)
        assert (mine.total_timeout, make_config("", try_timeout=7.0).total_timeout) == (9.0, 7.0)
        assert kind(mine)._http.timeout == httpx.Timeout(2.0, connect=1.0)

    @pytest.mark.parametrize("key", ["", f"{KEY}\n", f"{KEY}\r\nX-Evil: 1", f" {KEY}", f"{KEY}é", f"{KEY}\x00"])
    def test_a_key_that_is_invalid_in_a_header_is_refused_and_not_shown(self, key: str) -> None:
        with pytest.raises(ValueError, match="The API key is empty, or holds") as refusal:
            ClientConfig(SecretStr(key))
        assert KEY not in log_text(refusal.value)

    def test_no_repr_shows_the_key(self) -> None:
        here = make_config("http://127.0.0.1:9")
        with Client(here) as client:
            shown = [repr(here), str(here), f"{here!s:}", repr(client), repr(vars(client)), repr(AsyncClient(here))]
        assert KEY not in "".join(shown)


def echo(status: int, shape: Callable[[str], Any]) -> Reaction:
    """Send back the Authorization header in the body, and in headers that messages quote."""

    def react(request: ReceivedRequest) -> bytes:
        sent = request.headers["authorization"]
        return response(status, shape(sent), X_Request_ID=f"of {sent}", Location=f"/?{sent}")

    return react


ECHOES: dict[str, Callable[[str], Any]] = {
    "an envelope": lambda sent: {
        "error": {
            "code": sent,
            "message": f"Not for {sent}, says {sent}.",
            "details": [{"field": sent, "issue": sent}],
            "existing_job_id": sent,
        }
    },
    "HTML": lambda sent: f"<html>{sent}</html>".encode(),
    "text": str.encode,
    "JSON of another shape": lambda sent: {sent: sent, "data": {"id": [sent], sent: sent, "created_at": sent}},
}


class TestSecrets:
    @pytest.mark.parametrize("shape", ECHOES.values(), ids=ECHOES)
    @pytest.mark.parametrize("status", [200, 202, 302, 400, 401, 403, 404, 409, 418, 429, 500, 503])
    def test_an_error_does_not_show_a_key_that_the_server_sends_back(
        self, style: CallStyle, raw_server: RawServer, status: int, shape: Callable[[str], Any]
    ) -> None:
        raw_server.respond_with(echo(status, shape))
        assert KEY not in log_text(failure(style, make_config(raw_server.url)))

    def test_the_rest_of_the_servers_message_is_kept(self, style: CallStyle, raw_server: RawServer) -> None:
        raw_server.respond_with(echo(400, ECHOES["an envelope"]))
        message = failure(style, make_config(raw_server.url)).message
        assert "Not for Bearer ***, says Bearer ***" in message
        assert "[request id of Bearer ***]" in message

    @pytest.mark.parametrize("is_escaped", [False, True], ids=["plain", "escaped"])
    def test_a_result_does_not_contain_a_key_that_the_server_sends_back(
        self, style: CallStyle, raw_server: RawServer, is_escaped: bool
    ) -> None:
        sent = "".join(f"\\u{ord(character):04X}" for character in KEY) if is_escaped else KEY
        job = {**JOB, "error": {"message": 'The key "ECHO" is\\not good.'}, "metadata": {"ECHO": ["Bearer ECHO"]}}
        raw_server.respond_with(
            response(200, json.dumps({"data": {**job, "ECHO": "ECHO"}}).replace("ECHO", sent).encode())
        )
        found = style.call(make_config(raw_server.url), read)
        assert found.id == "job_1"
        assert found.error.message == 'The key "***" is\\not good.'
        assert KEY not in found.model_dump_json()
        assert found.model_dump_json().count("***") >= 3

    def test_a_text_does_not_contain_the_key(self, style: CallStyle, raw_server: RawServer) -> None:
        raw_server.respond_with(response(200, f"openapi: 3.1.0 # {KEY}".encode()))
        assert style.call(make_config(raw_server.url), lambda client: client.get_openapi()) == "openapi: 3.1.0 # ***"

    @pytest.mark.parametrize("key", ['plnx"quote', "plnx\\back", "plnx/slash", "plnx.*+?("])
    def test_a_key_with_special_characters_is_found_in_every_json_notation(self, key: str) -> None:
        here = ClientConfig(SecretStr(key))
        for written in (json.dumps(key), json.dumps(key).replace("/", "\\/"), json.dumps(key).replace("p", "\\u0070")):
            assert here.redact_body(f'{{"x\\n": {written}}}'.encode()) == b'{"x\\n": "***"}'
        assert here.redact_body(b'{"x": "plnx\\nothing"}') == b'{"x": "plnx\\nothing"}'

    def test_a_config_cannot_be_pickled_and_a_copy_is_the_same_object(self) -> None:
        here = make_config("http://127.0.0.1:9")
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="A ClientConfig holds the API key, so it is not pickled") as refused:
                pickle.dumps({"account": here}, protocol)
            assert KEY not in log_text(refused.value)
        assert copy.deepcopy([here]) == [here]
        assert copy.copy(here) is here

    def test_an_error_does_not_show_an_escaped_key(self, style: CallStyle, raw_server: RawServer) -> None:
        escaped = "".join(f"\\u{ord(character):04x}" for character in KEY)
        error = {"code": "it", "message": "it", "existing_job_id": "it", "details": [{"field": "it", "issue": "it"}]}
        raw_server.respond_with(response(409, json.dumps({"error": error}).replace("it", escaped).encode()))
        failed = failure(style, make_config(raw_server.url))
        assert KEY not in log_text(failed) + repr(vars(failed))
        assert isinstance(failed, PlanasonixResponseError)
        assert (failed.code, failed.existing_job_id, failed.fields) == ("***", "***", ("***",))
        assert "answered 409 Conflict (***: ***); ***: ***; in the way is job ***. " in failed.message

    @pytest.mark.parametrize("reaction", [RESET, SILENCE, b"", truncate(ONE_JOB), b"NOPE\r\n\r\n"])
    @pytest.mark.parametrize("operation", [read, start])
    def test_the_error_of_a_broken_connection_does_not_show_the_key(
        self, style: CallStyle, raw_server: RawServer, operation: Callable[[Any], Any], reaction: Reaction
    ) -> None:
        raw_server.respond_with(reaction)
        patience = {"read_timeout": 0.05} if reaction is SILENCE else {}
        assert KEY not in log_text(failure(style, make_config(raw_server.url, **patience), operation))
        raw_server.wait_for_requests(1)

    def test_the_error_of_an_invalid_status_line_does_not_show_the_key(
        self, style: CallStyle, raw_server: RawServer
    ) -> None:
        raw_server.respond_with(lambda seen: f"HTTP/1.1 {seen.headers['authorization']}\r\n\r\n".encode())
        assert KEY not in log_text(failure(style, make_config(raw_server.url)))

    @pytest.mark.parametrize("address", ["https://nope.invalid", "http://127.0.0.1:1", "https://127.0.0.1:1"])
    def test_the_error_of_a_failed_connection_does_not_show_the_key(self, style: CallStyle, address: str) -> None:
        assert KEY not in log_text(failure(style, make_config(address)))

    def test_an_error_after_retries_does_not_show_the_key(self, style: CallStyle, raw_server: RawServer) -> None:
        raw_server.respond_with(echo(500, ECHOES["an envelope"]))
        with pytest.raises(PlanasonixError, match=r"\(Tried 3 times\.\)") as failed:
            style.call(make_config(raw_server.url), read)
        assert KEY not in log_text(failed.value)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirects_are_not_followed(
        self, style: CallStyle, raw_server: RawServer, server: Simulator, status: int
    ) -> None:
        raw_server.respond_with(response(status, Location=f"{server.url}/api/v1/jobs/job_1"))
        for operation in (read, start):
            failed = failure(style, make_config(raw_server.url), operation)
            assert f"a redirect to {server.url}/api/v1/jobs/job_1" in failed.message
        assert server.requests == []


class TestTransport:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_connection_refused(self, style: CallStyle, closed_port: int, host: str) -> None:
        failed = failure(style, make_config(f"http://{host}:{closed_port}"))
        assert failed.message == (
            f"GET /api/v1/jobs/job_1: connection refused at http://{host}:{closed_port}. Check the host and port of "
            "the Airflow connection, and that the service is up."
        )
        assert_never_sent(failed)

    def test_an_error_names_the_airflow_connection(self, style: CallStyle, closed_port: int) -> None:
        failed = failure(style, make_config(f"http://127.0.0.1:{closed_port}", conn_id="planasonix_eu"))
        assert "Check the host and port of Airflow connection 'planasonix_eu', and that" in failed.message

    def test_the_servers_message_is_not_changed(self, style: CallStyle, raw_server: RawServer) -> None:
        words = {"code": "mistaken", "message": "metadata: 'the Airflow connection' is taken"}
        raw_server.respond_with(response(403, {"error": words}))
        assert failure(style, make_config(raw_server.url, conn_id="planasonix_eu")).message == (
            "GET /api/v1/jobs/job_1: answered 403 Forbidden (mistaken: metadata: 'the Airflow connection' is taken). "
            "The API key of Airflow connection 'planasonix_eu' lacks the scope for this, or this machine is not on its "
            "IP allowlist: check both in Planasonix."
        )

    def test_no_such_host(self, style: CallStyle) -> None:
        failed = failure(style, make_config("https://nope.invalid"))
        assert "no such host at https://nope.invalid. Check the host" in failed.message
        assert_never_sent(failed)

    def test_untrusted_certificate(self, style: CallStyle, tls: tuple[RawServer, Path]) -> None:
        raw_server, _ = tls
        failed = failure(style, make_config(raw_server.url))
        assert f"no trusted TLS connection (self-signed certificate) at {raw_server.url}. " in failed.message
        assert '"verify" in its extra may name your own CA bundle' in failed.message
        assert_never_sent(failed)

    def test_certificate_that_truststore_refuses(self) -> None:
        # The errors of the package truststore on macOS have no ``reason``, unlike those of OpenSSL.
        refused = ssl.SSLCertVerificationError("it is untrusted")
        refused.verify_message = "it is untrusted"
        with (
            pytest.raises(PlanasonixTransportError, match=r"no trusted TLS connection \(it is untrusted\) at https://"),
            translate_errors(make_config("https://127.0.0.1:9"), routes.get_job("job_1")),
        ):
            raise httpx.ConnectError("refused") from refused

    @pytest.mark.parametrize("trust", ["CA bundle", "no verification"])
    def test_verify_is_a_ca_bundle_or_false(self, style: CallStyle, tls: tuple[RawServer, Path], trust: str) -> None:
        raw_server, certificate = tls
        verify = str(certificate) if trust == "CA bundle" else False
        assert style.call(make_config(raw_server.url, verify=verify), read).id == "job_1"

    def test_https_to_a_port_for_http(self, style: CallStyle, server: Simulator) -> None:
        failed = failure(style, make_config(server.url.replace("http:", "https:")))
        assert "no TLS, but perhaps plain http at https://127.0.0.1:" in failed.message
        assert "Check the host of the Airflow connection, its scheme and its port." in failed.message
        assert_never_sent(failed)

    def test_http_to_a_port_for_https(self, style: CallStyle, tls: tuple[RawServer, Path]) -> None:
        failed = failure(style, make_config(tls[0].url.replace("https:", "http:")))
        assert isinstance(failed, PlanasonixTransportError)
        assert "the connection broke (" in failed.message

    def test_read_timeout(self, style: CallStyle, raw_server: RawServer) -> None:
        raw_server.respond_with(SILENCE)
        failed = failure(style, make_config(raw_server.url, read_timeout=0.05))
        raw_server.wait_for_requests(1)
        assert f"no answer in time at {raw_server.url}. " in failed.message
        assert '"timeout" in the extra of the Airflow connection allows more' in failed.message
        assert isinstance(failed, PlanasonixTransportError)
        assert failed.sent

    def test_connect_timeout(self, style: CallStyle) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            address = full.getsockname()
            waiting = [socket.socket() for _ in range(3)]
            for caller in waiting:
                caller.setblocking(False)
                caller.connect_ex(address)
            failed = failure(style, make_config(f"http://127.0.0.1:{address[1]}", connect_timeout=0.1))
            for caller in waiting:
                caller.close()
        assert "no connection in time at http://127.0.0.1" in failed.message
        assert_never_sent(failed)

    @pytest.mark.parametrize("reaction", [RESET, b"", truncate(ONE_JOB), b"SSH-2.0-OpenSSH_9.6\r\n"])
    def test_a_request_may_have_been_sent_before_its_connection_broke(
        self, style: CallStyle, raw_server: RawServer, reaction: Reaction
    ) -> None:
        failed = failure(style, make_config(raw_server.respond_with(reaction).url))
        assert isinstance(failed, PlanasonixTransportError)
        assert failed.sent
        assert "GET /api/v1/jobs/job_1: the connection broke (" in failed.message

    def test_a_proxy_that_refuses_the_connection(
        self, style: CallStyle, raw_server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("https_proxy", raw_server.respond_with(response(407)).url)
        failed = failure(style, make_config("https://planasonix.example"))
        assert "the proxy refused (407 -) at https://planasonix.example. Check HTTPS_PROXY" in failed.message
        assert raw_server.requests[0].method == "CONNECT"
        assert "authorization" not in raw_server.requests[0].headers
        assert_never_sent(failed)


LOOPBACK = ["127.0.0.1", "127.8.9.10", "localhost", "LOCALHOST", "localhost.", "planasonix.localhost", "[::1]",
            "[::ffff:127.0.0.1]"]  # fmt: skip


class TestProxies:
    @pytest.fixture(autouse=True)
    def _proxy(self, raw_server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("no_proxy")
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, raw_server.url)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize("host", LOOPBACK)
    def test_requests_to_this_machine_use_no_proxy(
        self, style: CallStyle, raw_server: RawServer, host: str, scheme: str
    ) -> None:
        with socket.socket() as closed:
            # Bound but not listening, so connections are refused.
            closed.bind(("127.0.0.1", 0))
            failed = failure(style, make_config(f"{scheme}://{host}:{closed.getsockname()[1]}"))
        assert isinstance(failed, PlanasonixTransportError)
        assert raw_server.requests == []

    def test_requests_to_other_hosts_use_the_proxy(self, style: CallStyle, raw_server: RawServer) -> None:
        assert style.call(make_config("http://planasonix.example"), read).id == "job_1"
        assert style.call(make_config("http://localhost.example"), read).id == "job_1"
        assert [seen.headers["host"] for seen in raw_server.requests] == ["planasonix.example", "localhost.example"]

    @pytest.mark.parametrize("names", ["planasonix.example", ".example", "*"])
    def test_requests_to_hosts_in_no_proxy_use_no_proxy(
        self, style: CallStyle, raw_server: RawServer, monkeypatch: pytest.MonkeyPatch, names: str
    ) -> None:
        monkeypatch.setenv("no_proxy", names)
        failed = failure(
            style, make_config("http://planasonix.example.invalid" if names == "*" else "http://planasonix.example")
        )
        assert isinstance(failed, PlanasonixTransportError)
        assert raw_server.requests == []


def head(*lines: str) -> bytes:
    """Return the head of a response."""
    return "\r\n".join(["HTTP/1.1 200 -", "Connection: close", *lines, "", ""]).encode()


JOB_TEXT = ONE_JOB.partition(b"\r\n\r\n")[2]
GZIP = "Content-Encoding: gzip"
#: The start of a gzip stream that decompresses to nothing: many empty blocks.
EMPTY_BLOCKS = gzip.compress(b"")[:10] + b"\x00\x00\x00\xff\xff" * 30_000
TOO_LARGE: dict[str, bytes] = {
    "announced": head("Content-Length: 8000001"),
    "announced with 19 digits": head(f"Content-Length: {'9' * 19}"),
    "announced compressed": head("Content-Length: 8000001", GZIP),
    "compressed": head(GZIP) + gzip.compress(b" " * 9_000_000),
}


class TestSize:
    @pytest.mark.parametrize("whole", TOO_LARGE.values(), ids=TOO_LARGE)
    @pytest.mark.parametrize("operation", [read, lambda client: client.get_openapi()])
    def test_a_response_that_is_too_large_is_refused(
        self, style: CallStyle, raw_server: RawServer, operation: Callable[[Any], Any], whole: bytes
    ) -> None:
        failed = failure(style, make_config(raw_server.respond_with(whole).url), operation)
        assert isinstance(failed, PlanasonixUnreadableError)
        assert ": answered 200 OK with a body of more than 8 MB. This is not how the Orchestr" in failed.message

    @pytest.mark.parametrize("framing", ["Content-Length: 100001", "X-Framing: none", GZIP])
    def test_the_limit_is_checked_while_a_body_is_read(
        self, style: CallStyle, raw_server: RawServer, mocker: MockerFixture, framing: str
    ) -> None:
        mocker.patch.object(JobEnvelope, "max_bytes", 100_000)
        pack = gzip.compress if framing == GZIP else bytes
        for size in (100_000, 100_001):
            raw_server.respond_with(head(framing.replace("100001", str(size))) + pack(JOB_TEXT.ljust(size)))
            if size == 100_000:
                assert style.call(make_config(raw_server.url), read).id == "job_1"
            else:
                assert "with a body of more than" in failure(style, make_config(raw_server.url)).message

    @pytest.mark.heavy
    @pytest.mark.parametrize("nested", ["[" * 100 + "]" * 100, "[]", '{"a":{}}', '"a"'])
    def test_a_body_with_too_many_values_is_refused_before_it_is_parsed(
        self, style: CallStyle, raw_server: RawServer, mocker: MockerFixture, nested: str
    ) -> None:
        """Parsing 50 kB of compressed values took more than a gigabyte of memory. Errors may have 200,000 values."""
        parser = mocker.spy(json_bodies, "from_json")
        many = ",".join([nested] * (500_000 // len(nested)))
        for status, data in ((200, f'{{"id": "job_1", "status": "running", "x": [{many}]}}'), (400, f"[{many}]")):
            body = (
                f'{{"data": {data}, "error": {{"code": "c", "x": {data}}}}}' if status == 400 else f'{{"data": {data}}}'
            )
            packed = gzip.compress(body.encode())
            raw_server.respond_with(response(status, packed, Content_Encoding="gzip"))
            words = "with JSON of more than 50,000 values" if status == 200 else "answered 400 Bad Request. "
            assert words in failure(style, make_config(raw_server.url)).message
        assert parser.call_count == 0

    def test_a_long_message_with_commas_is_read(self, style: CallStyle, raw_server: RawServer) -> None:
        job = {"id": "job_1", "status": "failed", "error": {"message": "a, [b], {c} " * 30_000}}
        raw_server.respond_with(response(200, {"data": job}))
        read_job = style.call(make_config(raw_server.url), read)
        assert read_job.error.message.startswith("a, [b], {c} a, ")

    def test_without_drops_the_named_and_the_unknown_fields(self, style: CallStyle, raw_server: RawServer) -> None:
        odd = {"x": [1], "metadata": {"a": 1}, "metrics": {"rows_loaded": 7, "x": 1}, "error": {"code": "c", "x": 1}}
        raw_server.respond_with(response(200, {"data": {"id": "job_1", "status": "failed", **odd}, "x": 1}))
        whole = style.call(make_config(raw_server.url), read)
        assert (whole.model_extra, whole.metadata, whole.metrics.model_extra) == ({"x": [1]}, {"a": 1}, {"x": 1})
        request = routes.get_job("job_1").without("metadata")
        job = style.call(make_config(raw_server.url), lambda client: client.send(request))
        assert job.model_dump(exclude_unset=True) == {
            "id": "job_1",
            "status": "failed",
            "metrics": {"rows_loaded": 7},
            "error": {"code": "c"},
        }
        assert request.key == routes.get_job("job_1").key
        raw_server.respond_with(response(200, {"data": [{"id": "job_1", "status": "failed", **odd}]}))
        page = style.call(make_config(raw_server.url), lambda client: client.send(routes.list_jobs().without()))
        assert page.data[0].model_dump(exclude_unset=True, exclude={"metrics", "error"}) == {
            "id": "job_1",
            "status": "failed",
            "metadata": {"a": 1},
        }

    def test_the_limit_also_holds_for_the_compressed_body(
        self, style: CallStyle, raw_server: RawServer, mocker: MockerFixture
    ) -> None:
        mocker.patch.object(JobEnvelope, "max_bytes", 100_000)
        failed = failure(style, make_config(raw_server.respond_with(head(GZIP) + EMPTY_BLOCKS).url))
        assert "with a body of more than" in failed.message

    @pytest.mark.parametrize(
        "packed", [gzip.compress(JOB_TEXT), gzip.compress(JOB_TEXT) + b"more"], ids=["complete", "trailing data"]
    )
    @pytest.mark.parametrize("encoding", ["gzip", "x-gzip", " GZip "])
    def test_a_compressed_response_is_read(
        self, style: CallStyle, raw_server: RawServer, encoding: str, packed: bytes
    ) -> None:
        raw_server.respond_with(head(f"Content-Encoding: {encoding}") + packed)
        assert style.call(make_config(raw_server.url), read).id == "job_1"
        assert raw_server.requests[0].headers["accept-encoding"] == "gzip"

    @pytest.mark.parametrize(
        ("encoding", "body", "words"),
        [
            ("gzip", JOB_TEXT, "with a body that cannot be unpacked as its Content-Encoding says"),
            ("gzip", gzip.compress(JOB_TEXT)[:-9], "with a body that was cut off"),
            ("gzip", b"", "with an empty body"),
            ("gzip, gzip", gzip.compress(gzip.compress(JOB_TEXT)), "with a body that is not JSON"),
            ("br", b"\x0b\x00", "with a body that is not JSON"),
        ],
        ids=["not gzip", "truncated", "empty", "twice", "not requested"],
    )
    def test_a_body_that_cannot_be_decompressed(
        self, style: CallStyle, raw_server: RawServer, encoding: str, body: bytes, words: str
    ) -> None:
        failed = failure(style, make_config(raw_server.respond_with(head(f"Content-Encoding: {encoding}") + body).url))
        assert isinstance(failed, PlanasonixUnreadableError)
        assert words in failed.message

    def test_an_unknown_content_encoding_is_ignored(self, style: CallStyle, raw_server: RawServer) -> None:
        raw_server.respond_with(head("Content-Encoding: UTF-8") + JOB_TEXT)
        assert style.call(make_config(raw_server.url), read).id == "job_1"

    @pytest.mark.heavy
    @pytest.mark.parametrize("item", ["0", "{}"])
    def test_a_list_with_too_many_unreadable_rows_is_refused(
        self, style: CallStyle, raw_server: RawServer, item: str
    ) -> None:
        raw_server.respond_with(response(200, f'{{"data": [{",".join([item] * 50_000)}]}}'.encode()))
        with pytest.raises(PlanasonixUnreadableError, match="more than 1,000 rows cannot be read"):
            style.take_items(make_config(raw_server.url), None, lambda client: client.list_jobs())

    @pytest.mark.heavy
    def test_a_long_error_is_shortened(self, style: CallStyle, raw_server: RawServer) -> None:
        error = {"code": "c" * 50_000, "message": "m" * 50_000, "details": [{"field": "f"}] * 50_000}
        failed = failure(style, make_config(raw_server.respond_with(response(400, {"error": error})).url))
        assert isinstance(failed, PlanasonixValidationError)
        assert len(failed.message) < 5_000
        assert failed.fields == ("f",) * 20


@contextmanager
def dripping(start: bytes, drop: bytes, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve each client a start, and then a drop every 20 ms until the block ends; yield the port."""
    over = threading.Event()

    def drip(caller: socket.socket) -> None:
        with suppress(OSError), tls.wrap_socket(caller, server_side=True) if tls else caller as connection:
            connection.recv(65536)
            for piece in chain([start], repeat(drop)):
                connection.sendall(piece)
                if over.wait(0.02):
                    return

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        over.set()
        server.shutdown(socket.SHUT_RDWR)


DRIPS: dict[str, tuple[bytes, bytes]] = {
    "the body": (head("Content-Length: 999999"), b" "),
    "a header": (b"HTTP/1.1 200 -\r\nX-Long: ", b"x"),
    "the status": (b"HTTP/1.1 200 ", b"x"),
    "early hints": (b"", b"HTTP/1.1 103 -\r\n\r\n"),
    "chunk extension": (head("Transfer-Encoding: chunked") + b"1;", b"x"),
    "empty gzip blocks": (head(GZIP) + EMPTY_BLOCKS[:10], EMPTY_BLOCKS[10:15]),
}


class TestTime:
    @pytest.mark.parametrize(("start", "drop"), DRIPS.values(), ids=DRIPS)
    def test_a_slow_response_times_out(self, style: CallStyle, start: bytes, drop: bytes) -> None:
        with dripping(start, drop) as port:
            begun = time.monotonic()
            failed = failure(style, make_config(f"http://127.0.0.1:{port}", read_timeout=60.0, try_timeout=0.2))
            assert time.monotonic() - begun < 60
        assert isinstance(failed, PlanasonixTransportError)
        assert failed.sent
        assert f"no answer in time at http://127.0.0.1:{port}. " in failed.message

    def test_a_slow_response_over_tls_times_out(self, style: CallStyle, tmp_path: Path) -> None:
        context, certificate = tls_context(tmp_path)
        with dripping(*DRIPS["a header"], context) as port:
            begun = time.monotonic()
            here = make_config(f"https://127.0.0.1:{port}", read_timeout=60.0, try_timeout=0.3, verify=str(certificate))
            assert "no answer in time" in failure(style, here).message
            assert time.monotonic() - begun < 60

    def test_each_try_has_its_own_timeout(self, style: CallStyle) -> None:
        with dripping(*DRIPS["the body"]) as port:
            here = make_config(f"http://127.0.0.1:{port}", read_timeout=60.0, try_timeout=0.1)
            with pytest.raises(PlanasonixTransportError, match=r"\(Tried 3 times\.\)"):
                style.call(here, read)

    def test_a_read_ends_at_the_callers_deadline(self, style: CallStyle, raw_server: RawServer) -> None:
        raw_server.respond_with(SILENCE)
        begun = time.monotonic()
        with pytest.raises(PlanasonixTransportError, match="no answer in time"):
            style.call(make_config(raw_server.url, read_timeout=60.0), read, style.policy(until=style.clock.now + 0.2))
        assert time.monotonic() - begun < 60

    def test_a_start_may_end_after_the_callers_deadline(self, style: CallStyle, raw_server: RawServer) -> None:
        raw_server.respond_with(SILENCE)
        begun = time.monotonic()
        with pytest.raises(PlanasonixTransportError, match="no answer in time"):
            style.call(make_config(raw_server.url, read_timeout=1.0), start, style.policy(until=style.clock.now + 0.05))
        assert time.monotonic() - begun >= 1

    def test_each_request_on_a_connection_has_its_own_timeout(self, server: Simulator) -> None:
        with Client(make_config(server.url)) as client:
            for _ in range(3):
                assert list(client.list_jobs()) == []
                client._timeout._end = 0.0  # long ago

    def test_a_killed_process_has_two_and_a_half_seconds_per_try_and_five_in_total(self) -> None:
        seconds_a_try = make_config("http://127.0.0.1:9").with_short_timeouts().total_timeout
        assert (seconds_a_try, ON_KILL.max_seconds + seconds_a_try) == (2.5, 5.0)


class TestConfiguration:
    @pytest.mark.parametrize("kind", [Client, AsyncClient])
    @pytest.mark.parametrize(
        "content", [None, "", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
    )
    def test_an_error_names_an_unreadable_ca_bundle(self, kind: Any, tmp_path: Path, content: str | None) -> None:
        bundle = tmp_path / "ca.pem"
        if content is not None:
            bundle.write_text(content)
        with pytest.raises(
            PlanasonixConfigurationError,
            match='"verify" in the extra of the Airflow connection is true, false, or the path of a PEM',
        ) as refused:
            kind(make_config("https://127.0.0.1:9", verify=str(bundle)))
        assert str(bundle) in refused.value.message

    @pytest.mark.parametrize("kind", [Client, AsyncClient])
    @pytest.mark.parametrize("address", ["https://x\x00y", "https://a..ü.example", "https://[::1"])
    def test_an_invalid_url_is_refused(self, kind: Any, address: str) -> None:
        with pytest.raises(PlanasonixConfigurationError, match="is no usable address"):
            kind(make_config(address))

    @pytest.mark.parametrize("kind", [Client, AsyncClient])
    @pytest.mark.parametrize(
        ("here", "words"),
        [
            ({"base_url": "https://[::1"}, "Check the host of Airflow connection 'planasonix_eu'."),
            ({"verify": "/nowhere/ca.pem"}, "in the extra of Airflow connection 'planasonix_eu' is true, false"),
        ],
    )
    def test_an_error_names_the_airflow_connection(self, kind: Any, here: dict[str, str], words: str) -> None:
        with pytest.raises(PlanasonixConfigurationError) as refused:
            kind(make_config(**{"base_url": "https://127.0.0.1:9", "conn_id": "planasonix_eu", **here}))
        assert words in refused.value.message

    def test_all_clients_share_one_tls_context(self, mocker: MockerFixture, tmp_path: Path) -> None:
        made = mocker.spy(ssl, "create_default_context")
        bundle = tmp_path / "ca.pem"
        bundle.write_bytes(Path(certifi.where()).read_bytes())
        for kind in (Client, AsyncClient, Client):
            kind(make_config("https://127.0.0.1:9", verify=str(bundle)))
        assert made.call_count == 1


def test_a_connection_is_reused_after_45_idle_seconds(server: Simulator, mocker: MockerFixture) -> None:
    opened = mocker.spy(anyio, "connect_tcp")
    passed = [0.0]
    # Only httpx's clock, because the server's event loop uses time.monotonic(), too.
    shifted = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0])
    mocker.patch("httpcore._async.http11.time", shifted)

    async def main(url: str) -> None:
        async with AsyncClient(make_config(url)) as client:
            for seconds in (45, 45, 0):
                await client.send(routes.list_jobs())
                passed[0] += seconds

    asyncio.run(main(server.url))
    assert opened.call_count == 1


class TestRetries:
    @pytest.mark.parametrize("seed", range(4))
    def test_a_read_survives_fourteen_faults(self, style: CallStyle, server: Simulator, seed: int) -> None:
        here = make_config(server.url)
        started = style.call(here, start)
        order_fourteen_faults(server, seed, retry_after="1")
        patient = style.policy(max_tries=15, max_seconds=3600.0)
        assert style.call(here, lambda client: client.get_job(started.id), patient).id == started.id
        assert len(server.requests) == 1 + 14 + 1
        assert server.faults.pending() == []

    def test_one_request_can_have_its_own_policy(self, raw_server: RawServer) -> None:
        raw_server.respond_with(response(500))
        with Client(make_config(raw_server.url), sleep=lambda _: None) as client, pytest.raises(PlanasonixError):
            client.send(routes.get_job("job_1"), NO_RETRY)
        assert len(raw_server.requests) == 1


class TestRateLimit:
    """All clients of a key share its rate limit."""

    SCARCE = response(200, {"data": JOB}, X_RateLimit_Limit="120", X_RateLimit_Remaining="42")
    EMPTY = response(200, {"data": JOB}, X_RateLimit_Limit="120", X_RateLimit_Remaining="0")

    def test_a_read_is_delayed_if_few_requests_are_left(self, style: CallStyle, raw_server: RawServer) -> None:
        raw_server.respond_with(self.SCARCE)
        style.call(make_config(raw_server.url), read)
        assert style.clock.slept == []
        style.call(make_config(raw_server.url), read)
        assert sum(style.clock.slept) > 0
        assert len(raw_server.requests) == 2

    def test_the_delay_of_a_read_ends_at_its_deadline(self, style: CallStyle, raw_server: RawServer) -> None:
        raw_server.respond_with(self.EMPTY)
        style.call(make_config(raw_server.url), read)
        style.call(make_config(raw_server.url), read, style.policy(until=style.clock.now + 7))
        assert sum(style.clock.slept) == pytest.approx(7)

    def test_starts_and_cancels_are_not_delayed(self, style: CallStyle, raw_server: RawServer) -> None:
        raw_server.respond_with(self.EMPTY, STARTED, ONE_JOB)
        style.call(make_config(raw_server.url), read)
        style.call(make_config(raw_server.url), start)
        style.call(make_config(raw_server.url), lambda client: client.cancel_job("job_1"))
        assert style.clock.slept == []

    def test_a_caller_can_wait_for_the_rate_limit_itself(self, style: CallStyle, raw_server: RawServer) -> None:
        raw_server.respond_with(self.EMPTY)
        style.call(make_config(raw_server.url), read)
        style.call(make_config(raw_server.url), read, style.policy(respects_rate_limit=False))
        assert style.clock.slept == []
        assert style.pace.delay() > 0

    def test_no_request_is_sent_during_the_retry_after_of_a_429(self, style: CallStyle, raw_server: RawServer) -> None:
        raw_server.respond_with(error_response(429, Retry_After="100"), ONE_JOB)
        assert failure(style, make_config(raw_server.url)).retry_after == 100
        style.clock.now += 40
        second = failure(style, make_config(raw_server.url), start)
        assert str(second) == (
            "POST /api/v1/connections/conn_1/sync: not sent, since Planasonix has asked this API key to be silent for "
            "another 60 s (429)."
        )
        assert second.retry_after == 60
        assert len(raw_server.requests) == 1
        style.clock.now += 60
        assert style.call(make_config(raw_server.url), read).id == "job_1"

    def test_the_cancel_of_a_killed_task_is_sent_during_a_retry_after(
        self, style: CallStyle, raw_server: RawServer
    ) -> None:
        raw_server.respond_with(error_response(429, Retry_After="100"), ONE_JOB)
        failure(style, make_config(raw_server.url))
        assert style.call(make_config(raw_server.url), lambda client: client.cancel_job("job_1"), ON_KILL).id == "job_1"

    def test_waiting_requests_are_sent_one_after_another(self, style: CallStyle, raw_server: RawServer) -> None:
        # The window is longer than all four delays: a new window would end the delays at once.
        in_ten_minutes = str(int(time.time()) + 600)
        used = {"X_RateLimit_Limit": "120", "X_RateLimit_Remaining": "42", "X_RateLimit_Reset": in_ten_minutes}
        raw_server.respond_with(response(200, {"data": JOB}, **used))
        moments = []

        async def note(seconds: float) -> None:
            style.clock.sleep(seconds)
            moments.append(style.clock.now)

        async def main() -> None:
            async with AsyncClient(make_config(raw_server.url), style.policy(), sleep=note) as client:
                client.rate_limiter = style.pace
                await asyncio.gather(*(client.get_job("job_1") for _ in range(4)))

        style.call(make_config(raw_server.url), read)
        asyncio.run(main())
        assert len(moments) == len(set(moments)) == 4

    def test_clients_of_one_key_share_a_rate_limiter(self) -> None:
        here = make_config("http://127.0.0.1:9")
        with Client(here) as first, Client(make_config(here.base_url)) as second:
            assert first.rate_limiter is second.rate_limiter
            assert AsyncClient(here).rate_limiter is first.rate_limiter
            assert (
                Client(make_config(here.base_url, api_key=SecretStr("plnx_other"))).rate_limiter
                is not first.rate_limiter
            )


class TestImports:
    @pytest.mark.slow("starts processes")
    def test_the_api_imports_no_airflow(self) -> None:
        code = "import sys, planasonix_provider.api.client; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        imported = {name.split(".")[0] for name in done.stdout.split()}
        assert "planasonix_provider" in imported
        assert "airflow" not in imported


@pytest.mark.parametrize("cookie", ["a=b; Path=/", "a=ä", "ä=b"])
def test_a_cookie_is_not_sent_back(style: CallStyle, raw_server: RawServer, cookie: str) -> None:
    """A cookie that is not ASCII would break every further request."""
    first = {"data": [], "meta": {"page": {"cursor": "next"}}}
    raw_server.respond_with(response(200, first, Set_Cookie=cookie), response(200, {"data": []}))
    assert style.take_items(make_config(raw_server.url), None, lambda client: client.list_jobs()) == []
    assert [seen.headers.get("cookie") for seen in raw_server.requests] == [None, None]


def test_a_delete_returns_nothing(style: CallStyle, raw_server: RawServer) -> None:
    raw_server.respond_with(response(204))
    assert style.call(make_config(raw_server.url), lambda client: client.delete_webhook("wh_1")) is None
    assert (raw_server.requests[0].method, raw_server.requests[0].path) == ("DELETE", "/api/v1/webhooks/wh_1")


def test_the_openapi_document_is_requested_as_yaml_and_returned_as_text(
    style: CallStyle, raw_server: RawServer
) -> None:
    raw_server.respond_with(response(200, b"openapi: 3.1.0\n", **{"content-type": "application/yaml"}))
    assert style.call(make_config(raw_server.url), lambda client: client.get_openapi()) == "openapi: 3.1.0\n"
    assert raw_server.requests[0].headers["accept"] == "application/yaml"
