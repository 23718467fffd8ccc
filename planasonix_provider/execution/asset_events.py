"""Asset events for the tables that a task has loaded: for those of its outlets which the results name, and no others.

Airflow sends an event for each asset among a task's outlets when the task has succeeded, whatever was loaded. It reads
the outlets after ``execute``, in the same process, from the object that was executed: a copy of the DAG's task that
lives as long as the try. So an outlet that nothing is to be told of is taken from that copy, and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, AssetAlias
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS

from planasonix_provider.api.models import Backfill
from planasonix_provider.assets.planasonix import SCHEME, PlanasonixTable
from planasonix_provider.waiting.formatting import pluralize
from planasonix_provider.waiting.report import LoadedTable, first_job_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.operators.base import PlanasonixStartOperator
    from planasonix_provider.waiting.result import WorkResult

try:
    from airflow.sdk.definitions.asset import AssetNameRef, AssetUriRef
except ImportError:
    # Airflow 2.11 has no outlets that only refer to an asset.
    _REFERENCES: tuple[type, ...] = ()
else:
    _REFERENCES = (AssetNameRef, AssetUriRef)

#: Airflow 3.0 fails a task whose event through an alias has an extra with anything in it that has parts of its own.
_IS_FLAT_THROUGH_ALIASES = AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS

#: How many tables a line of the log names.
MOST_NAMED = 10


def emit_table_events(
    operator: PlanasonixStartOperator, context: Context, account: WorkResult, host: str, connection_id: str
) -> None:
    """Let Airflow send an event for each table that was loaded and that is among the outlets; none for the others.

    :param operator: the task, in the process that ends it.
    :param context: its context, from Airflow.
    :param account: what it has loaded.
    :param host: the host of the API, as assets have it.
    :param connection_id: the connection of the work; the DAG may name another one by now.
    """
    outlets = _TaskOutlets(operator, context)
    if outlets.ours or outlets.aliases:
        _AssetEventEmitter(outlets, context, account, host, connection_id).tell()


def suppress_table_events(operator: PlanasonixStartOperator, context: Context) -> None:
    """Let Airflow send no event for any table: the task ends, and nothing is loaded yet.

    :param operator: the task, in the process that ends it.
    :param context: its context, from Airflow.
    """
    outlets = _TaskOutlets(operator, context)
    if outlets.ours or outlets.aliases:
        outlets.keep()
        operator.log.info("No asset events: with wait_for_completion=False the task ends before the tables are loaded.")


@dataclass(frozen=True)
class _TableOutlet:
    """An outlet that stands for a table of Planasonix's.

    :param asset: the asset, or the reference to one, as the DAG has it.
    :param uri: its URI.
    :param table: the table; ``None`` where the URI is none of a table, which Airflow 2.11 lets pass with a warning.
    """

    asset: Any
    uri: str
    table: PlanasonixTable | None

    @property
    def name(self) -> str:
        """What to call it in the log."""
        return self.table.table if self.table else self.uri


class _TaskOutlets:
    """The outlets of the task that this process runs: those that stand for tables of Planasonix's, and the others.

    :param operator: the task.
    :param context: its context.
    """

    def __init__(self, operator: PlanasonixStartOperator, context: Context) -> None:
        self.operator = operator
        self.ours: list[_TableOutlet] = []
        self._others: list[Any] = []
        for asset in operator.outlets:
            uri = _uri_of(asset, context)
            if uri.lower().startswith(f"{SCHEME}:"):
                self.ours.append(_TableOutlet(asset, uri, _table_of(uri)))
            else:
                self._others.append(asset)

    @property
    def aliases(self) -> list[AssetAlias]:
        """Those that stand for assets which only the task knows."""
        return [outlet for outlet in self._others if isinstance(outlet, AssetAlias)]

    def keep(self, *ours: _TableOutlet) -> None:
        """Let Airflow send an event for some of ours only. A new list, for the DAG's task shares the old one.

        :param ours: these.
        """
        self.operator.outlets = [*self._others, *(outlet.asset for outlet in ours)]


class _AssetEventEmitter:
    """What is told of the tables that a task has loaded.

    :param outlets: the task's outlets.
    :param context: its context.
    :param account: what it has loaded.
    :param host: the host of the API.
    :param connection_id: the connection of the work.
    """

    def __init__(
        self, outlets: _TaskOutlets, context: Context, account: WorkResult, host: str, connection_id: str
    ) -> None:
        self._outlets, self._account, self._host = outlets, account, host
        self._connection_id = connection_id
        self._operator = outlets.operator
        self._log = self._operator.log
        self._events: Any = context["outlet_events"]
        self._is_mapped = context["ti"].map_index not in (None, -1)
        self._tables = {table.name: table for table in account.tables}

    def tell(self) -> None:
        """Tell of each table once, and say in the log of which, and why not of the others."""
        meant = self._meant()
        aliases = self._outlets.aliases
        if aliases:
            # What comes through an alias starts the DAGs that wait for the asset itself, too: an event beside it would
            # start them a second time.
            self._outlets.keep()
            told = [table.name for table in self._tables.values() if self._tell_through(aliases, table, meant)]
        else:
            self._outlets.keep(*meant)
            told = [outlet.name for outlet in meant]
            for outlet in meant:
                self._events[outlet.asset].extra.update(self._extra(self._tables[outlet.name]))
        if told:
            through = f" through {_named([alias.name for alias in aliases])}" if aliases else ""
            self._log.info("%s%s: %s.", pluralize(len(told), "asset event"), through, _named(told))

    def _meant(self) -> list[_TableOutlet]:
        """Give the outlets whose tables were loaded, and say why nothing is told of the others."""
        meant: list[_TableOutlet] = []
        left: dict[tuple[bool, str], list[str]] = {}
        for outlet in self._outlets.ours:
            if reason := self._why_not(outlet.table):
                left.setdefault(reason, []).append(outlet.name)
            else:
                meant.append(outlet)
        for (is_mistake, why), names in left.items():
            say = self._log.warning if is_mistake else self._log.info
            say("No asset event for %s: %s.", _named(names), why)
        return meant

    def _why_not(self, table: PlanasonixTable | None) -> tuple[bool, str] | None:
        """Say whether there is nothing to tell of an outlet: whether that looks like a mistake, and why."""
        if table is None:
            return True, "its URI is not that of a table, which planasonix_asset() writes"
        if table.host != self._host:
            return True, (
                f"its host is {table.host}, and the Airflow connection {self._operator.planasonix_conn_id!r} leads to "
                f"{self._host}. Say planasonix_asset(…, host={self._host!r}) if that is the one"
            )
        if table.connection_id != self._connection_id:
            # Mapped tasks, each with a connection of its own, share all their outlets.
            return (
                not self._is_mapped,
                f"connection {table.connection_id} loads it, and this task loads connection {self._connection_id}",
            )
        if not (loaded := self._tables.get(table.table)):
            likely = sorted(name for name in self._tables if name.casefold() == table.table.casefold())
            instead = f", but {_named(likely)}: write it as Planasonix does" if likely else ""
            return bool(likely), f"the results do not name it{instead}"
        return (False, "it got no rows") if self._is_ignored(loaded) else None

    def _is_ignored(self, table: LoadedTable) -> bool:
        return self._operator.ignore_empty_tables and table.rows_loaded == 0

    def _tell_through(self, aliases: list[AssetAlias], table: LoadedTable, meant: Iterable[_TableOutlet]) -> bool:
        """Tell of a table through aliases: as the asset that is among the outlets, or else by its URI alone."""
        if self._is_ignored(table):
            return False
        assets = [outlet.asset for outlet in meant if outlet.name == table.name]
        try:
            assets = assets or [Asset(uri=PlanasonixTable(self._host, self._connection_id, table.name).uri)]
        except ValueError as refusal:
            self._log.warning("No asset event for a table that cannot be an asset. %s", refusal)
            return False
        extra = self._extra(table)
        if _IS_FLAT_THROUGH_ALIASES:
            extra |= {f"window_{end}": time for end, time in extra.pop("window").items()}
        for alias in aliases:
            for asset in assets:
                self._events[alias].add(asset, extra=extra.copy())
        return True

    def _extra(self, table: LoadedTable) -> dict[str, Any]:
        """Say what there is to know of a table that was loaded, for the DAGs that start by it."""
        work = self._account.work
        is_backfill = isinstance(work, Backfill)
        start_at, end_at = ("start_at", "end_at") if is_backfill else ("started_at", "finished_at")
        times = work.model_dump(mode="json", include={start_at, end_at})
        return {
            "job_id": first_job_of(work),
            **({"backfill_id": work.id} if is_backfill else {}),
            "connection_id": self._connection_id,
            "table": table.name,
            "rows_loaded": table.rows_loaded,
            "checksum": table.checksum,
            "window": _HashableDict(start_at=times.get(start_at), end_at=times.get(end_at)),
            "job_url": self._account.url,
        }


class _HashableDict(dict[str, Any]):
    """A stretch of time as JSON has it. Airflow 2.11 takes only what can be hashed as extra of an alias' event."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def _uri_of(outlet: Any, context: Context) -> str:
    """Give the URI of an asset, or of the one that a reference is to; an empty text for whatever has none."""
    if isinstance(outlet, Asset):
        return str(outlet.uri)
    if not isinstance(outlet, _REFERENCES) or not getattr(outlet, "uri", SCHEME).startswith(SCHEME):
        return ""
    try:
        events: Any = context["outlet_events"]
        return str(events[outlet].key.uri)
    except Exception:
        # Airflow knows no such asset, sends no event for it, and says so itself.
        return ""


def _table_of(uri: str) -> PlanasonixTable | None:
    try:
        return PlanasonixTable.from_uri(uri)
    except ValueError:
        return None


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
