"""Reports what a sync or a backfill has read and written to OpenLineage.

Airflow's OpenLineage provider asks for it when a task is over. This module is imported only then, so other users do not
need OpenLineage.

A data set is a table of a Planasonix connection. The API names tables, but not the databases that it reads from and
writes to. So both sides are named after the connection, in the namespace of the API's host,
``planasonix://api.planasonix.com``:

- ``connections/{connection_id}/tables/{table}`` is the table that Planasonix writes; the asset of this table is the
  same data set;
- ``connections/{connection_id}/source/{table}`` is the table that Planasonix reads.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.openlineage.facet import (
    ErrorMessageRunFacet,
    ExternalQueryRunFacet,
    InputDataset,
    OutputDataset,
    OutputStatisticsOutputDatasetFacet,
    RunFacet,
)
from airflow.providers.openlineage.extractors import OperatorLineage
from attrs import define

from planasonix_provider.assets.planasonix import SCHEME

if TYPE_CHECKING:
    from planasonix_provider.execution.summary import ExecutionSummary
    from planasonix_provider.waiting.report import LoadedTable

_log = logging.getLogger(__name__)


@define
class PlanasonixWorkRunFacet(RunFacet):
    """The run facet ``planasonix_work``: the values that fit no facet of OpenLineage.

    Its schema is that of any run facet, which allows any field.

    :param kind: ``job`` or ``backfill``.
    :param status: the last known state.
    :param url: the page in Planasonix's web app.
    :param errorCode: Planasonix's error code, if the work failed.
    :param partitionKeys: the partitions for which a backfill with ``partition_by`` sends asset events.
    """

    kind: str
    status: str | None = None
    url: str | None = None
    errorCode: str | None = None  # noqa: N815 - so do OpenLineage's own facets spell theirs
    partitionKeys: list[str] | None = None  # noqa: N815


def lineage_of(summary: ExecutionSummary | None, task_id: str) -> OperatorLineage[Any, Any]:
    """Return the lineage of a task that has ended, successfully or not.

    It has the loaded tables with their rows, the job or backfill, and Planasonix's error. It is empty if nothing is
    known, and after an error in here: no task fails because of its lineage.
    """
    try:
        return _lineage_of(summary) if summary else OperatorLineage()
    except Exception as error:
        _log.warning(
            "OpenLineage is not told of task %r, whose own work is not affected: %r. Please report this.",
            task_id,
            error,
        )
        return OperatorLineage()


def _lineage_of(summary: ExecutionSummary) -> OperatorLineage[Any, Any]:
    namespace = f"{SCHEME}://{summary.host}" if summary.host else SCHEME
    prefix = f"connections/{summary.connection_id}"
    tables = summary.tables or ()
    return OperatorLineage(
        inputs=[InputDataset(namespace, f"{prefix}/source/{table.name}") for table in tables],
        outputs=[
            OutputDataset(namespace, f"{prefix}/tables/{table.name}", outputFacets=_statistics_of(table))
            for table in tables
        ],
        run_facets=_run_facets(summary, namespace),
    )


def _statistics_of(table: LoadedTable) -> dict[str, Any]:
    if table.rows_loaded is None:
        return {}
    return {"outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=table.rows_loaded)}


def _run_facets(summary: ExecutionSummary, namespace: str) -> dict[str, RunFacet]:
    facets: dict[str, RunFacet] = {}
    error = summary.error
    if summary.id:
        facets["externalQuery"] = ExternalQueryRunFacet(externalQueryId=summary.id, source=namespace)
        facets["planasonix_work"] = PlanasonixWorkRunFacet(
            kind=summary.kind,
            status=summary.work.status if summary.work else None,
            url=summary.url,
            errorCode=getattr(error, "code", None),
            partitionKeys=list(summary.partition_keys) or None,
        )
    if error:
        # Airflow's listener replaces it with the exception of the task, which has the same message.
        facets["errorMessage"] = ErrorMessageRunFacet(message=error.message, programmingLanguage="python")
    return facets
