from __future__ import annotations

from collections.abc import Iterator

import pytest

from planasonix_provider.simulator import Simulator
from tests.support.api_clients import KEY, CallStyle
from tests.support.raw_server import ONE_JOB, RawServer


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to local servers use no proxy."""
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="session")
def _raw_server() -> Iterator[RawServer]:
    with RawServer() as raw_server:
        yield raw_server


@pytest.fixture
def raw_server(_raw_server: RawServer) -> RawServer:
    """A server that responds with one job until a test sets other responses."""
    return _raw_server.respond_with(ONE_JOB)


@pytest.fixture(scope="session")
def _server() -> Iterator[Simulator]:
    with Simulator(api_key=KEY, connections=["conn_0", "conn_1"], queued_seconds=0, cancelling_seconds=0) as server:
        yield server


@pytest.fixture
def server(_server: Simulator) -> Simulator:
    """A simulator whose connections may have several active syncs."""
    _server.reset()
    _server.workspace.configure(conflict="allowed")
    return _server


@pytest.fixture(params=["blocking", "awaited"])
def style(request: pytest.FixtureRequest) -> CallStyle:
    """Blocking and asynchronous calls."""
    return CallStyle(request.param)
