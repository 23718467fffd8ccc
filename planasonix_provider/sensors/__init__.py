"""Airflow sensors for Planasonix."""
