"""What a sync or a backfill has read and written, in OpenLineage's terms.

Airflow's OpenLineage provider asks for it when a task is over, and only where it asks is this module imported: whoever
has no OpenLineage installed never needs it.

A data set is a table of a Planasonix connection. The API names tables, and neither the database that they are read from
nor the one that they are written to; so both sides are named after the connection, and stand in the namespace of the
API's host, ``planasonix://api.planasonix.com``:

- ``connections/{connection_id}/tables/{table}`` is the table where Planasonix writes it, and the same data set that an
  asset of this table is;
- ``connections/{connection_id}/source/{table}`` is the table where Planasonix reads it.
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
    from planasonix_provider.operators.base import PlanasonixStartOperator
    from planasonix_provider.waiting.report import LoadedTable

_log = logging.getLogger(__name__)


@define
class PlanasonixWorkRunFacet(RunFacet):
    """What OpenLineage has no facet of its own for; a run has it as ``planasonix_work``.

    Its schema is that of any run facet, which may hold whatever it likes.

    :param kind: ``job`` or ``backfill``.
    :param status: the state that it was last seen in, where it was seen.
    :param url: the page of Planasonix's web app that tells more, where there is one.
    :param errorCode: Planasonix's code for why it failed, where there is one.
    """

    kind: str
    status: str | None = None
    url: str | None = None
    errorCode: str | None = None  # noqa: N815 - so do OpenLineage's own facets spell theirs


def lineage_of(operator: PlanasonixStartOperator) -> OperatorLineage[Any, Any]:
    """Tell what a task has read and written, as far as the process knows that ran it.

    :param operator: the operator, after its task is over, however it ended.
    :return: the tables that were loaded, with their rows, as data sets on both sides; the job or backfill; and the
        error, where Planasonix is the reason. It is empty where nothing is known, or where this goes wrong: a task
        never fails for its lineage.
    """
    try:
        if (accounted := operator._accounted) is None:
            return OperatorLineage()
        return _lineage_of(accounted)
    except Exception as fault:
        _log.warning(
            "OpenLineage is not told of task %r, whose own work is not affected: %r. Please report this.",
            operator.task_id,
            fault,
        )
        return OperatorLineage()


def _lineage_of(accounted: ExecutionSummary) -> OperatorLineage[Any, Any]:
    namespace = f"{SCHEME}://{accounted.host}" if accounted.host else SCHEME
    tables = accounted.tables or ()
    connection_id = accounted.connection_id
    return OperatorLineage(
        inputs=[InputDataset(namespace, f"connections/{connection_id}/source/{table.name}") for table in tables],
        outputs=[
            OutputDataset(
                namespace, f"connections/{connection_id}/tables/{table.name}", outputFacets=_statistics_of(table)
            )
            for table in tables
        ],
        run_facets=_run_facets(accounted, namespace),
    )


def _statistics_of(table: LoadedTable) -> dict[str, Any]:
    if table.rows_loaded is None:
        return {}
    return {"outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=table.rows_loaded)}


def _run_facets(accounted: ExecutionSummary, namespace: str) -> dict[str, RunFacet]:
    facets: dict[str, RunFacet] = {}
    error = accounted.error
    if accounted.id:
        facets["externalQuery"] = ExternalQueryRunFacet(externalQueryId=accounted.id, source=namespace)
        facets["planasonix_work"] = PlanasonixWorkRunFacet(
            kind=accounted.kind,
            status=accounted.work.status if accounted.work else None,
            url=accounted.url,
            errorCode=getattr(error, "code", None),
        )
    if error:
        # Airflow's listener puts the exception of the task in its place, which says the same.
        facets["errorMessage"] = ErrorMessageRunFacet(message=error.message, programmingLanguage="python")
    return facets
