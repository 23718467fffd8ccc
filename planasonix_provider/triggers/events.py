"""Watches for the ends of jobs and backfills, whoever started them, and starts DAGs by what an asset hears of it."""

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

#: Whether this Airflow has asset watchers; where it has none, their base is that of all triggers.
HAS_WATCHERS = BaseEventTrigger is not BaseTrigger
#: What a watcher is told of by itself: what was loaded.
DEFAULT_EVENTS = ("backfill.completed", "job.succeeded")
#: After how many seconds a cursor that cannot be read is asked for again.
READ_AGAIN_AFTER = 5.0
#: The warning about watchers that Airflow cannot tell apart.
EQUAL_WATCHERS = (
    "Airflow runs one trigger for equal watchers. If the DAGs of one asset are paused, its trigger goes on for the "
    "others, and jobs that end by then never reach the paused one. Give each PlanasonixEventTrigger the name of its "
    "asset: asset='orders_loaded'."
)


class PlanasonixEventTrigger(BaseEventTrigger):
    """Tells an asset of each job and backfill that ends, for an ``AssetWatcher``; Airflow 3.0 and later.

    .. code-block:: python

        orders_loaded = Asset("orders_loaded", watchers=[AssetWatcher(
            name="planasonix",
            trigger=PlanasonixEventTrigger(asset="orders_loaded", connection_id="conn_…", events=["job.succeeded"]),
        )])

    All watchers of an Airflow connection share one look at the API's lists (reference: "List jobs", "List all
    backfills"), at the pace of the fastest. A new watcher begins with what has not ended yet. What ends while no
    triggerer runs is told when one does. Airflow renders no templates here.

    :param connection_id: only what loads from this connection of Planasonix's; default any.
    :param pipeline_id: only jobs of this pipeline; default any. Backfills have none.
    :param events: the ends, as ``["job.failed", "backfill.failed"]``; default ``job.succeeded`` and
        ``backfill.completed``. The set is open: one that this version does not know is a warning, and never comes.
    :param types: only jobs of these types, as ``["connection_sync"]``, and backfills by the type ``backfill``; default
        all, but for the jobs that backfills are made of, which come with ``types=["backfill"]``.
    :param metadata: only what was started with all of these pairs, as a mapping or as the text of a JSON object;
        default any.
    :param ignore_own: whether to pass over what operators of this package have started, in whatever DAG; or only what
        they have started in a DAG, or in several, by id. A DAG that syncs what it watches needs its own id here, or it
        starts itself for ever. Default: everything counts.
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
    :param poll_interval: the seconds between two polls, at least 0.5; default 30.
    :param asset: the name of the asset that has this watcher. A trigger cannot find that out, and Airflow runs one
        trigger for all watchers with equal arguments: if the DAGs of one of their assets are paused, what ends
        meanwhile is lost for that asset. Names must differ; default none, which logs a warning if two are equal.
    :raises ValueError: if a parameter makes no sense.
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
        self.ignore_own = _own("ignore_own", ignore_own)
        self.planasonix_conn_id = text("planasonix_conn_id", planasonix_conn_id)
        self.poll_interval = validators.poll_interval("poll_interval", poll_interval)
        self.asset = optional(text)("asset", asset)
        self._warn_of_an_equal_watcher()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Say how to make this trigger again; what is equal is one trigger for Airflow.

        :return: the class's path, and its arguments as JSON types.
        """
        # A mapping comes out otherwise than it went into the database of Airflow 3.1.
        metadata = None if self.metadata is None else json.dumps(self.metadata, sort_keys=True)
        filters = {name: getattr(self, name) for name in ("connection_id", "pipeline_id", "events", "types")}
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            filters
            | {
                "metadata": metadata,
                "ignore_own": self.ignore_own,
                "planasonix_conn_id": self.planasonix_conn_id,
                "poll_interval": self.poll_interval,
                "asset": self.asset,
            },
        )

    def _warn_of_an_equal_watcher(self) -> None:
        """Compare with the other triggers of this process; the DAG processor parses each file in a new one."""
        if self.asset is not None:
            return
        arguments = self.serialize()[1]
        key = json.dumps(arguments)
        if key in _NAMELESS:
            shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items() if value)
            log.warning(
                "Two watchers are equal, which is fine only if they are of one asset (%s). %s", shown, EQUAL_WATCHERS
            )
        _NAMELESS[key] = self

    @property
    def wanted(self) -> EventFilter:
        """What the asset is to be told of."""
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
        """Say with whom to share the looks: with all who use the Airflow connection.

        :return: the key.
        """
        return ("planasonix", self.planasonix_conn_id)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> CompletionStreamProducer:
        """Make what looks for all of them, and is told when Airflow has stored what came of it.

        :param kwargs: the arguments of one of them.
        :return: the producer.
        """
        return CompletionStreamProducer(kwargs["planasonix_conn_id"])

    async def filter_shared_stream(self, shared_stream: AsyncIterator[CompletionBatch]) -> AsyncIterator[TriggerEvent]:
        """Take out of the shared news what this trigger's assets are to be told of.

        :param shared_stream: the news.
        :return: an event for each end.
        """
        async for event in self._events(shared_stream):
            yield event

    # --- Before, each has its own, and this package shares the looks ---

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch for ever.

        :return: an event for each end.
        """
        broadcast = BROADCASTS.get(self.planasonix_conn_id, lambda: Broadcast(partial(_news, self.planasonix_conn_id)))
        async with aclosing(broadcast.listen()) as news:
            async for event in self._events(news):
                yield event

    # --- Alike on all ---

    async def _events(self, all_news: AsyncIterator[CompletionBatch]) -> AsyncIterator[TriggerEvent]:
        cursor = self._cursor()
        listener = Subscriber(self.wanted, self.poll_interval, self.log.warning)
        with ExitStack() as place:
            # Meanwhile it lets the news of others pass: those wait until all who listen have done so.
            joining = asyncio.ensure_future(self._join(place, listener, cursor))
            place.callback(joining.cancel)
            is_new: bool | None = None
            async for news in all_news:
                for payload in news.by_subscriber.get(listener, ()):
                    yield TriggerEvent(payload)
                if news.is_checkpoint and listener.needs_save:
                    is_new = joining.result() if is_new is None else is_new
                    is_new = not await self._keep(listener, cursor, is_new=is_new) and is_new

    async def _join(self, place: ExitStack, listener: Subscriber, cursor: CursorStore) -> bool:
        """Be among those who are told, once it is known what was told before; say whether nothing was."""
        was_kept = await self._go_on(listener, cursor)
        place.enter_context(REGISTRIES.get(self.planasonix_conn_id, SubscriberRegistry).subscribed(listener))
        return not was_kept

    def _cursor(self) -> CursorStore:
        store = getattr(self, "asset_state_store", None)
        if store is None:
            return VariableCursorStore(self._filters if self.asset is None else [*self._filters, self.asset])
        # Each asset has a state of its own, so its name is not needed, and may be added to a watcher that runs.
        cursor = AssetCursorStore(store, self._filters)
        if len(cursor.names) > 1:
            names = ", ".join(repr(name) for name in sorted(cursor.names))
            self.log.warning("The assets %s have equal watchers. %s", names, EQUAL_WATCHERS)
        return cursor

    @property
    def _filters(self) -> list[Any]:
        """The arguments that decide which cursor belongs to the watcher."""
        return [value for name, value in sorted(self.serialize()[1].items()) if name not in ("poll_interval", "asset")]

    async def _go_on(self, listener: Subscriber, cursor: CursorStore) -> bool:
        """Go on from where another process was; a cursor that cannot be read is not taken for none."""
        while True:
            try:
                return self._take_over(listener, await cursor.read())
            except Exception as error:
                listener.warn_once(f"What was told before cannot be read from Airflow yet, still trying: {error!r}")
            await asyncio.sleep(READ_AGAIN_AFTER)

    def _take_over(self, listener: Subscriber, kept: Sequence[Any]) -> bool:
        for trouble in listener.restore(kept):
            self.log.warning(
                "What was told before cannot be read (%s): it is damaged, or of another version of "
                "airflow-provider-planasonix. Starting anew with what was created since %s: some of it may be told "
                "twice, and what was older and has ended while no triggerer ran is not told.",
                trouble,
                format_time(listener.since),
            )
        return bool(kept)

    async def _keep(self, listener: Subscriber, cursor: CursorStore, *, is_new: bool) -> bool:
        """Keep the cursor: all that was told before is in Airflow's database by now."""
        try:
            # Where the asset was not known when this trigger began, its state was not, either.
            if is_new and self._take_over(listener, await cursor.read()):
                return True
            await cursor.write(listener.cursor())
        except Exception as error:
            listener.warn_once(
                "What was told cannot be written down yet, still trying; after a restart it would be told again: "
                f"{error!r}"
            )
            return False
        listener.mark_saved()
        return True


