"""What a task has found out of its work, for whatever is told of it besides the task's result."""

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
    """What this process of the task knows by now. It ends with the process: nothing stores or renders it.

    :param kind: what was started: a ``job`` or a ``backfill``.
    :param connection_id: the connection that the work loads. The DAG names another one if it was edited while the task
        was deferred, or between two tries.
    :param id: its id, from the moment that it is known.
    :param host: the API's host, as data sets are named after it.
    :param work: the job or backfill as it was last seen; whole once it is accounted for.
    :param url: the page that tells more, where there is one.
    :param tables: what was loaded, each table once; ``None`` where nobody knows, as before the end and of what failed.
    :param error: why the task fails, where Planasonix is the reason.
    """

    kind: str
    connection_id: str
    id: str | None = None
    host: str | None = None
    work: Work | None = None
    url: str | None = None
    tables: tuple[LoadedTable, ...] | None = None
    error: PlanasonixError | None = None

    def take(self, account: WorkResult) -> None:
        """Take in the account of the work.

        :param account: what came of it.
        """
        self.work, self.url = account.work, account.url
        self.connection_id = account.work.connection_id or self.connection_id
        self.tables = None if account.error else account.tables

    @contextmanager
    def for_errors(self) -> Iterator[None]:
        """Take in the error that the task's work ends with.

        :raises PlanasonixError: the same, as it came.
        """
        try:
            yield
        except PlanasonixError as error:
            self.error = error
            raise

    @contextmanager
    def on_exceptions(self) -> Iterator[None]:
        """Set the work's attributes on each exception that ends the task, for the callbacks that get it from Airflow.

        :raises BaseException: the same, as it came.
        """
        try:
            yield
        except BaseException as exception:
            add_details(exception, **self._details())
            raise

    def _details(self) -> dict[str, str | None]:
        known = {"job_id" if self.kind == "job" else "backfill_id": self.id}
        if self.work:
            known = details_of(self.work) | known
        return known | {"job_url": self.url, "connection_id": self.connection_id}
