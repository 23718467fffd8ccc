"""Every method of the client works with Prism, an independent mock server for the OpenAPI document.

``make contract`` installs Prism, which needs Node.js, and runs this. Other test runs leave it out.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from planasonix_provider.api.errors import PlanasonixServerError, PlanasonixUnreadableError
from tests.support.api_clients import KEY, CallStyle, make_config
from tests.support.example_calls import EXAMPLE_CALLS, is_list, returned_model

ROOT = Path(__file__).parent.parent.parent.parent
PRISM = ROOT / ".prism" / "node_modules" / ".bin" / "prism"


class Prism:
    """Prism on a free local port; it validates requests.

    :param answers: "examples" for those of the document, or "made up" for responses that it generates each time.
    """

    def __init__(self, answers: str) -> None:
        self.is_making_up = answers == "made up"
        #: How often to repeat each request.
        self.times = 10 if self.is_making_up else 1
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        options = ["--errors", "--host", "127.0.0.1", "--port", str(port), *["--dynamic"][: self.is_making_up]]
        self._process = subprocess.Popen(
            [PRISM, "mock", *options, ROOT / "docs" / "openapi.yaml"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "Prism is listening" in line:
                break
        else:
            pytest.fail(f"Prism did not start:\n{''.join(said)}")
        # Prism would block on a full pipe.
        threading.Thread(target=self._process.stdout.read, daemon=True).start()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


@pytest.fixture(scope="module", params=["examples", "made up"])
def prism(request: pytest.FixtureRequest) -> Iterator[Prism]:
    if not PRISM.exists():
        pytest.skip(f"There is no {PRISM.relative_to(ROOT)}: `make contract` installs it if npm is installed.")
    prism = Prism(request.param)
    yield prism
    prism.stop()


@pytest.fixture(params=["blocking", "awaited"])
def style(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CallStyle:
    monkeypatch.setenv("no_proxy", "*")
    return CallStyle(request.param)


#: Prism cannot send YAML; see below.
JSON_ROUTES = [name for name in EXAMPLE_CALLS if name != "get_openapi"]


@pytest.mark.parametrize("name", [name for name in JSON_ROUTES if not is_list(name)])
def test_a_method_returns_its_type(prism: Prism, style: CallStyle, name: str) -> None:
    call = EXAMPLE_CALLS[name]
    here = make_config(prism.url, organization_id="org_1")
    for given in [call.required, {**call.required, **call.optional}] * prism.times:
        assert isinstance(
            style.call(here, lambda client, given=given: getattr(client, name)(**given)), returned_model(name)
        )


@pytest.mark.parametrize("name", [name for name in JSON_ROUTES if is_list(name)])
def test_a_list_has_items_of_its_type(prism: Prism, style: CallStyle, name: str) -> None:
    call = EXAMPLE_CALLS[name]
    # A generated page may have a cursor. The example with a cursor never ends, see below.
    limit = 20 if prism.is_making_up else 1
    for given in [{**call.required, "limit": limit}, {**call.required, **call.optional, "limit": limit}] * prism.times:
        try:
            items = style.take_items(
                make_config(prism.url), None, lambda client, given=given: getattr(client, name)(**given)
            )
        except PlanasonixUnreadableError as error:
            # By chance, Prism makes up the same cursor again.
            if prism.is_making_up and "so the list would never end" in str(error):
                continue
            raise
        assert all(isinstance(item, returned_model(name)) for item in items)
        assert len(items) <= limit
        assert items or prism.is_making_up


@pytest.mark.parametrize("prism", ["examples"], indirect=True)
def test_a_list_without_a_cursor_is_one_page(prism: Prism, style: CallStyle) -> None:
    here = make_config(prism.url)
    assert [job.id for job in style.take_items(here, None, lambda client: client.list_jobs())] == ["job_01jq8syncabc"]
    assert len(style.take_items(here, None, lambda client: client.list_webhook_deliveries("wh_1"))) == 2


@pytest.mark.parametrize("prism", ["examples"], indirect=True)
def test_a_page_with_its_own_cursor_is_an_error(prism: Prism, style: CallStyle) -> None:
    """Prism answers every cursor with the same example."""
    with pytest.raises(PlanasonixUnreadableError, match="names itself as the next page"):
        style.take_items(make_config(prism.url), None, lambda client: client.list_backfills())


def test_prism_cannot_send_yaml(prism: Prism, style: CallStyle) -> None:
    """Prism accepts the request, but cannot serialize the response."""
    with httpx.Client(base_url=prism.url, trust_env=False, headers={"Authorization": f"Bearer {KEY}"}) as client:
        problem = client.get("/api/v1/openapi.yaml", headers={"Accept": "application/yaml"}).json()
    complaints = problem.get("validation", [])
    assert {complaint["location"][0] for complaint in complaints} <= {"response"}
    assert complaints or problem["title"] == "Cannot find serializer for application/yaml"
    with pytest.raises(PlanasonixServerError, match="answered 500 Internal Server Error"):
        style.call(make_config(prism.url), lambda client: client.get_openapi())


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/jobs?limit=101", None),
        ("GET", "/api/v1/jobs?since=yesterday", None),
        ("POST", "/api/v1/connections/conn_1/backfill", {"start_at": "2025-01-01T00:00:00Z"}),
        ("POST", "/api/v1/connections/conn_1/sync", {"metadata": 1}),
    ],
)
def test_prism_refuses_invalid_requests(prism: Prism, method: str, path: str, body: Any) -> None:
    """Otherwise, the tests above would prove nothing."""
    with httpx.Client(base_url=prism.url, trust_env=False, headers={"Authorization": f"Bearer {KEY}"}) as client:
        assert client.request(method, path, json=body).status_code in (400, 422)


def test_prism_refuses_a_request_without_a_key(prism: Prism) -> None:
    with httpx.Client(base_url=prism.url, trust_env=False) as client:
        assert client.get("/api/v1/jobs").status_code == 401
