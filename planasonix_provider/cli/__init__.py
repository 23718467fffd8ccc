"""The shell: ``airflow planasonix …``, and ``python -m planasonix_provider …`` for Airflow before 3.2."""
