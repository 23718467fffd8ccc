"""Templates that use values which a run does not have."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException
from jinja2 import UndefinedError

from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator
from planasonix_provider.sensors.planasonix import PlanasonixSyncSensor


def in_a_dag(make: Callable[[str], Any], template: str) -> Any:
    with DAG("nightly", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)):
        return make(template)


def context(logical_date: datetime | None) -> Any:
    return {"dag_run": SimpleNamespace(logical_date=logical_date), "ti": None}


def backfill(end_at: str) -> Any:
    return PlanasonixBackfillOperator(task_id="load", connection_id="conn_1", start_at="2025-01-01", end_at=end_at)


def sensor(since: str) -> Any:
    return PlanasonixSyncSensor(task_id="wait", connection_id="conn_1", since=since)


@pytest.mark.parametrize("make", [backfill, sensor])
@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ data_interval_end }}", "data_interval_end"),
        ("{{ data_interval_start | ds }}", "data_interval_start"),
        ("{{ logical_date.isoformat() }}", "logical_date"),
        ("{{ ds }}T00:00:00Z", "ds"),
        ("{{ ts_nodash }}", "ts_nodash"),
    ],
)
def test_the_error_without_a_logical_date_suggests_another_value(make: Any, template: str, name: str) -> None:
    task = in_a_dag(make, template)
    with pytest.raises(AirflowFailException) as failed:
        task.render_template_fields(context(None))
    assert str(failed.value) == (
        f"A template uses {name}, which this run does not have: it has no logical date, because an asset event or a "
        "trigger without a date has started it. Use dag_run.run_after in the template, or a param."
    )


@pytest.mark.parametrize(
    ("template", "logical_date"),
    [("{{ my_own }}", None), ("{{ data_interval_end }}", datetime(2025, 1, 1, tzinfo=UTC))],
)
def test_other_undefined_values_raise_airflows_own_error(template: str, logical_date: datetime | None) -> None:
    with pytest.raises(UndefinedError, match="is undefined"):
        in_a_dag(backfill, template).render_template_fields(context(logical_date))


def test_defined_values_are_rendered() -> None:
    task = in_a_dag(backfill, "{{ dag_run.run_after }}")
    task.render_template_fields({"dag_run": SimpleNamespace(run_after="2025-02-01")})
    assert task.end_at == "2025-02-01"
