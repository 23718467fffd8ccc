"""Sends asset events for the tables that a task has loaded: for those outlets that the results name, and no others.

When a task has succeeded, Airflow sends an event for each asset among its outlets, even if nothing was loaded. It reads
the outlets after ``execute``, in the same process, from the operator that was executed: a copy of the DAG's task that
lives as long as the try. So this module removes the other outlets from that copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, AssetAlias
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS

from planasonix_provider.airflow_compat import NO_PARTITIONS_WARNING, has_partitions
from planasonix_provider.api.models import Backfill
from planasonix_provider.assets.planasonix import SCHEME, PlanasonixTable
from planasonix_provider.execution.options import AirflowTask, StartOptions
from planasonix_provider.waiting.formatting import pluralize
from planasonix_provider.waiting.report import MAX_NAMED, LoadedTable, first_job_of
from planasonix_provider.waiting.result import WorkResult

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

try:
    from airflow.sdk.definitions.asset import AssetNameRef, AssetUriRef
except ImportError:
    # Airflow 2.11 has no references to assets among outlets.
    _REFERENCES: tuple[type, ...] = ()
else:
    _REFERENCES = (AssetNameRef, AssetUriRef)

#: Airflow 3.0 fails a task whose event through an alias has a nested value in its extra.
_HAS_FLAT_ALIAS_EXTRA = AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS


def emit_table_events(
    options: StartOptions, task: AirflowTask, context: Context, result: WorkResult, host: str, connection_id: str
) -> None:
    """Send an event for each loaded table among the outlets, or through an alias for every loaded table.

    :param host: the host of the API, as in an asset's URI.
    :param connection_id: the connection of the work; the DAG may name another one by now.
    """
    outlets = _TaskOutlets(task, context)
    if outlets.tables or outlets.aliases:
        loaded = {table.name: table for table in result.tables}
        _AssetEventEmitter(outlets, options, task.log, context, result, host, connection_id, loaded).emit()


def suppress_table_events(task: AirflowTask, context: Context) -> None:
    """Send no event for any table, because the task ends before anything is loaded."""
    outlets = _TaskOutlets(task, context)
    if outlets.tables or outlets.aliases:
        outlets.keep()
        task.log.info("No asset events: with wait_for_completion=False the task ends before the tables are loaded.")


@dataclass(frozen=True)
class _TableOutlet:
    """An outlet that stands for a table.

    :param asset: the asset, or the reference to one, as the DAG has it.
    :param table: the table; ``None`` if the URI is not that of a table, which Airflow 2.11 accepts with a warning.
    """

    asset: Any
    uri: str
    table: PlanasonixTable | None

    @property
    def name(self) -> str:
        """The name of the table for the log."""
        return self.table.table if self.table else self.uri


class _TaskOutlets:
    def __init__(self, task: AirflowTask, context: Context) -> None:
        self._task = task
        self.tables: list[_TableOutlet] = []
        self._others: list[Any] = []
        for asset in task.outlets:
            uri = _uri_of(asset, context)
            if uri.lower().startswith(f"{SCHEME}:"):
                self.tables.append(_TableOutlet(asset, uri, _table_of(uri)))
            else:
                self._others.append(asset)

    @property
    def aliases(self) -> list[AssetAlias]:
        """The outlets through which the task can send events for any asset."""
        return [outlet for outlet in self._others if isinstance(outlet, AssetAlias)]

    def keep(self, *tables: _TableOutlet) -> None:
        """Remove the other tables from the outlets. This sets a new list, because the DAG's task shares the old one."""
        self._task.outlets = [*self._others, *(outlet.asset for outlet in tables)]


