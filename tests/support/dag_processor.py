"""Registers the assets of the DAGs folder in Airflow, as its DAG processor does."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from packaging.version import Version

from tests.conftest import DAGS_FOLDER

AIRFLOW = Version(version("apache-airflow"))
#: In Airflow 3.0, a task fails if Airflow does not know its outlet, and ``dag.test()`` registers none.
IS_AIRFLOW_3_0 = Version("3") <= AIRFLOW < Version("3.1")


def make_assets_known(kind: Any, dags: list[Any]) -> None:
    """Register the assets of DAGs in the DAGs folder.

    ``dag.test()`` of Airflow 3.1 and 3.2 does it only once, and that of 3.0 never.
    """
    if hasattr(kind, "bulk_write_to_db"):
        kind.bulk_write_to_db(dags)
        return
    if IS_AIRFLOW_3_0:
        from airflow.models.dagbag import DagBag

        bag: Any = DagBag(DAGS_FOLDER, bundle_path=DAGS_FOLDER, include_examples=False)
        sync = bag.sync_to_db
    else:
        try:
            from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
        except ImportError:  # before Airflow 3.2
            from airflow.models.dagbag import BundleDagBag, sync_bag_to_db
        bag = BundleDagBag(DAGS_FOLDER, bundle_path=DAGS_FOLDER)

        def sync(*where: Any) -> None:
            sync_bag_to_db(bag, *where)

    from airflow.dag_processing.bundles.manager import DagBundlesManager

    DagBundlesManager().sync_bundles_to_db()
    sync("dags-folder", None)
