"""Airflow operators for Planasonix."""
