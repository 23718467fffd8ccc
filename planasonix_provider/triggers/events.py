"""The trigger of asset watchers: sends an event for each job and backfill that ends, of any client."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack, aclosing
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from airflow.providers.common.compat.sdk import AirflowException
from airflow.providers.common.compat.triggers import BaseEventTrigger
from airflow.triggers.base import BaseTrigger, TriggerEvent

from planasonix_provider import validators
from planasonix_provider.api.client import AsyncClient
from planasonix_provider.api.event_types import END_EVENTS, event_names, warn_of_unknown_events
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.triggers.cursor_store import AssetCursorStore, CursorStore, VariableCursorStore
from planasonix_provider.validators import identifier, invalid_parameter, is_templated, optional, text
from planasonix_provider.waiting.formatting import format_time
from planasonix_provider.waiting.shared_client import SharedClient
from planasonix_provider.watchers.broadcast import BROADCASTS, Broadcast
from planasonix_provider.watchers.completion_stream import CompletionBatch, CompletionStream
from planasonix_provider.watchers.event_filter import EventFilter
from planasonix_provider.watchers.subscribers import REGISTRIES, Subscriber, SubscriberRegistry

if TYPE_CHECKING:
    from planasonix_provider.hooks.connection_settings import ConnectionSettings

try:
    from airflow.triggers.shared_stream import SharedStreamProducer
except ImportError:
    SharedStreamProducer = object  # type: ignore[misc, assignment]

log = logging.getLogger(__name__)

#: Whether this Airflow has asset watchers. Without them, common.compat replaces their base by that of all triggers.
HAS_WATCHERS = BaseEventTrigger is not BaseTrigger
#: The default event types: data was loaded.
DEFAULT_EVENTS = ("backfill.completed", "job.succeeded")
#: Seconds between two attempts to read a cursor.
READ_RETRY_SECONDS = 5.0
#: The warning about watchers that Airflow cannot tell apart.
EQUAL_WATCHERS_WARNING = (
    "Airflow runs one trigger for equal watchers. If the DAGs of one asset are paused, its trigger goes on for the "
    "others, and jobs that end by then never reach the paused one. Give each PlanasonixEventTrigger the name of its "
    "asset: asset='orders_loaded'."
)


class PlanasonixEventTrigger(BaseEventTrigger):
    """Sends an event for each job and backfill that ends, for an ``AssetWatcher``; Airflow 3.0 and later.

    .. code-block:: python

        orders_loaded = Asset("orders_loaded", watchers=[AssetWatcher(
            name="planasonix",
            trigger=PlanasonixEventTrigger(asset="orders_loaded", connection_id="conn_…", events=["job.succeeded"]),
        )])

    All watchers of an Airflow connection share one scan of the API's lists (reference: "List jobs", "List all
    backfills"), at the interval of the fastest. A new watcher starts with the work that has not ended yet. Work
    that ends while no triggerer runs is reported later. Airflow renders no templates here.

    :param connection_id: only work of this connection of Planasonix's; default any.
    :param pipeline_id: only jobs of this pipeline; default any. Backfills have none.
    :param events: event types, as ``["job.failed", "backfill.failed"]``; default ``job.succeeded`` and
        ``backfill.completed``. The set is open: a type that this version does not know logs a warning, and never comes.
    :param types: only jobs of these types, as ``["connection_sync"]``, and backfills by the type ``backfill``; default
        all, but for the jobs that backfills create, which come with ``types=["backfill"]``.
    :param metadata: only work with all of these pairs, as a mapping or as the text of a JSON object; default any.
    :param ignore_own: ``True`` skips work that operators of this package have started in any DAG; the id of a DAG, or a
        list of ids, skips what they have started there. A DAG that syncs what it watches needs its own id here, or it
        starts itself for ever. Default: nothing is skipped.
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
    :param poll_interval: the seconds between two polls, at least 0.5; default 30.
    :param asset: the name of the asset that has this watcher. A trigger cannot find that out, and Airflow runs one
        trigger for all watchers with equal arguments: if the DAGs of one of their assets are paused, what ends
        meanwhile is lost for that asset. Names must differ; default none, which logs a warning if two are equal.
    :raises ValueError: if a parameter is invalid.
    :raises AirflowException: on Airflow 2, which has no watchers.
    """

    def __init__(
        self,
        connection_id: str | None = None,
        pipeline_id: str | None = None,
        events: Iterable[str] | None = None,
        types: Iterable[str] | None = None,
        metadata: Mapping[str, Any] | str | None = None,
        ignore_own: bool | str | Iterable[str] = False,
        planasonix_conn_id: str = "planasonix_default",
        poll_interval: float = 30.0,
        asset: str | None = None,
    ) -> None:
        if not HAS_WATCHERS:
            raise AirflowException(
                "PlanasonixEventTrigger needs the asset watchers of Airflow 3.0 or later; this is Airflow "
                f"{version('apache-airflow')}. Let a PlanasonixSyncSensor wait here, or upgrade Airflow."
            )
        super().__init__()  # type: ignore[no-untyped-call]
        for name, value in {
            "connection_id": connection_id,
            "pipeline_id": pipeline_id,
            "metadata": metadata,
            "asset": asset,
        }.items():
            if is_templated(value):
                raise invalid_parameter(name, value, "what is known when the DAG is parsed: a watcher has no templates")
        self.connection_id = optional(identifier)("connection_id", connection_id)
        self.pipeline_id = optional(identifier)("pipeline_id", pipeline_id)
        self.events = sorted(DEFAULT_EVENTS if events is None else event_names("events", events))
        warn_of_unknown_events("events", self.events, END_EVENTS)
        self.types = optional(_names)("types", types)
        self.metadata = optional(_pairs)("metadata", metadata)
        self.ignore_own = _ignore_own("ignore_own", ignore_own)
        self.planasonix_conn_id = text("planasonix_conn_id", planasonix_conn_id)
        self.poll_interval = validators.poll_interval("poll_interval", poll_interval)
        self.asset = optional(text)("asset", asset)
        self._warn_of_an_equal_watcher()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments. Airflow runs one trigger for watchers that serialize equally."""
        # A JSON text, because the database of Airflow 3.1 returns a mapping in another form.
        metadata = None if self.metadata is None else json.dumps(self.metadata, sort_keys=True)
        filters = ("connection_id", "pipeline_id", "events", "types", "metadata", "ignore_own")
        names = (*filters, "planasonix_conn_id", "poll_interval", "asset")
        arguments = {name: getattr(self, name) for name in names} | {"metadata": metadata}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    def _warn_of_an_equal_watcher(self) -> None:
        """Compare with the other triggers of this process; the DAG processor parses each file in a new one."""
        if self.asset is not None:
            return
        arguments = self.serialize()[1]
        key = json.dumps(arguments)
        if key in _UNNAMED:
            shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items() if value)
            log.warning(
                "Two watchers are equal, which is fine only if they are of one asset (%s). %s",
                shown,
                EQUAL_WATCHERS_WARNING,
            )
        _UNNAMED[key] = self

    @property
    def event_filter(self) -> EventFilter:
        """Return what the asset gets events for."""
        return EventFilter(
            events=frozenset(self.events),
            connection_id=self.connection_id,
            pipeline_id=self.pipeline_id,
            types=None if self.types is None else frozenset(self.types),
            metadata=self.metadata or {},
            ignore_own=self.ignore_own if isinstance(self.ignore_own, bool) else frozenset(self.ignore_own),
        )

    # --- From Airflow 3.3 on, all triggers with the same key share one stream ---

    def shared_stream_key(self) -> Hashable | None:
        """Return the key of the stream: one for each Airflow connection."""
        return ("planasonix", self.planasonix_conn_id)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> CompletionStreamProducer:
        """Return the producer of the shared stream, from the arguments of any of its triggers."""
        return CompletionStreamProducer(kwargs["planasonix_conn_id"])

    async def filter_shared_stream(self, shared_stream: AsyncIterator[CompletionBatch]) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each job and backfill in the shared stream that matches this trigger's filter."""
        async for event in self._events(shared_stream):
            yield event

    # --- Before, each has its own, and this package shares the scans ---

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each job and backfill that ends, for ever."""
        conn_id = self.planasonix_conn_id
        broadcast = BROADCASTS.get(conn_id, lambda: Broadcast(partial(_stream_for, conn_id)))
        async with aclosing(broadcast.subscribe()) as batches:
            async for event in self._events(batches):
                yield event

    # --- All versions ---

    async def _events(self, batches: AsyncIterator[CompletionBatch]) -> AsyncIterator[TriggerEvent]:
        store = self._cursor_store()
        subscriber = Subscriber(self.event_filter, self.poll_interval, self.log.warning)
        with ExitStack() as registration:
            # Keep consuming while the cursor is read: the stream waits for every consumer.
            subscribing = asyncio.ensure_future(self._subscribe(registration, subscriber, store))
            registration.callback(subscribing.cancel)
            is_new: bool | None = None
            async for batch in batches:
                for payload in batch.by_subscriber.get(subscriber, ()):
                    yield TriggerEvent(payload)
                if batch.is_checkpoint and subscriber.needs_save:
                    is_new = subscribing.result() if is_new is None else is_new
                    is_new = not await self._save_cursor(subscriber, store, is_new=is_new) and is_new

    async def _subscribe(self, registration: ExitStack, subscriber: Subscriber, store: CursorStore) -> bool:
        """Restore the cursor, then subscribe. Return whether there was no cursor."""
        was_saved = await self._restore_cursor(subscriber, store)
        registry = REGISTRIES.get(self.planasonix_conn_id, SubscriberRegistry)
        registration.enter_context(registry.subscribed(subscriber))
        return not was_saved

    def _cursor_store(self) -> CursorStore:
        store = getattr(self, "asset_state_store", None)
        if store is None:
            return VariableCursorStore(self._filters if self.asset is None else [*self._filters, self.asset])
        # Each asset has a state of its own, so asset is not part of the key, and may be added to a running watcher.
        asset_store = AssetCursorStore(store, self._filters)
        if len(asset_store.names) > 1:
            names = ", ".join(repr(name) for name in sorted(asset_store.names))
            self.log.warning("The assets %s have equal watchers. %s", names, EQUAL_WATCHERS_WARNING)
        return asset_store

    @property
    def _filters(self) -> list[Any]:
        """Return the arguments that decide which cursor belongs to the watcher."""
        return [value for name, value in sorted(self.serialize()[1].items()) if name not in ("poll_interval", "asset")]

    async def _restore_cursor(self, subscriber: Subscriber, store: CursorStore) -> bool:
        """Read the cursor, until that succeeds: an unreadable cursor is not taken for a missing one."""
        while True:
            try:
                return self._restore(subscriber, await store.read())
            except Exception as error:
                subscriber.warn_once(
                    f"The cursor of this watcher cannot be read from Airflow yet, still trying: {error!r}"
                )
            await asyncio.sleep(READ_RETRY_SECONDS)

    def _restore(self, subscriber: Subscriber, saved: Sequence[Any]) -> bool:
        if error := subscriber.restore(saved):
            self.log.warning(
                "The cursor of this watcher cannot be read (%s): it is damaged, or of another version of "
                "airflow-provider-planasonix. Starting again with what was created since %s: some of it may be "
                "reported twice, and what was older and has ended while no triggerer ran is not reported.",
                error,
                format_time(subscriber.watermark),
            )
        return bool(saved)

    async def _save_cursor(self, subscriber: Subscriber, store: CursorStore, *, is_new: bool) -> bool:
        """Save the cursor at a checkpoint. Return whether a cursor exists now."""
        try:
            # If Airflow did not know the asset when this trigger started, its state was not known, either.
            if is_new and self._restore(subscriber, await store.read()):
                return True
            await store.write(subscriber.to_json())
        except Exception as error:
            subscriber.warn_once(
                "The cursor of this watcher cannot be saved yet, still trying; after a restart, events would be sent "
                f"again: {error!r}"
            )
            return False
        subscriber.mark_saved()
        return True


#: The triggers of this process without ``asset``, by their arguments.
_UNNAMED: WeakValueDictionary[str, PlanasonixEventTrigger] = WeakValueDictionary()


class CompletionStreamProducer(SharedStreamProducer):
    """Produces the shared stream of an Airflow connection; Airflow 3.3 and later."""

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id

    async def open_stream(self) -> AsyncIterator[tuple[CompletionBatch, CompletionBatch]]:
        """Yield each batch as event and as payload of :meth:`advance`.

        A batch comes only after Airflow has stored the events of the previous one.
        """
        async with aclosing(_stream_for(self._conn_id)) as batches:
            async for batch in batches:
                yield batch, batch

    async def advance(self, batch: Sequence[Any]) -> None:
        """Acknowledge what Airflow has stored. Airflow ends a trigger that failed; it restarts from its cursor."""
        for item in batch:
            item.broker_payload.acknowledged.set()


async def _stream_for(conn_id: str) -> AsyncGenerator[CompletionBatch]:
    """Yield the batches of an Airflow connection, all fetched with one client."""
    source = _ConnectionSource(conn_id)
    registry = REGISTRIES.get(conn_id, SubscriberRegistry)
    async with (
        SharedClient(source.connect) as client,
        aclosing(CompletionStream(client, registry, source.job_url).batches()) as batches,
    ):
        async for batch in batches:
            yield batch


class _ConnectionSource:
    """Creates the client of an Airflow connection, and the URLs of its jobs."""

    def __init__(self, conn_id: str) -> None:
        self._hook = PlanasonixHook(conn_id)
        self._settings: ConnectionSettings | None = None

    async def connect(self) -> AsyncClient:
        """Read the Airflow connection, and return a client."""
        self._settings = await self._hook.async_settings()
        return AsyncClient(self._settings.client_config)

    def job_url(self, job_id: str) -> str:
        """Return the URL of a job's page; only after :meth:`connect`."""
        assert self._settings is not None  # noqa: S101 - jobs come from a client
        return self._settings.job_url(job_id)


def _names(name: str, value: Any) -> list[str]:
    is_list = isinstance(value, (list, tuple, set, frozenset)) and value
    if not is_list or not all(isinstance(item, str) and item.strip() for item in value):
        raise invalid_parameter(name, value, "a list of texts that are not empty")
    return sorted(set(value))


def _pairs(name: str, value: Any) -> dict[str, Any]:
    """Validate metadata: a mapping, or the JSON text that ``serialize`` has made of it."""
    given = value
    if isinstance(value, str):
        try:
            given = json.loads(value)
        except ValueError:
            given = None
    if not isinstance(given, Mapping) or not given:
        raise invalid_parameter(name, value, "a mapping that is not empty, or a JSON object as text")
    return validators.metadata(name, given)


def _ignore_own(name: str, value: Any) -> bool | list[str]:
    if isinstance(value, bool):
        return value
    try:
        return _names(name, [value] if isinstance(value, str) else value)
    except ValueError:
        raise invalid_parameter(name, value, "True, False, the id of a DAG, or a list of such ids") from None
