"""A small triggerer that runs watchers as Airflow's does, on Airflow's shared streams if it has them.

Events stay in its process until the next sync, a second later, has stored them; a kill loses them.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from planasonix_provider.triggers.events import PlanasonixEventTrigger
from tests.support.task_runs import Log, record

try:
    from airflow.triggers.shared_stream import SharedStreamManager
except ImportError:
    SharedStreamManager = None  # type: ignore[assignment, misc]

HAS_SHARED_STREAMS = SharedStreamManager is not None


class Store:
    """Airflow's database: the events of assets, and saved values as JSON."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], str] = {}
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.writes = 0
        self.error: Exception | None = None
        #: The assets whose state cannot be read.
        self.broken_assets: set[str] = set()
        #: The log of the triggers.
        self.log = Log()
        #: Seconds until the state of an asset is returned.
        self.latency = 0.0

    def asset(self, name: str) -> Any:
        """Return the state store of an asset."""

        async def aget(key: str, default: Any = None) -> Any:
            await asyncio.sleep(self.latency)
            self._fail()
            if name in self.broken_assets:
                raise RuntimeError(f"the state of {name} is away")
            text = self.values.get((name, key))
            return default if text is None else json.loads(text)

        async def aset(key: str, value: Any) -> None:
            await asyncio.sleep(self.latency)
            self._fail()
            self.writes += 1
            self.values[name, key] = json.dumps(value)

        return SimpleNamespace(aget=aget, aset=aset)

    def get(self, key: str, default: Any = None) -> Any:
        """Read a variable."""
        self._fail()
        return self.values.get(("variable", key), default)

    def set(self, key: str, value: str, description: str | None = None) -> None:
        """Write a variable."""
        self._fail()
        self.writes += 1
        self.values["variable", key] = value

    def _fail(self) -> None:
        if self.error:
            raise self.error

    def ids(self, asset: str = "asset") -> Counter[str]:
        """Count the events of an asset by job and backfill."""
        return Counter(
            payload.get("job_id") or payload["backfill_id"] for name, payload in self.received if name == asset
        )


class Triggerer:
    """One process of a triggerer, in an event loop that may have several."""

    def __init__(self, store: Store, *, has_shared_streams: bool = HAS_SHARED_STREAMS) -> None:
        self.store = store
        self._manager = SharedStreamManager() if has_shared_streams else None
        self._outbox: deque[tuple[tuple[str, ...], Any, int | None]] = deque()
        self._has_fired = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._syncing: asyncio.Task[None] | None = None
        self.failures: list[BaseException] = []

    def watch(self, *triggers: PlanasonixEventTrigger, assets: Iterable[str] = ("asset",)) -> None:
        """Run triggers of some assets."""
        self._syncing = self._syncing or asyncio.ensure_future(self._sync())
        for trigger in triggers:
            self._tasks.append(asyncio.ensure_future(self._run(len(self._tasks), trigger, tuple(assets))))

    async def _run(self, trigger_id: int, trigger: PlanasonixEventTrigger, assets: tuple[str, ...]) -> None:
        path, arguments = trigger.serialize()
        module, _, name = path.rpartition(".")
        trigger = getattr(import_module(module), name)(**json.loads(json.dumps(arguments)))
        record(trigger, self.store.log)
        if self._manager is not None:
            trigger.asset_state_store = SimpleNamespace(_by_name={name: self.store.asset(name) for name in assets})
        key = trigger.shared_stream_key()
        try:
            if self._manager is not None:
                shared = self._manager.subscribe(trigger_id=trigger_id, trigger=trigger, key=key)
                stream = trigger.filter_shared_stream(shared)
            else:
                stream = trigger.run()
            async for event in stream:
                seq = self._manager and self._manager.bind_pending_event(trigger_id=trigger_id, key=key)
                self._outbox.append((assets, event.payload, seq))
                self._has_fired.set()
        except Exception as error:
            self.failures.append(error)
        finally:
            if self._manager is not None:
                await self._manager.unsubscribe(trigger_id, key)

    async def _sync(self) -> None:
        stored: list[int] = []
        while True:
            if not stored:
                await self._has_fired.wait()
            self._has_fired.clear()
            await asyncio.sleep(1)
            if self._manager is not None:
                self._manager.confirm_persisted(stored)
            stored = []
            while self._outbox:
                assets, payload, seq = self._outbox.popleft()
                self.store.received.extend((asset, json.loads(json.dumps(payload))) for asset in assets)
                if seq is not None:
                    stored.append(seq)

    @property
    def has_something_to_store(self) -> bool:
        """Whether there are events that are not stored yet."""
        return bool(self._outbox)

    async def kill(self) -> None:
        """End the process without storing more events."""
        assert self._syncing
        tasks = [self._syncing, *self._tasks]
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert not self.failures
