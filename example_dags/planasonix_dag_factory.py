"""Make a DAG of each entry of ``planasonix_dag_factory.yml``, with the package dag-factory."""

from __future__ import annotations

from pathlib import Path

from airflow.providers.common.compat.sdk import DAG  # noqa: F401 - Airflow looks for this word in DAG files
from dagfactory import load_yaml_dags

load_yaml_dags(globals_dict=globals(), config_filepath=str(Path(__file__).with_suffix(".yml")))
