"""The shell: ``airflow planasonix …``, and ``python -m planasonix_provider …`` where Airflow takes no such commands."""
