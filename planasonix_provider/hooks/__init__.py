"""Airflow hooks for Planasonix."""
