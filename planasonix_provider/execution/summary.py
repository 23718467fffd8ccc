"""A task's knowledge about its work besides the result, for OpenLineage and for exceptions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from planasonix_provider.api.errors import PlanasonixError, add_details
from planasonix_provider.waiting.report import LoadedTable, details_of
from planasonix_provider.waiting.result import WorkResult
from planasonix_provider.waiting.targets import Work


@dataclass
class ExecutionSummary:
    """The knowledge of one process of the task. It is not stored."""

    #: ``job`` or ``backfill``.
    kind: str
    #: The connection that the work loads. The DAG may name another one if it was edited while the task was deferred,
    #: or between two tries.
    connection_id: str
    #: Set as soon as the work exists.
    id: str | None = None
    #: The API's host, by which OpenLineage names data sets.
    host: str | None = None
    #: The last snapshot of the work.
    work: Work | None = None
    #: The work's page in Planasonix.
    url: str | None = None
    #: The loaded tables, each one once; ``None`` if they are not known, as before the end or after a failure.
    tables: tuple[LoadedTable, ...] | None = None
    #: The partitions for which asset events are sent.
    partition_keys: tuple[str, ...] = ()
    #: Planasonix's reason why the task failed.
    error: PlanasonixError | None = None

    def set_result(self, result: WorkResult) -> None:
        """Store the result of work that is over."""
        self.work, self.url = result.work, result.url
        # The event of a backfill has no connection, unlike the backfill that was fetched with its results.
        self.connection_id = result.work.connection_id or self.connection_id
        self.tables = None if result.error else result.tables

    @contextmanager
    def record_errors(self) -> Iterator[None]:
        """Store the error that ends the block, if Planasonix is the reason."""
        try:
            yield
        except PlanasonixError as error:
            self.error = error
            raise

    @contextmanager
    def details_on_exceptions(self) -> Iterator[None]:
        """Set the work's ids on each exception that ends the task: Airflow hands it to callbacks."""
        try:
            yield
        except BaseException as exception:
            add_details(exception, **self._details())
            raise

    def _details(self) -> dict[str, str | None]:
        details = details_of(self.work) if self.work else {}
        id_name = "job_id" if self.kind == "job" else "backfill_id"
        return details | {id_name: self.id, "job_url": self.url, "connection_id": self.connection_id}