#: The triggers of this process that do not name their asset, by their arguments.
_NAMELESS: WeakValueDictionary[str, PlanasonixEventTrigger] = WeakValueDictionary()


class CompletionStreamProducer(SharedStreamProducer):
    """Looks for all triggers of a shared stream; Airflow 3.3 and later.

    :param conn_id: the Airflow connection.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id

    async def open_stream(self) -> AsyncIterator[tuple[CompletionBatch, CompletionBatch]]:
        """Look for ever. No news are told before Airflow has stored what came of the ones before.

        :return: the news, and what :meth:`advance` is told of them by.
        """
        async with aclosing(_news(self._conn_id)) as all_news:
            async for news in all_news:
                yield news, news

    async def advance(self, batch: Sequence[Any]) -> None:
        """Take note of what Airflow has stored. Who has failed to do so is ended, and goes on from its cursor.

        :param batch: the news.
        """
        for item in batch:
            item.broker_payload.acknowledged.set()


async def _news(conn_id: str) -> AsyncGenerator[CompletionBatch]:
    """Look at what has ended, over an Airflow connection, with one client."""
    way = _ConnectionSource(conn_id)
    async with (
        SharedClient(way.connect) as channel,
        aclosing(
            CompletionStream(channel, REGISTRIES.get(conn_id, SubscriberRegistry), way.job_url).news()
        ) as all_news,
    ):
        async for news in all_news:
            yield news


class _ConnectionSource:
    """The way to the API of an Airflow connection, and to its web app.

    :param conn_id: the Airflow connection.
    """

    def __init__(self, conn_id: str) -> None:
        self._hook = PlanasonixHook(conn_id)
        self._settings: ConnectionSettings | None = None

    async def connect(self) -> AsyncClient:
        """Read the Airflow connection, and make a client."""
        self._settings = await self._hook.async_settings()
        return AsyncClient(self._settings.client_config)

    def job_url(self, job_id: str) -> str:
        """Give the address of a job's page; it is known once there was an answer."""
        assert self._settings is not None  # noqa: S101 - whoever asks has one
        return self._settings.job_url(job_id)


def _names(name: str, value: Any) -> list[str]:
    is_list = isinstance(value, (list, tuple, set, frozenset)) and value
    if not is_list or not all(isinstance(item, str) and item.strip() for item in value):
        raise invalid_parameter(name, value, "a list of texts that are not empty")
    return sorted(set(value))


def _pairs(name: str, value: Any) -> dict[str, Any]:
    """Check metadata, which comes back from Airflow's database as text."""
    given = value
    if isinstance(value, str):
        try:
            given = json.loads(value)
        except ValueError:
            given = None
    if not isinstance(given, Mapping) or not given:
        raise invalid_parameter(name, value, "a mapping that is not empty, or a JSON object as text")
    return validators.metadata(name, given)


def _own(name: str, value: Any) -> bool | list[str]:
    if isinstance(value, bool):
        return value
    try:
        return _names(name, [value] if isinstance(value, str) else value)
    except ValueError:
        raise invalid_parameter(name, value, "True, False, the id of a DAG, or a list of such ids") from None
