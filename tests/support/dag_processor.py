"""Makes the assets of the DAGs folder known to Airflow, as its DAG processor does."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from packaging.version import Version

from tests.conftest import DAGS_FOLDER

AIRFLOW = Version(version("apache-airflow"))
#: There, a task fails that has an outlet which Airflow does not know, and ``dag.test()`` makes none known.
IS_AIRFLOW_3_0 = Version("3") <= AIRFLOW < Version("3.1")


def make_assets_known(kind: Any, dags: list[Any]) -> None:
    """Let Airflow know the assets of DAGs: ``dag.test()`` of Airflow 3.1 does it but once, and that of 3.0 never.

    :param kind: the class of DAGs.
    :param dags: the DAGs, which lie in the DAGs folder.
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
            from airflow.models.dagbag import BundleDagBag, sync_bag_to_db
        except ImportError:  # a newer Airflow, whose dag.test() does it each time
            return
        bag = BundleDagBag(DAGS_FOLDER, bundle_path=DAGS_FOLDER)

        def sync(*where: Any) -> None:
            sync_bag_to_db(bag, *where)

    from airflow.dag_processing.bundles.manager import DagBundlesManager

    DagBundlesManager().sync_bundles_to_db()
    sync("dags-folder", None)
