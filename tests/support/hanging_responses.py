"""Responses of the simulator that hang until a test releases them, and not for some time that may be too short."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from planasonix_provider.simulator.api import fault_injection
from tests.support.webhook_target import until


class Hanging:
    """Whatever a ``hang`` holds back.

    :param patch: puts it in the place of the seconds that a ``hang`` takes.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._has_begun = threading.Event()
        self._is_over = threading.Event()
        patch.setattr(fault_injection, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": self._hang}))

    async def _hang(self, seconds: float) -> None:
        self._has_begun.set()
        while not self._is_over.is_set():  # noqa: ASYNC110 - it is set in another thread
            await asyncio.sleep(0.005)

    def begins(self) -> None:
        """Wait until a response hangs."""
        until(self._has_begun.is_set)

    def ends(self) -> None:
        """Release the responses."""
        self._is_over.set()
