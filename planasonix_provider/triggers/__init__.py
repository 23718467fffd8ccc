"""Airflow triggers for Planasonix."""
