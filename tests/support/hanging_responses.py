"""Responses of the simulator that hang until a test releases them, because a fixed time may be too short."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from planasonix_provider.simulator.api import fault_injection
from tests.support.webhook_target import until


class Hanging:
    """All responses that a ``hang`` delays.

    :param patch: replaces the sleep of a ``hang``.
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
