"""Airflow assets for the tables that Planasonix loads."""
