from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from planasonix_provider.simulator import Simulator
from tests.support.html_page import Page


@pytest.fixture(scope="module")
def module_browser(session_simulator: Simulator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=session_simulator.url, timeout=60) as client:
        yield client


@pytest.fixture
def browser(module_browser: httpx.Client, simulator: Simulator) -> httpx.Client:
    """A client without a key."""
    return module_browser


@pytest.fixture
def get_page(browser: httpx.Client) -> Callable[[str], Page]:
    """Loads a page."""
    return lambda path: Page(browser.get(path))


@pytest.fixture
def send(browser: httpx.Client, simulator: Simulator) -> Callable[..., Page]:
    """Sends a form as a browser does, and loads the page that it leads to."""

    def send(path: str, **values: str) -> Page:
        headers = {"Origin": simulator.url, "Sec-Fetch-Site": "same-origin"}
        return Page(browser.post(path, data=values, headers=headers, follow_redirects=True))

    return send
