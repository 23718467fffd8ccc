from __future__ import annotations

from collections.abc import Iterator

import pytest

from planasonix_provider.simulator import Simulator
from tests.support.api_clients import KEY, Way
from tests.support.raw_server import ONE_JOB, Peer


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy on the way out is no way to what runs here."""
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="session")
def _peer() -> Iterator[Peer]:
    with Peer() as peer:
        yield peer


@pytest.fixture
def peer(_peer: Peer) -> Peer:
    """A server that answers with one job until it is told otherwise."""
    return _peer.does(ONE_JOB)


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
def way(request: pytest.FixtureRequest) -> Way:
    """Each of the two ways to call."""
    return Way(request.param)