@dataclass
class _AssetEventEmitter:
    outlets: _TaskOutlets
    options: StartOptions
    log: Any
    context: Any
    result: WorkResult
    host: str
    connection_id: str
    #: The loaded tables by their names.
    loaded: Mapping[str, LoadedTable]

    def emit(self) -> None:
        """Send one event per table, and log which, and why not for the others."""
        outlets, aliases = self._loaded_outlets(), self.outlets.aliases
        keys = self._partition_keys()
        if aliases:
            # An event through an alias also starts the DAGs that wait for the asset itself. An event of the asset's own
            # would start them a second time.
            self.outlets.keep()
            sent = [table.name for table in self.loaded.values() if self._emit_through(aliases, table, outlets)]
        else:
            self.outlets.keep(*outlets)
            sent = [outlet.name for outlet in outlets]
            for outlet in outlets:
                event = self.context["outlet_events"][outlet.asset]
                event.extra.update(self._extra(self.loaded[outlet.name]))
                if keys:
                    event.add_partitions(keys)
        if sent:
            through = f" through {_list_names([alias.name for alias in aliases])}" if aliases else ""
            self.log.info("%s%s: %s.", pluralize(len(sent), "asset event"), through, _list_names(sent))
            if keys:
                self.log.info(
                    "Each is sent for %d partitions, and starts only DAGs whose schedule is partitioned: %s.",
                    len(keys),
                    _list_names(keys),
                )

    def _partition_keys(self) -> list[str]:
        """Return the keys of the partitions; none before Airflow 3.3, which has no asset partitions."""
        keys = list(self.options.partition_keys)
        if keys and not has_partitions():
            self.log.warning(NO_PARTITIONS_WARNING)
            return []
        return keys

    def _loaded_outlets(self) -> list[_TableOutlet]:
        """Return the outlets whose tables were loaded, and log why the others get no event."""
        loaded: list[_TableOutlet] = []
        skipped: dict[tuple[bool, str], list[str]] = {}
        for outlet in self.outlets.tables:
            if reason := self._skip_reason(outlet.table):
                skipped.setdefault(reason, []).append(outlet.name)
            else:
                loaded.append(outlet)
        for (is_mistake, reason_text), names in skipped.items():
            log = self.log.warning if is_mistake else self.log.info
            log("No asset event for %s: %s.", _list_names(names), reason_text)
        return loaded

    def _skip_reason(self, table: PlanasonixTable | None) -> tuple[bool, str] | None:
        """Return why an outlet gets no event, and whether that looks like a mistake; ``None`` if it gets one."""
        if table is None:
            return True, "its URI is not that of a table, which planasonix_asset() writes"
        if table.host != self.host:
            return True, (
                f"its host is {table.host}, and the Airflow connection {self.options.planasonix_conn_id!r} leads to "
                f"{self.host}. Say planasonix_asset(…, host={self.host!r}) if that is the one"
            )
        if table.connection_id != self.connection_id:
            # Mapped tasks, each with its own connection, share all their outlets.
            return (
                self.context["ti"].map_index in (None, -1),
                f"connection {table.connection_id} loads it, and this task loads connection {self.connection_id}",
            )
        if not (loaded := self.loaded.get(table.table)):
            likely = sorted(name for name in self.loaded if name.casefold() == table.table.casefold())
            instead = f", but {_list_names(likely)}: write it as Planasonix does" if likely else ""
            return bool(likely), f"the results do not name it{instead}"
        return (False, "it got no rows") if self._is_ignored(loaded) else None

    def _is_ignored(self, table: LoadedTable) -> bool:
        return self.options.ignore_empty_tables and table.rows_loaded == 0

    def _emit_through(self, aliases: list[AssetAlias], table: LoadedTable, outlets: Iterable[_TableOutlet]) -> bool:
        """Send an event through aliases: for the asset among the outlets, or else for one that has only the URI."""
        if self._is_ignored(table):
            return False
        assets = [outlet.asset for outlet in outlets if outlet.name == table.name]
        try:
            assets = assets or [Asset(uri=PlanasonixTable(self.host, self.connection_id, table.name).uri)]
        except ValueError as error:
            self.log.warning("No asset event for a table that cannot be an asset. %s", error)
            return False
        extra = self._extra(table)
        if _HAS_FLAT_ALIAS_EXTRA:
            extra |= {f"window_{end}": time for end, time in extra.pop("window").items()}
        for alias in aliases:
            for asset in assets:
                self.context["outlet_events"][alias].add(asset, extra=extra.copy())
        return True

    def _extra(self, table: LoadedTable) -> dict[str, Any]:
        work = self.result.work
        is_backfill = isinstance(work, Backfill)
        start_at, end_at = ("start_at", "end_at") if is_backfill else ("started_at", "finished_at")
        times = work.model_dump(mode="json", include={start_at, end_at})
        return {
            "job_id": first_job_of(work),
            **({"backfill_id": work.id} if is_backfill else {}),
            "connection_id": self.connection_id,
            "table": table.name,
            "rows_loaded": table.rows_loaded,
            "checksum": table.checksum,
            "window": _HashableDict(start_at=times.get(start_at), end_at=times.get(end_at)),
            "job_url": self.result.url,
        }


class _HashableDict(dict[str, Any]):
    """Airflow 2.11 accepts only hashable values in the extra of an alias' event."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def _uri_of(outlet: Any, context: Context) -> str:
    """Return the URI of an asset or of a reference to one; an empty string for everything else."""
    if isinstance(outlet, Asset):
        return str(outlet.uri)
    if not isinstance(outlet, _REFERENCES) or not getattr(outlet, "uri", SCHEME).startswith(SCHEME):
        return ""
    try:
        events: Any = context["outlet_events"]
        return str(events[outlet].key.uri)
    except Exception:
        # Airflow knows no such asset. It sends no event and logs that itself.
        return ""


def _table_of(uri: str) -> PlanasonixTable | None:
    try:
        return PlanasonixTable.from_uri(uri)
    except ValueError:
        return None


def _list_names(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
