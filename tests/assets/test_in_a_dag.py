"""The asset events in Airflow's database after a task of this provider."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, NamedTuple

import pytest
from airflow.utils.session import create_session
from packaging.version import Version

from planasonix_provider.assets.planasonix import PlanasonixTable
from planasonix_provider.testing import Planasonix
from tests.support.dags_folder import IS_AIRFLOW_3_0, load_dags, register_assets, run_dag

IS_AIRFLOW_2 = Version(version("apache-airflow")) < Version("3")

pytestmark = [pytest.mark.usefixtures("dags_folder"), pytest.mark.slow("runs whole DAGs"), pytest.mark.dag]

#: One task with three outlets of this provider and a foreign one, one with an alias, and one mapped over connections.
DAGS = """
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias

from planasonix_provider.assets.planasonix import planasonix_asset
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

LOADED, NOT_LOADED, EMPTY = (
    planasonix_asset(connection_id="conn_demo_01", table=table, host="{host}")
    for table in ("public.orders", "a/b.c d", "empty")
)
OTHERS = Asset("s3://bucket/{name}")
ALIAS = AssetAlias("alias_{name}")
HOW = dict(task_id="load", deferrable={deferrable})
SETTINGS = dict(schedule=None, is_paused_upon_creation=False)

with DAG("assets_{name}", **SETTINGS) as assets:
    PlanasonixSyncOperator(connection_id="conn_demo_01", outlets=[LOADED, NOT_LOADED, EMPTY, OTHERS], **HOW)
with DAG("alias_{name}", **SETTINGS) as alias:
    PlanasonixSyncOperator(connection_id="conn_demo_01", outlets=[LOADED, ALIAS], ignore_empty_tables=True, **HOW)
with DAG("mapped_{name}", **SETTINGS) as mapped:
    PlanasonixSyncOperator.partial(
        outlets=[
            planasonix_asset(connection_id=connection_id, table="public.orders", host="{host}")
            for connection_id in ("conn_demo_01", "conn_demo_02")
        ],
        **HOW,
    ).expand(connection_id=["conn_demo_01", "conn_demo_02"])
WAITING = dict(start_date=datetime(2025, 1, 1, tzinfo=UTC), catchup=False, is_paused_upon_creation=False)
with DAG("waits_for_loaded_{name}", schedule=[LOADED], **WAITING) as waits_for_loaded:
    pass
with DAG("waits_for_not_loaded_{name}", schedule=[NOT_LOADED], **WAITING) as waits_for_not_loaded:
    pass
with DAG("waits_for_alias_{name}", schedule=ALIAS, **WAITING) as waits_for_alias:
    pass
"""


class Event(NamedTuple):
    """A row of the table of asset events."""

    uri: str
    extra: dict[str, Any]
    map_index: int
    aliases: list[str]

    @property
    def table(self) -> str:
        return PlanasonixTable.from_uri(self.uri).table


@pytest.fixture
def dags(planasonix: Planasonix, deferrable: bool, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The DAGs, with unique names."""
    for connection_id in ("conn_demo_01", "conn_demo_02"):
        planasonix.will_succeed(connection_id, tables={"public.orders": 44_802, "empty": 0})
    name = f"{request.node.originalname}_{'deferred' if deferrable else 'worker'}"
    host = planasonix.simulator.url.removeprefix("http://")
    dags = load_dags(name, DAGS.format(host=host, deferrable=deferrable, name=name))
    if IS_AIRFLOW_2 or IS_AIRFLOW_3_0:
        register_assets(dags["DAG"], [dag for dag in dags.values() if isinstance(dag, dags["DAG"])])
    return dags


def events_after(dag: Any) -> list[Event]:
    """Run a DAG; return the events of its task, sorted by asset."""
    outlets = {task_id: list(task.outlets) for task_id, task in dag.task_dict.items()}
    assert run_dag(dag) == "success"
    assert outlets == {task_id: list(task.outlets) for task_id, task in dag.task_dict.items()}
    with create_session() as session:
        events = [
            Event(row.uri, row.extra, row.source_map_index, sorted(alias.name for alias in row.source_aliases))
            for row in session.query(model("Event")).filter_by(source_dag_id=dag.dag_id)
        ]
    return sorted(events, key=lambda event: event.uri)


def model(name: str) -> Any:
    """Return a model of Airflow's database; Airflow 2 has datasets instead of assets."""
    if IS_AIRFLOW_2:
        from airflow.models import dataset

        return getattr(dataset, f"Dataset{name}")
    from airflow.models import asset

    return getattr(asset, f"Asset{name}")


def test_each_loaded_outlet_has_an_event_with_details(planasonix: Planasonix, dags: dict[str, Any]) -> None:
    empty, orders, others = events_after(dags["assets"])
    job_id = planasonix.assert_started("conn_demo_01").id
    assert [orders.table, empty.table, others.uri] == ["public.orders", "empty", dags["OTHERS"].uri]
    assert others.extra == {}
    assert {key: value for key, value in orders.extra.items() if key not in ("checksum", "window")} == {
        "job_id": job_id,
        "connection_id": "conn_demo_01",
        "table": "public.orders",
        "rows_loaded": 44_802,
        "job_url": f"{planasonix.simulator.url}/jobs/{job_id}",
    }
    assert set(orders.extra["window"]) == {"start_at", "end_at"}
    assert orders.extra["checksum"].startswith("sha256:")


def test_an_alias_has_an_event_for_each_table(dags: dict[str, Any]) -> None:
    (orders,) = events_after(dags["alias"])
    assert orders.uri == dags["LOADED"].uri
    assert orders.aliases == [dags["ALIAS"].name]
    assert orders.extra["rows_loaded"] == 44_802
    if IS_AIRFLOW_3_0:
        assert {"window_start_at", "window_end_at"} <= set(orders.extra)
    else:
        assert set(orders.extra["window"]) == {"start_at", "end_at"}
    # In another run, the alias and its assets exist already.
    assert [event.table for event in events_after(dags["alias"])] == ["public.orders"] * 2


def test_each_mapped_task_has_the_event_of_its_connection(dags: dict[str, Any]) -> None:
    events = events_after(dags["mapped"])
    assert [(event.map_index, event.extra["connection_id"]) for event in events] == [
        (0, "conn_demo_01"),
        (1, "conn_demo_02"),
    ]


@pytest.mark.skipif(not IS_AIRFLOW_2, reason="tests/system/test_assets.py tests it in a running Airflow 3")
def test_airflow_2_queues_the_dags_that_wait_for_the_events(dags: dict[str, Any]) -> None:
    def to_start() -> set[str]:
        with create_session() as session:
            found = {row.target_dag_id for row in session.query(model("DagRunQueue"))}
            session.query(model("DagRunQueue")).delete()
        return {name for name, dag in dags.items() if getattr(dag, "dag_id", None) in found}

    to_start()
    events_after(dags["assets"])
    assert to_start() == {"waits_for_loaded"}
    events_after(dags["alias"])
    assert to_start() == {"waits_for_loaded", "waits_for_alias"}
