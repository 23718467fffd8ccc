"""Loads and runs DAGs in the DAGs folder of the tests; Airflow runs only DAGs in this folder.

The fixture ``dags_folder`` empties it after each test.
"""

from __future__ import annotations

import runpy
import shutil
from importlib.metadata import version
from typing import Any

from packaging.version import Version

from dev.processes import EXAMPLE_DAGS
from tests.conftest import DAGS_FOLDER

AIRFLOW = Version(version("apache-airflow"))
#: In Airflow 3.0, a task fails if Airflow does not know its outlet, and ``dag.test()`` registers none.
IS_AIRFLOW_3_0 = Version("3") <= AIRFLOW < Version("3.1")


def load_dags(name: str, source: str) -> dict[str, Any]:
    """Write a file into the folder, and return what it defines."""
    path = DAGS_FOLDER / f"{name}.py"
    path.write_text(source)
    return runpy.run_path(str(path))


def load_example(name: str) -> dict[str, Any]:
    """Copy a file of example_dags/, with its YAML file if it has one, and return what it defines."""
    for path in EXAMPLE_DAGS.glob(f"{name}.*"):
        shutil.copy(path, DAGS_FOLDER)
    return runpy.run_path(str(DAGS_FOLDER / f"{name}.py"))


def run_dag(dag: Any) -> str:
    """Run a DAG in this process, and return the state of its run."""
    state = dag.test().state
    return str(getattr(state, "value", state))


def register_assets(kind: Any, dags: list[Any]) -> None:
    """Register the assets of DAGs in the folder, as the DAG processor does.

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
