"""Planasonix's tables as Airflow assets."""
